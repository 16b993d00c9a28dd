//! Texts of a record that are made: dates, and the body of each type of event.

use ringtap_batch::clock::rfc3339;

/// RFC 3339 with nanoseconds, as [`rfc3339`] writes it. Rows that follow one another mostly lie in one second: of them
/// only the last nine digits are written anew.
pub(super) struct Dates {
    second: Option<i64>,
    text: [u8; LEN],
}

/// `2023-11-14T22:13:20.000000001Z`.
const LEN: usize = 30;
const FRACTION: std::ops::Range<usize> = 20..29;
const NS: i64 = 1_000_000_000;

impl Default for Dates {
    fn default() -> Self {
        Self { second: None, text: [0; LEN] }
    }
}

impl Dates {
    pub(super) fn of(&mut self, wall_ns: i64) -> &[u8] {
        let second = wall_ns.div_euclid(NS);
        if self.second != Some(second) {
            let text = rfc3339(wall_ns);
            // What 64 bits of nanoseconds can say has years of four digits.
            if text.len() != LEN {
                return &[];
            }
            self.text.copy_from_slice(text.as_bytes());
            self.second = Some(second);
        }
        let mut rest = wall_ns.rem_euclid(NS);
        for digit in self.text[FRACTION].iter_mut().rev() {
            *digit = b'0' + u8::try_from(rest % 10).unwrap_or_default();
            rest /= 10;
        }
        &self.text
    }
}

/// A part of a body's text.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    Words(&'static str),
    /// The field of this path.
    Field(&'static str),
}

/// The body of an event's type; `None`: its name.
pub(super) fn body(kind: &str) -> Option<&'static [Part]> {
    use Part::{Field, Words};
    Some(match kind {
        "request" | "grpc_request" => {
            &[Words("HTTP "), Field("method"), Words(" ("), Field("status"), Words(") "), Field("url")]
        }
        "issue" => &[
            Words("HTTP Error: "),
            Field("method"),
            Words(" ("),
            Field("status"),
            Words(") "),
            Field("url"),
            Words(" :: "),
            Field("error"),
        ],
        "process_governed" => &[
            Words("Capture of "),
            Field("process.exe"),
            Words(" ("),
            Field("process.pid"),
            Words("): "),
            Field("from"),
            Words(" → "),
            Field("to"),
        ],
        "pii_entity" => &[Words("PII detected: "), Field("entityType"), Words(" (score: "), Field("score"), Words(")")],
        "artifact_record" => &[Words("Artifact stored: "), Field("type")],
        "connection" => &[
            Words("Connection: ["),
            Field("direction"),
            Words(" via "),
            Field("l7Protocol"),
            Words("] "),
            Field("system.hostname"),
            Words(" → "),
            Field("meta.endpointId"),
        ],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_clock() {
        let mut dates = Dates::default();
        for ns in [0, 1, -1, NS - 1, NS, 1_700_000_000_000_000_001, 1_700_000_000_900_000_000, i64::MIN, i64::MAX] {
            assert_eq!(dates.of(ns), rfc3339(ns).as_bytes(), "{ns}");
        }
    }
}
