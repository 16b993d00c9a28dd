//! Ways into sockets beside the usual calls on TCP: Unix sockets, `io_uring`, splice and sendfile.

use std::{
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    agent::{Agent, Finished, config, ledger},
    need_root,
    programs::{Process, client, nginx_at, program, python_server},
    truth::{Captured, captured, compare, events, files},
};

/// A server on a Unix socket.
struct UnixServer {
    path: PathBuf,
    _process: Process,
    _folder: TempDir,
}

fn unix_server(mut command: Command, path: PathBuf, folder: TempDir) -> anyhow::Result<UnixServer> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let process = Process::of(child);
    let begun = Instant::now();
    while UnixStream::connect(&path).is_err() {
        ensure!(begun.elapsed() < Duration::from_secs(30), "{command:?} did not start");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(UnixServer { path, _process: process, _folder: folder })
}

fn python_unix() -> anyhow::Result<UnixServer> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("http.sock");
    let mut command = Command::new("python3");
    command.arg(program("server.py")).arg(&path);
    unix_server(command, path, folder)
}

fn nginx_unix(sendfile: bool) -> anyhow::Result<UnixServer> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("http.sock");
    let command = nginx_at(folder.path(), &format!("listen unix:{};", path.display()), sendfile, 2)?;
    unix_server(command, path, folder)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// What was captured is what the client has sent and got, on one side of the server's socket.
fn check_unix(name: &str, server: &UnixServer, direction: &str, posts: bool) -> anyhow::Result<Finished> {
    let agent = Agent::start(&config(direction, ""))?;
    let path = text(&server.path);
    let lines = client(name, &[&path, "unix", if posts { "posts" } else { "gets" }])?;
    // Before the agent ends everything: also bodies that last until their connection's end are known to be whole.
    wait_for(&agent, "unix", lines.lines().count())?;
    let finished = agent.stop()?;
    finished.check()?;
    let found = captured(files(&finished.objects()?)?, "unix")?;
    ensure!(compare(&lines, &found)? >= 7, "{lines}");
    for object in found.values().flatten() {
        ensure!(object["direction"] == direction, "{object:#}");
        ensure!(
            object["request"]["url"].as_str().is_some_and(|url| url.starts_with("http://localhost/")),
            "{object:#}"
        );
    }
    let connections = of_path(&finished, &path)?;
    ensure!(!connections.is_empty(), "no connection is told of");
    for connection in &connections {
        ensure!(connection["socketProtocol"] == "unix" && connection["l7Protocol"] == "http1", "{connection:#}");
        ensure!(
            connection["direction"] == direction && connection["source"].get("address").is_none(),
            "{connection:#}"
        );
    }
    Ok(finished)
}

