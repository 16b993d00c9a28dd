//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Captures the HTTP transactions of this machine in clear text, out of the path.
#[derive(Debug, Parser)]
#[command(name = "ringtap", version, about, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; `run` if left out.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of `run`.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Capture until Ctrl-C or SIGTERM.
    Run(RunArgs),
    /// Check a configuration and say what is wrong with it.
    Validate {
        /// File, or `-` for standard input.
        file: PathBuf,
    },
}

/// Flags of `run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Configuration file; without one, transactions are printed and kept under the data directory.
    #[arg(long, env = "QPOINT_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the agent keeps what it writes.
    #[arg(long, env = "DATA_DIR", value_name = "FOLDER", default_value = "/var/lib/ringtap")]
    pub data_dir: PathBuf,
    /// Bytes of one body that are kept; a longer one is cut, and says so.
    #[arg(long, env = "HTTP_BUFFER_SIZE", value_name = "SIZE", default_value = "2mb", value_parser = size)]
    pub http_buffer_size: u64,
    /// Bytes of one ring between kernel and agent, a power of two.
    #[arg(long, env = "RINGTAP_RING_SIZE", value_name = "SIZE", default_value = "32mb", value_parser = ring_size)]
    pub ring_size: u32,
    /// Number of rings, a power of two; 0: one for two processors.
    #[arg(long, env = "RINGTAP_SHARDS", value_name = "N", default_value_t = 0, value_parser = shards)]
    pub shards: u32,
    /// How much is said on standard error.
    #[arg(long, env = "LOG_LEVEL", default_value = "info")]
    pub log_level: LogLevel,
    /// Form of what is said; readable on a terminal, JSON elsewhere, if left out.
    #[arg(long, env = "LOG_ENCODING")]
    pub log_encoding: Option<LogEncoding>,
}

/// How much is said.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum LogLevel {
    /// Losses and failures.
    Error,
    /// Also what does not act.
    Warn,
    /// Also what happens seldom.
    Info,
    /// Also what happens often.
    Debug,
    /// Everything.
    Trace,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum LogEncoding {
    /// Readable lines.
    Console,
    /// JSON lines.
    Json,
}

/// A number with an optional `kb`, `mb` or `gb`, each 1024 times the last.
fn size(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let (digits, shift) = [("gb", 30), ("mb", 20), ("kb", 10), ("b", 0)]
        .into_iter()
        .find_map(|(unit, shift)| Some((lower.strip_suffix(unit)?, shift)))
        .unwrap_or((&lower, 0));
    let number: u64 = digits.trim().parse().map_err(|_| format!("`{text}` is not a size such as 512kb or 2mb"))?;
    number.checked_mul(1 << shift).filter(|n| *n <= 2 << 30).ok_or_else(|| format!("`{text}` is more than 2gb"))
}

fn ring_size(text: &str) -> Result<u32, String> {
    let bytes = size(text)?;
    match u32::try_from(bytes) {
        Ok(bytes) if bytes.is_power_of_two() && (64 << 10..=1 << 30).contains(&bytes) => Ok(bytes),
        _ => Err(format!("`{text}` is not a power of two from 64kb to 1gb")),
    }
}

fn shards(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(n) if n == 0 || (n.is_power_of_two() && n <= 64) => Ok(n),
        _ => Err(format!("`{text}` is not 0 or a power of two up to 64")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn sizes_have_units_and_limits() {
        assert_eq!(size("2mb"), Ok(2 << 20));
        assert_eq!(size("512"), Ok(512));
        assert_eq!(size(" 1 KB "), Ok(1024));
        assert!(size("3gb").is_err() && size("many").is_err() && size("-1").is_err());
        assert!(ring_size("3mb").is_err() && ring_size("4kb").is_err());
        assert!(shards("3").is_err() && shards("128").is_err());
    }
}
