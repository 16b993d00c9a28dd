//! The configuration with every default filled in, and secrets left out.

use ringtap_batch::{budget, redact::Redaction};
use serde::{Serialize, de::DeserializeOwned};
use serde_yaml::{Error, Value};

use super::{
    DATA_DIR,
    collector::{Filled, environment},
    document::Document,
    written::{self, EventStoreKind, ObjectStoreKind, Protocol, ValueSource, ValueSourceKind, Written},
};

/// `service.name` of collectors.
pub(super) const SERVICE_NAME: &str = "qtap";
/// `environment` of collectors.
pub(super) const ENVIRONMENT: &str = "production";
/// Host of an S3 store.
pub(super) const S3_ENDPOINT: &str = "s3.amazonaws.com";
/// Region of an S3 store.
pub(super) const S3_REGION: &str = "us-east-1";
/// How long presigned urls can be used.
pub(super) const PRESIGN_EXPIRY: &str = "1h";
/// Address of Axiom's interface.
pub(super) const AXIOM: &str = "https://api.axiom.co";
/// Folder of the rollups.
pub(super) const ROLLUP_PATH: &str = "/var/lib/ringtap/rollups";
/// First part of their keys in an object store.
pub(super) const ROLLUP_PREFIX: &str = "rollups";
/// Bytes of a rollup file.
pub(super) const ROLLUP_BYTES: &str = "256mb";
/// Time from a rollup file's first row to its end.
pub(super) const ROLLUP_AGE: &str = "5m";
/// How hard zstd tries.
pub(super) const ROLLUP_COMPRESSION: i32 = 1;
/// Bytes of rollup files that may wait for the object store.
pub(super) const ROLLUP_WAITING: &str = "4gb";
/// What stands for a secret.
const MASK: &str = "****";

/// Keys of each type of event store, besides `type` and `id`.
const EVENT_STORE_KEYS: [(&str, &[&str]); 2] = [
    (
        "otel",
        &[
            "endpoint",
            "protocol",
            "headers",
            "service_name",
            "environment",
            "compression",
            "timeout",
            "tls",
            "flat_attributes",
        ],
    ),
    ("axiom", &["url", "dataset", "token"]),
];
/// The same of object stores, besides `event_store`.
const OBJECT_STORE_KEYS: [(&str, &[&str]); 3] = [
    ("s3", &S3_KEYS),
    ("otel", &["otel_endpoint", "protocol", "headers", "service_name", "environment", "compression", "timeout", "tls"]),
    ("disk", &["path", "access_url"]),
];

const S3_KEYS: [&str; 16] = [
    "endpoint",
    "bucket",
    "region",
    "access_url",
    "insecure",
    "tls",
    "access_key",
    "secret_key",
    "session_token",
    "profile",
    "prefix",
    "path_style",
    "storage_class",
    "server_side_encryption",
    "kms_key_id",
    "presign_expiry",
];

/// Where a collector listens by default.
pub(super) fn endpoint(protocol: Protocol) -> &'static str {
    if protocol == Protocol::Http { "localhost:4318" } else { "localhost:4317" }
}

/// As YAML.
///
/// # Errors
///
/// Never in practice: everything that was read can be written.
pub fn print(document: &Document, mut written: Written) -> Result<String, Error> {
    let mut sources = String::new();
    for (i, store) in written.services.event_stores.iter_mut().enumerate() {
        note(&mut sources, &format!("services.event_stores[{i}]"), &event_store(store));
    }
    for (i, store) in written.services.object_stores.iter_mut().enumerate() {
        note(&mut sources, &format!("services.object_stores[{i}]"), &object_store(store));
    }
    spool(&mut written.services.spool);
    written.services.rollups.iter_mut().for_each(rollups);
    budgets(&mut written.tap.budgets);
    for (name, stack) in &mut written.stacks {
        for (i, plugin) in stack.plugins.iter_mut().enumerate() {
            let path = format!("stacks.{name}.plugins[{i}].config");
            plugin.config = plugin_config(document, &path, &plugin.kind, &plugin.config)?;
        }
    }
    let mut all = serde_yaml::to_value(&written)?;
    for (list, known, more) in
        [("event_stores", &EVENT_STORE_KEYS[..], "id"), ("object_stores", &OBJECT_STORE_KEYS[..], "event_store")]
    {
        let stores = all.get_mut("services").and_then(|services| services.get_mut(list)?.as_sequence_mut());
        stores.into_iter().flatten().for_each(|store| keep_own_keys(store, known, more));
    }
    Ok(sources + &serde_yaml::to_string(&all)?)
}

/// Notes which keys come from the environment.
fn note(to: &mut String, path: &str, filled: &Filled) {
    to.extend(filled.from.iter().map(|(key, variable)| format!("# {path}.{key}: from {variable}\n")));
}

