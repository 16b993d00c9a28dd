//! Recordings of traffic that the tests write themselves, and replays of them.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use ringtap::recording::Recorder;
use ringtap_batch::{
    clock::WallOffset,
    process::{Process, Processes},
    ring::{
        abi::{CHUNK_MAX, Endpoints, Kind, Record, Totals, flag},
        records::RecordsBuilder,
    },
};
use serde_json::Value;
use zerocopy::{FromZeros as _, IntoBytes as _};

/// Wall time of the first record: 2026-01-02 03:04:05 UTC.
const WALL_NS: i64 = 1_767_323_045_000_000_000;

struct Known(Arc<Process>);

impl Processes for Known {
    fn get(&self, _tgid: u32) -> Option<Arc<Process>> {
        Some(self.0.clone())
    }
}

/// A curl in a container.
fn curl() -> Process {
    let details = [
        ("container.id", "0123456789ab"),
        ("container.name", "relaxed_zhukovsky"),
        ("container.image", "curlimages/curl"),
        ("container.labels.team", "web"),
        ("pod.name", "shop-7d9"),
        ("pod.namespace", "prod"),
        ("process.env.STAGE", "canary"),
    ];
    Process {
        tgid: 4242,
        exe: "/usr/bin/curl".into(),
        uid: Some(1000),
        user: Some("ann".into()),
        details: details.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        tags: vec!["owner:shop".into()],
        excluded: 0,
    }
}

/// Connections, each with the streams of both directions.
#[derive(Default)]
pub struct Traffic {
    rows: RecordsBuilder,
    connections: u64,
    time_ns: u64,
    details: Vec<(String, String)>,
}

impl Traffic {
    /// A connection with one exchange: opened, sent, answered 40 ms later, closed.
    #[must_use]
    pub fn exchange(mut self, remote: &str, tls: bool, request: &[u8], response: &[u8]) -> Self {
        self.connections += 1;
        let remote: SocketAddr = remote.parse().expect("an address");
        let ends = Endpoints::new(1, "10.0.0.5:40000".parse().expect("an address"), remote);
        self.push(Kind::Open, 0, (0, 0), 0, ends.as_bytes());
        let layer = u8::from(tls);
        for (direction, bytes, wait_ms) in [(0u8, request, 2), (1, response, 40)] {
            self.time_ns += wait_ms * 1_000_000;
            let mut offset = 0;
            for chunk in bytes.chunks(CHUNK_MAX) {
                self.push(Kind::Payload, layer, (direction, 0), offset, chunk);
                offset += chunk.len() as u64;
            }
        }
        let lengths = [request.len() as u64, response.len() as u64];
        let mut totals = Totals::new_zeroed();
        (totals.socket, totals.tls) = if tls { ([0; 2], lengths) } else { (lengths, [0; 2]) };
        self.time_ns += 1_000_000;
        self.push(Kind::Close, 0, (0, 0), 0, totals.as_bytes());
        self.time_ns += 3_000_000_000;
        self
    }

