//! hyper on tokio-rustls: connections go from thread to thread.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Builder,
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::{Load, Outcome, Site};

const THREADS: usize = 4;

pub fn client(load: Load) -> Outcome<()> {
    let load = Arc::new(load);
    Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?.block_on(async {
        let mut clients: JoinSet<_> = (0..load.connections).map(|n| one_client(load.clone(), n)).collect();
        while let Some(done) = clients.join_next().await {
            done??;
        }
        Ok(())
    })
}

async fn one_client(load: Arc<Load>, number: usize) -> Outcome<()> {
    let socket = TcpStream::connect(("127.0.0.1", load.port)).await?;
    let local = socket.local_addr()?.port();
    let stream = TlsConnector::from(load.tls.clone()).connect("localhost".try_into()?, socket).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    for request in 0..load.requests {
        let (path, size) = load.path(number, request, local);
        let asked = Request::get(&path).header("host", "localhost").body(Empty::<Bytes>::new())?;
        let body = sender.send_request(asked).await?.into_body().collect().await?.to_bytes();
        if body.len() != size {
            return Err(format!("{path}: {}", body.len()).into());
        }
        println!("{path}");
    }
    Ok(())
}

pub fn server(site: Site) -> Outcome<()> {
    let site = Arc::new(site);
    Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", site.port)).await?;
        loop {
            let (socket, _) = listener.accept().await?;
            // A client that goes away ends its own task only.
            tokio::spawn(one_server(site.clone(), socket));
        }
    })
}

async fn one_server(site: Arc<Site>, socket: TcpStream) -> Outcome<()> {
    let stream = TlsAcceptor::from(site.tls.clone()).accept(socket).await?;
    let answer = service_fn(|asked: Request<Incoming>| {
        let found = site.read(asked.uri().path());
        let mut response = Response::new(Full::new(Bytes::new()));
        match found {
            Some(body) => *response.body_mut() = Full::new(body.into()),
            None => *response.status_mut() = hyper::StatusCode::NOT_FOUND,
        }
        async { Ok::<_, Infallible>(response) }
    });
    auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer).await
}
