//! Asking a running agent.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, Response, body::Bytes, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;

/// How long it is waited for.
const ASKED: Duration = Duration::from_secs(10);
/// Bytes of its answer.
const ANSWER_MAX: usize = 64 << 20;

/// What the agent at `address` says under `path`, which is JSON; `None`: nobody listens there.
///
/// # Errors
///
/// What runs there answers, and is not an agent of this version.
pub fn ask<T: DeserializeOwned>(address: SocketAddr, path: &str) -> anyhow::Result<Option<T>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let asked = async {
            let Some(response) = open(address, path, None).await? else { return Ok(None) };
            anyhow::ensure!(response.status().is_success(), "it answers {}", response.status());
            let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!("its answer breaks off: {error}"))?;
            serde_json::from_slice(&body.to_bytes()).context("its answer is of another version").map(Some)
        };
        let answer = tokio::time::timeout(ASKED, asked).await;
        answer.context("it does not answer").flatten().with_context(|| format!("what runs at {address}"))
    })
}

/// The beginning of an answer; `None`: nobody listens there. Must be called inside of a runtime.
///
/// # Errors
///
/// What listens there does not speak HTTP.
pub async fn open(address: SocketAddr, path: &str, token: Option<&str>) -> anyhow::Result<Option<Response<Incoming>>> {
    let Ok(stream) = tokio::net::TcpStream::connect(address).await else { return Ok(None) };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = Request::get(path).header(header::HOST, address.to_string());
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    Ok(Some(sender.send_request(request.body(Empty::<Bytes>::new())?).await?))
}
