//! `services.rollups`: transactions as rows in Parquet files. Ours.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{StoreRef, truth};

/// `services.rollups`; every key has a default.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct Rollups {
    /// Whether there are any.
    #[serde(deserialize_with = "truth")]
    #[schemars(with = "bool")]
    pub enabled: bool,
    /// Folder of the files; with an object store, where they are made and wait for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// An `s3` store that gets the files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_store: Option<StoreRef>,
    /// First part of the files' keys in the object store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// A file is closed when it has so many bytes, such as `256mb`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<String>,
    /// A file is closed when its first row has waited so long, such as `5m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<String>,
    /// How much of a transaction is kept.
    pub level: RollupLevel,
    /// How hard zstd tries, from 1 to 19.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression_level: Option<i32>,
    /// Files older than this are deleted, such as `30d`; left out: none is. Only without an object store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<String>,
    /// Bytes of files that may wait for the object store; then the oldest are lost, and counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_waiting: Option<String>,
}

impl Default for Rollups {
    fn default() -> Self {
        Self {
            enabled: true,
            path: None,
            object_store: None,
            prefix: None,
            max_bytes: None,
            max_age: None,
            level: RollupLevel::default(),
            compression_level: None,
            retention: None,
            max_waiting: None,
        }
    }
}

/// How much of a transaction is kept in rollups. Bodies never are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RollupLevel {
    /// No header fields.
    #[default]
    Summary,
    /// Also header fields, of the rows that `http_capture` keeps at level headers and above.
    Headers,
}
