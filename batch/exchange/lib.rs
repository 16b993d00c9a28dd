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
//! - What is kept of a head, a body, a queue of requests and a connection is bounded by [`Limits`]; a body that nobody
//!   wants is not kept at all, and [`Connection::unwanted_until`] says which bytes need not be brought here.
#![forbid(unsafe_code)]

mod body;
mod chunked;
mod connection;
mod exchange;
mod head;

pub use connection::{Connection, Limits, Protocol};
pub use exchange::{
    Body, Cause, Cut, Damage, Direction, Exchange, Head, Headers, Observer, Part, Request, Response, Role, Times,
};
