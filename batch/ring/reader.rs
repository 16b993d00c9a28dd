//! All shards' rings behind one sleeping thread.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use arrow_array::RecordBatch;

use crate::{
    map::WakeFlags,
    ring::{Ring, RingStats},
    wait::{NoIoUring, Waiter},
};

/// How long a program takes at most, as a rule, between reserving a record and submitting it.
const RESERVED_WAIT: Duration = Duration::from_micros(200);

/// Reads the rings of all shards.
pub struct Reader {
    rings: Vec<Ring>,
    wake: Option<WakeFlags>,
    waiter: Waiter,
    /// Kept open: the waiter watches these descriptors.
    _fds: Vec<OwnedFd>,
}

impl Reader {
    /// Maps one ring of `size` bytes per descriptor. Without `wake` the kernel decides by itself when to wake.
    ///
    /// The second value says why `io_uring` is not used, if it is not.
    ///
    /// # Errors
    ///
    /// A ring cannot be mapped, or no way of waiting can be set up.
    pub fn open(fds: Vec<OwnedFd>, size: u32, wake: Option<WakeFlags>) -> io::Result<(Self, Option<NoIoUring>)> {
        let rings = fds.iter().map(|fd| Ring::open(fd.as_fd(), size)).collect::<Result<_, _>>()?;
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let (waiter, refused) = Waiter::new(&borrowed)?;
        Ok((Self { rings, wake, waiter, _fds: fds }, refused))
    }

    /// Number of rings.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.rings.len()
    }

    /// Sleeps until a ring may have records, at most `timeout`; returns at once if one has.
    ///
    /// # Errors
    ///
    /// The kernel refuses the wait.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        self.each_flag(WakeFlags::set);
        // Only now: what was submitted before the flags were up did not wake us.
        let result = match () {
            () if self.has_records() => Ok(()),
            // What is reserved was possibly looked up as awake: it comes without waking us.
            () if self.has_reserved() => self.waiter.wait(timeout.min(RESERVED_WAIT)),
            () => self.waiter.wait(timeout),
        };
        self.each_flag(WakeFlags::clear);
        result
    }

    fn each_flag(&self, act: impl Fn(&WakeFlags, usize)) {
        if let Some(wake) = &self.wake {
            (0..self.rings.len()).for_each(|shard| act(wake, shard));
        }
    }

    /// Whether a ring has something to scan.
    #[must_use]
    pub fn has_records(&self) -> bool {
        self.rings.iter().any(Ring::has_records)
    }

    /// Whether a program is about to submit something.
    #[must_use]
    pub fn has_reserved(&self) -> bool {
        self.rings.iter().any(Ring::has_reserved)
    }

    /// Bytes that are taken in the fullest ring: not yet scanned, or lent.
    #[must_use]
    pub fn backlog(&self) -> u64 {
        self.rings.iter().map(Ring::backlog).max().unwrap_or(0)
    }

    /// Scans every ring once: a batch, or `None`, per shard.
    pub fn scan(&mut self) -> Vec<Option<RecordBatch>> {
        self.rings.iter_mut().map(Ring::scan).collect()
    }

    /// Counts of each ring.
    #[must_use]
    pub fn stats(&self) -> Vec<RingStats> {
        self.rings.iter().map(Ring::stats).collect()
    }
}
