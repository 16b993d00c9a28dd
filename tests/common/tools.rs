//! What tests find on the machine, and how they say what they do not.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

/// A program of the tests.
pub fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs").join(name)
}

/// A tool that `./dev` installs into the project's own folder; `None` if it is not there.
pub fn tool(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("RINGTAP_TOOLS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/tools"), PathBuf::from);
    let candidates = [folder.join("bin").join(name), folder.join(name)];
    candidates.into_iter().find(|path| path.exists())
}

/// Notes that a test cannot run here, where `./dev test` collects it.
pub fn skip(what: &str, why: &str) {
    let line = format!("{what}: {why}");
    eprintln!("SKIPPED {line}");
    if let Some(path) = std::env::var_os("RINGTAP_SKIPPED") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        // The list is a help for people; the test itself has nothing to lose.
        let _ = file.and_then(|mut file| writeln!(file, "{line}"));
    }
}
