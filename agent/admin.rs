//! The admin server: whether the agent lives, and the ledger as metrics.

use std::{
    convert::Infallible,
    fmt::Write as _,
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use ringtap_batch::{blind::Spot, budget::Memory, ledger::Ledger, ring::abi::Counters};
use tokio::{net::TcpListener, sync::Semaphore};

use crate::{
    coverage::Coverage,
    doctor,
    live::wall_offset,
    metrics::Metrics,
    reload::ActingStacks,
    spool::{Kind, Spool},
};

/// Connections that are served at a time.
const CONNECTIONS_MAX: usize = 32;

/// What the server tells of.
#[derive(Clone)]
pub struct Told {
    /// The agent's counts.
    pub ledger: Arc<Ledger>,
    /// The programs' counts, copied once a second.
    pub kernel: Arc<RwLock<Counters>>,
    /// What is kept.
    pub memory: Arc<Memory>,
    /// Whose rules are counted.
    pub stacks: ActingStacks,
    /// The traffic.
    pub metrics: Arc<Metrics>,
    /// What is seen of each process.
    pub coverage: Arc<Coverage>,
    /// What waits on the disk.
    pub spool: Option<Arc<Spool>>,
}

/// Listens. Must be called inside of a runtime.
///
/// # Errors
///
/// The address is taken, or not one of this machine.
pub async fn listen(address: SocketAddr, told: Told) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    tokio::spawn(serve(listener, told));
    Ok(())
}

async fn serve(listener: TcpListener, told: Told) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: it passes.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let told = told.clone();
        tokio::spawn(async move {
            let answer = service_fn(|request: Request<Incoming>| {
                let told = told.clone();
                async move {
                    // Processes are looked up in /proc, which takes its time.
                    let answer = tokio::task::spawn_blocking(move || answer(&request, &told)).await;
                    Ok::<_, Infallible>(answer.unwrap_or_else(|_| failed()))
                }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(std::time::Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), answer);
            // A client that breaks off is nobody's fault.
            let _ = served.await;
            drop(slot);
        });
    }
}

fn answer(request: &Request<Incoming>, told: &Told) -> Response<Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/healthz") => (StatusCode::OK, "ok\n".to_owned()),
        (&Method::GET | &Method::HEAD, "/system/metrics") => (StatusCode::OK, told.metrics()),
        (&Method::GET | &Method::HEAD, "/system/processes") => (StatusCode::OK, told.processes()),
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, told.metrics.text()),
        (&Method::GET | &Method::HEAD, _) => {
            (StatusCode::NOT_FOUND, "there are /healthz, /metrics, /system/metrics and /system/processes\n".into())
        }
        _ => (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static(match request.uri().path() {
        "/metrics" => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        "/system/processes" => "application/json",
        _ => "text/plain; version=0.0.4; charset=utf-8",
    });
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn failed() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(b"this answer has crashed; please report it\n")));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}

impl Told {
    /// What is seen of each process, as JSON.
    fn processes(&self) -> String {
        let blind = self.ledger.blind.all().into_iter().map(|(spot, exe, amount)| doctor::Unread {
            kind: spot.as_str().to_owned(),
            exe,
            connections: amount.connections,
            bytes: amount.bytes,
        });
        let (late_files, longest_ns, probes) = {
            let found = self.coverage.found.lock().unwrap_or_else(PoisonError::into_inner);
            (found.late, found.longest_ns, found.probes)
        };
        let told = doctor::Told {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            missing: self.coverage.missing(),
            late_files,
            longest_blind_us: longest_ns / 1000,
            probes,
            processes: self.coverage.rows(&self.ledger.blind, wall_offset()),
            blind: blind.collect(),
        };
        // Made of nothing that cannot be written.
        serde_json::to_string(&told).unwrap_or_default()
    }

    /// All counts in the text format of Prometheus.
    fn metrics(&self) -> String {
        let kernel = *self.kernel.read().unwrap_or_else(PoisonError::into_inner);
        let counts = self.ledger.named().into_iter().map(|(name, n)| (format!("ringtap_{name}_total"), n));
        let counted = kernel.named().into_iter().map(|(name, n)| (format!("ringtap_kernel_{name}_total"), n));
        let mut text = String::new();
        for (name, n) in counts.chain(counted) {
            let _ = write!(text, "# TYPE {name} counter\n{name} {n}\n");
        }
        for (name, n) in [("kept", self.memory.kept()), ("budget", self.memory.budget())] {
            let _ = write!(text, "# TYPE ringtap_memory_{name}_bytes gauge\nringtap_memory_{name}_bytes {n}\n");
        }
        self.spool(&mut text);
        self.probes(&mut text);
        self.governor(&mut text);
        self.blind(&mut text);
        self.rules(&mut text);
        text
    }

