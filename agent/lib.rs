//! The appliance: configuration, probes, processes, sinks, command line.
#![forbid(unsafe_code)]

pub mod config;
pub mod probe;
