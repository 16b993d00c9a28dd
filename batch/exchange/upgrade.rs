//! What a connection becomes when HTTP/1 ends on it.

use crate::{
    exchange::Head,
    pending::Pending,
    waiting::Waiting,
    websocket::{self, Deflate},
};

/// The protocol that follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// HTTP/2 without TLS; the request that asked for it is its first stream.
    Http2,
    /// Messages, in the exchange that asked for them.
    WebSocket(Option<Deflate>),
    /// Not ours.
    Other,
}

impl Target {
    /// What the heads of an accepted upgrade agree on.
    pub(crate) fn of(response: &Head) -> Self {
        let chosen = response.headers.get("upgrade").unwrap_or_default().trim();
        match () {
            () if chosen.eq_ignore_ascii_case("h2c") => Self::Http2,
            () if chosen.eq_ignore_ascii_case("websocket") => Self::WebSocket(websocket::deflate_of(response)),
            () => Self::Other,
        }
    }
}

/// The end of HTTP/1.
#[derive(Debug)]
pub(crate) struct Upgrade {
    pub(crate) target: Target,
    /// The exchange that asked for it, with the response's head.
    pub(crate) open: Pending,
    /// What came behind the heads.
    pub(crate) requests: Waiting,
    pub(crate) responses: Waiting,
}
