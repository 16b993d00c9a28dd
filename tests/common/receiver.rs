//! A receiver of OTLP that answers as it is told, and keeps what it got.

use std::{
    convert::Infallible,
    io::Read as _,
    net::TcpListener,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Request, Response, body::Incoming, header::HeaderName, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::{
    collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse},
    logs::v1::LogRecord,
};
use prost::Message as _;

/// A request that came.
pub struct Got {
    pub path: String,
    pub headers: HeaderMap,
    /// Bytes of its body as they came.
    pub len: usize,
    pub records: Vec<LogRecord>,
}

/// What is answered.
#[derive(Clone)]
pub enum Say {
    /// It was taken, but for so many records, for this reason.
    Taken(i64, &'static str),
    /// Over HTTP: status, header fields, body.
    Status(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// Over gRPC: code, message, details.
    Code(i32, &'static str, Option<Vec<u8>>),
    /// Nothing, ever.
    Nothing,
}

pub struct Receiver {
    pub port: u16,
    got: Arc<Mutex<Vec<Got>>>,
}

impl Receiver {
    /// Starts one that listens until the tests end.
    pub fn start(grpc: bool, answer: impl Fn(&Got) -> Say + Send + Sync + 'static) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let got = Arc::new(Mutex::new(Vec::new()));
        let state = Arc::new((got.clone(), answer));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::spawn(move || {
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("it listens");
                while let Ok((stream, _)) = listener.accept().await {
                    let state = state.clone();
                    let service = service_fn(move |request| {
                        let state = state.clone();
                        async move { respond(grpc, request, &state.0, &state.1).await }
                    });
                    tokio::spawn(async move {
                        let io = TokioIo::new(stream);
                        // A client may go whenever it likes.
                        let _ = match grpc {
                            true => {
                                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                                builder.serve_connection(io, service).await
                            }
                            false => hyper::server::conn::http1::Builder::new().serve_connection(io, service).await,
                        };
                    });
                }
            });
        });
        Ok(Self { port, got })
    }

    /// What came since this was last asked.
    pub fn take(&self) -> Vec<Got> {
        std::mem::take(&mut self.got.lock().expect("nobody panics with it"))
    }
}

type Answer = Response<http_body_util::combinators::BoxBody<Bytes, Infallible>>;

async fn respond(
    grpc: bool,
    request: Request<Incoming>,
    all: &Mutex<Vec<Got>>,
    answer: &(impl Fn(&Got) -> Say + Sync),
) -> anyhow::Result<Answer> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let (message, coding) = match grpc {
        true => {
            let len = u32::from_be_bytes(body[1..5].try_into()?);
            anyhow::ensure!(len as usize == body.len() - 5, "the length before the message is its own");
            let coding = head.headers.get("grpc-encoding").filter(|_| body[0] == 1);
            (body.slice(5..), coding)
        }
        false => (body.clone(), head.headers.get("content-encoding")),
    };
    let mut plain = Vec::new();
    match coding.map(hyper::header::HeaderValue::as_bytes) {
        Some(b"gzip") => drop(flate2::read::MultiGzDecoder::new(&*message).read_to_end(&mut plain)?),
        Some(b"zstd") => plain = zstd::stream::decode_all(&*message)?,
        _ => plain.extend_from_slice(&message),
    }
    let decoded = ExportLogsServiceRequest::decode(&*plain)?;
    let scopes = decoded.resource_logs.into_iter().flat_map(|resource| resource.scope_logs);
    let got = Got {
        path: head.uri.path().to_owned(),
        headers: head.headers,
        len: body.len(),
        records: scopes.flat_map(|scope| scope.log_records).collect(),
    };
    let say = answer(&got);
    all.lock().expect("nobody panics with it").push(got);
    Ok(match say {
        Say::Nothing => std::future::pending().await,
        Say::Taken(rejected_log_records, words) => {
            let partial = ExportLogsPartialSuccess { rejected_log_records, error_message: words.into() };
            let partial_success = (rejected_log_records > 0 || !words.is_empty()).then_some(partial);
            let message = ExportLogsServiceResponse { partial_success }.encode_to_vec();
            let mut framed = Vec::new();
            if grpc {
                framed.push(0);
                framed.extend(u32::try_from(message.len())?.to_be_bytes());
            }
            framed.extend(message);
            let trailers = grpc.then(|| HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), 0.into())]));
            let body = Full::new(Bytes::from(framed)).with_trailers(async { trailers.map(Ok) });
            let kind = if grpc { "application/grpc" } else { "application/x-protobuf" };
            Response::builder().header("content-type", kind).body(body.boxed())?
        }
        Say::Status(status, headers, body) => {
            let mut builder = Response::builder().status(status);
            for (name, value) in headers {
                builder = builder.header(name, value);
            }
            builder.body(Full::new(Bytes::from(body)).boxed())?
        }
        Say::Code(code, message, details) => {
            let mut builder = Response::builder().header("content-type", "application/grpc");
            builder = builder.header("grpc-status", code).header("grpc-message", message.replace(' ', "%20"));
            if let Some(details) = details {
                let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD_NO_PAD, details);
                builder = builder.header("grpc-status-details-bin", text);
            }
            builder.body(Full::new(Bytes::new()).boxed())?
        }
    })
}
