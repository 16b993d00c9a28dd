//! The same records as OpenTelemetry's SDK makes them: an object a record, a map of its fields. The oracle of the
//! encoder, and what it is compared with.
#![allow(dead_code, reason = "each user takes a part")]

use std::{borrow::Cow, collections::HashMap, time::Duration};

use arrow_array::RecordBatch;
use opentelemetry::{
    InstrumentationScope, Key, KeyValue, SpanId, TraceFlags, TraceId,
    logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _, Severity},
};
use opentelemetry_proto::{
    tonic::collector::logs::v1::ExportLogsServiceRequest, transform::logs::tonic::group_logs_by_resource_and_scope,
};
use opentelemetry_sdk::{
    Resource,
    logs::{LogBatch, SdkLogRecord, SdkLogger, SdkLoggerProvider},
};
use ringtap::config::checked::Otel;
use ringtap_batch::{
    events::{self, Present},
    objects::Objects,
};

const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.24.0";

/// Makes records.
pub struct Sdk {
    logger: SdkLogger,
    scope: InstrumentationScope,
    resource: Resource,
    flat: bool,
}

impl Sdk {
    pub fn new(config: &Otel, scope: &'static str) -> Self {
        let resource = Resource::builder_empty()
            .with_schema_url(
                [
                    KeyValue::new("service.name", config.service_name.clone()),
                    KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                    KeyValue::new("environment", config.environment.clone()),
                ],
                SCHEMA_URL,
            )
            .build();
        Self {
            logger: SdkLoggerProvider::builder().build().logger(scope),
            scope: InstrumentationScope::builder(scope).build(),
            resource,
            flat: config.flat_attributes,
        }
    }

    pub fn resource(&self) -> &Resource {
        &self.resource
    }

    pub fn request(&self, records: &[SdkLogRecord]) -> ExportLogsServiceRequest {
        let scoped: Vec<_> = records.iter().map(|record| (record, &self.scope)).collect();
        let resource_logs = group_logs_by_resource_and_scope(&LogBatch::new(&scoped), &(&self.resource).into());
        ExportLogsServiceRequest { resource_logs }
    }

    pub fn records(&self, batch: &RecordBatch) -> Vec<SdkLogRecord> {
        (0..batch.num_rows()).map(|row| self.event(batch, row)).collect()
    }

    /// The SDK's encoder insists on the time of observation.
    fn record(&self) -> SdkLogRecord {
        let mut record = self.logger.create_log_record();
        Self::start(&mut record);
        record
    }

    /// What every record has.
    pub fn start(record: &mut SdkLogRecord) {
        record.set_observed_timestamp(std::time::SystemTime::now());
        record.set_severity_number(Severity::Info);
        record.set_severity_text("INFO");
    }

    fn event(&self, batch: &RecordBatch, row: usize) -> SdkLogRecord {
        let mut record = self.record();
        self.fill(&mut record, batch, row);
        record
    }

