//! What is measured, in which order, and what follows from it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::Serialize;

use super::{
    empty::EmptyPrograms,
    load::{Measured, Server, cpu_seconds, load, resident_bytes},
};
use crate::cli::{CapacityArgs, CapacityLevel, Transport};

/// Shares of what the server can do alone, in percent; the last step asks for all that it can.
const STEPS: [u64; 5] = [20, 40, 60, 80, 100];
/// How far the application's p99 may move.
const P99_MOVES: f64 = 1.10;
/// How much of the rate without the agent must be kept: the load waits for answers, so a slow one lowers the rate.
const RATE_KEPT: f64 = 0.95;
/// Latencies below this are the clock's noise: a move within it is none.
const NOISE_US: u64 = 200;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Results {
    /// Kernel release.
    pub kernel: String,
    /// Model of the processors.
    pub processor: String,
    /// Their number.
    pub processors: usize,
    /// Bytes of one ring.
    pub ring_bytes: u32,
    /// Seconds that each step was measured.
    pub seconds: u32,
    /// One for each combination.
    pub cells: Vec<Cell>,
}

/// A combination of transport, body and level.
#[derive(Debug, Serialize)]
pub struct Cell {
    /// `plain` or `tls`.
    pub transport: &'static str,
    /// Bytes of each response's body.
    pub body_bytes: u64,
    /// `summary`, `full`, or `configured`.
    pub level: &'static str,
    /// From little load to much.
    pub steps: Vec<Step>,
    /// Requests a second up to which nothing is lost and p99 stays where it is without the agent.
    pub carries_per_second: f64,
    /// What ended it; empty: the server itself was the limit.
    pub ended_by: String,
}

/// One rate of load.
#[derive(Debug, Serialize)]
pub struct Step {
    /// Requests a second that were asked for; `None`: as many as can be.
    pub asked_per_second: Option<u64>,
    /// Without any probe.
    pub none: Measured,
    /// With programs that do nothing on the same probes.
    pub empty: Measured,
    /// With the agent.
    pub agent: WithAgent,
}

/// A step with the agent.
#[derive(Debug, Clone, Serialize)]
pub struct WithAgent {
    /// As the load saw it.
    #[serde(flatten)]
    pub measured: Measured,
    /// Processors that the agent kept busy.
    pub agent_cpu: f64,
    /// Resident memory of the agent at the end of the step.
    pub agent_resident_bytes: u64,
    /// What the ledger counted in this step.
    pub ledger: BTreeMap<String, u64>,
}

impl WithAgent {
    /// Bytes, records, objects and events that did not come through.
    pub fn lost(&self) -> u64 {
        let of = |name: &str| self.ledger.get(name).copied().unwrap_or(0);
        [
            "kernel_ring_full_records",
            "kernel_fault_bytes",
            "kernel_call_limit_bytes",
            "kernel_ends_lost",
            "connections_evicted",
            "objects_failed",
            "objects_queue_full",
            "events_failed",
            "events_queue_full",
        ]
        .map(of)
        .iter()
        .sum()
    }
}

/// Measures all cells.
pub fn measure(arguments: &CapacityArgs) -> anyhow::Result<Results> {
    let server = Server::start(&arguments.bodies)?;
    let mut cells = Vec::new();
    for transport in &arguments.transports {
        for body in &arguments.bodies {
            let levels = if arguments.config.is_some() { &arguments.levels[..1] } else { &arguments.levels[..] };
            for level in levels {
                let cell = measure_cell(arguments, &server, *transport, *body, *level)?;
                eprintln!("{}", cell.line());
                cells.push(cell);
            }
        }
    }
    let uname = rustix::system::uname();
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    Ok(Results {
        kernel: uname.release().to_string_lossy().into_owned(),
        processor: model.map_or_else(String::new, |(_, name)| name.to_owned()),
        processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        ring_bytes: arguments.ring_size,
        seconds: arguments.seconds,
        cells,
    })
}

