//! The log of one store: appended to at one end, read and acknowledged at the other.

use std::{
    collections::{BTreeMap, VecDeque},
    fs, io,
    ops::Range,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use arrow_array::RecordBatch;

use super::{
    Limits, SpoolError, cursor,
    record::{self, HEAD, Head},
};
use crate::files::{Files, make_folder};

/// Reads in vain after which the rest of a segment is given up.
const FAILURES: u32 = 5;

/// Rows that were lost in the spool, by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost {
    /// Dropped for newer ones, since the spool was full.
    pub dropped: u64,
    /// Older than they may be.
    pub expired: u64,
    /// Not readable.
    pub corrupt: u64,
}

/// Where lost rows are counted.
type Cause = fn(&mut Lost) -> &mut u64;
const CORRUPT: Cause = |lost| &mut lost.corrupt;

/// A record that was read and is to be acknowledged, or given back.
#[derive(Debug)]
pub struct Taken {
    /// What was spooled.
    pub batch: RecordBatch,
    /// By which it is acknowledged or given back.
    pub ticket: u64,
}

/// Of the file, and of the rows in it.
#[derive(Debug)]
struct Segment {
    rows: Range<u64>,
    bytes: u64,
}

/// Where a record begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    segment: u64,
    at: u64,
    row: u64,
}

#[derive(Debug, Clone, Copy)]
struct Flight {
    end: u64,
    place: Place,
}

/// Appends, reads and acknowledges batches. One at a time uses it.
#[derive(Debug)]
pub struct Log {
    folder: PathBuf,
    files: Files,
    limits: Arc<Limits>,
    segments: VecDeque<Segment>,
    /// Where the next record is read.
    read: Option<Place>,
    /// Number of the next row that is appended.
    end: u64,
    /// Every row below was acknowledged or lost.
    done: u64,
    /// Rows above that, too: where they begin, and where they end.
    done_apart: BTreeMap<u64, u64>,
    /// Read, and not acknowledged yet, by their first row.
    flying: BTreeMap<u64, Flight>,
    /// Given back: to be read before everything else.
    returned: BTreeMap<u64, Flight>,
    slots_written: u64,
    lost: Lost,
    /// Reads in vain since the last one that was not.
    failures: u32,
    /// Rows that wait, for whoever asks while somebody works on the log.
    told: Arc<AtomicU64>,
}

/// Files of a log's segments with the rows that they begin with, in order.
///
/// # Errors
///
/// The folder cannot be read.
pub fn segment_files(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let digits = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".seg"));
        let first = digits.filter(|digits| digits.len() == 20).and_then(|digits| digits.parse().ok());
        all.extend(first.map(|first| (first, path)));
    }
    all.sort_unstable();
    Ok(all)
}

impl Log {
    /// Opens what lies in the folder. A record that was torn by the end of its writer is cut off: it was never counted as
    /// spooled.
    ///
    /// # Errors
    ///
    /// The folder cannot be made or read.
    pub(super) fn open(folder: PathBuf, files: Files, limits: Arc<Limits>) -> io::Result<Self> {
        make_folder(&folder)?;
        let done = cursor::read(&folder.join("cursor"));
        let mut log = Self {
            folder,
            files,
            limits,
            segments: VecDeque::new(),
            read: None,
            end: done,
            done,
            done_apart: BTreeMap::new(),
            flying: BTreeMap::new(),
            returned: BTreeMap::new(),
            slots_written: 0,
            lost: Lost::default(),
            failures: 0,
            told: Arc::default(),
        };
        let found = segment_files(&log.folder)?;
        // Without its cursor a log begins where its files do.
        log.done = found.first().map_or(done, |(first, _)| done.max(*first));
        for (at, (first, path)) in found.iter().enumerate() {
            let next = found.get(at + 1).map(|(first, _)| *first);
            log.find(*first, path, next)?;
        }
        log.end = log.segments.back().map_or(done, |last| last.rows.end).max(log.done);
        let dropped = |segment: &&Segment| segment.bytes == 0 && !segment.rows.is_empty();
        let dropped: Vec<_> = log.segments.iter().filter(dropped).map(|segment| segment.rows.clone()).collect();
        dropped.into_iter().for_each(|rows| log.set_done(rows));
        log.drop_done();
        log.read = log.start();
        log.tell();
        Ok(log)
    }