    /// What an event is, in a record of any logger.
    pub fn fill(&self, record: &mut SdkLogRecord, batch: &RecordBatch, row: usize) {
        let kind = events::event_type(batch);
        let mut fields: HashMap<Key, AnyValue> = HashMap::new();
        for (path, value) in events::row(batch, row) {
            if let (Present::Time(ns), "timestamp" | "createdAt") = (&value, path) {
                record.set_timestamp(time(*ns));
            }
            match value {
                Present::Tags(keys) => {
                    for (key, values) in keys {
                        fields.insert(Key::new(format!("{path}.{key}")), any_value(Present::Texts(values)));
                    }
                }
                Present::Texted(keys) => {
                    for (key, value) in keys {
                        fields.insert(Key::new(format!("{path}.{key}")), value.to_owned().into());
                    }
                }
                value => {
                    fields.insert(Key::new(path.to_owned()), any_value(value));
                }
            }
        }
        set_severity(record, kind);
        set_trace(record, events::traceparent(batch, row));
        record.set_body(body(kind, &fields).into());
        if self.flat {
            record.add_attributes(fields.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
        record.add_attribute("event.type", kind.to_owned());
        record.add_attribute("event", AnyValue::Map(Box::new(fields)));
    }

    pub fn artifact(&self, objects: &Objects<'_>, row: usize, batch: &RecordBatch) -> SdkLogRecord {
        let mut record = self.record();
        let (kind, content_type) = (objects.artifact_type.value(row), objects.content_type.value(row));
        let data = objects.data.value(row);
        set_trace(&mut record, events::traceparent(batch, row));
        record.set_body(format!("Artifact: {kind} ({content_type}, {} bytes)", data.len()).into());
        record.add_attribute("artifact.type", kind.to_owned());
        record.add_attribute("artifact.content_type", content_type.to_owned());
        record.add_attribute("artifact.digest", objects.digest.value(row).to_owned());
        record.add_attribute("artifact.size_bytes", i64::try_from(data.len()).unwrap_or(i64::MAX));
        record.add_attribute("artifact.data", String::from_utf8_lossy(data).into_owned());
        for (path, value) in events::row(batch, row) {
            match (path, value) {
                ("timestamp", Present::Time(ns)) => record.set_timestamp(time(ns)),
                ("connectionId", value) => record.add_attribute("connection.id", text(&value).into_owned()),
                ("endpointId", value) => record.add_attribute("connection.endpoint_id", text(&value).into_owned()),
                ("requestId", value) => record.add_attribute("connection.request_id", text(&value).into_owned()),
                (path, value) if path.starts_with("summary.") => {
                    record.add_attribute(format!("artifact.{path}"), text(&value).into_owned());
                }
                _ => {}
            }
        }
        record
    }
}

/// What goes wrong for users is an error, what may be lost to them a warning.
fn set_severity(record: &mut SdkLogRecord, kind: &str) {
    let (number, text) = match kind {
        "issue" => (Severity::Error, "ERROR"),
        "pii_entity" | "process_governed" => (Severity::Warn, "WARN"),
        _ => return,
    };
    record.set_severity_number(number);
    record.set_severity_text(text);
}

/// The trace that the request is part of, if it says so in the form of W3C's Trace Context.
fn set_trace(record: &mut SdkLogRecord, traceparent: Option<&str>) {
    let parsed = traceparent.and_then(|text| {
        let mut parts = text.trim().split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let plain = |text: &str, len| {
            text.len() == len && text.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase())
        };
        let shaped = plain(version, 2) && plain(trace, 32) && plain(span, 16) && plain(flags, 2);
        // Version 0 has four parts; later ones may have more.
        let whole = version != "ff" && (version != "00" || parts.next().is_none());
        let trace = TraceId::from_hex(trace).ok().filter(|id| *id != TraceId::INVALID)?;
        let span = SpanId::from_hex(span).ok().filter(|id| *id != SpanId::INVALID)?;
        let flags = u8::from_str_radix(flags, 16).ok()?;
        (shaped && whole).then_some((trace, span, TraceFlags::new(flags)))
    });
    if let Some((trace, span, flags)) = parsed {
        record.set_trace_context(trace, span, Some(flags));
    }
}

fn time(ns: i64) -> std::time::SystemTime {
    std::time::UNIX_EPOCH + Duration::from_nanos(u64::try_from(ns).unwrap_or(0))
}

fn any_value(value: Present<'_>) -> AnyValue {
    match value {
        Present::Text(text) => text.to_owned().into(),
        Present::Int(n) => n.into(),
        Present::Bool(truth) => truth.into(),
        Present::Texts(texts) => AnyValue::ListAny(Box::new(texts.into_iter().map(|t| t.to_owned().into()).collect())),
        Present::Time(ns) => ringtap_batch::clock::rfc3339(ns).into(),
        Present::Float(n) => n.into(),
        // Their members are fields of their own.
        Present::Tags(_) | Present::Texted(_) => AnyValue::Boolean(true),
    }
}

fn text<'a>(value: &Present<'a>) -> Cow<'a, str> {
    match value {
        Present::Text(text) => Cow::Borrowed(*text),
        Present::Int(n) => n.to_string().into(),
        Present::Bool(truth) => truth.to_string().into(),
        Present::Texts(texts) => texts.join(",").into(),
        Present::Time(ns) => ringtap_batch::clock::rfc3339(*ns).into(),
        Present::Float(n) => n.to_string().into(),
        Present::Tags(_) | Present::Texted(_) => Cow::Borrowed(""),
    }
}

/// The body text of an event.
fn body(kind: &str, fields: &HashMap<Key, AnyValue>) -> String {
    let field = |name: &'static str| match fields.get(&Key::from_static_str(name)) {
        Some(AnyValue::String(text)) => text.as_str().to_owned(),
        Some(AnyValue::Int(n)) => n.to_string(),
        Some(AnyValue::Double(n)) => format!("{n:.2}"),
        Some(AnyValue::ListAny(items)) => match items.first() {
            Some(AnyValue::String(text)) => text.as_str().to_owned(),
            _ => String::new(),
        },
        _ => String::new(),
    };
    match kind {
        "request" | "grpc_request" => format!("HTTP {} ({}) {}", field("method"), field("status"), field("url")),
        "issue" => {
            format!("HTTP Error: {} ({}) {} :: {}", field("method"), field("status"), field("url"), field("error"))
        }
        "process_governed" => {
            format!(
                "Capture of {} ({}): {} → {}",
                field("process.exe"),
                field("process.pid"),
                field("from"),
                field("to")
            )
        }
        "pii_entity" => format!("PII detected: {} (score: {})", field("entityType"), field("score")),
        "artifact_record" => format!("Artifact stored: {}", field("type")),
        "connection" => format!(
            "Connection: [{} via {}] {} → {}",
            field("direction"),
            field("l7Protocol"),
            field("system.hostname"),
            field("meta.endpointId")
        ),
        other => other.to_owned(),
    }
}
