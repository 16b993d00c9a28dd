//! A connection: what it speaks, which direction carries requests, and who decodes it.

use crate::{
    dns,
    exchange::{Cause, Direction, Observer, Part, Role},
    http1::{Http1, Start, start_of},
    http2::{self, Http2, Opening},
    limits::{Limits, Moment},
    tls::{self, Hello, Tls},
    upgrade::{Target, Upgrade},
    waiting::Came,
    websocket::WebSocket,
};

/// What the connection speaks, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Nothing seen that decides it.
    Unknown,
    /// HTTP/1.0 or 1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Name look-ups over TCP.
    Dns,
    /// TLS, of which only the first messages are read.
    Tls,
    /// Messages, after an upgrade from HTTP/1.1.
    WebSocket,
    /// Something else, or something else by now (CONNECT, Upgrade): more bytes change nothing.
    Other,
}

/// Who decodes the connection.
#[derive(Debug)]
enum Engine {
    /// Not yet known; the first bytes of a stream, as long as they decide nothing.
    Undecided(First),
    Http1(Box<Http1>),
    Http2(Box<Http2>),
    WebSocket(Box<WebSocket>),
    Tls(Box<Tls>),
    Dns(Box<[dns::Stream; 2]>),
    Other,
}

/// First bytes that do not yet tell what they begin.
#[derive(Debug, Default)]
struct First {
    waiting: Vec<(Direction, u64, Vec<u8>)>,
    /// Bytes that wait, by direction.
    len: [usize; 2],
    /// Bytes passed over in search of a message.
    sought: u64,
    /// Bytes before these are missing.
    lost: bool,
}

/// From so many bytes on, first bytes that tell nothing are a line that is still coming.
const LINE_MIN: usize = 64;

impl First {
    fn push(&mut self, direction: Direction, time: u64, bytes: &[u8]) {
        self.len[usize::from(direction == Direction::Received)] += bytes.len();
        match self.waiting.last_mut() {
            // Of one moment, or at least of one record after the other: the first one's time is the head's.
            Some((last, _, waiting)) if *last == direction => waiting.extend_from_slice(bytes),
            _ => self.waiting.push((direction, time, bytes.to_vec())),
        }
    }
}

/// What first bytes come to.
enum Verdict {
    /// This engine, and this direction of the requests.
    Engine(Engine, Direction),
    /// More bytes will tell.
    Wait,
    /// These tell nothing; others may.
    Pass,
    /// Not HTTP.
    Other,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    limits: Limits,
    /// Which direction carries requests, once it is known.
    requests: Option<Direction>,
    /// Stream offsets behind what was seen, by direction.
    offsets: [u64; 2],
    engine: Engine,
    over_budget: bool,
    late: bool,
    /// What was spoken until the end.
    spoken: Protocol,
    /// Responses that were passed over by engines which are gone.
    orphans: u64,
}

impl Connection {
    /// A connection that is seen from its start, or (`late`) from somewhere in its middle.
    #[must_use]
    pub fn new(limits: Limits, role: Option<Role>, late: bool) -> Self {
        Self {
            limits,
            requests: role.map(|role| match role {
                Role::Client => Direction::Sent,
                Role::Server => Direction::Received,
            }),
            offsets: [0; 2],
            engine: Engine::Undecided(First::default()),
            over_budget: false,
            late,
            spoken: Protocol::Unknown,
            orphans: 0,
        }
    }

    /// A connection to a name server.
    #[must_use]
    pub fn to_name_server(limits: Limits, role: Option<Role>, late: bool) -> Self {
        // Of one that is joined late nothing says where a message begins.
        let engine = if late { Engine::Other } else { Engine::Dns(Box::default()) };
        Self { engine, ..Self::new(limits, role, late) }
    }

