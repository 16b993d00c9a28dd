//! From a batch of events to the bytes of an OTLP request.

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use prost::Message as _;
use ringtap::{
    config::{checked::Otel, written::Protocol},
    sink::{Patience, console::Console, otlp::Otlp},
};
use ringtap_batch::{interest::Everything, transactions::Transactions, usage};

mod common;

fn otlp(criterion: &mut Criterion) {
    let (batch, _) = common::records(64, 8, 100);
    let made = common::transactions(&batch, Arc::new(Everything));
    let t = Transactions::of(&made).expect("its schema");
    let events = usage::requests(&t, &t, &[]).swap_remove(0);
    let config = Otel {
        endpoint: String::new(),
        protocol: Protocol::Stdout,
        headers: Vec::new(),
        service_name: "tap".into(),
        environment: "test".into(),
        tls: false,
        flat_attributes: false,
    };
    let (console, _thread) = Console::start(Patience::None).expect("a thread");
    let otlp = Otlp::new(&config, "qtap.eventstore", &console).expect("no network is needed");
    let bytes = otlp.request(&events).encode_to_vec();
    // Attributes stand in any order: the length is the same.
    common::check("otlp", bytes.len().to_string(), "73f20ec8");
    let mut group = criterion.benchmark_group("otlp/request-events");
    group.throughput(Throughput::Elements(events.num_rows() as u64));
    group.bench_function("512", |b| b.iter(|| black_box(otlp.request(&events).encode_to_vec())));
    group.finish();
}

criterion_group!(benches, otlp);
criterion_main!(benches);
