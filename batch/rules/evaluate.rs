//! Three-valued evaluation of an expression for one row of fields.

use std::borrow::Cow;

use crate::{
    lexer::Operator,
    parser::{Expression, Node, Operand},
    value::Value,
};

/// A row of fields.
pub trait Fields {
    /// The value of a field; `None` if the row has none.
    fn field(&self, name: &str) -> Option<Value<'_>>;

    /// Whether the value of a field can still change: the row is not complete yet.
    fn is_pending(&self, _name: &str) -> bool {
        false
    }
}

/// Why an evaluation has no truth value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no field `{field}`")]
pub struct EvaluationError {
    /// The field that is missing.
    pub field: String,
}

/// True, false, or an error.
pub type Outcome = Result<bool, EvaluationError>;

/// Why a part of an expression has no value.
enum NoValue {
    Missing(EvaluationError),
    /// The row can still change it.
    Pending,
}

impl Expression {
    /// Answers for one complete row.
    ///
    /// # Errors
    ///
    /// A field that decides the answer is missing.
    pub fn evaluate(&self, row: &impl Fields) -> Outcome {
        match evaluate(&self.root, row) {
            Ok(truth) => Ok(truth),
            Err(NoValue::Missing(error)) => Err(error),
            Err(NoValue::Pending) => Err(EvaluationError { field: String::new() }),
        }
    }

    /// Answers for a row that is not complete: `None` if a field that can still change decides the answer.
    pub fn evaluate_early(&self, row: &impl Fields) -> Option<Outcome> {
        match evaluate(&self.root, row) {
            Ok(truth) => Some(Ok(truth)),
            Err(NoValue::Missing(error)) => Some(Err(error)),
            Err(NoValue::Pending) => None,
        }
    }
}

fn evaluate(node: &Node, row: &impl Fields) -> Result<bool, NoValue> {
    match node {
        // The side that decides wins over an error, or what is not known yet, on the other one.
        Node::And(left, right) => match evaluate(left, row) {
            Ok(false) => Ok(false),
            Ok(true) => evaluate(right, row),
            Err(left) => both(left, &evaluate(right, row), false),
        },
        Node::Or(left, right) => match evaluate(left, row) {
            Ok(true) => Ok(true),
            Ok(false) => evaluate(right, row),
            Err(left) => both(left, &evaluate(right, row), true),
        },
        Node::Not(inner) => evaluate(inner, row).map(|truth| !truth),
        Node::Macro(inner) => evaluate(inner, row),
        Node::Truth(operand) => value(operand, row).map(|value| value.is_true()),
        Node::Compare(left, operator, right) => {
            let (left, right) = (value(left, row)?, value(right, row)?);
            Ok(compare(&left, *operator, &right))
        }
    }
}

/// The left side has no value: the right one decides if it can; what is pending stays so.
fn both(left: NoValue, right: &Result<bool, NoValue>, decides: bool) -> Result<bool, NoValue> {
    match right {
        Ok(truth) if *truth == decides => Ok(decides),
        Err(NoValue::Pending) => Err(NoValue::Pending),
        _ => Err(left),
    }
}

fn value<'a>(operand: &'a Operand, row: &'a impl Fields) -> Result<Cow<'a, Value<'a>>, NoValue> {
    match operand {
        Operand::Literal(literal) => Ok(Cow::Borrowed(literal)),
        Operand::Field(name) if row.is_pending(name) => Err(NoValue::Pending),
        Operand::Field(name) => {
            let missing = || NoValue::Missing(EvaluationError { field: name.clone() });
            row.field(name).map(Cow::Owned).ok_or_else(missing)
        }
        Operand::Array(items) => {
            let values: Result<Vec<_>, _> = items.iter().map(|item| value(item, row).map(Cow::into_owned)).collect();
            Ok(Cow::Owned(Value::Array(values?)))
        }
        Operand::StartsWith(arguments) => {
            let (text, prefix) = (value(&arguments.0, row)?, value(&arguments.1, row)?);
            Ok(Cow::Owned(Value::Bool(text.print().starts_with(&prefix.print()))))
        }
    }
}

