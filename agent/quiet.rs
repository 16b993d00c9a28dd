//! A log that cannot be flooded: a matter that repeats is said a few times, and then counted.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::{Event, Metadata, callsite::Identifier};
use tracing_subscriber::layer::{Context, Filter};

/// How often a matter is said in a window.
const SAID_MAX: u32 = 10;
/// After so long it may be said again.
const WINDOW: Duration = Duration::from_secs(10);

/// Lets each place of the code speak a few times in a window. What is said next from there tells how much was left out.
#[derive(Debug, Default)]
pub struct Quiet {
    places: Mutex<HashMap<Identifier, Said>>,
}

#[derive(Debug)]
struct Said {
    since: Instant,
    times: u32,
}

/// What a place may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Says,
    /// It may; before that so many were left out.
    SaysAfter(u32),
    LeftOut,
}

impl Quiet {
    fn judge(&self, place: Identifier, now: Instant) -> Verdict {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let said = places.entry(place).or_insert(Said { since: now, times: 0 });
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
        match self.judge(metadata.callsite(), Instant::now()) {
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
        use tracing::{Callsite as _, callsite::DefaultCallsite};
        static PLACE: DefaultCallsite = DefaultCallsite::new(&METADATA);
        static METADATA: Metadata<'static> = tracing::metadata! {
            name: "test", target: "test", level: tracing::Level::WARN, fields: &[], callsite: &PLACE,
            kind: tracing::metadata::Kind::EVENT
        };
        let (quiet, place, begun) = (Quiet::default(), PLACE.metadata().callsite(), Instant::now());
        let verdicts: Vec<Verdict> = (0..30).map(|_| quiet.judge(place.clone(), begun)).collect();
        assert_eq!(verdicts.iter().filter(|verdict| **verdict == Verdict::Says).count(), 10);
        assert_eq!(quiet.judge(place.clone(), begun + WINDOW * 2), Verdict::SaysAfter(20));
        assert_eq!(quiet.judge(place, begun + WINDOW * 4), Verdict::Says);
    }
}
