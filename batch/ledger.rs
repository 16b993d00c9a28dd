//! The ledger: what was seen, what was delivered, and what was lost and why.
//!
//! Every count moves once and is never taken back, so that at rest `seen = delivered + Σ lost[cause]` holds for
//! exchanges, events and objects; of the last two what came from the disk spool is added on the left, and what went there
//! on the right. Bytes and records are counted by the programs in the kernel and by the rings'
//! readers; [`Ledger::balance`] checks both.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering},
};

use ringtap_ring::abi::Counters;

use crate::blind::{Blind, Spot};

/// Programs that the table names.
const BLIND_SHOWN: usize = 5;

macro_rules! ledger {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts of the agent, shared by all its threads.
        #[derive(Debug, Default)]
        pub struct Ledger {
            $($(#[$doc])* pub $name: Count,)*
            /// What could not be read.
            pub blind: Blind,
        }

        impl Ledger {
            /// Names and values.
            #[must_use]
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get())),*]
            }
        }
    };
}

/// A count that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Takes over a count that is kept elsewhere and only grows.
    pub fn raise_to(&self, n: u64) {
        self.0.fetch_max(n, Ordering::Relaxed);
    }

    /// The value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

ledger! {
    /// Records that the readers took out of the shards' rings.
    records_read,
    /// Payload bytes in them.
    bytes_read,
    /// Payload bytes that were lent to the batches, not copied.
    bytes_borrowed,
    /// Payload bytes that were copied out of the rings.
    bytes_copied,
    /// Bytes that passed and that the capture file which is replayed lacks.
    bytes_uncaptured,
    /// Records that do not have the form that the programs write.
    records_malformed,
    /// Records cut short.
    records_unreadable,
    /// Exchanges that ended.
    exchanges_seen,
    /// Exchanges handed to the plugins.
    exchanges_delivered,
    /// Exchanges of a direction or process that the configuration does not want.
    exchanges_filtered,
    /// Exchanges with missing bytes; they are delivered, and say so.
    exchanges_damaged,
    /// Responses whose request was not seen.
    orphan_responses,
    /// Connections that were given up as not HTTP.
    connections_not_http,
    /// Connections dropped from a full table.
    connections_evicted,
    /// Events that were made.
    events_seen,
    /// Events that a store took.
    events_delivered,
    /// Events that a store refused, or could not take in time.
    events_failed,
    /// Events dropped because too many were waiting.
    events_queue_full,
    /// Events still waiting when the agent stopped.
    events_shutdown,
    /// Events that went to the disk spool.
    events_spooled,
    /// Events that came back from it, also those that agents before had left there, and those that were lost in it.
    events_unspooled,
    /// Events that the full spool dropped for newer ones.
    events_dropped,
    /// Events that waited longer in the spool than they may.
    events_expired,
    /// Events whose bytes in the spool are damaged.
    events_corrupt,
    /// Events that the agent before had in memory when it was killed.
    events_killed,
    /// Objects that were made.
    objects_seen,
    /// Objects that a store took.
    objects_delivered,
    /// Objects that a store took because it had them already: they are among those delivered.
    objects_unchanged,
    /// Objects that a store refused, or could not take in time.
    objects_failed,
    /// Objects dropped because too many were waiting.
    objects_queue_full,
    /// Objects still waiting when the agent stopped.
    objects_shutdown,
    /// Objects that went to the disk spool.
    objects_spooled,
    /// Objects that came back from it, also those that agents before had left there, and those that were lost in it.
    objects_unspooled,
    /// Objects that the full spool dropped for newer ones.
    objects_dropped,
    /// Objects that waited longer in the spool than they may.
    objects_expired,
    /// Objects whose bytes in the spool are damaged.
    objects_corrupt,
    /// Objects that the agent before had in memory when it was killed.
    objects_killed,

    /// Rows made for rollups, or found in what an earlier run has left.
    rollup_rows_seen,
    /// Rows in files that were committed: to disk, or to the object store.
    rollup_rows_written,
    /// Rows of files that could not be written, or that gave way where no more files may wait.
    rollup_rows_failed,
    /// Rows dropped because too many were waiting.
    rollup_rows_queue_full,
    /// Rows that were not written when the agent stopped.
    rollup_rows_shutdown,
    /// Rows in files that wait on disk for the object store until the next start.
    rollup_rows_kept,
    /// Rows that an earlier run had not written when it was killed.
    rollup_rows_killed,
    /// Rollup files that were committed.
    rollup_files,
    /// Bytes in them.
    rollup_bytes,
}

