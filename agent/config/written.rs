//! The configuration as it is written: one structure a section, every key optional that may be left out.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use plugins::*;
pub use tap::*;

mod plugins;
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
    /// Classifier service; not part of this agent.
    #[serde(skip_serializing_if = "is_null")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub qscan: serde_yaml::Value,
}

/// A value, or the environment variable that holds it.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
pub struct ValueSource {
    /// Where the value is.
    #[serde(rename = "type")]
    pub kind: ValueSourceKind,
    /// Name of the variable, the value itself, or the path of the file.
    pub value: String,
}

/// Kinds of [`ValueSource`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ValueSourceKind {
    /// Environment variable.
    Env,
    /// Literal.
    Text,
    /// Content of a file, without the white space at its end. Ours.
    File,
}

/// TLS towards a collector.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct Tls {
    /// Whether it is used.
    #[serde(default, deserialize_with = "truth")]
    #[schemars(with = "bool")]
    pub enabled: bool,
    /// Whether the collector's certificate goes unchecked.
    #[serde(default, deserialize_with = "truth")]
    #[schemars(with = "bool")]
    pub insecure_skip_verify: bool,
}

/// Protocols towards a collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// OTLP over gRPC.
    #[default]
    Grpc,
    /// OTLP over HTTP, as protobuf.
    Http,
    /// OTLP as JSON lines on standard output.
    Stdout,
}

/// An entry of `event_stores`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
pub struct EventStore {
    /// Which store.
    #[serde(rename = "type")]
    pub kind: EventStoreKind,
    /// Name for plugins to refer to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `otel`: address of the collector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// `otel`.
    #[serde(default)]
    pub protocol: Protocol,
    /// `otel`: header fields of each request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, ValueSource>,
    /// `otel`: resource attribute `service.name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_name: Option<String>,
    /// `otel`: resource attribute `environment`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// `otel`.
    #[serde(default)]
    pub tls: Tls,
    /// `otel`: each field of an event also as an attribute of its own. Ours.
    #[serde(default, deserialize_with = "truth")]
    #[schemars(with = "bool")]
    pub flat_attributes: bool,
    /// `axiom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<ValueSource>,
    /// `axiom`, `pulse`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<ValueSource>,
    /// `axiom`: address of the interface, ours; `pulse`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// `pulse`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_insecure: Option<bool>,
}

/// Event stores.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EventStoreKind {
    /// Drops everything.
    Disabled,
    /// JSON lines on standard output.
    Stdout,
    /// OTLP logs.
    Otel,
    /// The ingest interface of Axiom.
    Axiom,
    /// Not acting: a vendor's cloud.
    #[serde(alias = "pulse-streaming", alias = "pulse-legacy")]
    Pulse,
    /// Any other; standard output, as in the program that this is compatible with.
    #[serde(untagged)]
    #[schemars(skip)]
    Other(String),
}

/// An entry of `object_stores`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
pub struct ObjectStore {
    /// Which store.
    #[serde(rename = "type")]
    pub kind: ObjectStoreKind,
    /// Name for plugins to refer to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Which event store gets the records of stored objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_store: Option<StoreRef>,
    /// `s3`: host and port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// `s3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// `s3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// `s3`, `disk`: template of the url in events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_url: Option<String>,
    /// `s3`: plain HTTP.
    #[serde(default, deserialize_with = "truth")]
    #[schemars(with = "bool")]
    pub insecure: bool,
    /// `s3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key: Option<ValueSource>,
    /// `s3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key: Option<ValueSource>,
    /// `otel`: address of the collector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otel_endpoint: Option<String>,
    /// `otel`.
    #[serde(default)]
    pub protocol: Protocol,
    /// `otel`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, ValueSource>,
    /// `otel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_name: Option<String>,
    /// `otel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// `otel`.
    #[serde(default)]
    pub tls: Tls,
    /// `disk`: folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<std::path::PathBuf>,
    /// `qpoint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// `qpoint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<ValueSource>,
}

/// Object stores.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ObjectStoreKind {
    /// Drops everything.
    Disabled,
    /// JSON lines on standard output.
    Stdout,
    /// An S3-compatible service.
    S3,
    /// OTLP logs.
    Otel,
    /// A folder. Ours.
    Disk,
    /// Not acting: a vendor's cloud.
    Qpoint,
    /// Any other; standard output, as in the program that this is compatible with.
    #[serde(untagged)]
    #[schemars(skip)]
    Other(String),
}

/// A reference to a store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct StoreRef {
    /// Its `id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Nothing goes there.
    #[serde(default, deserialize_with = "truth")]
    #[schemars(with = "bool")]
    pub disabled: bool,
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
