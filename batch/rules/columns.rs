//! Evaluation of an expression for all rows of a batch, column by column.
//!
//! Truth is a boolean column whose nulls are errors, so that Arrow's Kleene kernels are the three-valued logic: a side
//! that decides wins over an error on the other. Comparisons of a column with a literal of its type are Arrow kernels;
//! every other one goes through the values row by row, in the same words as the evaluation of a single row.

use std::{cell::RefCell, rc::Rc};

use arrow_arith::boolean::{and_kleene, not, or, or_kleene};
use arrow_array::{Array, ArrayRef, BooleanArray, Datum, Float64Array, Int64Array, Scalar, StringArray, UInt16Array};
use arrow_buffer::{BooleanBuffer, NullBuffer};
use arrow_ord::cmp;
use arrow_schema::ArrowError;
use arrow_string::like;

use crate::{
    evaluate::{Fields, NoValue, compare, evaluate},
    expression::{Expression, Node, Operand},
    functions::Function,
    lexer::Operator,
    value::Value,
};

/// A batch whose fields are columns.
pub trait Columns {
    /// Number of rows.
    fn rows(&self) -> usize;

    /// The column of a field.
    fn column(&self, name: &str) -> Column<'_>;
}

/// A field of all rows. A null is a field that the row lacks.
#[derive(Debug, Clone)]
pub enum Column<'a> {
    /// No row has it.
    Missing,
    /// Texts.
    Text(StringArray),
    /// Whole numbers.
    Int(Int64Array),
    /// Other numbers.
    Float(Float64Array),
    /// Truth.
    Bool(BooleanArray),
    /// Of any type, row by row.
    Values(Vec<Option<Value<'a>>>),
}

impl Column<'_> {
    fn value(&self, row: usize) -> Option<Value<'_>> {
        match self {
            Self::Missing => None,
            Self::Text(array) => array.is_valid(row).then(|| Value::text(array.value(row))),
            Self::Int(array) => array.is_valid(row).then(|| Value::Int(array.value(row).into())),
            Self::Float(array) => array.is_valid(row).then(|| Value::Float(array.value(row))),
            Self::Bool(array) => array.is_valid(row).then(|| Value::Bool(array.value(row))),
            Self::Values(values) => values[row].clone(),
        }
    }
}

/// The answers for all rows.
#[derive(Debug, Clone)]
pub struct Outcomes {
    /// True, false, or null where there is an error.
    pub truth: BooleanArray,
    /// Which of [`Expression::fields`] is missing, where there is an error; `None`: nowhere.
    pub errors: Option<UInt16Array>,
}

impl Outcomes {
    /// The rows that match: neither false nor an error.
    #[must_use]
    pub fn matching(&self) -> BooleanBuffer {
        match self.truth.nulls() {
            Some(valid) => self.truth.values() & valid.inner(),
            None => self.truth.values().clone(),
        }
    }
}

impl Expression {
    /// Answers for all rows of a batch.
    #[must_use]
    pub fn evaluate_columns(&self, batch: &dyn Columns) -> Outcomes {
        let evaluation = Evaluation { batch, rows: batch.rows(), fields: &self.fields, known: RefCell::default() };
        let Truth { truth, causes } = evaluation.node(&self.root);
        let errors = truth.nulls().filter(|nulls| nulls.null_count() > 0).map(|nulls| {
            let erring = NullBuffer::new(!nulls.inner());
            UInt16Array::new(causes.expect("a truth with nulls has causes").into(), Some(erring))
        });
        Outcomes { truth, errors }
    }
}

/// A boolean column; its nulls are errors, with the field that is missing.
struct Truth {
    truth: BooleanArray,
    /// Meaningful where `truth` is null.
    causes: Option<Vec<u16>>,
}

struct Evaluation<'a> {
    batch: &'a dyn Columns,
    rows: usize,
    fields: &'a [String],
    /// Columns that were asked for, in the order of `fields`.
    known: RefCell<Vec<(u16, Rc<Column<'a>>)>>,
}

impl<'a> Evaluation<'a> {
    fn node(&self, node: &Node) -> Truth {
        match node {
            Node::And(nodes) => self.join(nodes, and_kleene, |truth| truth.true_count() + truth.null_count() == 0),
            Node::Or(nodes) => self.join(nodes, or_kleene, |truth| truth.true_count() == truth.len()),
            Node::Not(inner) => {
                let Truth { truth, causes } = self.node(inner);
                Truth { truth: not(&truth).expect(FITTING), causes }
            }
            Node::Truth(Operand::Macro(inner)) => self.node(inner),
            Node::Truth(Operand::Literal(value)) => self.everywhere(value.is_true()),
            Node::Truth(Operand::Field(name)) => self.truth_of(name).unwrap_or_else(|| self.by_row(node)),
            Node::Truth(Operand::Call(Function::StartsWith, arguments)) => {
                self.starts_with(arguments).unwrap_or_else(|| self.by_row(node))
            }
            Node::Compare(Operand::Field(name), operator, Operand::Literal(literal)) => {
                self.compare(name, *operator, literal).unwrap_or_else(|| self.by_row(node))
            }
            Node::Truth(_) | Node::Compare(..) => self.by_row(node),
        }
    }

