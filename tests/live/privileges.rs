//! What the agent needs, what it gives up, and that there is one of it.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command, time::Duration};

use anyhow::{Context as _, ensure};

use crate::{
    agent::{Agent, config},
    need_root,
    programs::{Server, free_port, nginx},
    tools::skip,
};

/// Bits of `CAP_DAC_READ_SEARCH`, `CAP_SYS_PTRACE`, `CAP_PERFMON` and `CAP_BPF`: all that docs/security.md asks for.
const LEAST: u64 = 1 << 2 | 1 << 19 | 1 << 38 | 1 << 39;

fn status(pid: u32, name: &str) -> anyhow::Result<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(line.with_context(|| format!("{name} is not told"))?.trim().to_owned())
}

fn capabilities(pid: u32, name: &str) -> anyhow::Result<u64> {
    Ok(u64::from_str_radix(&status(pid, name)?, 16)?)
}

/// Of all threads.
fn threads(pid: u32) -> anyhow::Result<Vec<u32>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))?;
    tasks.map(|task| Ok(task?.file_name().to_string_lossy().parse()?)).collect()
}

/// Whether a program that starts now is seen in clear text, and the ledger adds up.
fn sees_tls(agent: Agent, server: &Server) -> anyhow::Result<()> {
    let asked = Command::new("curl")
        .args(["-sk", "-o", "/dev/null"])
        .arg(format!("https://localhost:{}/", server.port))
        .status()?;
    ensure!(asked.success(), "{asked}");
    agent.wait_for_objects(1)?;
    let finished = agent.stop()?;
    ensure!(finished.stderr.contains("  balanced"), "{}", finished.stderr);
    Ok(())
}

/// As root it gives up everything but what it needs, in every thread, for good; and still sees TLS of programs that start later.
#[test]
fn what_is_not_needed_is_given_up() -> anyhow::Result<()> {
    need_root!();
    let server = nginx(true, false)?;
    let agent = Agent::start(&config("egress", ""))?;
    for thread in threads(agent.pid())? {
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            let more = capabilities(thread, set)? & !LEAST;
            ensure!(more == 0, "{set} of thread {thread} has {more:x} besides");
        }
        ensure!(
            status(thread, "NoNewPrivs")? == "1" && status(thread, "Seccomp")? == "2",
            "thread {thread} can get more"
        );
    }
    sees_tls(agent, &server)
}

/// Started with exactly what docs/security.md lists, and as nobody's user, it captures.
#[test]
fn the_least_set_is_enough() -> anyhow::Result<()> {
    need_root!();
    let server = nginx(true, false)?;
    let folder = tempfile::tempdir()?;
    // It is no one's user: what it writes and reads must be its own.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777))?;
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]);
    command.args(["--bounding-set=-all,+bpf,+perfmon,+sys_ptrace,+dac_read_search"]);
    command.args(["--inh-caps=-all,+bpf,+perfmon,+sys_ptrace,+dac_read_search"]);
    command.args(["--ambient-caps=-all,+bpf,+perfmon,+sys_ptrace,+dac_read_search"]);
    command.arg(env!("CARGO_BIN_EXE_ringtap"));
    let agent = Agent::start_in(folder, &config("egress", ""), command)?;
    ensure!(status(agent.pid(), "Uid")?.starts_with("65534"), "it is nobody");
    ensure!(capabilities(agent.pid(), "CapEff")? == LEAST, "{:x}", capabilities(agent.pid(), "CapEff")?);
    sees_tls(agent, &server)
}

/// A second agent is refused with a reason; when the first is killed the next one may start at once.
#[test]
fn there_is_one_agent() -> anyhow::Result<()> {
    need_root!();
    let alone = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringtap"));
        command.env_remove("RINGTAP_BESIDE");
        command
    };
    let listen = format!("127.0.0.1:{}", free_port()?);
    let start = || Agent::start_with(&config("egress", ""), &["--httpd-listen", &listen], alone());
    // One that runs on this machine for use is not the test's to stop.
    let mut first = match start() {
        Err(error) if error.to_string().contains("another agent") => {
            skip("privileges::there_is_one_agent", "another agent runs on this machine");
            return Ok(());
        }
        other => other?,
    };
    let refused = start().err().context("a second agent was let in")?.to_string();
    ensure!(refused.contains("another agent captures on this machine already"), "{refused}");
    first.kill()?;
    // Nothing of the first is left: neither its claim nor its probes.
    std::thread::sleep(Duration::from_millis(100));
    let second = start()?;
    second.stop()?;
    Ok(())
}
