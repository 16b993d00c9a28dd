//! The thread that brings whole files to an object store, in their order, and keeps them until it takes them.

use std::{
    collections::{BTreeSet, VecDeque},
    fs::{self, File},
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use parquet::file::reader::{FileReader as _, SerializedFileReader};
use tokio::runtime::Handle;

use super::{Shared, folder::Folder};
use crate::{
    config::checked::{self, S3},
    sink::{SinkError, s3::S3Store},
};

const CONTENT_TYPE: &str = "application/vnd.apache.parquet";
/// Pauses between attempts; the last one for as long as it takes.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(400),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
];
/// How often it is looked whether there is more to do.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What earlier runs have left and somebody has taken over: a reload must not take it over again.
static ADOPTED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// A whole file on its way to the store.
pub(super) struct Finished {
    pub(super) path: PathBuf,
    /// Below the prefix.
    pub(super) key: String,
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

/// The end at which files are handed over.
pub(super) struct Sender {
    files: mpsc::Sender<Finished>,
    thread: JoinHandle<()>,
    /// Rows in files that wait: they survive the agent.
    rows: Arc<AtomicU64>,
}

struct Task {
    runtime: Handle,
    store: S3Store,
    prefix: String,
    max_waiting: u64,
    shared: Arc<Shared>,
    rows: Arc<AtomicU64>,
    waiting: VecDeque<Finished>,
    /// Attempts on the first that waits, and when the next one is due.
    attempts: usize,
    due: Instant,
}

impl Sender {
    /// Starts the thread; what earlier runs have left goes first.
    pub(super) fn start(
        config: &checked::Rollups,
        store: S3,
        folder: &Folder,
        shared: &Arc<Shared>,
    ) -> io::Result<Self> {
        let (files, queue) = mpsc::channel();
        let rows = Arc::new(AtomicU64::new(0));
        let task = Task {
            runtime: Handle::current(),
            store: S3Store::new(store, shared.ledger.clone()).map_err(io::Error::other)?,
            prefix: config.prefix.clone(),
            max_waiting: config.max_waiting,
            shared: shared.clone(),
            rows: rows.clone(),
            waiting: VecDeque::new(),
            attempts: 0,
            due: Instant::now(),
        };
        let thread = std::thread::Builder::new().name("rollups-send".into()).spawn(move || task.run(&queue))?;
        let sender = Self { files, thread, rows };
        let mut adopted = ADOPTED.lock().unwrap_or_else(PoisonError::into_inner);
        for path in folder.orphans()?.into_iter().filter(|path| adopted.insert(path.clone())) {
            sender.adopt(path, folder, shared);
        }
        Ok(sender)
    }

    fn adopt(&self, path: PathBuf, folder: &Folder, shared: &Shared) {
        let read = File::open(&path).map_err(|error| error.to_string()).and_then(|file| {
            let bytes = file.metadata().map_or(0, |metadata| metadata.len());
            let reader = SerializedFileReader::new(file).map_err(|error| error.to_string())?;
            Ok((u64::try_from(reader.metadata().file_metadata().num_rows()).unwrap_or(0), bytes))
        });
        match read {
            Ok((rows, bytes)) => {
                shared.take(rows);
                let key = folder.below(&path).to_string_lossy().into_owned();
                self.send(Finished { path, key, rows, bytes });
            }
            Err(error) => tracing::warn!(error, "{} is no rollup, and stays where it is", path.display()),
        }
    }

    /// Hands a file over.
    pub(super) fn send(&self, file: Finished) {
        self.rows.fetch_add(file.rows, Ordering::Relaxed);
        // The thread is gone only if it has crashed; the file stays, and goes with the next start.
        let _ = self.files.send(file);
    }

