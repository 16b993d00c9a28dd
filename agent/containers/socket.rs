//! One request over HTTP at a socket of this host.

use std::{
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
};

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, Uri, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower_service::Service;

/// Bytes of an answer.
const ANSWER_MAX: usize = 4 << 20;

/// The body of the answer to a GET.
///
/// # Errors
///
/// Nobody listens there, or the answer is no success.
pub async fn get(socket: &Path, path: &str) -> anyhow::Result<Bytes> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(path).header("host", "localhost").body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    anyhow::ensure!(response.status().is_success(), "{}: {path}: {}", socket.display(), response.status());
    let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
    Ok(body.map_err(|error| anyhow::anyhow!("{}: {path}: {error}", socket.display()))?.to_bytes())
}

/// A channel for gRPC.
///
/// # Errors
///
/// Nobody listens there.
pub async fn channel(socket: &Path) -> anyhow::Result<Channel> {
    // The address is not used; without one there is no request.
    let endpoint = Endpoint::from_static("http://localhost");
    Ok(endpoint.connect_with_connector(Connector(socket.to_owned())).await?)
}

struct Connector(PathBuf);

impl Service<Uri> for Connector {
    type Response = TokioIo<UnixStream>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let socket = self.0.clone();
        Box::pin(async move { Ok(TokioIo::new(UnixStream::connect(socket).await?)) })
    }
}
