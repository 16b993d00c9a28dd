//! What a running agent says of itself as a whole.

use std::{collections::BTreeMap, sync::PoisonError};

use serde::{Deserialize, Serialize};

use super::Told;

/// An agent, as `ringtap status` shows it. Sizes are in bytes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Status {
    /// Its version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Name of the machine.
    pub host: String,
    /// Seconds since it began.
    pub uptime_s: u64,
    /// Whether it captures.
    pub ready: bool,
    /// Why not.
    pub reasons: Vec<String>,
    /// What somebody should look at.
    pub warnings: Vec<String>,
    /// The configuration's file, if there is one.
    pub config: Option<String>,
    /// Whether `/devtools` is on.
    pub devtools: bool,
    /// Probes in place.
    pub probes: usize,
    /// What the kernel lacks, each with what follows.
    pub missing: Vec<String>,
    /// Processes of which less is captured since their probes cost too much, by how much is.
    pub governed: BTreeMap<String, u64>,
    /// What is kept of traffic in memory, and what may be.
    pub memory_kept: u64,
    /// See `memory_kept`.
    pub memory_budget: u64,
    /// What waits on the disk, if it may.
    pub spool: Option<Waiting>,
    /// The ledger, for people.
    pub ledger: String,
    /// The ledger's counts, and those of the programs in the kernel.
    pub counts: BTreeMap<String, u64>,
}

/// What waits on the disk.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Waiting {
    /// Taken.
    pub bytes: u64,
    /// At most.
    pub max_bytes: u64,
    /// Events and objects, by their store.
    pub rows: BTreeMap<String, u64>,
}

impl Told {
    /// As JSON.
    pub(super) fn status(&self) -> String {
        let kernel = *self.kernel.read().unwrap_or_else(PoisonError::into_inner);
        let spool = self.spool.as_ref().map(|spool| {
            let (bytes, max_bytes) = spool.bytes();
            let mut rows = BTreeMap::new();
            for waiting in spool.waiting() {
                *rows.entry(waiting.store).or_default() += waiting.rows;
            }
            Waiting { bytes, max_bytes, rows }
        });
        let ours = self.ledger.named().into_iter().map(|(name, n)| (name.to_owned(), n));
        let kernels = kernel.named().into_iter().map(|(name, n)| (format!("kernel_{name}"), n));
        let governed = self.coverage.processes.governed().processes();
        let reasons = self.health.reasons();
        let status = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            host: crate::run::hostname(),
            uptime_s: self.health.started.elapsed().as_secs(),
            ready: reasons.is_empty(),
            reasons,
            warnings: self.health.warnings(),
            config: self.health.file.as_ref().map(|file| file.display().to_string()),
            devtools: self.devtools.is_some(),
            probes: self.coverage.found.lock().unwrap_or_else(PoisonError::into_inner).probes,
            missing: self.coverage.missing(),
            governed: governed.into_iter().map(|(level, n)| (level.as_str().to_owned(), n as u64)).collect(),
            memory_kept: self.memory.kept() as u64,
            memory_budget: self.memory.budget() as u64,
            spool,
            ledger: self.ledger.lines(&kernel),
            counts: ours.chain(kernels).collect(),
        };
        // Made of nothing that cannot be written.
        serde_json::to_string(&status).unwrap_or_default()
    }
}
