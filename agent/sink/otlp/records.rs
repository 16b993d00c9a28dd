//! From the columns of a batch to the bytes of requests.

use std::{
    borrow::Cow,
    ops::Range,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use arrow_array::{
    Array, BooleanArray, GenericListArray, RecordBatch, StringArray,
    cast::AsArray,
    types::{Float64Type, Int64Type, TimestampNanosecondType},
};
use arrow_buffer::NullBuffer;
use arrow_schema::{DataType, Field, TimeUnit};
use bytes::Bytes;
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    logs::v1::{LogRecord, ResourceLogs, SeverityNumber},
    resource::v1::Resource,
};
use prost::Message as _;
use ringtap_batch::{
    events::{self, Present, TRACEPARENT},
    objects::Objects,
};

use super::{
    text::{self, Dates, Part},
    trace::Trace,
    wire::{Backward, Buffers, FRAME, key, tag},
};
use crate::config::checked::Otel;

const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.24.0";

/// Makes requests; what is the same in all of them is made once.
#[derive(Debug)]
pub(super) struct Encoder {
    resource: Vec<u8>,
    scope: Vec<u8>,
    /// The field with the address of the schema, whole.
    schema: Vec<u8>,
    flat: bool,
    buffers: Arc<Buffers>,
}

/// A request, behind the five bytes that gRPC wants before it.
#[derive(Debug)]
pub(super) struct Request {
    /// Which rows of the batch are in it.
    pub(super) rows: Range<usize>,
    pub(super) frame: Bytes,
}

impl Request {
    /// Without those bytes.
    pub(super) fn message(&self) -> Bytes {
        self.frame.slice(FRAME..)
    }
}

impl Encoder {
    pub(super) fn new(config: &Otel, scope: &str) -> Self {
        let attributes = [
            ("service.name", config.service_name.as_str()),
            ("service.version", env!("CARGO_PKG_VERSION")),
            ("environment", &config.environment),
        ];
        let resource = Resource {
            attributes: attributes.map(|(name, value)| attribute(name, value)).to_vec(),
            ..Resource::default()
        };
        let scope = InstrumentationScope { name: scope.to_owned(), ..InstrumentationScope::default() };
        Self {
            resource: resource.encode_to_vec(),
            scope: scope.encode_to_vec(),
            schema: ResourceLogs { schema_url: SCHEMA_URL.into(), ..ResourceLogs::default() }.encode_to_vec(),
            flat: config.flat_attributes,
            buffers: Arc::default(),
        }
    }

    /// Some rows of a batch of events as requests of at most `max` bytes, unless one record alone is longer; the last
    /// request first.
    pub(super) fn events(&self, batch: &RecordBatch, rows: Range<usize>, max: usize) -> Vec<Request> {
        let mut records = Records::of(batch, self.flat);
        let mut made = Vec::new();
        let (mut out, mut end) = (self.begin(), rows.end);
        for row in rows.clone().rev() {
            let before = out.written();
            records.write(&mut out, row);
            if out.written() > max && row + 1 < end {
                out.back_to(before);
                made.push(self.finish(out, row + 1..end));
                (out, end) = (self.begin(), row + 1);
                records.write(&mut out, row);
            }
        }
        if !rows.is_empty() {
            made.push(self.finish(out, rows.start..end));
        }
        made
    }

    /// An object as a request.
    pub(super) fn object(&self, objects: &Objects<'_>, row: usize, batch: &RecordBatch) -> Request {
        let mut out = self.begin();
        write_artifact(&mut out, objects, row, batch);
        self.finish(out, row..row + 1)
    }

    fn begin(&self) -> Backward {
        let mut out = Backward::new(&self.buffers);
        out.put(&self.schema);
        out
    }

    fn finish(&self, mut out: Backward, rows: Range<usize>) -> Request {
        out.field(tag::SCOPE, &self.scope);
        // All but the address of the schema, which was written first.
        out.close(tag::SCOPE_LOGS, self.schema.len());
        out.field(tag::RESOURCE, &self.resource);
        out.close(tag::RESOURCE_LOGS, 0);
        out.frame();
        Request { rows, frame: out.finish() }
    }
}