    /// Takes a segment in. One without bytes, and with others behind it, is what is left of one that was dropped.
    fn find(&mut self, first: u64, path: &Path, next: Option<u64>) -> io::Result<()> {
        let bytes = fs::metadata(path)?.len();
        if let (0, Some(next)) = (bytes, next) {
            self.segments.push_back(Segment { rows: first..next, bytes: 0 });
            return Ok(());
        }
        let (end, sound) = end_of(path, bytes, first)?;
        // What is damaged in the midst of others is counted when it is read.
        let (end, sound) = next.map_or((end, sound), |next| (end.min(next), bytes));
        if sound < bytes {
            tracing::warn!(
                "{} bytes at the end of the spool's {} were not written whole and are cut off",
                bytes - sound,
                path.display()
            );
            fs::OpenOptions::new().write(true).open(path)?.set_len(sound)?;
        }
        self.limits.bytes.fetch_add(sound, Ordering::Relaxed);
        self.segments.push_back(Segment { rows: first..end, bytes: sound });
        Ok(())
    }

    /// Rows that wait: neither acknowledged nor lost.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        let apart: u64 = self.done_apart.iter().map(|(start, end)| end - start).sum();
        self.end - self.done - apart
    }

    /// Where that is told.
    pub(super) fn waiting_count(&self) -> Arc<AtomicU64> {
        self.told.clone()
    }

    fn tell(&self) {
        self.told.store(self.waiting(), Ordering::Relaxed);
    }

    /// Whether there is something to read.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        !self.returned.is_empty() || self.read.is_some_and(|read| read.row < self.end)
    }

    /// What was lost since the last time this was asked.
    pub fn take_lost(&mut self) -> Lost {
        std::mem::take(&mut self.lost)
    }

    /// Appends a batch. For the sake of newer ones, old ones may be dropped.
    ///
    /// # Errors
    ///
    /// There is no room, or the disk fails; nothing was appended.
    pub async fn append(&mut self, batch: &RecordBatch) -> Result<(), SpoolError> {
        let record = record::encode(batch, self.end, now_ms())?;
        let len = record.len() as u64;
        if len > self.limits.segment_max.max(self.limits.bytes_max / 2) {
            return Err(SpoolError::TooLarge);
        }
        while self.limits.bytes.load(Ordering::Relaxed) + len > self.limits.bytes_max {
            self.make_room()?;
        }
        loop {
            let (path, at) = self.place_to_append(len).await?;
            let Err(error) = self.files.write(path.clone(), at, record.clone()).await else { break };
            // Part of it may be there; the next one goes where this began.
            let _ = fs::OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(at));
            match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => self.make_room()?,
                _ => return Err(error.into()),
            }
        }
        self.limits.bytes.fetch_add(len, Ordering::Relaxed);
        let rows = batch.num_rows() as u64;
        let last = self.segments.back_mut().expect("the place is in it");
        last.bytes += len;
        last.rows.end += rows;
        self.end += rows;
        if self.read.is_none() {
            self.read = self.start();
        }
        self.tell();
        Ok(())
    }

    /// The segment that takes `len` bytes more, and where in it.
    async fn place_to_append(&mut self, len: u64) -> Result<(PathBuf, u64), SpoolError> {
        let full = self.segments.back().is_none_or(|last| {
            last.rows.end != self.end || (last.bytes > 0 && last.bytes + len > self.limits.segment_max)
        });
        if full {
            if let Some(last) = self.segments.back() {
                self.files.sync(self.path(last.rows.start)).await?;
            }
            self.segments.push_back(Segment { rows: self.end..self.end, bytes: 0 });
        }
        let last = self.segments.back().expect("there is one now");
        Ok((self.path(last.rows.start), last.bytes))
    }

    fn path(&self, first: u64) -> PathBuf {
        self.folder.join(format!("{first:020}.seg"))
    }

    /// Drops the oldest segment of which nothing is on its way.
    fn make_room(&mut self) -> Result<(), SpoolError> {
        if !self.limits.drops_oldest {
            return Err(SpoolError::Full);
        }
        let flies = |rows: &Range<u64>| {
            self.flying.range(rows.clone()).next().is_some() || self.returned.range(rows.clone()).next().is_some()
        };
        let oldest = self.segments.iter().position(|segment| segment.bytes > 0 && !flies(&segment.rows));
        let Some(at) = oldest else { return Err(SpoolError::Full) };
        let rows = self.segments[at].rows.clone();
        self.lost.dropped += self.undone(&rows);
        // An empty file stays until everything before it is done: it says that these rows are not missing.
        fs::File::create(self.path(rows.start))?;
        self.limits.bytes.fetch_sub(self.segments[at].bytes, Ordering::Relaxed);
        self.segments[at].bytes = 0;
        self.set_done(rows);
        self.drop_done();
        Ok(())
    }

    /// How many of these rows were neither acknowledged nor lost.
    fn undone(&self, rows: &Range<u64>) -> u64 {
        let start = rows.start.max(self.done);
        let apart = self.done_apart.iter().map(|(from, to)| to.min(&rows.end).saturating_sub(*from.max(&start)));
        rows.end.saturating_sub(start).saturating_sub(apart.sum())
    }

    fn remove(&mut self, at: usize) {
        let Some(segment) = self.segments.remove(at) else { return };
        // A file that stays is found again by the next agent, and is then behind the cursor.
        let _ = fs::remove_file(self.path(segment.rows.start));
        self.limits.bytes.fetch_sub(segment.bytes, Ordering::Relaxed);
    }

    /// The first record that was not done.
    fn start(&self) -> Option<Place> {
        let first = self.segments.front()?;
        Some(Place { segment: first.rows.start, at: 0, row: first.rows.start })
    }

    /// The beginning of the segment behind one.
    fn after(&self, segment: u64) -> Option<Place> {
        let next = self.segments.iter().find(|other| other.rows.start > segment)?;
        Some(Place { segment: next.rows.start, at: 0, row: next.rows.start })
    }

    /// Reads the next record that was not acknowledged, and counts what cannot be read or is too old.
    ///
    /// # Errors
    ///
    /// The disk fails.
    pub async fn next(&mut self) -> Result<Option<Taken>, SpoolError> {
        while let Some((&ticket, flight)) = self.returned.first_key_value() {
            let place = flight.place;
            let taken = self.try_take(place).await?;
            self.returned.remove(&ticket);
            if let Some((taken, _)) = taken {
                return Ok(Some(taken));
            }
        }
        while let Some(place) = self.read.filter(|read| read.row < self.end) {
            let Some((taken, next)) = self.try_take(place).await? else { continue };
            self.advance(next);
            return Ok(Some(taken));
        }
        Ok(None)
    }

    /// The record at a place. A segment that is not there, or fails again and again, is lost from there on.
    async fn try_take(&mut self, place: Place) -> Result<Option<(Taken, Place)>, SpoolError> {
        match self.take(place).await {
            Err(SpoolError::Disk(error)) if error.kind() == io::ErrorKind::NotFound || self.failures >= FAILURES => {
                let place = self.within_segment(place);
                let own = self.segments.iter().find(|segment| segment.rows.start == place.segment);
                let (rows, at) = own.map_or((place.row..place.row, 0), |own| (place.row..own.rows.end, own.bytes));
                tracing::error!(%error, "the spool's {} cannot be read", self.path(place.segment).display());
                self.failures = 0;
                let end = Place { segment: place.segment, at, row: rows.end };
                self.lose(rows, self.after(place.segment).unwrap_or(end), CORRUPT).await;
                Ok(None)
            }
            Err(error) => {
                self.failures += 1;
                Err(error)
            }
            taken => {
                self.failures = 0;
                taken
            }
        }
    }

    fn advance(&mut self, to: Place) {
        if self.read.is_none_or(|read| read.row < to.row) {
            self.read = Some(to);
        }
    }

    /// The record at a place, and the place behind it. `None`: it is not to be had, and `read` is behind it.
    async fn take(&mut self, place: Place) -> Result<Option<(Taken, Place)>, SpoolError> {
        let before = place.row;
        let place = self.within_segment(place);
        if self.undone(&(before..place.row)) > 0 {
            // A segment in between is not there, or ends before it should.
            self.lose(before..place.row, place, CORRUPT).await;
            return Ok(None);
        }
        let path = self.path(place.segment);
        let own = self.segments.iter().find(|segment| segment.rows.start == place.segment).map_or(0, |own| own.bytes);
        let head = self.files.read(path.clone(), place.at, HEAD).await?;
        let Some(head) = head_at(&head, place.at, own, place.row, 0) else {
            self.resume(place).await?;
            return Ok(None);
        };
        let next = Place { segment: place.segment, at: place.at + head.record_len(), row: head.end_row() };
        let rows = head.first_row..head.end_row();
        if rows.end <= self.done {
            self.advance(next);
            return Ok(None);
        }
        let age = now_ms().saturating_sub(head.time_ms);
        if u128::from(age) > self.limits.age_max.as_millis() {
            self.lose(rows, next, |lost| &mut lost.expired).await;
            return Ok(None);
        }
        let bytes = self.files.read(path, place.at + HEAD as u64, head.len as usize).await?;
        let batch = if head.fits(&bytes) { record::decode(&bytes).ok() } else { None };
        let Some(batch) = batch.filter(|batch| batch.num_rows() as u64 == u64::from(head.rows)) else {
            self.lose(rows, next, CORRUPT).await;
            return Ok(None);
        };
        self.flying.insert(rows.start, Flight { end: rows.end, place });
        Ok(Some((Taken { batch, ticket: rows.start }, next)))
    }

    /// A place, or the beginning of the next segment with bytes if it is at the end of its own.
    fn within_segment(&self, mut place: Place) -> Place {
        while let Some(next) = self.segments.iter().find(|own| own.rows.start == place.segment).map_or_else(
            || self.after(place.segment),
            |own| if place.at >= own.bytes { self.after(place.segment) } else { None },
        ) {
            place = next;
        }
        place
    }

    /// Counts rows as lost, and goes on behind them.
    async fn lose(&mut self, rows: Range<u64>, next: Place, cause: Cause) {
        *cause(&mut self.lost) += self.undone(&rows);
        self.advance(next);
        self.set_done(rows);
        self.settle().await;
    }

    /// Goes on behind something that is no record: at the next head of the segment, else at the next segment.
    async fn resume(&mut self, place: Place) -> Result<(), SpoolError> {
        let Some(own) = self.segments.iter().find(|segment| segment.rows.start == place.segment) else {
            self.read = self.after(place.segment);
            return Ok(());
        };
        let (bytes, end) = (own.bytes, own.rows.end);
        let rest = usize::try_from(bytes.saturating_sub(place.at)).unwrap_or(usize::MAX);
        let rest = self.files.read(self.path(place.segment), place.at, rest).await?;
        let found = search(&rest, place.at, bytes, place.row).filter(|(_, head)| head.first_row < end);
        let next = match found {
            Some((at, head)) => Place { segment: place.segment, at, row: head.first_row },
            None => Place { segment: place.segment, at: bytes, row: end.max(place.row) },
        };
        let path = self.path(place.segment);
        tracing::error!("the spool's {} is damaged: {} rows are lost", path.display(), next.row - place.row);
        self.lose(place.row..next.row, next, CORRUPT).await;
        Ok(())
    }

    /// A record that was taken needs not be kept any longer.
    pub async fn acknowledge(&mut self, ticket: u64) {
        if let Some(flight) = self.flying.remove(&ticket) {
            self.set_done(ticket..flight.end);
            self.settle().await;
        }
    }

    /// A record that was taken is to be read again.
    pub fn give_back(&mut self, ticket: u64) {
        if let Some(flight) = self.flying.remove(&ticket) {
            self.returned.insert(ticket, flight);
        }
    }

    fn set_done(&mut self, rows: Range<u64>) {
        let (mut start, mut end) = (rows.start.max(self.done), rows.end);
        // Those that it touches become one with it.
        while let Some((&other, &other_end)) = self.done_apart.range(..=end).next_back().filter(|(_, e)| **e >= start) {
            self.done_apart.remove(&other);
            (start, end) = (start.min(other), end.max(other_end));
        }
        if end > start {
            self.done_apart.insert(start, end);
        }
        while let Some((&start, &end)) = self.done_apart.first_key_value().filter(|(start, _)| **start <= self.done) {
            self.done_apart.remove(&start);
            self.done = self.done.max(end);
        }
        self.tell();
    }

    /// Writes the cursor, and removes the segments behind it. One that cannot be written is written the next time: until
    /// then the next agent reads more than it has to.
    async fn settle(&mut self) {
        let at = self.slots_written % 2 * cursor::SLOT as u64;
        if self.files.write(self.folder.join("cursor"), at, cursor::slot(self.done)).await.is_ok() {
            self.slots_written += 1;
        }
        self.drop_done();
    }

    fn drop_done(&mut self) {
        while self.segments.front().is_some_and(|first| first.rows.end <= self.done) {
            self.remove(0);
        }
        // A place in a segment that is gone stays: rows that are missing behind it are counted when they should come.
        if self.segments.is_empty() {
            self.read = None;
        }
    }
}

