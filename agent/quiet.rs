//! A log that cannot be flooded: a matter that repeats is said a few times, and then counted.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::{Event, Metadata, field};
use tracing_subscriber::layer::{Context, Filter};

/// How often a matter is said in a window.
const SAID_MAX: u32 = 10;
/// After so long it may be said again.
const WINDOW: Duration = Duration::from_secs(10);

/// Matters that are remembered; beyond, all are forgotten.
const MATTERS_MAX: usize = 1000;

/// Lets the same place of the code say the same a few times in a window. When it is said again, it is told how often it was
/// left out.
#[derive(Debug, Default)]
pub struct Quiet {
    matters: Mutex<HashMap<u64, Said>>,
}

/// What an event says, as a number. Values that always differ, such as times and counts, are numbers and left out.
struct Words(DefaultHasher);

impl field::Visit for Words {
    fn record_u64(&mut self, _: &field::Field, _: u64) {}

    fn record_i64(&mut self, _: &field::Field, _: i64) {}

    fn record_f64(&mut self, _: &field::Field, _: f64) {}

    fn record_debug(&mut self, field: &field::Field, value: &dyn std::fmt::Debug) {
        (field.name(), format!("{value:?}")).hash(&mut self.0);
    }
}

fn matter(event: &Event<'_>) -> u64 {
    let mut words = Words(DefaultHasher::new());
    event.metadata().callsite().hash(&mut words.0);
    event.record(&mut words);
    words.0.finish()
}

#[derive(Debug)]
struct Said {
    since: Instant,
    times: u32,
}

/// What may be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Says,
    /// It may; before that so many were left out.
    SaysAfter(u32),
    LeftOut,
}

impl Quiet {
    fn judge(&self, matter: u64, now: Instant) -> Verdict {
        let mut matters = self.matters.lock().unwrap_or_else(PoisonError::into_inner);
        if matters.len() >= MATTERS_MAX {
            matters.clear();
        }
        let said = matters.entry(matter).or_insert(Said { since: now, times: 0 });
        if now.duration_since(said.since) > WINDOW {
            let left_out = said.times.saturating_sub(SAID_MAX);
            *said = Said { since: now, times: 1 };
            return if left_out > 0 { Verdict::SaysAfter(left_out) } else { Verdict::Says };
        }
        said.times = said.times.saturating_add(1);
        if said.times <= SAID_MAX { Verdict::Says } else { Verdict::LeftOut }
    }
}

impl<S> Filter<S> for Quiet {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let metadata = event.metadata();
        // What people ask for with --log-level debug they get whole.
        if *metadata.level() > tracing::Level::INFO {
            return true;
        }
        match self.judge(matter(event), Instant::now()) {
            Verdict::Says => true,
            Verdict::LeftOut => false,
            Verdict::SaysAfter(left_out) => {
                let (file, line) = (metadata.file().unwrap_or_default(), metadata.line().unwrap_or_default());
                tracing::warn!(left_out, "more lines like the next one were left out ({file}:{line})");
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_repeats_is_counted() {
        let (quiet, begun) = (Quiet::default(), Instant::now());
        let verdicts: Vec<Verdict> = (0..30).map(|_| quiet.judge(7, begun)).collect();
        assert_eq!(verdicts.iter().filter(|verdict| **verdict == Verdict::Says).count(), 10);
        assert_eq!(quiet.judge(8, begun), Verdict::Says, "another matter");
        assert_eq!(quiet.judge(7, begun + WINDOW * 2), Verdict::SaysAfter(20));
        assert_eq!(quiet.judge(7, begun + WINDOW * 4), Verdict::Says);
    }
}