impl Ledger {
    /// Checks all sums, once nothing moves any more. An error names what does not add up.
    ///
    /// # Errors
    ///
    /// A line for each sum that does not.
    pub fn balance(&self, kernel: &Counters) -> Result<(), String> {
        let mut faults = String::new();
        let mut check = |what: &str, seen: u64, parts: &[u64]| {
            let sum: u64 = parts.iter().sum();
            if seen != sum {
                let _ = writeln!(faults, "{what}: {seen} seen, {sum} accounted for");
            }
        };
        let k = kernel;
        check(
            "bytes in the kernel",
            k.seen_bytes,
            &[
                k.captured_bytes,
                k.ring_full_bytes,
                k.fault_bytes,
                k.call_limit_bytes,
                k.sendfile_bytes,
                k.spliced_bytes,
                k.discarded_bytes,
                k.ciphertext_bytes,
                k.skipped_bytes,
                self.bytes_uncaptured.get(),
                k.unseen_bytes,
            ],
        );
        check("records", k.captured_records, &[self.records_read.get(), self.records_unreadable.get()]);
        check("bytes captured", k.captured_bytes, &[self.bytes_read.get()]);
        check("exchanges", self.exchanges_seen.get(), &[self.exchanges_delivered.get(), self.exchanges_filtered.get()]);
        check("events", self.events_seen.get() + self.events_unspooled.get(), &self.events_went());
        check("objects", self.objects_seen.get() + self.objects_unspooled.get(), &self.objects_went());
        self.balance_rollups(&mut check);
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    fn events_went(&self) -> [u64; 9] {
        [
            &self.events_delivered,
            &self.events_spooled,
            &self.events_failed,
            &self.events_queue_full,
            &self.events_shutdown,
            &self.events_dropped,
            &self.events_expired,
            &self.events_corrupt,
            &self.events_killed,
        ]
        .map(Count::get)
    }

    fn objects_went(&self) -> [u64; 9] {
        [
            &self.objects_delivered,
            &self.objects_spooled,
            &self.objects_failed,
            &self.objects_queue_full,
            &self.objects_shutdown,
            &self.objects_dropped,
            &self.objects_expired,
            &self.objects_corrupt,
            &self.objects_killed,
        ]
        .map(Count::get)
    }

    fn balance_rollups(&self, check: &mut dyn FnMut(&str, u64, &[u64])) {
        let mut parts = vec![self.rollup_rows_written.get()];
        parts.extend(self.rollup_losses().map(|(_, n)| n));
        check("rollup rows", self.rollup_rows_seen.get(), &parts);
    }

    /// What became of rows of rollups that were not written, by cause.
    fn rollup_losses(&self) -> [(&'static str, u64); 5] {
        [
            ("failed", self.rollup_rows_failed.get()),
            ("queue_full", self.rollup_rows_queue_full.get()),
            ("shutdown", self.rollup_rows_shutdown.get()),
            ("kept", self.rollup_rows_kept.get()),
            ("killed", self.rollup_rows_killed.get()),
        ]
    }

    /// The ledger as a table for people, and whether it adds up.
    #[must_use]
    pub fn table(&self, kernel: &Counters) -> String {
        let verdict =
            self.balance(kernel).map_or_else(|faults| format!("NOT BALANCED: {faults}"), |()| "balanced\n".into());
        self.lines(kernel) + "  " + &verdict
    }

    /// One line a quantity, losses by cause, zeros left out.
    #[must_use]
    pub fn lines(&self, kernel: &Counters) -> String {
        let mut text = String::from("ledger\n");
        let mut line = |what: &str, seen: u64, delivered: u64, others: &[(&str, u64)]| {
            let _ = write!(text, "  {what:<10} seen {seen:>12}  delivered {delivered:>12}");
            for (cause, n) in others.iter().filter(|(_, n)| *n > 0) {
                let _ = write!(text, "  {cause} {n}");
            }
            text.push('\n');
        };
        let k = kernel;
        line(
            "bytes",
            k.seen_bytes,
            self.bytes_read.get(),
            &[
                ("ring_full", k.ring_full_bytes),
                ("unseen", k.unseen_bytes),
                ("fault", k.fault_bytes),
                ("call_limit", k.call_limit_bytes),
                ("sendfile", k.sendfile_bytes),
                ("splice", k.spliced_bytes),
                ("discarded", k.discarded_bytes),
                ("ciphertext", k.ciphertext_bytes),
                ("skipped", k.skipped_bytes),
                ("uncaptured", self.bytes_uncaptured.get()),
            ],
        );
        line(
            "records",
            k.captured_records + k.ring_full_records,
            self.records_read.get(),
            &[("ring_full", k.ring_full_records), ("malformed", self.records_malformed.get())],
        );
        line(
            "exchanges",
            self.exchanges_seen.get(),
            self.exchanges_delivered.get(),
            &[
                ("filtered", self.exchanges_filtered.get()),
                ("of which damaged", self.exchanges_damaged.get()),
                ("orphan_responses", self.orphan_responses.get()),
            ],
        );
        let went = self.objects_went();
        let causes = went_causes(&went, self.objects_unspooled.get());
        let causes = [&[("of which unchanged", self.objects_unchanged.get())], causes.as_slice()].concat();
        line("objects", self.objects_seen.get(), self.objects_delivered.get(), &causes);
        let went = self.events_went();
        let causes = went_causes(&went, self.events_unspooled.get());
        line("events", self.events_seen.get(), self.events_delivered.get(), &causes);
        if self.rollup_rows_seen.get() > 0 {
            line("rollups", self.rollup_rows_seen.get(), self.rollup_rows_written.get(), &self.rollup_losses());
        }
        for (what, n) in [
            ("connections given up as not HTTP", self.connections_not_http.get()),
            ("connections dropped from a full table", self.connections_evicted.get() + k.connections_full),
            ("TLS calls not captured, tables full", k.calls_full + k.tls_objects_full),
            ("plaintext bytes whose socket is not known", k.unattributed_bytes),
            ("bytes read after TCP had closed", k.after_close_bytes),
            ("TLS calls whose byte count could not be read", k.counts_unread),
            ("socket calls of 32-bit programs, not captured", k.compat_calls),
            ("process events lost", k.control_lost),
            ("ends of connections lost, ring and table full", k.ends_lost),
            ("connections left out: probes cost their process too much", k.governed_connections),
        ] {
            if n > 0 {
                let _ = writeln!(text, "  {n} {what}");
            }
        }
        self.show_blind(&mut text);
        text
    }

    /// The programs of which most could not be read.
    fn show_blind(&self, text: &mut String) {
        let mut all = self.blind.all();
        all.sort_by_key(|(.., amount)| std::cmp::Reverse(amount.bytes));
        for (spot, exe, amount) in all.iter().take(BLIND_SHOWN) {
            let what = match spot {
                Spot::Tls => format!("not readable: {} TLS connections", amount.connections),
                Spot::Http3 => "not decoded: HTTP/3".to_owned(),
            };
            let _ = writeln!(text, "  {what} of {exe}, {} bytes", amount.bytes);
        }
        if all.len() > BLIND_SHOWN {
            let _ = writeln!(text, "  and of {} more programs", all.len() - BLIND_SHOWN);
        }
    }
}

/// Where things went besides to their stores, and what came back from the spool.
fn went_causes(went: &[u64; 9], unspooled: u64) -> [(&'static str, u64); 9] {
    let [_, spooled, failed, queue_full, shutdown, dropped, expired, corrupt, killed] = *went;
    [
        ("from the spool", unspooled),
        ("spooled", spooled),
        ("failed", failed),
        ("queue_full", queue_full),
        ("shutdown", shutdown),
        ("spool_full", dropped),
        ("expired", expired),
        ("corrupt", corrupt),
        ("killed", killed),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_object_is_named() {
        let ledger = Ledger::default();
        assert_eq!(ledger.balance(&Counters::default()), Ok(()));
        ledger.objects_seen.add(2);
        ledger.objects_delivered.add(1);
        let fault = ledger.balance(&Counters::default()).expect_err("one is missing");
        assert_eq!(fault, "objects: 2 seen, 1 accounted for\n");
        assert!(ledger.table(&Counters::default()).contains("NOT BALANCED"));
    }
}
