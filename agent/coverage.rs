//! What is seen of each process, and what is not: its TLS libraries, their probes, and its bytes on both sides of them.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ringtap_batch::{
    blind::{Blind, Spot},
    clock::{WallOffset, rfc3339},
    process::Processes as _,
    ring::abi::{Activity, Library, exclude},
};
use serde::{Deserialize, Serialize};

use crate::{
    probe::{
        cost::Stop,
        files::{FileId, Found, Shared},
        governor::{Level, Machine},
        prober::mapped_paths,
    },
    process::{self, ProcessTable},
};

/// Bytes of TLS that handshakes alone can make: whoever moved less may have had nothing to say yet.
const HANDSHAKES: u64 = 32 << 10;
/// Rows at most; processes with the most TLS come first.
pub const ROWS_MAX: usize = 4096;

/// How much of a process is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// TLS passes that is not read.
    Dark,
    /// Some of its TLS is read, and some is not.
    Partly,
    /// Its probes cost it too much: one of its connections in eight is captured, or none.
    Governed,
    /// Its TLS is read.
    Seen,
    /// Its TLS library has probes; nothing has passed that could be read.
    Ready,
    /// It speaks, but not TLS.
    Plain,
    /// It has sockets, and has moved nothing.
    Idle,
    /// The configuration leaves it alone.
    Excluded,
}

impl Verdict {
    /// As it is printed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dark => "dark",
            Self::Partly => "partly",
            Self::Governed => "governed",
            Self::Seen => "seen",
            Self::Ready => "ready",
            Self::Plain => "plain",
            Self::Idle => "idle",
            Self::Excluded => "excluded",
        }
    }
}

/// A TLS library that a process has loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stack {
    /// As events name it.
    pub library: String,
    /// The file it lies in.
    pub file: String,
    /// How its functions were found.
    pub how: String,
    /// Probes in it; 0: none could be attached.
    pub probes: usize,
    /// When they were attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// For how long the process may have used it before, in milliseconds, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blind_ms: Option<u64>,
    /// Why there are no probes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// A process that has sockets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Process id.
    pub pid: u32,
    /// Path of the executable.
    pub exe: String,
    /// What else is known of it.
    pub details: Vec<(String, String)>,
    /// Its TLS libraries.
    pub stacks: Vec<Stack>,
    /// TLS on its sockets, handshakes and all.
    pub tls_bytes: u64,
    /// What of that was read.
    pub clear_bytes: u64,
    /// On its sockets without TLS.
    pub socket_bytes: u64,
    /// On its sockets by ways that are not observed.
    pub unseen_bytes: u64,
    /// Probed calls.
    pub calls: u64,
    /// How much of it is captured, by what its probes cost it.
    #[serde(default)]
    pub level: Level,
    /// What it comes to.
    pub verdict: Verdict,
    /// Why.
    pub why: String,
}

/// Where the agent keeps what the table is made of.
pub struct Coverage {
    /// Files with TLS libraries.
    pub found: Shared,
    /// What each process has moved, as of a second ago at most.
    pub activity: Mutex<HashMap<u32, Activity>>,
    /// Who they are.
    pub processes: Arc<ProcessTable>,
    /// What the kernel lacks, each with what follows.
    missing: Mutex<Vec<String>>,
}

impl Coverage {
    /// Of nothing yet.
    #[must_use]
    pub fn new(processes: Arc<ProcessTable>) -> Self {
        Self { found: Shared::default(), activity: Mutex::default(), processes, missing: Mutex::default() }
    }

    /// Takes note of what the kernel lacks.
    pub fn lacks(&self, missing: &[String]) {
        *self.missing.lock().unwrap_or_else(PoisonError::into_inner) = missing.to_vec();
    }

    /// What the kernel lacks.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every process that has sockets, those first of which least is seen. Reads `/proc`, which takes a while.
    #[must_use]
    pub fn rows(&self, blind: &Blind, wall: WallOffset) -> Vec<Row> {
        let activity = self.activity.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let unread: HashSet<String> =
            blind.all().into_iter().filter(|(spot, ..)| *spot == Spot::Tls).map(|(_, exe, _)| exe).collect();
        let mut sockets = Sockets::default();
        let mut rows: Vec<Row> = process_ids()
            .filter(|tgid| activity.contains_key(tgid) || sockets.are_of(*tgid))
            .filter(|tgid| *tgid != std::process::id())
            .filter_map(|tgid| self.row(tgid, activity.get(&tgid).copied().unwrap_or_default(), &unread, wall))
            .collect();
        rows.sort_by_key(|row| (row.verdict, u64::MAX - row.tls_bytes, row.pid));
        rows.truncate(ROWS_MAX);
        rows
    }

