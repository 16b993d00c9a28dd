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
use ringtap_batch::{budget::Memory, ledger::Ledger, ring::abi::Counters};
use tokio::{net::TcpListener, sync::Semaphore};

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
            let answer = service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(&request, &told))));
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
        (&Method::GET | &Method::HEAD, _) => (StatusCode::NOT_FOUND, "there are /healthz and /system/metrics\n".into()),
        _ => (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

impl Told {
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
        text
    }
}