fn compare(left: &Value<'_>, operator: Operator, right: &Value<'_>) -> bool {
    let ordered = |accept: fn(f64, f64) -> bool| match (left.number(), right.number()) {
        (Some(a), Some(b)) => accept(a, b),
        _ => false,
    };
    match operator {
        Operator::Eq | Operator::Matches => left.equals(right),
        Operator::Ne => left.differs(right),
        Operator::Gt => ordered(|a, b| a > b),
        Operator::Ge => ordered(|a, b| a >= b),
        Operator::Lt => ordered(|a, b| a < b),
        Operator::Le => ordered(|a, b| a <= b),
        Operator::Contains => left.contains(right),
        Operator::In => match right {
            Value::Array(items) => items.iter().any(|item| item.equals(left)),
            range => left.equals(range),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rules;

    /// Fields as `name=value` lines, typed by how the value looks.
    struct Row(Vec<(&'static str, Value<'static>)>);

    impl Fields for Row {
        fn field(&self, name: &str) -> Option<Value<'_>> {
            self.0.iter().find(|(n, _)| *n == name).map(|(_, value)| value.clone())
        }
    }

    fn row() -> Row {
        Row(vec![
            ("http.res.status", Value::Int(503)),
            ("http.req.method", Value::text("POST")),
            ("http.req.path", Value::text("/api/v1/items")),
            ("http.req.headers.x-api-key", Value::text("k")),
            ("dst.ip", Value::Ip("10.1.2.3".parse().expect("an address"))),
            ("tags", Value::Texts(vec!["env:prod".into(), "bin:curl".into()])),
            ("empty", Value::text("")),
        ])
    }

    /// Every case of `tests/rules/*.txt`: `expression => true | false | error FIELD | refused TEXT`.
    #[test]
    fn text_cases() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/rules");
        let macros =
            [("is_error", "http.res.status >= 400 && http.res.status < 600"), ("is_post", "http.req.method == 'POST'")];
        let rules = Rules::new(macros).expect("the macros parse");
        let mut cases = 0;
        for file in std::fs::read_dir(folder).expect("there are cases") {
            let path = file.expect("readable").path();
            let text = std::fs::read_to_string(&path).expect("readable");
            for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
                let (expression, expected) = line.rsplit_once("=>").expect("each case has an outcome");
                let outcome = match rules.compile(expression.trim()) {
                    Err(error) => format!("refused {}", error.message),
                    Ok(expression) => match expression.evaluate(&row()) {
                        Ok(truth) => truth.to_string(),
                        Err(error) => format!("error {}", error.field),
                    },
                };
                assert!(outcome.starts_with(expected.trim()), "{}: {expression}=> {outcome}", path.display());
                cases += 1;
            }
        }
        assert!(cases > 50, "only {cases} cases ran");
    }

    /// A row of which some fields are still to come.
    struct Partial(Row, &'static [&'static str]);

    impl Fields for Partial {
        fn field(&self, name: &str) -> Option<Value<'_>> {
            self.0.field(name)
        }

        fn is_pending(&self, name: &str) -> bool {
            self.1.contains(&name)
        }
    }

    /// What is answered early stays the answer, whatever comes; what is not certain is not answered.
    #[test]
    fn early_answers_are_final() {
        let partial = Partial(row(), &["http.res.status"]);
        let rules = Rules::default();
        let early = |text| rules.compile(text).expect("it parses").evaluate_early(&partial);
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
    fn mixed_operators_are_noticed() {
        let mixed = |text| Rules::default().compile(text).expect("it parses").mixes_and_with_or();
        assert!(mixed("a and b or c"));
        assert!(!mixed("a and (b or c)"));
        assert!(!mixed("a and b and c"));
    }

    /// Whatever bytes are given, parsing ends.
    #[test]
    fn noise_is_refused_not_feared() {
        let deep = "(".repeat(10_000);
        let long = "a or ".repeat(100_000);
        for text in
            ["", "(", ")", "a ==", "== a", "[", "/", "'", "a in []", "\u{0}", "é", "1..2", "--", "/*", &deep, &long]
        {
            assert!(Rules::default().compile(text).is_err(), "{text:.20}");
        }
    }
}
