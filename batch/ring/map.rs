//! The shared pages: a ring buffer's positions and data, and the array of wake flags.
#![expect(unsafe_code, reason = "memory shared with the kernel is reached by address")]

use std::{
    io,
    os::fd::BorrowedFd,
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use rustix::{
    mm::{MapFlags, ProtFlags, mmap, munmap},
    param::page_size,
};

/// A shared mapping that ends with the value.
#[derive(Debug)]
pub(crate) struct Pages {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the value owns the mapping, and all access to it goes through atomics or is read-only (see `RingPages`).
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    pub(crate) fn map(fd: BorrowedFd<'_>, protection: ProtFlags, offset: u64, len: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let start = unsafe { mmap(std::ptr::null_mut(), len, protection, MapFlags::SHARED, fd, offset)? };
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mmap returned address 0"))?;
        Ok(Self { start, len })
    }

    /// Address at `offset`; whoever uses it argues that it is inside.
    fn at(&self, offset: usize) -> *mut u8 {
        self.start.as_ptr().wrapping_add(offset)
    }

    /// An atomic word at `offset`.
    pub(crate) fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.len, "word outside of the mapping");
        // SAFETY: the address is inside the mapping, aligned, and both sides access it as one 64-bit word.
        unsafe { AtomicU64::from_ptr(self.at(offset).cast()) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` and no reference outlives the value that owns it.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok(), "unmapping our own pages cannot fail");
    }
}

/// State of the record at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Reserved, not yet submitted.
    Busy,
    /// Given up by the program: its bytes mean nothing.
    Discarded(u32),
    /// Committed, with so many bytes.
    Committed(u32),
}

const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;
/// Bytes in front of each record: its length and flags, and a page offset that is the kernel's own.
pub(crate) const HEAD: u64 = 8;

/// A ring's pages: `[consumer position][producer position][data][the same data again]`.
///
/// The second view of the data makes every record contiguous, also one that wraps.
#[derive(Debug)]
pub(crate) struct RingPages {
    consumer: Pages,
    producer: Pages,
    page: usize,
    size: u64,
}

impl RingPages {
    /// Maps the ring of `size` bytes behind a map's descriptor.
    pub(crate) fn map(fd: BorrowedFd<'_>, size: u32) -> io::Result<Self> {
        let page = page_size();
        if !size.is_power_of_two() || !(size as usize).is_multiple_of(page) {
            return Err(io::Error::other(format!("a ring of {size} bytes is not a power of two of pages")));
        }
        Ok(Self {
            consumer: Pages::map(fd, ProtFlags::READ | ProtFlags::WRITE, 0, page)?,
            producer: Pages::map(fd, ProtFlags::READ, page as u64, page + 2 * size as usize)?,
            page,
            size: u64::from(size),
        })
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn producer_position(&self) -> u64 {
        // Pairs with the release store of the kernel's reserve; the records' own heads carry the commit.
        self.producer.word(0).load(Ordering::Acquire)
    }

    pub(crate) fn consumer_position(&self) -> u64 {
        self.consumer.word(0).load(Ordering::Relaxed)
    }

    /// Gives everything below `position` back to the kernel.
    pub(crate) fn release(&self, position: u64) {
        // Pairs with the kernel's acquire load in reserve: our reads of the span are done before it is written again.
        self.consumer.word(0).store(position, Ordering::Release);
    }

    fn data_offset(&self, position: u64) -> usize {
        self.page + usize::try_from(position & (self.size - 1)).expect("a ring is smaller than the address space")
    }

    /// Looks at the head of the record at `position`, which must lie below the producer's.
    pub(crate) fn slot(&self, position: u64) -> Slot {
        let at = self.data_offset(position);
        assert!(at.is_multiple_of(8), "records are aligned to eight bytes");
        // SAFETY: `at` lies inside the first view of the data, is aligned, and the kernel writes the word atomically.
        let head = unsafe { AtomicU32::from_ptr(self.producer.at(at).cast()) };
        // Pairs with the exchange of the kernel's submit: once not busy, the record's bytes are complete.
        let head = head.load(Ordering::Acquire);
        let len = head & !(BUSY | DISCARDED);
        match head {
            h if h & BUSY != 0 => Slot::Busy,
            h if h & DISCARDED != 0 => Slot::Discarded(len),
            _ => Slot::Committed(len),
        }
    }

    /// The bytes from `position` on.
    ///
    /// # Safety
    ///
    /// All records in the range are committed or discarded, and the consumer position stays at or below `position`
    /// as long as the returned slice is used.
    pub(crate) unsafe fn bytes(&self, position: u64, len: u64) -> &[u8] {
        assert!(len <= self.size, "a span is at most the ring");
        let len = usize::try_from(len).expect("a span is at most the ring");
        // SAFETY: the range lies inside the two views of the data, since it begins in the first one and is not longer
        // than one of them; the caller vouches that the kernel does not write to it meanwhile.
        unsafe { std::slice::from_raw_parts(self.producer.at(self.data_offset(position)), len) }
    }
}

/// One word a shard: set by the reader before it sleeps, cleared by the program that wakes it.
#[derive(Debug)]
pub struct WakeFlags(Pages);

impl WakeFlags {
    /// Maps the values of a memory-mappable array map of 64-bit words.
    ///
    /// # Errors
    ///
    /// The map cannot be mapped.
    pub fn map(fd: BorrowedFd<'_>, shards: usize) -> io::Result<Self> {
        let len = (shards * 8).next_multiple_of(page_size());
        Pages::map(fd, ProtFlags::READ | ProtFlags::WRITE, 0, len).map(Self)
    }

    /// Says that the reader of `shard` is about to sleep.
    pub fn set(&self, shard: usize) {
        // Sequentially consistent: the reader looks at the producer's position after this store, not before.
        self.0.word(shard * 8).store(1, Ordering::SeqCst);
    }

    /// Says that it is awake.
    pub fn clear(&self, shard: usize) {
        self.0.word(shard * 8).store(0, Ordering::Relaxed);
    }
}
