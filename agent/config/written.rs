//! The configuration as it is written: one structure a section, every key optional that may be left out.

use std::collections::BTreeMap;

use serde::Deserialize;

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
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Written {
    /// Format version; every version so far reads alike.
    pub version: serde_yaml::Value,
    /// Where events and objects go.
    pub services: Services,
    /// Macros of rules.
    pub rulekit: Rulekit,
    /// Plugin stacks by name.
    pub stacks: BTreeMap<String, Stack>,
    /// What is captured.
    pub tap: Tap,
    /// Tags of events; read, not acted on yet.
    pub tags: serde_yaml::Value,
    /// Allow and deny rules; they need a proxy in the path, which this is not.
    pub control: serde_yaml::Value,
}

/// `services`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Services {
    /// `event_stores`.
    pub event_stores: Vec<EventStore>,
    /// `object_stores`.
    pub object_stores: Vec<ObjectStore>,
    /// Classifier service; not part of this agent.
    pub qscan: serde_yaml::Value,
}

/// A value, or the environment variable that holds it.
#[derive(Debug, Clone, Deserialize)]
pub struct ValueSource {
    /// Where the value is.
    #[serde(rename = "type")]
    pub kind: ValueSourceKind,
    /// Name of the variable, or the value itself.
    pub value: String,
}

/// Kinds of [`ValueSource`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ValueSourceKind {
    /// Environment variable.
    Env,
    /// Literal.
    Text,
}

/// TLS towards a collector.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Tls {
    /// Whether it is used.
    #[serde(default, deserialize_with = "truth")]
    pub enabled: bool,
    /// Whether the collector's certificate goes unchecked.
    #[serde(default, deserialize_with = "truth")]
    pub insecure_skip_verify: bool,
}

/// Protocols towards a collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
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
#[derive(Debug, Clone, Deserialize)]
pub struct EventStore {
    /// Which store.
    #[serde(rename = "type")]
    pub kind: EventStoreKind,
    /// Name for plugins to refer to.
    pub id: Option<String>,
    /// `otel`: address of the collector.
    pub endpoint: Option<String>,
    /// `otel`.
    #[serde(default)]
    pub protocol: Protocol,
    /// `otel`: header fields of each request.
    #[serde(default)]
    pub headers: BTreeMap<String, ValueSource>,
    /// `otel`: resource attribute `service.name`.
    pub service_name: Option<String>,
    /// `otel`: resource attribute `environment`.
    pub environment: Option<String>,
    /// `otel`.
    #[serde(default)]
    pub tls: Tls,
    /// `axiom`.
    pub dataset: Option<ValueSource>,
    /// `axiom`, `pulse`.
    pub token: Option<ValueSource>,
    /// `pulse`.
    pub url: Option<String>,
    /// `pulse`.
    pub allow_insecure: Option<bool>,
}

/// Event stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventStoreKind {
    /// Drops everything.
    Disabled,
    /// JSON lines on standard output.
    Stdout,
    /// OTLP logs.
    Otel,
    /// Not acting in this version.
    Axiom,
    /// Not acting: a vendor's cloud.
    #[serde(alias = "pulse-streaming", alias = "pulse-legacy")]
    Pulse,
}

/// An entry of `object_stores`.
#[derive(Debug, Clone, Deserialize)]
pub struct ObjectStore {
    /// Which store.
    #[serde(rename = "type")]
    pub kind: ObjectStoreKind,
    /// Name for plugins to refer to.
    pub id: Option<String>,
    /// Which event store gets the records of stored objects.
    pub event_store: Option<StoreRef>,
    /// `s3`: host and port.
    pub endpoint: Option<String>,
    /// `s3`.
    pub bucket: Option<String>,
    /// `s3`.
    pub region: Option<String>,
    /// `s3`, `disk`: template of the url in events.
    pub access_url: Option<String>,
    /// `s3`: plain HTTP.
    #[serde(default, deserialize_with = "truth")]
    pub insecure: bool,
    /// `s3`.
    pub access_key: Option<ValueSource>,
    /// `s3`.
    pub secret_key: Option<ValueSource>,
    /// `otel`: address of the collector.
    pub otel_endpoint: Option<String>,
    /// `otel`.
    #[serde(default)]
    pub protocol: Protocol,
    /// `otel`.
    #[serde(default)]
    pub headers: BTreeMap<String, ValueSource>,
    /// `otel`.
    pub service_name: Option<String>,
    /// `otel`.
    pub environment: Option<String>,
    /// `otel`.
    #[serde(default)]
    pub tls: Tls,
    /// `disk`: folder.
    pub path: Option<std::path::PathBuf>,
    /// `qpoint`.
    pub url: Option<String>,
    /// `qpoint`.
    pub token: Option<ValueSource>,
}

