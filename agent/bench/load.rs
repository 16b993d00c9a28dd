//! A real server, a real load generator, and what processes used.

use std::{
    ffi::OsStr,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use crate::cli::Transport;

/// nginx on a loopback port, with files of the wanted sizes; ends with the value.
pub struct Server {
    child: Child,
    folder: tempfile::TempDir,
    ports: [u16; 2],
    cpus: Option<String>,
}

impl Server {
    /// Starts it, on some processors or on all.
    ///
    /// # Errors
    ///
    /// nginx or openssl is not installed, or does not start.
    pub fn start(sizes: &[u64], cpus: Option<&str>) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("ringtap-bench").tempdir()?;
        let at = folder.path();
        make_certificate(at)?;
        fs::create_dir(at.join("www"))?;
        for size in sizes {
            let body = vec![b'x'; usize::try_from(*size).context("a body does not fit into memory")?];
            fs::write(at.join("www").join(size.to_string()), body)?;
        }
        let ports = [free_port()?, free_port()?];
        let home = at.display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {home}/{kind};"))
            .concat();
        let text = format!(
            "worker_processes 1; daemon off; pid {home}/pid; error_log {home}/error.log;
events {{ worker_connections 8192; }}
http {{ access_log off; keepalive_requests 100000000; sendfile off; {temporary}
server {{ listen 127.0.0.1:{}; listen 127.0.0.1:{} ssl; root {home}/www;
ssl_certificate {home}/cert.pem; ssl_certificate_key {home}/key.pem; }} }}
",
            ports[0], ports[1]
        );
        fs::write(at.join("nginx.conf"), text)?;
        // A worker of another user must be able to read the files.
        std::os::unix::fs::chown(at, None, None)?;
        fs::set_permissions(at, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let child = on_cpus("nginx", cpus)
            .arg("-c")
            .arg(at.join("nginx.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start nginx; the harness needs nginx, openssl and h2load (package nghttp2-client)")?;
        let server = Self { child, folder, ports, cpus: cpus.map(str::to_owned) };
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", ports[1])).is_err() {
            if begun.elapsed() > Duration::from_secs(10) {
                let log = fs::read_to_string(server.folder.path().join("error.log")).unwrap_or_default();
                bail!("nginx does not listen: {log}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// Address of a body of `size` bytes.
    pub fn url(&self, transport: Transport, size: u64) -> String {
        match transport {
            Transport::Plain => format!("http://127.0.0.1:{}/{size}", self.ports[0]),
            Transport::Tls => format!("https://127.0.0.1:{}/{size}", self.ports[1]),
        }
    }

    /// Its processes.
    pub fn processes(&self) -> Vec<u32> {
        let id = self.child.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        std::iter::once(id).chain(children.split_whitespace().filter_map(|child| child.parse().ok())).collect()
    }

    /// The TLS libraries that it has mapped.
    pub fn libraries(&self) -> Vec<PathBuf> {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.child.id())).unwrap_or_default();
        let mut found: Vec<PathBuf> = maps
            .lines()
            .filter_map(|line| line.split_whitespace().nth(5))
            .filter(|path| path.contains("libssl"))
            .map(PathBuf::from)
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // nginx ends its workers when it is asked to.
        if let Ok(pid) = i32::try_from(self.child.id())
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn make_certificate(folder: &Path) -> anyhow::Result<()> {
    let status = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout"])
        .arg(folder.join("key.pem"))
        .arg("-out")
        .arg(folder.join("cert.pem"))
        .stderr(Stdio::null())
        .status()
        .context("cannot start openssl")?;
    if status.success() { Ok(()) } else { bail!("openssl cannot make a certificate") }
}

/// What a step of load came to.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct Measured {
    /// Requests that were answered, a second.
    pub per_second: f64,
    /// Requests that failed.
    pub failed: u64,
    /// Microseconds from request to the end of the response.
    pub p50_us: u64,
    /// The same.
    pub p99_us: u64,
    /// The same.
    pub p999_us: u64,
    /// Processors that the server kept busy.
    pub server_cpu: f64,
}

/// The load generator.
pub const CLIENT: &str = "h2load";

/// A command, held to some processors.
pub fn on_cpus(program: impl AsRef<OsStr>, cpus: Option<&str>) -> Command {
    let Some(cpus) = cpus else { return Command::new(program) };
    let mut command = Command::new("taskset");
    command.args(["-c", cpus]).arg(program);
    command
}

/// Connections of the load.
pub const CLIENTS: u32 = 32;

/// Puts load on the server: `rate` requests a second, or as many as it takes.
///
/// # Errors
///
/// h2load is not installed, or fails.
pub fn load(server: &Server, url: &str, rate: Option<u64>, seconds: u32) -> anyhow::Result<Measured> {
    let log = server.folder.path().join("latencies");
    // h2load adds to a log that is there.
    let _ = fs::remove_file(&log);
    let mut command = on_cpus(CLIENT, server.cpus.as_deref());
    command
        .args(["--h1", "-t1", &format!("-c{CLIENTS}"), &format!("-D{seconds}"), "--warm-up-time=1"])
        .arg(format!("--log-file={}", log.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Some(rate) = rate {
        command.arg(format!("--rps={:.3}", (rate.max(1)) as f64 / f64::from(CLIENTS)));
    }
    let before = cpu_seconds(&server.processes());
    let begun = Instant::now();
    let status = command.arg(url).status().context("cannot start h2load (package nghttp2-client)")?;
    let used = cpu_seconds(&server.processes()) - before;
    let elapsed = begun.elapsed().as_secs_f64();
    if !status.success() {
        bail!("h2load has failed: {status}");
    }
    let text = fs::read_to_string(&log).context("h2load has written no log")?;
    let mut latencies = Vec::new();
    let mut failed = 0;
    for line in text.lines() {
        let mut fields = line.split('\t').skip(1);
        match (fields.next(), fields.next().and_then(|us| us.parse::<u64>().ok())) {
            (Some("200"), Some(us)) => latencies.push(us),
            _ => failed += 1,
        }
    }
    latencies.sort_unstable();
    let at = |permille: usize| latencies.get(latencies.len().saturating_sub(1) * permille / 1000).copied().unwrap_or(0);
    Ok(Measured {
        per_second: latencies.len() as f64 / f64::from(seconds),
        failed,
        p50_us: at(500),
        p99_us: at(990),
        p999_us: at(999),
        server_cpu: used / elapsed,
    })
}

impl Measured {
    /// The median of each figure; the failures of all.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "microseconds")]
    pub fn of_rounds(rounds: &[Self]) -> Self {
        let figure = |of: fn(&Self) -> f64| median(rounds.iter().map(of));
        Self {
            per_second: figure(|m| m.per_second),
            failed: rounds.iter().map(|m| m.failed).sum(),
            p50_us: figure(|m| m.p50_us as f64) as u64,
            p99_us: figure(|m| m.p99_us as f64) as u64,
            p999_us: figure(|m| m.p999_us as f64) as u64,
            server_cpu: figure(|m| m.server_cpu),
        }
    }
}

/// The middle; of an even number the lower one. 0 of none.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

/// Processor seconds that processes have used.
#[must_use]
pub fn cpu_seconds(processes: &[u32]) -> f64 {
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let one = |id: &u32| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The name can hold anything but ends with the last bracket.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        Some(fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?)
    };
    processes.iter().filter_map(one).sum::<f64>() / ticks
}

/// Resident memory of a process, in bytes.
#[must_use]
pub fn resident_bytes(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}
