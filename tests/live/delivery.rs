//! What arrives at collectors and buckets, and in which order.

use std::{
    fs::File,
    io::Write as _,
    net::TcpStream,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::{
    agent::{Agent, config},
    need_root,
    programs::{Server, client, free_port, program, python_server, serve, tool},
    truth::{body, captured, compare, files, sha1},
};

/// Skips a test whose tool is not installed.
macro_rules! need_tool {
    ($name:literal) => {
        match tool($name) {
            Some(path) => path,
            None => {
                let name = std::thread::current().name().unwrap_or_default().to_owned();
                crate::tools::skip(&name, concat!($name, " is not installed; ./dev test installs it"));
                return Ok(());
            }
        }
    };
}

/// Events on standard output: the documented fields, each object's record after the object, one request event each.
#[test]
fn events_and_objects_belong_together() -> anyhow::Result<()> {
    need_root!();
    let server = python_server(true)?;
    let agent = Agent::start(&config("egress", ""))?;
    let lines = client("client_urllib.py", &[&format!("https://127.0.0.1:{}", server.port), "one", "posts"])?;
    let finished = agent.stop()?;
    finished.check()?;
    let objects = files(&finished.objects()?)?;
    let found = captured(objects.clone(), "one")?;
    compare(&lines, &found)?;
    let events: Vec<Value> = finished.stdout.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let of = |kind: &str| events.iter().filter(|e| e["type"] == kind).map(|e| &e["item"]).collect::<Vec<_>>();
    for object in found.values().flatten() {
        let id = &object["metadata"]["request_id"];
        let records: Vec<_> = of("*eventstore.ArtifactRecord").into_iter().filter(|r| &r["requestId"] == id).collect();
        ensure!(records.len() == 1, "{} records of {id}", records.len());
        let record = records[0];
        let digest = record["digest"].as_str().context("a digest")?;
        ensure!(objects.iter().any(|(name, _)| name == digest), "{record:#}");
        ensure!(record["url"].as_str().is_some_and(|u| u.starts_with("file://") && u.ends_with(digest)), "{record:#}");
        ensure!(record["summary"]["request_method"] == object["request"]["method"], "{record:#}");
        ensure!(record["summary"]["response_status"] == object["response"]["status"], "{record:#}");
        let requests: Vec<_> = of("*eventstore.Request").into_iter().filter(|r| &r["requestId"] == id).collect();
        ensure!(requests.len() == 1 && requests[0]["url"] == object["request"]["url"], "{requests:#?}");
    }
    let python = of("*eventstore.Connection").into_iter().filter(|c| {
        c["source"]["exe"].as_str().is_some_and(|e| e.contains("python"))
            && c["l7Protocol"] == "http1"
            && c["finalized"] == true
    });
    ensure!(python.count() >= found.len(), "each request of urllib has a connection of its own");
    Ok(())
}

/// Rotel takes OTLP; what it hands on is read by a receiver that prints each record as a line.
struct Collector {
    _rotel: Server,
    grpc: u16,
    http: u16,
    output: std::path::PathBuf,
    reader: std::process::Child,
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.reader.kill();
        let _ = self.reader.wait();
    }
}

impl Collector {
    fn start(rotel: &std::path::Path, python: &std::path::Path, folder: &std::path::Path) -> anyhow::Result<Self> {
        let (grpc, http, behind) = (free_port()?, free_port()?, free_port()?);
        let output = folder.join("received.ndjson");
        let mut command = Command::new(python);
        command.arg(program("collector.py")).arg(behind.to_string());
        let reader = command.stdin(Stdio::null()).stdout(File::create(&output)?).stderr(Stdio::null()).spawn()?;
        wait_for(behind)?;
        let mut command = Command::new(rotel);
        command.args(["start", "--exporter", "otlp", "--otlp-exporter-protocol", "http"]);
        command.args(["--otlp-grpc-endpoint", &format!("127.0.0.1:{grpc}")]);
        command.args(["--otlp-http-endpoint", &format!("127.0.0.1:{http}")]);
        command.args(["--otlp-exporter-endpoint", &format!("http://127.0.0.1:{behind}")]);
        let rotel = serve(command, grpc, None)?;
        wait_for(http)?;
        Ok(Self { _rotel: rotel, grpc, http, output, reader })
    }

