//! From HTTP/2 frames to exchanges, against the decoder of the crate `h2` on the same bytes.

use std::{
    future::poll_fn,
    hint::black_box,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringtap_exchange::{Connection, Direction, Exchange, Limits, Role};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[path = "../tests/oracle/talk.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod talk;

/// The agent's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXCHANGES: usize = 1000;

fn feed<'a>(writes: impl Iterator<Item = &'a talk::Write>) -> Vec<Exchange> {
    let mut connection = Connection::new(Limits::default(), Some(Role::Client), false);
    let mut out = Vec::with_capacity(EXCHANGES);
    for (client, bytes) in writes {
        let direction = if *client { Direction::Sent } else { Direction::Received };
        let at = connection.next_offset(direction);
        connection.data(direction, at, bytes, 0, &mut out);
    }
    connection.close(None, 0, &mut out);
    out
}

/// A peer whose bytes are all there, who stays, and who takes whatever is written.
struct Recorded<'a>(&'a [u8]);

impl AsyncRead for Recorded<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // Of a connection that has ended, what is left is not shown.
        if self.0.is_empty() {
            return Poll::Pending;
        }
        let (now, rest) = self.0.split_at(self.0.len().min(buf.remaining()));
        buf.put_slice(now);
        self.0 = rest;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Recorded<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What there is without waiting.
fn ready_now<T>(poll: Poll<Option<T>>) -> Poll<Option<T>> {
    if poll.is_pending() { Poll::Ready(None) } else { poll }
}

/// The requests that `h2`'s server decodes.
fn decode_with_h2(runtime: &tokio::runtime::Runtime, bytes: &[u8]) -> usize {
    runtime.block_on(async {
        let mut builder = h2::server::Builder::new();
        builder
            .max_concurrent_streams(1 << 20)
            .max_concurrent_reset_streams(0)
            .max_pending_accept_reset_streams(1 << 20);
        let mut server = builder.handshake::<_, bytes::Bytes>(Recorded(bytes)).await.expect("a preface");
        let mut requests = 0;
        while let Some(Ok((request, mut respond))) = poll_fn(|cx| ready_now(server.poll_accept(cx))).await {
            black_box(request.uri());
            // An answer costs less than a reset.
            let _ = respond.send_response(hyper::Response::new(()), true);
            requests += 1;
        }
        requests
    })
}

fn exchanges(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    for (name, parallel, size) in [("heads", 1, 0), ("heads-100-streams", 100, 0), ("bodies-1k", 10, 1000)] {
        let plan: Vec<(String, String, Vec<u8>)> =
            (0..EXCHANGES).map(|n| ("GET".to_owned(), format!("/api/items/{n}/{size}"), Vec::new())).collect();
        let (writes, _) = runtime.block_on(talk::talk(true, &plan, parallel, 1 << 20));
        assert_eq!(feed(writes.iter()).len(), EXCHANGES);
        let sent: Vec<talk::Write> = writes.iter().filter(|(client, _)| *client).cloned().collect();
        let bytes: Vec<u8> = sent.iter().flat_map(|(_, bytes)| bytes).copied().collect();
        assert_eq!(decode_with_h2(&runtime, &bytes), EXCHANGES);
        let mut group = criterion.benchmark_group(format!("http2/{name}"));
        group.throughput(Throughput::Elements(EXCHANGES as u64));
        group.bench_function("exchanges", |b| b.iter(|| black_box(feed(writes.iter())).len()));
        group.bench_function("requests", |b| b.iter(|| black_box(feed(sent.iter())).len()));
        group.bench_function("requests-by-h2", |b| b.iter(|| black_box(decode_with_h2(&runtime, &bytes))));
        group.finish();
    }
}

criterion_group!(benches, exchanges);
criterion_main!(benches);