    fn row(&self, tgid: u32, moved: Activity, unread: &HashSet<String>, wall: WallOffset) -> Option<Row> {
        let process = self.processes.get(tgid)?;
        let stacks = self.stacks(tgid, wall);
        let level = self.processes.governed().level(tgid);
        let (mut verdict, mut why) = judge(&moved, &stacks, unread.contains(&process.exe), process.excluded);
        if level > Level::Headers && verdict > Verdict::Governed {
            verdict = Verdict::Governed;
        }
        if level != Level::Full {
            why = format!("its probes cost it too much: captured at level {}; {why}", level.as_str());
        }
        Some(Row {
            pid: tgid,
            exe: process.exe.clone(),
            details: process.details.iter().filter(|(name, _)| is_shown(name)).cloned().collect(),
            stacks,
            tls_bytes: moved.tls_bytes,
            clear_bytes: moved.clear_bytes,
            socket_bytes: moved.socket_bytes,
            unseen_bytes: moved.unseen_bytes,
            calls: moved.calls,
            level,
            verdict,
            why,
        })
    }

    /// The libraries in the files that a process has mapped.
    fn stacks(&self, tgid: u32, wall: WallOffset) -> Vec<Stack> {
        let started = process::started(tgid).and_then(|at| u64::try_from(at.as_nanos()).ok());
        let ids = file_ids(tgid);
        let all = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let found = ids.iter().filter_map(|id| all.files.get(id));
        found.flat_map(|found| stacks_of(found, started, wall)).collect()
    }
}

/// Whether anybody who asks may know a detail: what environments and arguments hold only their owners may read.
fn is_shown(detail: &str) -> bool {
    !detail.starts_with("process.env.") && detail != "process.args"
}

impl Machine for Coverage {
    fn used(&self, tgid: u32) -> Option<Duration> {
        process::used_time(tgid)
    }

    /// By the dearest of the libraries that handed out plaintext, in the files that the process has mapped.
    fn stop(&self, tgid: u32, libraries: u64) -> Stop {
        let ids = file_ids(tgid);
        let all = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let found = ids.iter().filter_map(|id| all.files.get(id)).flat_map(|found| &found.libraries);
        let is_used = |name: &str| {
            let bit = (0..64).find(|bit| Library::of_flags(bit << 24).is_some_and(|library| library.as_str() == name));
            bit.is_none_or(|bit| libraries == 0 || libraries >> bit & 1 == 1)
        };
        found.filter(|library| is_used(library.name)).map(|library| library.stop).max().unwrap_or(Stop::Emulated)
    }
}

fn stacks_of(found: &Found, started: Option<u64>, wall: WallOffset) -> Vec<Stack> {
    let file = found.path.display().to_string();
    let since = Some(found.since_ns).filter(|since| *since > 0);
    let libraries = found.libraries.iter().map(|library| Stack {
        library: library.name.to_owned(),
        file: file.clone(),
        how: library.how.to_owned(),
        probes: library.probes,
        since: since.filter(|_| library.probes > 0).map(|since| rfc3339(wall.wall_ns(since))),
        blind_ms: since
            .zip(started)
            .filter(|_| library.probes > 0)
            .map(|(s, began)| s.saturating_sub(began) / 1_000_000),
        fault: library.refused.clone(),
    });
    let fault = found.fault.iter().map(|fault| Stack {
        library: "unknown".to_owned(),
        file: file.clone(),
        how: String::new(),
        probes: 0,
        since: None,
        blind_ms: None,
        fault: Some(fault.clone()),
    });
    libraries.chain(fault).collect()
}

