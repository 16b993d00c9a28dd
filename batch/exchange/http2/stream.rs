//! A stream: one exchange, from whichever half of it is seen first.

use crate::{
    exchange::{Cause, Cut, Damage, Exchange, Observer, Part, Response},
    http2::block::Fields,
    intake::{Intake, Room},
    limits::{Limits, Moment},
    messages::{Dialect, Messages, Scan},
    pending::Pending,
};

/// What stands for a method or a target that was told in bytes that were not seen.
const UNKNOWN: &str = "unknown";

#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) pending: Pending,
    /// The request's head was seen.
    requested: bool,
    /// Bytes of this half can be missing that nobody knows of, its end among them.
    uncertain: [bool; 2],
    /// When that became so, or the stream was last heard of.
    heard: u64,
}

impl Stream {
    /// The request of an upgrade.
    pub(super) fn upgraded(pending: Pending) -> Self {
        Self { pending, requested: true, ..Self::default() }
    }

    pub(super) fn is_requested(&self) -> bool {
        self.requested
    }

    pub(super) fn is_answered(&self) -> bool {
        self.pending.exchange.response.is_some()
    }

    pub(super) fn is_uncertain(&self) -> bool {
        self.uncertain.contains(&true)
    }

    /// When the stream was last heard of, if its end may have been missed.
    pub(super) fn waits_since(&self) -> Option<u64> {
        self.is_uncertain().then_some(self.heard)
    }

    /// Both halves have ended; of a request that may have ended unseen the response says so.
    pub(super) fn is_done(&self) -> bool {
        self.pending.response_done && (self.pending.request_done || self.uncertain[0])
    }

    /// The request's head.
    pub(super) fn request(&mut self, fields: Fields, now: Moment) {
        let exchange = &mut self.pending.exchange;
        self.requested = true;
        exchange.times.request_start = now.time;
        exchange.times.request_end = now.time;
        exchange.times.end = exchange.times.end.max(now.time);
        let request = &mut exchange.request;
        request.method = fields.method.unwrap_or_else(|| UNKNOWN.to_owned());
        request.target = fields.target.unwrap_or_else(|| UNKNOWN.to_owned());
        (request.authority, request.scheme) = (fields.authority, fields.scheme);
        request.head = fields.head;
        if request.method == "CONNECT" {
            // What goes through the tunnel is not the exchange's.
            if fields.protocol.is_none() {
                request.target = request.authority.clone().unwrap_or_default();
            }
            request.protocol = fields.protocol;
            request.body.cut = Some(Cut::Unwanted);
        }
        self.pending.scans[0] = Scan::of(&request.head);
    }

    /// The final response's head.
    pub(super) fn respond(&mut self, fields: Fields, now: Moment, out: &mut dyn Observer) {
        let exchange = &mut self.pending.exchange;
        exchange.times.response_start = Some(now.time);
        exchange.times.end = now.time;
        let status = fields.status.unwrap_or(0);
        self.pending.scans[1] = Scan::of(&fields.head);
        let mut response = Response { status, head: fields.head, ..Response::default() };
        if exchange.request.method == "CONNECT" && (200..300).contains(&status) {
            response.body.cut = Some(Cut::Unwanted);
        }
        exchange.response = Some(response);
        if self.pending.scans[1].as_ref().is_some_and(Scan::is_lasting) {
            exchange.messages[1] = Some(Box::new(Messages::new(Dialect::ServerSentEvents)));
            out.started(exchange);
        }
    }

    /// The fields behind a body.
    pub(super) fn trailers(&mut self, part: Part, fields: Fields) {
        let exchange = &mut self.pending.exchange;
        let head = match (part, &mut exchange.response) {
            (Part::Request, _) => &mut exchange.request.head,
            (Part::Response, Some(response)) => &mut response.head,
            (Part::Response, None) => return,
        };
        head.trailers = fields.head.headers;
        head.bytes += fields.head.bytes;
    }

    /// Counts what is kept anew; returns the change.
    pub(super) fn recount(&mut self) -> isize {
        let before = self.pending.counted;
        self.pending.counted = self.pending.kept_bytes();
        self.pending.counted.cast_signed() - before.cast_signed()
    }

