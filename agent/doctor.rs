//! `ringtap doctor`: what works on this machine, what does not and why, and which processes stay dark.

use std::{
    collections::HashMap,
    fmt::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::PoisonError,
    time::Duration,
};

use ringtap_batch::{blind::Blind, clock::WallOffset};
use serde::{Deserialize, Serialize};

use self::checks::{Check, State};
use crate::{
    ask::ask,
    config::checked::ProcessRules,
    coverage::{Coverage, Row, Verdict, code_files, process_ids},
    probe::{
        files::{FileId, Found, FoundLibrary, is_of_elf},
        signatures::Signatures,
        suspects::suspect,
        tls,
    },
    process::ProcessTable,
};

pub mod checks;

/// What a running agent tells of itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Told {
    /// Its version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// What its kernel lacks, each with what follows.
    pub missing: Vec<String>,
    /// Files that got their probes after a process had begun to use them, and the longest time between, in microseconds.
    pub late_files: u64,
    /// See `late_files`.
    pub longest_blind_us: u64,
    /// Probes in place.
    pub probes: usize,
    /// Processes with sockets.
    pub processes: Vec<Row>,
    /// What passed and could not be read, also of processes that have ended.
    pub blind: Vec<Unread>,
}

/// Traffic of a program that could not be read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Unread {
    /// `tls` or `http3`.
    pub kind: String,
    /// Path of the executable.
    pub exe: String,
    /// Connections that have ended.
    pub connections: u64,
    /// Bytes on the sockets.
    pub bytes: u64,
}

/// The whole report.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Of the doctor.
    pub version: &'static str,
    /// Kernel, privileges and configuration.
    pub checks: Vec<Check>,
    /// Whether an agent answered.
    pub agent: Option<SocketAddr>,
    /// What it said; without one, what it would find.
    pub told: Told,
}

/// Examines this machine, and asks the agent at `address`, if one runs there.
///
/// # Errors
///
/// What runs there answers, and is not an agent.
pub fn examine(
    config: Option<&Path>,
    signatures: Option<&Path>,
    hold: bool,
    address: Option<SocketAddr>,
) -> anyhow::Result<Report> {
    let signatures = Signatures::with(signatures);
    let mut checks = checks::all(config, hold);
    checks.push(checks::signatures(&signatures));
    let signatures = signatures.unwrap_or_default();
    let answer: Option<Told> = address.map(|address| ask(address, "/system/processes")).transpose()?.flatten();
    let agent = address.filter(|_| answer.is_some());
    let mut told = answer.unwrap_or_else(|| alone(&signatures));
    told.processes.retain(|row| row.pid != std::process::id());
    name_suspects(&mut told.processes);
    Ok(Report { version: env!("CARGO_PKG_VERSION"), checks, agent, told })
}

/// Without an agent: what one would find.
fn alone(signatures: &Signatures) -> Told {
    let coverage = Coverage::new(ProcessTable::new(ProcessRules::default()).into());
    let mut found = coverage.found.lock().unwrap_or_else(PoisonError::into_inner);
    for (id, path) in process_ids().flat_map(code_files) {
        found.files.entry(id).or_insert_with(|| look_into(&path, signatures));
    }
    drop(found);
    let mut processes = coverage.rows(&Blind::default(), WallOffset::default());
    for row in &mut processes {
        row.why = match row.stacks.iter().find_map(|stack| stack.fault.as_deref()) {
            Some(fault) => format!("would have no probes: {fault}"),
            None if row.stacks.is_empty() => String::new(),
            None => "would have probes".to_owned(),
        };
    }
    Told { processes, ..Told::default() }
}

fn look_into(path: &Path, signatures: &Signatures) -> Found {
    let shown =
        PathBuf::from(path.to_string_lossy().splitn(5, '/').last().map_or_else(String::new, |p| format!("/{p}")));
    let mut found = Found { path: shown, libraries: Vec::new(), fault: None, since_ns: 0 };
    match tls::points(path, signatures) {
        Ok(all) => found.libraries.extend(all.into_iter().map(|points| {
            let (name, how, probes) = (points.library, points.how, points.count());
            let stop = points.stop;
            FoundLibrary { name, how, probes, stop, refused: None }
        })),
        Err(fault) => found.fault = Some(fault).filter(|fault| is_of_elf(fault)),
    }
    found
}

