//! Everything between the border and the stores: records to digested objects, on one core and on two.

use std::{hint::black_box, sync::Arc};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rayon::prelude::*;
use ringtap_batch::{
    capture::{Capture, Format, Level, RuleList},
    clock::WallOffset,
    objects::objects,
    ring::abi::shard_of,
    shard::Shard,
    transactions::Transactions,
};

mod common;

/// Every shard looks at the batch and makes the objects of its own connections.
fn round(shards: &mut [Shard], batch: &arrow_array::RecordBatch, capture: &Capture) -> usize {
    let one = |shard: &mut Shard| {
        let output = shard.process(Some(batch), 2_000_000_000, WallOffset(0));
        let transactions = output.transactions.expect("exchanges are complete");
        let t = Transactions::of(&transactions).expect("its schema");
        objects(&t, &capture.decide(&t)).map_or(0, |objects| objects.num_rows())
    };
    match shards {
        [only] => one(only),
        many => many.par_iter_mut().map(one).sum(),
    }
}

fn replay(criterion: &mut Criterion) {
    // A megabyte at a time, like the messages of a recording.
    let (batch, bytes) = common::records(64, 1, 16_384);
    assert!((1..=64).any(|conn| shard_of(conn, 2) == 0) && (1..=64).any(|conn| shard_of(conn, 2) == 1));
    let mut group = criterion.benchmark_group("replay/16KiB");
    group.throughput(Throughput::Bytes(bytes));
    for (name, level) in [("summary", Level::Summary), ("full", Level::Full)] {
        let capture = Arc::new(Capture { level, format: Format::Json, rules: RuleList::default() });
        for count in [1, 2] {
            let fresh = || -> Vec<Shard> {
                let context = common::context(capture.clone());
                (0..count).map(|index| Shard::one_of(context.clone(), index, count)).collect()
            };
            assert_eq!(round(&mut fresh(), &batch, &capture), 64);
            group.bench_function(format!("{name}/{count}-core"), |b| {
                b.iter_batched_ref(fresh, |shards| black_box(round(shards, &batch, &capture)), BatchSize::LargeInput);
            });
        }
    }
    group.finish();
}

criterion_group!(benches, replay);
criterion_main!(benches);
