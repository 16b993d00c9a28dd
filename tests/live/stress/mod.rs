//! Load and life cycle: many processes that come and go, probes that come and go, few privileges.
//!
//! The short form runs with the other tests. `./dev stress` is the long one: `RINGTAP_STRESS` says how many processes
//! are started, and everything else is in proportion.

use anyhow::Context as _;

mod privileges;
mod probes;
mod processes;
mod text;

/// Processes of the short form.
const PROCESSES: usize = 150;

fn processes() -> anyhow::Result<usize> {
    match std::env::var("RINGTAP_STRESS") {
        Ok(number) => number.parse().context("RINGTAP_STRESS is a number of processes"),
        Err(_) => Ok(PROCESSES),
    }
}