/// Says of dark processes what they may use, where nothing better is known.
fn name_suspects(rows: &mut [Row]) {
    let mut known: HashMap<FileId, Option<&'static str>> = HashMap::new();
    let nothing_known = |row: &&mut Row| row.stacks.iter().all(|stack| stack.probes == 0 && stack.fault.is_none());
    for row in rows.iter_mut().filter(|row| row.verdict == Verdict::Dark).filter(nothing_known) {
        for (id, path) in code_files(row.pid) {
            let shown = std::fs::read_link(&path).unwrap_or_else(|_| path.clone());
            if let Some(why) = known.entry(id).or_insert_with(|| suspect(&path, &shown)) {
                row.why = format!("{}: {why}", shown.file_name().unwrap_or_default().to_string_lossy());
                break;
            }
        }
    }
}

impl Report {
    /// Whether everything that was asked for can work.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.checks.iter().all(|check| check.state != State::Failed)
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for check in &self.checks {
            let _ = writeln!(text, "{:<9} {:<22} {}", check.state.as_str(), check.name, check.detail);
            if let Some(remedy) = &check.remedy {
                let _ = writeln!(text, "{:<32} → {remedy}", "");
            }
        }
        text.push('\n');
        match self.agent {
            Some(address) => {
                let Told { version, pid, probes, late_files, longest_blind_us, .. } = &self.told;
                let longest = Duration::from_micros(*longest_blind_us);
                let _ = writeln!(text, "Agent {version}, process {pid}, at {address}: {probes} probes in place;");
                let _ = writeln!(
                    text,
                    "{late_files} files got theirs after a program had begun to use them, {longest:?} later at most.\n"
                );
            }
            None => {
                text.push_str("No agent answers: these are the processes with sockets, and what would be probed.\n\n");
            }
        }
        self.table(&mut text);
        text
    }

    fn table(&self, text: &mut String) {
        let _ = writeln!(
            text,
            "{:<8} {:>7} {:<20} {:<22} {:>6} {:>10} {:>10} {:<20} WHY",
            "", "PID", "PROGRAM", "TLS", "PROBES", "WIRE", "CLEAR", "SINCE"
        );
        for row in &self.told.processes {
            let program = row.exe.rsplit('/').next().unwrap_or_default();
            let libraries: Vec<&str> = row.stacks.iter().map(|stack| stack.library.as_str()).collect();
            let probes: usize = row.stacks.iter().map(|stack| stack.probes).sum();
            let since = row.stacks.iter().filter_map(|stack| stack.since.as_deref()).min().unwrap_or_default();
            let blind = row.stacks.iter().filter_map(|stack| stack.blind_ms).max().filter(|ms| *ms > 0);
            let blind = blind.map_or_else(String::new, |ms| format!("ran {ms} ms before its probes; "));
            let _ = writeln!(
                text,
                "{:<8} {:>7} {program:<20} {:<22} {probes:>6} {:>10} {:>10} {:<20} {blind}{}",
                row.verdict.as_str(),
                row.pid,
                if libraries.is_empty() { "-".to_owned() } else { libraries.join(",") },
                size(row.tls_bytes),
                size(row.clear_bytes),
                since.get(..19).unwrap_or(since),
                row.why
            );
        }
        if !self.told.blind.is_empty() {
            text.push_str("\nPassed unread, also of programs that have ended:\n");
        }
        for Unread { kind, exe, connections, bytes } in &self.told.blind {
            let _ = writeln!(text, "  {kind:<6} {exe}: {connections} connections, {}", size(*bytes));
        }
    }
}

/// Bytes, short.
fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match UNITS.iter().find(|(shift, _)| bytes >> shift > 0) {
        Some((shift, unit)) => format!("{}.{} {unit}", bytes >> shift, (bytes >> (shift - 10)) % 1024 * 10 / 1024),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let sizes = [0, 1023, 1024, 1536, 5 << 20, 3 << 30];
        assert_eq!(sizes.map(size), ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "5.0 MiB", "3.0 GiB"]);
    }

    #[test]
    fn without_an_agent_our_own_file_is_looked_into() {
        let _socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let found = look_into(Path::new("/proc/self/exe"), &Signatures::default());
        assert!(found.fault.is_none());
    }
}
