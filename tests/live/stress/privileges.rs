//! What the agent may do: with few capabilities it sees as much, and the doctor says what each missing one costs.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::{
    agent::{Agent, config},
    need_root,
    programs::nginx,
};

/// To load programs, to attach them, and to read of other users' processes which files they use.
const ENOUGH: [&str; 3] = ["bpf", "perfmon", "sys_ptrace"];
/// Those, and for files that only their owners may read, and for other users' processes that are held.
const ALL: [&str; 5] = ["bpf", "perfmon", "sys_ptrace", "dac_read_search", "kill"];

/// A program with these capabilities alone: as root, or as a user who owns nothing.
fn with(capabilities: &[&str], root: bool, program: &Path) -> Command {
    let list = capabilities.iter().fold("-all".to_owned(), |list, name| list + ",+" + name);
    let mut command = Command::new("setpriv");
    command.arg(format!("--bounding-set={list}"));
    if root {
        command.arg("--inh-caps=-all");
    } else {
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.args([format!("--inh-caps={list}"), format!("--ambient-caps={list}")]);
    }
    command.arg(program);
    command
}

fn captures_with_few(root: bool) -> anyhow::Result<()> {
    let (server, folder) = (nginx(true, false)?, tempfile::tempdir()?);
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777))?;
    // Where that user can reach it.
    let program = folder.path().join("ringtap");
    fs::copy(env!("CARGO_BIN_EXE_ringtap"), &program)?;
    let agent = Agent::start_in(folder, &config("egress-internal", ""), with(&ENOUGH, root, &program))?;
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid()))?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).context("its capabilities")?;
    let (ptrace, perfmon, bpf) = (1_u64 << 19, 1 << 38, 1 << 39);
    ensure!(u64::from_str_radix(effective.trim(), 16)? == ptrace | perfmon | bpf, "{effective}");
    let url = format!("https://127.0.0.1:{}/size/1000", server.port);
    let status = Command::new("curl").args(["-skf", "-o", "/dev/null", &url]).status()?;
    ensure!(status.success(), "{status}");
    agent.wait_for_objects(1)?;
    let finished = agent.stop()?;
    finished.check()?;
    ensure!(finished.stdout.contains("/curl"), "the process has no name: {}", finished.stdout);
    Ok(())
}

#[test]
fn root_with_three_capabilities_captures() -> anyhow::Result<()> {
    need_root!();
    captures_with_few(true)
}

#[test]
fn another_user_with_three_capabilities_captures() -> anyhow::Result<()> {
    need_root!();
    captures_with_few(false)
}

/// What the doctor finds wanting.
#[derive(Debug)]
struct Lack {
    name: String,
    detail: String,
}

/// How the doctor ends with these capabilities alone, and what it says.
fn told(capabilities: &[&str]) -> anyhow::Result<(Option<i32>, Vec<Lack>)> {
    let output = with(capabilities, true, Path::new(env!("CARGO_BIN_EXE_ringtap")))
        .args(["doctor", "--json", "--agent", "off", "--hold-new-processes"])
        .stdin(Stdio::null())
        .output()?;
    let report: Value = serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))?;
    let checks = report["checks"].as_array().context("no checks")?.iter();
    let text = |check: &Value, name: &str| check[name].as_str().unwrap_or_default().to_owned();
    let lacking = checks.filter(|check| check["state"] != "ok");
    let lacking = lacking.map(|check| Lack { name: text(check, "name"), detail: text(check, "detail") });
    Ok((output.status.code(), lacking.collect()))
}

/// Each capability that is missing is named with what is lost, and nothing else is found wanting.
#[test]
fn the_doctor_names_what_each_capability_is_for() -> anyhow::Result<()> {
    need_root!();
    let (code, lacking) = told(&ALL)?;
    ensure!(code == Some(0) && lacking.is_empty(), "{lacking:?}");
    for (missing, name, code, words) in [
        ("bpf", "CAP_BPF, CAP_PERFMON", 1, "no program can be loaded"),
        ("perfmon", "CAP_BPF, CAP_PERFMON", 1, "no program can be loaded"),
        ("sys_ptrace", "CAP_SYS_PTRACE", 0, "without probes"),
        ("dac_read_search", "CAP_DAC_READ_SEARCH", 0, "stay without probes"),
        ("kill", "CAP_KILL", 0, "let go by the guard only"),
    ] {
        let rest: Vec<&str> = ALL.into_iter().filter(|one| *one != missing).collect();
        let (ended, lacking) = told(&rest)?;
        ensure!(ended == Some(code), "without {missing}: {ended:?}, {lacking:?}");
        let named = lacking.iter().find(|lack| lack.name == name);
        ensure!(named.is_some_and(|lack| lack.detail.contains(words)), "without {missing}: {lacking:?}");
        // If nothing can be loaded, more is said of that.
        ensure!(code == 1 || lacking.len() == 1, "without {missing}: {lacking:?}");
    }
    Ok(())
}
