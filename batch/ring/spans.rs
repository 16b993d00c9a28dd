//! The spans of a ring that were lent, and how far the kernel may write again.

use std::collections::VecDeque;

#[cfg(loom)]
use loom::sync::Mutex;
#[cfg(not(loom))]
use std::sync::Mutex;

#[derive(Debug)]
struct Span {
    end: u64,
    returned: bool,
}

/// Spans that were handed out, oldest first, whichever thread gives them back and in whatever order.
#[derive(Debug)]
pub(crate) struct Spans(Mutex<VecDeque<Span>>);

impl Spans {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(VecDeque::new()))
    }

    /// Hands out the span that ends at `end`, which lies behind all others.
    pub(crate) fn lend(&self, end: u64) {
        self.with(|spans| spans.push_back(Span { end, returned: false }));
    }

    /// Takes back the span that ends at `end`, and tells `release` the end of the longest returned prefix, if it has
    /// grown. That is done under the lock: positions are told in the order in which they rise.
    pub(crate) fn give_back(&self, end: u64, release: impl FnOnce(u64)) {
        self.with(|spans| {
            if let Ok(at) = spans.binary_search_by_key(&end, |span| span.end) {
                spans[at].returned = true;
            }
            let mut position = None;
            while spans.front().is_some_and(|span| span.returned) {
                position = spans.pop_front().map(|span| span.end);
            }
            if let Some(position) = position {
                release(position);
            }
        });
    }

    fn with(&self, act: impl FnOnce(&mut VecDeque<Span>)) {
        // A panic under the lock leaves whole spans behind.
        match self.0.lock() {
            Ok(mut spans) => act(&mut spans),
            Err(poisoned) => act(&mut poisoned.into_inner()),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Against a list of all spans in which the returned prefix is counted anew each time.
        #[test]
        fn positions_are_those_of_a_naive_model(steps in prop::collection::vec((any::<bool>(), 1u64..5000, any::<usize>()), 1..200)) {
            let spans = Spans::new();
            let mut model: Vec<(u64, bool)> = Vec::new();
            let (mut end, mut position) = (0, 0);
            for (lend, len, which) in steps {
                if lend || model.iter().all(|(_, returned)| *returned) {
                    end += len;
                    spans.lend(end);
                    model.push((end, false));
                } else {
                    let open: Vec<usize> = (0..model.len()).filter(|at| !model[*at].1).collect();
                    let at = open[which % open.len()];
                    model[at].1 = true;
                    spans.give_back(model[at].0, |to| position = to);
                }
                let expected = model.iter().take_while(|(_, returned)| *returned).last().map_or(0, |(end, _)| *end);
                prop_assert_eq!(position, expected);
            }
        }
    }
}

/// Every order in which threads can meet. Run by `./dev model`.
#[cfg(all(test, loom))]
mod model {
    use loom::{
        sync::{
            Arc,
            atomic::{AtomicBool, AtomicU64, Ordering, fence},
        },
        thread,
    };

    use super::*;

    /// Three batches dropped by three threads: the position only rises, and ends at the end.
    #[test]
    fn positions_rise_whoever_drops() {
        loom::model(|| {
            let (spans, position) = (Arc::new(Spans::new()), Arc::new(AtomicU64::new(0)));
            [10, 20, 30].into_iter().for_each(|end| spans.lend(end));
            let give_back = |end: u64| {
                let (spans, position) = (spans.clone(), position.clone());
                move || {
                    spans.give_back(end, |to| {
                        assert!(position.load(Ordering::Relaxed) < to, "the position went back");
                        position.store(to, Ordering::Release);
                    });
                }
            };
            let others = [thread::spawn(give_back(30)), thread::spawn(give_back(20))];
            give_back(10)();
            for other in others {
                other.join().expect("it ends");
            }
            assert_eq!(position.load(Ordering::Acquire), 30);
        });
    }

    /// The words that the reader and a program share.
    struct Shared {
        reserved: AtomicU64,
        committed: AtomicBool,
        sleeps: AtomicBool,
        woken: AtomicBool,
    }

    /// A program with one record, against a reader that goes to sleep. True: it sleeps and nobody wakes it.
    fn sleeps_on(barrier: bool) -> bool {
        let shared = Arc::new(Shared {
            reserved: AtomicU64::new(0),
            committed: AtomicBool::new(false),
            sleeps: AtomicBool::new(false),
            woken: AtomicBool::new(false),
        });
        let program = {
            let shared = shared.clone();
            thread::spawn(move || {
                shared.reserved.store(1, Ordering::Release);
                if barrier {
                    fence(Ordering::SeqCst);
                }
                let wake = shared.sleeps.load(Ordering::Relaxed);
                shared.committed.store(true, Ordering::Release);
                if wake {
                    shared.woken.store(true, Ordering::Release);
                }
            })
        };
        // As in `Reader::wait`: the flag first, then the look at what is reserved.
        shared.sleeps.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let asleep = shared.reserved.load(Ordering::Acquire) == 0;
        program.join().expect("it ends");
        asleep && !shared.woken.load(Ordering::Acquire)
    }

    #[test]
    fn with_a_barrier_no_wake_up_is_lost() {
        loom::model(|| assert!(!sleeps_on(true)));
    }

    /// The programs have no barrier between reserving and looking at the flag: hence the bound of every sleep.
    #[test]
    #[should_panic(expected = "a wake-up is lost")]
    fn without_one_the_bound_of_the_sleep_is_needed() {
        loom::model(|| assert!(!sleeps_on(false), "a wake-up is lost"));
    }
}
