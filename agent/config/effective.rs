//! The configuration with every default filled in, and secrets left out.

use serde::{Serialize, de::DeserializeOwned};

use super::written::{self, EventStoreKind, ObjectStoreKind, Protocol, ValueSource, ValueSourceKind, Written};

/// `service.name` of collectors.
pub(super) const SERVICE_NAME: &str = "qtap";
/// `environment` of collectors.
pub(super) const ENVIRONMENT: &str = "production";
/// Host of an S3 store.
pub(super) const S3_ENDPOINT: &str = "s3.amazonaws.com";
/// Region of an S3 store.
pub(super) const S3_REGION: &str = "us-east-1";
/// Address of Axiom's interface.
pub(super) const AXIOM: &str = "https://api.axiom.co";
/// What stands for a secret.
const MASK: &str = "****";

/// Where a collector listens by default.
pub(super) fn endpoint(protocol: Protocol) -> &'static str {
    if protocol == Protocol::Http { "localhost:4318" } else { "localhost:4317" }
}

/// As YAML.
///
/// # Errors
///
/// Never in practice: everything that was read can be written.
pub fn print(mut written: Written) -> Result<String, serde_yaml::Error> {
    for store in &mut written.services.event_stores {
        if store.kind == EventStoreKind::Otel {
            fill(&mut store.endpoint, endpoint(store.protocol));
            fill(&mut store.service_name, SERVICE_NAME);
            fill(&mut store.environment, ENVIRONMENT);
        }
        if store.kind == EventStoreKind::Axiom {
            fill(&mut store.url, AXIOM);
        }
        store.headers.values_mut().chain(&mut store.token).for_each(hide);
    }
    for store in &mut written.services.object_stores {
        match store.kind {
            ObjectStoreKind::Otel => {
                fill(&mut store.otel_endpoint, endpoint(store.protocol));
                fill(&mut store.service_name, SERVICE_NAME);
                fill(&mut store.environment, ENVIRONMENT);
            }
            ObjectStoreKind::S3 => {
                fill(&mut store.endpoint, S3_ENDPOINT);
                fill(&mut store.region, S3_REGION);
            }
            _ => {}
        }
        let keys = store.access_key.iter_mut().chain(&mut store.secret_key).chain(&mut store.token);
        store.headers.values_mut().chain(keys).for_each(hide);
    }
    for plugin in written.stacks.values_mut().flat_map(|stack| &mut stack.plugins) {
        plugin.config = plugin_config(&plugin.kind, &plugin.config)?;
    }
    serde_yaml::to_string(&written)
}

fn fill(value: &mut Option<String>, default: &str) {
    value.get_or_insert_with(|| default.to_owned());
}

fn hide(source: &mut ValueSource) {
    if source.kind == ValueSourceKind::Text {
        MASK.clone_into(&mut source.value);
    }
}

fn plugin_config(kind: &str, config: &serde_yaml::Value) -> Result<serde_yaml::Value, serde_yaml::Error> {
    fn whole<T: DeserializeOwned + Serialize + Default>(
        config: &serde_yaml::Value,
    ) -> Result<serde_yaml::Value, serde_yaml::Error> {
        let decoded = if config.is_null() { T::default() } else { serde_yaml::from_value(config.clone())? };
        serde_yaml::to_value(decoded)
    }
    match kind {
        "http_capture" => whole::<written::HttpCapture>(config),
        "access_logs" | "debug" => whole::<written::AccessLogs>(config),
        "report_usage" => whole::<written::ReportUsage>(config),
        "http_metrics" => whole::<written::HttpMetrics>(config),
        "detect_errors" => whole::<written::DetectErrors>(config),
        "data_loss_protection" => whole::<written::DataLossProtection>(config),
        "llm" => whole::<written::Llm>(config),
        _ => Ok(config.clone()),
    }
}
