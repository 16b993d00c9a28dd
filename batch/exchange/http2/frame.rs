//! Frames of HTTP/2 (RFC 9113, section 4): their heads, and whether bytes can be frames at all.

/// Bytes of a frame's head.
pub(crate) const HEAD: usize = 9;
/// What a client begins with.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Frames of this size are looked for when the place is lost. Larger ones exist; a length as wild as that is a sign that
/// the bytes are none.
const PLAUSIBLE_MAX: u32 = 1 << 22;

/// Flags, by what they say; some mean different things for different kinds.
pub(crate) mod flag {
    pub(crate) const END_STREAM: u8 = 0x01;
    pub(crate) const ACK: u8 = 0x01;
    pub(crate) const END_HEADERS: u8 = 0x04;
    pub(crate) const PADDED: u8 = 0x08;
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// What kind of frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Data,
    Headers,
    Priority,
    RstStream,
    Settings,
    PushPromise,
    Ping,
    Goaway,
    WindowUpdate,
    Continuation,
    /// An extension: passed over.
    Other,
}

/// A frame's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) len: u32,
    pub(crate) kind: Kind,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

impl Frame {
    pub(crate) fn of(head: [u8; HEAD]) -> Self {
        let [a, b, c, kind, flags, stream @ ..] = head;
        let kind = match kind {
            0 => Kind::Data,
            1 => Kind::Headers,
            2 => Kind::Priority,
            3 => Kind::RstStream,
            4 => Kind::Settings,
            5 => Kind::PushPromise,
            6 => Kind::Ping,
            7 => Kind::Goaway,
            8 => Kind::WindowUpdate,
            9 => Kind::Continuation,
            _ => Kind::Other,
        };
        // The highest bit of the stream is reserved.
        let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
        Self { len: u32::from_be_bytes([0, a, b, c]), kind, flags, stream }
    }

    pub(crate) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether a frame may look like this. One that may not says that the bytes are something else.
    pub(crate) fn is_valid(self) -> bool {
        let fixed = |len| self.len == len;
        let padding = u32::from(self.has(flag::PADDED));
        match self.kind {
            Kind::Data => self.stream != 0 && self.len >= padding,
            Kind::Headers => self.stream != 0 && self.len >= padding + if self.has(flag::PRIORITY) { 5 } else { 0 },
            Kind::Priority => self.stream != 0 && fixed(5),
            Kind::RstStream => self.stream != 0 && fixed(4),
            Kind::Settings => {
                self.stream == 0 && if self.has(flag::ACK) { fixed(0) } else { self.len.is_multiple_of(6) }
            }
            Kind::PushPromise => self.stream != 0 && self.len >= padding + 4,
            Kind::Ping => self.stream == 0 && fixed(8),
            Kind::Goaway => self.stream == 0 && self.len >= 8,
            Kind::WindowUpdate => fixed(4),
            Kind::Continuation => self.stream != 0,
            Kind::Other => true,
        }
    }

    /// The same for bytes that are not known to be frames: only what every implementation sends.
    fn is_plausible(self) -> bool {
        let flags = match self.kind {
            Kind::Data => flag::END_STREAM | flag::PADDED,
            Kind::Headers => flag::END_STREAM | flag::END_HEADERS | flag::PADDED | flag::PRIORITY,
            Kind::PushPromise => flag::END_HEADERS | flag::PADDED,
            Kind::Continuation => flag::END_HEADERS,
            Kind::Settings | Kind::Ping => flag::ACK,
            _ => 0,
        };
        self.kind != Kind::Other && self.is_valid() && self.flags & !flags == 0 && self.len <= PLAUSIBLE_MAX
    }
}

/// Whether bytes that begin anywhere begin with a frame: heads follow each other up to their end.
pub(crate) fn begins_with_frame(mut bytes: &[u8]) -> bool {
    let mut seen = false;
    while let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() {
        let frame = Frame::of(*head);
        if !frame.is_plausible() || head[5] & 0x80 != 0 {
            return false;
        }
        seen = true;
        match rest.get(frame.len as usize..) {
            Some(rest) => bytes = rest,
            None => return true,
        }
    }
    seen
}

/// What the first bytes of a stream say about HTTP/2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// A client's preface.
    Client,
    /// A server's first frame.
    Server,
    /// Could become either with more bytes.
    Undecided,
    /// Neither.
    Other,
}

pub(crate) fn opening_of(bytes: &[u8]) -> Opening {
    // The first line is enough; what else begins so is not worth waiting for the rest.
    let line = &PREFACE[..16];
    if bytes.starts_with(line) {
        return Opening::Client;
    }
    if line.starts_with(bytes) {
        return Opening::Undecided;
    }
    match bytes.first_chunk::<HEAD>() {
        Some(head) => {
            let frame = Frame::of(*head);
            let is_settings = frame.kind == Kind::Settings && frame.flags == 0 && frame.is_plausible() && head[5] == 0;
            if is_settings { Opening::Server } else { Opening::Other }
        }
        None if bytes.starts_with(&[0, 0]) || bytes == [0] => Opening::Undecided,
        None => Opening::Other,
    }
}
