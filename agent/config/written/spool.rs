//! `services.spool`: the disk on which waits what a store does not take.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::truth;

/// `spool`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct Spool {
    /// Whether there is one.
    #[serde(deserialize_with = "truth")]
    #[schemars(with = "bool")]
    pub enabled: bool,
    /// Folder; `spool` in the data folder if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Bytes on the disk at most, such as `512mb`; `1gb` if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<String>,
    /// How long something waits at most, such as `12h`; `24h` if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<String>,
    /// What happens when it is full.
    pub when_full: WhenFull,
}

impl Default for Spool {
    fn default() -> Self {
        Self { enabled: true, path: None, max_bytes: None, max_age: None, when_full: WhenFull::default() }
    }
}

/// What happens when the spool is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// The oldest segment goes for newer things.
    #[default]
    DropOldest,
    /// What is new is kept in memory while there is room, then it goes.
    DropNewest,
    /// As before, but the capture waits for room: what goes then is in the rings, where the programs count it.
    Block,
}