/// Where the records of a segment end: its rows, and the bytes that are whole. Heads are read, batches are not, but for the
/// last one: only that can be torn behind its head.
fn end_of(path: &Path, bytes: u64, first: u64) -> io::Result<(u64, u64)> {
    let file = fs::File::open(path)?;
    let read = |at: u64, len: u64| -> io::Result<Vec<u8>> {
        let mut data = vec![0; usize::try_from(len.min(bytes.saturating_sub(at))).unwrap_or(0)];
        file.read_exact_at(&mut data, at).map(|()| data)
    };
    let (mut at, mut row) = (0, first);
    while at < bytes {
        let head = match head_at(&read(at, HEAD as u64)?, at, bytes, row, 0) {
            Some(head) => head,
            None => match search(&read(at, bytes)?, at, bytes, row) {
                Some((start, head)) => {
                    at = start;
                    head
                }
                None => break,
            },
        };
        let end = at + head.record_len();
        if end == bytes && !head.fits(&read(at + HEAD as u64, u64::from(head.len))?) {
            break;
        }
        (at, row) = (end, head.end_row());
    }
    Ok((row, at))
}

/// The head that bytes begin with, if its record ends within the segment, and if no more rows than bytes are missing before
/// it: what only looks like a head does not lead astray.
fn head_at(bytes: &[u8], at: u64, end: u64, row: u64, skipped: u64) -> Option<Head> {
    let is_next = |head: &Head| head.first_row.checked_sub(row).is_some_and(|missing| missing <= skipped);
    Head::of(bytes).filter(is_next).filter(|head| at.saturating_add(head.record_len()) <= end)
}

/// The first such head behind the first byte; `at` is where the bytes begin.
fn search(bytes: &[u8], at: u64, end: u64, row: u64) -> Option<(u64, Head)> {
    (1..bytes.len()).find_map(|skip| {
        let skipped = skip as u64;
        Some((at + skipped, head_at(&bytes[skip..], at + skipped, end, row, skipped)?))
    })
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
