//! What is missing of a connection, and which streams it can have touched.

use super::{Http2, reader::Gap};
use crate::{
    exchange::{Cause, Damage, Observer, Part},
    limits::Moment,
};

impl Http2 {
    /// Takes note of bytes that cannot be had.
    pub(crate) fn missing(&mut self, part: Part, len: u64, cause: Cause, now: Moment, out: &mut dyn Observer) {
        self.now = now;
        let end = now.offsets[part.index()];
        let damage = Damage { cause, part, start: end.saturating_sub(len), end };
        match self.readers[part.index()].skip(len) {
            Gap::Harmless => {}
            Gap::Body { stream, len } => {
                if let Some(stream) = self.streams.get_mut(&stream) {
                    stream.skip(part, len, damage, now);
                }
            }
            Gap::Frame(frame) => self.lose_block(part, frame.stream, damage, out),
            Gap::Place => self.lose_place(part, damage),
        }
        // A frame can have ended with the gap.
        self.run(part, &[], out);
    }

    /// A header block is not to be had: what it added to the table is not known, and neither is what it said.
    pub(super) fn lose_block(&mut self, part: Part, stream: u32, damage: Damage, out: &mut dyn Observer) {
        self.tables[part.index()].forget();
        self.missed[part.index()] = true;
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.pending.exchange.damaged(damage);
        }
        if let Some(block) = self.blocks[part.index()].take().filter(|block| block.end) {
            self.end_half(block.stream, part, out);
        }
    }

    /// Frames are missing, and nobody knows whose.
    pub(super) fn lose_place(&mut self, part: Part, damage: Damage) {
        let now = self.now;
        self.readers[part.index()].lose();
        self.tables[part.index()].forget();
        self.blocks[part.index()] = None;
        self.missed[part.index()] = true;
        for stream in self.streams.values_mut() {
            self.uncertain += usize::from(stream.doubt(part, damage, now));
        }
    }

    /// Exchanges whose end may have been lost are given out when they have been silent for long.
    pub(super) fn give_up_uncertain(&mut self, out: &mut dyn Observer) {
        let silent = self.now.time.saturating_sub(self.limits.patience);
        let over = |since: u64| since < silent;
        let given_up: Vec<u32> =
            self.streams.iter().filter(|(_, s)| s.waits_since().is_some_and(over)).map(|(id, _)| *id).collect();
        for id in given_up {
            if let Some(stream) = self.streams.remove(&id) {
                self.hand_out(stream, out);
            }
        }
    }
}
