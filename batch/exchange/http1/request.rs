//! The requests of a connection.

use super::{
    Http1, Pending,
    body::{self, Fed, Framing},
    half::State,
    head,
};
use crate::{
    exchange::{Cause, Damage, Exchange, Observer, Part, Request, Times},
    messages::Scan,
    waiting::{Came, Waiting},
};

impl Http1 {
    pub(super) fn feed_request(&mut self, mut bytes: &[u8], out: &mut dyn Observer) {
        if matches!(self.request.state, State::Seek) && !self.found(Part::Request, bytes) {
            return;
        }
        while !bytes.is_empty() && !self.over {
            match &mut self.request.state {
                State::Seek => return,
                State::Head(_) if self.upgrading => {
                    self.hold_behind_upgrade(Came::Bytes(bytes.to_vec()), out);
                    return;
                }
                State::Head(_) => {
                    let Some(parsed) = self.take_head(Part::Request, &mut bytes, out) else { return };
                    let Some(parsed) = head::parse_request(&parsed) else {
                        self.lose_place(Part::Request, Cause::Malformed, out);
                        return;
                    };
                    self.begin_request(parsed.head, parsed.odd, out);
                    self.feed_held(false, out);
                }
                State::Body(_) => match self.feed_body(Part::Request, &mut bytes, out) {
                    Fed::NeedMore => {}
                    Fed::End(trailers) => {
                        if let Some(pending) = self.pending.back_mut().filter(|p| !p.request_done) {
                            pending.exchange.request.head.trailers = trailers;
                        }
                        self.end_request();
                    }
                    Fed::Malformed => {
                        self.lose_place(Part::Request, Cause::Malformed, out);
                        return;
                    }
                },
            }
        }
        if let Some(upgrade) = &mut self.upgrade {
            // The answer was there before its request; the rest of this record is for what follows.
            upgrade.requests.push(self.now.time, Came::Bytes(bytes.to_vec()), usize::MAX);
        }
    }

    /// A head is complete: the exchange begins.
    pub(super) fn begin_request(&mut self, parsed: head::RequestHead, odd: bool, out: &mut dyn Observer) {
        self.certain = true;
        if matches!(self.response.state, State::Seek) {
            // A client that does not pipeline sends the next request only when it has the response: what was lost of
            // the responses cannot belong to this one.
            self.give_up_pending();
        }
        // Bodies are cut at the budget; only heads can exceed it by so much.
        let heads_max = self.limits.connection.saturating_add(self.limits.head);
        if self.pending.len() >= self.limits.pipeline || self.kept > heads_max {
            self.give_up_connection();
            return;
        }
        self.judge_order();
        let announced = body::of_request(&parsed.head, &parsed.method);
        let mut damage = Vec::new();
        let at = self.offset_of(Part::Request);
        if announced.ambiguous {
            damage.push(Damage { cause: Cause::AmbiguousLength, part: Part::Request, start: at, end: at });
        }
        // With two hosts, which one is meant?
        if odd || parsed.head.headers.get_all("host").count() > 1 {
            damage.push(Damage { cause: Cause::Malformed, part: Part::Request, start: at, end: at });
        }
        if self.request.lost && !self.late {
            damage.push(Damage { cause: Cause::Resync, part: Part::Request, start: at, end: at });
        }
        self.upgrading = asks_for_upgrade(&parsed) && !self.unpairable;
        let over = announced.framing.is_over();
        let time = self.now.time;
        let times = Times { request_start: self.request.started, request_end: time, response_start: None, end: time };
        let request = Request { method: parsed.method, target: parsed.target, head: parsed.head, ..Request::default() };
        let exchange = Box::new(Exchange { request, times, damage, ..Exchange::default() });
        let scans = [Scan::of(&exchange.request.head), None];
        let (counted, after_loss) = (exchange.kept_bytes(), self.shaken);
        let mut pending = Pending {
            exchange,
            request_done: false,
            response_done: false,
            after_loss,
            losses: self.losses,
            scans,
            counted,
        };
        if self.unpairable {
            pending.doubt(self.offset_of(Part::Response));
            pending.response_done = true;
        }
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
            self.end_request();
        }
    }

    pub(super) fn end_request(&mut self) {
        self.request.state = State::Head(Vec::new());
        self.request.lost = false;
        if let Some(pending) = self.pending.back_mut().filter(|p| !p.request_done) {
            pending.request_done = true;
            pending.exchange.request.body.complete = true;
            pending.exchange.times.request_end = self.now.time;
        }
    }

    /// What is sent behind a request for an upgrade is whatever the answer makes it.
    pub(super) fn hold_behind_upgrade(&mut self, came: Came, out: &mut dyn Observer) {
        if !self.behind_upgrade.push(self.now.time, came, self.limits.held) {
            self.behind_upgrade = Waiting::default();
            self.upgrading = false;
            self.lose_place(Part::Request, Cause::Limit, out);
        }
    }

    /// No upgrade: what was sent behind the request for it is more requests.
    pub(super) fn feed_behind(&mut self, out: &mut dyn Observer) {
        let (time, mut behind) = (self.now.time, std::mem::take(&mut self.behind_upgrade));
        while let Some((then, came)) = behind.pop() {
            self.now.time = then;
            match came {
                Came::Bytes(bytes) => self.feed_request(&bytes, out),
                Came::Gap(len, cause) => self.miss(Part::Request, len, cause, out),
            }
        }
        self.now.time = time;
    }

    /// The exchanges so far can get no response any more.
    pub(super) fn give_up_pending(&mut self) {
        let (time, at) = (self.now.time, self.offset_of(Part::Response));
        for pending in &mut self.pending {
            pending.request_done = true;
            if !pending.response_done {
                pending.response_done = true;
                pending.exchange.times.end = time;
                pending.doubt(at);
            }
        }
    }

    /// More requests wait than can be kept: nothing that follows could be paired with certainty.
    pub(super) fn give_up_connection(&mut self) {
        let at = self.offset_of(Part::Request);
        for pending in &mut self.pending {
            pending.exchange.damaged(Damage { cause: Cause::Limit, part: Part::Response, start: at, end: at });
        }
        self.give_up_pending();
        self.over = true;
    }
}

fn asks_for_upgrade(request: &head::RequestHead) -> bool {
    request.method == "CONNECT" || request.head.headers.get("upgrade").is_some()
}
