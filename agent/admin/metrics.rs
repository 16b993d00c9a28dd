//! What the agent counts of itself, in the text format of Prometheus.

use std::{fmt::Write as _, sync::PoisonError};

use ringtap_batch::blind::Spot;

use super::Told;
use crate::spool::Kind;

impl Told {
    /// All counts in the text format of Prometheus.
    pub(super) fn metrics(&self) -> String {
        let kernel = *self.kernel.read().unwrap_or_else(PoisonError::into_inner);
        let counts = self.ledger.named().into_iter().map(|(name, n)| (format!("ringtap_{name}_total"), n));
        let counted = kernel.named().into_iter().map(|(name, n)| (format!("ringtap_kernel_{name}_total"), n));
        let mut text = String::new();
        for (name, n) in counts.chain(counted) {
            let _ = write!(text, "# TYPE {name} counter\n{name} {n}\n");
        }
        for (name, n) in [("kept", self.memory.kept()), ("budget", self.memory.budget())] {
            let _ = write!(text, "# TYPE ringtap_memory_{name}_bytes gauge\nringtap_memory_{name}_bytes {n}\n");
        }
        self.spool(&mut text);
        self.probes(&mut text);
        self.governor(&mut text);
        self.blind(&mut text);
        self.rules(&mut text);
        text
    }

    /// What waits on the disk for its store.
    fn spool(&self, text: &mut String) {
        let Some(spool) = &self.spool else { return };
        let (bytes, bytes_max) = spool.bytes();
        for (name, n) in [("bytes", bytes), ("max_bytes", bytes_max)] {
            let _ = write!(text, "# TYPE ringtap_spool_{name} gauge\nringtap_spool_{name} {n}\n");
        }
        text.push_str("# TYPE ringtap_held gauge\n");
        for (name, kind) in [("events", Kind::Events), ("objects", Kind::Objects)] {
            let _ = writeln!(text, "ringtap_held{{kind=\"{name}\"}} {}", spool.held().get(kind));
        }
        text.push_str("# TYPE ringtap_spool_rows gauge\n");
        for waiting in spool.waiting() {
            let (log, store) = (escaped(&waiting.log), escaped(&waiting.store));
            let _ = writeln!(text, "ringtap_spool_rows{{log=\"{log}\",store=\"{store}\"}} {}", waiting.rows);
        }
    }

    /// Probes, and how late they came.
    fn probes(&self, text: &mut String) {
        let found = self.coverage.found.lock().unwrap_or_else(PoisonError::into_inner);
        #[expect(clippy::cast_precision_loss, reason = "seconds with a fraction")]
        let seconds = |ns: u64| ns as f64 / 1e9;
        let _ = write!(
            text,
            "# TYPE ringtap_probes gauge\nringtap_probes {}\n\
             # TYPE ringtap_late_files_total counter\nringtap_late_files_total {}\n\
             # TYPE ringtap_late_seconds_total counter\nringtap_late_seconds_total {}\n\
             # TYPE ringtap_late_longest_seconds gauge\nringtap_late_longest_seconds {}\n",
            found.probes,
            found.late,
            seconds(found.late_ns),
            seconds(found.longest_ns)
        );
    }

    /// Processes of which less is captured since their probes cost too much.
    fn governor(&self, text: &mut String) {
        let governed = self.coverage.processes.governed();
        text.push_str("# TYPE ringtap_governed_processes gauge\n");
        for (level, n) in governed.processes() {
            let _ = writeln!(text, "ringtap_governed_processes{{level=\"{}\"}} {n}", level.as_str());
        }
        text.push_str("# TYPE ringtap_governor_steps_total counter\n");
        for (from, to, n) in governed.counts() {
            let (from, to) = (from.as_str(), to.as_str());
            let _ = writeln!(text, "ringtap_governor_steps_total{{from=\"{from}\",to=\"{to}\"}} {n}");
        }
    }

    /// What could not be read, by program.
    fn blind(&self, text: &mut String) {
        let all = self.ledger.blind.all();
        for name in ["connections", "bytes"] {
            let _ = writeln!(text, "# TYPE ringtap_blind_{name}_total counter");
            for (spot, exe, amount) in all.iter().filter(|(spot, ..)| name == "bytes" || *spot == Spot::Tls) {
                let n = if name == "bytes" { amount.bytes } else { amount.connections };
                let labels = format!("kind=\"{}\",exe=\"{}\"", spot.as_str(), escaped(exe));
                let _ = writeln!(text, "ringtap_blind_{name}_total{{{labels}}} {n}");
            }
        }
    }

    /// Counts of each rule. Those of a configuration begin anew when it is reloaded.
    fn rules(&self, text: &mut String) {
        let stacks = self.stacks.read().unwrap_or_else(PoisonError::into_inner).clone();
        let rules = stacks.rules();
        for (name, kind) in [("rule_rows", "counter"), ("rule_errors", "counter"), ("rule_seconds", "counter")] {
            let _ = writeln!(text, "# TYPE ringtap_{name}_total {kind}");
            for (at, (stack, plugin, rule, counted)) in rules.iter().enumerate() {
                let labels = format!(
                    "stack=\"{}\",plugin=\"{plugin}\",rule=\"{}\",place=\"{at}\"",
                    escaped(stack),
                    escaped(rule)
                );
                let _ = match name {
                    "rule_rows" => {
                        let errors: u64 = counted.errors.iter().map(|(_, n)| n).sum();
                        [("match", counted.matches), ("other", counted.others), ("error", errors)].iter().try_for_each(
                            |(outcome, n)| {
                                writeln!(text, "ringtap_rule_rows_total{{{labels},outcome=\"{outcome}\"}} {n}")
                            },
                        )
                    }
                    "rule_errors" => counted.errors.iter().try_for_each(|(field, n)| {
                        writeln!(text, "ringtap_rule_errors_total{{{labels},missing=\"{}\"}} {n}", escaped(field))
                    }),
                    _ => writeln!(text, "ringtap_rule_seconds_total{{{labels}}} {}", counted.time.as_secs_f64()),
                };
            }
        }
    }
}

/// A label's value.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
