//! From the two byte streams of a connection to HTTP exchanges.
//!
//! Feed [`Connection`] with what was seen, in the order in which it was seen: any split, with gaps of known place and
//! length, and from the middle of a connection. It gives back [`Exchange`]s.
//!
//! Invariants:
//!
//! - Pure: no I/O, no clock, no unsafe. Times are whatever the caller passes in.
//! - It observes and does not judge: what real clients and servers accept is understood; what cannot be known is said
//!   to be unknown. A response is paired with a request only if no lost bytes can have hidden another one between.
//! - Every byte range that is missing from an exchange stands in its `damage`.
//! - A header field of HTTP/2 that refers to one that was not seen is said to be unknown, never guessed.
//! - What is kept of a head, a body, a queue of requests and a connection is bounded by [`Limits`]; a body that nobody
//!   wants is not kept at all, and [`Connection::unwanted_until`] says which bytes need not be brought here.
#![forbid(unsafe_code)]

mod connection;
pub mod dns;
mod exchange;
mod grpc;
mod http1;
mod http2;
mod intake;
mod limits;
mod messages;
mod pending;
mod sse;
mod tls;
mod upgrade;
mod waiting;
mod websocket;

pub use connection::{Connection, Protocol};
pub use exchange::{
    Body, Cause, Cut, Damage, Direction, Exchange, Head, Headers, Observer, Part, Request, Response, Role, Times,
    Version,
};
pub use limits::Limits;
pub use messages::{Dialect, Kind, Message, Messages};
pub use tls::Hello;

/// What fuzz targets need besides.
#[cfg(fuzzing)]
pub mod fuzzing {
    pub use crate::http2::{Decoder, Field};
}

/// A folder of the public corpora, if they are here: beside the project, or where `RINGTAP_CORPORA` says.
#[cfg(test)]
fn corpora(name: &str) -> Option<std::path::PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/corpora");
    let root = std::env::var_os("RINGTAP_CORPORA").unwrap_or_else(|| beside.into());
    let folder = std::path::Path::new(&root).join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    if let Some(list) = std::env::var_os("RINGTAP_SKIPPED") {
        use std::io::Write as _;
        let file = std::fs::OpenOptions::new().append(true).create(true).open(list);
        let _ = file.and_then(|mut file| writeln!(file, "corpus {name}: not found"));
    }
    None
}
