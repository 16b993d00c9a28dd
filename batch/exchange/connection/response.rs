//! The responses of a connection, and what came of them before its request.

use super::{Connection, Held, Protocol, State};
use crate::{
    body::{self, Fed},
    exchange::{Cause, Damage, Observer, Part, Response},
    head::{self, Start},
};

impl Connection {
    pub(super) fn feed_response(&mut self, mut bytes: &[u8], time: u64, out: &mut dyn Observer) {
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

    /// Feeds what was held, as long as a request waits for it, or (`orphaned`) to pass it over.
    pub(super) fn feed_held(&mut self, orphaned: bool, out: &mut dyn Observer) {
        self.replaying = true;
        while (orphaned || self.has_unanswered()) && !self.is_opaque() {
            let Some(held) = self.held.pop_front() else { break };
            self.held_bytes -= held.bytes.len();
            self.feed_response(&held.bytes, held.time, out);
        }
        self.replaying = false;
    }

    pub(super) fn has_unanswered(&self) -> bool {
        self.pending.iter().any(|p| !p.response_done)
    }

    /// A response came before its request: another thread of the process was faster with its record.
    pub(super) fn hold(&mut self, bytes: &[u8], time: u64) {
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

    pub(super) fn begin_response(&mut self, parsed: head::ResponseHead, time: u64, out: &mut dyn Observer) {
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

    pub(super) fn end_tunnel(&mut self, time: u64, out: &mut dyn Observer) {
        let behind = self.pending.iter().skip_while(|p| p.response_done).count();
        self.give_up_pending(time);
        let kept = self.pending.len() - behind;
        for dropped in self.pending.drain(kept..) {
            self.kept -= dropped.counted;
        }
        self.emit(out);
        self.protocol = Protocol::Other;
    }

    pub(super) fn end_response(&mut self, time: u64, out: &mut dyn Observer) {
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
}
