//! The process table: who is behind a connection. Filled from kernel events, and from `/proc` where these came too late.

use std::{
    collections::{HashMap, VecDeque},
    fs,
    os::unix::fs::MetadataExt as _,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use ringtap_batch::process::{Process, Processes};

use crate::config::checked::ProcessFilter;

/// How long an ended process is remembered: its last records may still be on their way.
const REMEMBERED: Duration = Duration::from_secs(30);
/// Entries at most; beyond, the table starts anew and is filled from `/proc`.
const ENTRIES_MAX: usize = 65_536;

/// Processes by id.
pub struct ProcessTable {
    known: RwLock<HashMap<u32, Arc<Process>>>,
    ended: Mutex<VecDeque<(Instant, u32)>>,
    users: Mutex<HashMap<u32, Option<String>>>,
    filters: Vec<ProcessFilter>,
}

impl ProcessTable {
    /// An empty table. `filters` say what is left alone.
    #[must_use]
    pub fn new(filters: Vec<ProcessFilter>) -> Self {
        Self { known: RwLock::default(), ended: Mutex::default(), users: Mutex::default(), filters }
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
        let excluded = self.filters.iter().filter(|f| f.matches(&exe)).fold(0, |all, f| all | f.bits);
        Process { tgid, exe, uid, user: uid.and_then(|uid| self.user(uid)), excluded }
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
        let table = ProcessTable::new(Vec::new());
        let own = table.get(std::process::id()).expect("it runs");
        assert_eq!(own.exe, std::env::current_exe().expect("it has a path").to_string_lossy());
        assert!(own.uid.is_some());
        assert_eq!(table.get(u32::MAX), None);
    }

    #[test]
    fn a_process_that_is_gone_keeps_the_name_it_was_started_by() {
        let table = ProcessTable::new(Vec::new());
        table.executed(u32::MAX, "/bin/short-lived");
        assert_eq!(table.get(u32::MAX).expect("remembered").binary(), "short-lived");
    }

    #[test]
    fn users_have_names() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:33::/:/bin/false\n";
        assert_eq!(user_name(passwd, 33).as_deref(), Some("web"));
        assert_eq!(user_name(passwd, 34), None);
    }
}