/// Waits until so many exchanges of a run are stored.
fn wait_for(agent: &Agent, run: &str, expected: usize) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let there: Vec<PathBuf> = agent.object_files()?.into_iter().collect();
        let count = captured(files(&there)?, run)?.len();
        if count >= expected {
            return Ok(());
        }
        ensure!(begun.elapsed() < Duration::from_secs(20), "{count} exchanges of {expected}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The finished connections to what is bound to the path.
fn of_path(finished: &Finished, path: &str) -> anyhow::Result<Vec<Value>> {
    let all = events(finished, "*eventstore.Connection")?;
    let address = format!("unix:{path}");
    Ok(all.into_iter().filter(|c| c["destination"]["address"] == address && c["finalized"] == true).collect())
}

/// Each request of its own connection: as many begin and end as there are requests.
#[test]
fn unix_sockets_of_curl() -> anyhow::Result<()> {
    need_root!();
    let server = python_unix()?;
    let finished = check_unix("client_curl.py", &server, "egress-internal", true)?;
    let ended = of_path(&finished, &text(&server.path))?.len();
    ensure!(ended == 18, "{ended} connections for 18 requests");
    Ok(())
}

/// The server's side, with bodies that end with their connection; and nothing of what else passes on such sockets.
#[test]
fn unix_sockets_of_python() -> anyhow::Result<()> {
    need_root!();
    let server = python_unix()?;
    check_unix("client_unix.py", &server, "ingress", true)?;
    let finished = check_unix("client_unix.py", &server, "egress-internal", true)?;
    let python = |c: &&Value| c["source"]["exe"].as_str().is_some_and(|exe| exe.contains("python"));
    let named = |c: &&Value| c["destination"]["address"].as_str().is_some_and(|a| a.starts_with("unix:"));
    let all = events(&finished, "*eventstore.Connection")?;
    let others: Vec<_> = all.iter().filter(python).filter(|c| c["socketProtocol"] == "unix" && !named(c)).collect();
    ensure!(others.is_empty(), "what is not HTTP was followed: {others:#?}");
    Ok(())
}

#[test]
fn unix_sockets_of_nginx() -> anyhow::Result<()> {
    need_root!();
    check_unix("client_unix.py", &nginx_unix(false)?, "ingress", false)?;
    check_unix("client_curl.py", &nginx_unix(false)?, "egress-internal", false)?;
    Ok(())
}

/// They are local, as the loopback is.
#[test]
fn unix_sockets_are_loopback() -> anyhow::Result<()> {
    need_root!();
    let server = python_unix()?;
    let quiet = config("all", "").replace("ignore_loopback: false", "ignore_loopback: true");
    let agent = Agent::start(&quiet)?;
    client("client_unix.py", &[&text(&server.path), "unix", "posts"])?;
    let finished = agent.stop()?;
    finished.check()?;
    ensure!(of_path(&finished, &text(&server.path))?.is_empty());
    let none = !finished.folder.path().join("objects").exists();
    ensure!(none || captured(files(&finished.objects()?)?, "unix")?.is_empty());
    Ok(())
}

/// A body that goes from a file to a Unix socket has its size and the reason why it is missing.
#[test]
fn unix_sockets_with_sendfile() -> anyhow::Result<()> {
    need_root!();
    let server = nginx_unix(true)?;
    let agent = Agent::start(&config("ingress", ""))?;
    client("client_unix.py", &[&text(&server.path), "unix", "gets"])?;
    check_missing(&agent.stop()?, "unix", "/size/300000", 300_000, "sendfile")
}

/// The exchange has the body's size, and one cause for all that is missing of it; the books name that cause too.
fn check_missing(finished: &Finished, run: &str, path: &str, size: u64, cause: &str) -> anyhow::Result<()> {
    finished.check()?;
    let found = captured(files(&finished.objects()?)?, run)?;
    let object = found.values().flatten().find(|o| o["request"]["path"] == path).context("it was requested")?;
    ensure!(object["response"]["body_size"] == size && object["response"]["truncated"] == "damage", "{object:#}");
    let damage = object["damage"].as_array().context("it is damaged")?;
    ensure!(damage.iter().all(|d| d["cause"] == cause) && !damage.is_empty(), "{damage:?}");
    let counted = ledger(&finished.stderr, "bytes", cause).unwrap_or(0);
    ensure!(counted >= size, "{counted} of {size} bytes: {}", finished.stderr);
    Ok(())
}

/// A body that goes through a pipe; what comes before and after it is whole.
#[test]
fn spliced_bodies_are_counted() -> anyhow::Result<()> {
    need_root!();
    let agent = Agent::start(&config("ingress", ""))?;
    let lines = client("splice.py", &["splice", "50000"])?;
    let finished = agent.stop()?;
    check_missing(&finished, "splice", "/spliced", 50_000, "splice")?;
    let found = captured(files(&finished.objects()?)?, "splice")?;
    let whole = found.into_iter().filter(|(number, _)| *number != 1).collect();
    ensure!(compare(&lines, &whole)? == 2, "{lines}");
    Ok(())
}

/// Each operation of `io_uring` that moves bytes on sockets, and batches of them: whole and in order.
#[test]
fn io_uring_is_read() -> anyhow::Result<()> {
    need_root!();
    let server = python_server(false)?;
    let agent = Agent::start(&config("egress-internal", ""))?;
    let lines = client("client_uring.py", &[&format!("http://127.0.0.1:{}", server.port), "uring", "posts"])?;
    let finished = agent.stop()?;
    finished.check()?;
    let found = captured(files(&finished.objects()?)?, "uring")?;
    let (spliced, found): (Captured, Captured) = found.into_iter().partition(|(number, _)| *number == 25);
    let object = spliced.values().flatten().next().context("the one with a body from a pipe")?;
    let damage = object["damage"].as_array().context("its body is missing")?;
    let missing: u64 = damage.iter().filter_map(|d| Some(d["end"].as_u64()? - d["start"].as_u64()?)).sum();
    ensure!(damage.iter().all(|d| d["cause"] == "splice" && d["part"] == "request") && missing == 325, "{object:#}");
    ensure!(object["response"]["body_size"] == 325, "{object:#}");
    // Into a buffer that the kernel chooses: newer kernels do not say which, and then the answer is a gap of known length.
    let is_chosen = |number: u64| [13, 19].contains(&number);
    let (chosen, found): (Captured, Captured) = found.into_iter().partition(|(number, _)| is_chosen(*number));
    for (number, object) in chosen.iter().flat_map(|(number, objects)| objects.iter().map(move |o| (number, o))) {
        let damage = object["damage"].as_array().map_or(&[][..], Vec::as_slice);
        let missing: u64 = damage.iter().filter_map(|d| Some(d["end"].as_u64()? - d["start"].as_u64()?)).sum();
        ensure!(damage.iter().all(|d| d["cause"] == "fault"), "{object:#}");
        ensure!(damage.is_empty() || missing > 300 + number, "{object:#}");
    }
    let is_other = |line: &&str| !chosen.keys().any(|number| line.contains(&format!("\"id\": \"{number}\"")));
    let others: Vec<&str> = lines.lines().filter(is_other).collect();
    ensure!(chosen.len() == 2 && compare(&others.join("\n"), &found)? == 14, "{lines}");
    let all = events(&finished, "*eventstore.Connection")?;
    let address = format!("127.0.0.1:{}", server.port);
    let mut ours = all.iter().filter(|c| c["destination"]["address"] == address.as_str() && c["finalized"] == true);
    let told = ours.next().with_context(|| format!("no connection to {address} in {all:#?}"))?;
    ensure!(told["l7Protocol"] == "http1" && told["bytesSent"].as_u64().is_some_and(|n| n > 16 * 300), "{told:#}");
    Ok(())
}
