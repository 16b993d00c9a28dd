//! HTTP/2: frames of many streams in each direction, header blocks, and exchanges.
//!
//! The two directions are decoded on their own, each with its own header table; they meet only in the streams. What was
//! not seen is marked: a header field that refers to one that was missed is never guessed, and a hole that can have
//! hidden frames marks every exchange that it can have touched.

use std::collections::{HashMap, VecDeque};

use crate::{
    exchange::{Cause, Damage, Observer, Part},
    limits::{Limits, Moment},
    pending::Pending,
};

mod block;
mod frame;
mod frames;
mod hpack;
mod loss;
mod reader;
mod stream;

pub(crate) use self::frame::{Opening, begins_with_frame, opening_of};
#[cfg(fuzzing)]
pub use self::hpack::{Decoder, Field};
use self::{
    block::{Block, Fields},
    frame::{Frame, Kind, flag},
    reader::{Reader, Step},
    stream::Stream,
};

type Streams = HashMap<u32, Stream, foldhash::fast::FixedState>;

/// The HTTP/2 side of a connection.
#[derive(Debug)]
pub(crate) struct Http2 {
    limits: Limits,
    now: Moment,
    /// One a direction: requests, responses.
    readers: [Reader; 2],
    tables: [hpack::Decoder; 2],
    blocks: [Option<Block>; 2],
    streams: Streams,
    /// Bytes that `streams` keep.
    kept: usize,
    /// Streams whose end may have been missed.
    uncertain: usize,
    /// Something of a direction was never seen, or lost: a stream that is new to us may be an old one.
    missed: [bool; 2],
    /// The streams that were reset last.
    reset: VecDeque<u32>,
    orphans: u64,
}

/// Streams that were reset lately: frames of theirs can still be under way.
const RESETS_MAX: usize = 64;

/// Bytes of fields in which those stand that come first.
const PSEUDO_MAX: usize = 4096;

/// Which half the frames are of, where a header block among them says so.
pub(crate) fn part_of(mut bytes: &[u8]) -> Option<Part> {
    let mut table = hpack::Decoder::default();
    table.forget();
    while let Some((head, rest)) = bytes.split_first_chunk() {
        let frame = Frame::of(*head);
        let payload = rest.get(..frame.len as usize)?;
        bytes = &rest[payload.len()..];
        // Padding and priority come first; such a frame is passed over.
        if frame.kind == Kind::Headers && frame.flags & (flag::PADDED | flag::PRIORITY) == 0 {
            let fields = Fields::decode(&mut table, payload, PSEUDO_MAX).ok()?;
            match () {
                () if fields.status.is_some() => return Some(Part::Response),
                () if fields.method.is_some() || fields.scheme.is_some() => return Some(Part::Request),
                () => {}
            }
        }
    }
    None
}

impl Http2 {
    /// From the client's first byte on.
    pub(crate) fn new(limits: Limits) -> Self {
        Self::with([Reader::preface(limits.head), Reader::frames(limits.head)], limits)
    }

    /// From the client's first byte on; of what the server has sent before nothing was seen.
    pub(crate) fn behind(limits: Limits) -> Self {
        let mut http = Self::with([Reader::preface(limits.head), Reader::lost(limits.head)], limits);
        http.missed[1] = true;
        http.tables[1].forget();
        http
    }

    /// From somewhere in the middle: what lies in the header tables is not known.
    pub(crate) fn late(limits: Limits) -> Self {
        let mut http = Self::with([Reader::lost(limits.head), Reader::lost(limits.head)], limits);
        http.missed = [true, true];
        for table in &mut http.tables {
            table.forget();
        }
        http
    }

    /// From an upgrade on, whose request is the first stream.
    pub(crate) fn upgraded(limits: Limits, mut open: Pending) -> Self {
        let mut http = Self::new(limits);
        open.exchange.response = None;
        (open.request_done, open.counted) = (true, 0);
        let mut stream = Stream::upgraded(open);
        http.keep(stream.recount());
        http.streams.insert(1, stream);
        http
    }

