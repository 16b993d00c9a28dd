//! Another configuration for a running agent, and what processes say of themselves.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{bail, ensure};
use serde_json::Value;

use crate::{
    agent::{Agent, config},
    need_root,
    programs::{free_port, nginx},
};

const LIMIT: Duration = Duration::from_secs(15);

fn wait_for(agent: &Agent, words: &str, times: usize) -> anyhow::Result<()> {
    let begun = Instant::now();
    while agent.read("stderr")?.matches(words).count() < times {
        if begun.elapsed() > LIMIT {
            bail!("`{words}` was not said {times} times: {}", agent.read("stderr")?);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn get(url: &str, variables: &[(&str, &str)]) -> anyhow::Result<()> {
    let status = Command::new("curl").args(["-s", "-o", "/dev/null", url]).envs(variables.iter().copied()).status()?;
    ensure!(status.success(), "{url}: {status}");
    Ok(())
}

/// Asks twice, half a second apart: an environment can be read only as long as its process lives.
fn ask_twice(url: &str, variables: &[(&str, &str)]) -> anyhow::Result<()> {
    let mut curl = Command::new("curl");
    curl.args(["-s", "--rate", "2/s", "-o", "/dev/null", url, "-o", "/dev/null", url]);
    let status = curl.envs(variables.iter().copied()).status()?;
    ensure!(status.success(), "{url}: {status}");
    Ok(())
}

fn items(stdout: &str, kind: &str) -> Vec<Value> {
    let events = stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|event| event["type"] == kind).map(|event| event["item"].clone()).collect()
}

/// A changed file takes over by itself and on request; a broken one does not; nothing of the traffic around is lost, and
/// the books of all configurations are one.
#[test]
fn a_changed_file_takes_over_and_a_broken_one_does_not() -> anyhow::Result<()> {
    need_root!();
    let server = nginx(false, false)?;
    let metrics = free_port()?;
    let file = tempfile::tempdir()?;
    let path = file.path().join("qtap.yaml");
    // The agent reads a file of ours, not the one that the helper writes.
    let text = |level: &str, folder: &str| {
        let base = config("egress", "").replace("FOLDER/objects", &file.path().join(folder).display().to_string());
        base.replace("level: full", &format!("level: {level}"))
            .replace("- type: report_usage", "- type: report_usage\n      - type: http_metrics")
    };
    fs::write(&path, text("full", "one"))?;
    let listen = format!("127.0.0.1:{metrics}");
    let agent = Agent::start_at(&path, &["--httpd-listen", &listen])?;
    let url = |n: usize| format!("http://127.0.0.1:{}/r{n}", server.port);
    let load = std::thread::spawn({
        let base = format!("http://127.0.0.1:{}/load", server.port);
        move || (0..200).try_for_each(|n| get(&format!("{base}{n}"), &[]))
    });
    get(&url(1), &[])?;
    fs::write(&path, text("summary", "two"))?;
    wait_for(&agent, "reloaded; the new configuration acts", 1)?;
    get(&url(2), &[])?;
    fs::write(&path, "tap: [")?;
    wait_for(&agent, "not reloaded; the old configuration goes on", 1)?;
    get(&url(3), &[])?;
    fs::write(&path, text("headers", "three"))?;
    let asked = Command::new(env!("CARGO_BIN_EXE_ringtap")).arg("reload-config").output()?;
    ensure!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    wait_for(&agent, "reloaded; the new configuration acts", 2)?;
    get(&url(4), &[])?;
    load.join().expect("it does not panic")?;
    std::thread::sleep(Duration::from_millis(300));
    let told = Command::new("curl").args(["-s", &format!("http://{listen}/metrics")]).output()?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    ensure!(told.contains("qtap_http_requests_total{method=\"GET\"") && told.ends_with("# EOF\n"), "{told}");
    let finished = agent.stop()?;
    finished.check()?;
    let requests = items(&finished.stdout, "*eventstore.Request");
    let all = (1..=4).map(|n| format!("/r{n}")).chain((0..200).map(|n| format!("/load{n}")));
    for path in all {
        let n = requests.iter().filter(|event| event["path"] == path.as_str()).count();
        ensure!(n == 1, "{path} was told {n} times");
    }
    let url_of = |path: &str| {
        let records = items(&finished.stdout, "*eventstore.ArtifactRecord");
        let id = requests.iter().find(|event| event["path"] == path).map(|event| event["requestId"].clone());
        records.iter().find(|record| Some(&record["requestId"]) == id.as_ref()).map(|record| record["url"].clone())
    };
    for (path, folder) in [("/r1", "/one/"), ("/r2", "/two/"), ("/r3", "/two/"), ("/r4", "/three/")] {
        let url = url_of(path).unwrap_or_default();
        ensure!(url.as_str().is_some_and(|url| url.contains(folder)), "{path} is at {url}");
    }
    Ok(())
}

/// A direction that the new configuration wants is captured from then on, in the kernel too; excluded processes likewise.
#[test]
fn directions_and_filters_change_with_the_configuration() -> anyhow::Result<()> {
    need_root!();
    let server = nginx(false, false)?;
    let file = tempfile::tempdir()?;
    let path = file.path().join("qtap.yaml");
    let text = |direction: &str, filters: &str| {
        config(direction, filters).replace("FOLDER", &file.path().display().to_string())
    };
    fs::write(&path, text("egress-external", ""))?;
    let agent = Agent::start_at(&path, &["--httpd-listen", "off"])?;
    let url = |name: &str| format!("http://127.0.0.1:{}/{name}", server.port);
    get(&url("external"), &[])?;
    fs::write(&path, text("egress", ""))?;
    wait_for(&agent, "reloaded; the new", 1)?;
    get(&url("internal"), &[])?;
    fs::write(&path, text("egress", "  filters: {custom: [{exe: /curl, strategy: suffix}]}\n"))?;
    wait_for(&agent, "reloaded; the new", 2)?;
    get(&url("filtered"), &[])?;
    let finished = agent.stop()?;
    finished.check()?;
    let requests = items(&finished.stdout, "*eventstore.Request");
    let paths: Vec<&str> = requests.iter().filter_map(|event| event["path"].as_str()).collect();
    ensure!(paths == ["/internal"], "{paths:?}");
    Ok(())
}

/// What a process's environment says: tags, and that it wants to be left alone.
#[test]
fn processes_speak_for_themselves() -> anyhow::Result<()> {
    need_root!();
    let server = nginx(false, false)?;
    let tags = "tags:\n  - {key: stage, source: env, location: RINGTAP_TEST_STAGE}\n";
    let agent = Agent::start(&format!("{}{tags}", config("egress", "")))?;
    let url = |name: &str| format!("http://127.0.0.1:{}/{name}", server.port);
    ask_twice(&url("plain"), &[])?;
    ask_twice(&url("tagged"), &[("QPOINT_TAGS", "team:web,owner=ann"), ("RINGTAP_TEST_STAGE", "canary")])?;
    ask_twice(&url("ignored"), &[("QPOINT_STRATEGY", "ignore")])?;
    ask_twice(&url("other"), &[("QPOINT_STRATEGY", "ignore,exe.exact:/usr/bin/wget")])?;
    let finished = agent.stop()?;
    finished.check()?;
    let requests = items(&finished.stdout, "*eventstore.Request");
    let paths: Vec<&str> = requests.iter().filter_map(|event| event["path"].as_str()).collect();
    ensure!(paths == ["/plain", "/plain", "/tagged", "/tagged", "/other", "/other"], "{paths:?}");
    let tags = requests[2]["tags"].to_string();
    for tag in ["team:web", "owner:ann", "stage:canary"] {
        ensure!(tags.contains(tag) && !requests[0]["tags"].to_string().contains(tag), "{tag} in {tags}");
    }
    Ok(())
}
