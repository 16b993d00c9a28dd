//! What passed and could not be read, by the program that moved it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Programs that are told apart; all others share one entry.
const PROGRAMS_MAX: usize = 1000;
/// What stands for the others.
const OTHERS: &str = "other";

/// Kinds of traffic that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Spot {
    /// TLS on a socket whose clear text no probe has seen: the program's library is not known.
    Tls,
    /// UDP at port 443: HTTP/3 is not decoded.
    Http3,
}

impl Spot {
    /// As metrics call it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Http3 => "http3",
        }
    }
}

/// How much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    /// Connections, as far as they can be told apart.
    pub connections: u64,
    /// Bytes on the sockets, of both directions.
    pub bytes: u64,
}

/// Amounts by kind and program. They only grow.
#[derive(Debug, Default)]
pub struct Blind(Mutex<BTreeMap<(Spot, String), Amount>>);

impl Blind {
    /// Adds what a program has moved.
    pub fn add(&self, spot: Spot, exe: &str, connections: u64, bytes: u64) {
        let mut all = self.lock();
        let full = all.len() >= PROGRAMS_MAX;
        let exe = if full && !all.contains_key(&(spot, exe.to_owned())) { OTHERS } else { exe };
        let amount = all.entry((spot, exe.to_owned())).or_default();
        amount.connections = amount.connections.saturating_add(connections);
        amount.bytes = amount.bytes.saturating_add(bytes);
    }

    /// Kind, program and amount, in this order.
    #[must_use]
    pub fn all(&self) -> Vec<(Spot, String, Amount)> {
        self.lock().iter().map(|((spot, exe), amount)| (*spot, exe.clone(), *amount)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Spot, String), Amount>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_bounded_and_nothing_is_lost() {
        let blind = Blind::default();
        for n in 0..PROGRAMS_MAX * 2 {
            blind.add(Spot::Tls, &format!("/bin/{n}"), 1, 10);
        }
        blind.add(Spot::Tls, "/bin/0", 1, 10);
        let all = blind.all();
        assert_eq!(all.len(), PROGRAMS_MAX + 1);
        assert_eq!(all.iter().map(|(.., amount)| amount.connections).sum::<u64>(), PROGRAMS_MAX as u64 * 2 + 1);
        assert!(all.contains(&(Spot::Tls, "/bin/0".to_owned(), Amount { connections: 2, bytes: 20 })));
    }
}
