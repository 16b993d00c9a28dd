//! HTTP/1: two streams, a queue of requests that wait for their response, and what to do when bytes are missing.

use std::{borrow::Cow, collections::VecDeque};

use self::{
    body::{Fed, Framing},
    half::{Half, State},
};
use crate::{
    exchange::{Body, Cause, Cut, Damage, Observer, Part},
    intake::{Intake, Room},
    limits::{Limits, Moment},
    pending::Pending,
    upgrade::Upgrade,
    waiting::Waiting,
};

mod body;
mod chunked;
mod fields;
mod half;
mod head;
mod loss;
mod request;
mod response;

pub(crate) use self::head::{Start, start_of, text};

/// The HTTP/1 side of a connection.
#[derive(Debug)]
pub(crate) struct Http1 {
    limits: Limits,
    /// Where in time and in the streams the bytes at hand lie.
    now: Moment,
    /// A whole head was seen: it is HTTP.
    certain: bool,
    /// Nothing more can be learnt.
    over: bool,
    request: Half,
    response: Half,
    pending: VecDeque<Pending>,
    /// Responses whose request was not seen yet.
    held: Waiting,
    /// What was sent behind a request for an upgrade: its answer says what it is.
    behind_upgrade: Waiting,
    /// The last request asks for an upgrade, and is not answered yet.
    upgrading: bool,
    /// What the connection is from here on.
    upgrade: Option<Box<Upgrade>>,
    /// Whether held bytes are being fed now: what is left of them goes back to the front.
    replaying: bool,
    /// A request was sent while another one waited: what is lost of the responses may hide any number of them.
    pipelined: bool,
    /// The client sends requests without waiting for answers.
    pipelines: bool,
    /// What was lost may have hidden messages, and the order that followed has not yet shown itself.
    shaken: bool,
    /// Losses among the responses.
    losses: u32,
    /// Requests in a row, since then, that found all others answered.
    settled: u8,
    /// Requests and responses cannot be paired any more.
    unpairable: bool,
    /// Bytes that `pending` keeps.
    kept: usize,
    /// Whether the final response is being passed over because its request is unknown.
    orphan: bool,
    orphans: u64,
    late: bool,
}

impl Http1 {
    /// From the start of both streams; or (`late`) from somewhere in their middle; or behind bytes that are missing.
    pub(crate) fn new(limits: Limits, late: bool, lost: bool) -> Self {
        Self {
            limits,
            now: Moment::default(),
            certain: false,
            over: false,
            request: Half::new(late || lost),
            response: Half::new(late || lost),
            // Most connections never have more than one, and most are idle.
            pending: VecDeque::with_capacity(1),
            held: Waiting::default(),
            behind_upgrade: Waiting::default(),
            upgrading: false,
            upgrade: None,
            replaying: false,
            pipelined: false,
            pipelines: false,
            shaken: late || lost,
            losses: 0,
            settled: 0,
            unpairable: false,
            kept: 0,
            orphan: false,
            orphans: 0,
            late,
        }
    }

    /// Whether a whole head was seen.
    pub(crate) fn is_certain(&self) -> bool {
        self.certain
    }

    /// Whether more bytes can change nothing.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    #[cfg(fuzzing)]
    pub(crate) fn has_lost_its_place(&self) -> bool {
        self.shaken || self.request.lost || self.response.lost || self.request.sought + self.response.sought > 0
    }

    /// Responses that were passed over because their request was not seen.
    pub(crate) fn orphans(&self) -> u64 {
        self.orphans
    }

    /// Bytes of memory that are kept.
    pub(crate) fn kept_bytes(&self) -> usize {
        let held = self.held.kept_bytes() + self.behind_upgrade.kept_bytes();
        self.kept + held + self.request.kept_bytes() + self.response.kept_bytes()
    }

    /// How many bytes from here on need not be looked at: see [`crate::Connection::unwanted_until`].
    pub(crate) fn unwanted(&self, part: Part) -> Option<u64> {
        if self.over {
            return None;
        }
        let State::Body(framing) = &(if part == Part::Request { &self.request } else { &self.response }).state else {
            return None;
        };
        let open = match part {
            Part::Request => self.pending.back().filter(|p| !p.request_done),
            Part::Response => self.pending.iter().find(|p| !p.response_done).filter(|_| !self.orphan),
        };
        // Of a body that nobody waits for not even the length is certain.
        open.and_then(|p| p.exchange.body(part)).filter(|body| body.cut.is_some())?;
        Some(match framing {
            Framing::UntilClose => u64::MAX,
            Framing::Length(left) => left.saturating_sub(1),
            Framing::Chunked(chunked) => chunked.skippable(),
        })
    }

    /// Requests whose exchange is not complete.
    pub(crate) fn open_exchanges(&self) -> usize {
        self.pending.len()
    }

    /// Takes bytes. If they end HTTP/1 on this connection, what it is from now on, with what was not used up.
    pub(crate) fn data(
        &mut self,
        part: Part,
        bytes: &[u8],
        now: Moment,
        out: &mut dyn Observer,
    ) -> Option<Box<Upgrade>> {
        if self.over {
            return None;
        }
        self.now = now;
        match part {
            Part::Request => self.feed_request(bytes, out),
            Part::Response => self.feed_response(bytes, out),
        }
        self.emit(out);
        self.upgrade.take()
    }

    /// Takes note of bytes that cannot be had.
    pub(crate) fn missing(&mut self, part: Part, len: u64, cause: Cause, now: Moment, out: &mut dyn Observer) {
        if self.over {
            return;
        }
        self.now = now;
        self.miss(part, len, cause, out);
        self.emit(out);
    }

