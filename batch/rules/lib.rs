//! Rulekit: the expression language of rules and macros.
//!
//! [`Rules::compile`] parses and checks expressions with their macros once. [`Expression::evaluate_columns`] answers for
//! all rows of a batch with one boolean column and one column of errors; [`Expression::evaluate`] answers for one row
//! and is what the columns are compared with; [`Expression::evaluate_early`] answers for a row that is not complete.
//!
//! Invariants:
//!
//! - Knows nothing of HTTP: fields are looked up by name through [`Fields`] and [`Columns`].
//! - Whatever text is given, parsing ends with an expression or an error that shows the place; nesting, length and size
//!   with macros put in are bounded, regular expressions run in linear time.
//! - A field that is missing is an error of the evaluation, not false; the error is a value that callers count.
#![forbid(unsafe_code)]

mod columns;
mod counts;
mod evaluate;
mod expression;
mod functions;
mod lexer;
mod macros;
mod parser;
mod value;

pub use columns::{Column, Columns, Outcomes};
pub use counts::{Counted, RuleCounts};
pub use evaluate::{EvaluationError, Fields, Outcome};
pub use expression::Expression;
pub use macros::Rules;
pub use parser::ParseError;
pub use value::{Mac, Value};

#[cfg(test)]
mod tests;
