//! Rulekit: the expression language of rules and macros.
//!
//! [`Rules::compile`] parses and checks expressions with their macros once; [`Expression::evaluate`] answers for one row
//! of fields with a three-valued [`Outcome`].
//!
//! Invariants:
//!
//! - Knows nothing of HTTP: fields are looked up by name through [`Fields`].
//! - Whatever text is given, parsing ends with an expression or an error that shows the place; nesting and length are
//!   bounded, regular expressions run in linear time.
//! - A field that is missing is an error of the evaluation, not false; the error is a value that callers count.
#![forbid(unsafe_code)]

mod evaluate;
mod lexer;
mod parser;
mod value;

pub use evaluate::{EvaluationError, Fields, Outcome};
pub use parser::{Expression, ParseError, Rules};
pub use value::Value;
