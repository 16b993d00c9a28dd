//! The JSON Schema of configurations, for editors, made from the structures that read them.

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Value, json};

use super::written::{self, Written};

/// The schema.
#[must_use]
pub fn schema() -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let plugins = [
        plugin::<written::HttpCapture>(&mut generator, &["http_capture"]),
        plugin::<written::AccessLogs>(&mut generator, &["access_logs", "debug"]),
        plugin::<written::ReportUsage>(&mut generator, &["report_usage"]),
        plugin::<written::HttpMetrics>(&mut generator, &["http_metrics"]),
        plugin::<written::DetectErrors>(&mut generator, &["detect_errors"]),
        plugin::<written::DataLossProtection>(&mut generator, &["data_loss_protection"]),
        plugin::<written::Llm>(&mut generator, &["llm"]),
    ];
    let mut schema = generator.into_root_schema_for::<Written>().to_value();
    schema["title"] = "Configuration of ringtap".into();
    if let Some(Value::Object(plugin)) = schema.pointer_mut("/$defs/Plugin") {
        plugin.insert("allOf".into(), plugins.into_iter().collect());
    }
    add_aliases(&mut schema);
    close(&mut schema);
    schema
}

/// What the configuration of a plugin of one of these types is.
fn plugin<T: JsonSchema>(generator: &mut SchemaGenerator, types: &[&str]) -> Value {
    let config = generator.subschema_for::<T>();
    json!({
        "if": {"properties": {"type": {"enum": types}}},
        "then": {"properties": {"config": {"anyOf": [config, {"type": "null"}]}}},
    })
}

/// Old spellings that are read as well.
fn add_aliases(schema: &mut Value) {
    for (definition, alias) in [
        ("Level", "details"),
        ("Mode", "headers"),
        ("EventStoreKind", "pulse-streaming"),
        ("EventStoreKind", "pulse-legacy"),
    ] {
        if let Some(Value::Array(variants)) = schema.pointer_mut(&format!("/$defs/{definition}/oneOf")) {
            variants.push(json!({"const": alias, "type": "string", "deprecated": true}));
        }
    }
}

/// Keys that are not known are mistakes, and a section may be empty.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.contains_key("properties") && fields.get("type").is_some_and(|kind| kind == "object") {
                fields.entry("additionalProperties").or_insert(false.into());
            }
            fields.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

/// Names of all keys.
#[must_use]
pub fn keys() -> Vec<String> {
    fn collect(schema: &Value, to: &mut Vec<String>) {
        match schema {
            Value::Object(fields) => {
                if let Some(Value::Object(properties)) = fields.get("properties") {
                    to.extend(properties.keys().cloned());
                }
                fields.values().for_each(|value| collect(value, to));
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, to)),
            _ => {}
        }
    }
    let mut keys = Vec::new();
    collect(&schema(), &mut keys);
    keys.sort_unstable();
    keys.dedup();
    keys
}
