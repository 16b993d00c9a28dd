//! The parser of rules: whatever text is given, it ends with an expression or an error with a place inside of the text;
//! and of what it takes, the columns say the same as the rows.
#![no_main]

use arrow_array::Array as _;
use libfuzzer_sys::fuzz_target;
use ringtap_rules::{Column, Columns, Fields, Rules, Value};

const ROWS: usize = 4;

/// Four rows in which every field is there, or not, by its name.
struct Batch;

impl Batch {
    fn value(name: &str, row: usize) -> Option<Value<'static>> {
        Some(match (name.len() + row) % 6 {
            0 => return None,
            1 => Value::text("GET"),
            2 => Value::Int(503),
            3 => Value::Bool(true),
            4 => Value::Ip([10, 1, 2, 3].into()),
            _ => Value::Texts(vec!["a:b".into()]),
        })
    }
}

impl Columns for Batch {
    fn rows(&self) -> usize {
        ROWS
    }

    fn column(&self, name: &str) -> Column<'_> {
        match name.len() % 3 {
            0 => Column::Text((0..ROWS).map(|row| (row != name.len() % ROWS).then_some("POST")).collect()),
            1 => Column::Int((0..ROWS as i64).map(|row| (row != 2).then_some(row * 250)).collect()),
            _ => Column::Values((0..ROWS).map(|row| Self::value(name, row)).collect()),
        }
    }
}

struct Row(usize);

impl Fields for Row {
    fn field(&self, name: &str) -> Option<Value<'_>> {
        match name.len() % 3 {
            0 => (self.0 != name.len() % ROWS).then(|| Value::text("POST")),
            1 => (self.0 != 2).then_some(Value::Int(self.0 as i128 * 250)),
            _ => Batch::value(name, self.0),
        }
    }
}

fuzz_target!(|text: &str| {
    // The first line is a macro, what follows a rule.
    let (first, rest) = text.split_once('\n').unwrap_or(("", text));
    let rules = Rules::new([("m", first)]).unwrap_or_default();
    match rules.compile(rest) {
        Err(error) => assert!(error.line >= 1 && error.column >= 1 && !error.to_string().is_empty()),
        Ok(expression) => {
            let outcomes = expression.evaluate_columns(&Batch);
            for row in 0..ROWS {
                let by_row = expression.evaluate(&Row(row)).ok();
                let by_columns = outcomes.truth.is_valid(row).then(|| outcomes.truth.value(row));
                assert_eq!(by_row, by_columns, "row {row} of {rest}");
            }
        }
    }
});
