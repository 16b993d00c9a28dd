//! The way to a collector. gRPC is a request of HTTP/2 with five bytes before its message, so one client does both.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{
    HeaderMap, Method, Request, Uri, Version,
    header::{self, HeaderName, HeaderValue},
};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

use super::{
    answer::{self, Answer},
    pack,
    wire::FRAME,
};
use crate::{
    config::{
        checked::Otel,
        written::{Compression, Protocol},
    },
    sink::{SinkError, explain, tls},
};

/// Bytes of an answer that are read.
const ANSWER_MAX: usize = 64 << 10;
/// How long a connection without requests is kept.
const IDLE: Duration = Duration::from_secs(30);
/// A connection whose bytes nobody acknowledges for so long is dead.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);
/// When a connection that is silent is asked whether it lives.
const KEEP_ALIVE: Duration = Duration::from_mins(1);
/// When a connection of HTTP/2 is asked, and how long for an answer.
const PING: Duration = Duration::from_secs(20);
const PONG: Duration = Duration::from_secs(10);
const METHOD: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// A collector, and the connections to it.
pub(super) struct Collector {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    grpc: bool,
    uri: Uri,
    headers: HeaderMap,
    compression: Compression,
    timeout: Duration,
}

impl Collector {
    /// Sets up; nothing is sent yet.
    pub(super) fn new(config: &Otel) -> Result<Self, SinkError> {
        let set_up = |reason: String| SinkError::SetUp { store: "otel", reason };
        let grpc = config.protocol == Protocol::Grpc;
        let uri = uri(config).map_err(set_up)?;
        let headers = headers(config, grpc).map_err(set_up)?;
        let connector = connector(config, grpc).map_err(|error| set_up(explain(&error)))?;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .http2_only(grpc)
            .timer(TokioTimer::new())
            // Else a connection whose other end hangs would be taken again and again.
            .http2_keep_alive_interval(PING)
            .http2_keep_alive_timeout(PONG)
            .http2_keep_alive_while_idle(true)
            .build(connector);
        Ok(Self { client, grpc, uri, headers, compression: config.compression, timeout: config.timeout })
    }

    /// Sends a message, which stands behind the five bytes of gRPC.
    pub(super) async fn send(&self, framed: Bytes) -> Answer {
        match tokio::time::timeout(self.timeout, self.exchange(framed)).await {
            Ok(answer) => answer,
            Err(_) => Answer::Later(format!("no answer within {:?}", self.timeout), None),
        }
    }

    async fn exchange(&self, framed: Bytes) -> Answer {
        let packed = match pack::pack(self.compression, framed) {
            Ok(packed) => packed,
            Err(error) => return Answer::Refused(format!("cannot be compressed: {error}")),
        };
        let body = if self.grpc { packed } else { packed.slice(FRAME..) };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        if self.grpc {
            *request.version_mut() = Version::HTTP_2;
        }
        let (head, body) = match self.client.request(request).await {
            Ok(response) => response.into_parts(),
            Err(error) => return Answer::Later(explain(&error), None),
        };
        let (bytes, trailers) = match Limited::new(body, ANSWER_MAX).collect().await {
            Ok(body) => {
                let trailers = body.trailers().cloned();
                (body.to_bytes(), trailers)
            }
            // Over HTTP the status has already said it.
            Err(_) if !self.grpc => (Bytes::new(), None),
            Err(error) if error.is::<LengthLimitError>() => {
                return Answer::Refused(format!("the answer is longer than {ANSWER_MAX} bytes"));
            }
            Err(error) => return Answer::Later(explain(&*error), None),
        };
        match self.grpc {
            true => answer::grpc(head.status, &head.headers, &bytes, trailers.as_ref()),
            false => answer::http(head.status, &head.headers, &bytes),
        }
    }
}

fn connector(config: &Otel, grpc: bool) -> Result<HttpsConnector<HttpConnector>, tls::TlsError> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(config.timeout));
    http.set_keepalive(Some(KEEP_ALIVE));
    http.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    let client = match &config.tls {
        Some(tls) => tls::client_config(tls)?,
        None => tls::none(),
    };
    let builder = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(client).https_or_http();
    Ok(match grpc {
        true => builder.enable_http2().wrap_connector(http),
        false => builder.enable_http1().wrap_connector(http),
    })
}

/// Where requests go. A URL for HTTP is taken as it is.
fn uri(config: &Otel) -> Result<Uri, String> {
    let is_url = config.endpoint.contains("://");
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let base = if is_url { config.endpoint.clone() } else { format!("{scheme}://{}", config.endpoint) };
    let text = match config.protocol {
        Protocol::Grpc => format!("{}{METHOD}", base.trim_end_matches('/')),
        _ if is_url => base,
        _ => format!("{}/v1/logs", base.trim_end_matches('/')),
    };
    text.parse().map_err(|error| format!("the endpoint `{}` cannot be used: {error}", config.endpoint))
}

/// Header fields of every request: those of the configuration, and then those of OTLP.
fn headers(config: &Otel, grpc: bool) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in &config.headers {
        let field = HeaderName::try_from(name).map_err(|_| format!("`{name}` cannot be the name of a header field"))?;
        let mut value =
            HeaderValue::try_from(value).map_err(|_| format!("the value of the header `{name}` is not text"))?;
        value.set_sensitive(true);
        headers.insert(field, value);
    }
    let agent = concat!("OTel-OTLP-Exporter-Ringtap/", env!("CARGO_PKG_VERSION"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
    let coding = pack::name(config.compression).map(HeaderValue::from_static);
    if grpc {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        let millis = config.timeout.as_millis().min(99_999_999);
        headers.insert("grpc-timeout", HeaderValue::try_from(format!("{millis}m")).map_err(|e| e.to_string())?);
        headers.extend(coding.map(|coding| (HeaderName::from_static("grpc-encoding"), coding)));
    } else {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        headers.extend(coding.map(|coding| (header::CONTENT_ENCODING, coding)));
    }
    Ok(headers)
}
