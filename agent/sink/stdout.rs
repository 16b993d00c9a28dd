//! Events and objects as JSON lines on standard output.

use arrow_array::RecordBatch;
use base64_simd::STANDARD;
use ringtap_batch::{
    events::{self, Json},
    objects::Objects,
};
use serde::Serialize;

use super::{SinkError, console::Console};

#[derive(Serialize)]
struct EventLine<'a> {
    level: &'static str,
    msg: &'static str,
    r#type: &'static str,
    item: Json<'a>,
}

#[derive(Serialize)]
struct ObjectLine<'a> {
    level: &'static str,
    msg: &'static str,
    digest: &'a str,
    content_type: &'a str,
    data_base64: String,
}

/// A line an event, handed over in one piece.
///
/// # Errors
///
/// Standard output takes no more.
pub fn print_events(console: &Console, batch: &RecordBatch) -> Result<(), SinkError> {
    let kind = go_type(events::event_type(batch));
    print(console, batch.num_rows(), |row| EventLine {
        level: "info",
        msg: "event store submission",
        r#type: kind,
        item: events::json(batch, row),
    })
}

/// The type's name in the program that this is compatible with, which some consumers filter by.
#[must_use]
pub fn go_type(event_type: &str) -> &'static str {
    match event_type {
        "request" => "*eventstore.Request",
        "grpc_request" => "*eventstore.GRPCRequest",
        "connection" => "*eventstore.Connection",
        "issue" => "*eventstore.Issue",
        "pii_entity" => "*eventstore.PIIEntity",
        // Ours.
        "process_governed" => "*eventstore.ProcessGoverned",
        _ => "*eventstore.ArtifactRecord",
    }
}

/// A line an object, handed over in one piece.
///
/// # Errors
///
/// The batch holds no objects, or standard output takes no more.
pub fn print_objects(console: &Console, batch: &RecordBatch) -> Result<(), SinkError> {
    let objects = Objects::of(batch)
        .ok_or(SinkError::Refused { store: "objects", reason: "the batch has another schema".into() })?;
    print(console, objects.rows(), |row| ObjectLine {
        level: "info",
        msg: "object store submission",
        digest: objects.digest.value(row),
        content_type: objects.content_type.value(row),
        data_base64: STANDARD.encode_to_string(objects.data.value(row)),
    })
}

fn print<L: Serialize>(console: &Console, rows: usize, line: impl Fn(usize) -> L) -> Result<(), SinkError> {
    let mut lines = String::new();
    for row in 0..rows {
        if row > 0 {
            lines.push('\n');
        }
        let line = serde_json::to_string(&line(row))
            .map_err(|error| SinkError::Refused { store: "stdout", reason: error.to_string() })?;
        lines.push_str(&line);
    }
    console.line(lines)
}
