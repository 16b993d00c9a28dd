//! The messages that a body is made of: gRPC, server-sent events, WebSocket.

use crate::{
    exchange::{Head, Headers},
    grpc, sse,
};

/// What kind of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// gRPC, and gRPC-Web.
    Grpc,
    /// `text/event-stream`.
    ServerSentEvents,
    /// WebSocket.
    WebSocket,
}

impl Dialect {
    /// Name in records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::ServerSentEvents => "sse",
            Self::WebSocket => "websocket",
        }
    }
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A message of a dialect that has only one kind.
    Data,
    /// WebSocket text.
    Text,
    /// WebSocket bytes.
    Binary,
    /// WebSocket ping.
    Ping,
    /// WebSocket pong.
    Pong,
    /// WebSocket close.
    Close,
}

impl Kind {
    /// Name in records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Text => "text",
            Self::Binary => "binary",
            Self::Ping => "ping",
            Self::Pong => "pong",
            Self::Close => "close",
        }
    }
}

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// When its last byte came.
    pub time: u64,
    /// What it is.
    pub kind: Kind,
    /// Whether it is compressed on the wire.
    pub compressed: bool,
    /// Bytes on the wire, without framing.
    pub wire: u64,
    /// Where in the body it begins, and how many bytes it has there.
    pub start: u64,
    /// See `start`.
    pub len: u64,
}

/// Messages that are told apart; of more only the number is known.
const LISTED_MAX: usize = 1024;

/// The messages of one half.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Messages {
    /// What they are.
    pub dialect: Dialect,
    /// How many came whole.
    pub count: u64,
    /// How many of them were compressed.
    pub compressed: u64,
    /// Their bytes on the wire, without framing.
    pub wire: u64,
    /// When the first one came.
    pub first: Option<u64>,
    /// The first of them.
    pub listed: Vec<Message>,
}

impl Messages {
    pub(crate) fn new(dialect: Dialect) -> Self {
        Self { dialect, count: 0, compressed: 0, wire: 0, first: None, listed: Vec::new() }
    }

    pub(crate) fn push(&mut self, message: Message) {
        self.count += 1;
        self.compressed += u64::from(message.compressed);
        self.wire = self.wire.saturating_add(message.wire);
        self.first.get_or_insert(message.time);
        if self.listed.len() < LISTED_MAX {
            self.listed.push(message);
        }
    }

    pub(crate) fn kept_bytes(&self) -> usize {
        size_of::<Self>() + self.listed.len() * size_of::<Message>()
    }
}

/// Finds the messages of a body while it comes.
#[derive(Debug)]
pub(crate) enum Scan {
    Grpc(Box<grpc::Scanner>),
    Events(Box<sse::Scanner>),
}

impl Scan {
    /// By what the head says of the body.
    pub(crate) fn of(head: &Head) -> Option<Self> {
        let kind = head.headers.get("content-type")?;
        let is = |prefix: &str| kind.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
        if is("application/grpc") {
            return Some(Self::Grpc(Box::new(grpc::Scanner::new(is("application/grpc-web-text")))));
        }
        // The lines of a coded stream are not to be seen.
        let plain = head.headers.get("content-encoding").is_none_or(|coding| coding.eq_ignore_ascii_case("identity"));
        (is("text/event-stream") && plain).then(|| Self::Events(Box::default()))
    }

    /// Bytes of memory.
    pub(crate) fn kept_bytes(&self) -> usize {
        match self {
            Self::Grpc(scanner) => scanner.kept_bytes(),
            Self::Events(scanner) => scanner.kept_bytes(),
        }
    }

    /// Whether the exchange can last long, so that its beginning is worth a report.
    pub(crate) fn is_lasting(&self) -> bool {
        matches!(self, Self::Events(_))
    }

    pub(crate) fn feed(&mut self, data: &[u8], time: u64) {
        match self {
            Self::Grpc(scanner) => scanner.feed(data, time),
            Self::Events(scanner) => scanner.feed(data, time),
        }
    }

    /// Bytes are missing.
    pub(crate) fn skip(&mut self, len: u64, time: u64) {
        match self {
            Self::Grpc(scanner) => scanner.skip(len, time),
            Self::Events(scanner) => scanner.skip(len),
        }
    }

    /// What was found, and the trailer fields that the body held.
    pub(crate) fn finish(self) -> (Messages, Headers) {
        match self {
            Self::Grpc(scanner) => scanner.finish(),
            Self::Events(scanner) => (scanner.finish(), Headers::default()),
        }
    }
}
