//! WebSocket (RFC 6455): two streams of frames behind an upgrade, as one exchange whose bodies are the messages.

use flate2::{Decompress, FlushDecompress, Status};

use crate::{
    exchange::{Body, Cause, Cut, Damage, Exchange, Head, Observer, Part},
    limits::{Limits, Moment},
    messages::{Dialect, Kind, Message, Messages},
    pending::Pending,
};

/// Compression of messages, as the response's head agrees to it (RFC 7692).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deflate {
    /// By direction, client first: each message is compressed on its own.
    fresh: [bool; 2],
}

/// What the response's head says of compression.
pub(crate) fn deflate_of(response: &Head) -> Option<Deflate> {
    let extensions = response.headers.get_all("sec-websocket-extensions").flat_map(|value| value.split(','));
    let mut parameters = extensions.map(|one| one.split(';').map(str::trim)).find_map(|mut one| {
        one.next().is_some_and(|name| name.eq_ignore_ascii_case("permessage-deflate")).then_some(one)
    })?;
    let mut deflate = Deflate { fresh: [false; 2] };
    for parameter in &mut parameters {
        deflate.fresh[0] |= parameter.eq_ignore_ascii_case("client_no_context_takeover");
        deflate.fresh[1] |= parameter.eq_ignore_ascii_case("server_no_context_takeover");
    }
    Some(deflate)
}

/// Bytes of a frame's head at most: flags, length, extended length, mask.
const HEAD_MAX: usize = 14;
/// What a compressed message lacks at its end (RFC 7692, section 7.2.2).
const DEFLATE_TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// A message that is made of frames.
#[derive(Debug)]
struct Open {
    kind: Kind,
    compressed: bool,
    wire: u64,
    start: u64,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    last: bool,
    control: bool,
    mask: [u8; 4],
    /// Bytes passed, for the place in the mask.
    passed: u64,
    left: u64,
}

/// One direction.
#[derive(Debug)]
struct Half {
    found: Messages,
    head: Vec<u8>,
    frame: Option<Frame>,
    /// The message whose frames are coming, and a control message between them.
    open: [Option<Open>; 2],
    inflate: Option<Decompress>,
    fresh: bool,
    closed: bool,
    /// The place, which nothing in the stream gives back, is lost.
    lost: bool,
}

/// A WebSocket connection.
#[derive(Debug)]
pub(crate) struct WebSocket {
    limits: Limits,
    halves: [Half; 2],
    open: Pending,
}

