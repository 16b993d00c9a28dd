//! Buckets: each server that can be had, and what it does with conditions, signatures, parts and wishes; where keys come
//! from; what is said when it fails.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use ringtap::{
    config::checked::{Keys, S3},
    sink::{SinkError, s3::S3Store},
};
use ringtap_batch::ledger::Ledger;
use sha1::{Digest as _, Sha1};

use crate::programs::{Server, free_port, serve};

mod answers;
mod keys;
mod matrix;
mod reading;
mod speed;

const ACCESS: &str = "AKTEST";
const SECRET: &str = "s3cret";
const BUCKET: &str = "captures";

/// Skips a test whose tool is not installed.
macro_rules! need_tool {
    ($name:literal, $installs:literal) => {
        match crate::tools::tool($name) {
            Some(path) => path,
            None => {
                let name = std::thread::current().name().unwrap_or_default().to_owned();
                crate::tools::skip(&name, concat!($name, " is not installed; ", $installs, " installs it"));
                return Ok(());
            }
        }
    };
}
pub(crate) use need_tool;

/// A bucket on this machine, over plain HTTP.
fn bucket(port: u16) -> S3 {
    S3 {
        endpoint: format!("127.0.0.1:{port}"),
        bucket: BUCKET.into(),
        region: Some("us-east-1".into()),
        access_url: String::new(),
        insecure: true,
        ca_file: None,
        keys: Some(Keys { access: ACCESS.into(), secret: SECRET.into(), token: None }),
        profile: None,
        prefix: String::new(),
        path_style: true,
        storage_class: None,
        encryption: None,
        presign_expiry: Duration::from_mins(1),
    }
}

/// A store, the count of what it had already, and a runtime to use it in.
struct Client {
    store: S3Store,
    ledger: Arc<Ledger>,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    fn new(config: S3) -> anyhow::Result<Self> {
        let ledger = Arc::<Ledger>::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { store: S3Store::new(config, ledger.clone())?, ledger, runtime })
    }

    /// Stores an object under its digest: the digest, and the url.
    fn put(&self, data: &[u8]) -> Result<(String, String), SinkError> {
        let digest = format!("{:x}", Sha1::digest(data));
        let put = self.store.put(&digest, "application/json", Bytes::copy_from_slice(data));
        self.runtime.block_on(put).map(|url| (digest, url))
    }

    fn unchanged(&self) -> u64 {
        self.ledger.objects_unchanged.get()
    }

    /// Why an object is not taken; and that it can be later, or never.
    fn refusal(&self, data: &[u8]) -> anyhow::Result<(bool, String, Option<Duration>)> {
        match self.put(data) {
            Ok((_, url)) => anyhow::bail!("it was taken: {url}"),
            Err(SinkError::Unavailable { reason, after, .. }) => Ok((true, reason, after)),
            Err(SinkError::Refused { reason, .. }) => Ok((false, reason, None)),
            Err(other) => Err(other.into()),
        }
    }
}

/// curl, which signs by itself.
fn curl(port: u16, method: &str, path: &str) -> Command {
    let mut command = Command::new("curl");
    command.args(["-sf", "-X", method, "--aws-sigv4", "aws:amz:us-east-1:s3"]);
    command.args(["-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD", "--user", &format!("{ACCESS}:{SECRET}")]);
    command.arg(format!("http://127.0.0.1:{port}/{path}"));
    command
}

fn fetch(port: u16, key: &str) -> anyhow::Result<Vec<u8>> {
    let output = curl(port, "GET", &format!("{BUCKET}/{key}")).output()?;
    ensure!(output.status.success(), "the bucket has no {key}");
    Ok(output.stdout)
}

/// Whoever has the url, without any key.
fn open(url: &str) -> anyhow::Result<Option<Vec<u8>>> {
    let output = Command::new("curl").args(["-sf", url]).output()?;
    Ok(output.status.success().then_some(output.stdout))
}

/// Makes the bucket, and waits until it can be written: a server whose port is open may not be ready yet.
fn make_bucket(port: u16) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        curl(port, "PUT", BUCKET).stdout(Stdio::null()).status()?;
        let mut probe = curl(port, "PUT", &format!("{BUCKET}/probe"));
        if probe.args(["--data-binary", "x"]).stdout(Stdio::null()).status()?.success() {
            return Ok(());
        }
        ensure!(begun.elapsed() < Duration::from_mins(1), "no bucket can be made");
        std::thread::sleep(Duration::from_millis(300));
    }
}

fn rclone(program: &Path, more: &[&str]) -> anyhow::Result<(Server, PathBuf)> {
    let (folder, port) = (tempfile::tempdir()?, free_port()?);
    let path = folder.path().to_owned();
    std::fs::create_dir(path.join(BUCKET))?;
    let mut command = Command::new(program);
    command.args(["serve", "s3", "--auth-key", &format!("{ACCESS},{SECRET}"), "--addr", &format!("127.0.0.1:{port}")]);
    command.args(more).arg(&path);
    Ok((serve(command, port, Some(folder))?, path))
}

/// A request as it came: its head, and its body.
#[derive(Debug, Clone)]
struct Request {
    head: String,
    body: String,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        fields.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// A service that answers as it is told: the text behind `HTTP/1.1 `, up to the body.
struct Service {
    port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Service {
    fn start(answer: impl Fn(&Request) -> (String, String) + Send + 'static) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let requests = Arc::<Mutex<Vec<Request>>>::default();
        let seen = requests.clone();
        std::thread::spawn(move || {
            // Ends with the test's process. A connection that breaks is the client's to tell.
            for stream in listener.incoming().flatten() {
                let _ = serve_one(stream, &answer, &seen);
            }
        });
        Ok(Self { port, requests })
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().map(|requests| requests.clone()).unwrap_or_default()
    }
}

fn serve_one(
    mut stream: TcpStream,
    answer: &impl Fn(&Request) -> (String, String),
    seen: &Mutex<Vec<Request>>,
) -> anyhow::Result<()> {
    let (mut bytes, mut block) = (Vec::new(), [0; 16_384]);
    let mut head_ends = None;
    let request = loop {
        let n = stream.read(&mut block)?;
        ensure!(n > 0, "closed");
        bytes.extend_from_slice(&block[..n]);
        head_ends = head_ends.or_else(|| bytes.windows(4).position(|four| four == b"\r\n\r\n"));
        let Some(end) = head_ends else { continue };
        let mut request = Request { head: String::from_utf8_lossy(&bytes[..end]).into_owned(), body: String::new() };
        let length = request.header("content-length").map_or(Ok(0), str::parse::<usize>)?;
        if bytes.len() - end - 4 >= length {
            request.body = String::from_utf8_lossy(&bytes[end + 4..]).into_owned();
            break request;
        }
    };
    let (head, body) = answer(&request);
    seen.lock().ok().context("a list")?.push(request);
    write!(stream, "HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())?;
    Ok(())
}

/// An error as S3 tells it.
fn error(code: &str) -> String {
    format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{code} it is</Message></Error>")
}

/// Environment without anything that names keys.
fn without_keys(command: &mut Command, home: &Path) {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
        command.env_remove(name);
    }
    command.env("HOME", home).env("AWS_EC2_METADATA_DISABLED", "true");
}
