//! What is missing of a connection, and how its place is found again.

use super::{
    Http1,
    half::State,
    head::{self, Start},
};
use crate::exchange::{Body, Cause, Cut, Damage, Observer, Part};

impl Http1 {
    /// Bytes of a half are missing.
    pub(super) fn miss(&mut self, part: Part, len: u64, cause: Cause, out: &mut dyn Observer) {
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
            if self.request.lost && self.response.lost {
                // A response that comes now can answer a request that nobody saw.
                self.give_up_pending();
            }
            match part {
                // What was held answers a request that is lost.
                Part::Request => self.feed_held(true, out),
                Part::Response => self.give_up_answered(end),
            }
        } else if over && part == Part::Request {
            self.end_request();
        } else if over {
            self.end_response(out);
        }
    }

    /// Whole responses may be lost. A client that does not pipeline sent its last request only when it had the answers
    /// to those before; of one that does, nothing is certain until the queue is empty.
    pub(super) fn give_up_answered(&mut self, at: u64) {
        let certain = usize::from(!self.pipelined);
        let answered = self.pending.len().saturating_sub(certain);
        for pending in self.pending.iter_mut().take(answered).filter(|p| !p.response_done) {
            if pending.exchange.damage.is_empty() {
                pending.exchange.damaged(Damage { cause: Cause::Resync, part: Part::Response, start: at, end: at });
            }
            (pending.request_done, pending.response_done) = (true, true);
            pending.exchange.times.end = self.now.time;
        }
    }

    /// The bytes at hand are not what the place demands.
    pub(super) fn lose_place(&mut self, part: Part, cause: Cause) {
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
            Part::Request => head::start_of(bytes) == Start::Request && head::has_registered_method(bytes),
            Part::Response => head::start_of(bytes) == Start::Response,
        };
        if !begins {
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
}
