//! Columns and rows give the same answers, whatever the expression and the batch.

use proptest::prelude::*;

use super::*;
use crate::Rules;

const TEXTS: [&str; 6] = ["", "GET", "POST", "/api/v1/items", "10.1.2.3", "a,b"];

#[derive(Debug, Clone)]
struct Batch {
    method: Vec<Option<usize>>,
    status: Vec<Option<i64>>,
    ratio: Vec<Option<i32>>,
    tls: Vec<Option<bool>>,
    ip: Vec<Option<bool>>,
    tags: Vec<Option<Vec<usize>>>,
}

impl Batch {
    fn value(&self, name: &str, row: usize) -> Option<Value<'static>> {
        let text = |at: usize| Value::text(TEXTS[at]);
        let ip = |inside: bool| Value::Ip(if inside { [10, 1, 2, 3] } else { [192, 0, 2, 1] }.into());
        let texts = |list: &Vec<usize>| Value::Texts(list.iter().map(|at| TEXTS[*at].into()).collect());
        match name {
            "method" => self.method[row].map(text),
            "status" => self.status[row].map(|n| Value::Int(n.into())),
            "ratio" => self.ratio[row].map(|n| Value::Float(f64::from(n) / 2.0)),
            "tls" => self.tls[row].map(Value::Bool),
            "ip" => self.ip[row].map(ip),
            "tags" => self.tags[row].as_ref().map(texts),
            _ => None,
        }
    }
}

struct Row<'a>(&'a Batch, usize);

impl Fields for Row<'_> {
    fn field(&self, name: &str) -> Option<Value<'_>> {
        self.0.value(name, self.1)
    }
}

impl Columns for Batch {
    fn rows(&self) -> usize {
        self.status.len()
    }

    fn column(&self, name: &str) -> Column<'_> {
        match name {
            "method" => Column::Text(self.method.iter().map(|at| at.map(|at| TEXTS[at])).collect()),
            "status" => Column::Int(self.status.iter().copied().collect()),
            "ratio" => Column::Float(self.ratio.iter().map(|n| n.map(|n| f64::from(n) / 2.0)).collect()),
            "tls" => Column::Bool(self.tls.iter().copied().collect()),
            "ip" | "tags" => Column::Values((0..self.rows()).map(|row| self.value(name, row)).collect()),
            _ => Column::Missing,
        }
    }
}

fn batch() -> impl Strategy<Value = Batch> {
    (0usize..40).prop_flat_map(|rows| {
        let of = |strategy| prop::collection::vec(strategy, rows);
        (
            of(prop::option::weighted(0.8, 0..TEXTS.len()).boxed()),
            prop::collection::vec(
                prop::option::weighted(0.8, prop_oneof![Just(0i64), Just(200), Just(503), any::<i64>()]),
                rows,
            ),
            prop::collection::vec(prop::option::weighted(0.8, -2i32..4), rows),
            prop::collection::vec(prop::option::weighted(0.8, any::<bool>()), rows),
            prop::collection::vec(prop::option::weighted(0.8, any::<bool>()), rows),
            prop::collection::vec(prop::option::weighted(0.8, prop::collection::vec(0..TEXTS.len(), 0..3)), rows),
        )
            .prop_map(|(method, status, ratio, tls, ip, tags)| Batch { method, status, ratio, tls, ip, tags })
    })
}

fn operand() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "method",
        "status",
        "ratio",
        "tls",
        "ip",
        "tags",
        "missing",
        "'GET'",
        "''",
        "'10.1.2.3'",
        "10.0.0.0/8",
        "503",
        "0",
        "-1",
        "1.5",
        "503.0",
        "18446744073709551615",
        "true",
        "false",
        "47:45:54",
        "474554",
        "'01:02:03:04:05:06'",
        "[200, 503]",
        "['GET', 'POST']",
        "[method, 'x']",
        "[1.5, 'GET', true]",
        "[503, status]",
        "zone(method)",
        "starts_with(method, 'P')",
        "starts_with(status, 5)",
        "in_zone(method, tags)",
        "macro()",
        "/T$/",
        "/./",
    ])
    .prop_map(str::to_owned)
}

fn predicate() -> impl Strategy<Value = String> {
    let operator = prop::sample::select(vec!["==", "!=", "contains", ">", ">=", "<", "<=", "in", "=~"]);
    prop_oneof![
        1 => operand(),
        4 => (operand(), operator, operand()).prop_map(|(left, operator, right)| format!("{left} {operator} {right}")),
    ]
}

fn expression() -> impl Strategy<Value = String> {
    predicate().prop_recursive(4, 24, 4, |inner| {
        let joined = |word: &'static str| {
            prop::collection::vec(inner.clone(), 2..4).prop_map(move |parts| format!("({})", parts.join(word)))
        };
        prop_oneof![
            joined(" and "),
            joined(" or "),
            inner.clone().prop_map(|inner| format!("not {inner}")),
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("({a} and {b} or {c})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn columns_are_rows(text in expression(), batch in batch()) {
        let rules = Rules::new([("macro", "status > 200 or missing")]).expect("a macro");
        // What the grammar does not allow is not of interest here.
        if let Ok(expression) = rules.compile(&text) {
            let outcomes = expression.evaluate_columns(&batch);
            prop_assert_eq!(outcomes.truth.len(), batch.rows());
            for row in 0..batch.rows() {
                let by_columns = if outcomes.truth.is_valid(row) {
                    Ok(outcomes.truth.value(row))
                } else {
                    let errors = outcomes.errors.as_ref().expect("a null is an error");
                    Err(expression.fields()[usize::from(errors.value(row))].clone())
                };
                let by_row = expression.evaluate(&Row(&batch, row)).map_err(|error| error.field);
                prop_assert_eq!(by_columns, by_row, "row {} of {}", row, text);
            }
        }
    }

    #[test]
    fn nothing_panics(text in "\\PC{0,60}") {
        let _ = Rules::default().compile(&text);
    }
}
