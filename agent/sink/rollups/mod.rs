//! Rollups: transactions as rows in Parquet files, on disk or in an object store.
//!
//! ```text
//! stacks ─rows→ queue, bounded in bytes ─→ thread `rollups`: an open file an hour ─→ rename ─→ thread `rollups-send` ─→ S3
//! ```
//!
//! - Whoever captures hands over and goes on: a full queue is a counted loss, as everywhere.
//! - A file appears under its name when it is whole and on disk, never before. Names are never used twice, so agents that
//!   write into one folder or bucket know nothing of each other.
//! - `seen = written + failed + queue_full + shutdown + kept + killed`, in rows.

mod file;
mod folder;
mod send;
mod texts;
mod writer;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use arrow_array::RecordBatch;
use ringtap_batch::{
    budget::Memory,
    ledger::{Count, Ledger},
};
use tokio::sync::oneshot;

pub use self::file::{ROW_GROUP_ROWS, RollupFile};
use self::{folder::Folder, writer::Writer};
use super::{Patience, SinkError};
use crate::config::checked::{self, Route, Stores};

/// Bytes of rows that may wait to be written.
const WAITING_BYTES: usize = 256 << 20;
/// How long whoever waits for room sleeps between two looks.
const FULL_PAUSE: Duration = Duration::from_millis(1);
/// Past the deadline the sender gets this long to say what it keeps.
const LAST_WORD: Duration = Duration::from_millis(200);

/// What goes to the writer.
enum Message {
    Rows(Rows),
    Finish,
}

/// Rows on their way, and the room that they take until they are written.
struct Rows {
    batch: RecordBatch,
    bytes: usize,
    shared: Arc<Shared>,
}

impl Rows {
    /// Other rows that take room as well.
    fn beside(&self, batch: RecordBatch) -> Self {
        let bytes = batch.get_array_memory_size();
        self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.shared.memory.changed(0, bytes);
        Self { batch, bytes, shared: self.shared.clone() }
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        self.shared.leave(self.bytes);
    }
}

/// What the threads and those who hand over have in common.
struct Shared {
    bytes: AtomicUsize,
    patience: Patience,
    memory: Arc<Memory>,
    ledger: Arc<Ledger>,
    tally: Mutex<Tally>,
    /// Nobody waits any longer.
    hurry: AtomicBool,
}

/// Rows that were taken and of which nothing is settled yet.
#[derive(Default)]
struct Tally {
    open: u64,
    closed: bool,
}

impl Shared {
    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes rows on.
    fn take(&self, rows: u64) {
        self.ledger.rollup_rows_seen.add(rows);
        self.tally().open += rows;
    }

    /// Says what became of rows; what the shutdown has counted already it does not count again.
    fn settle(&self, rows: u64, count: fn(&Ledger) -> &Count) {
        let mut tally = self.tally();
        let settled = rows.min(tally.open);
        if !tally.closed {
            tally.open -= settled;
            count(&self.ledger).add(settled);
        }
    }

    /// Rows that are not written yet.
    fn open(&self) -> u64 {
        self.tally().open
    }

    /// Counts what is open as lost in the shutdown, once.
    fn close(&self) {
        let mut tally = self.tally();
        if !tally.closed {
            self.ledger.rollup_rows_shutdown.add(tally.open);
            *tally = Tally { open: 0, closed: true };
        }
    }

    /// A file is where readers find it.
    fn committed(&self, rows: u64, bytes: u64) {
        self.settle(rows, |ledger| &ledger.rollup_rows_written);
        self.ledger.rollup_files.add(1);
        self.ledger.rollup_bytes.add(bytes);
    }

    fn leave(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.memory.changed(bytes, 0);
    }

    /// Makes room; false: there is none, and nobody waits for it.
    fn enter(&self, bytes: usize) -> bool {
        let waiting = || self.bytes.load(Ordering::Relaxed);
        if self.patience == Patience::UntilRoom {
            // The writer holds on to less than half: there will be room, also for what is larger than that.
            while waiting() + bytes.min(WAITING_BYTES / 2) > WAITING_BYTES {
                std::thread::sleep(FULL_PAUSE);
            }
            self.memory.changed(0, bytes);
        } else if waiting() + bytes > WAITING_BYTES || !self.memory.take(bytes) {
            return false;
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        true
    }
}

/// The end at which rows are handed over.
#[derive(Clone)]
pub struct Rollup {
    sender: mpsc::Sender<Message>,
    shared: Arc<Shared>,
    headers: bool,
    urls: Arc<[Option<Arc<str>>]>,
}

impl Rollup {
    /// Whether rows have header fields.
    #[must_use]
    pub fn keeps_headers(&self) -> bool {
        self.headers
    }

