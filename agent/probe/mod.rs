//! What to attach where: the programs in the kernel, and the probes in TLS libraries.

pub mod kernel;
pub mod prober;
pub mod tls;
