//! What the agent holds in memory, counted where the count survives it: an agent that was killed cannot say what it took
//! with it, the next one can.

use std::{
    io,
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use ringtap_batch::{ledger::Ledger, ring::CountPage};

use super::open_own;

/// Counts of what waits in memory for stores.
#[derive(Debug, Clone, Default)]
pub struct Held(Option<Arc<CountPage>>);

/// Kinds of things, by their place in the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Events.
    Events = 0,
    /// Objects.
    Objects = 1,
}

impl Held {
    /// Maps the file and counts what it still holds as lost by the agent before.
    ///
    /// # Errors
    ///
    /// The file cannot be made or mapped.
    pub fn open(path: &Path, ledger: &Ledger) -> io::Result<Self> {
        let page = CountPage::map(&open_own(path)?)?;
        let lost = |kind: Kind| page.count(kind as usize).swap(0, Ordering::Relaxed);
        let (events, objects) = (lost(Kind::Events), lost(Kind::Objects));
        if events + objects > 0 {
            tracing::error!(
                "the agent before was killed: {events} events and {objects} objects that it had in memory are lost"
            );
        }
        ledger.events_seen.add(events);
        ledger.events_killed.add(events);
        ledger.objects_seen.add(objects);
        ledger.objects_killed.add(objects);
        Ok(Self(Some(Arc::new(page))))
    }

    /// So many more are held.
    pub fn add(&self, kind: Kind, n: u64) {
        if let Some(page) = &self.0 {
            page.count(kind as usize).fetch_add(n, Ordering::Relaxed);
        }
    }

    /// How many are held; 0 where that is not counted.
    #[must_use]
    pub fn get(&self, kind: Kind) -> u64 {
        self.0.as_ref().map_or(0, |page| page.count(kind as usize).load(Ordering::Relaxed))
    }

    /// So many fewer.
    pub fn sub(&self, kind: Kind, n: u64) {
        if let Some(page) = &self.0 {
            page.count(kind as usize).fetch_sub(n, Ordering::Relaxed);
        }
    }
}
