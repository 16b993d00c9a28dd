//! Rules on transactions: what a decision costs a row.

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringtap_batch::{
    capture::{Capture, Format, Level, RowFields, Rule},
    interest::Everything,
    rules::Rules,
    transactions::Transactions,
};

mod common;

const EXPRESSIONS: [(&str, &str); 4] = [
    ("status", "http.res.status >= 400 and http.res.status < 600"),
    ("path", "http.req.path matches /^\\/api\\/v[0-9]+\\/admin/"),
    ("header", "http.req.headers.authorization == 'x' or http.req.headers.user-agent contains 'curl'"),
    ("never", "http.req.method == 'DELETE' and src.process.binary == 'bench'"),
];

fn capture(expressions: &[(&str, &str)]) -> Capture {
    let rules = Rules::default();
    let rule = |(name, text): &(&str, &str)| Rule {
        name: (*name).into(),
        expression: rules.compile(text).expect("it parses"),
        level: Level::Full,
        format: None,
        outcomes: Default::default(),
    };
    Capture { level: Level::Summary, format: Format::Json, rules: expressions.iter().map(rule).collect() }
}

fn rules(criterion: &mut Criterion) {
    let (batch, _) = common::records(64, 16, 100);
    let made = common::transactions(&batch, Arc::new(Everything));
    let t = Transactions::of(&made).expect("its schema");
    let mut group = criterion.benchmark_group("rules/rows");
    group.throughput(Throughput::Elements(t.rows() as u64));
    let mut run = |name: &str, capture: &Capture, expected: &str| {
        let decide = || (0..t.rows()).map(|row| capture.decide(&RowFields::new(&t, row)).level);
        let levels: Vec<String> = decide().map(|level| format!("{level:?}")).collect();
        common::check("rules", levels.concat(), expected);
        group.bench_function(name, |b| b.iter(|| black_box(decide().filter(|level| *level == Level::Full).count())));
    };
    for (one, expected) in EXPRESSIONS.iter().zip(["8aba506a", "02690ed8", "02690ed8", "02690ed8"]) {
        run(one.0, &capture(std::slice::from_ref(one)), expected);
    }
    run("all-four", &capture(&EXPRESSIONS), "8aba506a");
    group.finish();
}

criterion_group!(benches, rules);
criterion_main!(benches);