    /// More is known of the process.
    #[must_use]
    pub fn detail(mut self, name: &str, value: &str) -> Self {
        self.details.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same, of which the end of the response was lost in a full ring.
    #[must_use]
    pub fn damaged(mut self, remote: &str, request: &[u8], response: &[u8], lost: u32) -> Self {
        self.connections += 1;
        let ends =
            Endpoints::new(1, "10.0.0.5:40000".parse().expect("an address"), remote.parse().expect("an address"));
        self.push(Kind::Open, 0, (0, 0), 0, ends.as_bytes());
        self.push(Kind::Payload, 0, (0, 0), 0, request);
        self.push(Kind::Payload, 0, (1, 0), 0, response);
        self.push(Kind::Payload, 0, (1, lost), response.len() as u64, b"");
        let mut totals = Totals::new_zeroed();
        totals.socket = [request.len() as u64, response.len() as u64 + u64::from(lost)];
        self.push(Kind::Close, 0, (0, 0), 0, totals.as_bytes());
        self.time_ns += 3_000_000_000;
        self
    }

    fn push(&mut self, kind: Kind, layer: u8, (direction, lost): (u8, u32), offset: u64, bytes: &[u8]) {
        self.time_ns += 100_000;
        let mut head = Record::new_zeroed();
        (head.time_ns, head.conn, head.tgid) = (self.time_ns, self.connections, 4242);
        (head.kind, head.layer, head.direction, head.offset) = (kind as u8, layer, direction, offset);
        head.size = u32::try_from(bytes.len()).expect("a chunk");
        head.len = head.size + lost;
        head.flags = if lost > 0 { flag::FAULT } else { 0 };
        self.rows.push_copied(&head, bytes);
    }

    /// Writes it as a recording.
    pub fn record(self, file: &Path) -> anyhow::Result<()> {
        let mut process = curl();
        process.details.extend(self.details);
        let mut recorder = Recorder::create(file, "host-a", Arc::new(Known(Arc::new(process))), Arc::default())?;
        recorder.write(&self.rows.finish(None), WallOffset(WALL_NS))?;
        recorder.finish()
    }
}

/// What a replay has printed.
pub struct Printed {
    /// All of it.
    pub text: String,
    /// Events of a store on standard output: type and fields.
    pub events: Vec<(String, Value)>,
    /// Objects of a store on standard output: content type and bytes.
    pub objects: Vec<(String, Vec<u8>)>,
    /// OTLP requests on standard output.
    pub otlp: Vec<Value>,
    /// All other lines.
    pub lines: Vec<String>,
    /// The summary.
    pub summary: Value,
    /// What was said.
    pub said: String,
}

/// Replays traffic through a configuration, in which `FOLDER` stands for the folder.
pub fn replay(folder: &Path, traffic: Traffic, config: &str) -> anyhow::Result<Printed> {
    let (recording, file) = (folder.join("traffic.rtap"), folder.join("config.yaml"));
    traffic.record(&recording)?;
    std::fs::write(&file, config.replace("FOLDER", &folder.display().to_string()))?;
    let output = Command::new(env!("CARGO_BIN_EXE_ringtap"))
        .args(["replay", "--json", "--shards", "1", "--log-encoding", "console", "--config"])
        .args([&file, &recording])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{said}");
    let text = String::from_utf8(output.stdout)?;
    let mut printed = Printed {
        text: text.clone(),
        events: Vec::new(),
        objects: Vec::new(),
        otlp: Vec::new(),
        lines: Vec::new(),
        summary: Value::Null,
        said,
    };
    for line in text.lines() {
        let value: Value = serde_json::from_str(line).unwrap_or(Value::Null);
        if value["msg"] == "event store submission" {
            let kind = value["type"].as_str().context("a type")?.to_owned();
            printed.events.push((kind, value["item"].clone()));
        } else if value["msg"] == "object store submission" {
            let data = value["data_base64"].as_str().context("data")?;
            let bytes = base64::engine::general_purpose::STANDARD.decode(data)?;
            printed.objects.push((value["content_type"].as_str().context("a type")?.to_owned(), bytes));
        } else if value.get("resourceLogs").is_some() {
            printed.otlp.push(value);
        } else if value.get("ledger").is_some() {
            printed.summary = value;
        } else {
            printed.lines.push(line.to_owned());
        }
    }
    ensure!(printed.summary["balanced"] == true, "{}", printed.summary);
    Ok(printed)
}

/// A message with its length.
#[must_use]
pub fn message(start: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("{start}\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// Runs the program and returns its exit code, standard output and standard error.
pub fn run(arguments: &[&str]) -> anyhow::Result<(Option<i32>, String, String)> {
    let output = Command::new(env!("CARGO_BIN_EXE_ringtap")).args(arguments).output()?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.code(), text(&output.stdout), text(&output.stderr)))
}

/// A file in the project.
#[must_use]
pub fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
