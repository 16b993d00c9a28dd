//! The plugin `http_metrics`: series of the traffic for Prometheus, under the names that existing dashboards use.

mod connections;

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};
use ringtap_batch::{grpc::Grpc, transactions::Transactions};

use self::connections::Connections;

/// Hosts that have series of their own; all others share one, `other`.
const HOSTS_MAX: usize = 500;
/// Methods of gRPC that have series of their own; all others share one.
const METHODS_MAX: usize = 500;
/// Series of one kind of traffic, by all their labels together; what comes later shares one.
const SERIES_MAX: usize = 5000;
/// Bounds of durations, in milliseconds.
const MS: [f64; 20] =
    [0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 3e4, 6e4, 1.2e5, 3e5, 6e5];
/// Bounds of sizes, in bytes.
const BYTES: [f64; 14] = [1.0, 1e2, 5e2, 1e3, 5e3, 1e4, 5e4, 1e5, 2.5e5, 5e5, 1e6, 5e6, 1e7, 5e7];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HttpLabels {
    method: String,
    host: String,
    status_code: u16,
    protocol: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GrpcLabels {
    method: String,
    host: String,
    status_code: u16,
    rpc_method: String,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// Series of one kind of traffic.
#[derive(Debug)]
struct Series<L: Clone + Eq + std::hash::Hash + EncodeLabelSet + std::fmt::Debug + Send + Sync + 'static> {
    requests: Family<L, Counter>,
    request_ms: Histograms<L>,
    request_bytes: Histograms<L>,
    responses: Family<L, Counter>,
    response_ms: Histograms<L>,
    response_bytes: Histograms<L>,
    ms: Histograms<L>,
}

/// Which labels have been seen, so that hostile traffic cannot make series without end.
#[derive(Debug, Default)]
struct Known {
    hosts: HashSet<String>,
    methods: HashSet<String>,
    http: HashSet<HttpLabels>,
    grpc: HashSet<GrpcLabels>,
}

/// `labels`, or `rest` if there are too many series already.
fn bounded<L: Clone + Eq + std::hash::Hash>(known: &mut HashSet<L>, labels: L, rest: impl Fn() -> L) -> L {
    if known.contains(&labels) {
        return labels;
    }
    if known.len() >= SERIES_MAX {
        return rest();
    }
    known.insert(labels.clone());
    labels
}

fn other() -> String {
    "other".to_owned()
}

/// All series.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    http: Series<HttpLabels>,
    grpc: Series<GrpcLabels>,
    connections: Connections,
    known: Mutex<Known>,
}

/// What a row adds.
struct Observed {
    request_ms: f64,
    response_ms: f64,
    ms: f64,
    request_bytes: f64,
    response_bytes: f64,
}

impl<L: Clone + Eq + std::hash::Hash + EncodeLabelSet + std::fmt::Debug + Send + Sync + 'static> Series<L> {
    fn new(registry: &mut Registry, kind: &str) -> Self {
        let ms = || Family::new_with_constructor((|| Histogram::new(MS)) as fn() -> Histogram);
        let bytes = || Family::new_with_constructor((|| Histogram::new(BYTES)) as fn() -> Histogram);
        let series = Self {
            requests: Family::default(),
            request_ms: ms(),
            request_bytes: bytes(),
            responses: Family::default(),
            response_ms: ms(),
            response_bytes: bytes(),
            ms: ms(),
        };
        let name = |what: &str| format!("qtap_{kind}_{what}");
        registry.register(name("requests"), "Requests", series.requests.clone());
        registry.register(
            name("requests_duration_ms"),
            "Time to the first byte of the response",
            series.request_ms.clone(),
        );
        registry.register(name("requests_size_bytes"), "Sizes of requests", series.request_bytes.clone());
        registry.register(name("responses"), "Responses", series.responses.clone());
        registry.register(
            name("responses_duration_ms"),
            "Time from the first byte of the response to its last",
            series.response_ms.clone(),
        );
        registry.register(name("responses_size_bytes"), "Sizes of responses", series.response_bytes.clone());
        registry.register(
            name("duration_ms"),
            "Time from the first byte of the request to the last of the response",
            series.ms.clone(),
        );
        series
    }

    fn observe(&self, labels: &L, has_response: bool, row: &Observed) {
        self.requests.get_or_create(labels).inc();
        self.request_ms.get_or_create(labels).observe(row.request_ms);
        self.request_bytes.get_or_create(labels).observe(row.request_bytes);
        self.ms.get_or_create(labels).observe(row.ms);
        if has_response {
            self.responses.get_or_create(labels).inc();
            self.response_ms.get_or_create(labels).observe(row.response_ms);
            self.response_bytes.get_or_create(labels).observe(row.response_bytes);
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let http = Series::new(&mut registry, "http");
        let grpc = Series::new(&mut registry, "grpc");
        let connections = Connections::new(&mut registry);
        Self { registry, http, grpc, connections, known: Mutex::default() }
    }
}

