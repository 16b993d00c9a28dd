//! What the machine allows: kernel, privileges, configuration.

use std::{fs, path::Path};

use object::Object as _;
use serde::Serialize;

use crate::{
    config,
    probe::{
        kernel::{Kernel, Settings},
        signatures::Signatures,
    },
};

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// It works with less.
    Degraded,
    /// It cannot work.
    Failed,
}

impl State {
    /// As it is printed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Failed => "FAILED",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// How it is.
    pub state: State,
    /// What was seen, and what follows.
    pub detail: String,
    /// What helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

fn ok(name: &'static str, detail: impl Into<String>) -> Check {
    Check { name, state: State::Ok, detail: detail.into(), remedy: None }
}

fn bad(name: &'static str, state: State, detail: impl Into<String>, remedy: &str) -> Check {
    let remedy = Some(remedy.to_owned()).filter(|remedy| !remedy.is_empty());
    Check { name, state, detail: detail.into(), remedy }
}

/// Everything that can be checked from here. `hold`: processes are to be held until their probes are in place.
#[must_use]
pub fn all(file: Option<&Path>, hold: bool) -> Vec<Check> {
    let mut checks = vec![release(), types(), jit()];
    checks.extend(capabilities(hold));
    checks.extend(programs());
    checks.extend(file.map(configuration));
    checks
}

/// Builds without symbols that are known.
pub fn signatures(read: &Result<Signatures, String>) -> Check {
    match read {
        Ok(signatures) => ok("signatures", format!("{} builds without symbols are known", signatures.count())),
        Err(why) => bad("signatures", State::Failed, why, "`ringtap signature FILE` prints an entry as it has to be"),
    }
}

fn release() -> Check {
    const OLDEST: (u32, u32) = (5, 10);
    let name = rustix::system::uname();
    let (release, machine) = (name.release().to_string_lossy(), name.machine().to_string_lossy());
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let detail = format!("Linux {release}, {machine}");
    if !matches!(machine.as_ref(), "x86_64" | "aarch64") {
        return bad("kernel", State::Failed, detail, "there are programs for x86_64 and aarch64 only");
    }
    if version < OLDEST {
        return bad("kernel", State::Failed, detail, "a kernel from 5.10 on is needed");
    }
    ok("kernel", detail)
}

fn types() -> Check {
    match fs::metadata("/sys/kernel/btf/vmlinux") {
        Ok(file) => ok("type information", format!("{} KiB at /sys/kernel/btf/vmlinux", file.len() >> 10)),
        Err(error) => bad(
            "type information",
            State::Failed,
            format!("/sys/kernel/btf/vmlinux: {error}"),
            "a kernel that was built with CONFIG_DEBUG_INFO_BTF, as all large distributions have it",
        ),
    }
}

fn jit() -> Check {
    let value = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").unwrap_or_default();
    match value.trim() {
        "0" => bad(
            "compiler of programs",
            State::Degraded,
            "off: the programs are interpreted, at several times the cost",
            "sysctl net.core.bpf_jit_enable=1",
        ),
        "" => ok("compiler of programs", "its setting cannot be read here"),
        _ => ok("compiler of programs", "on"),
    }
}

/// Bits of capabilities(7).
const CAPABILITIES: [(&str, u32, &str); 4] = [
    ("CAP_SYS_PTRACE", 19, "other users' processes stay without name, and their own libraries without probes"),
    ("CAP_DAC_READ_SEARCH", 2, "files that only their owners may read stay without probes"),
    ("CAP_KILL", 5, "processes of other users are let go by the guard only, after two seconds"),
    ("CAP_SYS_ADMIN", 21, "before Linux 6.6 no probe can be attached"),
];

fn capabilities(hold: bool) -> Vec<Check> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    let has = |bit: u32| mask >> bit & 1 == 1;
    let admin = has(21);
    let mut checks = vec![if admin || (has(39) && has(38)) {
        ok("CAP_BPF, CAP_PERFMON", if has(39) && has(38) { "there" } else { "CAP_SYS_ADMIN stands for them" })
    } else {
        let remedy = "run as root, or with these capabilities";
        bad("CAP_BPF, CAP_PERFMON", State::Failed, "missing: no program can be loaded", remedy)
    }];
    for (name, bit, without) in CAPABILITIES {
        let needed = match name {
            "CAP_KILL" => hold,
            // Where it is needed, attaching tells.
            "CAP_SYS_ADMIN" => false,
            _ => true,
        };
        if has(bit) {
            checks.push(ok(name, "there"));
        } else if needed {
            checks.push(bad(name, State::Degraded, format!("missing: {without}"), "give it to the agent"));
        }
    }
    checks
}

/// Loads the programs for real, attaches them and a probe, and takes all away again.
fn programs() -> Vec<Check> {
    const SMALL: u32 = 64 << 10;
    const NAME: &str = "programs";
    let settings = Settings { wanted: 0, shards: 1, ring_bytes: SMALL };
    let mut kernel = match Kernel::load(settings).and_then(|mut kernel| kernel.start().map(|()| kernel)) {
        Ok(kernel) => kernel,
        Err(error) => return vec![bad(NAME, State::Failed, format!("{:#}", anyhow::Error::new(error)), "")],
    };
    let mut checks = vec![ok(NAME, "loaded and attached")];
    checks.extend(kernel.missing.drain(..).map(|lost| bad(NAME, State::Degraded, lost, "a newer kernel")));
    checks.push(
        match entry_of_this_program().map(|at| kernel.attach_probes("handle_free", Path::new(SELF), &[at], 0)) {
            Some(Ok(_)) => ok("probes", "attached to a file and removed again"),
            Some(Err(reason)) => bad("probes", State::Failed, reason, "run as root, or with CAP_SYS_ADMIN as well"),
            None => bad("probes", State::Degraded, "this program's own file cannot be read", ""),
        },
    );
    checks
}

const SELF: &str = "/proc/self/exe";

/// Where in its file this program begins.
fn entry_of_this_program() -> Option<u64> {
    let bytes = object::read::ReadCache::new(fs::File::open(SELF).ok()?);
    let elf = object::File::parse(&bytes).ok()?;
    crate::probe::file_offset(&elf, elf.entry())
}

fn configuration(file: &Path) -> Check {
    const NAME: &str = "configuration";
    let list = |problems: Vec<config::Problem>| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => return bad(NAME, State::Failed, format!("{}: {error}", file.display()), ""),
    };
    let text = config::with_data_dir(&text, Path::new(config::DATA_DIR));
    match config::read(&file.display().to_string(), &text) {
        Ok((_, warnings)) if warnings.is_empty() => ok(NAME, file.display().to_string()),
        Ok((_, warnings)) => bad(NAME, State::Degraded, list(warnings), "ringtap validate shows the places"),
        Err(problems) => bad(NAME, State::Failed, list(problems), "ringtap validate shows the places"),
    }
}
