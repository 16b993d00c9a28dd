//! The configuration: as written ([`written`]), read with places for messages ([`document`]), and checked ([`check`])
//! to what the agent runs with ([`checked`]).

pub mod check;
pub mod checked;
mod collector;
pub mod document;
pub mod effective;
pub mod exposed;
mod places;
pub mod schema;
pub mod template;
pub mod written;

pub use checked::Config;
pub use document::Problem;
use written::Written;

/// What runs when no file is given: readable lines on the console, objects in the disk store.
const EMBEDDED: &str = include_str!("default.yaml");

/// Reads and checks a file's text. `name` is what messages call it.
///
/// # Errors
///
/// Every problem that keeps the agent from starting, each with its place.
pub fn read(name: &str, text: &str) -> Result<(Config, Vec<Problem>), Vec<Problem>> {
    read_whole(name, text).map(|file| (file.config, file.warnings))
}

/// A file that was read and checked.
#[derive(Debug)]
pub struct File {
    /// Its text with places.
    pub document: document::Document,
    /// What stands there.
    pub written: Written,
    /// What it comes to.
    pub config: Config,
    /// What need not keep the agent from starting.
    pub warnings: Vec<Problem>,
}

/// The same, with what was written.
///
/// # Errors
///
/// As [`read`].
pub fn read_whole(name: &str, text: &str) -> Result<File, Vec<Problem>> {
    let document = document::Document::parse(name, text).map_err(|problem| vec![problem])?;
    let mut warnings = Vec::new();
    let written = document.decode(&mut warnings).map_err(|problem| vec![problem])?;
    let config = check::check(&document, &written, &mut warnings)?;
    Ok(File { document, written, config, warnings })
}

/// Where the agent keeps what it writes, unless it is told.
pub const DATA_DIR: &str = "/var/lib/ringtap";

/// A file's text, with the folder for what the agent writes where the text leaves it open.
#[must_use]
pub fn with_data_dir(text: &str, data_dir: &std::path::Path) -> String {
    text.replace("{{DATA_DIR}}", &data_dir.display().to_string())
}

/// The embedded default, with objects under `data_dir`.
///
/// # Panics
///
/// The embedded text is broken, which a test rules out.
#[must_use]
pub fn embedded(data_dir: &std::path::Path) -> Config {
    read("the embedded default", &with_data_dir(EMBEDDED, data_dir)).expect("a test reads it").0
}

#[cfg(test)]
mod tests;
