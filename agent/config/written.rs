//! The configuration as it is written: one structure a section, every key optional that may be left out.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use plugins::*;
pub use rollups::*;
pub use spool::*;
pub use stores::*;
pub use tap::*;

mod plugins;
mod rollups;
mod spool;
mod stores;
mod tap;

fn is_null(value: &serde_yaml::Value) -> bool {
    value.is_null()
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A truth value in any of the spellings of YAML 1.1, which existing files use.
fn truth<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let value = serde_yaml::Value::deserialize(deserializer)?;
    match &value {
        serde_yaml::Value::Bool(truth) => Ok(*truth),
        serde_yaml::Value::String(text) => match text.to_ascii_lowercase().as_str() {
            "yes" | "on" | "y" | "true" => Ok(true),
            "no" | "off" | "n" | "false" => Ok(false),
            _ => Err(serde::de::Error::custom(format!("found `{text}`, expected a boolean: `true` or `false`"))),
        },
        _ => Err(serde::de::Error::custom("expected a boolean: `true` or `false`")),
    }
}

/// The same of a key that may be left out.
fn some_truth<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    truth(deserializer).map(Some)
}

/// The whole file.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct Written {
    /// Format version; every version so far reads alike.
    #[serde(skip_serializing_if = "is_null")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub version: serde_yaml::Value,
    /// Where events and objects go.
    pub services: Services,
    /// Macros of rules.
    pub rulekit: Rulekit,
    /// Plugin stacks by name.
    pub stacks: BTreeMap<String, Stack>,
    /// What is captured.
    pub tap: Tap,
    /// Tags of everything that is reported.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
    /// Allow and deny rules; they need a proxy in the path, which this is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<Control>,
    /// What is masked before anything leaves. Ours.
    pub redaction: Redaction,
}

/// `services`.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct Services {
    /// `event_stores`.
    pub event_stores: Vec<EventStore>,
    /// `object_stores`.
    pub object_stores: Vec<ObjectStore>,
    /// Where waits what a store does not take. Ours.
    #[serde(skip_serializing_if = "is_default")]
    pub spool: Spool,
    /// Transactions as rows in Parquet files. Ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollups: Option<Rollups>,
    /// Classifier service; not part of this agent.
    #[serde(skip_serializing_if = "is_null")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub qscan: serde_yaml::Value,
}

/// `rulekit`.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct Rulekit {
    /// Named expressions.
    pub macros: Vec<Macro>,
}

/// A named expression.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub struct Macro {
    /// Called as `name()`.
    pub name: String,
    /// The expression.
    pub expr: String,
}

/// A plugin stack.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct Stack {
    /// Each sees every transaction.
    pub plugins: Vec<Plugin>,
}

/// A plugin of a stack.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub struct Plugin {
    /// Which one.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its own keys.
    #[serde(default, skip_serializing_if = "is_null")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub config: serde_yaml::Value,
}

/// A tag of everything that is reported of a process.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
pub struct Tag {
    /// What stands before the colon.
    pub key: String,
    /// Where the value is.
    pub source: TagSource,
    /// Name of the variable, label or annotation.
    pub location: String,
}

/// Where the value of a tag is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum TagSource {
    /// Environment of the observed process.
    #[serde(rename = "env")]
    Env,
    /// Label of its pod.
    #[serde(rename = "k8s.label")]
    PodLabel,
    /// Annotation of its pod.
    #[serde(rename = "k8s.annotation")]
    PodAnnotation,
    /// Label of its container.
    #[serde(rename = "container.label")]
    ContainerLabel,
}

/// Allow and deny rules.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct Control {
    /// `allow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// Checked, and not acted on.
    pub rules: Vec<ControlRule>,
    /// Without effect, as in the program that this is compatible with.
    #[serde(skip_serializing_if = "is_null")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub log: serde_yaml::Value,
}

/// A rule of `control`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
pub struct ControlRule {
    /// For people.
    pub name: String,
    /// Expression.
    pub expr: String,
    /// `allow` or `deny`.
    #[serde(default)]
    pub actions: Vec<String>,
}

/// What is masked before anything leaves. Ours.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct Redaction {
    /// Whether credentials are masked; what is listed below is masked either way.
    #[serde(deserialize_with = "truth")]
    #[schemars(with = "bool")]
    pub enabled: bool,
    /// Names of more header fields.
    pub headers: Vec<String>,
    /// Names of more parameters of urls and forms.
    pub query: Vec<String>,
    /// Places in JSON bodies, such as `$.user.ssn` or `$..pin`.
    pub json_paths: Vec<String>,
    /// Regular expressions, for urls, header fields and bodies.
    pub patterns: Vec<String>,
}

impl Default for Redaction {
    fn default() -> Self {
        Self { enabled: true, headers: Vec::new(), query: Vec::new(), json_paths: Vec::new(), patterns: Vec::new() }
    }
}