fn event_store(store: &mut written::EventStore) -> Filled {
    let mut filled = Filled::default();
    if store.kind == EventStoreKind::Otel {
        filled = store.collector().fill(&environment);
    }
    if store.kind == EventStoreKind::Axiom {
        fill(&mut store.url, AXIOM);
    }
    store.headers.values_mut().chain(&mut store.token).for_each(hide);
    store.endpoint.iter_mut().chain(&mut store.url).for_each(hide_in_url);
    filled
}

fn object_store(store: &mut written::ObjectStore) -> Filled {
    let mut filled = Filled::default();
    match store.kind {
        ObjectStoreKind::Otel => filled = store.collector().fill(&environment),
        ObjectStoreKind::S3 => {
            fill(&mut store.endpoint, S3_ENDPOINT);
            // Without keys it is looked for where they are.
            if store.access_key.is_some() {
                fill(&mut store.region, S3_REGION);
            }
            fill(&mut store.access_url, "");
            fill(&mut store.presign_expiry, PRESIGN_EXPIRY);
        }
        ObjectStoreKind::Disk => fill(&mut store.access_url, ""),
        _ => {}
    }
    let keys = store.access_key.iter_mut().chain(&mut store.secret_key).chain(&mut store.session_token);
    let keys = keys.chain(&mut store.token);
    store.headers.values_mut().chain(keys).for_each(hide);
    let urls = store.endpoint.iter_mut().chain(&mut store.otel_endpoint).chain(&mut store.access_url);
    urls.for_each(hide_in_url);
    filled
}

fn spool(spool: &mut written::Spool) {
    spool.path.get_or_insert_with(|| std::path::Path::new(DATA_DIR).join("spool"));
    fill(&mut spool.max_bytes, "1gb");
    fill(&mut spool.max_age, "24h");
}

fn rollups(rollups: &mut written::Rollups) {
    rollups.path.get_or_insert_with(|| ROLLUP_PATH.into());
    fill(&mut rollups.max_bytes, ROLLUP_BYTES);
    fill(&mut rollups.max_age, ROLLUP_AGE);
    rollups.compression_level.get_or_insert(ROLLUP_COMPRESSION);
    if rollups.object_store.is_some() {
        fill(&mut rollups.prefix, ROLLUP_PREFIX);
        fill(&mut rollups.max_waiting, ROLLUP_WAITING);
    }
}

fn budgets(budgets: &mut written::Budgets) {
    let default = budget::Budgets::default();
    for (own, default) in [
        (&mut budgets.body, default.body),
        (&mut budgets.connection, default.connection),
        (&mut budgets.shard, default.shard),
        (&mut budgets.agent, default.agent),
    ] {
        fill(own, &format!("{}mb", default >> 20));
    }
}

fn fill(value: &mut Option<String>, default: &str) {
    value.get_or_insert_with(|| default.to_owned());
}

fn hide(source: &mut ValueSource) {
    if source.kind == ValueSourceKind::Text {
        MASK.clone_into(&mut source.value);
    }
}

/// Passwords and signatures.
fn hide_in_url(url: &mut String) {
    *url = Redaction::default().url_text(url);
}

/// Takes away what a store of its type does not read. Of unknown types everything stays.
fn keep_own_keys(store: &mut Value, known: &[(&str, &[&str])], more: &str) {
    let own = known.iter().find(|(kind, _)| store.get("type").and_then(Value::as_str) == Some(kind));
    if let (Some((_, keys)), Some(fields)) = (own, store.as_mapping_mut()) {
        let stays = |key: &str| ["type", "id", more].contains(&key) || keys.contains(&key);
        fields.retain(|key, _| key.as_str().is_some_and(stays));
    }
}

fn plugin_config(document: &Document, path: &str, kind: &str, config: &Value) -> Result<Value, Error> {
    fn whole<T: DeserializeOwned + Serialize + Default>(
        document: &Document,
        path: &str,
        config: &Value,
    ) -> Result<Value, Error> {
        // What is wrong with it was told when it was checked.
        let decoded = document.decode_part::<T>(path, config.clone(), &mut Vec::new());
        serde_yaml::to_value(decoded.unwrap_or_default())
    }
    match kind {
        "http_capture" => whole::<written::HttpCapture>(document, path, config),
        "access_logs" => whole::<written::AccessLogs>(document, path, config).map(|logs| filled_format(logs, "json")),
        "debug" => whole::<written::AccessLogs>(document, path, config).map(|logs| filled_format(logs, "console")),
        "report_usage" => whole::<written::ReportUsage>(document, path, config),
        "http_metrics" => whole::<written::HttpMetrics>(document, path, config),
        "detect_errors" => whole::<written::DetectErrors>(document, path, config),
        "data_loss_protection" => whole::<written::DataLossProtection>(document, path, config),
        "llm" => whole::<written::Llm>(document, path, config),
        _ => Ok(config.clone()),
    }
}

fn filled_format(mut logs: Value, default: &str) -> Value {
    if let Some(fields) = logs.as_mapping_mut() {
        fields.entry("format".into()).or_insert(default.into());
    }
    logs
}
