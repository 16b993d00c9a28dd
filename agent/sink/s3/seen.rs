//! Which objects a store has, as far as it was told lately.
//!
//! Bounded: two sets of half of the digests each, which take turns. An entry is forgotten after three hours at most, so
//! that what a bucket's rules delete is stored again.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Digests of each set: 65,536 are known at most, about 3 MiB.
const HALF: usize = 32_768;
/// How long a set takes entries.
const TURN: Duration = Duration::from_hours(1);

/// A SHA-1.
type Digest = [u8; 20];

/// Digests of objects that the store has.
pub(super) struct Seen(Mutex<Sets>);

struct Sets {
    young: HashSet<Digest, foldhash::fast::RandomState>,
    old: HashSet<Digest, foldhash::fast::RandomState>,
    since: Instant,
}

impl Seen {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Sets { young: HashSet::default(), old: HashSet::default(), since: Instant::now() }))
    }

    pub(super) fn has(&self, digest: &str) -> bool {
        let Some(digest) = parse(digest) else { return false };
        self.with(|sets| sets.young.contains(&digest) || sets.old.contains(&digest))
    }

    /// Something else than a SHA-1 is not remembered: it is asked for each time.
    pub(super) fn add(&self, digest: &str) {
        if let Some(digest) = parse(digest) {
            self.with(|sets| sets.young.insert(digest));
        }
    }

    fn with<T>(&self, look: impl FnOnce(&mut Sets) -> T) -> T {
        // Whoever panicked in here left a set that lacks an entry at worst.
        let mut sets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = sets.since.elapsed();
        if sets.young.len() >= HALF || idle >= TURN {
            sets.turn(idle);
        }
        look(&mut sets)
    }
}

impl Sets {
    fn turn(&mut self, idle: Duration) {
        let young = std::mem::take(&mut self.young);
        self.old = if idle < 2 * TURN { young } else { HashSet::default() };
        self.since = Instant::now();
    }
}

fn parse(digest: &str) -> Option<Digest> {
    let mut bytes = [0; 20];
    if digest.len() != 40 || !digest.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, two) in bytes.iter_mut().zip(digest.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_known_until_there_are_too_many_or_they_are_old() {
        let seen = Seen::new();
        let name = |n: usize| format!("{n:040x}");
        seen.add(&name(0));
        assert!(seen.has(&name(0)) && !seen.has(&name(1)));
        for n in 1..=HALF {
            seen.add(&name(n));
        }
        assert!(seen.has(&name(0)), "the set before is still asked");
        for n in HALF..=3 * HALF {
            seen.add(&name(n));
        }
        assert!(!seen.has(&name(0)) && seen.has(&name(3 * HALF)));
        seen.with(|sets| assert!(sets.young.len() <= HALF && sets.old.len() <= HALF));
        seen.with(|sets| sets.turn(2 * TURN));
        assert!(!seen.has(&name(3 * HALF)), "after two hours without a look it is asked for again");
    }

    #[test]
    fn only_digests_are_known() {
        let seen = Seen::new();
        for name in ["", "abc", "zz00000000000000000000000000000000000000", "+f00000000000000000000000000000000000000"]
        {
            seen.add(name);
            assert!(!seen.has(name), "{name}");
        }
    }
}
