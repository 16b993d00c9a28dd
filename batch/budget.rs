//! How much memory may be kept, and how much is.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that may be kept, from the inside out. Over a budget bodies are cut, then the connections that were silent
/// longest go; both say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budgets {
    /// Of one body.
    pub body: usize,
    /// Of the open exchanges of one connection.
    pub connection: usize,
    /// Of the connections of one shard.
    pub shard: usize,
    /// Of all shards, and of what waits for the stores.
    pub agent: usize,
}

impl Default for Budgets {
    fn default() -> Self {
        Self { body: 2 << 20, connection: 16 << 20, shard: 512 << 20, agent: 1 << 30 }
    }
}

/// What the whole agent keeps.
#[derive(Debug)]
pub struct Memory {
    kept: AtomicUsize,
    budget: AtomicUsize,
}

impl Memory {
    /// Nothing is kept yet.
    #[must_use]
    pub fn new(budget: usize) -> Self {
        Self { kept: AtomicUsize::new(0), budget: AtomicUsize::new(budget) }
    }

    /// Bytes that are kept.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }

    /// Bytes that may be kept.
    #[must_use]
    pub fn budget(&self) -> usize {
        self.budget.load(Ordering::Relaxed)
    }

    /// Sets what may be kept from now on.
    pub fn set_budget(&self, budget: usize) {
        self.budget.store(budget, Ordering::Relaxed);
    }

    /// Takes note that somebody who kept `before` bytes keeps `now`.
    pub fn changed(&self, before: usize, now: usize) {
        if now >= before {
            self.kept.fetch_add(now - before, Ordering::Relaxed);
        } else {
            self.kept.fetch_sub(before - now, Ordering::Relaxed);
        }
    }

    /// Keeps `bytes` more, if there is room for them.
    #[must_use]
    pub fn take(&self, bytes: usize) -> bool {
        let room = |kept: usize| kept.checked_add(bytes).filter(|kept| *kept <= self.budget());
        self.kept.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back() {
        let memory = Memory::new(100);
        assert!(memory.take(60) && !memory.take(41) && memory.take(40));
        memory.changed(60, 10);
        assert_eq!((memory.kept(), memory.take(50)), (50, true));
    }
}
