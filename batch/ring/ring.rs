//! One ring: scans, spans, leases and the consumer position.
#![expect(unsafe_code, reason = "a lease lends bytes that the kernel shares")]

use std::{io, os::fd::BorrowedFd, ptr::NonNull, sync::Arc};

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use ringtap_bpf::abi::Record;

use crate::{
    map::{HEAD, RingPages, Slot},
    records::RecordsBuilder,
    spans::Spans,
};

/// Payloads below this are copied. Draining is about as fast either way there (`ring/drain/copied` and `borrowed` in the
/// benches), and a batch of small rows that somebody keeps does not hold the ring.
const COPY_BELOW: usize = 256;
/// Records of one batch at most, so that a batch's work stays short.
const BATCH_RECORDS_MAX: usize = 8192;

/// Counts of a ring since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RingStats {
    /// Records that scans returned.
    pub records: u64,
    /// Payload bytes that were copied out.
    pub copied_bytes: u64,
    /// Payload bytes that batches borrowed.
    pub leased_bytes: u64,
    /// Records that were cut short or otherwise not as the programs write them.
    pub malformed: u64,
}

/// What leases share with their ring.
#[derive(Debug)]
struct Shared {
    pages: RingPages,
    /// The consumer position lies at the start of the first span.
    spans: Spans,
}

/// Holds a span of the ring until the last buffer that points into it is dropped.
struct Lease {
    shared: Arc<Shared>,
    end: u64,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shared.spans.give_back(self.end, |position| self.shared.pages.release(position));
    }
}

/// A BPF ring buffer and the place up to which it was scanned.
#[derive(Debug)]
pub struct Ring {
    shared: Arc<Shared>,
    scanned: u64,
    copy_below: usize,
    stats: RingStats,
}

impl Ring {
    /// Maps the ring buffer of `size` bytes behind a map's descriptor.
    ///
    /// # Errors
    ///
    /// The size is not the ring's, or mapping fails.
    pub fn open(fd: BorrowedFd<'_>, size: u32) -> io::Result<Self> {
        let pages = RingPages::map(fd, size)?;
        let scanned = pages.consumer_position();
        let shared = Shared { pages, spans: Spans::new() };
        Ok(Self { shared: Arc::new(shared), scanned, copy_below: COPY_BELOW, stats: RingStats::default() })
    }

    /// Copies payloads below `bytes` instead of the usual number: for measurements.
    pub fn set_copy_below(&mut self, bytes: usize) {
        self.copy_below = bytes;
    }

    /// Whether there may be something to scan.
    #[must_use]
    pub fn has_records(&self) -> bool {
        let pages = &self.shared.pages;
        pages.producer_position() != self.scanned && pages.slot(self.scanned) != Slot::Busy
    }

    /// Whether a program is about to write something: it may have looked at the wake flag already.
    #[must_use]
    pub fn has_reserved(&self) -> bool {
        self.shared.pages.producer_position() != self.scanned
    }

    /// Counts since the ring was opened.
    #[must_use]
    pub fn stats(&self) -> RingStats {
        self.stats
    }

    /// Bytes of the ring that are taken: not yet scanned, or lent.
    #[must_use]
    pub fn backlog(&self) -> u64 {
        let pages = &self.shared.pages;
        pages.producer_position().saturating_sub(pages.consumer_position())
    }

    /// Bytes of the ring that batches still hold.
    #[must_use]
    pub fn lent(&self) -> u64 {
        self.scanned.saturating_sub(self.shared.pages.consumer_position())
    }

    /// Takes the committed records from where the last scan ended. `None` if there are none.
    ///
    /// Rows whose payload is large borrow it from the ring. When more than half of the ring is lent all are copied, so
    /// that whoever keeps a batch does not keep the kernel from writing. A scan takes an eighth of the ring at most: what
    /// is done with is given back while the rest still waits.
    pub fn scan(&mut self) -> Option<RecordBatch> {
        let pressure = self.lent() > self.shared.pages.size() / 2;
        let start = self.scanned;
        let (end, builder, leased) = self.collect(start, pressure)?;
        self.scanned = end;
        self.stats.copied_bytes += builder.copied_bytes() as u64;
        self.stats.leased_bytes += leased;
        self.stats.records += builder.rows() as u64;
        self.shared.spans.lend(end);
        let lease = Lease { shared: self.shared.clone(), end };
        let buffer = (leased > 0).then(|| self.lend(start, end, lease));
        Some(builder.finish(buffer))
    }

    /// Reads heads and payloads from `start` on: the end of the span, its rows, and the bytes they borrow.
    fn collect(&mut self, start: u64, copy_all: bool) -> Option<(u64, RecordsBuilder, u64)> {
        let pages = &self.shared.pages;
        let (produced, mut at) = (pages.producer_position(), start);
        let mut builder = RecordsBuilder::default();
        let mut leased = 0;
        let span_max = pages.size() / 8;
        while at < produced && at - start < span_max && builder.rows() < BATCH_RECORDS_MAX {
            let (len, committed) = match pages.slot(at) {
                Slot::Busy => break,
                Slot::Discarded(len) => (len, false),
                Slot::Committed(len) => (len, true),
            };
            if committed {
                // SAFETY: the record is committed, and the consumer position stays at or below `start`, since the
                // span that begins there is not handed out yet.
                let bytes = unsafe { pages.bytes(at + HEAD, u64::from(len)) };
                match Record::split(bytes) {
                    Some((head, payload)) if copy_all || payload.len() < self.copy_below => {
                        builder.push_copied(&head, payload);
                    }
                    Some((head, payload)) => {
                        let from = at + HEAD + Record::SIZE as u64 - start;
                        builder.push_leased(&head, payload, u32::try_from(from).expect("a ring is below 4 GiB"));
                        leased += payload.len() as u64;
                    }
                    None => self.stats.malformed += 1,
                }
            }
            at += (HEAD + u64::from(len)).next_multiple_of(8);
        }
        (at > start).then_some((at, builder, leased))
    }

    /// The span as a buffer that gives it back when it is dropped.
    fn lend(&self, start: u64, end: u64, lease: Lease) -> Buffer {
        // SAFETY: `collect` saw every record of the span committed or discarded, and the lease, which the buffer owns,
        // keeps the consumer position at or below `start`.
        let bytes = unsafe { self.shared.pages.bytes(start, end - start) };
        // SAFETY: the memory stays mapped and unwritten as long as the lease lives: it holds the pages, and the
        // position does not pass a span that was not given back. The buffer is read-only.
        unsafe { Buffer::from_custom_allocation(NonNull::from(bytes).cast(), bytes.len(), Arc::new(lease)) }
    }
}

#[cfg(test)]
mod tests;