impl Metrics {
    /// Counts each row.
    pub fn observe(&self, t: &Transactions<'_>) {
        for row in 0..t.rows() {
            let [start, end] = [t.start_ns, t.end_ns].map(|column| column.value(row));
            let first =
                if arrow_array::Array::is_valid(t.first_byte_ns, row) { t.first_byte_ns.value(row) } else { end };
            let (status, host) = (t.status.value(row), t.endpoint_id.value(row));
            #[expect(clippy::cast_precision_loss, reason = "histograms hold floating-point sums")]
            let observed = Observed {
                request_ms: (first - start).max(0) as f64 / 1e6,
                response_ms: (end - first).max(0) as f64 / 1e6,
                ms: (end - start).max(0) as f64 / 1e6,
                request_bytes: t.request_bytes.value(row) as f64,
                response_bytes: t.response_bytes.value(row) as f64,
            };
            let has_response = t.response_bytes.value(row) > 0;
            let method = known_method(t.method.value(row));
            match Grpc::of(t, row) {
                None => {
                    let host = self.bounded(host, |known| (&mut known.hosts, HOSTS_MAX));
                    let protocol = t.protocol.value(row).to_owned();
                    let labels = HttpLabels { method, host, status_code: status, protocol };
                    let rest = || HttpLabels { method: other(), host: other(), status_code: 0, protocol: other() };
                    let labels = bounded(&mut self.known().http, labels, rest);
                    self.http.observe(&labels, has_response, &observed);
                }
                Some(grpc) => {
                    let host = self.bounded(host, |known| (&mut known.hosts, HOSTS_MAX));
                    let called = format!("{}/{}", grpc.service, grpc.method);
                    let rpc_method = self.bounded(&called, |known| (&mut known.methods, METHODS_MAX));
                    let labels = GrpcLabels { method, host, status_code: grpc.http_status(status), rpc_method };
                    let rest = || GrpcLabels { method: other(), host: other(), status_code: 0, rpc_method: other() };
                    let labels = bounded(&mut self.known().grpc, labels, rest);
                    self.grpc.observe(&labels, has_response, &observed);
                }
            }
        }
    }

    /// Counts reports of connections: the event `connection`.
    pub fn observe_connections(&self, reports: &arrow_array::RecordBatch) {
        self.connections.observe(reports);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bounded(&self, value: &str, of: fn(&mut Known) -> (&mut HashSet<String>, usize)) -> String {
        let mut known = self.known();
        let (values, max) = of(&mut known);
        if values.contains(value) {
            return value.to_owned();
        }
        if values.len() >= max {
            return other();
        }
        values.insert(value.to_owned());
        value.to_owned()
    }

    /// In the text format of `OpenMetrics`.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into memory does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// Methods come from the traffic: what is no common one is `other`.
fn known_method(method: &str) -> String {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    if KNOWN.contains(&method) { method.to_owned() } else { other() }
}
