//! The disk spool: what a store does not take now waits on the disk, in order, until it does.
//!
//! Each store has a log of its own below the spool's folder: segments of records, only ever appended to, and a cursor.
//! What was acknowledged is never read again; what was not is read again by the next agent, so that a store can get twice
//! what it took just before the agent was killed. A process that is killed loses nothing that lies in the spool; a machine
//! that goes down can lose what its kernel had not written yet, which the checksums tell.
//!
//! Limits: bytes and age, of the whole spool. What has no room and what is too old is counted.

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ringtap_batch::ledger::Ledger;
use rustix::fs::{FlockOperation, flock};

pub use held::{Held, Kind};
pub use log::{Log, Lost, Taken};

use crate::{
    config::checked::{self, WhenFull},
    files::{Files, make_folder},
};

mod cursor;
mod held;
mod log;
mod record;
#[cfg(test)]
mod tests;

/// A segment is no larger, so that old ones can be dropped one by one.
const SEGMENT_MAX: u64 = 64 << 20;
/// And no larger than this part of the whole.
const SEGMENTS_MIN: u64 = 8;

/// Why the spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The folder.
    #[error("the spool {} cannot be used: {error}", .folder.display())]
    Folder {
        /// Which.
        folder: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// There is no room, and nothing that may be dropped for it.
    #[error("the spool is full")]
    Full,
    /// The batch is larger than a good part of the spool.
    #[error("a batch is too large for the spool")]
    TooLarge,
    /// The disk fails.
    #[error("the spool's disk fails: {0}")]
    Disk(#[from] io::Error),
    /// A batch cannot be written in the spool's form.
    #[error("a batch cannot be spooled: {0}")]
    Form(#[from] arrow_schema::ArrowError),
}

/// What the logs of a spool share.
#[derive(Debug)]
pub(crate) struct Limits {
    bytes: AtomicU64,
    bytes_max: u64,
    segment_max: u64,
    age_max: Duration,
    drops_oldest: bool,
}

/// A log, for whoever has to do with its store.
pub type SharedLog = Arc<tokio::sync::Mutex<Log>>;

/// The spool of this agent.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    files: Files,
    limits: Arc<Limits>,
    logs: Mutex<BTreeMap<String, Open>>,
    held: Held,
    /// Held as long as we are: another agent must not have the same spool.
    _lock: File,
}

/// A log, and what is told of it while somebody works on it.
#[derive(Debug)]
struct Open {
    log: SharedLog,
    store: String,
    waiting: Arc<AtomicU64>,
}

/// What waits in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Name of the log.
    pub log: String,
    /// Whose it is.
    pub store: String,
    /// Rows that were not acknowledged.
    pub rows: u64,
}

impl Spool {
    /// Opens the spool, makes it if it is not there, and counts what an agent before had in memory when it was killed.
    ///
    /// # Errors
    ///
    /// The folder cannot be made or locked.
    pub fn open(config: &checked::Spool, data_dir: &Path, files: Files, ledger: &Ledger) -> Result<Self, SpoolError> {
        let folder = config.path.clone().unwrap_or_else(|| data_dir.join("spool"));
        let wrong = |error| SpoolError::Folder { folder: folder.clone(), error };
        make_folder(&folder).map_err(wrong)?;
        keep_from_others(&folder).map_err(wrong)?;
        let lock = open_own(&folder.join("lock")).map_err(wrong)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| wrong(io::Error::other("another agent uses it; give this one a `services.spool.path`")))?;
        let held = Held::open(&folder.join("held"), ledger).map_err(wrong)?;
        let limits = Limits {
            bytes: AtomicU64::new(0),
            bytes_max: config.bytes_max,
            segment_max: SEGMENT_MAX.min(config.bytes_max / SEGMENTS_MIN),
            age_max: config.age_max,
            drops_oldest: config.when_full == WhenFull::DropOldest,
        };
        let limits = Arc::new(limits);
        Ok(Self { folder, files, limits, logs: Mutex::default(), held, _lock: lock })
    }

    /// The log of a store, by a name that says what it holds and a text that tells the store from all others.
    ///
    /// # Errors
    ///
    /// What lies there cannot be read.
    pub fn log(&self, kind: &str, store: &str) -> Result<SharedLog, SpoolError> {
        let digest = ringtap_batch::objects::digest(store.as_bytes());
        let name = format!("{kind}-{}", &digest[..16]);
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = logs.get(&name) {
            return Ok(open.log.clone());
        }
        let folder = self.folder.join(&name);
        let wrong = |error| SpoolError::Folder { folder: folder.clone(), error };
        let log = Log::open(folder.clone(), self.files.clone(), self.limits.clone()).map_err(wrong)?;
        // For people: the digest says nothing to them.
        let _ = open_own(&folder.join("store")).and_then(|mut file| {
            file.set_len(0)?;
            io::Write::write_all(&mut file, store.as_bytes())
        });
        let waiting = log.waiting_count();
        let log = Arc::new(tokio::sync::Mutex::new(log));
        logs.insert(name, Open { log: log.clone(), store: store.to_owned(), waiting });
        Ok(log)
    }

    /// Logs of stores that are not in the configuration any more: their names and stores. They stay as they are.
    #[must_use]
    pub fn orphans(&self) -> Vec<(String, String)> {
        let logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        let used: HashSet<&str> = logs.keys().map(String::as_str).collect();
        let found = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let names = found.filter_map(|entry| entry.file_name().into_string().ok());
        let has_segments = |name: &String| log::segment_files(&self.folder.join(name)).is_ok_and(|all| !all.is_empty());
        let orphans = names.filter(|name| !used.contains(name.as_str())).filter(has_segments);
        orphans.map(|name| (name.clone(), store_of(&self.folder.join(name)))).collect()
    }

    /// What is kept in memory, for a count that survives us.
    #[must_use]
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// How long something waits at most.
    #[must_use]
    pub fn age_max(&self) -> Duration {
        self.limits.age_max
    }

    /// Bytes on the disk, and at most.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        (self.limits.bytes.load(Ordering::Relaxed), self.limits.bytes_max)
    }

    /// What waits in each log.
    #[must_use]
    pub fn waiting(&self) -> Vec<Waiting> {
        let logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = |open: &Open| open.waiting.load(Ordering::Relaxed);
        logs.iter()
            .map(|(name, open)| Waiting { log: name.clone(), store: open.store.clone(), rows: rows(open) })
            .collect()
    }
}

/// A folder that was there before could be anybody's to read: what is spooled was captured.
fn keep_from_others(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut permissions = fs::metadata(folder)?.permissions();
    if permissions.mode() & 0o077 != 0 {
        tracing::warn!("others could look into the spool {}; they cannot any more", folder.display());
        permissions.set_mode(0o700);
        fs::set_permissions(folder, permissions)?;
    }
    Ok(())
}

fn store_of(folder: &Path) -> String {
    fs::read_to_string(folder.join("store")).unwrap_or_else(|_| "a store that is not known".to_owned())
}

/// Opens a file of ours for reading and writing, and makes it if it is not there.
fn open_own(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}
