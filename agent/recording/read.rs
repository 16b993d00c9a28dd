//! Reads a recording back.

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

use arrow_array::RecordBatch;
use arrow_buffer::{Buffer, MutableBuffer};
use arrow_ipc::reader::StreamDecoder;
use ringtap_batch::{
    clock::WallOffset,
    process::{Process, Processes},
    ring::{
        abi::Kind,
        records::{Records, Row, SCHEMA},
    },
};

use super::{ProcessRow, seal::Seals};
use crate::config::checked::ProcessRules;

/// One message at most; the recorder stays far below.
const MESSAGE_MAX: u64 = 2 << 30;
/// In front of each message: a mark, and the length of its description.
const PREFIX: usize = 8;
const MARK: [u8; 4] = [0xff; 4];

/// Why a recording cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The disk failed.
    #[error("cannot read the recording: {0}")]
    Io(#[from] io::Error),
    /// Not the bytes that a recording has there.
    #[error("the recording is damaged in the part that begins at byte {at}: {reason}")]
    Damaged {
        /// Where the message begins in the file.
        at: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A whole Arrow stream, of something else.
    #[error("this is an Arrow stream, but not a recording of ringtap: its columns differ")]
    OtherSchema,
}

/// A recording, read batch by batch. Payload is borrowed from the bytes as they were read.
pub struct Recording {
    file: File,
    len: u64,
    at: u64,
    decoder: StreamDecoder,
    wall: WallOffset,
    /// `None` if the recording was not finished.
    seals: Option<Seals>,
    pool: Pool,
}

impl Recording {
    /// Opens a recording.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        let mut file = File::open(path)?;
        let len = file.metadata()?.len();
        let seals = Seals::read(&mut file, len)?;
        file.rewind()?;
        Ok(Self { file, len, at: 0, decoder: StreamDecoder::new(), wall: WallOffset(0), seals, pool: Pool::default() })
    }

    /// Bytes read so far, and bytes of the file.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        (self.at, self.len)
    }

    /// Offset to wall time of the batch that was read last.
    #[must_use]
    pub fn wall(&self) -> WallOffset {
        self.wall
    }

    /// The next batch; `None` at the end.
    ///
    /// # Errors
    ///
    /// The file is damaged, or was not finished: then the error comes behind its last whole message.
    pub fn read(&mut self) -> Result<Option<RecordBatch>, RecordingError> {
        while let Some((at, mut message)) = self.message()? {
            // Of what no checksum vouches for, the decoder can panic.
            let mut decoder = std::panic::AssertUnwindSafe(&mut self.decoder);
            let batch = match std::panic::catch_unwind(move || decoder.decode(&mut message)) {
                Ok(Ok(batch)) => batch,
                Ok(Err(error)) => return Err(RecordingError::Damaged { at, reason: error.to_string() }),
                Err(_) => return Err(RecordingError::Damaged { at, reason: "its parts do not fit together".into() }),
            };
            if self.decoder.schema().is_some_and(|schema| schema.fields() != SCHEMA.fields()) {
                return Err(RecordingError::OtherSchema);
            }
            if let Some(batch) = batch {
                self.take_clock(&batch);
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    /// Where the next message begins, and all its bytes in one piece.
    fn message(&mut self) -> Result<Option<(u64, Buffer)>, RecordingError> {
        let at = self.at;
        let damaged = |reason: &str| RecordingError::Damaged { at, reason: reason.to_owned() };
        let (len, sum) = match &mut self.seals {
            Some(seals) => match seals.next_message() {
                Some((len, sum)) => (len, Some(sum)),
                None => {
                    self.at = self.len;
                    return Ok(None);
                }
            },
            None => (self.unsealed_len()?, None),
        };
        if len > MESSAGE_MAX {
            return Err(damaged("the message is longer than any of a recording"));
        }
        let mut bytes = self.pool.take(usize::try_from(len).map_err(|_| damaged("too long"))?);
        self.file.read_exact(bytes.as_slice_mut())?;
        if sum.is_some_and(|sum| sum != crc32fast::hash(bytes.as_slice())) {
            return Err(damaged("its checksum differs"));
        }
        self.at += len;
        let bytes = Buffer::from(bytes);
        self.pool.lend(&bytes);
        Ok(Some((at, bytes)))
    }

    /// Length of the next message of a recording that was not finished, by what the message itself says.
    fn unsealed_len(&mut self) -> Result<u64, RecordingError> {
        let at = self.at;
        let damaged = |reason: &str| RecordingError::Damaged { at, reason: reason.to_owned() };
        let left = self.len.saturating_sub(at);
        if left < PREFIX as u64 {
            return Err(damaged("the file ends here; it was not finished"));
        }
        let mut prefix = [0; PREFIX];
        self.file.read_exact(&mut prefix)?;
        let [mark @ .., a, b, c, d] = prefix;
        let described = u64::from(u32::from_le_bytes([a, b, c, d]));
        if mark != MARK {
            return Err(damaged("no message begins here"));
        }
        if described == 0 {
            return Err(damaged("the stream ends here, but its checksums are missing"));
        }
        if described > left - PREFIX as u64 {
            return Err(damaged("the file ends within the message; it was not finished"));
        }
        let mut description = vec![0; usize::try_from(described).map_err(|_| damaged("too long"))?];
        self.file.read_exact(&mut description)?;
        let message = arrow_ipc::root_as_message(&description)
            .map_err(|error| damaged(&format!("its description cannot be read: {error}")))?;
        let body = u64::try_from(message.bodyLength()).map_err(|_| damaged("its length is negative"))?;
        let len = PREFIX as u64 + described;
        if body > left - len {
            return Err(damaged("the file ends within the message; it was not finished"));
        }
        self.file.seek(SeekFrom::Start(at))?;
        Ok(len + body)
    }

    /// Acts on the rows that tell the time.
    fn take_clock(&mut self, batch: &RecordBatch) {
        for row in own_rows(batch) {
            if let (Some(Kind::Clock), Ok(bytes)) = (row.kind, row.payload.try_into()) {
                self.wall = WallOffset(i64::from_le_bytes(bytes));
            }
        }
    }
}

/// The rows of a batch that the recorder put between the kernel's; they stand in batches of their own.
fn own_rows(batch: &RecordBatch) -> impl Iterator<Item = Row<'_>> {
    let rows = || Records::of(batch).into_iter().flat_map(Records::rows);
    let own = matches!(rows().next().and_then(|row| row.kind), Some(Kind::Clock | Kind::Process));
    rows().take_while(move |_| own)
}

/// Memory of messages that were read, used again when nothing points to it any more: fresh pages cost more than the
/// reading.
#[derive(Debug, Default)]
struct Pool(VecDeque<Buffer>);

/// Messages that are under way at a time, as a rule.
const LENT_MAX: usize = 8;

impl Pool {
    /// Room for a message, with whatever was there before.
    fn take(&mut self, len: usize) -> MutableBuffer {
        for _ in 0..self.0.len() {
            let Some(old) = self.0.pop_front() else { break };
            match old.into_mutable() {
                Ok(mut free) => {
                    free.resize(len, 0);
                    return free;
                }
                Err(lent) => self.0.push_back(lent),
            }
        }
        MutableBuffer::from_len_zeroed(len)
    }

    /// Takes note of memory that may come back.
    fn lend(&mut self, bytes: &Buffer) {
        if self.0.len() >= LENT_MAX {
            self.0.pop_front();
        }
        self.0.push_back(bytes.clone());
    }
}

/// The processes that a recording names.
#[derive(Debug)]
pub struct RecordedProcesses {
    known: RwLock<HashMap<u32, Arc<Process>>>,
    rules: ProcessRules,
}

impl RecordedProcesses {
    /// None so far. `rules` say what is left alone.
    #[must_use]
    pub fn new(rules: ProcessRules) -> Self {
        Self { known: RwLock::default(), rules }
    }

    /// Takes over what a batch says of processes: for the rows that come after it.
    pub fn learn(&self, batch: &RecordBatch) {
        for row in own_rows(batch).filter(|row| row.kind == Some(Kind::Process)) {
            self.insert(row.tgid, row.payload);
        }
    }

    fn insert(&self, tgid: u32, json: &[u8]) {
        let Ok(ProcessRow { exe, uid, user, details, tags }) = serde_json::from_slice(json) else { return };
        let excluded = self.rules.filters.iter().filter(|f| f.matches(&exe)).fold(0, |all, f| all | f.bits);
        let mut process = Process { tgid, exe, uid, user, details, tags, excluded };
        self.rules.add_tags(&mut process);
        let process = Arc::new(process);
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(tgid, process);
    }
}

impl Processes for RecordedProcesses {
    fn get(&self, tgid: u32) -> Option<Arc<Process>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(&tgid).cloned()
    }
}
