//! An exchange that is not complete.

use crate::{
    exchange::{Cause, Damage, Exchange, Observer, Part},
    messages::Scan,
};

#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// In a place of its own: queues move what they hold.
    pub(crate) exchange: Box<Exchange>,
    pub(crate) request_done: bool,
    pub(crate) response_done: bool,
    /// It began behind a loss that may have hidden messages.
    pub(crate) after_loss: bool,
    /// Losses among the responses when it began.
    pub(crate) losses: u32,
    /// Whoever finds the messages in the bodies.
    pub(crate) scans: [Option<Scan>; 2],
    /// Bytes of it that the connection has counted as kept.
    pub(crate) counted: usize,
}

impl Pending {
    /// Says, if nothing else does, that what is known of its response rests on a loss before it.
    pub(crate) fn doubt(&mut self, at: u64) {
        if self.exchange.damage.is_empty() {
            self.exchange.damaged(Damage { cause: Cause::Resync, part: Part::Response, start: at, end: at });
        }
    }

    /// The exchange as it stands, with the messages that its bodies hold.
    pub(crate) fn finish(self) -> Exchange {
        let mut exchange = *self.exchange;
        for (part, scan) in [Part::Request, Part::Response].into_iter().zip(self.scans) {
            let Some(scan) = scan else { continue };
            let (messages, trailers) = scan.finish();
            exchange.messages[part.index()] = Some(Box::new(messages));
            if let Some(response) =
                exchange.response.as_mut().filter(|_| part == Part::Response && !trailers.is_empty())
            {
                response.head.trailers = trailers;
            }
        }
        exchange
    }

    /// Bytes of memory.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.exchange.kept_bytes() + self.scans.iter().flatten().map(Scan::kept_bytes).sum::<usize>()
    }

    /// Lets a large body go if nobody wants it; returns how many bytes that frees.
    pub(crate) fn ask(&mut self, part: Part, out: &mut dyn Observer) -> usize {
        let Some(cut) = out.refuses_body(&self.exchange, part) else { return 0 };
        let Some(body) = self.exchange.body_mut(part) else { return 0 };
        body.cut = Some(cut);
        let freed = std::mem::take(&mut body.bytes).len();
        self.counted -= freed;
        freed
    }
}