fn measure_cell(
    arguments: &CapacityArgs,
    server: &Server,
    transport: Transport,
    body: u64,
    level: CapacityLevel,
) -> anyhow::Result<Cell> {
    let url = server.url(transport, body);
    let most = load(server, &url, None, arguments.seconds)?.per_second;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "requests a second are few")]
    let rates = STEPS.map(|share| (share < 100).then_some((most as u64 * share / 100).max(1)));
    let at = |rate: &Option<u64>| load(server, &url, *rate, arguments.seconds);
    let none: Vec<Measured> = rates.iter().map(at).collect::<Result<_, _>>()?;
    let empty: Vec<Measured> = {
        let libraries = server.libraries();
        let _attached = EmptyPrograms::attach(libraries.iter().map(PathBuf::as_path))?;
        rates.iter().map(at).collect::<Result<_, _>>()?
    };
    let mut cell = Cell {
        transport: if transport == Transport::Tls { "tls" } else { "plain" },
        body_bytes: body,
        level: match (&arguments.config, level) {
            (Some(_), _) => "configured",
            (None, CapacityLevel::Summary) => "summary",
            (None, CapacityLevel::Full) => "full",
        },
        steps: Vec::new(),
        carries_per_second: 0.0,
        ended_by: String::new(),
    };
    let agent = Agent::start(arguments, level)?;
    for ((rate, none), empty) in rates.into_iter().zip(none).zip(empty) {
        let with = agent.step(server, &url, rate, arguments)?;
        if cell.ended_by.is_empty() {
            cell.ended_by = ends(&none, &with);
            if cell.ended_by.is_empty() {
                cell.carries_per_second = with.measured.per_second;
            }
        }
        cell.steps.push(Step { asked_per_second: rate, none, empty, agent: with });
    }
    agent.stop()?;
    Ok(cell)
}

/// Why a step is one too many; empty if it is not.
fn ends(none: &Measured, with: &WithAgent) -> String {
    if with.measured.failed > none.failed {
        return format!("{} requests failed", with.measured.failed);
    }
    if with.measured.per_second < none.per_second * RATE_KEPT {
        return format!("{:.0} instead of {:.0} requests/s", with.measured.per_second, none.per_second);
    }
    let (before, now) = (none.p99_us, with.measured.p99_us);
    if with.lost() > 0 {
        return format!("{} lost, by the ledger", with.lost());
    }
    if now > before + NOISE_US && now as f64 > before as f64 * P99_MOVES {
        return format!("p99 went from {before} to {now} us");
    }
    String::new()
}

