//! A small object to a service that keeps nothing: signing, request and answer, one after another and 32 at once.

use std::{convert::Infallible, hint::black_box, sync::Arc, time::Duration};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use ringtap::{
    config::checked::{Keys, S3},
    sink::s3::S3Store,
};
use tokio::{net::TcpListener, runtime::Runtime, task::JoinSet};

async fn take(mut request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
    while let Some(Ok(_)) = request.body_mut().frame().await {}
    Ok(Response::builder().header("etag", "\"0\"").body(Empty::new()).expect("a header"))
}

async fn service() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(take)));
        }
    });
    port
}

fn store(port: u16) -> Arc<S3Store> {
    let config = S3 {
        endpoint: format!("127.0.0.1:{port}"),
        bucket: "b".into(),
        region: Some("us-east-1".into()),
        access_url: String::new(),
        insecure: true,
        ca_file: None,
        keys: Some(Keys { access: "a".into(), secret: "s".into(), token: None }),
        profile: None,
        prefix: String::new(),
        path_style: true,
        storage_class: None,
        encryption: None,
        presign_expiry: Duration::from_mins(1),
    };
    Arc::new(S3Store::new(config, Arc::default()).expect("nothing is read"))
}

/// Something else than a digest is not remembered: each of these is sent.
async fn put(store: &S3Store) {
    let data = Bytes::from_static(&[b'x'; 2048]);
    black_box(store.put("not a digest", "application/json", data).await.expect("it takes everything"));
}

fn puts(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let store = store(runtime.block_on(service()));
    let mut group = criterion.benchmark_group("s3/2048");
    for at_once in [1u64, 32] {
        group.throughput(Throughput::Elements(at_once));
        group.bench_function(at_once.to_string(), |b| {
            b.iter(|| {
                runtime.block_on(async {
                    let mut tasks = JoinSet::new();
                    for _ in 0..at_once {
                        let store = store.clone();
                        tasks.spawn(async move { put(&store).await });
                    }
                    tasks.join_all().await
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, puts);
criterion_main!(benches);