    /// Rows in files that wait.
    pub(super) fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Waits until the store has taken everything, or does not answer.
    pub(super) fn finish(self) {
        drop(self.files);
        if self.thread.join().is_err() {
            tracing::error!("the thread that sends rollups has crashed; its files stay on disk");
        }
    }
}

impl Task {
    fn run(mut self, queue: &Receiver<Finished>) {
        let mut more = true;
        while more || !self.waiting.is_empty() {
            match queue.recv_timeout(LOOK_EVERY) {
                Ok(file) => self.take(file),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    more = false;
                    std::thread::sleep(if self.is_due() { Duration::ZERO } else { LOOK_EVERY });
                }
            }
            while let Ok(file) = queue.try_recv() {
                self.take(file);
            }
            while self.is_due() && self.send_first() {}
            let hurry = self.shared.hurry.load(Ordering::Relaxed);
            if !more && (hurry || self.attempts >= PAUSES.len()) {
                return self.keep();
            }
        }
    }

    fn take(&mut self, file: Finished) {
        self.waiting.push_back(file);
        let bytes = |waiting: &VecDeque<Finished>| waiting.iter().map(|file| file.bytes).sum::<u64>();
        while bytes(&self.waiting) > self.max_waiting {
            let Some(oldest) = self.waiting.pop_front() else { return };
            tracing::error!(rows = oldest.rows, "the oldest rollup is lost: more wait for the object store than may");
            let _ = fs::remove_file(&oldest.path);
            self.settled(&oldest);
            self.shared.settle(oldest.rows, |ledger| &ledger.rollup_rows_failed);
        }
    }

    fn is_due(&self) -> bool {
        !self.waiting.is_empty() && self.due <= Instant::now()
    }

    /// Whether the first file was taken, or is of no use.
    fn send_first(&mut self) -> bool {
        let Some(file) = self.waiting.front() else { return false };
        let key = [self.prefix.as_str(), &file.key].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>();
        if !file.path.exists() {
            return self.give_up("it is not there any more");
        }
        let shared = self.shared.clone();
        let hurried = async {
            while !shared.hurry.load(Ordering::Relaxed) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let key = key.join("/");
        let put = self.store.put_file(&key, CONTENT_TYPE, &file.path);
        let result = self.runtime.block_on(async {
            tokio::select! {
                result = put => result,
                () = hurried => Err(SinkError::unavailable("s3", "the agent stops".to_owned())),
            }
        });
        match result {
            Ok(()) => {
                let Some(file) = self.waiting.pop_front() else { return false };
                if self.attempts > 0 {
                    tracing::info!("rollups are stored again");
                }
                self.attempts = 0;
                let _ = fs::remove_file(&file.path);
                remove_empty(&file.path);
                self.settled(&file);
                self.shared.committed(file.rows, file.bytes);
                true
            }
            Err(SinkError::Refused { reason, .. }) => self.give_up(&reason),
            Err(error) => {
                self.failed(&error);
                false
            }
        }
    }

    /// The first file cannot be stored, whatever is done; the others can.
    fn give_up(&mut self, reason: &str) -> bool {
        let Some(file) = self.waiting.pop_front() else { return false };
        tracing::error!(
            rows = file.rows,
            reason,
            "{} is lost: the object store will never take it",
            file.path.display()
        );
        self.settled(&file);
        self.shared.settle(file.rows, |ledger| &ledger.rollup_rows_failed);
        true
    }

    fn failed(&mut self, error: &SinkError) {
        if self.attempts == 0 {
            tracing::error!(%error, "rollups wait on disk until the object store takes them");
        }
        self.due = Instant::now() + PAUSES[self.attempts.min(PAUSES.len() - 1)];
        self.attempts += 1;
    }

    /// Leaves what waits on disk for the next start.
    fn keep(mut self) {
        while let Some(file) = self.waiting.pop_front() {
            self.shared.settle(file.rows, |ledger| &ledger.rollup_rows_kept);
        }
    }

    fn settled(&self, file: &Finished) {
        self.rows.fetch_sub(file.rows, Ordering::Relaxed);
    }
}

/// Folders of hours that are over go with their last file.
fn remove_empty(file: &std::path::Path) {
    // Host, hour, day: each stays as long as something is in it.
    for folder in file.ancestors().skip(1).take(3) {
        if fs::remove_dir(folder).is_err() {
            return;
        }
    }
}
