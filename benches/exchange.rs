//! From stream bytes to exchanges: how fast, by the shape of the traffic.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringtap_exchange::{Connection, Direction, Exchange, Limits, Observer, Role};

mod common;

/// The agent's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXCHANGES: usize = 1000;

/// Takes exchanges one by one, as a shard does.
#[derive(Default)]
struct Count(usize);

impl Observer for Count {
    fn complete(&mut self, exchange: Exchange) {
        self.0 += usize::from(black_box(&exchange).response.is_some());
    }
}

/// Feeds keep-alive exchanges, the response cut into records of 16 KiB.
fn feed<O: Observer + Default>(traffic: &[(Vec<u8>, Vec<u8>)], limits: Limits) -> O {
    let mut connection = Connection::new(limits, Some(Role::Client), false);
    let mut out = O::default();
    for (request, response) in traffic {
        let at = connection.next_offset(Direction::Sent);
        connection.data(Direction::Sent, at, request, 0, &mut out);
        for part in response.chunks(16 * 1024) {
            let at = connection.next_offset(Direction::Received);
            connection.data(Direction::Received, at, part, 0, &mut out);
        }
    }
    out
}

fn exchanges(criterion: &mut Criterion) {
    for (name, bodies) in [("kept", true), ("unwanted", false)] {
        let mut group = criterion.benchmark_group(format!("exchange/bodies-{name}"));
        for (size, expected) in [
            (0, ["888e145d"; 2]),
            (1024, ["88156d40", "e8d28aac"]),
            (16_384, ["b9a8b98e", "1d3dcc44"]),
            (100_000, ["8b8da7b3", "241c6f32"]),
        ] {
            let mut random = common::Random::new();
            let traffic: Vec<_> = (0..EXCHANGES).map(|_| common::exchange(&mut random, size)).collect();
            let limits = Limits { bodies, ..Limits::default() };
            let out: Vec<Exchange> = feed(&traffic, limits);
            let said = |e: &Exchange| {
                let response = e.response.as_ref().expect("each is answered");
                let kept = String::from_utf8_lossy(&response.body.bytes);
                format!("{} {} {} {kept}", e.request.target, response.status, response.body.size)
            };
            let said: Vec<String> = out.iter().map(said).collect();
            common::check("exchange", said.concat(), expected[usize::from(!bodies)]);
            let bytes: usize = traffic.iter().map(|(request, response)| request.len() + response.len()).sum();
            group.throughput(Throughput::Bytes(bytes as u64));
            group.bench_function(size.to_string(), |b| b.iter(|| feed::<Count>(&traffic, limits).0));
        }
        group.finish();
    }
}

criterion_group!(benches, exchanges);
criterion_main!(benches);
