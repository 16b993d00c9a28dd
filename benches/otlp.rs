//! From a batch of events to a collector that discards them: what is written straight from columns, beside what
//! OpenTelemetry's SDK makes of the same rows.
//!
//! `otlp/encode` ends with the bytes of requests. `otlp/wire` sends them over a connection on the loopback; its time is the
//! processor's, of every thread but the receiver's, so that events a second are events a second and core.

use std::{
    convert::Infallible,
    hint::black_box,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use arrow_array::RecordBatch;
use bytes::Bytes;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Request, Response, body::Incoming, header::HeaderName, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry::logs::{Logger as _, LoggerProvider as _};
use opentelemetry_otlp::{LogExporter, WithExportConfig as _};
use opentelemetry_sdk::logs::{BatchLogProcessor, SdkLoggerProvider};
use prost::Message as _;
use ringtap::{
    config::{
        checked::Otel,
        written::{Compression, Protocol},
    },
    sink::{Patience, console::Console, otlp::Otlp},
};
use ringtap_batch::{interest::Everything, transactions::Transactions, usage};
use rustix::time::{ClockId, clock_gettime};
use tokio::{runtime::Runtime, task::JoinSet};

mod common;
#[path = "common/sdk.rs"]
mod sdk;

use sdk::Sdk;

/// Requests on their way at a time.
const IN_FLIGHT: usize = 4;

/// 512 events of the type `request`.
fn events() -> RecordBatch {
    let (batch, _) = common::records(64, 8, 100);
    let made = common::transactions(&batch, Arc::new(Everything));
    let t = Transactions::of(&made).expect("its schema");
    usage::requests(&t, &t, &[]).swap_remove(0)
}

fn config(protocol: Protocol, endpoint: String, compression: Compression) -> Otel {
    Otel {
        endpoint,
        protocol,
        headers: Vec::new(),
        service_name: "tap".into(),
        environment: "test".into(),
        tls: None,
        compression,
        timeout: Duration::from_secs(10),
        flat_attributes: false,
    }
}

fn otlp(config: &Otel) -> Otlp {
    let (console, _thread) = Console::start(Patience::None).expect("a thread");
    Otlp::new(config, "qtap.eventstore", &console).expect("it can be set up")
}

fn encode(criterion: &mut Criterion) {
    let events = events();
    let config = config(Protocol::Stdout, String::new(), Compression::None);
    let (otlp, sdk) = (otlp(&config), Sdk::new(&config, "qtap.eventstore"));
    let (ours, theirs) = (otlp.messages(&events), sdk.request(&sdk.records(&events)).encode_to_vec());
    // Attributes stand in any order there: the length is the same.
    assert_eq!((ours.len(), ours[0].len()), (1, theirs.len()));
    common::check("otlp", theirs.len().to_string(), "73f20ec8");
    let mut group = criterion.benchmark_group("otlp/encode");
    group.throughput(Throughput::Elements(events.num_rows() as u64));
    group.bench_function("columns/512", |b| b.iter(|| black_box(otlp.messages(&events))));
    group.bench_function("sdk/512", |b| b.iter(|| black_box(sdk.request(&sdk.records(&events)).encode_to_vec())));
    group.finish();
}

/// Takes requests and reads nothing of them.
struct Receiver {
    port: u16,
    /// Where its thread's time is told.
    schedule: String,
    requests: Arc<AtomicU64>,
}

impl Receiver {
    fn start(grpc: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let port = listener.local_addr().expect("bound").port();
        let (told, thread) = mpsc::channel();
        let requests = Arc::new(AtomicU64::new(0));
        let counted = requests.clone();
        std::thread::spawn(move || {
            let own = std::fs::read_link("/proc/thread-self").expect("a thread");
            told.send(format!("/proc/{}/schedstat", own.display())).expect("somebody waits");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(accept(listener, grpc, counted));
        });
        Self { port, schedule: thread.recv().expect("it starts"), requests }
    }

    /// Time that all other threads of this process have used.
    fn others(&self) -> Duration {
        let own = std::fs::read_to_string(&self.schedule).expect("it lives");
        let own: u64 = own.split(' ').next().and_then(|ns| ns.parse().ok()).expect("nanoseconds");
        let all = clock_gettime(ClockId::ProcessCPUTime);
        let all = Duration::new(
            all.tv_sec.try_into().expect("not negative"),
            all.tv_nsec.try_into().expect("less than a second"),
        );
        all.saturating_sub(Duration::from_nanos(own))
    }
}

async fn accept(listener: TcpListener, grpc: bool, requests: Arc<AtomicU64>) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a runtime");
    while let Ok((stream, _)) = listener.accept().await {
        let requests = requests.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let requests = requests.clone();
            async move {
                let mut body = request.into_body();
                while let Some(Ok(_)) = body.frame().await {}
                requests.fetch_add(1, Ordering::Relaxed);
                Ok::<_, Infallible>(answer(grpc))
            }
        });
        tokio::spawn(async move {
            let io = TokioIo::new(stream);
            // A client may go whenever it likes.
            let _ = match grpc {
                true => {
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .initial_stream_window_size(1 << 20)
                        .initial_connection_window_size(4 << 20)
                        .serve_connection(io, service)
                        .await
                }
                false => hyper::server::conn::http1::Builder::new().serve_connection(io, service).await,
            };
        });
    }
}

