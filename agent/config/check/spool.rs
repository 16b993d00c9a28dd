//! Checks the spool.

use std::time::Duration;

use super::Checker;
use crate::config::{
    checked::{Spool, parse_size, parse_span},
    written,
};

/// Bytes at most if nothing is said.
const BYTES: u64 = 1 << 30;
/// Less could not hold what is written at once.
const BYTES_MIN: u64 = 1 << 20;
/// How long something waits if nothing is said.
const AGE: Duration = Duration::from_hours(24);

impl Checker<'_> {
    /// `None`: there is none.
    pub(super) fn spool(&mut self, written: &written::Spool) -> Option<Spool> {
        let bytes = written.max_bytes.as_deref().map(parse_size).transpose();
        let bytes_max = bytes.unwrap_or_else(|reason| {
            self.refuse("services.spool.max_bytes", reason);
            None
        });
        let bytes_max = bytes_max.map_or(BYTES, |bytes| bytes as u64);
        if bytes_max < BYTES_MIN {
            self.refuse("services.spool.max_bytes", "a spool needs at least 1mb");
        }
        let age = written.max_age.as_deref().map(parse_span).transpose();
        let age_max = age.unwrap_or_else(|reason| {
            self.refuse("services.spool.max_age", reason);
            None
        });
        if age_max.is_some_and(|age| age.is_zero()) {
            self.refuse("services.spool.max_age", "nothing would ever wait; `enabled: false` says that");
        }
        let path = written.path.clone();
        if path.as_ref().is_some_and(|path| !path.is_absolute()) {
            self.refuse("services.spool.path", "expected a path from the root");
        }
        let spool = Spool { path, bytes_max, age_max: age_max.unwrap_or(AGE), when_full: written.when_full };
        written.enabled.then_some(spool)
    }
}
