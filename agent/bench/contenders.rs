//! What runs while the load is measured: the agent, or another program in its place.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;

use super::{
    load::{CLIENT, Server, cpu_seconds, load, on_cpus, resident_bytes},
    plan::WithAgent,
};
use crate::cli::{CapacityArgs, CapacityLevel};

/// The agent as a process of its own, as users run it.
pub struct Agent {
    child: Child,
    admin: SocketAddr,
    folder: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Agent {
    /// Starts it, and waits until it captures.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub fn start(arguments: &CapacityArgs, level: CapacityLevel) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("ringtap-bench").tempdir()?;
        let config = match &arguments.config {
            Some(file) => file.clone(),
            None => write_config(folder.path(), level)?,
        };
        let admin = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let log = folder.path().join("log");
        let child = on_cpus(std::env::current_exe()?, arguments.agent_cpus.as_deref())
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
        let mut agent = Self { child, admin, folder, runtime };
        let begun = Instant::now();
        while agent.metrics().is_err() {
            if begun.elapsed() > Duration::from_secs(20) || agent.child.try_wait()?.is_some() {
                bail!("the agent does not start: {}", fs::read_to_string(&log).unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(agent)
    }

    /// One rate of load with it.
    ///
    /// # Errors
    ///
    /// The load fails, or the agent is gone.
    pub fn step(
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

    /// Ends it.
    ///
    /// # Errors
    ///
    /// It failed, or its ledger does not balance.
    pub fn stop(mut self) -> anyhow::Result<()> {
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

/// Another program that looks at the same traffic.
pub struct Other(Child);

/// How long it has until it is measured.
const OTHER_STARTS: Duration = Duration::from_secs(12);

impl Other {
    /// Starts it on some processors or on all, and gives it time to attach.
    ///
    /// # Errors
    ///
    /// It ends by itself.
    pub fn start(command: &str, cpus: Option<&str>) -> anyhow::Result<Self> {
        // `exec`: the shell's process is to be the program's.
        let mut other = on_cpus("sh", cpus)
            .args(["-c", &format!("exec {command}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map(Self)
            .context("cannot start a shell")?;
        std::thread::sleep(OTHER_STARTS);
        match other.0.try_wait()? {
            Some(status) => bail!("`{command}` has ended by itself: {status}"),
            None => Ok(other),
        }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // It is ended by force only if it does not end when it is asked to.
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), rustix::process::Signal::TERM);
        let begun = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) && begun.elapsed() < OTHER_STARTS {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Objects and events are made in full, and thrown away by the reader of standard output. The load stands for clients
/// elsewhere, so it is not captured.
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
  budgets: {{probes: \"off\"}}
  http: {{stack: bench}}
  filters: {{custom: [{{exe: {CLIENT}, strategy: suffix}}]}}
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