    /// No more will come, since the connection has `ended` or nobody looks any more. Returns what was passed over.
    pub(crate) fn close(mut self, ended: bool, time: u64, out: &mut dyn Observer) -> u64 {
        if ended
            && let State::Body(Framing::UntilClose) = self.response.state
            && let Some(pending) = self.pending.front_mut()
            && let Some(response) = &mut pending.exchange.response
        {
            response.body.complete = true;
            (pending.response_done, pending.exchange.times.end) = (true, time);
        }
        let (lost, at) = (self.response.lost || self.shaken, self.offset_of(Part::Response));
        for mut pending in self.pending.drain(..) {
            if !pending.response_done {
                pending.exchange.closed_early = ended;
                pending.exchange.times.end = time;
                if lost && pending.exchange.response.is_none() {
                    // It may have been answered all the same.
                    pending.doubt(at);
                }
            }
            out.complete(pending.finish());
        }
        self.orphans + u64::from(!self.held.is_empty())
    }

    fn half(&mut self, part: Part) -> &mut Half {
        match part {
            Part::Request => &mut self.request,
            Part::Response => &mut self.response,
        }
    }

    /// Stream offset behind the bytes at hand.
    fn offset_of(&self, part: Part) -> u64 {
        self.now.offsets[usize::from(part == Part::Response)]
    }

    /// Body bytes of a half go to its exchange, as far as there is room; those of one that was given up go nowhere.
    fn feed_body(&mut self, part: Part, bytes: &mut &[u8], out: &mut dyn Observer) -> Fed {
        let over_budget = self.now.over_budget || self.kept_bytes() >= self.limits.connection;
        let (limits, orphan) = (self.limits, self.orphan);
        let (half, open) = match part {
            Part::Request => (&mut self.request, self.pending.back_mut().filter(|p| !p.request_done)),
            Part::Response => {
                (&mut self.response, self.pending.iter_mut().find(|p| !p.response_done).filter(|_| !orphan))
            }
        };
        let State::Body(framing) = &mut half.state else { return Fed::NeedMore };
        let time = self.now.time;
        let Some(pending) = open.filter(|p| p.exchange.body(part).is_some()) else {
            let body = &mut Body::default();
            return framing.feed(bytes, &mut Intake { body, room: Room::NONE, scan: None, time });
        };
        let scan = pending.scans[part.index()].as_mut();
        let scanned = scan.as_ref().map_or(0, |scan| scan.kept_bytes());
        let Some(body) = pending.exchange.body_mut(part) else { return Fed::NeedMore };
        let before = body.bytes.len();
        let room = match () {
            () if !limits.bodies => Room::NONE,
            () if over_budget => Room { bytes: before, cut: Cut::Budget },
            () => Room { bytes: limits.body, cut: Cut::Limit },
        };
        let fed = framing.feed(bytes, &mut Intake { body, room, scan, time });
        let odd = matches!(fed, Fed::End(_)) && framing.is_odd();
        let grown = body.bytes.len() - before;
        let scanned = pending.scans[part.index()].as_ref().map_or(0, |scan| scan.kept_bytes().saturating_sub(scanned));
        let grown_large = before < limits.large && body.bytes.len() >= limits.large;
        self.kept += grown + scanned;
        pending.counted += grown + scanned;
        if odd {
            let at = self.now.offsets[part.index()];
            pending.exchange.damaged(Damage { cause: Cause::Malformed, part, start: at, end: at });
        }
        if grown_large {
            self.kept -= pending.ask(part, out);
        }
        fed
    }

    /// Collects a head; `bytes` moves on over it. `None`: it is not complete, or it is none.
    ///
    /// A head that lies in one record, as nearly all do, is not copied.
    fn take_head<'b>(&mut self, part: Part, bytes: &mut &'b [u8], out: &mut dyn Observer) -> Option<Cow<'b, [u8]>> {
        let limit = self.limits.head;
        let State::Head(head) = &mut self.half(part).state else { return None };
        let (before, mut collected) = (head.len(), std::mem::take(head));
        let present: &[u8] = if before == 0 {
            *bytes = head::skip_line_ends(bytes);
            self.half(part).started = self.now.time;
            bytes
        } else {
            collected.extend_from_slice(bytes);
            &collected
        };
        let Some(end) = head::head_end(present, before) else {
            // A whole head is judged by whoever parses it.
            if before < 1024 && !self.is_head_of(part, present, out) {
                return None;
            }
            let len = present.len();
            if before == 0 {
                collected.extend_from_slice(bytes);
            }
            self.half(part).state = State::Head(collected);
            if len > limit {
                self.lose_place(part, Cause::Limit, out);
            }
            *bytes = &[];
            return None;
        };
        let (taken, rest) = bytes.split_at(end - before);
        *bytes = rest;
        collected.truncate(end);
        Some(if before == 0 { Cow::Borrowed(taken) } else { Cow::Owned(collected) })
    }

    /// Whether bytes can begin a message of this half. If not, the place is lost, or the protocol is another one.
    fn is_head_of(&mut self, part: Part, bytes: &[u8], out: &mut dyn Observer) -> bool {
        match (head::start_of(bytes), part) {
            (Start::Undecided, _) | (Start::Request, Part::Request) | (Start::Response, Part::Response) => return true,
            _ => self.lose_place(part, Cause::Malformed, out),
        }
        false
    }

    /// Hands out what is complete, in the order of the requests.
    fn emit(&mut self, out: &mut dyn Observer) {
        while self.pending.front().is_some_and(|p| p.request_done && p.response_done) {
            let Some(pending) = self.pending.pop_front() else { return };
            self.kept -= pending.counted;
            out.complete(pending.finish());
        }
        self.pipelined &= !self.pending.is_empty();
    }
}

#[cfg(test)]
mod tests;
