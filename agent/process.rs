//! The process table: who is behind a connection. Filled from kernel events, and from `/proc` where these came too late.

use std::{
    collections::{HashMap, VecDeque},
    fs,
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use ringtap_batch::{
    process::{Process, Processes},
    ring::abi::exclude,
};

use crate::{
    config::checked::{ProcessRules, is_ignored_by_strategy},
    containers::{Containers, Details, cgroup},
    governed::Governed,
    probe::governor::Level,
};

/// How long an ended process is remembered: its last records may still be on their way.
const REMEMBERED: Duration = Duration::from_secs(30);
/// Entries at most; beyond, the table starts anew and is filled from `/proc`.
const ENTRIES_MAX: usize = 65_536;
/// Bytes of an environment that are read.
const ENVIRONMENT_MAX: u64 = 256 << 10;
/// Bytes of a value, and number of tags, that are kept of an environment.
const VALUE_MAX: usize = 1024;
const TAGS_MAX: usize = 32;

/// Processes by id.
pub struct ProcessTable {
    known: RwLock<HashMap<u32, Arc<Process>>>,
    ended: Mutex<VecDeque<(Instant, u32)>>,
    users: Mutex<HashMap<u32, Option<String>>>,
    containers: Containers,
    governed: Governed,
    rules: RwLock<ProcessRules>,
    /// How often the rules have changed.
    changes: AtomicU64,
}

impl ProcessTable {
    /// An empty table. `rules` say what is left alone, and what is to be known.
    #[must_use]
    pub fn new(rules: ProcessRules) -> Self {
        Self {
            known: RwLock::default(),
            ended: Mutex::default(),
            users: Mutex::default(),
            containers: Containers::default(),
            governed: Governed::default(),
            rules: RwLock::new(rules),
            changes: AtomicU64::new(0),
        }
    }

    /// Goes on with other rules, also for the processes that are known.
    pub fn reconfigure(&self, rules: ProcessRules) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
        let known: Vec<Arc<Process>> =
            self.known.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for process in known {
            // One that is gone keeps what was known of it.
            if let Some(now) = self.read(process.tgid) {
                self.insert(process.tgid, Arc::new(now));
            }
        }
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// What is known of containers.
    #[must_use]
    pub fn containers(&self) -> &Containers {
        &self.containers
    }

    /// What the governor has decided.
    #[must_use]
    pub fn governed(&self) -> &Governed {
        &self.governed
    }

    /// Says of all processes of a container, also of those that are gone, what it is.
    pub fn name_container(&self, id: &str, container: &Details) {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for process in known.values_mut().filter(|process| process.detail("container.id") == Some(id)) {
            let mut named = Process::clone(process);
            let is_new = |(name, _): &&(String, String)| process.detail(name).is_none();
            named.details.extend(container.iter().filter(is_new).cloned());
            rules.add_tags(&mut named);
            *process = Arc::new(named);
        }
    }

    /// How often the rules have changed.
    #[must_use]
    pub fn rules_changed(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Takes note that a process runs `program` now; `/proc` knows better as long as the process lives.
    pub fn executed(&self, tgid: u32, program: &str) -> Arc<Process> {
        let process = Arc::new(self.read(tgid).unwrap_or_else(|| self.named(tgid, program.to_owned(), None)));
        self.insert(tgid, process.clone());
        process
    }

    /// Takes note that a process has ended, and forgets those that ended a while ago.
    pub fn exited(&self, tgid: u32) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.push_back((Instant::now(), tgid));
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        while ended.front().is_some_and(|(at, _)| at.elapsed() > REMEMBERED) {
            if let Some((_, old)) = ended.pop_front() {
                // The id may have been given to a new process meanwhile.
                if fs::metadata(format!("/proc/{old}")).is_err() {
                    known.remove(&old);
                }
            }
        }
    }

    fn insert(&self, tgid: u32, process: Arc<Process>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= ENTRIES_MAX {
            known.clear();
        }
        known.insert(tgid, process);
    }

    fn exe(tgid: u32) -> Option<String> {
        let exe = fs::read_link(format!("/proc/{tgid}/exe")).ok()?;
        let exe = exe.to_string_lossy();
        Some(exe.strip_suffix(" (deleted)").unwrap_or(&exe).to_owned())
    }

    fn read(&self, tgid: u32) -> Option<Process> {
        let exe = Self::exe(tgid)?;
        let uid = fs::metadata(format!("/proc/{tgid}")).ok().map(|m| m.uid());
        Some(self.named(tgid, exe, uid))
    }

    fn named(&self, tgid: u32, exe: String, uid: Option<u32>) -> Process {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        let mut excluded = rules.filters.iter().filter(|f| f.matches(&exe)).fold(0, |all, f| all | f.bits);
        let (mut details, mut tags) = (Vec::new(), Vec::new());
        for (name, value) in environment(tgid) {
            match name.as_str() {
                "QPOINT_STRATEGY" => match is_ignored_by_strategy(&value, &exe) {
                    Some(true) => excluded |= exclude::ALL,
                    Some(false) => {}
                    None => tracing::warn!(tgid, exe, value, "QPOINT_STRATEGY of a process is not understood"),
                },
                "QPOINT_TAGS" => tags.extend(parse_tags(&value)),
                name if rules.variables.iter().any(|one| one == name) => {
                    details.push((format!("process.env.{name}"), value));
                }
                _ => {}
            }
        }
        if rules.arguments {
            details.extend(arguments(tgid).map(|arguments| ("process.args".to_owned(), arguments)));
        }
        if rules.cgroup {
            details.extend(cgroup::path_of(tgid).map(|path| ("process.cgroup".to_owned(), path)));
        }
        details.extend(self.containers.of(tgid));
        let mut process = Process { tgid, exe, uid, user: uid.and_then(|uid| self.user(uid)), details, tags, excluded };
        rules.add_tags(&mut process);
        process
    }

    /// Name of a user on this host.
    fn user(&self, uid: u32) -> Option<String> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.entry(uid).or_insert_with(|| user_name(&fs::read_to_string("/etc/passwd").ok()?, uid)).clone()
    }
}

