//! From transactions to objects: JSON, base64 and SHA-1, by level and body size.

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringtap_batch::{
    capture::{Decision, Format, Level},
    interest::Everything,
    objects::{Objects, objects},
    transactions::Transactions,
};

mod common;

fn making(criterion: &mut Criterion) {
    for (name, level, format, digests) in [
        ("summary", Level::Summary, Format::Json, ["e1371c8a", "ad57c3f5", "ca29d810"]),
        ("headers", Level::Headers, Format::Json, ["66d18b6f", "4d2046c3", "27ad2a9c"]),
        ("full", Level::Full, Format::Json, ["66d18b6f", "16bc03ad", "be6aeee4"]),
        ("full-text", Level::Full, Format::Text, ["c6600bc7", "dad89624", "81d0ddbf"]),
    ] {
        let mut group = criterion.benchmark_group(format!("objects/{name}"));
        for (size, expected) in [0, 1024, 16_384].into_iter().zip(digests) {
            let (batch, bytes) = common::records(16, 16, size);
            let made = common::transactions(&batch, Arc::new(Everything));
            let t = Transactions::of(&made).expect("its schema");
            let decisions = vec![Decision { level, format }; t.rows()];
            let batch = objects(&t, &decisions).expect("all rows are wanted");
            let made: String = Objects::of(&batch).expect("its schema").digest.iter().flatten().collect();
            common::check("objects", made, expected);
            group.throughput(if level == Level::Full { Throughput::Bytes(bytes) } else { Throughput::Elements(256) });
            group.bench_function(size.to_string(), |b| b.iter(|| black_box(objects(&t, &decisions))));
        }
        group.finish();
    }
}

criterion_group!(benches, making);
criterion_main!(benches);
