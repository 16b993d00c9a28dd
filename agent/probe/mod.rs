//! What to attach where: the programs in the kernel, and the probes in TLS libraries.

mod bounded;
pub mod cost;
mod elf;
pub mod files;
mod finder;
mod go;
pub mod governor;
pub mod hold;
pub mod kernel;
pub mod libraries;
pub mod prober;
mod rustls;
pub mod signatures;
pub mod suspects;
pub mod tls;

pub(crate) use elf::file_offset;
