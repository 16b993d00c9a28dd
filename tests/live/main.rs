//! The agent on real traffic: real clients and servers on loopback, started by the test and ended by it.
//!
//! Each test compares three lists: what the client sent and got, what the agent stored, and what the agent told of it.
//! The tests need root; without it each says that it was skipped.
#![forbid(unsafe_code)]

mod agent;
mod blind;
mod capture;
mod containers;
mod delivery;
mod dialects;
mod doctor;
mod governor;
mod kernel_paths;
mod libraries;
mod matrix;
mod outage;
mod page;
mod pipeline;
mod pods;
mod pools;
mod privileges;
mod programs;
mod reload;
mod robustness;
mod signatures;
mod soak;
mod stress;
#[path = "../common/tools.rs"]
mod tools;
mod truth;

/// Ends a test early if it is not run by root.
macro_rules! need_root {
    () => {
        if !rustix::process::geteuid().is_root() {
            let name = std::thread::current().name().unwrap_or_default().to_owned();
            crate::tools::skip(&name, "needs root");
            return Ok(());
        }
    };
}
pub(crate) use need_root;
