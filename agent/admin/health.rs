//! Whether the agent captures, and what stands in its way.

use std::{
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::live::boot_ns;

/// A capture that has not looked at its rings for so long hangs; it looks at least ten times a second.
const STALLED: Duration = Duration::from_secs(5);

/// What the threads of the agent say of themselves.
#[derive(Debug)]
pub struct Health {
    /// When the agent began.
    pub started: Instant,
    /// The configuration's file.
    pub file: Option<PathBuf>,
    probes: AtomicBool,
    stopping: AtomicBool,
    /// Boot time of the capture's last round, in nanoseconds.
    round_ns: AtomicU64,
    /// Why the file that lies there now does not act.
    not_reloaded: Mutex<Option<String>>,
}

impl Health {
    /// Of an agent that begins.
    #[must_use]
    pub fn new(file: Option<PathBuf>) -> Self {
        Self {
            started: Instant::now(),
            file,
            probes: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            round_ns: AtomicU64::new(0),
            not_reloaded: Mutex::default(),
        }
    }

    /// The probes of everything that runs are in place.
    pub fn has_probes(&self) {
        self.probes.store(true, Ordering::Relaxed);
    }

    /// The agent stops.
    pub fn stops(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// The capture has looked at its rings.
    pub fn round(&self) {
        self.round_ns.store(boot_ns(), Ordering::Relaxed);
    }

    /// The file was read again; `fault` says why it does not act.
    pub fn reloaded(&self, fault: Option<String>) {
        *self.not_reloaded.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// Why the agent does not capture; none: it does.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        let round = self.round_ns.load(Ordering::Relaxed);
        let silent = Duration::from_nanos(boot_ns().saturating_sub(round));
        if self.stopping.load(Ordering::Relaxed) {
            reasons.push("it stops".to_owned());
        } else if !self.probes.load(Ordering::Relaxed) {
            reasons.push("probes are being put in place".to_owned());
        } else if round > 0 && silent > STALLED {
            reasons.push(format!("the capture has not looked at its rings for {} s", silent.as_secs()));
        }
        reasons
    }

    /// What does not keep it from capturing, and somebody should look at.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let fault = self.not_reloaded.lock().unwrap_or_else(PoisonError::into_inner).clone();
        fault.map(|fault| format!("the configuration was not reloaded: {fault}")).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let health = Health::new(None);
        assert_eq!(health.reasons(), ["probes are being put in place"]);
        health.has_probes();
        health.round();
        health.reloaded(Some("line 3".into()));
        assert_eq!((health.reasons().len(), health.warnings().len()), (0, 1));
        health.round_ns.store(boot_ns() - 7_000_000_000, Ordering::Relaxed);
        assert_eq!(health.reasons(), ["the capture has not looked at its rings for 7 s"]);
        health.stops();
        assert_eq!(health.reasons(), ["it stops"]);
    }
}
