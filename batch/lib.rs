//! From raw record batches to what leaves the machine.
//!
//! [`shard::Shard`] turns raw records into a [`transactions`] batch, [`capture`] decides row by row how much of each is
//! kept, [`objects`] renders and digests them, [`events`] describes what happened. Everything that crosses a border is
//! a `RecordBatch`; each schema stands in one file with its columns described.
//!
//! Invariants:
//!
//! - No I/O and no clock: time comes from records, and the offset to wall time from the caller.
//! - Shards share nothing; order within a connection is the ring's.
//! - What is not delivered is counted in the [`ledger`], by cause.
#![forbid(unsafe_code)]

pub mod blind;
pub mod budget;
pub mod capture;
pub mod clock;
pub mod dlp;
pub mod errors;
pub mod events;
pub mod fields;
pub mod governed;
pub mod grpc;
pub mod ids;
pub mod interest;
pub mod ledger;
pub mod llm;
pub mod names;
pub mod objects;
pub mod process;
pub mod redact;
pub mod render;
pub mod rollups;
pub mod shard;
pub mod transactions;
pub mod usage;

mod coding;
mod connections;
mod row;
mod token;

pub use coding::decoded;
pub use ringtap_ring as ring;
pub use ringtap_rules as rules;
