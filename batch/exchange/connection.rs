//! A connection: two streams, a queue of requests that wait for their response, and what to do when bytes are missing.

use std::{borrow::Cow, collections::VecDeque};

use crate::{
    body::{self, Fed, Framing, Room},
    exchange::{Body, Cause, Cut, Damage, Direction, Exchange, Observer, Part, Request, Response, Role, Times},
    head::{self, Start},
};

/// What is kept of a connection at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of one body that are kept.
    pub body: usize,
    /// Bytes that the open exchanges of the connection keep; beyond, bodies are cut.
    pub connection: usize,
    /// Whether bodies are kept at all.
    pub bodies: bool,
    /// A body of so many bytes is worth the question whether it is wanted.
    pub large: usize,
    /// Bytes of one head.
    pub head: usize,
    /// Requests that wait for their response.
    pub pipeline: usize,
    /// Response bytes that are held because their request was not seen yet.
    pub held: usize,
    /// Bytes looked at in search of a message before a stream is given up as not HTTP.
    pub seek: u64,
}

impl Limits {
    fn is_large(&self, announced: Option<u64>) -> bool {
        self.bodies && announced.is_some_and(|len| len >= self.large as u64)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 2 << 20,
            connection: 16 << 20,
            bodies: true,
            large: 64 << 10,
            head: 256 << 10,
            pipeline: 1024,
            held: 1 << 20,
            seek: 1 << 20,
        }
    }
}

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

#[derive(Debug)]
enum State {
    /// A message is expected; its head so far.
    Head(Vec<u8>),
    Body(Framing),
    /// The place is lost: a message is looked for at the start of each record.
    Seek,
}

#[derive(Debug)]
struct Half {
    state: State,
    /// A whole message may have been lost since the last one that was seen.
    lost: bool,
    /// Bytes passed over in search of a message.
    sought: u64,
    /// When the first byte of the present head came.
    started: u64,
}

impl Half {
    fn new(late: bool) -> Self {
        let state = if late { State::Seek } else { State::Head(Vec::new()) };
        Self { state, lost: late, sought: 0, started: 0 }
    }

    fn kept_bytes(&self) -> usize {
        if let State::Head(head) = &self.state { head.len() } else { 0 }
    }

    fn is_between_messages(&self) -> bool {
        matches!(&self.state, State::Head(head) if head.is_empty())
    }
}

#[derive(Debug, Default)]
struct Pending {
    exchange: Exchange,
    request_done: bool,
    response_done: bool,
    /// Bytes of it that the connection has counted as kept.
    counted: usize,
}

impl Pending {
    /// Lets a large body go if nobody wants it; returns how many bytes that frees.
    fn ask(&mut self, part: Part, out: &mut dyn Observer) -> usize {
        if out.wants_body(&self.exchange, part) {
            return 0;
        }
        let Some(body) = self.exchange.body_mut(part) else { return 0 };
        body.cut = Some(Cut::Unwanted);
        let freed = std::mem::take(&mut body.bytes).len();
        self.counted -= freed;
        freed
    }
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

    /// Counts bytes that led nowhere; after too many the stream is given up.
    fn sought(&mut self, part: Part, len: u64) {
        let limit = self.limits.seek;
        let half = self.half(part);
        half.sought += len;
        if half.sought > limit && self.protocol == Protocol::Unknown {
            self.protocol = Protocol::Other;
        }
    }

