//! Probes that cost a process more than they may: less and less of it is captured, and everybody is told.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::{
    agent::{Agent, config},
    need_root,
    programs::{Server, free_port, nginx_alone},
    truth::events,
};

/// Three looks for each of three steps, one before them, and the time that a busy machine takes.
const LIMIT: Duration = Duration::from_secs(40);

/// More requests than cost nothing, by connections that stay; ends with the value.
struct Load(Child);

impl Load {
    fn start(server: &Server) -> anyhow::Result<Self> {
        let url = format!("https://127.0.0.1:{}/size/1000", server.port);
        let mut command = Command::new("h2load");
        command.args(["--h1", "-t1", "-c16", "--rps=400", "--duration=120", &url]);
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(command.spawn().context("h2load is not installed")?))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn metrics(admin: &str) -> anyhow::Result<String> {
    let output = Command::new("curl").args(["-sS", &format!("http://{admin}/system/metrics")]).output()?;
    Ok(String::from_utf8(output.stdout)?)
}

fn metric(admin: &str, name: &str) -> anyhow::Result<u64> {
    let text = metrics(admin)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.map(str::parse).transpose()?.unwrap_or_default())
}

fn wait_for(what: &str, mut is: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !is()? {
        ensure!(begun.elapsed() < LIMIT, "{what} is still to come");
        sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// What the doctor says of the server's workers that have answered requests: their levels, and why.
fn told_by_the_doctor(admin: &str) -> anyhow::Result<Vec<(String, String)>> {
    let output = Command::new(env!("CARGO_BIN_EXE_ringtap")).args(["doctor", "--json", "--agent", admin]).output()?;
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let rows = report["told"]["processes"].as_array().context("processes")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let workers = rows.iter().filter(|row| text(&row["exe"]).ends_with("/nginx") && row["calls"].as_u64() > Some(0));
    Ok(workers.map(|row| (text(&row["level"]), text(&row["why"]))).collect())
}

/// A new connection and a request on it, which names itself.
fn ask(server: &Server, name: &str) -> anyhow::Result<()> {
    let url = format!("https://127.0.0.1:{}/{name}", server.port);
    let status = Command::new("curl").args(["-sk", "-o", "/dev/null", &url]).status()?;
    ensure!(status.success(), "{name}: {status}");
    Ok(())
}

fn written(path: &Path, budget: &str) -> anyhow::Result<()> {
    let folder = path.parent().context("a folder")?.display().to_string();
    let text = config("ingress", "")
        .replace("FOLDER", &folder)
        .replace("      - type: http_capture\n        config: {level: full}\n", "");
    let text = text.replace("budgets: {probes: 'off'}", &format!("budgets: {{probes: {budget:?}}}"));
    ensure!(text.contains(budget), "{text}");
    Ok(fs::write(path, text)?)
}

#[test]
fn a_process_that_pays_too_much_is_captured_less() -> anyhow::Result<()> {
    need_root!();
    let server = nginx_alone()?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("ringtap.yaml");
    written(&path, "0.1%")?;
    let admin = format!("127.0.0.1:{}", free_port()?);
    let agent = Agent::start_at(&path, &["--httpd-listen", &admin])?;
    let load = Load::start(&server)?;
    let steps =
        |from: &str, to: &str| metric(&admin, &format!("ringtap_governor_steps_total{{from=\"{from}\",to=\"{to}\"}}"));
    wait_for("the last step", || Ok(steps("sampled", "off")? > 0))?;
    ensure!(steps("full", "headers")? > 0 && steps("headers", "sampled")? > 0, "{}", metrics(&admin)?);
    wait_for("the doctor's word", || {
        let workers = told_by_the_doctor(&admin)?;
        let is_off = |(level, why): &(String, String)| level == "off" && why.contains("cost it too much");
        Ok(!workers.is_empty() && workers.iter().all(is_off))
    })?;
    wait_for("a connection that is left out", || {
        Ok(metric(&admin, "ringtap_kernel_governed_connections_total")? >= 16)
    })?;
    ask(&server, "unseen")?;
    drop(load);
    // Without a governor all is captured again, but for connections that were left out before.
    written(&path, "off")?;
    wait_for("the end of the governor", || Ok(metric(&admin, "ringtap_governed_processes{level=\"off\"}")? == 0))?;
    ask(&server, "seen")?;
    sleep(Duration::from_secs(1));
    let finished = agent.stop()?;
    finished.check()?;
    let governed = events(&finished, "*eventstore.ProcessGoverned")?;
    let of_nginx: Vec<(&str, &str)> = governed
        .iter()
        .filter(|event| event["process"]["exe"].as_str().is_some_and(|exe| exe.ends_with("/nginx")))
        .filter_map(|event| Some((event["from"].as_str()?, event["to"].as_str()?)))
        .collect();
    let all = [("full", "headers"), ("headers", "sampled"), ("sampled", "off"), ("off", "full")];
    ensure!(all.iter().all(|step| of_nginx.contains(step)), "{of_nginx:?}");
    ensure!(governed.iter().any(|event| event["share"].as_f64() > Some(0.001)), "{governed:?}");
    let requests = events(&finished, "*eventstore.Request")?;
    let told = |name: &str| requests.iter().any(|event| event["path"] == name);
    ensure!(told("/seen") && !told("/unseen"), "seen {}, unseen {}", told("/seen"), told("/unseen"));
    Ok(())
}
