//! A record of a log: a head with checksums, and a batch as an Arrow IPC stream.
//!
//! ```text
//!  0  4  magic "RTS1"
//!  4  4  bytes that follow the head
//!  8  8  number of the first row, counted from the beginning of the log
//! 16  8  when it was written, in milliseconds since 1970
//! 24  4  rows
//! 28  4  CRC-32 of the bytes that follow
//! 32  4  CRC-32 of the 32 bytes before
//! ```
//!
//! Numbers are little-endian. Rows are numbered, so that a gap is a number and not a guess.

use std::sync::Arc;

use arrow_array::{Array as _, ArrayRef, RecordBatch, cast::AsArray as _};
use arrow_ipc::{reader::StreamReader, writer::StreamWriter};
use arrow_schema::ArrowError;

/// Bytes of a head.
pub const HEAD: usize = 36;
const MAGIC: [u8; 4] = *b"RTS1";

/// What stands before a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the batch.
    pub len: u32,
    /// Number of its first row.
    pub first_row: u64,
    /// When it was written, in milliseconds since 1970.
    pub time_ms: u64,
    /// Its rows.
    pub rows: u32,
    crc: u32,
}

impl Head {
    /// The head that `bytes` begin with; `None`: they begin with something else.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let head = bytes.first_chunk::<HEAD>()?;
        let u32_at = |at: usize| Some(u32::from_le_bytes(*head[at..].first_chunk()?));
        let u64_at = |at: usize| Some(u64::from_le_bytes(*head[at..].first_chunk()?));
        let sound = head.starts_with(&MAGIC) && u32_at(32)? == crc32fast::hash(&head[..32]);
        let read =
            Self { len: u32_at(4)?, first_row: u64_at(8)?, time_ms: u64_at(16)?, rows: u32_at(24)?, crc: u32_at(28)? };
        sound.then_some(read)
    }

    /// Bytes of the whole record.
    #[must_use]
    pub fn record_len(&self) -> u64 {
        HEAD as u64 + u64::from(self.len)
    }

    /// Number of the first row behind it.
    #[must_use]
    pub fn end_row(&self) -> u64 {
        self.first_row.saturating_add(u64::from(self.rows))
    }

    /// Whether these bytes are what was written.
    #[must_use]
    pub fn fits(&self, batch: &[u8]) -> bool {
        batch.len() as u64 == u64::from(self.len) && crc32fast::hash(batch) == self.crc
    }
}

/// The record of a batch.
///
/// # Errors
///
/// The batch is too large, or has columns that the format does not know.
pub fn encode(batch: &RecordBatch, first_row: u64, time_ms: u64) -> Result<Vec<u8>, ArrowError> {
    let batch = compact(batch)?;
    let mut bytes = vec![0; HEAD];
    let mut writer = StreamWriter::try_new(&mut bytes, batch.schema_ref())?;
    writer.write(&batch)?;
    writer.finish()?;
    drop(writer);
    let too_large = |_| ArrowError::InvalidArgumentError("a batch of more than 4 GiB".to_owned());
    let len = u32::try_from(bytes.len() - HEAD).map_err(too_large)?;
    let rows = u32::try_from(batch.num_rows()).map_err(too_large)?;
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&MAGIC);
    head[4..8].copy_from_slice(&len.to_le_bytes());
    head[8..16].copy_from_slice(&first_row.to_le_bytes());
    head[16..24].copy_from_slice(&time_ms.to_le_bytes());
    head[24..28].copy_from_slice(&rows.to_le_bytes());
    head[28..32].copy_from_slice(&crc32fast::hash(&bytes[HEAD..]).to_le_bytes());
    let own = crc32fast::hash(&head[..32]);
    head[32..].copy_from_slice(&own.to_le_bytes());
    bytes[..HEAD].copy_from_slice(&head);
    Ok(bytes)
}

/// The batch of a record, without its head.
///
/// # Errors
///
/// The bytes are none: a mistake of whoever wrote them, since the checksum was right.
pub fn decode(bytes: &[u8]) -> Result<RecordBatch, ArrowError> {
    let mut reader = StreamReader::try_new(bytes, None)?;
    reader.next().unwrap_or_else(|| Err(ArrowError::IpcError("a record without a batch".to_owned())))
}

/// The same rows with only the bytes that they refer to: views of bytes are written with all their blocks, also those
/// whose rows are gone.
fn compact(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().map(|column| -> ArrayRef {
        match column.as_binary_view_opt() {
            Some(views) if !views.is_empty() => Arc::new(views.gc()),
            _ => column.clone(),
        }
    });
    RecordBatch::try_new(batch.schema(), columns.collect())
}
