//! The thread that writes rollups: sorts rows into hours, closes files by size, age and hour, and puts them in their place.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::FileExt as _,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use arrow_array::{BooleanArray, RecordBatch, cast::AsArray, types::TimestampMicrosecondType};
use arrow_select::{concat::concat_batches, filter::filter_record_batch};
use jiff::Timestamp;
use parquet::errors::ParquetError;
use ringtap_batch::rollups::SCHEMA;

use super::{
    Message, Rows, Shared, WAITING_BYTES,
    file::{ROW_GROUP_ROWS, RollupFile},
    folder::{Folder, Hour, Place, commit, create, hour_of},
    send::{Finished, Sender},
};
use crate::config::checked;

/// How often files are looked at for their age, and the note is written.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often what is too old is looked for.
const RETAIN_EVERY: Duration = Duration::from_mins(10);
/// After the end of an hour, and after its last rows, more have so long to arrive.
const HOUR_GRACE: Duration = Duration::from_secs(10);
/// Hours that are written at a time; a recording can jump.
const HOURS_MAX: usize = 4;
/// Small batches are joined when there are so many rows of them, or so many batches.
const JOINED_ROWS: usize = 8192;
const JOINED_BATCHES: usize = 256;
/// Rows of a file wait for no row group beyond so many bytes.
const GROUP_BYTES: usize = WAITING_BYTES / 4;
/// A write that fails is tried again after these pauses: a disk that is full may be cleared.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_millis(400), Duration::from_secs(1), Duration::from_secs(3)];

/// The thread's state.
pub(super) struct Writer {
    folder: Folder,
    shared: Arc<Shared>,
    settings: Settings,
    hours: BTreeMap<Hour, Open>,
    sender: Option<Sender>,
    retained: Option<Instant>,
    failing: bool,
}

struct Settings {
    host: String,
    max_bytes: u64,
    max_age: Duration,
    compression_level: i32,
    retention: Option<Duration>,
}

/// The file of an hour, and the rows that are not in it yet.
struct Open {
    place: Place,
    file: RollupFile<Steady>,
    small: Vec<Rows>,
    large: Vec<Rows>,
    begun: Instant,
    /// When its last rows came.
    touched: Instant,
}

impl Writer {
    pub(super) fn new(config: &checked::Rollups, folder: Folder, host: &str, shared: Arc<Shared>) -> io::Result<Self> {
        let sender = match &config.store {
            Some(store) => Some(Sender::start(config, store.clone(), &folder, &shared)?),
            None => None,
        };
        let settings = Settings {
            host: host.to_owned(),
            max_bytes: config.max_bytes,
            max_age: config.max_age,
            compression_level: config.compression_level,
            retention: config.retention,
        };
        Ok(Self { folder, shared, settings, hours: BTreeMap::new(), sender, retained: None, failing: false })
    }

