//! What to attach where: the programs in the kernel, and the probes in TLS libraries.

mod elf;
mod go;
pub mod kernel;
pub mod libraries;
pub mod prober;
pub mod tls;
