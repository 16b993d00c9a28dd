//! Processes that the kernel has stopped until their probes are in place, and the guard that lets them go whatever happens
//! to the agent.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    process::{Child, Command, Stdio},
    time::Duration,
};

use aya::maps::{Map, MapData};
use rustix::process::{Pid, Signal, getppid, kill_process};

use super::kernel::{HeldMap, KernelError};
use crate::live::boot_ns;

/// Name of the guard's command.
pub const GUARD: &str = "hold-guard";
/// Nobody is held longer, also if the agent hangs.
const HELD_MAX: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// After the agent's end the kernel may still finish stopping a process.
const LAST_LOOKS: u32 = 20;

/// Stands in the map for the wish that processes be stopped.
const ON: u32 = 0;

/// Says whether processes are to be stopped.
pub(super) fn set(held: &mut HeldMap, on: bool) {
    let done = if on { held.insert(ON, 0, 0) } else { held.remove(&ON) };
    // It may not have been there.
    let _ = done;
}

/// Stops no more processes, and lets go all that were.
pub(super) fn end(held: &mut HeldMap) {
    set(held, false);
    let left: Vec<u32> = held.keys().flatten().collect();
    left.into_iter().for_each(|tgid| let_go(held, tgid));
}

/// Lets a process go on.
pub(super) fn let_go(held: &mut HeldMap, tgid: u32) {
    // First: if it is stopped once more it is entered once more.
    let _ = held.remove(&tgid);
    if let Some(process) = i32::try_from(tgid).ok().and_then(Pid::from_raw) {
        // It may have been killed meanwhile.
        let _ = kill_process(process, Signal::CONT);
    }
}

/// The guard as a process of its own: it outlives the agent by a second, however that ends.
pub struct Guard(#[expect(dead_code, reason = "not waited for: it ends behind us")] Child);

impl Guard {
    /// Starts it, with the map of those that are stopped.
    ///
    /// # Errors
    ///
    /// The process cannot be started.
    pub fn start(held: OwnedFd) -> io::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg(GUARD).stdin(Stdio::from(held)).stdout(Stdio::null());
        command.spawn().map(Self)
    }
}

/// What the guard does: looks at the map that it was given as standard input, until its parent has ended.
///
/// # Errors
///
/// Standard input is no such map.
pub fn guard() -> Result<(), KernelError> {
    let fd = io::stdin().as_fd().try_clone_to_owned()?;
    let mut held: HeldMap = Map::HashMap(MapData::from_fd(fd)?).try_into()?;
    let parent = getppid();
    let mut looks_left = LAST_LOOKS;
    while looks_left > 0 {
        std::thread::sleep(LOOK_EVERY);
        let orphaned = getppid() != parent;
        if orphaned {
            end(&mut held);
        }
        let known: Vec<(u32, u64)> = held.iter().flatten().filter(|(tgid, _)| *tgid != ON).collect();
        for (tgid, since) in known {
            if Duration::from_nanos(boot_ns().saturating_sub(since)) > HELD_MAX {
                let_go(&mut held, tgid);
            }
        }
        looks_left -= u32::from(orphaned);
    }
    Ok(())
}