    /// Writes until it is told to finish.
    pub(super) fn run(mut self, messages: &Receiver<Message>) {
        let mut looked = Instant::now();
        self.retain();
        loop {
            match messages.recv_timeout(LOOK_EVERY) {
                Ok(Message::Rows(rows)) => self.take(rows),
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Message::Finish) | Err(RecvTimeoutError::Disconnected) => break,
            }
            if looked.elapsed() >= LOOK_EVERY {
                looked = Instant::now();
                self.look();
            }
        }
        // What was handed over before the end, by whoever was in the midst of it.
        while let Ok(Message::Rows(rows)) = messages.try_recv() {
            self.take(rows);
        }
        for hour in self.hours.keys().copied().collect::<Vec<_>>() {
            self.close(hour);
        }
        if let Some(sender) = self.sender.take() {
            sender.finish();
        }
        self.folder.close();
    }

    /// Sorts rows into their hours; mostly all are of one.
    fn take(&mut self, rows: Rows) {
        let times = rows.batch.column(0).as_primitive::<TimestampMicrosecondType>().values().clone();
        let mut hours: Vec<Hour> = times.iter().map(|time| hour_of(*time)).collect();
        hours.dedup();
        hours.sort_unstable();
        hours.dedup();
        for hour in &hours {
            let own: BooleanArray = times.iter().map(|time| Some(hour_of(*time) == *hour)).collect();
            let Some(first) = own.values().set_indices().next() else { continue };
            if hours.len() == 1 {
                return self.add(*hour, times[first], rows);
            }
            match filter_record_batch(&rows.batch, &own) {
                Ok(part) => self.add(*hour, times[first], rows.beside(part)),
                Err(error) => self.lose(own.true_count() as u64, &error.to_string()),
            }
        }
    }

    fn add(&mut self, hour: Hour, time_us: i64, rows: Rows) {
        if !self.hours.contains_key(&hour) {
            while self.hours.len() >= HOURS_MAX {
                let oldest = *self.hours.keys().next().expect("there are some");
                self.close(oldest);
            }
            match self.begin(hour, time_us) {
                Ok(open) => {
                    self.hours.insert(hour, open);
                }
                Err(error) => return self.lose(rows.batch.num_rows() as u64, &error.to_string()),
            }
        }
        let Some(open) = self.hours.get_mut(&hour) else { return };
        open.add(rows);
        if open.rows() >= ROW_GROUP_ROWS || open.waiting() >= GROUP_BYTES {
            self.write(hour);
        }
        while self.hours.values().map(Open::waiting).sum::<usize>() > WAITING_BYTES * 3 / 8 {
            let largest = self.hours.iter().max_by_key(|(_, open)| open.waiting()).map(|(hour, _)| *hour);
            self.write(largest.expect("something waits"));
        }
    }

    fn begin(&mut self, hour: Hour, time_us: i64) -> Result<Open, ParquetError> {
        let place = self.folder.next(hour, time_us)?;
        let file = Steady { file: create(&place.temporary)?, at: 0, shared: self.shared.clone() };
        let file = RollupFile::begin(file, &self.settings.host, self.settings.compression_level)?;
        Ok(Open { place, file, small: Vec::new(), large: Vec::new(), begun: Instant::now(), touched: Instant::now() })
    }

    /// Writes what waits of an hour as a row group.
    fn write(&mut self, hour: Hour) {
        let Some(open) = self.hours.get_mut(&hour) else { return };
        match open.write() {
            Err(error) => self.abandon(hour, &error.to_string()),
            Ok(()) if open.file.bytes() >= self.settings.max_bytes => self.close(hour),
            Ok(()) => {}
        }
    }

    /// Closes files that are old enough, and says how it stands.
    fn look(&mut self) {
        let now = Timestamp::now().as_microsecond() - i64::try_from(HOUR_GRACE.as_micros()).unwrap_or(0);
        let is_over = |hour: Hour, open: &Open| {
            open.begun.elapsed() >= self.settings.max_age
                || (hour < hour_of(now) && open.touched.elapsed() >= HOUR_GRACE)
        };
        let over: Vec<Hour> = self.hours.iter().filter(|(hour, open)| is_over(**hour, open)).map(|(h, _)| *h).collect();
        for hour in over {
            self.close(hour);
        }
        self.folder.note(self.shared.open().saturating_sub(self.sender.as_ref().map_or(0, Sender::rows)));
        if self.retained.is_some_and(|at| at.elapsed() >= RETAIN_EVERY) {
            self.retain();
        }
    }

    fn retain(&mut self) {
        self.retained = Some(Instant::now());
        if let Some(Err(error)) = self.settings.retention.map(|age| self.folder.retain(age, Timestamp::now())) {
            tracing::warn!(%error, "old rollups cannot be deleted");
        }
    }

    /// Puts the file of an hour in its place.
    fn close(&mut self, hour: Hour) {
        let Some(open) = self.hours.get_mut(&hour) else { return };
        if let Err(error) = open.write() {
            return self.abandon(hour, &error.to_string());
        }
        let Some(open) = self.hours.remove(&hour) else { return };
        let (place, rows) = (open.place, open.file.rows());
        let done = open.file.finish().and_then(|to| {
            commit(&to.file, &place)?;
            Ok(to.at)
        });
        match done {
            Ok(bytes) => {
                if self.failing {
                    tracing::info!("rollups are written again");
                }
                self.failing = false;
                match &self.sender {
                    Some(sender) => {
                        let key = self.folder.below(&place.path).to_string_lossy().into_owned();
                        sender.send(Finished { path: place.path, key, rows, bytes });
                    }
                    None => self.shared.committed(rows, bytes),
                }
            }
            Err(error) => {
                let _ = fs::remove_file(&place.temporary);
                self.lose(rows, &error.to_string());
            }
        }
    }

    /// Gives up on the file of an hour; what it has taken of the disk is free again.
    fn abandon(&mut self, hour: Hour, error: &str) {
        let Some(open) = self.hours.remove(&hour) else { return };
        let rows = open.file.rows() + open.rows() as u64;
        let _ = fs::remove_file(&open.place.temporary);
        self.lose(rows, error);
    }

    fn lose(&mut self, rows: u64, error: &str) {
        if !self.failing {
            tracing::error!(error, rows, "rollups are lost and counted until they can be written again");
        }
        self.failing = true;
        self.shared.settle(rows, |ledger| &ledger.rollup_rows_failed);
    }
}

impl Open {
    fn add(&mut self, rows: Rows) {
        self.touched = Instant::now();
        if rows.batch.num_rows() >= JOINED_ROWS {
            return self.large.push(rows);
        }
        self.small.push(rows);
        let small: usize = self.small.iter().map(|rows| rows.batch.num_rows()).sum();
        if small >= JOINED_ROWS || self.small.len() >= JOINED_BATCHES {
            self.join();
        }
    }

    /// Many small batches become one: they would take several times the room.
    fn join(&mut self) {
        if let Ok(joined) = concat_batches(&SCHEMA, self.small.iter().map(|rows| &rows.batch))
            && let Some(first) = self.small.pop()
        {
            self.large.push(first.beside(joined));
            self.small.clear();
        }
    }

    /// Rows that wait.
    fn rows(&self) -> usize {
        self.small.iter().chain(&self.large).map(|rows| rows.batch.num_rows()).sum()
    }

    /// Bytes that they take.
    fn waiting(&self) -> usize {
        self.small.iter().chain(&self.large).map(|rows| rows.bytes).sum()
    }

    /// Writes all that waits as a row group. What could not be written waits on.
    fn write(&mut self) -> Result<(), ParquetError> {
        self.join();
        let batches: Vec<RecordBatch> = self.large.iter().map(|rows| rows.batch.clone()).collect();
        if !batches.is_empty() {
            self.file.write(&batches)?;
        }
        self.large.clear();
        Ok(())
    }
}

/// A file whose writes are tried again before they fail.
struct Steady {
    file: File,
    at: u64,
    shared: Arc<Shared>,
}

impl Write for Steady {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut pauses = PAUSES.iter();
        // At its place: what an attempt has written in part the next one writes again.
        while let Err(error) = self.file.write_all_at(bytes, self.at) {
            match pauses.next().filter(|_| !self.shared.hurry.load(Ordering::Relaxed)) {
                Some(pause) => std::thread::sleep(*pause),
                None => return Err(error),
            }
        }
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
