//! Measurements on the user's own machine: what it can carry with the agent, against nobody and against programs that do
//! nothing.
#![expect(clippy::cast_precision_loss, reason = "figures for people, far below 2^52")]

mod contenders;
mod empty;
mod load;
mod page;
mod plan;

use std::{fs, path::Path};

use anyhow::Context as _;

use crate::cli::CapacityArgs;

/// Measures, writes `capacity.json` and `capacity.html`, and says in a sentence what came of it.
///
/// # Errors
///
/// The server or the load generator is missing, or the agent cannot start.
pub fn capacity(arguments: &CapacityArgs) -> anyhow::Result<()> {
    fs::create_dir_all(&arguments.output)
        .with_context(|| format!("cannot make the folder {}", arguments.output.display()))?;
    let results = plan::measure(arguments)?;
    let verdict = results.verdict();
    write(&arguments.output.join("capacity.json"), &serde_json::to_vec_pretty(&results)?)?;
    write(&arguments.output.join("capacity.html"), page::page(&results, &verdict)?.as_bytes())?;
    println!("{verdict}");
    Ok(())
}

/// All of a file or nothing.
fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let partial = path.with_extension("partial");
    fs::write(&partial, bytes)
        .and_then(|()| fs::rename(&partial, path))
        .with_context(|| format!("cannot write {}", path.display()))
}
