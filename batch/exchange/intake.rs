//! Body bytes as they come: kept as far as there is room, and looked at for messages.

use crate::{
    exchange::{Body, Cut},
    messages::Scan,
};

/// How many bytes of a body may be kept, and what to call it if that is too few.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    pub(crate) bytes: usize,
    pub(crate) cut: Cut,
}

impl Room {
    /// Nothing is kept.
    pub(crate) const NONE: Self = Self { bytes: 0, cut: Cut::Unwanted };
}

/// Where the bytes of a body go.
pub(crate) struct Intake<'a> {
    pub(crate) body: &'a mut Body,
    pub(crate) room: Room,
    /// Whoever finds the messages in it.
    pub(crate) scan: Option<&'a mut Scan>,
    pub(crate) time: u64,
}

impl Intake<'_> {
    /// Keeps the beginning of a body: as much as there is room for, and only as long as it has no hole.
    pub(crate) fn take(&mut self, data: &[u8]) {
        if let Some(scan) = &mut self.scan {
            scan.feed(data, self.time);
        }
        let body = &mut *self.body;
        body.size = body.size.saturating_add(data.len() as u64);
        if body.holed || body.cut.is_some() {
            return;
        }
        let left = self.room.bytes.saturating_sub(body.bytes.len());
        if data.len() > left {
            body.cut = Some(self.room.cut);
        }
        body.bytes.extend_from_slice(&data[..data.len().min(left)]);
    }
}
