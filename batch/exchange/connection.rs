//! A connection: two streams, a queue of requests that wait for their response, and what to do when bytes are missing.

use std::{borrow::Cow, collections::VecDeque};

use crate::{
    body::{Fed, Framing, Room},
    exchange::{Body, Cause, Cut, Direction, Observer, Part, Role},
    head::{self, Start},
};

mod half;
mod limits;
mod loss;
mod pending;
mod request;
mod response;

pub use self::limits::Limits;
use self::{
    half::{Half, State},
    pending::Pending,
};

/// What the connection speaks, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Nothing seen that decides it.
    Unknown,
    /// HTTP/1.0 or 1.1.
    Http1,
    /// HTTP/2: recognized, not decoded.
    Http2,
    /// Something else, or something else by now (CONNECT, Upgrade): more bytes change nothing.
    Other,
}

/// Bytes of a response whose request was not seen yet.
#[derive(Debug)]
struct Held {
    time: u64,
    bytes: Vec<u8>,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    limits: Limits,
    protocol: Protocol,
    /// Which direction carries requests, once it is known.
    requests: Option<Direction>,
    request: Half,
    response: Half,
    pending: VecDeque<Pending>,
    held: VecDeque<Held>,
    held_bytes: usize,
    /// Bytes and gaps that came before it was known which direction carries requests.
    offsets: [u64; 2],
    /// Whether held bytes are being fed now: what is left of them goes back to the front.
    replaying: bool,
    /// A request was sent while another one waited: what is lost of the responses may hide any number of them.
    pipelined: bool,
    /// Bytes that `pending` keeps.
    kept: usize,
    /// Whoever sums up all connections has said that they keep too much.
    over_budget: bool,
    /// Whether the final response is being passed over because its request is unknown.
    orphan: bool,
    orphans: u64,
    late: bool,
}

impl Connection {
    /// A connection that is seen from its start, or (`late`) from somewhere in its middle.
    #[must_use]
    pub fn new(limits: Limits, role: Option<Role>, late: bool) -> Self {
        Self {
            limits,
            protocol: Protocol::Unknown,
            requests: role.map(|role| match role {
                Role::Client => Direction::Sent,
                Role::Server => Direction::Received,
            }),
            request: Half::new(late),
            response: Half::new(late),
            // Most connections never have more than one, and most are idle.
            pending: VecDeque::with_capacity(1),
            held: VecDeque::new(),
            held_bytes: 0,
            offsets: [0; 2],
            replaying: false,
            pipelined: false,
            kept: 0,
            over_budget: false,
            orphan: false,
            orphans: 0,
            late,
        }
    }

