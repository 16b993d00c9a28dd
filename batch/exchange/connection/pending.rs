//! An exchange that is not complete.

use crate::exchange::{Cut, Exchange, Observer, Part};

#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) exchange: Exchange,
    pub(super) request_done: bool,
    pub(super) response_done: bool,
    /// Bytes of it that the connection has counted as kept.
    pub(super) counted: usize,
}

impl Pending {
    /// Lets a large body go if nobody wants it; returns how many bytes that frees.
    pub(super) fn ask(&mut self, part: Part, out: &mut dyn Observer) -> usize {
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
