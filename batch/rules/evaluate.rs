//! Three-valued evaluation of an expression for one row of fields.

use std::{borrow::Cow, cmp::Ordering};

use crate::{
    expression::{Expression, Node, Operand},
    lexer::Operator,
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
pub(crate) enum NoValue {
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

/// What a part of an expression comes to in a row.
pub(crate) fn evaluate(node: &Node, row: &impl Fields) -> Result<bool, NoValue> {
    match node {
        Node::And(nodes) => join(nodes, row, true),
        Node::Or(nodes) => join(nodes, row, false),
        Node::Not(inner) => evaluate(inner, row).map(|truth| !truth),
        Node::Truth(Operand::Macro(inner)) => evaluate(inner, row),
        Node::Truth(operand) => value(operand, row).map(|value| value.is_true()),
        Node::Compare(left, operator, right) => {
            let (left, right) = (value(left, row)?, value(right, row)?);
            Ok(compare(&left, *operator, &right))
        }
    }
}

/// All of them (`and`) or any (`or`). The part that decides wins over an error, or what is not known yet, on the others;
/// what is pending wins over an error, since it can still decide.
fn join(nodes: &[Node], row: &impl Fields, neutral: bool) -> Result<bool, NoValue> {
    let mut without: Option<NoValue> = None;
    for node in nodes {
        match evaluate(node, row) {
            Ok(truth) if truth != neutral => return Ok(truth),
            Ok(_) => {}
            Err(NoValue::Pending) => without = Some(NoValue::Pending),
            Err(missing) => {
                without.get_or_insert(missing);
            }
        }
    }
    without.map_or(Ok(neutral), Err)
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
        Operand::Call(function, arguments) => {
            let arguments: Result<Vec<_>, _> = arguments.iter().map(|argument| value(argument, row)).collect();
            Ok(Cow::Owned(function.call(&arguments?)))
        }
        Operand::Macro(inner) => evaluate(inner, row).map(|truth| Cow::Owned(Value::Bool(truth))),
    }
}

pub(crate) fn compare(left: &Value<'_>, operator: Operator, right: &Value<'_>) -> bool {
    let ordered = |accept: fn(Ordering) -> bool| left.order(right).is_some_and(accept);
    match operator {
        Operator::Eq | Operator::Matches => left.equals(right),
        Operator::Ne => left.differs(right),
        Operator::Gt => ordered(Ordering::is_gt),
        Operator::Ge => ordered(Ordering::is_ge),
        Operator::Lt => ordered(Ordering::is_lt),
        Operator::Le => ordered(Ordering::is_le),
        Operator::Contains => left.contains(right),
        Operator::In => left.is_in(right),
    }
}