/// Object stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
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
}

/// A reference to a store.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct StoreRef {
    /// Its `id`.
    pub id: Option<String>,
    /// Nothing goes there.
    #[serde(default, deserialize_with = "truth")]
    pub disabled: bool,
}

/// `rulekit`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Rulekit {
    /// Named expressions.
    pub macros: Vec<Macro>,
}

/// A named expression.
#[derive(Debug, Deserialize)]
pub struct Macro {
    /// Called as `name()`.
    pub name: String,
    /// The expression.
    pub expr: String,
}

/// A plugin stack.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Stack {
    /// Each sees every transaction.
    pub plugins: Vec<Plugin>,
}

/// A plugin of a stack.
#[derive(Debug, Deserialize)]
pub struct Plugin {
    /// Which one.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its own keys.
    #[serde(default)]
    pub config: serde_yaml::Value,
}

/// Level of `http_capture`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// No object.
    #[default]
    None,
    /// Metadata only.
    Summary,
    /// Also header fields.
    #[serde(alias = "details")]
    Headers,
    /// Also bodies.
    Full,
}

/// Format of `http_capture`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// JSON.
    #[default]
    Json,
    /// Readable text.
    Text,
}

/// `http_capture`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct HttpCapture {
    /// Of transactions that no rule matches.
    pub level: Level,
    /// Of transactions that no rule matches.
    pub format: Format,
    /// Which store.
    pub object_store: StoreRef,
    /// The first that matches decides.
    pub rules: Vec<CaptureRule>,
}

/// A rule of `http_capture`.
#[derive(Debug, Deserialize)]
pub struct CaptureRule {
    /// For people.
    #[serde(default)]
    pub name: String,
    /// Expression.
    pub expr: String,
    /// Level of what it matches.
    #[serde(default)]
    pub level: Level,
    /// Format of what it matches.
    pub format: Option<Format>,
}

/// `access_logs` and `debug`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct AccessLogs {
    /// How much of each transaction.
    pub mode: Mode,
    /// In which form; by the plugin's type if absent.
    pub format: Option<LogFormat>,
    /// The first that matches decides.
    pub rules: Vec<LogRule>,
}

/// How much of a transaction is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Nothing.
    None,
    /// A line.
    #[default]
    Summary,
    /// Also header fields.
    #[serde(alias = "headers")]
    Details,
    /// Also bodies.
    Full,
}

/// Form of what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// JSON lines.
    Json,
    /// Readable lines.
    Console,
}

/// A rule of `access_logs`.
#[derive(Debug, Deserialize)]
pub struct LogRule {
    /// For people.
    #[serde(default)]
    pub name: String,
    /// Expression.
    pub expr: String,
    /// Mode of what it matches.
    #[serde(default)]
    pub mode: Mode,
}

/// `report_usage`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ReportUsage {
    /// Read, without effect, as in the program that this is compatible with.
    pub tags: Vec<String>,
    /// Header fields to promote; not acting yet.
    pub headers: Vec<String>,
}

/// Which connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
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
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Tap {
    /// Which connections.
    pub direction: Direction,
    /// Leave connections to loopback addresses alone.
    #[serde(default, deserialize_with = "truth")]
    pub ignore_loopback: bool,
    /// Report connections of name look-ups; those are not captured yet.
    #[serde(default, deserialize_with = "truth")]
    pub audit_include_dns: bool,
    /// Stack for HTTP.
    pub http: StackRef,
    /// Exclude processes.
    pub filters: Filters,
    /// What may be kept in memory. Ours.
    pub budgets: Budgets,
    /// Stacks by domain; not acting yet.
    pub endpoints: serde_yaml::Value,
    /// Other protocols; not captured.
    pub redis: serde_yaml::Value,
    /// Other protocols; not captured.
    pub mysql: serde_yaml::Value,
    /// Other protocols; not captured.
    pub kafka: serde_yaml::Value,
    /// Other protocols; not captured.
    pub postgres: serde_yaml::Value,
}

/// What may be kept in memory: sizes such as `512kb` or `2mb`. Ours.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Budgets {
    /// Of one body; `--http-buffer-size` goes before it.
    pub body: Option<String>,
    /// Of the open exchanges of a connection.
    pub connection: Option<String>,
    /// Of the connections of a shard.
    pub shard: Option<String>,
    /// Of all shards, and of what waits for the stores.
    pub agent: Option<String>,
}

/// A stack by name; empty and `none` mean none.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct StackRef {
    /// Its name.
    pub stack: String,
}

/// `filters`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Filters {
    /// Well-known processes.
    pub groups: Vec<String>,
    /// By path.
    pub custom: Vec<CustomFilter>,
}

/// Excludes processes by the path of their executable.
#[derive(Debug, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
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
