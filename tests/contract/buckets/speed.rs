//! How fast small objects go, beside rclone with the same objects in the same run. `./dev stores` builds it for use and
//! prints the table.

use std::{
    convert::Infallible,
    fs,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use ringtap::sink::s3::S3Store;
use sha1::{Digest as _, Sha1};

use super::{ACCESS, BUCKET, SECRET, bucket, make_bucket, matrix};
use crate::programs::{Server, free_port, serve};

const SIZE: usize = 2048;
/// As many as the agent has on their way.
const AT_ONCE: usize = 32;
const PORT: &str = "RINGTAP_DISCARDING_PORT";

struct Measured {
    a_second: f64,
    /// In milliseconds; `None`: it does not tell.
    latency: Option<[f64; 2]>,
    /// Milliseconds of processor time for a thousand objects.
    cpu: f64,
}

fn objects(count: usize) -> Vec<(String, Bytes)> {
    let object = |i: usize| {
        let data: Vec<u8> = (0..SIZE).map(|at| (i.wrapping_mul(2_654_435_761) >> (at % 24)).to_le_bytes()[0]).collect();
        let data = [i.to_string().into_bytes(), data].concat();
        (format!("{:x}", Sha1::digest(&data)), Bytes::from(data))
    };
    (0..count).map(object).collect()
}

/// User and system time of this process, and of its children that were waited for, in milliseconds.
fn processor_times() -> anyhow::Result<(f64, f64)> {
    let text = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = text.rsplit_once(')').context("a name")?.1.split_whitespace().collect();
    // Clock ticks are hundredths of a second.
    let ticks = |at: usize| -> anyhow::Result<f64> { Ok(fields.get(at).context("a field")?.parse::<f64>()? * 10.0) };
    Ok((ticks(11)? + ticks(12)?, ticks(13)? + ticks(14)?))
}

fn ours(server: &Server, objects: &[(String, Bytes)]) -> anyhow::Result<Measured> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let store = Arc::new(S3Store::new(bucket(server.port), Arc::default())?);
    let (objects, next) = (Arc::new(objects.to_vec()), Arc::new(AtomicUsize::new(0)));
    let (before, begun) = (processor_times()?.0, Instant::now());
    let mut times = runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..AT_ONCE {
            let (store, objects, next) = (store.clone(), objects.clone(), next.clone());
            tasks.spawn(async move {
                let mut times = Vec::new();
                while let Some((digest, data)) = objects.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let begun = Instant::now();
                    store.put(digest, "application/json", data.clone()).await?;
                    times.push(begun.elapsed());
                }
                anyhow::Ok(times)
            });
        }
        let mut all = Vec::new();
        while let Some(times) = tasks.join_next().await {
            all.extend(times??);
        }
        anyhow::Ok(all)
    })?;
    let (took, cpu) = (begun.elapsed(), processor_times()?.0 - before);
    ensure!(times.len() == objects.len(), "{} of {}", times.len(), objects.len());
    times.sort_unstable();
    let at = |thousandth: usize| times[(times.len() - 1) * thousandth / 1000].as_secs_f64() * 1000.0;
    Ok(measured(objects.len(), took, Some([at(500), at(990)]), cpu))
}

fn measured(count: usize, took: Duration, latency: Option<[f64; 2]>, cpu: f64) -> Measured {
    let count = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    Measured { a_second: count / took.as_secs_f64(), latency, cpu: cpu / count * 1000.0 }
}

/// The same objects, as files in memory.
fn theirs(program: &Path, server: &Server, files: &Path, count: usize) -> anyhow::Result<Measured> {
    let (before, begun) = (processor_times()?.1, Instant::now());
    let remote = format!(
        ":s3,provider=Other,env_auth=false,access_key_id={ACCESS},secret_access_key={SECRET},region=us-east-1,\
         endpoint='http://127.0.0.1:{}',no_check_bucket=true,no_head=true:{BUCKET}",
        server.port
    );
    let at_once = AT_ONCE.to_string();
    let status = Command::new(program)
        .args(["copy", "--transfers", &at_once, "--checkers", &at_once, "--no-check-dest", "--ignore-checksum"])
        .args(["--no-traverse", "--retries", "1", "--stats", "0", "--config", "/dev/null"])
        .arg(files)
        .arg(remote)
        .status()?;
    ensure!(status.success(), "rclone failed");
    let took = begun.elapsed();
    Ok(measured(count, took, None, processor_times()?.1 - before))
}

fn show(what: &str, server: &str, measured: &Measured) {
    let [p50, p99] =
        measured.latency.map_or([String::from("-"), String::from("-")], |times| times.map(|ms| format!("{ms:.1}")));
    let Measured { a_second, cpu, .. } = measured;
    println!(
        "{what:<10} {server:<12} {a_second:>8.0} objects/s   p50 {p50:>5} ms   p99 {p99:>5} ms   {cpu:>6.1} ms CPU/1000"
    );
}

#[test]
#[ignore = "measures, and needs a quiet machine: ./dev stores runs it, alone and built for use"]
fn small_objects_beside_rclone() -> anyhow::Result<()> {
    let rclone = crate::tools::tool("rclone").context("./dev tools installs rclone")?;
    let files = tempfile::tempdir_in("/dev/shm")?;
    let mut servers = vec![("discarding", discarding()?, 50_000)];
    if let Ok(server) = matrix::s3s_fs_server("/dev/shm") {
        servers.push(("s3s-fs", server, 20_000));
    }
    if let Some(weed) = crate::tools::tool("weed") {
        servers.push(("SeaweedFS", matrix::seaweedfs_server(&weed)?, 20_000));
    }
    let most = objects(servers.iter().map(|(_, _, count)| *count).max().unwrap_or_default());
    for (name, server, count) in &servers {
        if *name != "discarding" {
            make_bucket(server.port)?;
        }
        let folder = files.path().join(count.to_string());
        fs::create_dir_all(&folder)?;
        for (digest, data) in &most[..*count] {
            fs::write(folder.join(digest), data)?;
        }
        // In turns, twice: a machine that drifts drifts for both. What is there already is written by rclone and kept by
        // ours, so ours goes first.
        for round in 0..2 {
            let part = count / 2 * round..count / 2 * (round + 1);
            let measured = ours(server, &most[part])?;
            show("ringtap", name, &measured);
            ensure!(measured.a_second > 200.0, "that is no speed");
            show("rclone", name, &theirs(&rclone, server, &folder, *count)?);
        }
    }
    Ok(())
}

/// Takes everything and keeps nothing: what the client can do. A process of its own, so that its time is not counted.
fn discarding() -> anyhow::Result<Server> {
    let port = free_port()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--ignored", "--exact", "buckets::speed::takes_everything"]).env(PORT, port.to_string());
    serve(command, port, None)
}

#[test]
#[ignore = "no test but a server: small_objects_beside_rclone starts it, which ./dev stores runs"]
fn takes_everything() -> anyhow::Result<()> {
    let Ok(port) = std::env::var(PORT) else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port.parse()?)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(take)));
        }
    })
}

async fn take(mut request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
    while let Some(Ok(_)) = request.body_mut().frame().await {}
    let answer = Response::builder().header("etag", "\"0\"").body(Empty::new());
    Ok(answer.unwrap_or_default())
}