    /// What waits on the disk for its store.
    fn spool(&self, text: &mut String) {
        let Some(spool) = &self.spool else { return };
        let (bytes, bytes_max) = spool.bytes();
        for (name, n) in [("bytes", bytes), ("max_bytes", bytes_max)] {
            let _ = write!(text, "# TYPE ringtap_spool_{name} gauge\nringtap_spool_{name} {n}\n");
        }
        text.push_str("# TYPE ringtap_held gauge\n");
        for (name, kind) in [("events", Kind::Events), ("objects", Kind::Objects)] {
            let _ = writeln!(text, "ringtap_held{{kind=\"{name}\"}} {}", spool.held().get(kind));
        }
        text.push_str("# TYPE ringtap_spool_rows gauge\n");
        for waiting in spool.waiting() {
            let (log, store) = (escaped(&waiting.log), escaped(&waiting.store));
            let _ = writeln!(text, "ringtap_spool_rows{{log=\"{log}\",store=\"{store}\"}} {}", waiting.rows);
        }
    }

    /// Probes, and how late they came.
    fn probes(&self, text: &mut String) {
        let found = self.coverage.found.lock().unwrap_or_else(PoisonError::into_inner);
        #[expect(clippy::cast_precision_loss, reason = "seconds with a fraction")]
        let seconds = |ns: u64| ns as f64 / 1e9;
        let _ = write!(
            text,
            "# TYPE ringtap_probes gauge\nringtap_probes {}\n\
             # TYPE ringtap_late_files_total counter\nringtap_late_files_total {}\n\
             # TYPE ringtap_late_seconds_total counter\nringtap_late_seconds_total {}\n\
             # TYPE ringtap_late_longest_seconds gauge\nringtap_late_longest_seconds {}\n",
            found.probes,
            found.late,
            seconds(found.late_ns),
            seconds(found.longest_ns)
        );
    }

    /// Processes of which less is captured since their probes cost too much.
    fn governor(&self, text: &mut String) {
        let governed = self.coverage.processes.governed();
        text.push_str("# TYPE ringtap_governed_processes gauge\n");
        for (level, n) in governed.processes() {
            let _ = writeln!(text, "ringtap_governed_processes{{level=\"{}\"}} {n}", level.as_str());
        }
        text.push_str("# TYPE ringtap_governor_steps_total counter\n");
        for (from, to, n) in governed.counts() {
            let (from, to) = (from.as_str(), to.as_str());
            let _ = writeln!(text, "ringtap_governor_steps_total{{from=\"{from}\",to=\"{to}\"}} {n}");
        }
    }

    /// What could not be read, by program.
    fn blind(&self, text: &mut String) {
        let all = self.ledger.blind.all();
        for name in ["connections", "bytes"] {
            let _ = writeln!(text, "# TYPE ringtap_blind_{name}_total counter");
            for (spot, exe, amount) in all.iter().filter(|(spot, ..)| name == "bytes" || *spot == Spot::Tls) {
                let n = if name == "bytes" { amount.bytes } else { amount.connections };
                let labels = format!("kind=\"{}\",exe=\"{}\"", spot.as_str(), escaped(exe));
                let _ = writeln!(text, "ringtap_blind_{name}_total{{{labels}}} {n}");
            }
        }
    }

    /// Counts of each rule. Those of a configuration begin anew when it is reloaded.
    fn rules(&self, text: &mut String) {
        let stacks = self.stacks.read().unwrap_or_else(PoisonError::into_inner).clone();
        let rules = stacks.rules();
        for (name, kind) in [("rule_rows", "counter"), ("rule_errors", "counter"), ("rule_seconds", "counter")] {
            let _ = writeln!(text, "# TYPE ringtap_{name}_total {kind}");
            for (at, (stack, plugin, rule, counted)) in rules.iter().enumerate() {
                let labels = format!(
                    "stack=\"{}\",plugin=\"{plugin}\",rule=\"{}\",place=\"{at}\"",
                    escaped(stack),
                    escaped(rule)
                );
                let _ = match name {
                    "rule_rows" => {
                        let errors: u64 = counted.errors.iter().map(|(_, n)| n).sum();
                        [("match", counted.matches), ("other", counted.others), ("error", errors)].iter().try_for_each(
                            |(outcome, n)| {
                                writeln!(text, "ringtap_rule_rows_total{{{labels},outcome=\"{outcome}\"}} {n}")
                            },
                        )
                    }
                    "rule_errors" => counted.errors.iter().try_for_each(|(field, n)| {
                        writeln!(text, "ringtap_rule_errors_total{{{labels},missing=\"{}\"}} {n}", escaped(field))
                    }),
                    _ => writeln!(text, "ringtap_rule_seconds_total{{{labels}}} {}", counted.time.as_secs_f64()),
                };
            }
        }
    }
}

/// A label's value.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
