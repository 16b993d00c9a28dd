//! The agent on real traffic: real clients and servers on loopback, started by the test and ended by it.
//!
//! Each test compares three lists: what the client sent and got, what the agent stored, and what the agent told of it.
//! The tests need root; without it each says that it was skipped.
#![forbid(unsafe_code)]

mod agent;
mod blind;
mod capture;
mod delivery;
mod dialects;
mod pipeline;
mod programs;
mod reload;
mod robustness;
mod soak;
mod truth;

/// Notes that a test cannot run here, where `./dev test` collects it.
pub(crate) fn skip(what: &str, why: &str) {
    use std::io::Write as _;
    let line = format!("{what}: {why}");
    eprintln!("SKIPPED {line}");
    if let Some(path) = std::env::var_os("RINGTAP_SKIPPED") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        // The list is a help for people; the test itself has nothing to lose.
        let _ = file.and_then(|mut file| writeln!(file, "{line}"));
    }
}

/// Ends a test early if it is not run by root.
macro_rules! need_root {
    () => {
        if !rustix::process::geteuid().is_root() {
            let name = std::thread::current().name().unwrap_or_default().to_owned();
            crate::skip(&name, "needs root");
            return Ok(());
        }
    };
}
pub(crate) use need_root;
