//! What is captured, as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::truth;

/// Which connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Accepted and opened here.
    #[default]
    All,
    /// Accepted here.
    Ingress,
    /// Opened here.
    Egress,
    /// Opened here, to private addresses.
    EgressInternal,
    /// Opened here, to public addresses.
    EgressExternal,
}

/// `tap`.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct Tap {
    /// Which connections.
    pub direction: Direction,
    /// Leave connections to loopback addresses alone.
    #[serde(default, deserialize_with = "truth")]
    #[schemars(with = "bool")]
    pub ignore_loopback: bool,
    /// Report connections of name look-ups; those are not captured yet.
    #[serde(default, deserialize_with = "truth")]
    #[schemars(with = "bool")]
    pub audit_include_dns: bool,
    /// Stack for HTTP.
    pub http: StackRef,
    /// Exclude processes.
    pub filters: Filters,
    /// What may be kept in memory, and what probes may cost. Ours.
    pub budgets: Budgets,
    /// Other stacks for domains.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
    /// Not captured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<StackRef>,
    /// Not captured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mysql: Option<StackRef>,
    /// Not captured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kafka: Option<StackRef>,
    /// Not captured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postgres: Option<StackRef>,
}

/// Another stack for one domain.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub struct Endpoint {
    /// Host name.
    pub domain: String,
    /// Stack for HTTP.
    #[serde(default)]
    pub http: StackRef,
    /// Not captured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<StackRef>,
    /// Not captured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mysql: Option<StackRef>,
    /// Not captured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<StackRef>,
    /// Not captured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<StackRef>,
}

/// What may be kept in memory: sizes such as `512kb` or `2mb`; and what probes may cost. Ours.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct Budgets {
    /// Of one body; `--http-buffer-size` goes before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Of the open exchanges of a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<String>,
    /// Of the connections of a shard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<String>,
    /// Of all shards, and of what waits for the stores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// What its probes may cost a process, as a share of its processor time: `5%`; `off`: as much as they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes: Option<String>,
}

/// A stack by name; empty and `none` mean none.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct StackRef {
    /// Its name.
    pub stack: String,
}

/// `filters`.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct Filters {
    /// Well-known processes.
    pub groups: Vec<String>,
    /// By path.
    pub custom: Vec<CustomFilter>,
}

/// Excludes processes by the path of their executable.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub struct CustomFilter {
    /// Path or pattern.
    pub exe: String,
    /// How it is compared.
    pub strategy: Strategy,
    /// What is left alone; everything if empty.
    #[serde(default)]
    pub only: Vec<Only>,
}

/// How a path is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// Equal.
    Exact,
    /// Begins with.
    Prefix,
    /// Ends with.
    Suffix,
    /// Contains.
    Contains,
    /// Regular expression.
    Regex,
}

/// What of a process is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Only {
    /// All payload.
    Data,
    /// Name look-ups.
    Dns,
    /// Plaintext at TLS libraries.
    Tls,
    /// HTTP.
    Http,
}
