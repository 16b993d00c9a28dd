//! What probes cost the processes that they stop: measured on this machine, since it differs by a factor of forty between
//! machines and between instructions.

use std::{
    fs,
    hint::black_box,
    path::Path,
    time::{Duration, Instant},
};

use ringtap_bpf::{
    abi::Activity,
    calibrate::{emulated, stepped},
};

use super::{
    kernel::{Kernel, Probes},
    libraries::{HANDSHAKE, RETURN},
};

/// Calls that are timed; with the dearest probes known they last 12 ms.
const CALLS: u32 = 300;
/// What the programs of a TLS call do besides the stop, with a small payload (`./dev bench`, `ringtap bench capacity`).
const PROGRAMS_NS: u64 = 1000;
/// What the program at the end of a system call on a socket does.
const IO_NS: u64 = 400;
/// What it costs to copy 1 KiB into a ring.
const KIB_NS: u64 = 60;
/// Taken where it cannot be measured: a stop by a breakpoint and its return.
const UNKNOWN: Costs = Costs { emulated_ns: 900, stepped_ns: 2500 };

/// How the TLS functions of a process are stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// At an instruction that the kernel emulates.
    Emulated,
    /// At one that it single-steps.
    Stepped,
    /// At two of these: entry and return are probes of their own (Go).
    SteppedTwice,
}

/// Nanoseconds that entry and return of a probed function add to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Costs {
    /// See [`Stop::Emulated`].
    pub emulated_ns: u64,
    /// See [`Stop::Stepped`].
    pub stepped_ns: u64,
}

impl Costs {
    /// Measures it in this process; what cannot be measured is taken as usual.
    #[must_use]
    pub fn measure(kernel: &mut Kernel) -> Self {
        let mut time = |function: extern "C" fn(), usual: u64| {
            added_ns(kernel, function).unwrap_or_else(|reason| {
                tracing::debug!(reason, "cannot measure what a probe costs");
                usual
            })
        };
        let emulated_ns = time(emulated, UNKNOWN.emulated_ns);
        Self { emulated_ns, stepped_ns: time(stepped, UNKNOWN.stepped_ns).max(emulated_ns) }
    }

    /// What the probes have cost a process, in nanoseconds, by what it has done meanwhile.
    #[must_use]
    pub fn of(&self, done: &Activity, stop: Stop) -> u64 {
        let stopped = match stop {
            Stop::Emulated => self.emulated_ns,
            Stop::Stepped => self.stepped_ns,
            Stop::SteppedTwice => 2 * self.stepped_ns,
        };
        let copied = done.clear_bytes.saturating_add(done.socket_bytes) / 1024;
        let parts = [(done.calls, stopped + PROGRAMS_NS), (done.io_calls, IO_NS), (copied, KIB_NS)];
        parts.into_iter().fold(0, |sum, (n, each)| sum.saturating_add(n.saturating_mul(each)))
    }
}

/// What probes at entry and return of a function add to a call of it.
fn added_ns(kernel: &mut Kernel, function: extern "C" fn()) -> Result<u64, String> {
    const SELF: &str = "/proc/self/exe";
    let offset = file_offset(function)?;
    let bare = time(function);
    // In this order: see `Points::programs`.
    let mut probes = kernel.attach_probes(RETURN, Path::new(SELF), &[offset], 0)?;
    probes.extend(kernel.attach_probes(HANDSHAKE, Path::new(SELF), &[offset], 0)?);
    let stopped = time(function);
    close(probes);
    let added = stopped.saturating_sub(bare) / CALLS;
    Ok(u64::try_from(added.as_nanos()).unwrap_or(u64::MAX))
}

/// A perf event takes a tenth of a second to close, for which nobody should wait.
fn close(probes: Vec<Probes>) {
    std::thread::spawn(move || drop(probes));
}

fn time(function: extern "C" fn()) -> Duration {
    let run = || {
        let begun = Instant::now();
        for _ in 0..CALLS {
            black_box(function)();
        }
        begun.elapsed()
    };
    // The first time, pages are missing; of the others the fastest was disturbed least.
    (0..3).map(|_| run()).min().unwrap_or_default()
}

/// Where a function of this program lies in its file.
fn file_offset(function: extern "C" fn()) -> Result<u64, String> {
    let address = (function as *const ()).expose_provenance() as u64;
    let maps = fs::read_to_string("/proc/self/maps").map_err(|error| error.to_string())?;
    let offset = maps.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (start, end) = words.next()?.split_once('-')?;
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let (start, end, from) = (hex(start)?, hex(end)?, hex(words.nth(1)?)?);
        (start..end).contains(&address).then(|| address - start + from)
    });
    offset.ok_or_else(|| "the function is in no mapping".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_functions_lie_in_our_file() {
        let bytes = fs::read("/proc/self/exe").expect("it runs");
        let at = |function| {
            let offset = usize::try_from(file_offset(function).expect("it is mapped")).expect("it fits");
            bytes[offset..offset + 4].to_vec()
        };
        if cfg!(target_arch = "x86_64") {
            assert_eq!(at(emulated)[..3], [0x55, 0x5d, 0xc3]);
            assert_eq!(at(stepped), [0x48, 0x83, 0xec, 0x08]);
        }
        emulated();
        stepped();
    }

    #[test]
    fn costs_are_sums() {
        let costs = Costs { emulated_ns: 1000, stepped_ns: 20_000 };
        let done = Activity { calls: 10, io_calls: 20, clear_bytes: 10 << 10, ..Activity::default() };
        let rest = 10 * PROGRAMS_NS + 20 * IO_NS + 10 * KIB_NS;
        assert_eq!(costs.of(&done, Stop::Emulated), 10_000 + rest);
        assert_eq!(costs.of(&done, Stop::SteppedTwice), 400_000 + rest);
        let most = Activity { calls: u64::MAX, ..Activity::default() };
        assert_eq!(costs.of(&most, Stop::Stepped), u64::MAX);
    }
}
