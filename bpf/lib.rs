//! The kernel side: compiled programs and the checked Rust view of what they hand over.
//!
//! Invariants:
//!
//! - `abi.h` is the only thing that both sides share; [`abi`] repeats it and both assert sizes and offsets.
//! - A recording is read without a kernel: what loads and attaches is the agent's work, but for [`multi`] and
//!   [`calibrate`], a feature: what no kept library does.

pub mod abi;
#[cfg(feature = "multi")]
pub mod calibrate;
#[cfg(feature = "multi")]
pub mod multi;

/// Bytes with the alignment that an ELF reader wants.
#[repr(C, align(32))]
struct Aligned<T: ?Sized>(T);

macro_rules! object {
    ($name:literal) => {{
        static BYTES: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".bpf.o")));
        &BYTES.0
    }};
}

/// Programs of the capture.
#[must_use]
pub fn capture_object() -> &'static [u8] {
    object!("capture")
}

/// For measurements: a producer of records, and programs that do nothing.
#[must_use]
pub fn bench_object() -> &'static [u8] {
    object!("bench")
}

/// Optional: makes connection ids equal to socket cookies.
#[must_use]
pub fn cookie_object() -> &'static [u8] {
    object!("cookie")
}
