//! Between the kernel and the stores: what is skipped, recorded, lent and counted.

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::{
    agent::{Agent, config, ledger},
    need_root,
    programs::{Server, SmallDisk, client, free_port, nginx, python_server, serve},
};

const LARGE: u64 = 256 << 20;

fn server_of_a_large_file() -> anyhow::Result<Server> {
    let (folder, port) = (tempfile::tempdir()?, free_port()?);
    File::create(folder.path().join("large"))?.set_len(LARGE)?;
    let mut server = Command::new("python3");
    server.args(["-m", "http.server", "--bind", "127.0.0.1", &port.to_string()]).current_dir(folder.path());
    serve(server, port, Some(folder))
}

/// A large download at level summary: nearly all of it stays in the kernel, its true size is told, nothing is damaged.
#[test]
fn a_large_download_stays_in_the_kernel() -> anyhow::Result<()> {
    need_root!();
    let server = server_of_a_large_file()?;
    let agent = Agent::start(&config("egress", "").replace("level: full", "level: summary"))?;
    let url = format!("http://127.0.0.1:{}/large", server.port);
    let status = Command::new("curl").args(["-sS", "-o", "/dev/null", &url]).status()?;
    ensure!(status.success());
    let finished = agent.stop()?;
    finished.check()?;
    let skipped = ledger(&finished.stderr, "bytes", "skipped").context("nothing was skipped")?;
    ensure!(skipped > LARGE / 10 * 9, "only {skipped} bytes were skipped: {}", finished.stderr);
    let objects = finished.objects()?;
    ensure!(objects.len() == 1, "{} objects", objects.len());
    let object: Value = serde_json::from_slice(&fs::read(&objects[0])?)?;
    let received = object["metadata"]["bytes_received"].as_u64().context("a size")?;
    ensure!(received > LARGE && received < LARGE + 1000, "{object:#}");
    ensure!(object.get("damage").is_none() && object["response"]["status"] == 200, "{object:#}");
    Ok(())
}

/// The same at level full: the beginning is kept, the cut is told, and what is beyond it is skipped too.
#[test]
fn a_body_beyond_its_limit_is_skipped() -> anyhow::Result<()> {
    need_root!();
    let server = server_of_a_large_file()?;
    let command = Command::new(env!("CARGO_BIN_EXE_ringtap"));
    let agent = Agent::start_with(&config("egress", ""), &["--http-buffer-size", "100kb"], command)?;
    let url = format!("http://127.0.0.1:{}/large", server.port);
    ensure!(Command::new("curl").args(["-sS", "-o", "/dev/null", &url]).status()?.success());
    let finished = agent.stop()?;
    finished.check()?;
    ensure!(ledger(&finished.stderr, "bytes", "skipped").is_some_and(|n| n > LARGE / 10 * 9), "{}", finished.stderr);
    let object: Value = serde_json::from_slice(&fs::read(&finished.objects()?[0])?)?;
    ensure!(object["response"]["body_size"] == LARGE && object["response"]["truncated"] == "limit", "{object:.400}");
    Ok(())
}

/// What a rule wants in full is kept in full, and what it does not want is skipped: decided at the response's head.
#[test]
fn rules_decide_early() -> anyhow::Result<()> {
    need_root!();
    let server = nginx(false, false)?;
    let rules = "
        config:
          level: summary
          rules:
            - name: wanted
              expr: http.req.path == '/size/300000' and http.res.status == 200
              level: full";
    let text = config("egress", "").replace("config: {level: full}", rules.trim_start());
    let agent = Agent::start(&text)?;
    for path in ["size/300000", "size/300000?not", "size/20000"] {
        let url = format!("http://127.0.0.1:{}/{path}", server.port);
        ensure!(Command::new("curl").args(["-sS", "-o", "/dev/null", &url]).status()?.success());
    }
    let finished = agent.stop()?;
    finished.check()?;
    let mut sizes: Vec<usize> = Vec::new();
    for path in finished.objects()? {
        let object: Value = serde_json::from_slice(&fs::read(path)?)?;
        ensure!(object.get("damage").is_none(), "{object:.400}");
        sizes.push(crate::truth::body(&object, "response")?.len());
    }
    sizes.sort_unstable();
    ensure!(sizes == [0, 0, 300_000] || sizes == [0, 300_000, 300_000], "{sizes:?}");
    Ok(())
}

fn ringtap(arguments: &[&str]) -> anyhow::Result<(String, String, Option<i32>)> {
    let output = Command::new(env!("CARGO_BIN_EXE_ringtap")).args(arguments).output()?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok((text(output.stdout), text(output.stderr), output.status.code()))
}

/// What was recorded under load replays to the same exchanges as were sent, with the processes' names.
#[test]
fn a_recording_replays_as_it_ran() -> anyhow::Result<()> {
    need_root!();
    record_and_replay(false)
}

/// Without secrets the same exchanges come back, each with its true sizes and without what was masked.
#[test]
fn a_redacted_recording_replays_without_secrets() -> anyhow::Result<()> {
    need_root!();
    record_and_replay(true)
}

