//! hyper's client and hyper's server, in memory: what each wrote, in order, and what they meant by it.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// Bytes of one write: whether the client wrote them, and what they are.
pub type Write = (bool, Vec<u8>);

/// A request and its response, as both ends mean them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meant {
    pub method: String,
    pub target: String,
    pub request: Vec<u8>,
    pub status: u16,
    pub response: Vec<u8>,
}

/// Takes note of what is written.
struct Tee {
    stream: DuplexStream,
    client: bool,
    log: Arc<Mutex<Vec<Write>>>,
}

impl AsyncRead for Tee {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tee {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(len)) = written {
            self.log.lock().expect("nobody panicked").push((self.client, bytes[..len].to_vec()));
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The answer to a request, by its target and body alone.
fn answer(target: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let size: usize = target.rsplit('/').next().and_then(|text| text.parse().ok()).unwrap_or(0);
    let status = [200, 200, 201, 404, 500][size % 5];
    (status, body.iter().rev().copied().chain((0..size).map(|n| b"0123456789"[n % 10])).collect())
}

async fn serve(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let target = request.uri().path_and_query().map_or(String::new(), ToString::to_string);
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let (status, body) = answer(&target, &body);
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status.try_into().expect("a status");
    response.headers_mut().insert("x-answers", target.parse().expect("a value"));
    Ok(response)
}

fn request(http2: bool, meant: &Meant) -> Request<Full<Bytes>> {
    let uri = if http2 { format!("http://h.test{}", meant.target) } else { meant.target.clone() };
    let mut request = Request::builder().method(meant.method.as_str()).uri(uri).header("user-agent", "talk/1");
    if !http2 {
        request = request.header("host", "h.test");
    }
    // Fields that come again and again, and fields that never do.
    request = request.header("x-same", "the same in every request").header("x-target", &meant.target);
    request.body(Full::from(meant.request.clone())).expect("a request")
}

/// Lets them talk, `parallel` requests at a time, with so many bytes on the way at most.
pub async fn talk(
    http2: bool,
    plan: &[(String, String, Vec<u8>)],
    parallel: usize,
    room: usize,
) -> (Vec<Write>, Vec<Meant>) {
    let log = Arc::new(Mutex::new(Vec::new()));
    let (near, far) = tokio::io::duplex(room);
    let tee = |stream, client| TokioIo::new(Tee { stream, client, log: log.clone() });
    let (client, server) = (tee(near, true), tee(far, false));
    let meant: Vec<Meant> = plan
        .iter()
        .map(|(method, target, request)| {
            let (status, response) = answer(target, request);
            Meant { method: method.clone(), target: target.clone(), request: request.clone(), status, response }
        })
        .collect();
    if http2 {
        tokio::spawn(async move {
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(server, service_fn(serve))
                .await
        });
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), client).await.expect("a handshake");
        let driver = tokio::spawn(connection);
        for some in meant.chunks(parallel) {
            let sent = some.iter().map(|one| {
                let (mut sender, request) = (sender.clone(), request(true, one));
                tokio::spawn(async move {
                    let response = sender.send_request(request).await.expect("a response");
                    response.into_body().collect().await.expect("a body");
                })
            });
            for task in sent.collect::<Vec<_>>() {
                task.await.expect("it ends");
            }
        }
        drop(sender);
        driver.await.expect("it ends").expect("no error");
    } else {
        tokio::spawn(async move {
            hyper::server::conn::http1::Builder::new().serve_connection(server, service_fn(serve)).await
        });
        let (mut sender, connection) = hyper::client::conn::http1::handshake(client).await.expect("a handshake");
        let driver = tokio::spawn(connection);
        for one in &meant {
            sender.ready().await.expect("it is ready");
            let response = sender.send_request(request(false, one)).await.expect("a response");
            response.into_body().collect().await.expect("a body");
        }
        drop(sender);
        driver.await.expect("it ends").expect("no error");
    }
    let log = log.lock().expect("nobody panicked").clone();
    (log, meant)
}
