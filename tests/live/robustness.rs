//! What the agent does to others, and what others do to the agent.

use std::{process::Command, thread};

use anyhow::ensure;

use crate::{
    agent::{Agent, config},
    need_root,
    programs::{client, nginx, program, python_server},
    truth::{captured, compare, files},
};

/// Attached and detached twenty times under load: the programs get the same bytes and end as they would without.
#[test]
fn programs_never_notice() -> anyhow::Result<()> {
    need_root!();
    let server = nginx(true, true)?;
    let url = format!("https://127.0.0.1:{}", server.port);
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        let load = scope.spawn(|| -> anyhow::Result<usize> {
            let mut rounds = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                ensure!(client("load.py", &[&url, "load", "4", "100"])?.trim() == "400");
                let sent = client("client_node.js", &[&url, "node", "gets"])?;
                ensure!(sent.lines().count() == 7, "{sent}");
                rounds += 1;
            }
            Ok(rounds)
        });
        let mut result = Ok(());
        for _ in 0..20 {
            result = Agent::start(&config("all", "")).and_then(|agent| agent.stop()?.check());
            if result.is_err() {
                break;
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let rounds = load.join().expect("the load does not panic")?;
        ensure!(rounds > 2, "only {rounds} rounds of load");
        result
    })
}

/// A ring that is far too small: records are lost, and the ledger says how many; what is delivered is right or says
/// that it is damaged, and no answer stands with another one's request.
#[test]
fn a_tiny_ring_loses_nothing_silently() -> anyhow::Result<()> {
    need_root!();
    let server = python_server(true)?;
    let command = Command::new(env!("CARGO_BIN_EXE_ringtap"));
    let agent = Agent::start_with(&config("egress", ""), &["--ring-size", "64kb"], command)?;
    let url = format!("https://127.0.0.1:{}", server.port);
    let pause = agent.pause()?;
    let printed = client("load.py", &[&url, "tiny", "8", "100"])?;
    ensure!(printed.trim() == "800", "{printed}");
    drop(pause);
    let rest = client("load.py", &[&url, "after", "4", "50"])?;
    ensure!(rest.trim() == "200", "{rest}");
    let finished = agent.stop()?;
    finished.check()?;
    ensure!(finished.stderr.contains("ring_full"), "nothing was lost: {}", finished.stderr);
    let objects = files(&finished.objects()?)?;
    let mut found = 0;
    for run in ["tiny", "after"] {
        for (number, objects) in captured(objects.clone(), run)? {
            ensure!(objects.len() == 1, "{run} {number} was captured {} times", objects.len());
            let object = &objects[0];
            let answers = object["response"]["headers"]["X-Answers"].as_str();
            ensure!(answers.is_none_or(|a| a == number.to_string()), "{run} {number} has the answer to {answers:?}");
            let whole = object["response"]["body_size"] == 1000 && object["response"]["status"] == 200;
            let unanswered = matches!(object["response"]["status"].as_u64(), Some(422 | 499));
            let says = object.get("damage").is_some() || object["response"]["truncated"].is_string() || unanswered;
            ensure!(whole || says, "{run} {number} is cut and does not say so: {object:#}");
            found += 1;
        }
    }
    ensure!(found > 200, "only {found} were captured");
    Ok(())
}

/// A sandbox that refuses `io_uring` costs one warning and nothing else.
#[test]
fn without_io_uring_all_goes_on() -> anyhow::Result<()> {
    need_root!();
    let server = python_server(true)?;
    let mut command = Command::new("python3");
    command.arg(program("sealed.py")).arg(env!("CARGO_BIN_EXE_ringtap"));
    let agent = Agent::start_with(&config("egress", ""), &[], command)?;
    let lines = client("client_urllib.py", &[&format!("https://127.0.0.1:{}", server.port), "sealed", "posts"])?;
    let finished = agent.stop()?;
    finished.check()?;
    ensure!(finished.stderr.matches("io_uring is refused").count() == 1, "{}", finished.stderr);
    compare(&lines, &captured(files(&finished.objects()?)?, "sealed")?)?;
    Ok(())
}