impl Processes for ProcessTable {
    /// What `/proc` says now; the table remembers those that are gone. An entry made by an exec event can be that of the
    /// program before: the events of both ways of the kernel are not in step.
    fn get(&self, tgid: u32) -> Option<Arc<Process>> {
        let exe = Self::exe(tgid);
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).get(&tgid).cloned();
        match (exe, known) {
            (None, known) => known,
            (Some(exe), Some(known)) if known.exe == exe => Some(known),
            (Some(_), _) => {
                let process = Arc::new(self.read(tgid)?);
                self.insert(tgid, process.clone());
                Some(process)
            }
        }
    }

    fn spares_bodies(&self, tgid: u32) -> bool {
        self.governed.level(tgid) != Level::Full
    }
}

/// Processor time that a process has used, to a hundredth of a second; `None`: it is gone.
#[must_use]
pub fn used_time(tgid: u32) -> Option<Duration> {
    let stat = Stat::of(tgid)?;
    Some(stat.ticks(USER_TIME)? + stat.ticks(SYSTEM_TIME)?)
}

/// When a process began, in boot time, to a hundredth of a second.
#[must_use]
pub fn started(tgid: u32) -> Option<Duration> {
    Stat::of(tgid)?.ticks(STARTED)
}

/// Fields of `/proc/<pid>/stat`, counted from behind the name.
const USER_TIME: usize = 11;
const SYSTEM_TIME: usize = 12;
const STARTED: usize = 19;

struct Stat(String);

impl Stat {
    fn of(tgid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{tgid}/stat")).ok()?;
        // The name, in parentheses, can hold anything.
        Some(Self(stat.rsplit_once(')')?.1.to_owned()))
    }

    fn ticks(&self, field: usize) -> Option<Duration> {
        const TICK_MS: u64 = 10;
        let ticks: u64 = self.0.split_whitespace().nth(field)?.parse().ok()?;
        Some(Duration::from_millis(ticks.saturating_mul(TICK_MS)))
    }
}

/// The variables that a process was started with, those whose values are short.
fn environment(tgid: u32) -> Vec<(String, String)> {
    let mut bytes = Vec::new();
    let Ok(file) = fs::File::open(format!("/proc/{tgid}/environ")) else { return Vec::new() };
    // What could be read of it is as good as nothing more.
    let _ = file.take(ENVIRONMENT_MAX).read_to_end(&mut bytes);
    let variables = bytes.split(|byte| *byte == 0).filter_map(|variable| {
        let text = String::from_utf8_lossy(variable);
        let (name, value) = text.split_once('=')?;
        (value.len() <= VALUE_MAX).then(|| (name.to_owned(), value.to_owned()))
    });
    variables.collect()
}

