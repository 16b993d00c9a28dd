//! The language, case by case, and what it refuses.

use super::*;

mod cases;

/// A row of which some fields are still to come.
struct Partial(&'static [&'static str]);

impl Fields for Partial {
    fn field(&self, name: &str) -> Option<Value<'_>> {
        match name {
            "http.res.status" => Some(Value::Int(503)),
            "http.req.method" => Some(Value::text("POST")),
            _ => None,
        }
    }

    fn is_pending(&self, name: &str) -> bool {
        self.0.contains(&name)
    }
}

/// What is answered early stays the answer, whatever comes; what is not certain is not answered.
#[test]
fn early_answers_are_final() {
    let rules = Rules::default();
    let early = |text| rules.compile(text).expect("it parses").evaluate_early(&Partial(&["http.res.status"]));
    assert_eq!(early("http.res.status >= 500"), None);
    assert_eq!(early("http.req.method == 'GET' and http.res.status >= 500"), Some(Ok(false)));
    assert_eq!(early("http.res.status >= 500 and http.req.method == 'GET'"), Some(Ok(false)));
    assert_eq!(early("http.res.status >= 500 or http.req.method == 'POST'"), Some(Ok(true)));
    assert_eq!(early("not (http.res.status >= 500)"), None);
    assert_eq!(early("missing == 1 or http.res.status >= 500"), None);
    assert_eq!(early("http.res.status >= 500 and missing == 1"), None);
    assert!(matches!(early("missing == 1"), Some(Err(_))));
}

#[test]
fn errors_show_the_place() {
    let error = Rules::default().compile("a == 1 and\n b > 'x'").expect_err("a text is no number");
    assert_eq!((error.line, error.column), (2, 6));
    assert!(error.to_string().ends_with("\n   b > 'x'\n       ^"), "{error}");
}

#[test]
fn circular_macros_are_refused() {
    let (name, error) = Rules::new([("a", "b()"), ("b", "a() or x")]).expect_err("a circle");
    assert_eq!(name, "a");
    assert!(error.message.contains("cannot call themselves"), "{}", error.message);
}

#[test]
fn macros_need_names_of_their_own() {
    for (macros, why) in [
        (vec![("starts_with", "a")], "has the name of a function"),
        (vec![("zone", "a")], "has the name of a function"),
        (vec![("a", "b"), ("a", "c")], "is defined twice"),
        (vec![("a b", "c")], "is no name"),
        (vec![("", "c")], "is no name"),
    ] {
        let (_, error) = Rules::new(macros).expect_err("no such name");
        assert!(error.message.contains(why), "{}", error.message);
    }
}

/// Sixty-four macros, each twice the one before, would be larger than any memory.
#[test]
fn macros_cannot_grow_without_end() {
    let names: Vec<String> = (0..64).map(|n| format!("m{n}")).collect();
    let texts: Vec<String> = (0..64).map(|n| format!("m{0}() or m{0}()", n + 1)).collect();
    let mut macros: Vec<(&str, &str)> = names.iter().zip(&texts).map(|(n, t)| (n.as_str(), t.as_str())).collect();
    macros.push(("m64", "a"));
    let (_, error) = Rules::new(macros).expect_err("too large");
    assert!(error.message.contains("parts, with macros put in") || error.message.contains("deep"), "{}", error.message);
}

#[test]
fn mixed_operators_show_how_they_are_read() {
    let rules = Rules::default();
    let grouping = |text| rules.compile(text).expect("it parses").grouping().map(str::to_owned);
    assert_eq!(grouping("a and b or c").as_deref(), Some("a and (b or c)"));
    assert_eq!(grouping("a or b and c").as_deref(), Some("(a or b) and c"));
    assert_eq!(
        grouping("x == 1 || y matches /b/ -- why\n && (a and b or c)").as_deref(),
        Some("(x == 1 || y matches /b/) -- why\n && (a and (b or c))")
    );
    assert_eq!(grouping("a and (b or c)"), None);
    assert_eq!(grouping("a and b and c"), None);
    assert_eq!(grouping("(a or b) and c"), None);
}

/// Whatever bytes are given, parsing ends.
#[test]
fn noise_is_refused_not_feared() {
    let deep = "(".repeat(10_000);
    let long = "a or ".repeat(100_000);
    let regexes = "a =~ /x/ or ".repeat(100);
    for text in [
        "", "(", ")", "a ==", "== a", "[", "/", "'", "a in []", "\u{0}", "é", "1..2", "--", "/*", "+", "a in [1",
        &deep, &long, &regexes,
    ] {
        assert!(Rules::default().compile(text).is_err(), "{text:.20}");
    }
    let wide = format!("a{}", " and a".repeat(2000));
    let expression = Rules::default().compile(&wide).expect("wide is not deep");
    assert!(expression.evaluate(&Partial(&[])).is_err());
}