/// A connection from before the start is captured from its next message on.
#[test]
fn older_connections_are_found() -> anyhow::Result<()> {
    need_root!();
    for tls in [false, true] {
        let server = python_server(tls)?;
        let scheme = if tls { "https" } else { "http" };
        let folder = tempfile::tempdir()?;
        let go = folder.path().join("go");
        let mut child = Command::new("python3")
            .arg(program("older.py"))
            .args([&format!("{scheme}://127.0.0.1:{}", server.port), "older", &go.display().to_string()])
            .spawn()?;
        while !folder.path().join("go.ready").exists() {
            thread::sleep(std::time::Duration::from_millis(20));
        }
        let agent = Agent::start(&config("egress", ""))?;
        std::fs::write(&go, "")?;
        ensure!(child.wait()?.success());
        let finished = agent.stop()?;
        finished.check()?;
        let found = captured(files(&finished.objects()?)?, "older")?;
        let numbers: Vec<_> = found.keys().copied().collect();
        ensure!(numbers == [1, 2, 3], "{scheme}: {numbers:?} were captured");
    }
    Ok(())
}

/// What the configuration leaves alone: loopback, a process, the other direction.
#[test]
fn what_is_not_wanted_is_not_captured() -> anyhow::Result<()> {
    need_root!();
    let server = python_server(true)?;
    let url = format!("https://127.0.0.1:{}", server.port);
    let exclude = "  filters:\n    groups: [qpoint]\n    custom:\n      - {exe: /python3, strategy: contains}\n";
    let loopback = config("all", "").replace("ignore_loopback: false", "ignore_loopback: true");
    for (text, curl, python) in [
        (config("egress", exclude), 20, 0),
        (config("egress-external", ""), 0, 0),
        (loopback, 0, 0),
        (config("all", ""), 40, 40),
    ] {
        let agent = Agent::start(&text)?;
        client("client_curl.py", &[&url, "curl", "posts"])?;
        client("client_urllib.py", &[&url, "python", "posts"])?;
        let finished = agent.stop()?;
        finished.check()?;
        let objects =
            if finished.folder.path().join("objects").exists() { files(&finished.objects()?)? } else { Vec::new() };
        let count = |run| anyhow::Ok(captured(objects.clone(), run)?.values().map(Vec::len).sum::<usize>());
        let (found_curl, found_python) = (count("curl")?, count("python")?);
        let per_run = 18;
        let expected = (curl / 20 * per_run, python / 20 * per_run);
        ensure!((found_curl, found_python) == expected, "{text}: {found_curl} of curl, {found_python} of python");
    }
    Ok(())
}

/// A standard output that nobody reads holds nothing up: the agent stops in time.
#[test]
fn a_stalled_reader_does_not_keep_the_agent() -> anyhow::Result<()> {
    need_root!();
    let server = python_server(false)?;
    let text = config("egress", "").replace("type: disk", "type: stdout").replace("      path: FOLDER/objects\n", "");
    let agent = Agent::start_unread(&text, &[])?;
    client("client_urllib.py", &[&format!("http://127.0.0.1:{}", server.port), "unread", "posts"])?;
    let finished = agent.stop()?;
    finished.check()?;
    ensure!(finished.stderr.contains("standard output is not read"), "{}", finished.stderr);
    Ok(())
}

/// Without the privilege: one line that names it, and exit code 2.
#[test]
fn missing_privilege_is_one_clear_line() -> anyhow::Result<()> {
    need_root!();
    let output = Command::new("setpriv")
        .args(["--reuid", "65534", "--clear-groups", "--bounding-set", "-all", "--inh-caps", "-all"])
        .arg(env!("CARGO_BIN_EXE_ringtap"))
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(2), "{:?}: {text}", output.status);
    ensure!(text.lines().count() == 1 && text.contains("CAP_BPF") && text.contains("root"), "{text}");
    Ok(())
}