/// Everything was taken.
fn answer(grpc: bool) -> Response<http_body_util::combinators::BoxBody<Bytes, Infallible>> {
    let body = Full::new(Bytes::from_static(if grpc { &[0; 5] } else { &[] }));
    let trailers = grpc.then(|| HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), 0.into())]));
    let kind = if grpc { "application/grpc" } else { "application/x-protobuf" };
    Response::builder()
        .header("content-type", kind)
        .body(body.with_trailers(async { trailers.map(Ok) }).boxed())
        .expect("it is whole")
}

type Group<'a> = BenchmarkGroup<'a, WallTime>;

fn ours(group: &mut Group<'_>, protocol: Protocol, compression: Compression) {
    let (grpc, events) = (protocol == Protocol::Grpc, events());
    let receiver = Receiver::start(grpc);
    let otlp = Arc::new(otlp(&config(protocol, format!("127.0.0.1:{}", receiver.port), compression)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let name = format!("columns/{protocol:?}/{compression:?}").to_lowercase();
    group.bench_function(name, |b| {
        b.iter_custom(|batches| {
            let before = receiver.others();
            runtime.block_on(async {
                let mut sent = JoinSet::new();
                for _ in 0..batches {
                    if sent.len() == IN_FLIGHT {
                        sent.join_next().await.expect("one").expect("it ends");
                    }
                    let (otlp, events) = (otlp.clone(), events.clone());
                    sent.spawn(async move { assert_eq!(otlp.events(&events).await.expect("it is taken"), 0) });
                }
                sent.join_all().await;
            });
            receiver.others().checked_sub(before).expect("time passes")
        });
    });
}

/// The SDK's batch processor, over gRPC: its thread has no runtime, which its client for HTTP needs.
fn theirs(group: &mut Group<'_>) {
    let events = events();
    let receiver = Receiver::start(true);
    let runtime = Runtime::new().expect("a runtime");
    let inside = runtime.enter();
    let config = config(Protocol::Grpc, format!("http://127.0.0.1:{}", receiver.port), Compression::None);
    let exporter = LogExporter::builder().with_tonic().with_endpoint(&config.endpoint).build();
    let sdk = Sdk::new(&config, "qtap.eventstore");
    let provider = SdkLoggerProvider::builder()
        .with_resource(sdk.resource().clone())
        .with_log_processor(BatchLogProcessor::builder(exporter.expect("it can be set up")).build())
        .build();
    drop(inside);
    let logger = provider.logger("qtap.eventstore");
    group.bench_function("sdk/grpc/none", |b| {
        b.iter_custom(|batches| {
            let (before, requests) = (receiver.others(), receiver.requests.load(Ordering::Relaxed));
            for _ in 0..batches {
                for row in 0..events.num_rows() {
                    let mut record = logger.create_log_record();
                    Sdk::start(&mut record);
                    sdk.fill(&mut record, &events, row);
                    logger.emit(record);
                }
                // Its queue drops what has no room.
                provider.force_flush().expect("it is taken");
            }
            let used = receiver.others().checked_sub(before).expect("time passes");
            assert!(receiver.requests.load(Ordering::Relaxed) >= requests + batches, "every batch arrived");
            used
        });
    });
}

fn wire(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("otlp/wire");
    group.throughput(Throughput::Elements(events().num_rows() as u64));
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        ours(&mut group, Protocol::Grpc, compression);
        ours(&mut group, Protocol::Http, compression);
    }
    theirs(&mut group);
    group.finish();
}

criterion_group!(benches, encode, wire);
criterion_main!(benches);
