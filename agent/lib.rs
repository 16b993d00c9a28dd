//! The appliance: configuration, probes, processes, stores, command line.
//!
//! Invariants:
//!
//! - The capture thread never waits for a store, unless the configuration says `block`: queues are bounded, what a store
//!   does not take waits on the disk, and what has no room there is a counted loss.
//! - An event that speaks of an object follows the object.
//! - Nothing here writes to an observed process's memory, or stands in the way of its traffic.
#![forbid(unsafe_code)]

pub mod admin;
pub mod alone;
pub mod ask;
pub mod bench;
pub mod changes;
pub mod cli;
pub mod config;
pub mod containers;
pub mod coverage;
pub mod devtools;
pub mod doctor;
pub mod files;
pub mod governed;
pub mod lines;
pub mod live;
pub mod metrics;
pub mod pipeline;
pub mod privileges;
pub mod probe;
pub mod process;
pub mod quiet;
pub mod recording;
pub mod reload;
pub mod replay;
pub mod run;
pub mod show;
pub mod sink;
pub mod spool;
pub mod stack;
pub mod status;
pub mod top;