/// What the first bytes of a frame say; `None`: there are more to come.
fn frame_of(head: &[u8]) -> Option<(usize, u8, Frame)> {
    let [first, second, ..] = head else { return None };
    let (masked, short) = (second & 0x80 != 0, second & 0x7f);
    let wide = match short {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let size = 2 + wide + if masked { 4 } else { 0 };
    let head = head.get(..size)?;
    let long = head[2..2 + wide].iter().fold(0, |len, byte| len << 8 | u64::from(*byte));
    let mut mask = [0; 4];
    if masked {
        mask.copy_from_slice(&head[size - 4..]);
    }
    let left = if wide == 0 { u64::from(short) } else { long };
    Some((size, *first, Frame { last: first & 0x80 != 0, control: first & 0x08 != 0, mask, passed: 0, left }))
}

impl Half {
    fn new(deflate: Option<Deflate>, part: Part) -> Self {
        Self {
            found: Messages::new(Dialect::WebSocket),
            head: Vec::with_capacity(HEAD_MAX),
            frame: None,
            open: [None, None],
            inflate: deflate.map(|_| Decompress::new(false)),
            fresh: deflate.is_some_and(|deflate| deflate.fresh[part.index()]),
            closed: false,
            lost: false,
        }
    }

    /// Takes bytes, as far as they are frames.
    fn feed(&mut self, mut data: &[u8], body: &mut Body, room: usize, time: u64) {
        while !data.is_empty() && !self.lost {
            if self.frame.is_none() {
                if self.closed {
                    // Nothing follows a close.
                    return;
                }
                let had = self.head.len();
                self.head.extend_from_slice(&data[..data.len().min(HEAD_MAX - had)]);
                let Some((size, first, frame)) = frame_of(&self.head) else { return };
                data = &data[size - had..];
                self.head.clear();
                if !self.begin(first, frame, body) {
                    self.lost = true;
                    return;
                }
            }
            let Some(frame) = &mut self.frame else { return };
            let (part, rest) =
                data.split_at(usize::try_from(frame.left).map_or(data.len(), |left| left.min(data.len())));
            let from = frame.passed;
            frame.passed += part.len() as u64;
            frame.left -= part.len() as u64;
            let (mask, control) = (frame.mask, frame.control);
            data = rest;
            self.payload(part, mask, from, control, body, room);
            self.end_frame(body, room, time);
        }
    }

    /// A frame's head is whole. False: it is none.
    fn begin(&mut self, first: u8, frame: Frame, body: &Body) -> bool {
        let kind = match first & 0x0f {
            0 => None,
            1 => Some(Kind::Text),
            2 => Some(Kind::Binary),
            8 => Some(Kind::Close),
            9 => Some(Kind::Ping),
            10 => Some(Kind::Pong),
            _ => return false,
        };
        let compressed = first & 0x40 != 0;
        let long = frame.left > 125 || !frame.last;
        if first & 0x30 != 0 || (compressed && self.inflate.is_none()) || (frame.control && long) {
            return false;
        }
        let open = &mut self.open[usize::from(frame.control)];
        match kind {
            None if open.is_none() => return false,
            None => {}
            Some(_) if open.is_some() => return false,
            Some(kind) => *open = Some(Open { kind, compressed, wire: 0, start: body.bytes.len() as u64 }),
        }
        self.closed |= kind == Some(Kind::Close);
        self.frame = Some(frame);
        true
    }

    /// Takes the mask off, and keeps what there is room for.
    fn payload(&mut self, data: &[u8], mask: [u8; 4], from: u64, control: bool, body: &mut Body, room: usize) {
        body.size = body.size.saturating_add(data.len() as u64);
        let Some(open) = &mut self.open[usize::from(control)] else { return };
        open.wire += data.len() as u64;
        // A control message would stand in the middle of the one that it interrupts.
        if body.holed || body.cut.is_some() || (control && self.open[0].is_some()) {
            return;
        }
        let turn = usize::try_from(from % 4).unwrap_or(0);
        let plain: Vec<u8> = data.iter().zip(mask.iter().cycle().skip(turn)).map(|(byte, mask)| byte ^ mask).collect();
        if self.open[usize::from(control)].as_ref().is_some_and(|open| open.compressed) {
            self.inflate(&plain, body, room);
        } else {
            keep(&plain, body, room);
        }
    }

    fn inflate(&mut self, mut data: &[u8], body: &mut Body, room: usize) {
        let Some(inflate) = &mut self.inflate else { return };
        let mut plain = vec![0; 16 << 10];
        // What did not fit into the buffer is still in there when all has been read.
        let mut full = false;
        while (full || !data.is_empty()) && body.cut.is_none() {
            let (read, written) = (inflate.total_in(), inflate.total_out());
            let status = inflate.decompress(data, &mut plain, FlushDecompress::Sync);
            let read = usize::try_from(inflate.total_in() - read).unwrap_or(0);
            let written = usize::try_from(inflate.total_out() - written).unwrap_or(0);
            keep(&plain[..written], body, room);
            data = &data[read..];
            full = written == plain.len();
            match status {
                Ok(Status::StreamEnd) => inflate.reset(false),
                Ok(_) if read + written > 0 || data.is_empty() => {}
                // What comes next refers to what could not be read.
                _ => {
                    body.holed = true;
                    return;
                }
            }
        }
    }

    fn end_frame(&mut self, body: &mut Body, room: usize, time: u64) {
        let Some(frame) = self.frame.filter(|frame| frame.left == 0) else { return };
        self.frame = None;
        if !frame.last {
            return;
        }
        let control = usize::from(frame.control);
        if self.open[control].as_ref().is_some_and(|open| open.compressed) && body.cut.is_none() && !body.holed {
            self.inflate(&DEFLATE_TAIL, body, room);
            if self.fresh
                && let Some(inflate) = &mut self.inflate
            {
                inflate.reset(false);
            }
        }
        let Some(Open { kind, compressed, wire, start }) = self.open[control].take() else { return };
        let len = if control == 1 && self.open[0].is_some() { 0 } else { body.bytes.len() as u64 - start };
        self.found.push(Message { time, kind, compressed, wire, start, len });
    }
}

fn keep(data: &[u8], body: &mut Body, room: usize) {
    let left = room.saturating_sub(body.bytes.len());
    if data.len() > left {
        body.cut = Some(Cut::Limit);
    }
    body.bytes.extend_from_slice(&data[..data.len().min(left)]);
}

impl WebSocket {
    /// The exchange goes on as messages.
    pub(crate) fn new(limits: Limits, mut open: Pending, deflate: Option<Deflate>, out: &mut dyn Observer) -> Self {
        open.exchange.messages = [(); 2].map(|()| Some(Box::new(Messages::new(Dialect::WebSocket))));
        out.started(&mut open.exchange);
        if !limits.bodies {
            for part in [Part::Request, Part::Response] {
                if let Some(body) = open.exchange.body_mut(part) {
                    body.cut = Some(Cut::Unwanted);
                }
            }
        }
        Self { limits, halves: [Part::Request, Part::Response].map(|part| Half::new(deflate, part)), open }
    }

    /// Bytes of memory that are kept.
    pub(crate) fn kept_bytes(&self) -> usize {
        let inflaters = self.halves.iter().flat_map(|half| &half.inflate).count() * (48 << 10);
        let listed: usize = self.halves.iter().map(|half| half.found.kept_bytes()).sum();
        self.open.exchange.kept_bytes() + listed + inflaters
    }

    /// Takes bytes.
    pub(crate) fn data(&mut self, part: Part, bytes: &[u8], now: Moment) {
        let (body_max, all_max) = (self.limits.body, self.limits.connection);
        let full = now.over_budget || self.kept_bytes() >= all_max;
        let Some(body) = self.open.exchange.body_mut(part) else { return };
        if full && body.cut.is_none() {
            body.cut = Some(Cut::Budget);
        }
        let half = &mut self.halves[part.index()];
        let was_lost = half.lost;
        half.feed(bytes, body, body_max, now.time);
        if half.lost && !was_lost {
            let at = now.offsets[part.index()];
            self.open.exchange.damaged(Damage { cause: Cause::Malformed, part, start: at, end: at });
        }
        self.open.exchange.times.end = now.time;
    }

    /// Whether both ends have said goodbye: nothing more will come.
    pub(crate) fn is_over(&self) -> bool {
        self.halves.iter().all(|half| half.closed && half.frame.is_none())
    }

    /// Takes note of bytes that cannot be had.
    pub(crate) fn missing(&mut self, part: Part, len: u64, cause: Cause, now: Moment) {
        let end = now.offsets[part.index()];
        let half = &mut self.halves[part.index()];
        self.open.exchange.damaged(Damage { cause, part, start: end.saturating_sub(len), end });
        let Some(body) = self.open.exchange.body_mut(part) else { return };
        body.holed = true;
        body.size = body.size.saturating_add(len);
        match &mut half.frame {
            Some(frame) if len <= frame.left => {
                frame.left -= len;
                frame.passed += len;
                let control = usize::from(frame.control);
                if let Some(open) = &mut half.open[control] {
                    open.wire += len;
                }
                half.end_frame(body, 0, now.time);
            }
            _ => half.lost = true,
        }
    }

    /// The exchange, as it stands.
    pub(crate) fn close(self, ended: bool, time: u64, out: &mut dyn Observer) {
        let mut exchange: Exchange = *self.open.exchange;
        let over = self.halves.iter().any(|half| half.closed);
        for (half, part) in self.halves.into_iter().zip([Part::Request, Part::Response]) {
            exchange.messages[part.index()] = Some(Box::new(half.found));
            if let Some(body) = exchange.body_mut(part) {
                body.complete = (over || ended) && half.frame.is_none();
            }
        }
        exchange.closed_early = ended && !over;
        exchange.times.end = if ended { time } else { exchange.times.end };
        out.complete(exchange);
    }
}

#[cfg(test)]
mod tests;