/// A batch of events, made ready: its columns by type, their names as bytes.
struct Records<'a> {
    columns: Vec<Column<'a>>,
    body: Vec<BodyPart<'a>>,
    traces: Option<&'a StringArray>,
    /// The attribute `event.type`, whole.
    kind: Vec<u8>,
    /// Fields of the severity, whole.
    severity: Vec<u8>,
    event_key: Vec<u8>,
    flat: bool,
    observed_ns: u64,
    dates: Dates,
}

struct Column<'a> {
    name: &'a str,
    key: Vec<u8>,
    nulls: Option<&'a NullBuffer>,
    values: Values<'a>,
}

#[derive(Clone, Copy)]
enum Values<'a> {
    Text(&'a StringArray),
    Int(&'a [i64]),
    Bool(&'a BooleanArray),
    Float(&'a [f64]),
    Time(&'a [i64]),
    Texts(&'a GenericListArray<i32>, &'a StringArray),
    /// Lists by key.
    Tags(&'a GenericListArray<i32>, &'a StringArray),
    /// Texts by key.
    Texted(&'a GenericListArray<i32>, &'a StringArray),
}

enum BodyPart<'a> {
    Words(&'a str),
    /// A column by its place.
    Column(usize),
}

impl<'a> Records<'a> {
    fn of(batch: &'a RecordBatch, flat: bool) -> Self {
        let kind = events::event_type(batch);
        let fields = batch.schema_ref().fields().iter().zip(batch.columns());
        let columns: Vec<Column<'a>> = fields.filter_map(|(field, column)| Column::of(field, column)).collect();
        let body = match text::body(kind) {
            None => vec![BodyPart::Words(kind)],
            Some(parts) => parts
                .iter()
                .filter_map(|part| match part {
                    Part::Words(words) => Some(BodyPart::Words(words)),
                    Part::Field(path) => columns.iter().position(|c| c.name == *path).map(BodyPart::Column),
                })
                .collect(),
        };
        let named = LogRecord { attributes: vec![attribute("event.type", kind)], ..LogRecord::default() };
        Self {
            columns,
            body,
            traces: batch.column_by_name(TRACEPARENT).and_then(|column| column.as_string_opt()),
            kind: named.encode_to_vec(),
            severity: severity(kind),
            event_key: key("event"),
            flat,
            observed_ns: now_ns(),
            dates: Dates::default(),
        }
    }

    fn write(&mut self, out: &mut Backward, row: usize) {
        let record = out.written();
        write_observed(out, self.observed_ns, self.trace(row).as_ref());
        let event = out.written();
        self.write_fields(out, row, tag::ITEM);
        out.close(tag::MAP, event);
        out.close_value(tag::ATTRIBUTE, &self.event_key, event);
        out.put(&self.kind);
        if self.flat {
            self.write_fields(out, row, tag::ATTRIBUTE);
        }
        let body = out.written();
        self.write_body(out, row);
        out.close(tag::TEXT, body);
        out.close(tag::BODY, body);
        out.put(&self.severity);
        if let Some(ns) = self.time_ns(row) {
            write_time(out, ns);
        }
        out.close(tag::RECORD, record);
    }

    fn trace(&self, row: usize) -> Option<Trace> {
        let traces = self.traces?;
        traces.is_valid(row).then(|| traces.value(row)).and_then(Trace::parse)
    }

    /// The moment of the event: that of the last column which tells one.
    fn time_ns(&self, row: usize) -> Option<i64> {
        self.columns.iter().rev().find_map(|column| match column.values {
            Values::Time(times) if matches!(column.name, "timestamp" | "createdAt") && column.is_valid(row) => {
                Some(times[row])
            }
            _ => None,
        })
    }

    fn write_fields(&mut self, out: &mut Backward, row: usize, tag: u8) {
        for column in self.columns.iter().rev().filter(|column| column.is_valid(row)) {
            column.write(out, row, tag, &mut self.dates);
        }
    }

    fn write_body(&mut self, out: &mut Backward, row: usize) {
        for part in self.body.iter().rev() {
            match part {
                BodyPart::Words(words) => out.put(words.as_bytes()),
                BodyPart::Column(at) if self.columns[*at].is_valid(row) => match self.columns[*at].values {
                    Values::Text(texts) => out.put(texts.value(row).as_bytes()),
                    Values::Int(numbers) => out.decimal(numbers[row]),
                    Values::Float(numbers) => out.put(format!("{:.2}", numbers[row]).as_bytes()),
                    Values::Time(times) => out.put(self.dates.of(times[row])),
                    Values::Texts(lists, texts) => {
                        if let Some(first) = items(lists, row).next() {
                            out.put(texts.value(first).as_bytes());
                        }
                    }
                    Values::Bool(_) | Values::Tags(..) | Values::Texted(..) => {}
                },
                BodyPart::Column(_) => {}
            }
        }
    }
}

impl<'a> Column<'a> {
    /// `None`: nothing of it is shown.
    fn of(field: &'a Field, column: &'a dyn Array) -> Option<Self> {
        if field.name().starts_with('_') || column.null_count() == column.len() {
            return None;
        }
        let form = |name| field.metadata().contains_key(name);
        let values = match column.data_type() {
            DataType::Utf8 => Values::Text(column.as_string()),
            DataType::Int64 => Values::Int(column.as_primitive::<Int64Type>().values()),
            DataType::Boolean => Values::Bool(column.as_boolean()),
            DataType::Float64 => Values::Float(column.as_primitive::<Float64Type>().values()),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                Values::Time(column.as_primitive::<TimestampNanosecondType>().values())
            }
            DataType::List(_) => {
                let lists = column.as_list::<i32>();
                let texts = lists.values().as_string_opt()?;
                match (form(events::TEXTED), form(events::TAGS)) {
                    (true, _) => Values::Texted(lists, texts),
                    (_, true) => Values::Tags(lists, texts),
                    _ => Values::Texts(lists, texts),
                }
            }
            _ => return None,
        };
        Some(Self { name: field.name(), key: key(field.name()), nulls: column.nulls(), values })
    }

    fn is_valid(&self, row: usize) -> bool {
        self.nulls.is_none_or(|nulls| nulls.is_valid(row))
    }

    fn write(&self, out: &mut Backward, row: usize, tag: u8, dates: &mut Dates) {
        let value = out.written();
        match self.values {
            Values::Text(texts) => out.field(tag::TEXT, texts.value(row).as_bytes()),
            Values::Int(numbers) => out.int_value(numbers[row]),
            Values::Bool(truths) => {
                out.byte(u8::from(truths.value(row)));
                out.byte(tag::BOOL);
            }
            Values::Float(numbers) => out.fixed64(tag::DOUBLE, numbers[row].to_bits()),
            Values::Time(times) => out.field(tag::TEXT, dates.of(times[row])),
            Values::Texts(lists, texts) => write_list(out, items(lists, row).rev().map(|i| texts.value(i))),
            Values::Tags(lists, texts) => return self.write_tags(out, tag, items(lists, row), texts),
            Values::Texted(lists, texts) => return self.write_texted(out, tag, items(lists, row), texts),
        }
        out.close_value(tag, &self.key, value);
    }

    /// A list of texts for each key, in the order in which keys were met first.
    fn write_tags(&self, out: &mut Backward, tag: u8, rows: Range<usize>, texts: &StringArray) {
        let pair = |i| texts.value(i).split_once(':');
        for at in rows.clone().rev() {
            let Some((name, _)) = pair(at) else { continue };
            let same = |i: &usize| pair(*i).is_some_and(|(other, _)| other == name);
            if (rows.start..at).any(|i| same(&i)) {
                continue;
            }
            let value = out.written();
            write_list(out, (at..rows.end).rev().filter(same).filter_map(|i| Some(pair(i)?.1)));
            self.close_member(out, tag, name, value);
        }
    }

    /// A text for each key; of several the last one.
    fn write_texted(&self, out: &mut Backward, tag: u8, rows: Range<usize>, texts: &StringArray) {
        let pair = |i| texts.value(i).split_once(':');
        for at in rows.clone().rev() {
            let Some((name, text)) = pair(at) else { continue };
            if (at + 1..rows.end).any(|i| pair(i).is_some_and(|(other, _)| other == name)) {
                continue;
            }
            let value = out.written();
            out.field(tag::TEXT, text.as_bytes());
            self.close_member(out, tag, name, value);
        }
    }

    /// The same as [`Backward::close_value`], of the field `<column>.<name>`.
    fn close_member(&self, out: &mut Backward, tag: u8, name: &str, value: usize) {
        out.varint((out.written() - value) as u64);
        out.byte(tag::VALUE);
        let path = out.written();
        out.put(name.as_bytes());
        out.byte(b'.');
        out.put(self.name.as_bytes());
        out.close(tag::KEY, path);
        out.close(tag, value);
    }
}

/// Places of a row's texts.
fn items(lists: &GenericListArray<i32>, row: usize) -> Range<usize> {
    let at = |i: usize| usize::try_from(lists.value_offsets()[i]).unwrap_or_default();
    at(row)..at(row + 1)
}

/// A list of texts, whose last one comes first.
fn write_list<'t>(out: &mut Backward, last_first: impl Iterator<Item = &'t str>) {
    let list = out.written();
    for text in last_first {
        let item = out.written();
        out.field(tag::TEXT, text.as_bytes());
        out.close(tag::ITEM, item);
    }
    out.close(tag::LIST, list);
}

/// The end of a record: when it was made here, and its trace.
fn write_observed(out: &mut Backward, observed_ns: u64, trace: Option<&Trace>) {
    out.fixed64(tag::OBSERVED, observed_ns);
    if let Some(Trace { id, span, flags }) = trace {
        out.field(tag::SPAN, span);
        out.field(tag::TRACE, id);
        if *flags != 0 {
            out.fixed32(tag::FLAGS, (*flags).into());
        }
    }
}

fn write_time(out: &mut Backward, ns: i64) {
    if let Ok(ns @ 1..) = u64::try_from(ns) {
        out.fixed64(tag::TIME, ns);
    }
}

fn write_artifact(out: &mut Backward, objects: &Objects<'_>, row: usize, batch: &RecordBatch) {
    let record = out.written();
    let (kind, content_type) = (objects.artifact_type.value(row), objects.content_type.value(row));
    let data = objects.data.value(row);
    write_observed(out, now_ns(), events::traceparent(batch, row).and_then(Trace::parse).as_ref());
    let fields: Vec<_> = events::row(batch, row).collect();
    let mut time_ns = None;
    for (path, value) in fields.iter().rev() {
        let name = match (*path, value) {
            ("timestamp", Present::Time(ns)) => {
                time_ns.get_or_insert(*ns);
                continue;
            }
            ("connectionId", _) => "connection.id".into(),
            ("endpointId", _) => "connection.endpoint_id".into(),
            ("requestId", _) => "connection.request_id".into(),
            (path, _) if path.starts_with("summary.") => format!("artifact.{path}"),
            _ => continue,
        };
        out.text(tag::ATTRIBUTE, &key(&name), shown(value).as_bytes());
    }
    out.text(tag::ATTRIBUTE, &key("artifact.data"), String::from_utf8_lossy(data).as_bytes());
    let size = out.written();
    out.int_value(i64::try_from(data.len()).unwrap_or(i64::MAX));
    out.close_value(tag::ATTRIBUTE, &key("artifact.size_bytes"), size);
    out.text(tag::ATTRIBUTE, &key("artifact.digest"), objects.digest.value(row).as_bytes());
    out.text(tag::ATTRIBUTE, &key("artifact.content_type"), content_type.as_bytes());
    out.text(tag::ATTRIBUTE, &key("artifact.type"), kind.as_bytes());
    let body = out.written();
    out.put(format!("Artifact: {kind} ({content_type}, {} bytes)", data.len()).as_bytes());
    out.close(tag::TEXT, body);
    out.close(tag::BODY, body);
    out.put(&severity(""));
    if let Some(ns) = time_ns {
        write_time(out, ns);
    }
    out.close(tag::RECORD, record);
}

/// A value as a text.
fn shown<'a>(value: &Present<'a>) -> Cow<'a, str> {
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

fn attribute(name: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: name.to_owned(), value: Some(value), ..KeyValue::default() }
}

/// What goes wrong for users is an error, what may be lost to them a warning.
fn severity(kind: &str) -> Vec<u8> {
    let (number, text) = match kind {
        "issue" => (SeverityNumber::Error, "ERROR"),
        "pii_entity" | "process_governed" => (SeverityNumber::Warn, "WARN"),
        _ => (SeverityNumber::Info, "INFO"),
    };
    let record = LogRecord { severity_number: number.into(), severity_text: text.into(), ..LogRecord::default() };
    record.encode_to_vec()
}

fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
