//! `services`: the stores of events and objects.

use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{some_truth, truth};

fn yes() -> bool {
    true
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

/// TLS towards a store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct Tls {
    /// Whether it is used, where the endpoint is not a URL, which says it.
    #[serde(default, deserialize_with = "some_truth", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool")]
    pub enabled: Option<bool>,
    /// Whether the collector's certificate goes unchecked, so that anybody can take its place.
    #[serde(default, deserialize_with = "truth")]
    #[schemars(with = "bool")]
    pub insecure_skip_verify: bool,
    /// PEM file of the authorities that are trusted instead of the system's. Ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// PEM file of a certificate, and its chain, by which we show who we are; goes with `key_file`. Ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    /// PEM file of that certificate's private key. Ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
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

/// How requests are compressed. Ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// `gzip`, which every collector reads.
    Gzip,
    /// `zstd`, at less cost and with less bytes.
    Zstd,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// `otel`. Ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// `otel`: how long an answer may take, such as `10s`. Ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
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
    /// `s3`. Without it and `access_key`: the environment, the profile's files, a web identity, the metadata services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key: Option<ValueSource>,
    /// `s3`: what goes with temporary keys. Ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token: Option<ValueSource>,
    /// `s3`: which profile of the files of AWS has the keys, in place of `AWS_PROFILE`. Ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// `s3`: what the key of each object begins with, as it is: a folder ends in `/`. Ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// `s3`: whether the bucket stands in the path; `false`: in the name of the host. Ours.
    #[serde(default = "yes", deserialize_with = "truth")]
    #[schemars(with = "bool")]
    pub path_style: bool,
    /// `s3`: storage class of the objects, as the service names it. Ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<String>,
    /// `s3`: how the service encrypts the objects. Ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_side_encryption: Option<ServerSideEncryption>,
    /// `s3`: the key of `aws:kms`, if not the bucket's. Ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key_id: Option<String>,
    /// `s3`: how long `{{PRESIGNED}}` can be used, such as `1h`; 7 days at most. Ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub presign_expiry: Option<String>,
    /// `otel`: address of the collector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otel_endpoint: Option<String>,
    /// `otel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// `otel`. Ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// `otel`: how long an answer may take, such as `10s`. Ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
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
    pub path: Option<PathBuf>,
    /// `qpoint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// `qpoint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<ValueSource>,
}

/// How an S3 service encrypts what it keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum ServerSideEncryption {
    /// By keys of the service's own.
    #[serde(rename = "AES256")]
    Aes256,
    /// By a key of the key management service.
    #[serde(rename = "aws:kms")]
    Kms,
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
