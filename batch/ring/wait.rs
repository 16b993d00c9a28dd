//! Waiting for rings: `io_uring`'s multishot poll, or edge-triggered epoll where the kernel refuses `io_uring`.
#![expect(unsafe_code, reason = "io_uring takes raw submission entries")]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use io_uring::{IoUring, cqueue, opcode, types};
use rustix::event::{Timespec, epoll};

/// One operation a ring, and as many completions as may pile up between two waits.
const QUEUE: u32 = 64;

/// Waits until one of a set of descriptors has become readable.
pub enum Waiter {
    /// A poll that was armed once and completes at each wake-up.
    IoUring(Box<UringWaiter>),
    /// Edge-triggered: level-triggered polling would spin while a lease is held.
    Epoll(OwnedFd),
}

/// Why `io_uring` is not used.
#[derive(Debug, thiserror::Error)]
#[error("io_uring is refused here ({0}); the agent goes on with epoll and ordinary files")]
pub struct NoIoUring(#[source] pub io::Error);

impl Waiter {
    /// Arms all descriptors. The second value says why `io_uring` is not used, if it is not.
    ///
    /// # Errors
    ///
    /// Neither `io_uring` nor epoll can be set up.
    pub fn new(fds: &[BorrowedFd<'_>]) -> io::Result<(Self, Option<NoIoUring>)> {
        match UringWaiter::new(fds) {
            Ok(waiter) => Ok((Self::IoUring(Box::new(waiter)), None)),
            Err(refused) => Ok((Self::Epoll(arm_epoll(fds)?), Some(NoIoUring(refused)))),
        }
    }

    /// Sleeps until a descriptor becomes readable, or the time is over.
    ///
    /// # Errors
    ///
    /// The kernel refuses the wait; an interrupted one is no error.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::IoUring(waiter) => waiter.wait(timeout),
            Self::Epoll(epoll) => wait_epoll(epoll, timeout),
        }
    }
}

/// Whether `io_uring` can be used here: the kernel, or the sandbox around us, may refuse it.
///
/// # Errors
///
/// The kernel's answer.
pub fn probe_io_uring() -> Result<(), NoIoUring> {
    IoUring::new(2).map(|_| ()).map_err(NoIoUring)
}

/// Multishot polls on one `io_uring`.
pub struct UringWaiter {
    ring: IoUring,
    fds: Vec<i32>,
}

impl UringWaiter {
    fn new(fds: &[BorrowedFd<'_>]) -> io::Result<Self> {
        let ring = IoUring::new(QUEUE)?;
        // Waiting with a time limit came with 5.11, multishot polls with 5.13, like the tags of resources.
        if !ring.params().is_feature_ext_arg() || !ring.params().is_feature_resource_tagging() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "this kernel has no multishot polls"));
        }
        let mut waiter = Self { ring, fds: fds.iter().map(AsRawFd::as_raw_fd).collect() };
        for index in 0..waiter.fds.len() {
            waiter.arm(index)?;
        }
        waiter.ring.submit()?;
        Ok(waiter)
    }

    fn arm(&mut self, index: usize) -> io::Result<()> {
        let poll = opcode::PollAdd::new(types::Fd(self.fds[index]), libc::POLLIN.cast_unsigned().into())
            .multi(true)
            .build()
            .user_data(index as u64);
        // SAFETY: a poll entry holds a descriptor and no address; a closed descriptor only ends the poll.
        unsafe { self.ring.submission().push(&poll) }.map_err(io::Error::other)
    }

    fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        let timeout = types::Timespec::from(timeout);
        let arguments = types::SubmitArgs::new().timespec(&timeout);
        match self.ring.submitter().submit_with_args(1, &arguments) {
            Ok(_) => {}
            Err(e) if matches!(e.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY)) => {}
            Err(e) => return Err(e),
        }
        let ended: Vec<usize> = self
            .ring
            .completion()
            .filter(|done| !cqueue::more(done.flags()))
            .filter_map(|done| usize::try_from(done.user_data()).ok())
            .collect();
        // The kernel ends a multishot poll when completions overflow: it is armed anew.
        for index in ended {
            self.arm(index)?;
        }
        Ok(())
    }
}

fn arm_epoll(fds: &[BorrowedFd<'_>]) -> io::Result<OwnedFd> {
    let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (index, fd) in fds.iter().enumerate() {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&set, fd, epoll::EventData::new_u64(index as u64), flags)?;
    }
    Ok(set)
}

fn wait_epoll(set: &OwnedFd, timeout: Duration) -> io::Result<()> {
    let mut events = Vec::with_capacity(QUEUE as usize);
    let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
    match epoll::wait(set, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}