    /// What is spoken.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Which end the process is, if it was told or has become clear from the traffic.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        self.requests.map(|direction| match direction {
            Direction::Sent => Role::Client,
            Direction::Received => Role::Server,
        })
    }

    /// Whether more bytes can change nothing.
    #[must_use]
    pub fn is_opaque(&self) -> bool {
        matches!(self.protocol, Protocol::Other | Protocol::Http2)
    }

    /// Responses that were passed over because their request was not seen.
    #[must_use]
    pub fn orphans(&self) -> u64 {
        self.orphans
    }

    /// Bytes of memory that the connection keeps, besides itself.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        self.kept + self.held_bytes + self.request.kept_bytes() + self.response.kept_bytes()
    }

    /// While this is set no more of any body is kept.
    pub fn set_over_budget(&mut self, over: bool) {
        self.over_budget = over;
    }

    /// The stream offset up to which the bytes that come next need not be looked at: they belong to a body of which no
    /// more is kept. The body's last byte is not among them, so that its end is seen when it comes. `None`: all are
    /// needed.
    #[must_use]
    pub fn unwanted_until(&self, direction: Direction) -> Option<u64> {
        if self.is_opaque() {
            return None;
        }
        let part = if self.requests? == direction { Part::Request } else { Part::Response };
        let State::Body(framing) = &(if part == Part::Request { &self.request } else { &self.response }).state else {
            return None;
        };
        let open = match part {
            Part::Request => self.pending.back().filter(|p| !p.request_done),
            Part::Response => self.pending.iter().find(|p| !p.response_done).filter(|_| !self.orphan),
        };
        // Of a body that nobody waits for not even the length is certain.
        open.and_then(|p| p.exchange.body(part)).filter(|body| body.cut.is_some())?;
        let next = self.next_offset(direction);
        Some(match framing {
            Framing::UntilClose => u64::MAX,
            Framing::Length(left) => next.saturating_add(left.saturating_sub(1)),
            Framing::Chunked(chunked) => next.saturating_add(chunked.skippable()),
        })
    }

    /// Requests whose exchange is not complete.
    #[must_use]
    pub fn open_exchanges(&self) -> usize {
        self.pending.len()
    }

    /// Stream offset of the next byte of a direction.
    #[must_use]
    pub fn next_offset(&self, direction: Direction) -> u64 {
        self.offsets[usize::from(direction == Direction::Received)]
    }

    /// Takes bytes that begin at `offset` of their stream. Complete exchanges are appended to `out`.
    ///
    /// A jump of the offset is a gap; bytes that were there already are passed over.
    pub fn data(&mut self, direction: Direction, offset: u64, bytes: &[u8], time: u64, out: &mut dyn Observer) {
        let next = self.next_offset(direction);
        if offset > next {
            self.missing(direction, offset - next, Cause::Unseen, time, out);
        }
        let seen = usize::try_from(next.saturating_sub(offset)).unwrap_or(usize::MAX);
        let bytes = bytes.get(seen..).unwrap_or_default();
        let offset = &mut self.offsets[usize::from(direction == Direction::Received)];
        *offset = offset.saturating_add(bytes.len() as u64);
        if bytes.is_empty() || self.is_opaque() {
            return;
        }
        let Some(part) = self.part_of(direction, bytes) else { return };
        match part {
            Part::Request => self.feed_request(bytes, time, out),
            Part::Response => self.feed_response(bytes, time, out),
        }
        self.emit(out);
    }

    /// Takes note of `len` bytes that follow in their stream and cannot be had.
    pub fn missing(&mut self, direction: Direction, len: u64, cause: Cause, time: u64, out: &mut dyn Observer) {
        let offset = &mut self.offsets[usize::from(direction == Direction::Received)];
        *offset = offset.saturating_add(len);
        if self.is_opaque() || len == 0 {
            return;
        }
        match self.requests {
            Some(requests) if requests == direction => self.miss(Part::Request, len, cause, time, out),
            Some(_) => self.miss(Part::Response, len, cause, time, out),
            None => (self.request, self.response) = (Half::new(true), Half::new(true)),
        }
        self.emit(out);
    }

    /// No more will come: the connection ended after so many bytes (sent, received), or (`None`) nobody looks any more.
    pub fn close(&mut self, totals: Option<[u64; 2]>, time: u64, out: &mut dyn Observer) {
        if let Some([sent, received]) = totals {
            for (direction, total) in [(Direction::Sent, sent), (Direction::Received, received)] {
                let len = total.saturating_sub(self.next_offset(direction));
                self.missing(direction, len, Cause::Unseen, time, out);
            }
        }
        if totals.is_some()
            && let State::Body(Framing::UntilClose) = self.response.state
            && let Some(pending) = self.pending.front_mut()
            && let Some(response) = &mut pending.exchange.response
        {
            response.body.complete = true;
            (pending.response_done, pending.exchange.times.end) = (true, time);
        }
        for mut pending in self.pending.drain(..) {
            if !pending.response_done {
                pending.exchange.closed_early = totals.is_some();
                pending.exchange.times.end = time;
            }
            out.complete(pending.exchange);
        }
        self.orphans += u64::from(!self.held.is_empty());
        self.held.clear();
        (self.kept, self.held_bytes) = (0, 0);
        (self.request.state, self.response.state) = (State::Seek, State::Seek);
        self.protocol = Protocol::Other;
    }

    /// Which half a direction carries; by content where the role is not known.
    fn part_of(&mut self, direction: Direction, bytes: &[u8]) -> Option<Part> {
        let requests = match self.requests {
            Some(requests) => requests,
            None => match head::start_of(bytes) {
                Start::Request => direction,
                Start::Response if direction == Direction::Sent => Direction::Received,
                Start::Response => Direction::Sent,
                Start::Http2 => {
                    self.protocol = Protocol::Http2;
                    return None;
                }
                Start::Undecided | Start::Other => {
                    self.sought(Part::Request, bytes.len() as u64);
                    return None;
                }
            },
        };
        self.requests = Some(requests);
        Some(if requests == direction { Part::Request } else { Part::Response })
    }

    fn half(&mut self, part: Part) -> &mut Half {
        match part {
            Part::Request => &mut self.request,
            Part::Response => &mut self.response,
        }
    }

    fn offset_of(&self, part: Part) -> u64 {
        let received = (part == Part::Request) == (self.requests == Some(Direction::Received));
        self.offsets[usize::from(received)]
    }

    /// Body bytes of a half go to its exchange, as far as there is room; those of one that was given up go nowhere.
    fn feed_body(&mut self, part: Part, bytes: &mut &[u8], out: &mut dyn Observer) -> Fed {
        let over_budget = self.over_budget || self.kept_bytes() >= self.limits.connection;
        let (limits, orphan) = (self.limits, self.orphan);
        let (half, open) = match part {
            Part::Request => (&mut self.request, self.pending.back_mut().filter(|p| !p.request_done)),
            Part::Response => {
                (&mut self.response, self.pending.iter_mut().find(|p| !p.response_done).filter(|_| !orphan))
            }
        };
        let State::Body(framing) = &mut half.state else { return Fed::NeedMore };
        let Some(pending) = open.filter(|p| p.exchange.body(part).is_some()) else {
            return framing.feed(bytes, &mut Body::default(), Room { bytes: 0, cut: Cut::Unwanted });
        };
        let Some(body) = pending.exchange.body_mut(part) else { return Fed::NeedMore };
        let before = body.bytes.len();
        let room = match () {
            () if !limits.bodies => Room { bytes: 0, cut: Cut::Unwanted },
            () if over_budget => Room { bytes: before, cut: Cut::Budget },
            () => Room { bytes: limits.body, cut: Cut::Limit },
        };
        let fed = framing.feed(bytes, body, room);
        let grown_large = before < limits.large && body.bytes.len() >= limits.large;
        self.kept += body.bytes.len() - before;
        pending.counted += body.bytes.len() - before;
        if grown_large {
            self.kept -= pending.ask(part, out);
        }
        fed
    }

    /// Collects a head; `bytes` moves on over it. `None`: it is not complete, or it is none.
    ///
    /// A head that lies in one record, as nearly all do, is not copied.
    fn take_head<'b>(&mut self, part: Part, bytes: &mut &'b [u8], time: u64) -> Option<Cow<'b, [u8]>> {
        let limit = self.limits.head;
        let State::Head(head) = &mut self.half(part).state else { return None };
        let (before, mut collected) = (head.len(), std::mem::take(head));
        let present: &[u8] = if before == 0 {
            *bytes = head::skip_line_ends(bytes);
            self.half(part).started = time;
            bytes
        } else {
            collected.extend_from_slice(bytes);
            &collected
        };
        if before < 1024 && !self.is_head_of(part, present) {
            return None;
        }
        let Some(end) = head::head_end(present, before) else {
            let len = present.len();
            if before == 0 {
                collected.extend_from_slice(bytes);
            }
            self.half(part).state = State::Head(collected);
            if len > limit {
                self.lose_place(part, Cause::Limit);
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
    fn is_head_of(&mut self, part: Part, bytes: &[u8]) -> bool {
        match (head::start_of(bytes), part) {
            (Start::Undecided, _) | (Start::Request, Part::Request) | (Start::Response, Part::Response) => return true,
            (Start::Http2, Part::Request) if self.protocol == Protocol::Unknown => self.protocol = Protocol::Http2,
            _ => self.lose_place(part, Cause::Malformed),
        }
        false
    }

    /// Hands out what is complete, in the order of the requests.
    fn emit(&mut self, out: &mut dyn Observer) {
        while self.pending.front().is_some_and(|p| p.request_done && p.response_done) {
            let Some(Pending { exchange, counted, .. }) = self.pending.pop_front() else { return };
            self.kept -= counted;
            out.complete(exchange);
        }
        self.pipelined &= !self.pending.is_empty();
    }
}

#[cfg(test)]
mod tests;
