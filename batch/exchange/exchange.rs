//! What an exchange is.

use std::ops::Range;

use crate::{dns::Answer, messages::Messages};

/// Direction of a stream, as the observed process sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The process sent the bytes.
    Sent,
    /// The process received the bytes.
    Received,
}

impl Direction {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Sent => Self::Received,
            Self::Received => Self::Sent,
        }
    }
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
    /// 0 for requests, 1 for responses.
    pub(crate) fn index(self) -> usize {
        usize::from(self == Self::Response)
    }

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
    /// The bytes went through a pipe inside the kernel.
    Splice,
    /// The process let the kernel discard the bytes.
    Discarded,
    /// The bytes were left out of a recording.
    Redacted,
    /// A whole message or more was lost before this exchange; its pairing rests on what came after.
    Resync,
    /// The head, or the queue of unanswered requests, was larger than the limit.
    Limit,
    /// The message does not follow the protocol.
    Malformed,
    /// Lengths contradict each other.
    AmbiguousLength,
    /// Header fields were written as references to ones that were not seen.
    UnknownHeaders,
    /// The connection was left out from here on: to capture it would have cost the process too much.
    Governor,
}

impl Cause {
    /// Name in records and counters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unseen => "unseen",
            Self::Fault => "fault",
            Self::Sendfile => "sendfile",
            Self::Splice => "splice",
            Self::Discarded => "discarded",
            Self::Redacted => "redacted",
            Self::Resync => "resync",
            Self::Limit => "limit",
            Self::Malformed => "malformed",
            Self::AmbiguousLength => "ambiguous_length",
            Self::UnknownHeaders => "unknown_headers",
            Self::Governor => "governor",
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
#[derive(Debug, Clone, Default)]
pub struct Headers {
    /// Names and values, and between them whatever lay there on the wire.
    text: String,
    fields: Vec<Field>,
    /// Lengths of the names, as bits: most names that are looked for are not there.
    lengths: u32,
}

/// Where in the text a field lies.
#[derive(Debug, Clone, Copy)]
struct Field {
    name: [u32; 2],
    value: [u32; 2],
}

impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Headers {}

impl Headers {
    /// Adds a field.
    ///
    /// # Panics
    ///
    /// All fields together are longer than 4 GiB; heads are limited far below.
    pub fn push(&mut self, name: &str, value: &str) {
        let start = self.text.len();
        self.text.push_str(name);
        let middle = self.text.len();
        self.text.push_str(value);
        self.push_range(start..middle, middle..self.text.len());
    }

    /// Of a text, with no fields told apart in it yet, but room for so many.
    pub(crate) fn with_text(text: &str, fields: usize) -> Self {
        Self { text: text.to_owned(), fields: Vec::with_capacity(fields), lengths: 0 }
    }

    /// Adds a field that lies in the text.
    pub(crate) fn push_range(&mut self, name: Range<usize>, value: Range<usize>) {
        let at = |at: usize| u32::try_from(at).expect("heads are limited far below 4 GiB");
        self.lengths |= length_bit(name.len());
        self.fields.push(Field { name: [at(name.start), at(name.end)], value: [at(value.start), at(value.end)] });
    }

    /// Adds to the value of the last field, if that has this name.
    pub(crate) fn extend_last(&mut self, name: &str, more: &str) -> bool {
        let Some(last) = self.fields.last_mut() else { return false };
        if self.text.get(range(last.name)) != Some(name) {
            return false;
        }
        self.text.push_str(more);
        last.value[1] = u32::try_from(self.text.len()).expect("heads are limited far below 4 GiB");
        true
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|field| (&self.text[range(field.name)], self.value(field)))
    }

    /// First value of a field, by name in any case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.named(name).next().map(|field| self.value(field))
    }

    /// All values of a field, by name in any case.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.named(name).map(|field| self.value(field))
    }

    fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Field> {
        let possible = self.lengths & length_bit(name.len()) != 0;
        let fields = if possible { self.fields.as_slice() } else { &[] };
        fields.iter().filter(move |field| self.is_named(field, name))
    }

    fn is_named(&self, Field { name: [start, end], .. }: &Field, name: &str) -> bool {
        // Most names differ in their length already.
        (end - start) as usize == name.len()
            && self.text.as_bytes()[*start as usize..*end as usize].eq_ignore_ascii_case(name.as_bytes())
    }

    fn value(&self, field: &Field) -> &str {
        &self.text[range(field.value)]
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    fn kept_bytes(&self) -> usize {
        self.text.len() + self.fields.len() * size_of::<Field>()
    }
}

fn range([start, end]: [u32; 2]) -> Range<usize> {
    start as usize..end as usize
}

/// Names of a length, and of few others.
fn length_bit(len: usize) -> u32 {
    1 << (len % 32)
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
    /// Why no more than `bytes` was kept, if it was decided so.
    pub cut: Option<Cut>,
    /// A hole ended what is kept.
    pub holed: bool,
}

