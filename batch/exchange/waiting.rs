//! What came of a stream before it could be used: bytes and gaps, in their order.

use std::collections::VecDeque;

use crate::exchange::Cause;

/// What an entry takes besides its bytes, so that empty ones are bounded too.
const ENTRY: usize = 48;

/// Bytes, or how many are missing and why.
#[derive(Debug)]
pub(crate) enum Came {
    Bytes(Vec<u8>),
    Gap(u64, Cause),
}

/// A part of a stream, each piece with the time at which it came.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    queue: VecDeque<(u64, Came)>,
    kept: usize,
}

impl Waiting {
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Bytes of memory.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.kept
    }

    /// Adds to the end. False: more than `limit` would wait.
    pub(crate) fn push(&mut self, time: u64, came: Came, limit: usize) -> bool {
        if let (Came::Gap(len, cause), Some((_, Came::Gap(last, same)))) = (&came, self.queue.back_mut())
            && cause == same
        {
            *last = last.saturating_add(*len);
            return true;
        }
        let kept = kept(&came);
        if self.kept + kept > limit {
            return false;
        }
        self.kept += kept;
        self.queue.push_back((time, came));
        true
    }

    /// Puts back what was left of the first piece.
    pub(crate) fn put_back(&mut self, time: u64, bytes: &[u8]) {
        let came = Came::Bytes(bytes.to_vec());
        self.kept += kept(&came);
        self.queue.push_front((time, came));
    }

    pub(crate) fn pop(&mut self) -> Option<(u64, Came)> {
        let (time, came) = self.queue.pop_front()?;
        self.kept -= kept(&came);
        Some((time, came))
    }

    /// The first bytes, up to a gap.
    pub(crate) fn first_bytes(&self) -> impl Iterator<Item = &u8> {
        let bytes = |(_, came): &'_ (u64, Came)| matches!(came, Came::Bytes(_));
        self.queue.iter().take_while(move |entry| bytes(entry)).flat_map(|(_, came)| match came {
            Came::Bytes(bytes) => bytes.as_slice(),
            Came::Gap(..) => &[],
        })
    }
}

fn kept(came: &Came) -> usize {
    ENTRY + if let Came::Bytes(bytes) = came { bytes.len() } else { 0 }
}
