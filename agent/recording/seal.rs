//! Checksums of a recording's messages, behind its end.
//!
//! `[begin of a message: u64][CRC-32: u32]` for each, then their number as `u64`, then [`MARK`]; little-endian.

use std::io::{self, Read, Seek, SeekFrom, Write};

use super::RecordingError;

const MARK: [u8; 8] = *b"RTAPSEAL";
const ENTRY: usize = 12;
const TAIL: usize = 16;
/// Length of the mark of an Arrow stream's end.
const STREAM_END: u64 = 8;

/// Sums up what is written through it.
pub(super) struct Sealing<W> {
    inner: W,
    at: u64,
    begun: u64,
    sum: crc32fast::Hasher,
    seals: Vec<(u64, u32)>,
}

impl<W: Write> Sealing<W> {
    pub(super) fn new(inner: W) -> Self {
        Self { inner, at: 0, begun: 0, sum: crc32fast::Hasher::new(), seals: Vec::new() }
    }

    /// What was written since the last call is one message.
    pub(super) fn end_message(&mut self) {
        let sum = std::mem::take(&mut self.sum).finalize();
        self.seals.push((self.begun, sum));
        self.begun = self.at;
    }

    /// Writes the checksums. The mark of the stream's end needs none.
    pub(super) fn seal(&mut self) -> io::Result<&W> {
        for (at, sum) in &self.seals {
            self.inner.write_all(&at.to_le_bytes())?;
            self.inner.write_all(&sum.to_le_bytes())?;
        }
        self.inner.write_all(&(self.seals.len() as u64).to_le_bytes())?;
        self.inner.write_all(&MARK)?;
        self.inner.flush()?;
        Ok(&self.inner)
    }
}

impl<W: Write> Write for Sealing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.sum.update(&bytes[..n]);
        self.at += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The checksums of a finished recording.
#[derive(Debug)]
pub(super) struct Seals {
    /// Begin of each message, in order, and its checksum.
    messages: Vec<(u64, u32)>,
    next: usize,
    /// Where the last message ends: the mark of the stream's end.
    end: u64,
}

impl Seals {
    /// Reads them from a file of `len` bytes; `None` if it was not finished.
    pub(super) fn read(file: &mut (impl Read + Seek), len: u64) -> Result<Option<Self>, RecordingError> {
        if len < TAIL as u64 {
            return Ok(None);
        }
        let mut tail = [0; TAIL];
        file.seek(SeekFrom::Start(len - TAIL as u64))?;
        file.read_exact(&mut tail)?;
        let (count, mark) = tail.split_at(8);
        if mark != MARK {
            return Ok(None);
        }
        let damaged =
            || RecordingError::Damaged { at: len - TAIL as u64, reason: "its checksums do not fit it".into() };
        let count = u64::from_le_bytes(count.try_into().map_err(|_| damaged())?);
        let size = count.checked_mul(ENTRY as u64).filter(|size| *size <= len - TAIL as u64).ok_or_else(damaged)?;
        let begin = len - TAIL as u64 - size;
        let end = begin.checked_sub(STREAM_END).ok_or_else(damaged)?;
        let mut bytes = vec![0; usize::try_from(size).map_err(|_| damaged())?];
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(&mut bytes)?;
        let entry = |entry: &[u8]| {
            let (at, sum) = entry.split_at(8);
            Some((u64::from_le_bytes(at.try_into().ok()?), u32::from_le_bytes(sum.try_into().ok()?)))
        };
        let messages: Vec<(u64, u32)> = bytes.chunks_exact(ENTRY).filter_map(entry).collect();
        let rises = messages.is_sorted_by(|a, b| a.0 < b.0) && messages.last().is_some_and(|last| last.0 < end);
        if !rises || messages.first().is_some_and(|first| first.0 != 0) {
            return Err(damaged());
        }
        Ok(Some(Self { messages, next: 0, end }))
    }

    /// Length and checksum of the next message; `None` at the end.
    pub(super) fn next_message(&mut self) -> Option<(u64, u32)> {
        let (at, sum) = *self.messages.get(self.next)?;
        self.next += 1;
        let end = self.messages.get(self.next).map_or(self.end, |next| next.0);
        Some((end - at, sum))
    }
}