    /// What is spoken.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        match &self.engine {
            Engine::Undecided(_) => Protocol::Unknown,
            Engine::Http1(http) if http.is_over() => Protocol::Other,
            Engine::Http1(http) if !http.is_certain() => Protocol::Unknown,
            Engine::Http1(_) => Protocol::Http1,
            Engine::Http2(_) => Protocol::Http2,
            Engine::WebSocket(_) => Protocol::WebSocket,
            Engine::Tls(_) => Protocol::Tls,
            Engine::Dns(_) => Protocol::Dns,
            Engine::Other => Protocol::Other,
        }
    }

    /// What is spoken, or was until the connection ended.
    #[must_use]
    pub fn spoken(&self) -> Protocol {
        match self.protocol() {
            Protocol::Other => self.spoken,
            protocol => protocol,
        }
    }

    /// Whether bytes were passed over in search of a place to go on: where that is depends on the records.
    #[cfg(fuzzing)]
    #[must_use]
    pub fn has_lost_its_place(&self) -> bool {
        match &self.engine {
            Engine::Http1(http) => http.has_lost_its_place(),
            Engine::Http2(http) => http.has_lost_its_place(),
            _ => false,
        }
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
        match &self.engine {
            Engine::Tls(tls) => tls.is_over(),
            _ => self.protocol() == Protocol::Other,
        }
    }

    /// What the hello messages of TLS have said so far, if the connection began with them.
    #[must_use]
    pub fn hello(&self) -> Option<&Hello> {
        if let Engine::Tls(tls) = &self.engine { Some(tls.hello()) } else { None }
    }

    /// Responses that were passed over because their request was not seen.
    #[must_use]
    pub fn orphans(&self) -> u64 {
        self.orphans
            + match &self.engine {
                Engine::Http1(http) => http.orphans(),
                Engine::Http2(http) => http.orphans(),
                _ => 0,
            }
    }

    /// Bytes of memory that the connection keeps, besides itself.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        match &self.engine {
            Engine::Undecided(first) => first.waiting.iter().map(|(.., bytes)| bytes.len()).sum(),
            Engine::Http1(http) => http.kept_bytes(),
            Engine::Http2(http) => http.kept_bytes(),
            Engine::WebSocket(socket) => socket.kept_bytes(),
            Engine::Tls(tls) => tls.kept_bytes(),
            Engine::Dns(streams) => streams.iter().map(dns::Stream::kept_bytes).sum(),
            Engine::Other => 0,
        }
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
        let part = if self.requests? == direction { Part::Request } else { Part::Response };
        let more = match &self.engine {
            Engine::Http1(http) => http.unwanted(part)?,
            Engine::Http2(http) => http.unwanted(part)?,
            _ => return None,
        };
        Some(self.next_offset(direction).saturating_add(more))
    }

    /// Requests whose exchange is not complete.
    #[must_use]
    pub fn open_exchanges(&self) -> usize {
        match &self.engine {
            Engine::Http1(http) => http.open_exchanges(),
            Engine::Http2(http) => http.open_exchanges(),
            Engine::WebSocket(_) => 1,
            Engine::Undecided(_) | Engine::Tls(_) | Engine::Dns(_) | Engine::Other => 0,
        }
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
        if !bytes.is_empty() {
            self.feed(direction, bytes, time, out);
        }
    }

    /// Takes note of `len` bytes that follow in their stream and cannot be had.
    pub fn missing(&mut self, direction: Direction, len: u64, cause: Cause, time: u64, out: &mut dyn Observer) {
        let offset = &mut self.offsets[usize::from(direction == Direction::Received)];
        *offset = offset.saturating_add(len);
        if len > 0 {
            self.miss(direction, len, cause, time, out);
        }
    }

    /// The same, of bytes that the offsets have passed already.
    fn miss(&mut self, direction: Direction, len: u64, cause: Cause, time: u64, out: &mut dyn Observer) {
        let (part, now) = (self.part_of(direction), self.moment(time));
        match (&mut self.engine, part) {
            (Engine::Undecided(first), _) => *first = First { lost: true, sought: first.sought, ..First::default() },
            (Engine::Http1(http), Some(part)) => http.missing(part, len, cause, now, out),
            (Engine::Http2(http), Some(part)) => http.missing(part, len, cause, now, out),
            (Engine::WebSocket(socket), Some(part)) => socket.missing(part, len, cause, now),
            (Engine::Tls(tls), Some(part)) => tls.missing(part),
            (Engine::Dns(streams), _) => streams[usize::from(direction == Direction::Received)].missing(),
            _ => {}
        }
    }

    /// No more will come: the connection ended after so many bytes (sent, received), or (`None`) nobody looks any more.
    pub fn close(&mut self, totals: Option<[u64; 2]>, time: u64, out: &mut dyn Observer) {
        if let Some([sent, received]) = totals {
            for (direction, total) in [(Direction::Sent, sent), (Direction::Received, received)] {
                let len = total.saturating_sub(self.next_offset(direction));
                self.missing(direction, len, Cause::Unseen, time, out);
            }
        }
        (self.orphans, self.spoken) = (self.orphans(), self.spoken());
        let ended = totals.is_some();
        if let Engine::Tls(tls) = &mut self.engine {
            // What it said is still asked for.
            tls.end();
            return;
        }
        match std::mem::replace(&mut self.engine, Engine::Other) {
            Engine::Http1(http) => self.orphans += http.close(ended, time, out),
            Engine::Http2(http) => self.orphans += http.close(ended, time, out),
            Engine::WebSocket(socket) => socket.close(ended, time, out),
            Engine::Undecided(_) | Engine::Tls(_) | Engine::Dns(_) | Engine::Other => {}
        }
    }

    fn part_of(&self, direction: Direction) -> Option<Part> {
        self.requests.map(|requests| if requests == direction { Part::Request } else { Part::Response })
    }

    /// Offsets behind what was seen of requests and responses.
    fn offsets_by_part(&self) -> [u64; 2] {
        let [sent, received] = self.offsets;
        if self.requests == Some(Direction::Received) { [received, sent] } else { [sent, received] }
    }

    fn moment(&self, time: u64) -> Moment {
        Moment { time, offsets: self.offsets_by_part(), over_budget: self.over_budget }
    }

    fn feed(&mut self, direction: Direction, bytes: &[u8], time: u64, out: &mut dyn Observer) {
        let (now, part) = (self.moment(time), self.part_of(direction));
        match (&mut self.engine, part) {
            (Engine::Undecided(_), _) => self.decide(direction, bytes, time, out),
            (Engine::Http1(http), Some(part)) => {
                if let Some(upgrade) = http.data(part, bytes, now, out) {
                    self.orphans += http.orphans();
                    self.upgrade(*upgrade, out);
                }
            }
            (Engine::Http2(http), Some(part)) => http.data(part, bytes, now, out),
            (Engine::Tls(tls), Some(part)) => tls.feed(part, bytes),
            (Engine::Dns(streams), _) => {
                let stream = &mut streams[usize::from(direction == Direction::Received)];
                stream.feed(bytes, |answer| out.answered(answer));
            }
            (Engine::WebSocket(socket), Some(part)) => {
                socket.data(part, bytes, now);
                if socket.is_over()
                    && let Engine::WebSocket(socket) = std::mem::replace(&mut self.engine, Engine::Other)
                {
                    socket.close(true, time, out);
                }
            }
            _ => {}
        }
    }

    /// HTTP/1 has ended; what came behind its last heads belongs to what follows.
    fn upgrade(&mut self, upgrade: Upgrade, out: &mut dyn Observer) {
        let Upgrade { target, open, requests, responses } = upgrade;
        self.engine = match target {
            Target::Http2 => Engine::Http2(Box::new(Http2::upgraded(self.limits, open))),
            Target::WebSocket(deflate) => Engine::WebSocket(Box::new(WebSocket::new(self.limits, open, deflate, out))),
            Target::Other => Engine::Other,
        };
        let Some(direction) = self.requests else { return };
        for (direction, mut waiting) in [(direction, requests), (direction.other(), responses)] {
            while let Some((time, came)) = waiting.pop() {
                match came {
                    Came::Bytes(bytes) => self.feed(direction, &bytes, time, out),
                    Came::Gap(len, cause) => self.miss(direction, len, cause, time, out),
                }
            }
        }
    }

    /// Finds out who decodes the connection, by the first bytes of a stream.
    fn decide(&mut self, direction: Direction, bytes: &[u8], time: u64, out: &mut dyn Observer) {
        let Engine::Undecided(first) = &mut self.engine else { return };
        let len = first.len[usize::from(direction == Direction::Received)];
        // A line that is still coming decides nothing before its end; to look at all of it each time would cost the
        // square of its length.
        if len >= LINE_MIN && len + bytes.len() <= self.limits.head && !bytes.iter().any(u8::is_ascii_control) {
            first.push(direction, time, bytes);
            return;
        }
        let first = std::mem::take(first);
        let mut all: Vec<u8> =
            first.waiting.iter().filter(|(d, ..)| *d == direction).flat_map(|(.., b)| b).copied().collect();
        let verdict = if all.is_empty() {
            self.verdict(direction, bytes, first.lost)
        } else {
            all.extend_from_slice(bytes);
            self.verdict(direction, &all, first.lost)
        };
        let passed = bytes.len() as u64;
        match verdict {
            Verdict::Engine(engine, requests) => {
                (self.engine, self.requests) = (engine, Some(requests));
                for (direction, time, bytes) in first.waiting {
                    self.feed(direction, &bytes, time, out);
                }
                self.feed(direction, bytes, time, out);
            }
            Verdict::Wait if len + bytes.len() <= self.limits.head => {
                let mut first = first;
                first.push(direction, time, bytes);
                self.engine = Engine::Undecided(first);
            }
            Verdict::Pass if first.sought.saturating_add(passed) <= self.limits.seek => {
                self.engine = Engine::Undecided(First { sought: first.sought + passed, ..first });
            }
            Verdict::Wait | Verdict::Pass | Verdict::Other => self.engine = Engine::Other,
        }
    }

    fn verdict(&self, direction: Direction, bytes: &[u8], lost: bool) -> Verdict {
        let fresh = !self.late && !lost;
        let part = self.part_of(direction);
        let http1 =
            |requests| Verdict::Engine(Engine::Http1(Box::new(Http1::new(self.limits, self.late, lost))), requests);
        let http2 = |http, requests| Verdict::Engine(Engine::Http2(Box::new(http)), requests);
        let (client, server) = (part != Some(Part::Response), part != Some(Part::Request));
        match tls::opening_of(bytes) {
            tls::Opening::Handshake if fresh => {
                let requests = if part == Some(Part::Response) { direction.other() } else { direction };
                return Verdict::Engine(Engine::Tls(Box::default()), requests);
            }
            tls::Opening::Undecided if fresh => return Verdict::Wait,
            _ => {}
        }
        match (start_of(bytes), http2::opening_of(bytes)) {
            (_, Opening::Client) if client && fresh => http2(Http2::new(self.limits), direction),
            (_, Opening::Client) if client => http2(Http2::behind(self.limits), direction),
            (_, Opening::Server) if server && fresh => http2(Http2::new(self.limits), direction.other()),
            (_, Opening::Undecided) if fresh => Verdict::Wait,
            (Start::Request, _) if client => http1(direction),
            (Start::Response, _) if server => http1(direction.other()),
            (Start::Undecided, _) if fresh => match part {
                Some(Part::Request) => http1(direction),
                Some(Part::Response) => http1(direction.other()),
                None => Verdict::Wait,
            },
            _ if fresh => Verdict::Other,
            _ if http2::begins_with_frame(bytes) => match part.or_else(|| http2::part_of(bytes)) {
                Some(Part::Request) => http2(Http2::late(self.limits), direction),
                Some(Part::Response) => http2(Http2::late(self.limits), direction.other()),
                None => Verdict::Pass,
            },
            _ => Verdict::Pass,
        }
    }
}

#[cfg(test)]
mod tests;
