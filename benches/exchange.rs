//! From stream bytes to exchanges: how fast, by the shape of the traffic.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringtap_exchange::{Connection, Direction, Exchange, Limits, Role};

const EXCHANGES: usize = 1000;

/// Feeds keep-alive exchanges with bodies of `size` bytes, the response cut into records of 16 KiB.
fn feed(request: &[u8], response: &[u8]) -> Vec<Exchange> {
    let mut connection = Connection::new(Limits::default(), Some(Role::Client), false);
    let mut out = Vec::new();
    for _ in 0..EXCHANGES {
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
    let mut group = criterion.benchmark_group("exchange/keep-alive");
    for size in [0, 1_000, 100_000] {
        let request =
            b"GET /items?page=7 HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: bench/1\r\nAccept: */*\r\n\r\n";
        let mut response =
            format!("HTTP/1.1 200 OK\r\nServer: s\r\nContent-Type: text/plain\r\nContent-Length: {size}\r\n\r\n")
                .into_bytes();
        response.resize(response.len() + size, b'x');
        let out = feed(request, &response);
        assert_eq!(out.len(), EXCHANGES);
        assert!(out.iter().all(|e| e.response.as_ref().is_some_and(|r| r.body.bytes.len() == size && r.body.complete)));
        group.throughput(Throughput::Bytes((EXCHANGES * (request.len() + response.len())) as u64));
        group.bench_function(format!("{size}"), |b| b.iter(|| black_box(feed(request, &response)).len()));
    }
    group.finish();
}

criterion_group!(benches, exchanges);
criterion_main!(benches);