    fn with(readers: [Reader; 2], limits: Limits) -> Self {
        Self {
            limits,
            now: Moment::default(),
            readers,
            tables: [hpack::Decoder::default(), hpack::Decoder::default()],
            blocks: [None, None],
            streams: Streams::default(),
            kept: 0,
            uncertain: 0,
            missed: [false; 2],
            reset: VecDeque::new(),
            orphans: 0,
        }
    }

    #[cfg(fuzzing)]
    pub(crate) fn has_lost_its_place(&self) -> bool {
        self.missed.contains(&true)
    }

    /// Responses that were passed over because their request was not seen.
    pub(crate) fn orphans(&self) -> u64 {
        self.orphans
    }

    /// Bytes of memory that are kept.
    pub(crate) fn kept_bytes(&self) -> usize {
        let tables: usize = self.tables.iter().map(hpack::Decoder::kept_bytes).sum();
        let blocks: usize = self.blocks.iter().flatten().map(Block::kept_bytes).sum();
        let readers: usize = self.readers.iter().map(Reader::kept_bytes).sum();
        self.kept + tables + blocks + readers
    }

    /// How many bytes from here on need not be looked at: see [`crate::Connection::unwanted_until`].
    pub(crate) fn unwanted(&self, part: Part) -> Option<u64> {
        let (stream, left) = self.readers[part.index()].body()?;
        let body = self.streams.get(&stream)?.pending.exchange.body(part)?;
        body.cut?;
        Some(left)
    }

    /// Exchanges that are not complete.
    pub(crate) fn open_exchanges(&self) -> usize {
        self.streams.len()
    }

    /// Takes bytes.
    pub(crate) fn data(&mut self, part: Part, bytes: &[u8], now: Moment, out: &mut dyn Observer) {
        self.now = now;
        self.run(part, bytes, out);
        if self.uncertain > 0 {
            self.give_up_uncertain(out);
        }
    }

    fn run(&mut self, part: Part, mut bytes: &[u8], out: &mut dyn Observer) {
        let at = self.now.offsets[part.index()];
        let here = |cause| Damage { cause, part, start: at, end: at };
        loop {
            match self.readers[part.index()].step(&mut bytes) {
                Step::NeedMore if bytes.is_empty() => return,
                Step::NeedMore | Step::Found => {}
                Step::Body { stream, data, end } => self.body(part, stream, data, end, out),
                Step::Frame { frame, payload } => {
                    if self.frame(part, frame, &payload, out).is_err() {
                        self.lose_place(part, here(Cause::Malformed));
                        return;
                    }
                }
                Step::TooLarge(frame) => self.lose_block(part, frame.stream, here(Cause::Limit), out),
                Step::Malformed => {
                    self.lose_place(part, here(Cause::Malformed));
                    return;
                }
            }
        }
    }

    /// No more will come, since the connection has `ended` or nobody looks any more. Returns what was passed over.
    pub(crate) fn close(mut self, ended: bool, time: u64, out: &mut dyn Observer) -> u64 {
        let mut open: Vec<u32> = self.streams.keys().copied().collect();
        open.sort_unstable();
        for id in open {
            let Some(mut stream) = self.streams.remove(&id) else { continue };
            let exchange = &mut stream.pending.exchange;
            if !stream.pending.response_done {
                exchange.closed_early = ended;
                exchange.times.end = time;
            }
            self.hand_out(stream, out);
        }
        self.orphans
    }

    /// Gives an exchange out, unless nothing is known of it but bytes.
    fn hand_out(&mut self, stream: Stream, out: &mut dyn Observer) {
        self.kept -= stream.pending.counted;
        self.uncertain -= usize::from(stream.is_uncertain());
        match stream.finish() {
            Some(exchange) => out.complete(exchange),
            None => self.orphans += 1,
        }
    }

    fn end_if_done(&mut self, id: u32, out: &mut dyn Observer) {
        let done = self.streams.get(&id).is_some_and(Stream::is_done);
        if done && let Some(stream) = self.streams.remove(&id) {
            self.hand_out(stream, out);
        }
    }

    fn keep(&mut self, more: isize) {
        self.kept = self.kept.saturating_add_signed(more);
    }
}

#[cfg(test)]
mod tests;
