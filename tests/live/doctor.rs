//! The doctor's report, and processes that are held until their probes are in place.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::{
    agent::{Agent, config},
    need_root,
    programs::{free_port, nginx_http2, program, rustls_server, tool},
};

/// Programs that bring a library which nobody has seen.
const FRESH: usize = 20;

fn doctor(arguments: &[&str]) -> anyhow::Result<Output> {
    Ok(Command::new(env!("CARGO_BIN_EXE_ringtap")).arg("doctor").args(arguments).stdin(Stdio::null()).output()?)
}

/// The doctor's row of a program, as soon as there is one with this verdict.
fn wait_for_row(admin: &str, pid: u32, verdict: &str) -> anyhow::Result<Value> {
    let begun = Instant::now();
    loop {
        let report: Value = serde_json::from_slice(&doctor(&["--json", "--agent", admin])?.stdout)?;
        let rows = report["told"]["processes"].as_array().context("no processes")?;
        let row = rows.iter().find(|row| row["pid"] == pid);
        if let Some(row) = row.filter(|row| row["verdict"] == verdict) {
            return Ok(row.clone());
        }
        ensure!(begun.elapsed() < Duration::from_secs(10), "{pid} is not {verdict}: {row:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Who is seen is told with library, probes and bytes; who stays dark is named as such.
#[test]
fn the_doctor_names_who_is_dark() -> anyhow::Result<()> {
    need_root!();
    let python = tool("python3").context("./dev tools installs the programs")?;
    let server = nginx_http2(true)?;
    let admin = format!("127.0.0.1:{}", free_port()?);
    let command = Command::new(env!("CARGO_BIN_EXE_ringtap"));
    let agent = Agent::start_with(&config("all", ""), &["--httpd-listen", &admin], command)?;
    let mut seen = Command::new("openssl")
        .args(["s_client", "-quiet", "-connect", &format!("127.0.0.1:{}", server.port)])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let stdin = seen.stdin.as_mut().context("it is a pipe")?;
    // It goes on as long as its input is open.
    stdin.write_all(b"GET /size/1000 HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
    let mut dark = Command::new(&python)
        .arg(program("dark.py"))
        .args([&server.port.to_string(), "3", "30"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    let rows = (wait_for_row(&admin, seen.id(), "seen"), wait_for_row(&admin, dark.id(), "dark"));
    let table = String::from_utf8(doctor(&["--agent", &admin])?.stdout)?;
    for process in [&mut seen, &mut dark] {
        process.kill()?;
        process.wait()?;
    }
    let (seen, dark) = (rows.0?, rows.1?);
    let stack = &seen["stacks"][0];
    ensure!(stack["library"] == "openssl" && stack["probes"].as_u64() > Some(5), "{seen}");
    ensure!(stack["since"].is_string() && seen["clear_bytes"].as_u64() > Some(300), "{seen}");
    ensure!(dark["clear_bytes"] == 0 && dark["tls_bytes"].as_u64() > Some(3000), "{dark}");
    ensure!(dark["why"].as_str().is_some_and(|why| !why.is_empty()), "{dark}");
    ensure!(table.contains("ok        kernel") && table.contains("dark"), "{table}");
    agent.stop()?.check()
}

/// Rustls is named where its functions have names.
#[test]
fn the_doctor_names_rustls() -> anyhow::Result<()> {
    need_root!();
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("file"), "text")?;
    let server = rustls_server("tokio", folder)?;
    let admin = format!("127.0.0.1:{}", free_port()?);
    let command = Command::new(env!("CARGO_BIN_EXE_ringtap"));
    let agent = Agent::start_with(&config("all", ""), &["--httpd-listen", &admin], command)?;
    let url = format!("https://localhost:{}/file", server.port);
    let status = Command::new("curl").args(["-skf", "-o", "/dev/null", &url]).status()?;
    ensure!(status.success(), "{status}");
    let row = wait_for_row(&admin, server.process.pid(), "seen")?;
    let stack = &row["stacks"][0];
    ensure!(stack["library"] == "rustls" && stack["how"] == "symbols" && stack["probes"].as_u64() > Some(4), "{row}");
    agent.stop()?.check()
}

/// Without privileges the doctor says which are missing, and that it cannot work.
#[test]
fn the_doctor_fails_without_privileges() -> anyhow::Result<()> {
    need_root!();
    let output = Command::new("setpriv")
        .args(["--bounding-set=-all", "--inh-caps=-all", env!("CARGO_BIN_EXE_ringtap"), "doctor", "--json"])
        .args(["--agent", "off"])
        .output()?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let failed = |check: &&Value| check["state"] == "failed";
    let checks = report["checks"].as_array().context("no checks")?;
    let failed: Vec<_> = checks.iter().filter(failed).collect();
    ensure!(failed.iter().any(|check| check["name"] == "CAP_BPF, CAP_PERFMON"), "{report}");
    ensure!(failed.iter().all(|check| check["remedy"].is_string() || check["detail"].is_string()), "{report}");
    Ok(())
}

/// A wrong configuration is a failed check.
#[test]
fn the_doctor_checks_the_configuration() -> anyhow::Result<()> {
    need_root!();
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), "version: 2\ntap:\n  direction: sideways\n")?;
    let path = file.path().display().to_string();
    let output = doctor(&["--json", "--agent", "off", "--config", &path])?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let checks = report["checks"].as_array().context("no checks")?;
    let check = checks.iter().find(|check| check["name"] == "configuration").context("not checked")?;
    ensure!(check["state"] == "failed" && check["detail"].as_str().is_some_and(|d| d.contains("direction")), "{check}");
    Ok(())
}

/// Copies of libssl, each in a folder of its own: files that nobody has looked at.
fn fresh_libraries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let library = ["/usr/lib/x86_64-linux-gnu/libssl.so.3", "/usr/lib/aarch64-linux-gnu/libssl.so.3"];
    let library = library.iter().find(|path| Path::new(path).exists()).context("no libssl.so.3")?;
    let copy = |n: usize| {
        let own = folder.join(n.to_string());
        fs::create_dir(&own)?;
        fs::copy(library, own.join("libssl.so.3"))?;
        Ok(own)
    };
    (0..FRESH).map(copy).collect()
}

/// Held from the first mapping on, not one request of a library that nobody knew is missed.
#[test]
fn held_processes_lose_nothing() -> anyhow::Result<()> {
    need_root!();
    let server = nginx_http2(true)?;
    let folder = tempfile::tempdir()?;
    let libraries = fresh_libraries(folder.path())?;
    let command = Command::new(env!("CARGO_BIN_EXE_ringtap"));
    let agent = Agent::start_with(&config("egress-internal", ""), &["--hold-new-processes"], command)?;
    let url = format!("https://localhost:{}/size/1000", server.port);
    for library in &libraries {
        let status = Command::new("curl")
            .args(["-sk", "-o", "/dev/null", &url])
            .env("LD_LIBRARY_PATH", library)
            .stdin(Stdio::null())
            .status()?;
        ensure!(status.success(), "{status}");
    }
    agent.wait_for_objects(FRESH)?;
    agent.stop()?.check()
}

/// However the agent ends, nobody stays stopped.
#[test]
fn nobody_stays_held() -> anyhow::Result<()> {
    need_root!();
    let folder = tempfile::tempdir()?;
    let libraries = fresh_libraries(folder.path())?;
    let command = Command::new(env!("CARGO_BIN_EXE_ringtap"));
    let mut agent = Agent::start_with(&config("egress-internal", ""), &["--hold-new-processes"], command)?;
    let start = |library: &PathBuf| {
        let mut command = Command::new("curl");
        command.arg("--version").env("LD_LIBRARY_PATH", library).stdin(Stdio::null()).stdout(Stdio::null()).spawn()
    };
    let mut started: Vec<_> = libraries[..FRESH / 2].iter().map(start).collect::<Result<_, _>>()?;
    agent.kill()?;
    started.extend(libraries[FRESH / 2..].iter().map(start).collect::<Result<Vec<_>, _>>()?);
    let begun = Instant::now();
    for process in &mut started {
        while process.try_wait()?.is_none() {
            ensure!(begun.elapsed() < Duration::from_secs(10), "{} is still stopped", process.id());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}