/// The agent as a process of its own, as users run it.
struct Agent {
    child: Child,
    admin: SocketAddr,
    folder: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Agent {
    fn start(arguments: &CapacityArgs, level: CapacityLevel) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("ringtap-bench").tempdir()?;
        let config = match &arguments.config {
            Some(file) => file.clone(),
            None => write_config(folder.path(), level)?,
        };
        let admin = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let log = folder.path().join("log");
        let child = Command::new(std::env::current_exe()?)
            .arg("run")
            .arg("--config")
            .arg(config)
            .args(["--log-encoding", "console", "--httpd-listen", &admin.to_string()])
            .args(["--ring-size", &arguments.ring_size.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .context("cannot start the agent")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let agent = Self { child, admin, folder, runtime };
        let begun = Instant::now();
        while agent.metrics().is_err() {
            if begun.elapsed() > Duration::from_secs(20) {
                bail!("the agent does not start: {}", fs::read_to_string(&log).unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(agent)
    }

    fn step(
        &self,
        server: &Server,
        url: &str,
        rate: Option<u64>,
        arguments: &CapacityArgs,
    ) -> anyhow::Result<WithAgent> {
        let (id, before, begun) = ([self.child.id()], self.metrics()?, Instant::now());
        let cpu = cpu_seconds(&id);
        let measured = load(server, url, rate, arguments.seconds)?;
        let agent_cpu = (cpu_seconds(&id) - cpu) / begun.elapsed().as_secs_f64();
        // The programs' counts are told once a second.
        std::thread::sleep(Duration::from_millis(1200));
        let after = self.metrics()?;
        let moved = |(name, n): (&String, &u64)| (name.clone(), n - before.get(name).copied().unwrap_or(0).min(*n));
        let agent_resident_bytes = resident_bytes(self.child.id());
        Ok(WithAgent { measured, agent_cpu, agent_resident_bytes, ledger: after.iter().map(moved).collect() })
    }

    /// The counters by name, without prefix and suffix.
    fn metrics(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let text = self.runtime.block_on(get(self.admin))?;
        let line = |line: &str| {
            let (name, n) = line.split_once(' ')?;
            let name = name.strip_prefix("ringtap_")?.strip_suffix("_total")?;
            Some((name.to_owned(), n.parse().ok()?))
        };
        Ok(text.lines().filter_map(line).collect())
    }

    fn stop(mut self) -> anyhow::Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = self.child.wait()?;
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        if status.success() && !log.contains("NOT BALANCED") { Ok(()) } else { bail!("the agent has failed: {log}") }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Ended already in the good case.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Objects and events are made in full, and thrown away by the reader of standard output.
fn write_config(folder: &Path, level: CapacityLevel) -> anyhow::Result<PathBuf> {
    let level = if level == CapacityLevel::Full { "full" } else { "summary" };
    let text = format!(
        "version: 2
services:
  event_stores: [{{type: stdout}}]
  object_stores: [{{type: stdout}}]
stacks:
  bench:
    plugins:
      - {{type: http_capture, config: {{level: {level}, format: json}}}}
tap:
  direction: ingress
  ignore_loopback: false
  http: {{stack: bench}}
"
    );
    let path = folder.join("config.yaml");
    fs::write(&path, text)?;
    Ok(path)
}

async fn get(admin: SocketAddr) -> anyhow::Result<String> {
    let stream = tokio::time::timeout(Duration::from_secs(5), tokio::net::TcpStream::connect(admin)).await??;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get("/system/metrics").header("host", "localhost").body(Empty::<Bytes>::new())?;
    let body = sender.send_request(request).await?.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8_lossy(&body).into_owned())
}

impl Cell {
    /// What came of the cell, in a line.
    pub fn line(&self) -> String {
        let ended = if self.ended_by.is_empty() { "the server's own limit" } else { &self.ended_by };
        let (transport, body, level) = (self.transport, self.body_bytes, self.level);
        format!("{transport:<6} {body:>8} B  {level:<8} {:>8.0} requests/s  ({ended})", self.carries_per_second)
    }

    /// Bytes a second that went into rings at the highest step without loss.
    fn ring_bytes_per_second(&self, seconds: u32) -> f64 {
        let carried = self.steps.iter().map(|step| &step.agent).filter(|agent| agent.lost() == 0);
        let bytes = |agent: &WithAgent| agent.ledger.get("kernel_captured_bytes").copied().unwrap_or(0) as f64;
        carried.map(bytes).fold(0.0, f64::max) / f64::from(seconds + 1)
    }
}

impl Results {
    /// One sentence: what this host carries, and which ring size to set.
    pub fn verdict(&self) -> String {
        let slowest = self.cells.iter().min_by(|a, b| a.carries_per_second.total_cmp(&b.carries_per_second));
        let fastest = self.cells.iter().max_by(|a, b| a.carries_per_second.total_cmp(&b.carries_per_second));
        let (Some(slowest), Some(fastest)) = (slowest, fastest) else { return "Nothing was measured.".into() };
        let name = |cell: &Cell| format!("{} with bodies of {} B at {}", cell.transport, cell.body_bytes, cell.level);
        let lost = self.cells.iter().any(|cell| cell.ended_by.contains("lost, by the ledger"));
        // A ring that holds a quarter of a second rides out what a busy machine does to its reader.
        let busiest = self.cells.iter().map(|cell| cell.ring_bytes_per_second(self.seconds)).fold(0.0, f64::max);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes of a quarter of a second")]
        let wanted = ((busiest / 4.0) as u64).next_power_of_two().clamp(8 << 20, 1 << 30);
        let wanted = if lost { wanted.max(u64::from(self.ring_bytes) * 2).min(1 << 30) } else { wanted };
        format!(
            "This host ({} processors) carries from {:.0} requests/s ({}) to {:.0} requests/s ({}) without loss and \
             without moving p99 by more than 10 %; set --ring-size {}mb.",
            self.processors,
            slowest.carries_per_second,
            name(slowest),
            fastest.carries_per_second,
            name(fastest),
            wanted >> 20,
        )
    }
}
