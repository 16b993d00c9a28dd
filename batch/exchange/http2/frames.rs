//! What the frames of a connection come to.

use super::{
    Http2, RESETS_MAX,
    block::{Block, Fields},
    frame::{Frame, Kind, flag},
    stream::Stream,
};
use crate::exchange::{Cause, Damage, Observer, Part};

/// The frame contradicts the protocol: the place is lost.
pub(super) struct Malformed;

impl Http2 {
    /// A whole frame of a kind that matters.
    pub(super) fn frame(
        &mut self,
        part: Part,
        frame: Frame,
        payload: &[u8],
        out: &mut dyn Observer,
    ) -> Result<(), Malformed> {
        match frame.kind {
            Kind::Headers | Kind::PushPromise => self.begin_block(part, frame, payload, out),
            Kind::Continuation => self.continue_block(part, frame, payload, out),
            Kind::RstStream => {
                self.reset_stream(frame.stream, out);
                Ok(())
            }
            Kind::Goaway => {
                self.go_away(part, payload, out);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn begin_block(
        &mut self,
        part: Part,
        frame: Frame,
        payload: &[u8],
        out: &mut dyn Observer,
    ) -> Result<(), Malformed> {
        if self.blocks[part.index()].is_some() {
            return Err(Malformed);
        }
        let mut block = payload;
        let mut padding = 0;
        if frame.has(flag::PADDED) {
            let (first, rest) = block.split_first().ok_or(Malformed)?;
            (padding, block) = (usize::from(*first), rest);
        }
        let mut promised = None;
        if frame.kind == Kind::PushPromise {
            let (stream, rest) = block.split_first_chunk().ok_or(Malformed)?;
            (promised, block) = (Some(u32::from_be_bytes(*stream) & 0x7fff_ffff), rest);
        } else if frame.has(flag::PRIORITY) {
            block = block.get(5..).ok_or(Malformed)?;
        }
        let block = block.len().checked_sub(padding).map(|len| &block[..len]).ok_or(Malformed)?;
        let end = frame.kind == Kind::Headers && frame.has(flag::END_STREAM);
        if frame.has(flag::END_HEADERS) {
            self.end_block(part, frame.stream, promised, block, end, out);
        } else {
            let bytes = block.to_vec();
            self.blocks[part.index()] = Some(Block { stream: frame.stream, promised, bytes, end });
        }
        Ok(())
    }

    fn continue_block(
        &mut self,
        part: Part,
        frame: Frame,
        payload: &[u8],
        out: &mut dyn Observer,
    ) -> Result<(), Malformed> {
        let Some(mut block) = self.blocks[part.index()].take() else {
            // Its beginning was missed, if anything was.
            self.tables[part.index()].forget();
            return if self.missed[part.index()] { Ok(()) } else { Err(Malformed) };
        };
        if block.stream != frame.stream {
            return Err(Malformed);
        }
        if block.bytes.len() + payload.len() > self.limits.head {
            let at = self.now.offsets[part.index()];
            self.blocks[part.index()] = Some(block);
            self.lose_block(part, frame.stream, Damage { cause: Cause::Limit, part, start: at, end: at }, out);
            return Ok(());
        }
        block.bytes.extend_from_slice(payload);
        if frame.has(flag::END_HEADERS) {
            self.end_block(part, block.stream, block.promised, &block.bytes, block.end, out);
        } else {
            self.blocks[part.index()] = Some(block);
        }
        Ok(())
    }

    /// A header block is whole.
    fn end_block(
        &mut self,
        part: Part,
        id: u32,
        promised: Option<u32>,
        block: &[u8],
        end: bool,
        out: &mut dyn Observer,
    ) {
        let at = self.now.offsets[part.index()];
        let here = |cause| Damage { cause, part, start: at, end: at };
        let Ok(mut fields) = Fields::decode(&mut self.tables[part.index()], block, self.limits.head) else {
            self.lose_block(part, id, here(Cause::Malformed), out);
            if end {
                self.end_half(id, part, out);
            }
            return;
        };
        fields.head.bytes = (super::frame::HEAD + block.len()) as u64;
        let damage = match () {
            () if fields.cut => Some(here(Cause::Limit)),
            () if fields.unknown > 0 => Some(here(Cause::UnknownHeaders)),
            () if fields.odd => Some(here(Cause::Malformed)),
            () => None,
        };
        let half = if promised.is_some() { Part::Request } else { part };
        let id = promised.unwrap_or(id);
        match half {
            Part::Request => self.request(id, fields, promised.is_some(), out),
            Part::Response => self.response(id, fields, end, out),
        }
        if let Some(damage) = damage
            && let Some(stream) = self.streams.get_mut(&id)
        {
            stream.pending.exchange.damaged(Damage { part: half, ..damage });
        }
        if end || promised.is_some() {
            self.end_half(id, half, out);
        }
    }

    fn request(&mut self, id: u32, fields: Fields, pushed: bool, out: &mut dyn Observer) {
        if let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.is_requested()) {
            stream.trailers(Part::Request, fields);
            self.recount(id);
            return self.make_room(out);
        }
        if !pushed && fields.method.is_none() && fields.unknown == 0 && (self.missed[0] || self.reset.contains(&id)) {
            // Trailers of a request that was not seen, or whose stream was given up.
            return;
        }
        self.make_room(out);
        let announced = announced(&fields);
        let (now, refused) = (self.now, !self.streams.contains_key(&id) && self.reset.contains(&id));
        let stream = self.streams.entry(id).or_default();
        stream.request(fields, now);
        if refused {
            // Before its record came.
            stream.reset(now, false);
        }
        if self.limits.is_large(announced) {
            stream.pending.ask(Part::Request, out);
        }
        self.recount(id);
        if refused {
            self.end_if_done(id, out);
        }
    }

    fn response(&mut self, id: u32, fields: Fields, end: bool, out: &mut dyn Observer) {
        let informational = fields.status.is_some_and(|status| (100..200).contains(&status)) && !end;
        if informational {
            return;
        }
        match self.streams.get_mut(&id) {
            Some(stream) if stream.is_answered() => {
                stream.trailers(Part::Response, fields);
                self.recount(id);
                return self.make_room(out);
            }
            Some(_) => {}
            // Frames of a stream that was given up.
            None if self.reset.contains(&id) => return,
            None if fields.status.is_none() && fields.unknown == 0 => return,
            None => {
                // Its request was missed, or will come: another thread of the process was faster with its record.
                self.make_room(out);
                let mut stream = Stream::default();
                stream.pending.request_done = self.missed[0];
                self.streams.insert(id, stream);
            }
        }
        let announced = announced(&fields);
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.respond(fields, self.now, out);
        if self.limits.is_large(announced) {
            stream.pending.ask(Part::Response, out);
        }
        if stream.pending.exchange.request.body.bytes.len() >= self.limits.large {
            stream.pending.ask(Part::Request, out);
        }
        self.recount(id);
        self.make_room(out);
    }

    fn recount(&mut self, id: u32) {
        let more = self.streams.get_mut(&id).map_or(0, Stream::recount);
        self.keep(more);
    }

    /// Of too many streams the oldest is given out as it is.
    fn make_room(&mut self, out: &mut dyn Observer) {
        let heads_max = self.limits.connection.saturating_add(self.limits.head);
        while self.streams.len() >= self.limits.pipeline || self.kept > heads_max {
            let Some(oldest) = self.streams.keys().copied().min() else { return };
            let Some(mut stream) = self.streams.remove(&oldest) else { return };
            let [start, _] = self.now.offsets;
            stream.pending.exchange.damaged(Damage { cause: Cause::Limit, part: Part::Response, start, end: start });
            self.hand_out(stream, out);
        }
    }

    /// Bytes of a body.
    pub(super) fn body(&mut self, part: Part, id: u32, data: &[u8], end: bool, out: &mut dyn Observer) {
        let full = self.now.over_budget || self.kept >= self.limits.connection;
        match self.streams.get_mut(&id) {
            Some(stream) => {
                let more = stream.take(part, data, full, &self.limits, self.now, out);
                self.keep(more);
            }
            // A response of which no head was seen.
            None if end && part == Part::Response && self.missed[1] && !self.reset.contains(&id) => self.orphans += 1,
            None => {}
        }
        if end {
            self.end_half(id, part, out);
        }
    }

    pub(super) fn end_half(&mut self, id: u32, part: Part, out: &mut dyn Observer) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.end(part, self.now);
        self.end_if_done(id, out);
    }

    fn reset_stream(&mut self, id: u32, out: &mut dyn Observer) {
        if self.reset.len() >= RESETS_MAX {
            self.reset.pop_front();
        }
        self.reset.push_back(id);
        let Some(stream) = self.streams.get_mut(&id) else { return };
        // A server that has answered resets what it does not want to read; the request's record can be later than that.
        stream.reset(self.now, !self.missed[0] && id % 2 == 1);
        self.end_if_done(id, out);
    }

    /// The streams above the last one that the server names get no answer.
    fn go_away(&mut self, part: Part, payload: &[u8], out: &mut dyn Observer) {
        let Some((last, _)) = payload.split_first_chunk() else { return };
        let last = u32::from_be_bytes(*last) & 0x7fff_ffff;
        if part == Part::Request {
            return;
        }
        let mut refused: Vec<u32> = self.streams.keys().copied().filter(|id| *id > last && id % 2 == 1).collect();
        refused.sort_unstable();
        for id in refused {
            self.reset_stream(id, out);
        }
    }
}

fn announced(fields: &Fields) -> Option<u64> {
    fields.head.headers.get("content-length")?.parse().ok()
}