    /// Joins from left to right; `decided` says when no further part can change anything.
    fn join(
        &self,
        nodes: &[Node],
        kernel: fn(&BooleanArray, &BooleanArray) -> Result<BooleanArray, ArrowError>,
        decided: fn(&BooleanArray) -> bool,
    ) -> Truth {
        let mut nodes = nodes.iter();
        let mut all = self.node(nodes.next().expect("two or more parts"));
        for node in nodes {
            if decided(&all.truth) {
                break;
            }
            let next = self.node(node);
            let truth = kernel(&all.truth, &next.truth).expect(FITTING);
            let causes = first_causes(all, next);
            all = Truth { truth, causes };
        }
        all
    }

    fn everywhere(&self, value: bool) -> Truth {
        let values = if value { BooleanBuffer::new_set(self.rows) } else { BooleanBuffer::new_unset(self.rows) };
        Truth { truth: BooleanArray::new(values, None), causes: None }
    }

    fn nowhere(&self, field: u16) -> Truth {
        let truth = BooleanArray::new(BooleanBuffer::new_unset(self.rows), Some(NullBuffer::new_null(self.rows)));
        Truth { truth, causes: Some(vec![field; self.rows]) }
    }

    /// What a kernel made of one field.
    fn of_field(&self, field: u16, truth: Result<BooleanArray, ArrowError>) -> Truth {
        let truth = truth.expect(FITTING);
        let causes = (truth.null_count() > 0).then(|| vec![field; self.rows]);
        Truth { truth, causes }
    }

    fn index(&self, name: &str) -> u16 {
        let at = self.fields.binary_search_by(|field| field.as_str().cmp(name)).expect("the expression's own field");
        u16::try_from(at).expect("an expression has fewer fields than bytes")
    }

    fn column(&self, name: &str) -> (u16, Rc<Column<'a>>) {
        let index = self.index(name);
        let known = self.known.borrow().iter().find(|(at, _)| *at == index).map(|(_, column)| column.clone());
        let column = known.unwrap_or_else(|| {
            let column = Rc::new(self.batch.column(name));
            self.known.borrow_mut().push((index, column.clone()));
            column
        });
        (index, column)
    }

    fn truth_of(&self, name: &str) -> Option<Truth> {
        let (index, column) = self.column(name);
        Some(match &*column {
            Column::Missing => self.nowhere(index),
            Column::Bool(array) => self.of_field(index, Ok(array.clone())),
            Column::Int(array) => self.of_field(index, cmp::neq(array, &Int64Array::new_scalar(0))),
            Column::Text(array) => self.of_field(index, cmp::neq(array, &StringArray::new_scalar(""))),
            Column::Float(_) | Column::Values(_) => return None,
        })
    }

    fn starts_with(&self, arguments: &[Operand]) -> Option<Truth> {
        let [Operand::Field(name), Operand::Literal(Value::Text(prefix))] = arguments else { return None };
        let (index, column) = self.column(name);
        let Column::Text(array) = &*column else { return None };
        Some(self.of_field(index, like::starts_with(array, &StringArray::new_scalar(&**prefix))))
    }

    /// A column with a literal of its type; `None`: there is no kernel for it.
    fn compare(&self, name: &str, operator: Operator, literal: &Value<'_>) -> Option<Truth> {
        let (index, column) = self.column(name);
        let truth = match (&*column, literal) {
            (Column::Missing, _) => return Some(self.nowhere(index)),
            (Column::Text(array), Value::Text(text)) => text_with(array, operator, text)?,
            (Column::Text(array), Value::Regex(regex)) => {
                let wanted = match operator {
                    Operator::Eq | Operator::Matches | Operator::Contains => true,
                    Operator::Ne => false,
                    _ => return None,
                };
                let values = BooleanBuffer::collect_bool(array.len(), |row| {
                    array.is_valid(row) && regex.is_match(array.value(row)) == wanted
                });
                Ok(BooleanArray::new(values, array.nulls().cloned()))
            }
            (Column::Int(array), Value::Int(n)) => {
                int_with(array, operator, &Int64Array::new_scalar(i64::try_from(*n).ok()?))?
            }
            (Column::Text(array), Value::Array(items)) => any_equals(array, operator, items, |item| match item {
                Value::Text(text) => {
                    Some(Scalar::new(std::sync::Arc::new(StringArray::from(vec![&**text])) as ArrayRef))
                }
                _ => None,
            })?,
            (Column::Int(array), Value::Array(items)) => any_equals(array, operator, items, |item| match item {
                Value::Int(n) => {
                    let n = i64::try_from(*n).ok()?;
                    Some(Scalar::new(std::sync::Arc::new(Int64Array::from(vec![n])) as ArrayRef))
                }
                _ => None,
            })?,
            (Column::Values(values), literal) => {
                Ok(values.iter().map(|value| Some(compare(value.as_ref()?, operator, literal))).collect())
            }
            _ => return None,
        };
        Some(self.of_field(index, truth))
    }

