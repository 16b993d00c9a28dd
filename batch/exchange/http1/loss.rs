//! What is missing of a connection, and how its place is found again.

use super::{
    Http1,
    half::State,
    head::{self, Start},
};
use crate::{
    exchange::{Body, Cause, Cut, Damage, Observer, Part},
    waiting::Came,
};

/// Requests in a row that find all others answered, until a client is taken for one that waits for its answers.
const SETTLED: u8 = 100;

impl Http1 {
    /// Bytes of a half are missing.
    pub(super) fn miss(&mut self, part: Part, len: u64, cause: Cause, out: &mut dyn Observer) {
        match part {
            // They belong to what waits.
            Part::Response if !self.held.is_empty() && !self.replaying => {
                return self.hold_back(Came::Gap(len, cause), out);
            }
            Part::Request if self.upgrading && matches!(self.request.state, State::Head(_)) => {
                return self.hold_behind_upgrade(Came::Gap(len, cause), out);
            }
            _ => {}
        }
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
                if let Some(scan) = &mut pending.scans[part.index()] {
                    scan.skip(len, self.now.time);
                }
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
            self.shake(part, end, out);
        } else if over && part == Part::Request {
            self.end_request();
        } else if over {
            self.end_response(out);
        }
    }

    /// Messages may be lost with what was lost: which requests can still be paired?
    fn shake(&mut self, part: Part, at: u64, out: &mut dyn Observer) {
        (self.shaken, self.settled) = (true, 0);
        self.losses = self.losses.wrapping_add(u32::from(part == Part::Response));
        self.unpairable |= self.pipelines;
        if self.request.lost && self.response.lost {
            // A response that comes now can answer a request that nobody saw.
            self.give_up_pending();
        }
        match part {
            // What was held answers a request that is lost.
            Part::Request => self.feed_held(true, out),
            Part::Response => self.give_up_answered(at),
        }
    }

    /// Whole responses may be lost. A client that does not pipeline sent its last request only when it had the answers
    /// to those before; of one that does, nothing is certain.
    fn give_up_answered(&mut self, at: u64) {
        let certain = usize::from(!self.pipelined && !self.pipelines);
        let answered = self.pending.len().saturating_sub(certain);
        for pending in self.pending.iter_mut().take(answered).filter(|p| !p.response_done) {
            pending.doubt(at);
            (pending.request_done, pending.response_done) = (true, true);
            pending.exchange.times.end = self.now.time;
        }
    }

    /// A request begins: what its moment says of those before it.
    pub(super) fn judge_order(&mut self) {
        let waits = self.has_unanswered() && self.response.is_between_messages();
        self.pipelined |= waits;
        self.settled = if self.has_unanswered() { 0 } else { self.settled.saturating_add(1) };
        if !self.shaken {
            // Once can be two threads of a server whose records came in another order.
            self.pipelines &= self.settled < SETTLED;
            return;
        }
        if self.unpairable || waits {
            // Of a client that waits for its answers, the ones before were answered by what was passed over.
            self.give_up_behind_loss();
        }
        // Twice in a row all is answered when a request comes: nothing is shifted.
        self.shaken = self.settled < 2;
    }

    /// A response begins where the place was not lost, and more than one request waits: the client pipelines. Behind a
    /// loss there may be answers to requests that nobody saw, and nothing tells them from others.
    pub(super) fn judge_answer(&mut self) {
        let waiting = self.pending.iter().filter(|p| !p.response_done).count();
        if waiting < 2 || self.response.lost {
            return;
        }
        self.pipelines = true;
        if self.shaken {
            self.unpairable = true;
            self.give_up_behind_loss();
        }
    }

    fn give_up_behind_loss(&mut self) {
        let (time, at) = (self.now.time, self.offset_of(Part::Response));
        for pending in self.pending.iter_mut().filter(|p| p.after_loss && !p.response_done) {
            pending.doubt(at);
            pending.response_done = true;
            pending.exchange.times.end = time;
        }
    }

    /// The bytes at hand are not what the place demands.
    pub(super) fn lose_place(&mut self, part: Part, cause: Cause, out: &mut dyn Observer) {
        if !self.certain && !self.late && !self.half(part).lost {
            self.over = true;
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
        self.shake(part, at, out);
    }

    pub(super) fn seek(&mut self, part: Part) {
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

    /// Counts bytes that led nowhere; after too many the stream is given up.
    pub(super) fn sought(&mut self, part: Part, len: u64) {
        let limit = self.limits.seek;
        let half = self.half(part);
        half.sought += len;
        if half.sought > limit && !self.certain {
            self.over = true;
        }
    }

    /// Whether a record that comes while the place is lost begins with a message.
    pub(super) fn found(&mut self, part: Part, bytes: &[u8]) -> bool {
        let begins = match part {
            Part::Request => {
                let line = matches!(head::start_of(bytes), Start::Request | Start::Undecided);
                line && head::has_registered_method(bytes)
            }
            Part::Response => head::start_of(bytes) == Start::Response,
        };
        if !begins {
            self.sought(part, bytes.len() as u64);
            return false;
        }
        if part == Part::Response {
            if matches!(&self.request.state, State::Head(head) if !head.is_empty()) {
                // The next request is on its way already: what was lost has answered all before it.
                self.give_up_pending();
            }
            // The response that was cut by the loss ends here.
            let at = self.offset_of(part);
            if let Some(cut) = self.pending.front_mut().filter(|p| p.exchange.response.is_some()) {
                if !cut.request_done || !cut.response_done {
                    cut.doubt(at);
                }
                cut.response_done = true;
                cut.request_done = true;
            }
        }
        self.half(part).state = State::Head(Vec::new());
        true
    }
}
