//! Redaction of what leaves: urls, header fields and bodies, by body size; bodies are JSON without secrets, the common
//! case, and each row's header fields have one.

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringtap_batch::{interest::Everything, redact::Redaction, transactions::Transactions};

mod common;

fn redact(criterion: &mut Criterion) {
    let redaction = Redaction::default();
    let mut group = criterion.benchmark_group("redact/rows");
    for size in [0usize, 1024, 16_384] {
        let (batch, bytes) = common::records(16, 16, size);
        let made = common::transactions(&batch, Arc::new(Everything));
        let masked = redaction.apply(&made);
        let (before, after) =
            (Transactions::of(&made).expect("its schema"), Transactions::of(&masked).expect("the same"));
        assert_eq!(before.response_body, after.response_body, "there is nothing to mask in the bodies");
        group.throughput(if size == 0 { Throughput::Elements(256) } else { Throughput::Bytes(bytes) });
        group.bench_function(size.to_string(), |b| b.iter(|| black_box(redaction.apply(&made))));
    }
    group.finish();
}

criterion_group!(benches, redact);
criterion_main!(benches);
