//! The responses of a connection, and what came of them before its request.

use super::{
    Http1,
    body::{self, Fed},
    half::State,
    head,
};
use crate::{
    exchange::{Cause, Damage, Observer, Part, Response},
    messages::{Dialect, Messages, Scan},
    upgrade::{Target, Upgrade},
    waiting::{Came, Waiting},
};

impl Http1 {
    pub(super) fn feed_response(&mut self, mut bytes: &[u8], out: &mut dyn Observer) {
        if matches!(self.response.state, State::Seek) && !self.found(Part::Response, bytes) {
            return;
        }
        while !bytes.is_empty() && !self.over {
            if self.response.is_between_messages() && !self.has_unanswered() && !self.orphan {
                // Line ends in front of a message mean nothing; inside of one that is held they do.
                if self.held.is_empty() && head::skip_line_ends(bytes).is_empty() {
                    return;
                }
                if self.request.lost || self.response.lost || self.unpairable {
                    self.orphan = true;
                } else {
                    self.hold(bytes, out);
                    return;
                }
            }
            match &mut self.response.state {
                State::Seek => return,
                State::Head(_) => {
                    let Some(parsed) = self.take_head(Part::Response, &mut bytes, out) else { return };
                    let Some(parsed) = head::parse_response(&parsed) else {
                        self.lose_place(Part::Response, Cause::Malformed, out);
                        return;
                    };
                    self.begin_response(parsed.head, parsed.odd, out);
                    if let Some(upgrade) = &mut self.upgrade {
                        upgrade.responses.push(self.now.time, Came::Bytes(bytes.to_vec()), usize::MAX);
                        return;
                    }
                }
                State::Body(_) => match self.feed_body(Part::Response, &mut bytes, out) {
                    Fed::NeedMore => {}
                    Fed::End(trailers) => {
                        let answered = self.pending.iter_mut().find(|p| !p.response_done).filter(|_| !self.orphan);
                        if let Some(response) = answered.and_then(|p| p.exchange.response.as_mut()) {
                            response.head.trailers = trailers;
                        }
                        self.end_response(out);
                    }
                    Fed::Malformed => {
                        self.lose_place(Part::Response, Cause::Malformed, out);
                        return;
                    }
                },
            }
        }
    }

    /// Feeds what was held, as long as a request waits for it, or (`orphaned`) to pass it over.
    pub(super) fn feed_held(&mut self, orphaned: bool, out: &mut dyn Observer) {
        self.replaying = true;
        let time = self.now.time;
        while self.upgrade.is_some() || ((orphaned || self.has_unanswered()) && !self.over) {
            let Some((then, came)) = self.held.pop() else { break };
            self.now.time = then;
            match (&mut self.upgrade, came) {
                (Some(upgrade), came) => {
                    upgrade.responses.push(then, came, usize::MAX);
                }
                (None, Came::Bytes(bytes)) => self.feed_response(&bytes, out),
                (None, Came::Gap(len, cause)) => self.miss(Part::Response, len, cause, out),
            }
        }
        self.now.time = time;
        self.replaying = false;
    }

    pub(super) fn has_unanswered(&self) -> bool {
        self.pending.iter().any(|p| !p.response_done)
    }

    /// A response came before its request: another thread of the process was faster with its record.
    pub(super) fn hold(&mut self, bytes: &[u8], out: &mut dyn Observer) {
        if !self.may_begin_held(bytes) {
            // A server that speaks first does not speak HTTP.
            self.over |= !self.certain;
            self.lose_place(Part::Response, Cause::Malformed, out);
            return;
        }
        if self.replaying {
            self.held.put_back(self.now.time, bytes);
        } else {
            self.hold_back(Came::Bytes(bytes.to_vec()), out);
        }
    }

    /// Adds to what waits for its request, as far as there is room.
    pub(super) fn hold_back(&mut self, came: Came, out: &mut dyn Observer) {
        if !self.held.push(self.now.time, came, self.limits.held) {
            self.held = Waiting::default();
            self.orphans += 1;
            self.lose_place(Part::Response, Cause::Limit, out);
        }
    }