    /// Where a store's objects lie, with `{{DIGEST}}` in it.
    #[must_use]
    pub fn object_url(&self, route: Route) -> Option<Arc<str>> {
        self.urls.get(route?)?.clone()
    }

    /// Hands rows over. A full queue is a counted loss, or makes whoever has patience wait.
    pub fn offer(&self, batch: RecordBatch) {
        let rows = batch.num_rows() as u64;
        let bytes = batch.get_array_memory_size();
        if !self.shared.enter(bytes) {
            self.shared.ledger.rollup_rows_seen.add(rows);
            self.shared.ledger.rollup_rows_queue_full.add(rows);
            return;
        }
        self.shared.take(rows);
        let rows_on_their_way = Rows { batch, bytes, shared: self.shared.clone() };
        if self.sender.send(Message::Rows(rows_on_their_way)).is_err() {
            self.shared.settle(rows, |ledger| &ledger.rollup_rows_shutdown);
        }
    }
}

/// The rollups of a configuration, and the threads that write them.
pub struct Rollups {
    /// Where rows are handed over; `None`: no rollups are configured.
    pub to: Option<Rollup>,
    ended: Option<oneshot::Receiver<()>>,
}

impl Rollups {
    /// Opens the folder and starts the threads. Must be called inside of a runtime.
    ///
    /// # Errors
    ///
    /// The folder cannot be made or read.
    pub fn start(
        config: Option<&checked::Rollups>,
        stores: &Stores,
        host: &str,
        (ledger, memory): (&Arc<Ledger>, &Arc<Memory>),
        patience: Patience,
    ) -> Result<Self, SinkError> {
        let Some(config) = config else { return Ok(Self { to: None, ended: None }) };
        let shared = Arc::new(Shared {
            bytes: AtomicUsize::new(0),
            patience,
            memory: memory.clone(),
            ledger: ledger.clone(),
            tally: Mutex::default(),
            hurry: AtomicBool::new(false),
        });
        let failed = |error: std::io::Error| SinkError::SetUp {
            store: "rollups",
            reason: format!("{}: {error}", config.path.display()),
        };
        let (folder, killed) = Folder::open(&config.path, host).map_err(failed)?;
        if killed > 0 {
            tracing::warn!(rows = killed, "an earlier run was killed; the rows that it had not written are lost");
            ledger.rollup_rows_seen.add(killed);
            ledger.rollup_rows_killed.add(killed);
        }
        let (sender, messages) = mpsc::channel();
        let (done, ended) = oneshot::channel();
        let writer = Writer::new(config, folder, host, shared.clone()).map_err(failed)?;
        std::thread::Builder::new().name("rollups".into()).spawn(move || {
            writer.run(&messages);
            // Nobody may wait for it any more.
            let _ = done.send(());
        })?;
        let urls = stores.objects.iter().map(|(store, _)| store.url_template().map(Arc::from)).collect();
        let to = Rollup { sender, shared, headers: config.headers, urls };
        Ok(Self { to: Some(to), ended: Some(ended) })
    }

    /// Waits until every row is in a file, and every file in its place, at most until the deadline; what is left then is
    /// counted.
    pub async fn drain(self, deadline: Duration) {
        let (Some(to), Some(mut ended)) = (self.to, self.ended) else { return };
        let shared = to.shared.clone();
        // The thread is gone only if it has crashed.
        let _ = to.sender.send(Message::Finish);
        drop(to);
        if tokio::time::timeout(deadline, &mut ended).await.is_err() {
            shared.hurry.store(true, Ordering::Relaxed);
            if tokio::time::timeout(LAST_WORD, ended).await.is_err() {
                tracing::warn!("rollups were not written in time; what is left is counted as lost");
            }
        }
        shared.close();
    }
}
