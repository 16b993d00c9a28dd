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

impl Expression {
    /// Answers for one row.
    ///
    /// # Errors
    ///
    /// A field that decides the answer is missing.
    pub fn evaluate(&self, row: &impl Fields) -> Outcome {
        evaluate(&self.root, row)
    }
}

fn evaluate(node: &Node, row: &impl Fields) -> Outcome {
    match node {
        // The side that decides wins over an error on the other one.
        Node::And(left, right) => match evaluate(left, row) {
            Ok(false) => Ok(false),
            Ok(true) => evaluate(right, row),
            Err(error) => evaluate(right, row).and_then(|right| if right { Err(error) } else { Ok(false) }),
        },
        Node::Or(left, right) => match evaluate(left, row) {
            Ok(true) => Ok(true),
            Ok(false) => evaluate(right, row),
            Err(error) => evaluate(right, row).and_then(|right| if right { Ok(true) } else { Err(error) }),
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

fn value<'a>(operand: &'a Operand, row: &'a impl Fields) -> Result<Cow<'a, Value<'a>>, EvaluationError> {
    match operand {
        Operand::Literal(literal) => Ok(Cow::Borrowed(literal)),
        Operand::Field(name) => row.field(name).map(Cow::Owned).ok_or_else(|| EvaluationError { field: name.clone() }),
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