fn judge(moved: &Activity, stacks: &[Stack], unread: bool, excluded: u32) -> (Verdict, String) {
    let probed = stacks.iter().any(|stack| stack.probes > 0);
    let say = |verdict, why: &str| (verdict, why.to_owned());
    match moved {
        _ if excluded & (exclude::DATA | exclude::HTTP | exclude::TLS) != 0 => {
            say(Verdict::Excluded, "left alone by the configuration or by its own environment")
        }
        Activity { tls_bytes: 0, clear_bytes: 0, .. } if probed => say(Verdict::Ready, "no TLS has passed yet"),
        Activity { tls_bytes: 0, clear_bytes: 0, socket_bytes: 0, unseen_bytes: 0, .. } => say(Verdict::Idle, ""),
        Activity { tls_bytes: 0, clear_bytes: 0, .. } => say(Verdict::Plain, ""),
        Activity { clear_bytes: 1.., .. } if unread => {
            say(Verdict::Partly, "connections of this program ended of which nothing was read")
        }
        Activity { clear_bytes: 1.., relayed: 1.., .. } => {
            say(Verdict::Seen, "addresses may be unknown: its threads send for one another")
        }
        Activity { clear_bytes: 1.., .. } => say(Verdict::Seen, ""),
        Activity { tls_bytes, .. } if probed && *tls_bytes < HANDSHAKES && !unread => {
            say(Verdict::Ready, "only handshakes so far")
        }
        _ if probed => say(
            Verdict::Dark,
            "its library has probes, and none was hit: it may use another one, or have begun before them",
        ),
        _ => match stacks.iter().find_map(|stack| stack.fault.as_deref()) {
            Some(fault) => (Verdict::Dark, format!("no probes: {fault}")),
            None => say(Verdict::Dark, "no TLS library was found in it that has probes"),
        },
    }
}

/// All processes at present.
pub(crate) fn process_ids() -> impl Iterator<Item = u32> {
    let ids = fs::read_dir("/proc").into_iter().flatten().flatten();
    ids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Files that a process executes code of, by a path that is valid here.
pub(crate) fn code_files(tgid: u32) -> Vec<(FileId, PathBuf)> {
    let mut known = HashSet::new();
    let paths = mapped_paths(tgid).into_iter().chain([PathBuf::from(format!("/proc/{tgid}/exe"))]);
    let files = paths.filter_map(|path| {
        let file = fs::metadata(&path).ok()?;
        let id = (file.dev(), file.ino());
        known.insert(id).then_some((id, path))
    });
    files.collect()
}

fn file_ids(tgid: u32) -> BTreeSet<FileId> {
    code_files(tgid).into_iter().map(|(id, _)| id).collect()
}

/// Inode numbers of internet sockets, by network namespace.
#[derive(Default)]
struct Sockets(HashMap<PathBuf, HashSet<String>>);

impl Sockets {
    /// Whether a process has any.
    fn are_of(&mut self, tgid: u32) -> bool {
        let folder = PathBuf::from(format!("/proc/{tgid}"));
        let Ok(descriptors) = fs::read_dir(folder.join("fd")) else { return false };
        let mut sockets = descriptors.flatten().filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']').map(str::to_owned)
        });
        let Ok(namespace) = fs::read_link(folder.join("ns/net")) else { return false };
        let known = self.0.entry(namespace).or_insert_with(|| internet_sockets(&folder));
        sockets.any(|socket| known.contains(&socket))
    }
}

fn internet_sockets(process: &Path) -> HashSet<String> {
    let tables = ["tcp", "tcp6", "udp", "udp6"];
    let texts = tables.iter().filter_map(|name| fs::read_to_string(process.join("net").join(name)).ok());
    let inodes = |text: String| -> Vec<String> {
        text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(9).map(str::to_owned)).collect()
    };
    texts.flat_map(inodes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_a_socket_has_one() {
        assert!(!Sockets::default().are_of(u32::MAX));
        let _socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        assert!(Sockets::default().are_of(std::process::id()));
    }

    #[test]
    fn judgements() {
        let stack = |probes| Stack {
            library: "openssl".into(),
            file: String::new(),
            how: String::new(),
            probes,
            since: None,
            blind_ms: None,
            fault: None,
        };
        let moved = |tls_bytes, clear_bytes| Activity { tls_bytes, clear_bytes, ..Activity::default() };
        let check = |moved, stacks: &[Stack], unread, expected| {
            assert_eq!(judge(&moved, stacks, unread, 0).0, expected, "{moved:?} {stacks:?} {unread}");
        };
        check(moved(0, 0), &[], false, Verdict::Idle);
        check(moved(0, 0), &[stack(9)], false, Verdict::Ready);
        check(moved(5000, 0), &[stack(9)], false, Verdict::Ready);
        check(moved(5000, 0), &[stack(9)], true, Verdict::Dark);
        check(moved(500_000, 0), &[stack(9)], false, Verdict::Dark);
        check(moved(5000, 0), &[stack(0)], false, Verdict::Dark);
        check(moved(5000, 0), &[], false, Verdict::Dark);
        check(moved(5000, 100), &[stack(9)], false, Verdict::Seen);
        check(moved(5000, 100), &[stack(9)], true, Verdict::Partly);
        check(Activity { socket_bytes: 1, ..Activity::default() }, &[], false, Verdict::Plain);
        assert_eq!(judge(&moved(5000, 0), &[], false, exclude::ALL).0, Verdict::Excluded);
    }
}
