//! Pauses between attempts: each about twice the one before, and no two agents in step.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

use tokio::time::Instant;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);
/// What a store asks for is believed up to this.
const ASKED_MAX: Duration = Duration::from_mins(5);

/// A store that does not take anything now.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    pause: Duration,
    /// When it is tried again.
    pub until: Instant,
}

impl Backoff {
    /// After an attempt in vain; `after`: how long the store wants to be left alone.
    #[must_use]
    pub fn next(before: Option<Self>, after: Option<Duration>) -> Self {
        let pause = before.map_or(FIRST, |before| (before.pause * 2).min(LONGEST));
        let wait = jittered(pause, RandomState::new().hash_one(0)).max(after.unwrap_or_default().min(ASKED_MAX));
        Self { pause, until: Instant::now() + wait }
    }
}

/// Between half of a pause and one and a half.
fn jittered(pause: Duration, random: u64) -> Duration {
    let thousandths = u32::try_from(500 + random % 1001).unwrap_or(1000);
    pause * thousandths / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_differ() {
        let pause = Duration::from_secs(2);
        for random in [0, 1, 500, 1000, 1001, u64::MAX] {
            let pause = jittered(pause, random);
            assert!((Duration::from_secs(1)..=Duration::from_secs(3)).contains(&pause), "{pause:?}");
        }
        let mut backoff = Backoff::next(None, None);
        assert_eq!(backoff.pause, FIRST);
        for _ in 0..20 {
            backoff = Backoff::next(Some(backoff), None);
        }
        assert_eq!(backoff.pause, LONGEST);
        let asked = Backoff::next(None, Some(Duration::from_secs(40)));
        assert!(asked.until >= Instant::now() + Duration::from_secs(39), "what a store asks for is granted");
    }
}
