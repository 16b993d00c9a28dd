//! One direction of a connection: where in its messages it stands.

use super::body::Framing;

#[derive(Debug)]
pub(super) enum State {
    /// A message is expected; its head so far.
    Head(Vec<u8>),
    Body(Framing),
    /// The place is lost: a message is looked for at the start of each record.
    Seek,
}

#[derive(Debug)]
pub(super) struct Half {
    pub(super) state: State,
    /// A whole message may have been lost since the last one that was seen.
    pub(super) lost: bool,
    /// Bytes passed over in search of a message.
    pub(super) sought: u64,
    /// When the first byte of the present head came.
    pub(super) started: u64,
}

impl Half {
    pub(super) fn new(late: bool) -> Self {
        let state = if late { State::Seek } else { State::Head(Vec::new()) };
        Self { state, lost: late, sought: 0, started: 0 }
    }

    pub(super) fn kept_bytes(&self) -> usize {
        if let State::Head(head) = &self.state { head.len() } else { 0 }
    }

    pub(super) fn is_between_messages(&self) -> bool {
        matches!(&self.state, State::Head(head) if head.is_empty())
    }
}
