//! What the governor has decided, for those who act on it and those who tell of it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Mutex, PoisonError, RwLock,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::probe::governor::{Level, Step};

/// Steps that wait to be told of; beyond, they are only counted and logged.
const WAITING_MAX: usize = 1024;
/// Of one in a thousand.
const PER_MILLE: f64 = 1000.0;

/// Levels of processes, and the steps between them.
#[derive(Debug, Default)]
pub struct Governed {
    /// Those that are not captured in full.
    levels: RwLock<HashMap<u32, Level>>,
    waiting: Mutex<Vec<Step>>,
    counts: Mutex<BTreeMap<(Level, Level), u64>>,
    /// What probes may cost, in thousandths of a process's processor time; 0: there is no governor.
    budget: AtomicU32,
}

impl Governed {
    /// What probes may cost, as a share of a process's processor time; `None`: there is no governor.
    #[must_use]
    pub fn budget(&self) -> Option<f64> {
        let budget = self.budget.load(Ordering::Relaxed);
        (budget > 0).then(|| f64::from(budget) / PER_MILLE)
    }

    /// Sets it, in thousandths; 0: there is to be no governor.
    pub fn set_budget(&self, per_mille: u32) {
        self.budget.store(per_mille, Ordering::Relaxed);
    }

    /// Where a process stands.
    #[must_use]
    pub fn level(&self, tgid: u32) -> Level {
        self.levels.read().unwrap_or_else(PoisonError::into_inner).get(&tgid).copied().unwrap_or_default()
    }

    /// Takes note of a step.
    pub fn step(&self, step: Step) {
        self.set(step.tgid, step.to);
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry((step.from, step.to)).or_default() += 1;
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < WAITING_MAX {
            waiting.push(step);
        }
    }

    /// The process has ended, or runs another program.
    pub fn forget(&self, tgid: u32) {
        if self.level(tgid) != Level::Full {
            self.set(tgid, Level::Full);
        }
    }

    fn set(&self, tgid: u32, level: Level) {
        let mut levels = self.levels.write().unwrap_or_else(PoisonError::into_inner);
        if level == Level::Full {
            levels.remove(&tgid)
        } else {
            levels.insert(tgid, level)
        };
    }

    /// Steps that were not told of yet, each once.
    pub fn take_steps(&self) -> Vec<Step> {
        std::mem::take(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How often processes went from one level to another.
    #[must_use]
    pub fn counts(&self) -> Vec<(Level, Level, u64)> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|((from, to), n)| (*from, *to, *n)).collect()
    }

    /// How many processes are at each level but the first.
    #[must_use]
    pub fn processes(&self) -> BTreeMap<Level, usize> {
        let levels = self.levels.read().unwrap_or_else(PoisonError::into_inner);
        let mut counts: BTreeMap<Level, usize> = Level::ALL[1..].iter().map(|level| (*level, 0)).collect();
        levels.values().for_each(|level| *counts.entry(*level).or_default() += 1);
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_seen_by_all_who_ask() {
        let governed = Governed::default();
        assert_eq!((governed.budget(), governed.level(7)), (None, Level::Full));
        governed.set_budget(50);
        assert_eq!(governed.budget(), Some(0.05));
        governed.step(Step { tgid: 7, from: Level::Full, to: Level::Headers, share: 0.2 });
        assert_eq!((governed.level(7), governed.level(8)), (Level::Headers, Level::Full));
        assert_eq!(governed.take_steps().len(), 1);
        assert_eq!(governed.take_steps(), []);
        assert_eq!(governed.counts(), [(Level::Full, Level::Headers, 1)]);
        assert_eq!(governed.processes()[&Level::Headers], 1);
        governed.forget(7);
        assert_eq!((governed.level(7), governed.processes()[&Level::Headers]), (Level::Full, 0));
    }
}
