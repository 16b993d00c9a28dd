//! `ringtap status`: what a running agent says of itself, for people.

use std::{fmt::Write as _, net::SocketAddr, time::Duration};

use crate::{admin::Status, ask::ask};

/// Asks the agent at `address`.
///
/// # Errors
///
/// None runs there, or what runs there is no agent.
pub fn status(address: SocketAddr) -> anyhow::Result<Status> {
    let status = ask(address, "/system/status")?;
    status.ok_or_else(|| anyhow::anyhow!("no agent answers at {address}; `--agent` says where it serves its metrics"))
}

impl Status {
    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        const MIB: u64 = 1 << 20;
        let mut text = String::new();
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "{name:<10} {value}");
        };
        let state =
            if self.ready { "capturing".to_owned() } else { format!("NOT CAPTURING: {}", self.reasons.join("; ")) };
        line("agent", &format!("{} on {}, process {}", self.version, self.host, self.pid));
        line("state", &state);
        self.warnings.iter().for_each(|warning| line("warning", warning));
        line("up", &spoken(Duration::from_secs(self.uptime_s)));
        line("config", self.config.as_deref().unwrap_or("none: everything is captured"));
        line("probes", &self.probes.to_string());
        self.missing.iter().for_each(|missing| line("kernel", &format!("lacks {missing}")));
        line("memory", &format!("{} MiB of traffic kept, of {} MiB", self.memory_kept / MIB, self.memory_budget / MIB));
        match &self.spool {
            None => line("spool", "off"),
            Some(spool) => {
                line("spool", &format!("{} MiB of {} MiB", spool.bytes / MIB, spool.max_bytes / MIB));
                let waiting = spool.rows.iter().filter(|(_, rows)| **rows > 0);
                waiting.for_each(|(store, rows)| line("", &format!("{rows} wait for {store}")));
            }
        }
        let governed: Vec<String> =
            self.governed.iter().filter(|(_, n)| **n > 0).map(|(l, n)| format!("{n} {l}")).collect();
        if !governed.is_empty() {
            line("governor", &format!("processes of which less is captured: {}", governed.join(", ")));
        }
        line("devtools", if self.devtools { "on" } else { "off" });
        text + "\n" + &self.ledger
    }
}

/// The two largest units.
fn spoken(time: Duration) -> String {
    let s = time.as_secs();
    match (s / 86_400, s / 3600 % 24, s / 60 % 60, s % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) => format!("{m} min {s} s"),
        (0, h, m, _) => format!("{h} h {m} min"),
        (d, h, ..) => format!("{d} d {h} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_two_units() {
        let times = [59, 61, 3661, 90_000].map(|s| spoken(Duration::from_secs(s)));
        assert_eq!(times, ["59 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]);
    }

    #[test]
    fn what_stands_in_the_way_is_said_first() {
        let status = Status { reasons: vec!["it stops".into()], warnings: vec!["w".into()], ..Status::default() };
        let text = status.text();
        assert!(text.contains("NOT CAPTURING: it stops") && text.contains("warning    w"), "{text}");
    }
}
