//! BPF ring buffers, read in place.
//!
//! A [`Ring`] is mapped, never copied to be read: a scan turns the records that are committed into one `RecordBatch`
//! ([`records`]) whose payload column points into the ring's own pages, and a lease gives the span back to the kernel
//! when the last reference to it is dropped, in whatever order batches are dropped.
//!
//! Invariants:
//!
//! - The consumer position only ever moves over spans whose leases are gone; the kernel never writes below it.
//! - Small payloads are copied out, and under pressure all are: a batch that is kept for long holds the ring only as
//!   long as the ring has room to spare.
//! - A reader that sleeps has said so in the wake flags first, and a bounded timer stands behind that.
//! - This crate and the programs themselves are the only places of the project where memory is not checked by the
//!   compiler; each unsafe block says why it is sound.

mod map;
mod page;
pub mod reader;
pub mod records;
mod ring;
mod spans;
pub mod wait;

pub use map::WakeFlags;
pub use page::CountPage;
pub use reader::Reader;
pub use ring::{Ring, RingStats};
pub use ringtap_bpf::abi;