fn record_and_replay(redact: bool) -> anyhow::Result<()> {
    let server = python_server(true)?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("x.rtap");
    let file_text = file.display().to_string();
    let flags: &[&str] = if redact { &["--redact"] } else { &[] };
    let recorder = Agent::start_recording(&config("egress", ""), &file, flags)?;
    let url = format!("https://127.0.0.1:{}", server.port);
    ensure!(client("load.py", &[&url, "recorded", "4", "50"])?.trim() == "200");
    recorder.stop()?.check()?;
    let objects = folder.path().join("objects").display().to_string();
    let path = folder.path().join("replay.yaml");
    fs::write(&path, config("egress", "").replace("FOLDER/objects", &objects))?;
    let (stdout, stderr, code) = ringtap(&["replay", "--json", "--config", &path.display().to_string(), &file_text])?;
    ensure!(code == Some(0), "{stderr}");
    let summary: Value = serde_json::from_str(stdout.lines().last().context("a summary")?)?;
    ensure!(summary["balanced"] == true && summary["format"] == "recording", "{summary:#}");
    let (run, truncated) = if redact { ("*", Value::from("redacted")) } else { ("recorded", Value::Null) };
    let mut found = 0;
    for shelf in fs::read_dir(&objects)? {
        for file in fs::read_dir(shelf?.path())? {
            let object: Value = serde_json::from_slice(&fs::read(file?.path())?)?;
            if object["request"]["headers"]["X-Run"] == run {
                let response = &object["response"];
                ensure!(response["body_size"] == 1000 && response["truncated"] == truncated, "{object:.400}");
                ensure!(object.get("damage").is_none(), "{object:.400}");
                let exe = object["metadata"]["process_exe"].as_str().unwrap_or_default();
                ensure!(exe.contains("python3"), "{exe}");
                found += 1;
            }
        }
    }
    ensure!(found == 200, "{found} of 200 exchanges");
    let bytes = fs::read(&file)?;
    let holds = bytes.windows("recorded".len()).any(|window| window == b"recorded");
    ensure!(holds != redact, "the header's value is in the file: {holds}");
    Ok(())
}

/// Large payloads are lent to the batches, not copied: at least 99 of 100 bytes.
#[test]
fn large_payloads_are_borrowed() -> anyhow::Result<()> {
    need_root!();
    let server = nginx(false, false)?;
    let admin = format!("127.0.0.1:{}", free_port()?);
    let command = Command::new(env!("CARGO_BIN_EXE_ringtap"));
    let agent = Agent::start_with(&config("egress", ""), &["--httpd-listen", &admin], command)?;
    for _ in 0..20 {
        let url = format!("http://127.0.0.1:{}/size/300000", server.port);
        ensure!(Command::new("curl").args(["-sS", "-o", "/dev/null", &url]).status()?.success());
    }
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let metrics = Command::new("curl").args(["-sS", &format!("http://{admin}/system/metrics")]).output()?;
    let metrics = String::from_utf8(metrics.stdout)?;
    let count = |name: &str| -> Option<u64> {
        metrics.lines().find_map(|line| line.strip_prefix(&format!("ringtap_{name}_total "))?.parse().ok())
    };
    let (borrowed, copied) = (count("bytes_borrowed").context("told")?, count("bytes_copied").context("told")?);
    ensure!(borrowed >= 6_000_000 && borrowed >= 99 * copied, "{borrowed} borrowed, {copied} copied");
    ensure!(count("kernel_seen_bytes").is_some_and(|seen| seen >= borrowed), "{metrics}");
    agent.stop()?.check()
}

/// A disk that is full refuses objects: they wait in the spool, none has an event, the ledger balances.
#[test]
fn a_full_disk_is_counted() -> anyhow::Result<()> {
    need_root!();
    let server = python_server(false)?;
    let Some(disk) = SmallDisk::mount("256k")? else {
        crate::tools::skip("a_full_disk_is_counted", "no file system can be mounted here");
        return Ok(());
    };
    fill(&server, disk.path())
}

fn fill(server: &Server, disk: &Path) -> anyhow::Result<()> {
    let text = config("egress", "").replace("FOLDER/objects", &disk.join("objects").display().to_string());
    let agent = Agent::start(&text)?;
    let url = format!("http://127.0.0.1:{}", server.port);
    ensure!(client("load.py", &[&url, "full", "4", "100"])?.trim() == "400");
    let finished = agent.stop()?;
    finished.check()?;
    let of = |name| ledger(&finished.stderr, "objects", name).unwrap_or(0);
    let waits = of("spooled") - of("spool");
    ensure!(waits > 0, "nothing was refused: {}", finished.stderr);
    ensure!(of("seen") == of("delivered") + waits, "{}", finished.stderr);
    let told = finished.stdout.lines().filter(|line| line.contains("ArtifactRecord")).count() as u64;
    ensure!(told == of("delivered"), "{told} events for {} objects", of("delivered"));
    Ok(())
}
