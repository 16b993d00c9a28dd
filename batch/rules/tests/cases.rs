//! The cases of `tests/rules/*.txt`, each for the row and for the columns.
//!
//! A line is `expression => true | false | error FIELD | refused MESSAGE`; `let NAME = LITERAL` gives a field, `macro NAME =
//! EXPRESSION` a macro, for the lines below it; `#` begins a remark. `RINGTAP_CASES=TEXT` runs only the cases that hold
//! the text, and `RINGTAP_CASES_UPDATE=1` writes what came out into the files.

use std::{collections::BTreeMap, fs, path::Path};

use super::*;
use crate::{
    expression::{Node, Operand},
    value::Value,
};

#[derive(Default)]
struct Given {
    fields: BTreeMap<String, Value<'static>>,
    macros: BTreeMap<String, String>,
}

impl Fields for Given {
    fn field(&self, name: &str) -> Option<Value<'_>> {
        self.fields.get(name).cloned()
    }
}

impl Columns for Given {
    fn rows(&self) -> usize {
        1
    }

    fn column(&self, name: &str) -> Column<'_> {
        match self.fields.get(name) {
            None => Column::Missing,
            Some(Value::Text(text)) => Column::Text(vec![text.to_string()].into()),
            Some(Value::Int(n)) if i64::try_from(*n).is_ok() => {
                Column::Int(vec![i64::try_from(*n).expect("it fits")].into())
            }
            Some(Value::Float(n)) => Column::Float(vec![*n].into()),
            Some(Value::Bool(truth)) => Column::Bool(vec![*truth].into()),
            Some(value) => Column::Values(vec![Some(value.clone())]),
        }
    }
}

impl Given {
    /// A literal as expressions write it; an array of texts is a list of texts, such as tags are.
    fn take(&mut self, line: &str) {
        if let Some(rest) = line.strip_prefix("macro ") {
            let (name, text) = rest.split_once(" = ").expect("a macro is `macro NAME = EXPRESSION`");
            self.macros.insert(name.to_owned(), text.to_owned());
            return;
        }
        let (name, text) = line.strip_prefix("let ").and_then(|l| l.split_once(" = ")).expect("`let NAME = LITERAL`");
        let text_only = text.strip_prefix("text ");
        let expression = Rules::default().compile(text_only.unwrap_or(text)).expect("a literal");
        let Node::Truth(Operand::Literal(value)) = expression.root else { panic!("{text} is no literal") };
        let value = match (value, text_only) {
            (Value::Array(items), _) => Value::Texts(items.iter().map(|item| item.print().into()).collect()),
            (value, Some(_)) => Value::Text(value.print().into()),
            (value, None) => value,
        };
        self.fields.insert(name.to_owned(), value);
    }

    fn outcome(&self, text: &str) -> String {
        let rules = Rules::new(self.macros.iter().map(|(name, text)| (name.as_str(), text.as_str()))).expect("macros");
        let expression = match rules.compile(text) {
            Err(error) => return format!("refused {}", error.message.lines().next().unwrap_or_default()),
            Ok(expression) => expression,
        };
        let by_row = expression.evaluate(self);
        let columns = expression.evaluate_columns(self);
        let by_columns = match &columns.errors {
            Some(errors) => Err(EvaluationError { field: expression.fields()[usize::from(errors.value(0))].clone() }),
            None => Ok(columns.truth.value(0)),
        };
        assert_eq!(by_row, by_columns, "row and columns of {text}");
        by_row.map_or_else(|error| format!("error {}", error.field), |truth| truth.to_string())
    }
}

#[test]
fn text_cases() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/rules");
    let (only, update) = (std::env::var("RINGTAP_CASES").unwrap_or_default(), std::env::var_os("RINGTAP_CASES_UPDATE"));
    let (mut cases, mut faults) = (0, Vec::new());
    for file in fs::read_dir(folder).expect("there are cases") {
        let path = file.expect("readable").path();
        let (mut given, mut written) = (Given::default(), String::new());
        for (number, line) in fs::read_to_string(&path).expect("readable").lines().enumerate() {
            let mut out = line.to_owned();
            if line.starts_with("let ") || line.starts_with("macro ") {
                given.take(line);
            } else if !line.starts_with('#') && !line.trim().is_empty() {
                let (text, expected) = line.rsplit_once("=>").expect("each case has an outcome");
                let (text, expected) = (text.trim(), expected.trim());
                if text.contains(&only) {
                    let outcome = given.outcome(text);
                    out = format!("{text} => {outcome}");
                    cases += 1;
                    if outcome != expected {
                        faults.push(format!(
                            "{}:{}: {text}\n  expected {expected}\n  came to  {outcome}",
                            path.display(),
                            number + 1
                        ));
                    }
                }
            }
            written += &out;
            written.push('\n');
        }
        if update.is_some() {
            fs::write(&path, written).expect("writable");
        }
    }
    assert!(update.is_some() || faults.is_empty(), "{} of {cases} cases:\n{}", faults.len(), faults.join("\n"));
    assert!(!only.is_empty() || cases > 300, "only {cases} cases ran");
}
