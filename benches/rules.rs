//! Rules on transactions: what a decision costs a row, row by row and column by column.

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringtap_batch::{
    fields::RowFields,
    interest::Everything,
    rules::{Expression, Rules},
    transactions::Transactions,
};

mod common;

/// The rules of the guide, one comparison of each type, and what costs more.
const EXPRESSIONS: [(&str, &str); 8] = [
    ("guide", "is_error()"),
    ("number", "http.res.status == 503"),
    ("text", "http.req.method == 'POST'"),
    ("contains", "http.req.path contains 'items'"),
    ("regex", "http.req.path matches /^\\/api\\/v[0-9]+\\/admin/"),
    ("header", "http.req.headers.user-agent contains 'curl'"),
    ("address", "dst.ip in 10.0.0.0/8"),
    ("mixed", "is_error() or (http.req.method in ['POST', 'PUT'] and not starts_with(http.req.path, '/health'))"),
];

fn rules(criterion: &mut Criterion) {
    let (batch, _) = common::records(64, 64, 100);
    let made = common::transactions(&batch, Arc::new(Everything));
    let t = Transactions::of(&made).expect("its schema");
    let macros = Rules::new([("is_error", "http.res.status >= 400 && http.res.status < 600")]).expect("a macro");
    for (name, text) in EXPRESSIONS {
        let expression = macros.compile(text).expect("it parses");
        assert_eq!(by_rows(&expression, &t), by_columns(&expression, &t), "{name}");
        let mut group = criterion.benchmark_group(format!("rules/{name}"));
        group.throughput(Throughput::Elements(t.rows() as u64));
        group.bench_function("rows", |b| b.iter(|| black_box(by_rows(&expression, &t))));
        group.bench_function("columns", |b| b.iter(|| black_box(by_columns(&expression, &t))));
        group.finish();
    }
}

fn by_rows(expression: &Expression, t: &Transactions<'_>) -> usize {
    (0..t.rows()).filter(|row| expression.evaluate(&RowFields::new(t, *row)) == Ok(true)).count()
}

fn by_columns(expression: &Expression, t: &Transactions<'_>) -> usize {
    expression.evaluate_columns(t).matching().count_set_bits()
}

/// A batch of a quiet machine has one row or a few.
fn small(criterion: &mut Criterion) {
    let (batch, _) = common::records(1, 1, 100);
    let made = common::transactions(&batch, Arc::new(Everything));
    let t = Transactions::of(&made).expect("its schema");
    let expression = Rules::default().compile("http.res.status >= 400 && http.res.status < 600").expect("it parses");
    let mut group = criterion.benchmark_group("rules/one-row");
    group.throughput(Throughput::Elements(1));
    group.bench_function("rows", |b| b.iter(|| black_box(by_rows(&expression, &t))));
    group.bench_function("columns", |b| b.iter(|| black_box(by_columns(&expression, &t))));
    group.finish();
}

criterion_group!(benches, rules, small);
criterion_main!(benches);