    fn feed_request(&mut self, mut bytes: &[u8], time: u64, out: &mut dyn Observer) {
        if matches!(self.request.state, State::Seek) && !self.found(Part::Request, bytes) {
            return;
        }
        while !bytes.is_empty() && !self.is_opaque() {
            match &mut self.request.state {
                State::Seek => return,
                State::Head(_) => {
                    let Some(parsed) = self.take_head(Part::Request, &mut bytes, time) else { return };
                    let Some(parsed) = head::parse_request(&parsed) else {
                        self.lose_place(Part::Request, Cause::Malformed);
                        return;
                    };
                    self.begin_request(parsed, time, out);
                    self.feed_held(false, out);
                }
                State::Body(_) => match self.feed_body(Part::Request, &mut bytes, out) {
                    Fed::NeedMore => {}
                    Fed::End(trailers) => {
                        if let Some(pending) = self.pending.back_mut().filter(|p| !p.request_done) {
                            pending.exchange.request.head.trailers = trailers;
                        }
                        self.end_request(time);
                    }
                    Fed::Malformed => {
                        self.lose_place(Part::Request, Cause::Malformed);
                        return;
                    }
                },
            }
        }
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

    /// A head is complete: the exchange begins.
    fn begin_request(&mut self, parsed: head::RequestHead, time: u64, out: &mut dyn Observer) {
        self.protocol = Protocol::Http1;
        if matches!(self.response.state, State::Seek) {
            // A client that does not pipeline sends the next request only when it has the response: what was lost of
            // the responses cannot belong to this one.
            self.give_up_pending(time);
        }
        // Bodies are cut at the budget; only heads can exceed it by so much.
        let heads_max = self.limits.connection.saturating_add(self.limits.head);
        if self.pending.len() >= self.limits.pipeline || self.kept > heads_max {
            self.give_up_connection(time);
            return;
        }
        self.pipelined |= self.has_unanswered() && self.response.is_between_messages();
        let announced = body::of_request(&parsed.head);
        let mut damage = Vec::new();
        let at = self.offset_of(Part::Request);
        if announced.ambiguous {
            damage.push(Damage { cause: Cause::AmbiguousLength, part: Part::Request, start: at, end: at });
        }
        if self.request.lost && !self.late {
            damage.push(Damage { cause: Cause::Resync, part: Part::Request, start: at, end: at });
        }
        let over = announced.framing.is_over();
        let times = Times { request_start: self.request.started, request_end: time, response_start: None, end: time };
        let request = Request { method: parsed.method, target: parsed.target, head: parsed.head, ..Request::default() };
        let exchange = Exchange { request, times, damage, ..Exchange::default() };
        let mut pending = Pending { counted: exchange.kept_bytes(), exchange, ..Pending::default() };
        self.kept += pending.counted;
        if self.limits.is_large(announced.framing.announced()) {
            self.kept -= pending.ask(Part::Request, out);
        }
        self.pending.push_back(pending);
        // Until-close does not exist for requests; servers take such a request as one without a body.
        self.request.state = match announced.framing {
            Framing::UntilClose => State::Body(Framing::Length(0)),
            framing => State::Body(framing),
        };
        if over || matches!(self.request.state, State::Body(Framing::Length(0))) {
            self.end_request(time);
        }
    }

    fn end_request(&mut self, time: u64) {
        self.request.state = State::Head(Vec::new());
        self.request.lost = false;
        if let Some(pending) = self.pending.back_mut().filter(|p| !p.request_done) {
            pending.request_done = true;
            pending.exchange.request.body.complete = true;
            pending.exchange.times.request_end = time;
        }
    }

    /// The exchanges so far can get no response any more.
    fn give_up_pending(&mut self, time: u64) {
        for pending in &mut self.pending {
            pending.request_done = true;
            if !pending.response_done {
                pending.response_done = true;
                pending.exchange.times.end = time;
            }
        }
    }

    /// More requests wait than can be kept: nothing that follows could be paired with certainty.
    fn give_up_connection(&mut self, time: u64) {
        let at = self.offset_of(Part::Request);
        for pending in &mut self.pending {
            pending.exchange.damaged(Damage { cause: Cause::Limit, part: Part::Response, start: at, end: at });
        }
        self.give_up_pending(time);
        self.protocol = Protocol::Other;
    }

    /// Feeds what was held, as long as a request waits for it, or (`orphaned`) to pass it over.
    fn feed_held(&mut self, orphaned: bool, out: &mut dyn Observer) {
        self.replaying = true;
        while (orphaned || self.has_unanswered()) && !self.is_opaque() {
            let Some(held) = self.held.pop_front() else { break };
            self.held_bytes -= held.bytes.len();
            self.feed_response(&held.bytes, held.time, out);
        }
        self.replaying = false;
    }

    fn feed_response(&mut self, mut bytes: &[u8], time: u64, out: &mut dyn Observer) {
        if matches!(self.response.state, State::Seek) && !self.found(Part::Response, bytes) {
            return;
        }
        while !bytes.is_empty() && !self.is_opaque() {
            if self.response.is_between_messages() && !self.has_unanswered() && !self.orphan {
                if head::skip_line_ends(bytes).is_empty() {
                    return;
                }
                if self.request.lost || self.response.lost {
                    self.orphan = true;
                } else {
                    self.hold(bytes, time);
                    return;
                }
            }
            match &mut self.response.state {
                State::Seek => return,
                State::Head(_) => {
                    let Some(parsed) = self.take_head(Part::Response, &mut bytes, time) else { return };
                    let Some(parsed) = head::parse_response(&parsed) else {
                        self.lose_place(Part::Response, Cause::Malformed);
                        return;
                    };
                    self.begin_response(parsed, time, out);
                }
                State::Body(_) => match self.feed_body(Part::Response, &mut bytes, out) {
                    Fed::NeedMore => {}
                    Fed::End(trailers) => {
                        let answered = self.pending.iter_mut().find(|p| !p.response_done).filter(|_| !self.orphan);
                        if let Some(response) = answered.and_then(|p| p.exchange.response.as_mut()) {
                            response.head.trailers = trailers;
                        }
                        self.end_response(time, out);
                    }
                    Fed::Malformed => {
                        self.lose_place(Part::Response, Cause::Malformed);
                        return;
                    }
                },
            }
        }
    }

    fn has_unanswered(&self) -> bool {
        self.pending.iter().any(|p| !p.response_done)
    }

    /// A response came before its request: another thread of the process was faster with its record.
    fn hold(&mut self, bytes: &[u8], time: u64) {
        let fresh = self.held.is_empty();
        if fresh && !matches!(head::start_of(bytes), Start::Response | Start::Undecided) {
            // A server that speaks first does not speak HTTP.
            self.protocol = if self.protocol == Protocol::Unknown { Protocol::Other } else { self.protocol };
            self.lose_place(Part::Response, Cause::Malformed);
            return;
        }
        if self.held_bytes + bytes.len() > self.limits.held {
            self.held.clear();
            self.held_bytes = 0;
            self.orphans += 1;
            self.lose_place(Part::Response, Cause::Limit);
            return;
        }
        self.held_bytes += bytes.len();
        let held = Held { time, bytes: bytes.to_vec() };
        if self.replaying { self.held.push_front(held) } else { self.held.push_back(held) }
    }

    fn begin_response(&mut self, parsed: head::ResponseHead, time: u64, out: &mut dyn Observer) {
        self.protocol = Protocol::Http1;
        if matches!(parsed.status, 100..=199) && parsed.status != 101 {
            self.response.state = State::Head(Vec::new());
            return;
        }
        let started = self.response.started;
        let at = self.offset_of(Part::Response);
        let pending = self.pending.iter_mut().find(|p| !p.response_done).filter(|_| !self.orphan);
        let Some(pending) = pending else {
            let announced = body::of_response(&parsed.head, parsed.status, "");
            self.response.state = State::Body(announced.framing);
            if matches!(&self.response.state, State::Body(framing) if framing.is_over()) {
                self.end_response(time, out);
            }
            return;
        };
        let exchange = &mut pending.exchange;
        let announced = body::of_response(&parsed.head, parsed.status, &exchange.request.method);
        if announced.ambiguous {
            exchange.damaged(Damage { cause: Cause::AmbiguousLength, part: Part::Response, start: at, end: at });
        }
        let tunnel = parsed.status == 101
            || (exchange.request.method.eq_ignore_ascii_case("CONNECT") && matches!(parsed.status, 200..=299));
        exchange.times.response_start = Some(started);
        exchange.times.end = time;
        exchange.response = Some(Response { status: parsed.status, head: parsed.head, ..Response::default() });
        let over = tunnel || announced.framing.is_over();
        self.kept -= pending.counted;
        pending.counted = exchange.kept_bytes();
        self.kept += pending.counted;
        if self.limits.is_large(announced.framing.announced()) {
            self.kept -= pending.ask(Part::Response, out);
        }
        if pending.exchange.request.body.bytes.len() >= self.limits.large {
            self.kept -= pending.ask(Part::Request, out);
        }
        self.response.state = State::Body(announced.framing);
        if over {
            self.end_response(time, out);
        }
        if tunnel {
            // What follows is another protocol, and so is what was sent behind the request already.
            self.end_tunnel(time, out);
        }
    }

    fn end_tunnel(&mut self, time: u64, out: &mut dyn Observer) {
        let behind = self.pending.iter().skip_while(|p| p.response_done).count();
        self.give_up_pending(time);
        let kept = self.pending.len() - behind;
        for dropped in self.pending.drain(kept..) {
            self.kept -= dropped.counted;
        }
        self.emit(out);
        self.protocol = Protocol::Other;
    }

    fn end_response(&mut self, time: u64, out: &mut dyn Observer) {
        self.response.state = State::Head(Vec::new());
        if std::mem::take(&mut self.orphan) {
            self.orphans += 1;
            return;
        }
        self.response.lost = false;
        if let Some(pending) = self.pending.iter_mut().find(|p| !p.response_done) {
            pending.response_done = true;
            pending.exchange.times.end = time;
            if let Some(response) = &mut pending.exchange.response {
                response.body.complete = true;
            }
        }
        self.emit(out);
    }

    /// Whether a record that comes while the place is lost begins with a message.
    fn found(&mut self, part: Part, bytes: &[u8]) -> bool {
        let expected = if part == Part::Request { Start::Request } else { Start::Response };
        if head::start_of(bytes) != expected {
            self.sought(part, bytes.len() as u64);
            return false;
        }
        if part == Part::Response {
            // The response that was cut by the loss ends here.
            if let Some(cut) = self.pending.front_mut().filter(|p| p.exchange.response.is_some()) {
                cut.response_done = true;
                cut.request_done = true;
            }
        }
        self.half(part).state = State::Head(Vec::new());
        true
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

    /// Bytes of a half are missing.
    fn miss(&mut self, part: Part, len: u64, cause: Cause, time: u64, out: &mut dyn Observer) {
        let end = self.offset_of(part);
        let damage = Damage { cause, part, start: end.saturating_sub(len), end };
        let orphan = self.orphan;
        let pending = match part {
            Part::Request => self.pending.back_mut().filter(|p| !p.request_done),
            Part::Response => self.pending.iter_mut().find(|p| !p.response_done).filter(|_| !orphan),
        };
        let half = match part {
            Part::Request => &mut self.request,
            Part::Response => &mut self.response,
        };
        let kept = match (&mut half.state, pending) {
            (State::Body(framing), Some(pending)) => {
                let Some(body) = pending.exchange.body_mut(part) else { return };
                if cause == Cause::Redacted {
                    body.cut.get_or_insert(Cut::Redacted);
                }
                let needed = body.cut.is_none();
                let fits = framing.skip(len, body);
                // Of a body of which no more is kept nothing is missing as long as its length is certain.
                if needed || !fits {
                    pending.exchange.damaged(damage);
                }
                fits
            }
            // Nobody waits for this body.
            (State::Body(framing), None) => framing.skip(len, &mut Body::default()),
            (_, Some(pending)) => {
                pending.exchange.damaged(damage);
                false
            }
            _ => false,
        };
        let over = kept && matches!(&half.state, State::Body(framing) if framing.is_over());
        if !kept {
            self.seek(part);
            match part {
                // What was held answers a request that is lost.
                Part::Request => self.feed_held(true, out),
                Part::Response => self.give_up_answered(end, time),
            }
        } else if over && part == Part::Request {
            self.end_request(time);
        } else if over {
            self.end_response(time, out);
        }
    }

    /// Whole responses may be lost. A client that does not pipeline sent its last request only when it had the answers
    /// to those before; of one that does, nothing is certain until the queue is empty.
    fn give_up_answered(&mut self, at: u64, time: u64) {
        let certain = usize::from(!self.pipelined);
        let answered = self.pending.len().saturating_sub(certain);
        for pending in self.pending.iter_mut().take(answered).filter(|p| !p.response_done) {
            if pending.exchange.damage.is_empty() {
                pending.exchange.damaged(Damage { cause: Cause::Resync, part: Part::Response, start: at, end: at });
            }
            (pending.request_done, pending.response_done) = (true, true);
            pending.exchange.times.end = time;
        }
    }

    /// The bytes at hand are not what the place demands.
    fn lose_place(&mut self, part: Part, cause: Cause) {
        if self.protocol == Protocol::Unknown && !self.late && !self.half(part).lost {
            self.protocol = Protocol::Other;
            return;
        }
        let at = self.offset_of(part);
        let pending = match part {
            Part::Request => self.pending.back_mut().filter(|p| !p.request_done),
            Part::Response => self.pending.iter_mut().find(|p| !p.response_done),
        };
        if let Some(pending) = pending {
            pending.exchange.damaged(Damage { cause, part, start: at, end: at });
        }
        self.seek(part);
    }

    fn seek(&mut self, part: Part) {
        if part == Part::Request
            && let Some(pending) = self.pending.back_mut()
        {
            // No more of this request will be known; its response still can be.
            pending.request_done = true;
        }
        self.orphan &= part == Part::Request;
        let half = self.half(part);
        half.state = State::Seek;
        half.lost = true;
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