    /// The lines so far, once as many hold `mark` as are expected.
    fn wait(&self, mark: &str, expected: usize) -> anyhow::Result<String> {
        let begun = Instant::now();
        loop {
            let text = std::fs::read_to_string(&self.output)?;
            let seen = text.matches(mark).count();
            if seen >= expected {
                return Ok(text);
            }
            if begun.elapsed() > Duration::from_secs(20) {
                bail!("{seen} of {expected} `{mark}` arrived: {text:.2000}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn wait_for(port: u16) -> anyhow::Result<()> {
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        ensure!(begun.elapsed() < Duration::from_secs(20), "nothing listens on {port}");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn through_collector(protocol: &str) -> anyhow::Result<()> {
    need_root!();
    let (rotel, python) = (need_tool!("rotel-agent"), need_tool!("python3"));
    let folder = tempfile::tempdir()?;
    let collector = Collector::start(&rotel, &python, folder.path())?;
    let port = if protocol == "grpc" { collector.grpc } else { collector.http };
    let server = python_server(true)?;
    let text = include_str!("../configs/option-1-otel.yaml")
        .replace("localhost:4317", &format!("127.0.0.1:{port}"))
        .replace("protocol: grpc", &format!("protocol: {protocol}"))
        .replace("ignore_loopback: true", "ignore_loopback: false");
    let agent = Agent::start(&text)?;
    let url = format!("https://127.0.0.1:{}", server.port);
    let lines = client("client_urllib.py", &[&url, "collected", "posts"])?;
    let finished = agent.stop()?;
    finished.check()?;
    let count = lines.lines().count();
    collector.wait("Artifact stored: http_transaction", count)?;
    // The collector has queues of its own, in which objects can be behind their events; and what it hands on is traffic
    // like any other's.
    let begun = Instant::now();
    let received = loop {
        let received = collector.wait("Artifact: http_transaction", count)?;
        let all = artifacts(&received).and_then(|objects| captured(objects, "collected"));
        match all.and_then(|found| compare(&lines, &found)) {
            Ok(_) => break received,
            Err(error) => ensure!(begun.elapsed() < Duration::from_secs(20), error),
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    for part in ["event.type", "artifact_record", "connection", "qtap.eventstore", "qtap.objectstore", "production"] {
        ensure!(received.contains(part), "{part} is missing in {received:.3000}");
    }
    Ok(())
}

/// Objects out of the log records that the receiver printed.
fn artifacts(received: &str) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    for line in received.lines().filter(|line| line.contains("artifact.data")) {
        collect(&serde_json::from_str(line)?, &mut found);
    }
    Ok(found)
}

/// Finds `{key: artifact.digest, value}` pairs or plain maps, however deep the receiver nests them.
fn collect(value: &Value, found: &mut Vec<(String, Vec<u8>)>) {
    let text = |v: &Value| {
        v.as_str().or_else(|| v["stringValue"].as_str()).or_else(|| v["string_value"].as_str()).map(str::to_owned)
    };
    match value {
        Value::Array(items) => {
            let named = |name: &str| items.iter().find(|i| i["key"] == name).and_then(|i| text(&i["value"]));
            if let (Some(digest), Some(data)) = (named("artifact.digest"), named("artifact.data")) {
                found.push((digest, data.into_bytes()));
            }
            for item in items {
                collect(item, found);
            }
        }
        Value::Object(map) => {
            if let (Some(digest), Some(data)) =
                (map.get("artifact.digest").and_then(text), map.get("artifact.data").and_then(text))
            {
                found.push((digest, data.into_bytes()));
            }
            for item in map.values() {
                collect(item, found);
            }
        }
        _ => {}
    }
}

#[test]
fn option_one_over_grpc() -> anyhow::Result<()> {
    through_collector("grpc")
}

#[test]
fn option_one_over_http() -> anyhow::Result<()> {
    through_collector("http")
}

/// The guide's second option, pointed at a bucket here.
fn bucket_config(store: &Server) -> String {
    include_str!("../configs/option-2-otel-s3.yaml")
        .replace("minio.internal:9000", &format!("127.0.0.1:{}", store.port))
        .replace("insecure: false", "insecure: true")
        .replace("ignore_loopback: true", "ignore_loopback: false")
        .replace("protocol: grpc", "protocol: stdout")
}

/// The guide's second option, with objects in a bucket: key = digest = SHA-1 of the bytes, rules choose the level.
fn into_bucket(store: &Server, access: &str, secret: &str) -> anyhow::Result<()> {
    let (server, text) = (python_server(true)?, bucket_config(store));
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringtap"));
    command.env("S3_ACCESS_KEY", access).env("S3_SECRET_KEY", secret);
    let agent = Agent::start_with(&text, &[], command)?;
    let url = format!("https://127.0.0.1:{}", server.port);
    let lines = client("client_urllib.py", &[&url, "bucket", "posts"])?;
    let finished = agent.stop()?;
    finished.check()?;
    let mut checked = (0, 0);
    for line in finished.stdout.lines().filter(|line| line.contains("artifact_record")) {
        for record in attributes(&serde_json::from_str(line)?, "digest") {
            let digest = record.as_str();
            let bytes = fetch(store.port, digest, access, secret)?;
            ensure!(sha1(&bytes) == digest, "the bucket holds other bytes under {digest}");
            let object: Value = serde_json::from_slice(&bytes)?;
            if object["request"]["path"] == "/error" {
                ensure!(body(&object, "response")? == b"oops", "an error is kept in full: {object:#}");
                checked.1 += 1;
            } else if object["request"]["user_agent"].as_str().is_some_and(|a| a.contains("urllib")) {
                ensure!(object["request"].get("headers").is_none(), "a summary has no headers: {object:#}");
                checked.0 += 1;
            }
        }
    }
    let access_url = "https://objects.internal.example.com/qpoint/";
    ensure!(finished.stdout.contains(access_url), "the template of the url is filled in");
    ensure!(checked == (lines.lines().count() - 1, 1), "{checked:?} of {}", lines.lines().count());
    Ok(())
}

/// Values of one field of the events in a line of OTLP JSON.
fn attributes(value: &Value, name: &str) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().flat_map(|item| attributes(item, name)).collect(),
        Value::Object(map) if map.get("key").is_some_and(|key| key == name) => {
            map.get("value").and_then(|v| v["stringValue"].as_str()).map(str::to_owned).into_iter().collect()
        }
        Value::Object(map) => map.values().flat_map(|item| attributes(item, name)).collect(),
        _ => Vec::new(),
    }
}

/// Flags with which curl signs.
const SIGNED: [&str; 4] = ["--aws-sigv4", "aws:amz:us-east-1:s3", "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD"];

/// Reads an object with curl's own signatures.
fn fetch(port: u16, key: &str, access: &str, secret: &str) -> anyhow::Result<Vec<u8>> {
    let output = Command::new("curl")
        .arg("-sf")
        .args(SIGNED)
        .args(["--user", &format!("{access}:{secret}")])
        .arg(format!("http://127.0.0.1:{port}/qpoint/{key}"))
        .output()?;
    ensure!(output.status.success(), "the bucket has no {key}");
    Ok(output.stdout)
}

fn make_bucket(port: u16, access: &str, secret: &str) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let status = Command::new("curl")
            .args(["-sf", "-X", "PUT"])
            .args(SIGNED)
            .args(["--user", &format!("{access}:{secret}")])
            .arg(format!("http://127.0.0.1:{port}/qpoint"))
            .stdout(Stdio::null())
            .status()?;
        // A server whose port is open may not be writable yet.
        let probe = Command::new("curl")
            .args(["-sf", "-X", "PUT", "--data", "x"])
            .args(SIGNED)
            .args(["--user", &format!("{access}:{secret}"), &format!("http://127.0.0.1:{port}/qpoint/probe")])
            .stdout(Stdio::null())
            .status()?;
        if status.success() && probe.success() {
            return Ok(());
        }
        ensure!(begun.elapsed() < Duration::from_secs(40), "no bucket can be made");
        std::thread::sleep(Duration::from_millis(300));
    }
}

#[test]
fn option_two_into_seaweedfs() -> anyhow::Result<()> {
    need_root!();
    let weed = need_tool!("weed");
    let (folder, port) = (tempfile::tempdir()?, free_port()?);
    let identities = folder.path().join("identities.json");
    let identity = r#"{"identities":[{"name":"t","credentials":[{"accessKey":"AKTEST","secretKey":"s3cret"}],"actions":["Admin","Read","Write","List"]}]}"#;
    File::create(&identities)?.write_all(identity.as_bytes())?;
    let mut command = Command::new(weed);
    // gRPC ports lie 10,000 above by default and would leave the range: each gets its own free one.
    for flag in ["master", "volume", "filer"] {
        command.arg(format!("-{flag}.port={}", free_port()?)).arg(format!("-{flag}.port.grpc={}", free_port()?));
    }
    command
        .args(["-s3", "-filer"])
        .arg(format!("-dir={}", folder.path().display()))
        .args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-volume.max=100", "-master.volumeSizeLimitMB=64"])
        .arg(format!("-s3.port={port}"))
        .arg(format!("-s3.port.grpc={}", free_port()?))
        .arg(format!("-s3.config={}", identities.display()));
    // The subcommand goes first.
    let program = command.get_program().to_owned();
    let arguments: Vec<_> = command.get_args().map(std::ffi::OsStr::to_owned).collect();
    let mut command = Command::new(program);
    command.arg("server").args(arguments);
    let store = serve(command, port, Some(folder))?;
    make_bucket(port, "AKTEST", "s3cret")?;
    into_bucket(&store, "AKTEST", "s3cret")
}

fn rclone(program: &std::path::Path) -> anyhow::Result<Server> {
    let (folder, port) = (tempfile::tempdir()?, free_port()?);
    std::fs::create_dir(folder.path().join("qpoint"))?;
    let mut command = Command::new(program);
    command.args(["serve", "s3", "--auth-key", "AKTEST,s3cret", "--addr", &format!("127.0.0.1:{port}")]);
    command.arg(folder.path());
    serve(command, port, Some(folder))
}

#[test]
fn option_two_into_rclone() -> anyhow::Result<()> {
    need_root!();
    let program = need_tool!("rclone");
    into_bucket(&rclone(&program)?, "AKTEST", "s3cret")
}

/// A bucket with another secret refuses all: nothing is stored, no event claims it, what it refused waits in the spool,
/// and the books still balance.
#[test]
fn a_refused_object_is_counted_and_has_no_event() -> anyhow::Result<()> {
    need_root!();
    let program = need_tool!("rclone");
    let server = python_server(false)?;
    let store = rclone(&program)?;
    let text = bucket_config(&store);
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringtap"));
    command.env("S3_ACCESS_KEY", "AKTEST").env("S3_SECRET_KEY", "wrong");
    let agent = Agent::start_with(&text, &[], command)?;
    client("client_urllib.py", &[&format!("http://127.0.0.1:{}", server.port), "refused", "gets"])?;
    let finished = agent.stop()?;
    finished.check()?;
    ensure!(!finished.stdout.contains("artifact_record"), "an event speaks of an object that is not there");
    ensure!(finished.stderr.contains("objects cannot be delivered; they wait in the spool"), "{}", finished.stderr);
    Ok(())
}