    /// Whether what is held, with these bytes, may be the beginning of a response.
    fn may_begin_held(&self, bytes: &[u8]) -> bool {
        if self.replaying {
            head::may_begin_response(bytes.iter().chain(self.held.first_bytes()))
        } else {
            head::may_begin_response(self.held.first_bytes().chain(bytes))
        }
    }

    pub(super) fn begin_response(&mut self, parsed: head::ResponseHead, odd: bool, out: &mut dyn Observer) {
        self.certain = true;
        if matches!(parsed.status, 100..=199) && parsed.status != 101 {
            self.response.state = State::Head(Vec::new());
            return;
        }
        self.judge_answer();
        let started = self.response.started;
        let at = self.offset_of(Part::Response);
        let pending = self.pending.iter_mut().find(|p| !p.response_done).filter(|_| !self.orphan);
        let Some(pending) = pending else {
            let announced = body::of_response(&parsed.head, parsed.status, "");
            self.response.state = State::Body(announced.framing);
            if matches!(&self.response.state, State::Body(framing) if framing.is_over()) {
                self.end_response(out);
            }
            return;
        };
        let doubtful = self.response.lost && pending.losses != self.losses;
        let exchange = &mut pending.exchange;
        if doubtful {
            // Of what was lost since the request, its answer can have been a part.
            exchange.damaged(Damage { cause: Cause::Resync, part: Part::Response, start: at, end: at });
        }
        let announced = body::of_response(&parsed.head, parsed.status, &exchange.request.method);
        if announced.ambiguous {
            exchange.damaged(Damage { cause: Cause::AmbiguousLength, part: Part::Response, start: at, end: at });
        }
        if odd {
            exchange.damaged(Damage { cause: Cause::Malformed, part: Part::Response, start: at, end: at });
        }
        let tunnel =
            parsed.status == 101 || (exchange.request.method == "CONNECT" && matches!(parsed.status, 200..=299));
        let target = if parsed.status == 101 { Target::of(&parsed.head) } else { Target::Other };
        exchange.times.response_start = Some(started);
        exchange.times.end = self.now.time;
        pending.scans[1] = Scan::of(&parsed.head);
        let lasting = pending.scans[1].as_ref().is_some_and(Scan::is_lasting);
        exchange.response = Some(Response { status: parsed.status, head: parsed.head, ..Response::default() });
        let over = tunnel || announced.framing.is_over();
        if lasting {
            exchange.messages[1] = Some(Box::new(Messages::new(Dialect::ServerSentEvents)));
            out.started(exchange);
        }
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
        if tunnel && target != Target::Other {
            self.hand_over(target);
        } else if over {
            self.end_response(out);
        }
        if tunnel {
            self.give_up_pending();
            self.over = true;
        } else if std::mem::take(&mut self.upgrading) {
            self.feed_behind(out);
        }
    }

    /// The exchange goes on in another protocol, and with it what was sent behind its request already.
    fn hand_over(&mut self, target: Target) {
        let Some(open) = self.pending.pop_front() else { return };
        self.kept -= open.counted;
        let requests = std::mem::take(&mut self.behind_upgrade);
        self.upgrade = Some(Box::new(Upgrade { target, open, requests, responses: Waiting::default() }));
    }

    pub(super) fn end_response(&mut self, out: &mut dyn Observer) {
        self.response.state = State::Head(Vec::new());
        if std::mem::take(&mut self.orphan) {
            self.orphans += 1;
            return;
        }
        self.response.lost = false;
        if let Some(pending) = self.pending.iter_mut().find(|p| !p.response_done) {
            pending.response_done = true;
            pending.exchange.times.end = self.now.time;
            if let Some(response) = &mut pending.exchange.response {
                response.body.complete = true;
            }
        }
        self.emit(out);
    }
}