/// Why less of a body is kept than was there to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The body is larger than one body may be.
    Limit,
    /// The connection, or all of them together, keep as much as they may.
    Budget,
    /// Nobody wants it.
    Unwanted,
    /// To capture it would cost the process too much.
    Governor,
    /// It was left out of a recording.
    Redacted,
    /// Its content coding breaks off, or does not hold together.
    Coding,
}

impl Cut {
    /// Name in records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Budget => "budget",
            Self::Unwanted => "unwanted",
            Self::Governor => "governor",
            Self::Redacted => "redacted",
            Self::Coding => "coding",
        }
    }
}

impl Body {
    /// Whether less is kept than there was.
    #[must_use]
    pub fn truncated(&self) -> bool {
        (self.bytes.len() as u64) < self.size
    }
}

/// The version that a head names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
    /// HTTP/2.
    Http2,
}

/// The fields that heads of both halves have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the head on the wire.
    pub bytes: u64,
    /// As the message says.
    pub version: Version,
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
    /// What HTTP/2 says apart from the target: the host, and the scheme.
    pub authority: Option<String>,
    /// `http` or `https`, where the request says it.
    pub scheme: Option<String>,
    /// What an extended CONNECT asks for (RFC 8441): its target is a path like any other's.
    pub protocol: Option<String>,
    /// Version, headers, trailers.
    pub head: Head,
    /// Body.
    pub body: Body,
}

impl Request {
    /// The host that the request names, with its port.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.authority.as_deref().or_else(|| self.head.headers.get("host"))
    }
}

/// A final response. Informational ones (100, 103) are passed over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    /// Status code; 0: not known.
    pub status: u16,
    /// Version, headers, trailers.
    pub head: Head,
    /// Body.
    pub body: Body,
}

impl Head {
    fn kept_bytes(&self) -> usize {
        self.headers.kept_bytes() + self.trailers.kept_bytes()
    }
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

/// Missing ranges of an exchange that are told apart.
const DAMAGE_MAX: usize = 64;

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
    /// The connection, or the exchange alone, was ended before the response was.
    pub closed_early: bool,
    /// The messages that the bodies are made of, of the request and of the response, where they are made of messages.
    pub messages: [Option<Box<Messages>>; 2],
    /// What [`Observer::started`] left here.
    pub reported: Option<String>,
}

impl Exchange {
    /// Bytes of memory that the exchange takes.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        let request = self.request.target.len() + self.request.head.kept_bytes() + self.request.body.bytes.len();
        let response = self.response.as_ref().map_or(0, |r| r.head.kept_bytes() + r.body.bytes.len());
        let messages: usize = self.messages.iter().flatten().map(|messages| messages.kept_bytes()).sum();
        size_of::<Self>() + request + response + messages + self.damage.len() * size_of::<Damage>()
    }

    /// The messages of a half, if it is made of any.
    #[must_use]
    pub fn messages(&self, part: Part) -> Option<&Messages> {
        self.messages[part.index()].as_deref()
    }

    /// The body of a half, if that half has begun.
    #[must_use]
    pub fn body(&self, part: Part) -> Option<&Body> {
        match part {
            Part::Request => Some(&self.request.body),
            Part::Response => self.response.as_ref().map(|response| &response.body),
        }
    }

    /// Takes note of a missing range. Of very many the last one of each half stands for all that follow.
    pub(crate) fn damaged(&mut self, damage: Damage) {
        let full = self.damage.len() >= DAMAGE_MAX;
        match self.damage.iter_mut().rfind(|last| full && last.part == damage.part) {
            Some(last) => last.end = last.end.max(damage.end),
            None => self.damage.push(damage),
        }
    }

    pub(crate) fn body_mut(&mut self, part: Part) -> Option<&mut Body> {
        match part {
            Part::Request => Some(&mut self.request.body),
            Part::Response => self.response.as_mut().map(|response| &mut response.body),
        }
    }
}

/// Whoever a connection hands its exchanges to.
pub trait Observer {
    /// An exchange is complete, or nothing more will be known of it.
    fn complete(&mut self, exchange: Exchange);

    /// An exchange that can last long has begun to stream: a WebSocket, or server-sent events. It comes once more, to
    /// [`Observer::complete`], with what was left in `reported`.
    fn started(&mut self, _exchange: &mut Exchange) {}

    /// A name server has answered, on a connection to one.
    fn answered(&mut self, _answer: Answer) {}

    /// Why the body of `part`, which is a large one, cannot be of use any more, by what is known of the exchange so far;
    /// `None`: it can.
    ///
    /// Asked when a large body is announced or has grown large, and for the request's once more when the response's
    /// head is known. A body that is refused is let go; its size is still counted.
    fn refuses_body(&mut self, _exchange: &Exchange, _part: Part) -> Option<Cut> {
        None
    }
}

impl Observer for Vec<Exchange> {
    fn complete(&mut self, exchange: Exchange) {
        self.push(exchange);
    }
}
