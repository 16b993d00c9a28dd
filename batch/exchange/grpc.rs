//! gRPC's messages: five bytes of flags and length, then so many bytes; and the trailers of gRPC-Web, framed alike.

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use crate::{
    exchange::Headers,
    http1::text,
    messages::{Dialect, Kind, Message, Messages},
};

const PREFIX: usize = 5;
const COMPRESSED: u8 = 0x01;
const TRAILERS: u8 = 0x80;
/// Bytes of gRPC-Web trailers at most.
const TRAILERS_MAX: usize = 64 << 10;
/// Four letters of base64 stand for up to three bytes.
const QUANTUM: usize = 4;
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[derive(Debug)]
struct Open {
    flags: u8,
    len: u64,
    start: u64,
}

/// Counts the messages of a body, fed at any split.
#[derive(Debug)]
pub(crate) struct Scanner {
    found: Messages,
    /// The body is base64 of what the messages are made of.
    coded: bool,
    quantum: Vec<u8>,
    prefix: Vec<u8>,
    open: Option<Open>,
    left: u64,
    /// Bytes of the body so far; of a coded one, decoded bytes.
    at: u64,
    trailers: Vec<u8>,
    /// The place is lost: no more messages can be told.
    lost: bool,
}

impl Scanner {
    /// `coded`: the body is base64, as gRPC-Web in text is.
    pub(crate) fn new(coded: bool) -> Self {
        Self {
            found: Messages::new(Dialect::Grpc),
            coded,
            quantum: Vec::new(),
            prefix: Vec::new(),
            open: None,
            left: 0,
            at: 0,
            trailers: Vec::new(),
            lost: false,
        }
    }

    pub(crate) fn kept_bytes(&self) -> usize {
        self.found.kept_bytes() + self.trailers.len() + self.quantum.len()
    }

    pub(crate) fn feed(&mut self, data: &[u8], time: u64) {
        if !self.coded {
            return self.frames(data, time);
        }
        // Each write is padded on its own, so that padding can stand in the middle.
        self.quantum.extend(data.iter().filter(|byte| !byte.is_ascii_whitespace()));
        let letters = std::mem::take(&mut self.quantum);
        let whole = letters.len() - letters.len() % QUANTUM;
        let mut decoded = Vec::with_capacity(whole);
        for quantum in letters[..whole].chunks(QUANTUM) {
            self.lost |= BASE64.decode_vec(quantum, &mut decoded).is_err();
        }
        self.quantum.extend_from_slice(&letters[whole..]);
        self.frames(&decoded, time);
    }

    fn frames(&mut self, mut data: &[u8], time: u64) {
        while !data.is_empty() && !self.lost {
            if self.open.is_none() {
                let (prefix, rest) = data.split_at(data.len().min(PREFIX - self.prefix.len()));
                self.prefix.extend_from_slice(prefix);
                (data, self.at) = (rest, self.at + prefix.len() as u64);
                let Ok([flags, a, b, c, d]) = <[u8; PREFIX]>::try_from(self.prefix.as_slice()) else { return };
                self.prefix.clear();
                self.left = u64::from(u32::from_be_bytes([a, b, c, d]));
                self.open = Some(Open { flags, len: self.left, start: self.at });
                // Other flags do not exist: this is not gRPC.
                self.lost |= flags & !(TRAILERS | COMPRESSED) != 0;
            }
            let (part, rest) =
                data.split_at(usize::try_from(self.left).map_or(data.len(), |left| left.min(data.len())));
            self.pass(part.len() as u64);
            if self.open.as_ref().is_some_and(|open| open.flags & TRAILERS != 0) {
                // There is one such frame; more of them come to no more than it may have.
                let room = TRAILERS_MAX.saturating_sub(self.trailers.len());
                self.trailers.extend_from_slice(&part[..part.len().min(room)]);
            }
            data = rest;
            self.end_message(time);
        }
    }

    fn pass(&mut self, len: u64) {
        self.left = self.left.saturating_sub(len);
        self.at = self.at.saturating_add(len);
    }

    fn end_message(&mut self, time: u64) {
        if self.left > 0 || self.lost {
            return;
        }
        let Some(open) = self.open.take() else { return };
        if open.flags & TRAILERS == 0 {
            let (wire, start, compressed) = (open.len, open.start, open.flags & COMPRESSED != 0);
            self.found.push(Message { time, kind: Kind::Data, compressed, wire, start, len: wire });
        }
    }

    pub(crate) fn skip(&mut self, len: u64, time: u64) {
        if self.open.is_some() && !self.coded && len <= self.left {
            self.pass(len);
            self.end_message(time);
        } else {
            self.lost = true;
        }
    }

    pub(crate) fn finish(self) -> (Messages, Headers) {
        let mut trailers = Headers::default();
        for line in self.trailers.split(|byte| matches!(byte, b'\r' | b'\n')) {
            if let Some(colon) = line.iter().position(|byte| *byte == b':') {
                trailers.push(&text(line[..colon].trim_ascii()), &text(line[colon + 1..].trim_ascii()));
            }
        }
        (self.found, trailers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body() -> Vec<u8> {
        [
            &b"\0\0\0\0\x05hello"[..],
            b"\x01\0\0\0\x02zz",
            b"\0\0\0\0\0",
            b"\x80\0\0\0\x21grpc-status: 5\r\ngrpc-message: no\r\n",
        ]
        .concat()
    }

    fn scan(coded: bool, parts: &[&[u8]]) -> (Messages, Headers) {
        let mut scanner = Scanner::new(coded);
        for part in parts {
            scanner.feed(part, 7);
        }
        scanner.finish()
    }

    #[test]
    fn messages_are_found_at_every_split() {
        let body = body();
        let (found, trailers) = scan(false, &[&body]);
        assert_eq!((found.count, found.compressed, found.wire), (3, 1, 7));
        assert_eq!(found.listed.iter().map(|m| (m.start, m.len)).collect::<Vec<_>>(), [(5, 5), (15, 2), (22, 0)]);
        assert_eq!((trailers.get("grpc-status"), trailers.get("grpc-message")), (Some("5"), Some("no")));
        for split in 0..=body.len() {
            assert_eq!(scan(false, &[&body[..split], &body[split..]]).0, found, "split at {split}");
        }
        // As text, each part padded on its own.
        let text = [&body[..12], &body[12..]].map(|part| BASE64.encode(part)).concat();
        for split in 0..=text.len() {
            let (decoded, trailers) = scan(true, &[&text.as_bytes()[..split], &text.as_bytes()[split..]]);
            assert_eq!((decoded, trailers.get("grpc-status")), (found.clone(), Some("5")), "split at {split}");
        }
    }

    #[test]
    fn a_hole_in_a_message_keeps_the_count_and_one_across_ends_it() {
        let mut scanner = Scanner::new(false);
        scanner.feed(b"\0\0\0\0\x05he", 1);
        scanner.skip(3, 2);
        scanner.feed(b"\0\0\0\0\x01x", 3);
        scanner.skip(9, 4);
        scanner.feed(b"\0\0\0\0\x01x", 5);
        assert_eq!(scanner.finish().0.count, 2);
    }
}