    /// Body bytes. Returns how many more are kept than before.
    pub(super) fn take(
        &mut self,
        part: Part,
        data: &[u8],
        full: bool,
        limits: &Limits,
        now: Moment,
        out: &mut dyn Observer,
    ) -> isize {
        self.heard = now.time;
        let scan = self.pending.scans[part.index()].as_mut();
        let scanned = scan.as_ref().map_or(0, |scan| scan.kept_bytes());
        let Some(body) = self.pending.exchange.body_mut(part) else { return 0 };
        let before = body.bytes.len();
        let room = match () {
            () if !limits.bodies => Room::NONE,
            () if full => Room { bytes: before, cut: Cut::Budget },
            () => Room { bytes: limits.body, cut: Cut::Limit },
        };
        Intake { body, room, scan, time: now.time }.take(data);
        let after = body.bytes.len();
        let found =
            self.pending.scans[part.index()].as_ref().map_or(0, |scan| scan.kept_bytes().saturating_sub(scanned));
        let grown = (after - before + found).cast_signed();
        self.pending.counted += after - before + found;
        if before < limits.large && after >= limits.large {
            return grown - self.pending.ask(part, out).cast_signed();
        }
        grown
    }

    /// Body bytes are missing; an unknown number if the padding of their frame is not known.
    pub(super) fn skip(&mut self, part: Part, len: Option<u64>, damage: Damage, now: Moment) {
        self.heard = now.time;
        let Some(body) = self.pending.exchange.body_mut(part) else { return };
        let needed = body.cut.is_none() || len.is_none();
        body.holed |= needed;
        body.size = body.size.saturating_add(len.unwrap_or(0));
        if damage.cause == Cause::Redacted {
            body.cut.get_or_insert(Cut::Redacted);
        }
        if let Some(scan) = &mut self.pending.scans[part.index()] {
            scan.skip(len.unwrap_or(u64::MAX), now.time);
        }
        if needed {
            self.pending.exchange.damaged(damage);
        }
    }

    /// Frames are missing that can have been this stream's. Returns whether it was certain before.
    pub(super) fn doubt(&mut self, part: Part, damage: Damage, now: Moment) -> bool {
        let done = if part == Part::Request { self.pending.request_done } else { self.pending.response_done };
        if done {
            return false;
        }
        let certain = !self.is_uncertain();
        self.uncertain[part.index()] = true;
        self.heard = now.time;
        if let Some(body) = self.pending.exchange.body_mut(part) {
            body.holed = true;
        }
        if let Some(scan) = &mut self.pending.scans[part.index()] {
            scan.skip(u64::MAX, now.time);
        }
        self.pending.exchange.damaged(damage);
        certain
    }

    /// A half has ended as it should.
    pub(super) fn end(&mut self, part: Part, now: Moment) {
        self.check_length(part, now);
        let Pending { exchange, request_done, response_done, .. } = &mut self.pending;
        match part {
            Part::Request => {
                *request_done = true;
                exchange.times.request_end = now.time;
            }
            Part::Response => {
                *response_done = true;
                exchange.times.end = now.time;
            }
        }
        if let Some(body) = exchange.body_mut(part) {
            body.complete = true;
        }
    }

    /// A length that was announced and another one that came: who believes the one sees another message than who counts.
    fn check_length(&mut self, part: Part, now: Moment) {
        let exchange = &mut self.pending.exchange;
        let (asked, status) = (&exchange.request.method, exchange.response.as_ref().map_or(0, |r| r.status));
        let bodiless = part == Part::Response && (asked == "HEAD" || asked == UNKNOWN || matches!(status, 204 | 304));
        let head = match part {
            Part::Request => Some(&exchange.request.head),
            Part::Response => exchange.response.as_ref().map(|response| &response.head),
        };
        let Some(announced) = head.and_then(|head| head.headers.get("content-length")).filter(|_| !bodiless) else {
            return;
        };
        let counted = exchange.body(part).map_or(0, |body| body.size);
        if announced.parse() != Ok(counted) && !self.uncertain[part.index()] && exchange.damage.is_empty() {
            let at = now.offsets[part.index()];
            exchange.damaged(Damage { cause: Cause::AmbiguousLength, part, start: at, end: at });
        }
    }

    /// One end has given the exchange up. `comes`: a request that was not seen yet is on its way, and ends by itself.
    pub(super) fn reset(&mut self, now: Moment, comes: bool) {
        let Pending { exchange, request_done, response_done, .. } = &mut self.pending;
        exchange.closed_early |= !*response_done;
        exchange.times.end = exchange.times.end.max(now.time);
        *response_done = true;
        *request_done |= self.requested || !comes;
    }

    /// The exchange; `None` if neither head was seen.
    pub(super) fn finish(mut self) -> Option<Exchange> {
        let exchange = &mut self.pending.exchange;
        if !self.requested {
            let response = exchange.response.as_ref()?;
            (exchange.request.method, exchange.request.target) = (UNKNOWN.to_owned(), UNKNOWN.to_owned());
            exchange.request.head.version = response.head.version;
            exchange.times.request_start = exchange.times.response_start.unwrap_or(exchange.times.end);
            exchange.times.request_end = exchange.times.request_start;
            exchange.damaged(Damage { cause: Cause::Resync, part: Part::Request, start: 0, end: 0 });
        }
        Some(self.pending.finish())
    }
}