    /// Through the values, in the words of the evaluation of one row.
    fn by_row(&self, node: &Node) -> Truth {
        let columns: Vec<Option<Rc<Column<'a>>>> = {
            let mut named = Vec::new();
            leaf_fields(node, &mut named);
            let mut columns = vec![None; self.fields.len()];
            for name in named {
                let (index, column) = self.column(name);
                columns[usize::from(index)] = Some(column);
            }
            columns
        };
        let mut causes = None;
        let mut valid = BooleanBuffer::new_set(self.rows);
        let mut erring = Vec::new();
        let values = BooleanBuffer::collect_bool(self.rows, |row| {
            match evaluate(node, &RowOf { evaluation: self, columns: &columns, row }) {
                Ok(truth) => truth,
                Err(NoValue::Missing(error)) => {
                    erring.push((row, self.index(&error.field)));
                    false
                }
                Err(NoValue::Pending) => false,
            }
        });
        if !erring.is_empty() {
            let mut by_row = vec![0; self.rows];
            let mut missing = vec![false; self.rows];
            for (row, field) in erring {
                (by_row[row], missing[row]) = (field, true);
            }
            valid = BooleanBuffer::collect_bool(self.rows, |row| !missing[row]);
            causes = Some(by_row);
        }
        let nulls = causes.as_ref().map(|_| NullBuffer::new(valid));
        Truth { truth: BooleanArray::new(values, nulls), causes }
    }
}

const FITTING: &str = "columns of one batch have one length, and kernels get the types they take";

/// Where both sides have no answer, the left one's cause counts.
fn first_causes(left: Truth, right: Truth) -> Option<Vec<u16>> {
    match (left.causes, right.causes) {
        (Some(mut causes), Some(others)) => {
            for (row, other) in others.into_iter().enumerate() {
                if left.truth.is_valid(row) {
                    causes[row] = other;
                }
            }
            Some(causes)
        }
        (one, other) => one.or(other),
    }
}

fn leaf_fields<'n>(node: &'n Node, to: &mut Vec<&'n str>) {
    fn of<'n>(operand: &'n Operand, to: &mut Vec<&'n str>) {
        match operand {
            Operand::Literal(_) => {}
            Operand::Field(name) => to.push(name),
            Operand::Array(items) | Operand::Call(_, items) => items.iter().for_each(|item| of(item, to)),
            Operand::Macro(inner) => leaf_fields(inner, to),
        }
    }
    match node {
        Node::And(nodes) | Node::Or(nodes) => nodes.iter().for_each(|node| leaf_fields(node, to)),
        Node::Not(inner) => leaf_fields(inner, to),
        Node::Truth(operand) => of(operand, to),
        Node::Compare(left, _, right) => {
            of(left, to);
            of(right, to);
        }
    }
}

/// One row of the columns.
struct RowOf<'e, 'a> {
    evaluation: &'e Evaluation<'a>,
    columns: &'e [Option<Rc<Column<'a>>>],
    row: usize,
}

impl Fields for RowOf<'_, '_> {
    fn field(&self, name: &str) -> Option<Value<'_>> {
        self.columns[usize::from(self.evaluation.index(name))].as_ref()?.value(self.row)
    }
}

type Made = Result<BooleanArray, ArrowError>;

fn text_with(array: &StringArray, operator: Operator, text: &str) -> Option<Made> {
    let scalar = StringArray::new_scalar(text);
    Some(match operator {
        Operator::Eq => cmp::eq(array, &scalar),
        Operator::Ne => cmp::neq(array, &scalar),
        Operator::Contains => like::contains(array, &scalar),
        _ => return None,
    })
}

fn int_with(array: &Int64Array, operator: Operator, scalar: &dyn Datum) -> Option<Made> {
    Some(match operator {
        Operator::Eq => cmp::eq(array, scalar),
        Operator::Ne => cmp::neq(array, scalar),
        Operator::Gt => cmp::gt(array, scalar),
        Operator::Ge => cmp::gt_eq(array, scalar),
        Operator::Lt => cmp::lt(array, scalar),
        Operator::Le => cmp::lt_eq(array, scalar),
        _ => return None,
    })
}

/// Whether any item equals; all items must be of the column's type.
fn any_equals(
    array: &dyn Datum,
    operator: Operator,
    items: &[Value<'_>],
    scalar: impl Fn(&Value<'_>) -> Option<Scalar<ArrayRef>>,
) -> Option<Made> {
    if !matches!(operator, Operator::In | Operator::Eq) {
        return None;
    }
    let scalars: Vec<_> = items.iter().map(scalar).collect::<Option<_>>()?;
    let equals = |scalar| cmp::eq(array, scalar);
    let (first, rest) = scalars.split_first()?;
    Some(rest.iter().try_fold(equals(first).ok()?, |all, scalar| or(&all, &equals(scalar)?)))
}

#[cfg(test)]
mod tests;
