//! What an exchange is.

/// Direction of a stream, as the observed process sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The process sent the bytes.
    Sent,
    /// The process received the bytes.
    Received,
}

/// Which end of the connection the observed process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It opened the connection.
    Client,
    /// It accepted the connection.
    Server,
}

/// Which half of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// From the client.
    Request,
    /// From the server.
    Response,
}

impl Part {
    /// Name in records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Response => "response",
        }
    }
}

/// Why bytes are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The stream offset jumped: a full ring, or a path into the socket that is not observed.
    Unseen,
    /// The process's memory could not be read.
    Fault,
    /// The bytes went from a file to the socket inside the kernel.
    Sendfile,
    /// The process let the kernel discard the bytes.
    Discarded,
    /// A whole message or more was lost before this exchange; its pairing rests on what came after.
    Resync,
    /// The head, or the queue of unanswered requests, was larger than the limit.
    Limit,
    /// The message does not follow the protocol.
    Malformed,
    /// Lengths contradict each other.
    AmbiguousLength,
}

impl Cause {
    /// Name in records and counters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unseen => "unseen",
            Self::Fault => "fault",
            Self::Sendfile => "sendfile",
            Self::Discarded => "discarded",
            Self::Resync => "resync",
            Self::Limit => "limit",
            Self::Malformed => "malformed",
            Self::AmbiguousLength => "ambiguous_length",
        }
    }
}

/// A range of a stream that is missing or not to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// Why.
    pub cause: Cause,
    /// In which half.
    pub part: Part,
    /// Stream offset of the first byte.
    pub start: u64,
    /// Stream offset behind the last byte; equal to `start` where no bytes are missing.
    pub end: u64,
}

/// Header fields in the order of the wire, repeated ones kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    text: String,
    fields: Vec<[u32; 3]>,
}

impl Headers {
    pub(crate) fn push(&mut self, name: &str, value: &str) {
        let at = |len: usize| u32::try_from(len).expect("heads are limited far below 4 GiB");
        let start = at(self.text.len());
        self.text.push_str(name);
        let middle = at(self.text.len());
        self.text.push_str(value);
        self.fields.push([start, middle, at(self.text.len())]);
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|[start, middle, end]| {
            (&self.text[*start as usize..*middle as usize], &self.text[*middle as usize..*end as usize])
        })
    }

    /// First value of a field, by name in any case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// All values of a field, by name in any case.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}

/// A message body after transfer decoding.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Body {
    /// What was kept: always the beginning, without holes.
    pub bytes: Vec<u8>,
    /// True length, as far as it was seen or announced by the framing.
    pub size: u64,
    /// The message ended as its framing says.
    pub complete: bool,
    /// Bytes beyond the limit were not kept.
    pub over_limit: bool,
    /// A hole ended what is kept.
    pub holed: bool,
}

impl Body {
    /// Whether less is kept than there was.
    #[must_use]
    pub fn truncated(&self) -> bool {
        (self.bytes.len() as u64) < self.size
    }
}

/// The fields that heads of both halves have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the head on the wire.
    pub bytes: u64,
    /// 0 or 1, after `HTTP/1.`.
    pub minor_version: u8,
    /// Header fields.
    pub headers: Headers,
    /// Trailer fields of a chunked body.
    pub trailers: Headers,
}

/// A request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// As on the wire.
    pub method: String,
    /// Request target as on the wire, with its query.
    pub target: String,
    /// Version, headers, trailers.
    pub head: Head,
    /// Body.
    pub body: Body,
}

/// A final response. Informational ones (100, 103) are passed over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Version, headers, trailers.
    pub head: Head,
    /// Body.
    pub body: Body,
}

/// When the parts were seen, in the caller's unit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// First bytes of the request.
    pub request_start: u64,
    /// Last bytes of the request.
    pub request_end: u64,
    /// First bytes of the final response.
    pub response_start: Option<u64>,
    /// Last bytes, or the end of the connection.
    pub end: u64,
}

/// One request with its response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exchange {
    /// The request.
    pub request: Request,
    /// The response; `None` if none was seen.
    pub response: Option<Response>,
    /// When.
    pub times: Times,
    /// What is missing.
    pub damage: Vec<Damage>,
    /// The connection ended before the response did.
    pub closed_early: bool,
}