/// The arguments that a process was started with, without the first, with blanks between; cut at the length of a value.
fn arguments(tgid: u32) -> Option<String> {
    let mut bytes = Vec::new();
    let file = fs::File::open(format!("/proc/{tgid}/cmdline")).ok()?;
    // As for the environment.
    let _ = file.take(ENVIRONMENT_MAX).read_to_end(&mut bytes);
    let mut words = bytes.split(|byte| *byte == 0).skip(1).map(String::from_utf8_lossy).collect::<Vec<_>>().join(" ");
    words.truncate(words.trim_end().len().min(words.floor_char_boundary(VALUE_MAX)));
    Some(words)
}

/// Other processes of this program that wait for SIGHUP; any other would end by it.
#[must_use]
pub fn running_agents() -> Vec<u32> {
    const HANGUP: u64 = 1;
    let ids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let waits = |id: &u32| {
        let own = *id == std::process::id();
        let name = fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|name| name.trim() == "ringtap");
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
        !own && name && caught & HANGUP != 0
    };
    ids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(waits).collect()
}

/// `key:value` pairs with commas between; an equals sign does as well as a colon.
#[must_use]
pub fn parse_tags(text: &str) -> Vec<String> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once([':', '=']));
    let tags = pairs.map(|(key, value)| format!("{}:{}", key.trim(), value.trim()));
    tags.filter(|tag| !tag.starts_with(':')).take(TAGS_MAX).collect()
}

fn user_name(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_is_known() {
        let table = ProcessTable::new(ProcessRules::default());
        let own = table.get(std::process::id()).expect("it runs");
        assert_eq!(own.exe, std::env::current_exe().expect("it has a path").to_string_lossy());
        assert!(own.uid.is_some());
        assert_eq!(table.get(u32::MAX), None);
    }

    #[test]
    fn old_processes_have_used_much() {
        let stat = Stat(format!(" S 1{} {} 7", " 0".repeat(9), u64::from(u32::MAX) + 1));
        assert_eq!(stat.ticks(USER_TIME), Some(Duration::from_millis((u64::from(u32::MAX) + 1) * 10)));
        assert_eq!(Stat(String::new()).ticks(USER_TIME), None);
    }

    #[test]
    fn our_own_times_are_known() {
        let own = std::process::id();
        let started = started(own).expect("it runs");
        assert!(started > Duration::ZERO && started.as_nanos() <= u128::from(crate::live::boot_ns()));
        assert!(used_time(own).is_some_and(|used| used < Duration::from_hours(1)));
        assert_eq!(used_time(u32::MAX), None);
    }

    #[test]
    fn a_process_that_is_gone_keeps_the_name_it_was_started_by() {
        let table = ProcessTable::new(ProcessRules::default());
        table.executed(u32::MAX, "/bin/short-lived");
        assert_eq!(table.get(u32::MAX).expect("remembered").binary(), "short-lived");
    }

    #[test]
    fn a_container_names_all_its_processes() {
        let table = ProcessTable::new(ProcessRules {
            tags: vec![("team".to_owned(), "container.labels.team".to_owned())],
            ..ProcessRules::default()
        });
        for (tgid, id) in [(7, "aaaaaaaaaaaa"), (8, "bbbbbbbbbbbb")] {
            let details = vec![("container.id".to_owned(), id.to_owned())];
            table.insert(tgid, Arc::new(Process { tgid, details, ..Process::default() }));
        }
        let details = [("container.name", "web"), ("container.labels.team", "blue")];
        let details: Details = details.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        table.name_container("aaaaaaaaaaaa", &details);
        table.name_container("aaaaaaaaaaaa", &details);
        let known = table.known.read().expect("whole");
        assert_eq!((known[&7].details.len(), known[&7].tags.as_slice()), (3, &["team:blue".to_owned()][..]));
        assert_eq!(known[&8].details.len(), 1);
    }

    #[test]
    fn tags_are_pairs() {
        assert_eq!(parse_tags("team:web, env=prod,,:x,none"), ["team:web", "env:prod"]);
    }

    #[test]
    fn a_process_says_how_it_wants_to_be_treated() {
        let ignored = |value| is_ignored_by_strategy(value, "/usr/bin/curl");
        assert_eq!(ignored("ignore"), Some(true));
        assert_eq!(ignored("observe"), Some(false));
        assert_eq!(ignored("ignore,exe.suffix:/curl"), Some(true));
        assert_eq!(ignored("ignore,exe.exact:/usr/bin/wget,exe.regex:^/bin"), Some(false));
        assert_eq!(ignored("forward,"), Some(false));
        assert_eq!((ignored("hide"), ignored("ignore,exe.like:x")), (None, None));
    }

    #[test]
    fn users_have_names() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:33::/:/bin/false\n";
        assert_eq!(user_name(passwd, 33).as_deref(), Some("web"));
        assert_eq!(user_name(passwd, 34), None);
    }
}
