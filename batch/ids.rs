//! Identifiers of connections and requests: 20 characters, sorted by time, unique among agents.

use std::sync::atomic::{AtomicU32, Ordering};

const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

/// Makes ids of the xid form: seconds, machine, process, counter; base32hex in lower case.
#[derive(Debug)]
pub struct Ids {
    machine: [u8; 3],
    process: u16,
    counter: AtomicU32,
}

impl Ids {
    /// `machine` and `process` tell agents apart; any values will do that differ between them.
    #[must_use]
    pub fn new(machine: [u8; 3], process: u16, seed: u32) -> Self {
        Self { machine, process, counter: AtomicU32::new(seed) }
    }

    /// A new id.
    pub fn next(&self, wall_ns: i64) -> String {
        // Xids hold 32 bits of seconds, until 2106.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the format has 32 bits")]
        let seconds = (wall_ns / 1_000_000_000) as u32;
        let count = self.counter.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let mut raw = [0u8; 12];
        raw[..4].copy_from_slice(&seconds.to_be_bytes());
        raw[4..7].copy_from_slice(&self.machine);
        raw[7..9].copy_from_slice(&self.process.to_be_bytes());
        raw[9..].copy_from_slice(&count[1..]);
        encode(raw)
    }
}

/// 96 bits as 20 digits of five bits, the last one padded.
fn encode(raw: [u8; 12]) -> String {
    let mut wide = [0u8; 16];
    wide[..12].copy_from_slice(&raw);
    let bits = u128::from_be_bytes(wide);
    (0..20)
        .map(|i| {
            let digit = usize::try_from((bits >> (123 - 5 * i)) & 31).expect("five bits");
            char::from(DIGITS[digit])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector of the format's own documentation.
    #[test]
    fn encoding_is_the_published_one() {
        let raw = [0x4d, 0x88, 0xe1, 0x5b, 0x60, 0xf4, 0x86, 0xe4, 0x28, 0x41, 0x2d, 0xc9];
        assert_eq!(encode(raw), "9m4e2mr0ui3e8a215n4g");
    }

    #[test]
    fn ids_differ() {
        let ids = Ids::new([1, 2, 3], 4, u32::MAX);
        assert_ne!(ids.next(0), ids.next(0));
    }
}
