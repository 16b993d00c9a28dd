//! The admin server: whether the agent lives and captures, what it counts, and what it sees.

mod health;
mod metrics;
mod status;

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use ringtap_batch::{budget::Memory, ledger::Ledger, ring::abi::Counters};
use tokio::{net::TcpListener, sync::Semaphore};

pub use self::{health::Health, status::Status};
use crate::{
    coverage::Coverage,
    devtools::{self, Body, Devtools, access::is_local_name},
    doctor,
    live::wall_offset,
    metrics::Metrics,
    reload::ActingStacks,
    spool::Spool,
};

/// Connections that are served at a time.
const CONNECTIONS_MAX: usize = 128;
/// A connection ends after so long, however slow its client: others want its place. Viewers may stay.
const SERVED_MAX: Duration = Duration::from_secs(15);
/// How often an address that is taken is tried again.
const LATER: Duration = Duration::from_secs(2);

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
    /// Whether it captures.
    pub health: Arc<Health>,
    /// The page, if it was asked for.
    pub devtools: Option<Arc<Devtools>>,
    /// Whether the server listens on a loopback address.
    pub local: bool,
}

/// Listens. Must be called inside of a runtime.
///
/// # Errors
///
/// The address is taken, or not one of this machine.
pub async fn listen(address: SocketAddr, told: Told) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    tell(address, &told);
    tokio::spawn(serve(listener, told));
    Ok(())
}

/// The same, as soon as the address is free.
pub async fn listen_later(address: SocketAddr, told: Told) {
    while listen(address, told.clone()).await.is_err() {
        tokio::time::sleep(LATER).await;
    }
    tracing::info!("metrics at {address}: it is free now");
}

fn tell(address: SocketAddr, told: &Told) {
    match told.devtools.as_ref().map(|devtools| devtools.token_file()) {
        None => {}
        Some(Some(file)) => tracing::info!("/devtools at {address} asks for the token in {}", file.display()),
        Some(None) => tracing::info!("/devtools at http://{address}/devtools"),
    }
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
            let stays = AtomicBool::new(false);
            let answer = service_fn(|request: Request<Incoming>| {
                let (told, stays) = (told.clone(), &stays);
                async move {
                    let response = respond(request, told).await;
                    stays.fetch_or(matches!(response.body(), Either::Right(_)), Ordering::Relaxed);
                    Ok::<_, Infallible>(response)
                }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(std::time::Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), answer);
            let mut served = std::pin::pin!(served);
            // A client that breaks off is nobody's fault.
            if tokio::time::timeout(SERVED_MAX, served.as_mut()).await.is_err() && stays.load(Ordering::Relaxed) {
                let _ = served.await;
            }
            drop(slot);
        });
    }
}

async fn respond(request: Request<Incoming>, told: Told) -> Response<Body> {
    let probe = matches!(request.uri().path(), "/healthz" | "/readyz");
    if !probe && !may_ask(&request, told.local) {
        let why = "ask by localhost or by a loopback address, and not from a page of somebody else\n";
        return text(StatusCode::FORBIDDEN, "text/plain; charset=utf-8", why.into()).map(Either::Left);
    }
    if let Some(devtools) = told.devtools.as_deref() {
        if devtools::is_page(request.uri().path()) {
            return devtools::answer(devtools, request).await;
        }
        if request.uri().path() == "/" {
            return to_devtools();
        }
    }
    // Processes are looked up in /proc, which takes its time.
    let answer = tokio::task::spawn_blocking(move || answer(&request, &told)).await;
    answer.unwrap_or_else(|_| failed()).map(Either::Left)
}

/// Pages of others cannot have a browser ask: neither by a name that was made to lead here, nor across sites.
fn may_ask<B>(request: &Request<B>, local: bool) -> bool {
    let across = request.headers().get("sec-fetch-site").is_some_and(|site| site == "cross-site");
    !across && (!local || is_local_name(request))
}

fn to_devtools() -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::default()));
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    response.headers_mut().insert(header::LOCATION, header::HeaderValue::from_static("/devtools"));
    response
}

fn answer(request: &Request<Incoming>, told: &Told) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
    const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    const JSON: &str = "application/json";
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n".into());
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, TEXT, "ok\n".into()),
        "/readyz" => {
            let reasons = told.health.reasons();
            let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            let warnings = told.health.warnings().into_iter().map(|why| format!("warning: {why}"));
            let ready = (status == StatusCode::OK).then(|| "ready".to_owned());
            let lines: Vec<String> = ready.into_iter().chain(reasons).chain(warnings).collect();
            text(status, TEXT, lines.join("\n") + "\n")
        }
        "/metrics" => text(StatusCode::OK, METRICS, told.metrics.text()),
        "/system/metrics" => text(StatusCode::OK, TEXT, told.metrics()),
        "/system/processes" => text(StatusCode::OK, JSON, told.processes()),
        "/system/status" => text(StatusCode::OK, JSON, told.status()),
        path if devtools::is_page(path) => {
            text(StatusCode::NOT_FOUND, TEXT, "the page is off; --enable-dev-tools turns it on\n".into())
        }
        _ => {
            let all = "/healthz, /readyz, /metrics, /system/metrics, /system/processes, /system/status and /devtools";
            text(StatusCode::NOT_FOUND, TEXT, format!("there are {all}\n"))
        }
    }
}

fn text(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
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
}
