//! The agent on real traffic: real clients and servers on loopback, started by the test and ended by it.
//!
//! Each test compares three lists: what the client sent and got, what the agent stored, and what the agent told of it.
//! The tests need root; without it each says that it was skipped.
#![forbid(unsafe_code)]

mod agent;
mod capture;
mod delivery;
mod programs;
mod robustness;
mod truth;

/// Ends a test early, with a line that `./dev test` collects, if it cannot run here.
macro_rules! need_root {
    () => {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED {}: needs root", module_path!());
            return Ok(());
        }
    };
}
pub(crate) use need_root;
