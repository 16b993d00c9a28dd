//! From raw records to transactions: one shard, by body size and by whether bodies are of use.

use std::{hint::black_box, sync::Arc};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ringtap_batch::{
    capture::{Capture, Format, Level, RuleList},
    clock::WallOffset,
    shard::Shard,
    transactions::Transactions,
};

mod common;

const CONNECTIONS: u64 = 64;
const EXCHANGES: usize = 16;

fn records(criterion: &mut Criterion) {
    for (name, level) in [("summary", Level::Summary), ("full", Level::Full)] {
        let mut group = criterion.benchmark_group(format!("records/{name}"));
        for (size, expected) in [(0, "6b6c2947"), (1024, "6b6c2947"), (16_384, "6b6c2947")] {
            let (batch, bytes) = common::records(CONNECTIONS, EXCHANGES, size);
            let interest = Arc::new(Capture { level, format: Format::Json, rules: RuleList::default() });
            let made = common::transactions(&batch, interest.clone());
            let t = Transactions::of(&made).expect("its schema");
            assert_eq!(t.rows() as u64, CONNECTIONS * EXCHANGES as u64);
            let urls: Vec<String> =
                (0..t.rows()).map(|row| format!("{} {};", t.url.value(row), t.status.value(row))).collect();
            common::check("records", urls.concat(), expected);
            group.throughput(Throughput::Bytes(bytes));
            let fresh = || Shard::new(common::context(interest.clone()));
            group.bench_function(size.to_string(), |b| {
                b.iter_batched_ref(
                    fresh,
                    |shard| black_box(shard.process(Some(&batch), 2_000_000_000, WallOffset(0))),
                    BatchSize::LargeInput,
                );
            });
        }
        group.finish();
    }
}

criterion_group!(benches, records);
criterion_main!(benches);
