//! Many exchanges while everything fails that can: the counts still add up, to the unit.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{ChildStdout, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};

use crate::{
    agent::{Agent, Finished, config, ledger},
    need_root,
    programs::{Server, SmallDisk, nginx},
};

/// Exchanges, unless `RINGTAP_SOAK` asks for another number.
const EXCHANGES: u64 = 100_000;

/// Connections of the load.
const CLIENTS: u64 = 64;
/// nginx closes a connection after so many.
const KEPT_ALIVE: u64 = 100_000;
/// Rings that are far too small, a reader of them that is stopped again and again, a full disk, and a standard output
/// that is read now and then.
#[test]
fn faults_leave_a_balanced_ledger() -> anyhow::Result<()> {
    need_root!();
    let Some(disk) = SmallDisk::mount("1m")? else {
        crate::tools::skip("faults_leave_a_balanced_ledger", "no file system can be mounted here");
        return Ok(());
    };
    soak(&nginx(false, false)?, disk.path())
}

fn soak(server: &Server, disk: &Path) -> anyhow::Result<()> {
    let exchanges = match std::env::var("RINGTAP_SOAK") {
        Ok(number) => number.parse().context("RINGTAP_SOAK is a number of exchanges")?,
        Err(_) => EXCHANGES,
    };
    // The spool is on the full disk, too: nothing but memory is left.
    let text = config("ingress", "").replace("FOLDER/objects", &disk.join("objects").display().to_string());
    let spool = format!("services:\n  spool: {{path: {}}}", disk.join("spool").display());
    let text = text.replace("services:", &spool);
    let mut agent = Agent::start_unread(&text, &["--ring-size", "128kb"])?;
    let stdout = agent.take_stdout().context("it has a standard output")?;
    let (loaded, stopped) = (AtomicBool::new(false), AtomicBool::new(false));
    let (succeeded, finished, told) = thread::scope(|scope| -> anyhow::Result<_> {
        let reader = scope.spawn(|| read_now_and_then(stdout, &stopped));
        let load = scope.spawn(|| {
            let result = load(server, exchanges);
            loaded.store(true, Ordering::Relaxed);
            result
        });
        let faults = stop_again_and_again(&agent, &loaded);
        let succeeded = load.join().expect("the load does not panic");
        stopped.store(true, Ordering::Relaxed);
        let finished = agent.stop();
        let told = reader.join().expect("the reader does not panic");
        faults?;
        Ok((succeeded?, finished?, told))
    })?;
    println!("{}", finished.stderr);
    ensure!(succeeded == exchanges, "{succeeded} of {exchanges} requests succeeded");
    judge(&finished, exchanges, told)
}

fn judge(finished: &Finished, exchanges: u64, told: u64) -> anyhow::Result<()> {
    finished.check()?;
    let of = |kind, name| ledger(&finished.stderr, kind, name).unwrap_or(0);
    for (kind, cause) in [("records", "ring_full"), ("objects", "shutdown")] {
        ensure!(of(kind, cause) > 0, "no {kind} were lost to {cause}: {}", finished.stderr);
    }
    // All exchanges have the same length, but for the last ones that nginx lets a connection have.
    let (bytes, closes) = (of("bytes", "seen"), exchanges / CLIENTS / KEPT_ALIVE);
    let same = closes > 0 || bytes % exchanges == 0;
    ensure!(bytes >= exchanges * 1000 && same, "every byte passes the probes: {}", finished.stderr);
    let seen = of("exchanges", "seen");
    ensure!(seen <= exchanges && seen > exchanges / 20, "{seen} of {exchanges}: {}", finished.stderr);
    ensure!(told == of("events", "delivered"), "{told} events were read: {}", finished.stderr);
    Ok(())
}

fn load(server: &Server, exchanges: u64) -> anyhow::Result<u64> {
    let url = format!("http://127.0.0.1:{}/size/1000", server.port);
    let output = Command::new("h2load")
        .args(["--h1", "-t1", &format!("-c{CLIENTS}"), &format!("-n{exchanges}"), &url])
        .stdin(Stdio::null())
        .output()
        .context("h2load is not installed")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("requests: ")).context("h2load says how it went")?;
    let done = line.split(", ").find_map(|part| part.strip_suffix(" succeeded"));
    Ok(done.context("h2load counts successes")?.parse()?)
}

fn stop_again_and_again(agent: &Agent, loaded: &AtomicBool) -> anyhow::Result<()> {
    while !loaded.load(Ordering::Relaxed) {
        let paused = agent.pause()?;
        thread::sleep(Duration::from_millis(100));
        drop(paused);
        thread::sleep(Duration::from_millis(400));
    }
    Ok(())
}

/// Reads to the end; until the agent is stopped it rests now and then. How many events were told.
fn read_now_and_then(stdout: ChildStdout, stopped: &AtomicBool) -> u64 {
    let mut events = 0;
    for (number, line) in BufReader::new(stdout).split(b'\n').map_while(Result::ok).enumerate() {
        let marker = b"event store submission";
        events += u64::from(line.windows(marker.len()).any(|window| window == marker));
        if number % 50_000 == 0 && !stopped.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(500));
        }
    }
    events
}
