//! Events: batches whose column names are the paths of their fields.
//!
//! A column `summary.request_method` is the field `request_method` of the object `summary`. The JSON form nests by the
//! dots; OTLP keeps the flat names. Null cells and empty texts are left out of both, and so are columns whose name begins
//! with `_`: they are about the record. The schema's metadata names the event's type.

use std::{collections::HashMap, sync::Arc};

use arrow_array::{
    Array, ArrayRef, RecordBatch,
    builder::{BooleanBuilder, Float64Builder, Int64Builder, ListBuilder, StringBuilder, TimestampNanosecondBuilder},
    cast::AsArray,
    types::{Float64Type, Int64Type, TimestampNanosecondType},
};
use arrow_schema::{DataType, Field, Schema};
use ringtap_ring::abi::{Endpoints, Library};
use serde::{Serialize, Serializer, ser::SerializeMap as _};

use crate::{clock::rfc3339, process::Process};

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// `Utf8`.
    Text,
    /// `Int64`.
    Int,
    /// `Boolean`.
    Bool,
    /// `List<Utf8>`.
    Texts,
    /// `Timestamp(ns, UTC)`; RFC 3339 in JSON.
    Time,
    /// `Float64`.
    Float,
    /// `List<Utf8>` of `key:value`, written as an object whose members are lists.
    Tags,
    /// `List<Utf8>` of `key:value`, written as an object whose members are texts.
    Texted,
}

/// The columns of one type of event.
#[derive(Debug)]
pub struct EventSchema {
    /// As in the OTLP attribute `event.type`.
    pub event_type: &'static str,
    /// Paths and types.
    pub columns: &'static [(&'static str, Column)],
}

/// Key of the schema's metadata under which the event's type stands.
pub const EVENT_TYPE: &str = "event.type";

/// Key of a column's metadata, there if the column holds tags whose members are lists.
pub const TAGS: &str = "tags";
/// The same, if their members are texts.
pub const TEXTED: &str = "texted";

/// Name of the column that holds the `traceparent` of the request, if it had one.
pub const TRACEPARENT: &str = "_traceparent";

/// A value for a column.
#[derive(Debug, Clone)]
pub enum Cell<'a> {
    /// Nothing.
    Null,
    /// Text; empty is nothing.
    Text(&'a str),
    /// Text made for this cell.
    Owned(String),
    /// Whole number.
    Int(i64),
    /// Truth.
    Bool(bool),
    /// Texts.
    Texts(Vec<String>),
    /// Nanoseconds since 1970.
    Time(i64),
    /// Other number.
    Float(f64),
}

impl<'a> From<Option<&'a str>> for Cell<'a> {
    fn from(text: Option<&'a str>) -> Self {
        text.map_or(Cell::Null, Cell::Text)
    }
}

#[derive(Debug)]
enum Builder {
    Text(StringBuilder),
    Int(Int64Builder),
    Bool(BooleanBuilder),
    Texts(ListBuilder<StringBuilder>),
    Time(TimestampNanosecondBuilder),
    Float(Float64Builder),
}

/// Rows that a batch has room for from the start: most are small, and all wait in queues that count their bytes.
const ROWS: usize = 4;

/// Makes a batch of events of one type.
#[derive(Debug)]
pub struct EventsBuilder {
    schema: &'static EventSchema,
    columns: Vec<Builder>,
    rows: usize,
}

impl EventsBuilder {
    /// An empty batch.
    #[must_use]
    pub fn new(schema: &'static EventSchema) -> Self {
        let builder = |(_, column): &(_, Column)| match column {
            Column::Text => Builder::Text(StringBuilder::with_capacity(ROWS, ROWS * 16)),
            Column::Int => Builder::Int(Int64Builder::with_capacity(ROWS)),
            Column::Bool => Builder::Bool(BooleanBuilder::with_capacity(ROWS)),
            Column::Float => Builder::Float(Float64Builder::with_capacity(ROWS)),
            Column::Texts | Column::Tags | Column::Texted => {
                Builder::Texts(ListBuilder::with_capacity(StringBuilder::with_capacity(ROWS, ROWS * 16), ROWS))
            }
            Column::Time => Builder::Time(TimestampNanosecondBuilder::with_capacity(ROWS).with_timezone("UTC")),
        };
        Self { schema, columns: schema.columns.iter().map(builder).collect(), rows: 0 }
    }

    /// Rows so far.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Adds an event, a cell a column.
    ///
    /// # Panics
    ///
    /// The cells are not those of the schema: a mistake of the caller.
    pub fn push(&mut self, cells: &[Cell<'_>]) {
        assert_eq!(cells.len(), self.columns.len(), "a cell for each column of {}", self.schema.event_type);
        for (builder, cell) in self.columns.iter_mut().zip(cells) {
            match (builder, cell) {
                (Builder::Text(b), Cell::Text(text)) if !text.is_empty() => b.append_value(text),
                (Builder::Text(b), Cell::Owned(text)) if !text.is_empty() => b.append_value(text),
                (Builder::Text(b), Cell::Text(_) | Cell::Owned(_) | Cell::Null) => b.append_null(),
                (Builder::Int(b), Cell::Int(n)) => b.append_value(*n),
                (Builder::Int(b), Cell::Null) => b.append_null(),
                (Builder::Bool(b), Cell::Bool(truth)) => b.append_value(*truth),
                (Builder::Texts(b), Cell::Texts(texts)) => {
                    for text in texts {
                        b.values().append_value(text);
                    }
                    b.append(!texts.is_empty());
                }
                (Builder::Texts(b), Cell::Null) => b.append(false),
                (Builder::Time(b), Cell::Time(at)) => b.append_value(*at),
                (Builder::Time(b), Cell::Null) => b.append_null(),
                (Builder::Float(b), Cell::Float(n)) => b.append_value(*n),
                (Builder::Float(b), Cell::Null) => b.append_null(),
                (_, cell) => panic!("{cell:?} is not of its column's type in {}", self.schema.event_type),
            }
        }
        self.rows += 1;
    }

    /// The batch.
    ///
    /// # Panics
    ///
    /// Never: rows are pushed whole.
    #[must_use]
    pub fn finish(self) -> RecordBatch {
        let arrays: Vec<ArrayRef> = self
            .columns
            .into_iter()
            .map(|builder| match builder {
                Builder::Text(mut b) => Arc::new(b.finish()) as ArrayRef,
                Builder::Int(mut b) => Arc::new(b.finish()),
                Builder::Bool(mut b) => Arc::new(b.finish()),
                Builder::Texts(mut b) => Arc::new(b.finish()),
                Builder::Time(mut b) => Arc::new(b.finish()),
                Builder::Float(mut b) => Arc::new(b.finish()),
            })
            .collect();
        let field = |((name, column), array): (&(&str, Column), &ArrayRef)| {
            let field = Field::new(*name, array.data_type().clone(), true);
            let form = match column {
                Column::Tags => TAGS,
                Column::Texted => TEXTED,
                _ => return field,
            };
            field.with_metadata(HashMap::from([(form.to_owned(), String::new())]))
        };
        let fields: Vec<Field> = self.schema.columns.iter().zip(&arrays).map(field).collect();
        let metadata = HashMap::from([(EVENT_TYPE.to_owned(), self.schema.event_type.to_owned())]);
        let schema = Schema::new_with_metadata(fields, metadata);
        RecordBatch::try_new(Arc::new(schema), arrays).expect("rows are pushed whole")
    }
}

/// The type of a batch's events.
#[must_use]
pub fn event_type(batch: &RecordBatch) -> &str {
    batch.schema_ref().metadata().get(EVENT_TYPE).map_or("", String::as_str)
}

/// A cell that is there.
#[derive(Debug, Clone, PartialEq)]
pub enum Present<'a> {
    /// Text.
    Text(&'a str),
    /// Whole number.
    Int(i64),
    /// Truth.
    Bool(bool),
    /// Texts.
    Texts(Vec<&'a str>),
    /// Nanoseconds since 1970.
    Time(i64),
    /// Other number.
    Float(f64),
    /// Values by key, in the order in which keys were met first.
    Tags(Vec<(&'a str, Vec<&'a str>)>),
    /// Texts by key.
    Texted(Vec<(&'a str, &'a str)>),
}

/// Paths and values of a row, without what is null, and without the bytes of objects.
pub fn row(batch: &RecordBatch, row: usize) -> impl Iterator<Item = (&str, Present<'_>)> {
    let columns =
        batch.schema_ref().fields().iter().zip(batch.columns()).filter(|(field, _)| !field.name().starts_with('_'));
    let shown = move |(_, column): &(_, &ArrayRef)| column.is_valid(row) && column.data_type() != &DataType::BinaryView;
    columns.filter(shown).map(move |(field, column)| {
        let value = match column.data_type() {
            DataType::Utf8 => Present::Text(column.as_string::<i32>().value(row)),
            DataType::Int64 => Present::Int(column.as_primitive::<Int64Type>().value(row)),
            DataType::Boolean => Present::Bool(column.as_boolean().value(row)),
            DataType::Float64 => Present::Float(column.as_primitive::<Float64Type>().value(row)),
            DataType::List(_) if field.metadata().contains_key(TEXTED) => {
                Present::Texted(texts(column, row).into_iter().filter_map(|tag| tag.split_once(':')).collect())
            }
            DataType::List(_) if field.metadata().contains_key(TAGS) => Present::Tags(by_key(texts(column, row))),
            DataType::List(_) => Present::Texts(texts(column, row)),
            _ => Present::Time(column.as_primitive::<TimestampNanosecondType>().value(row)),
        };
        (field.name().as_str(), value)
    })
}

fn texts(column: &ArrayRef, row: usize) -> Vec<&str> {
    let list = column.as_list::<i32>();
    let at = |i: usize| usize::try_from(list.value_offsets()[i]).expect("offsets are not negative");
    let values = list.values().as_string::<i32>();
    (at(row)..at(row + 1)).map(|i| values.value(i)).collect()
}

fn by_key<'a>(tags: Vec<&'a str>) -> Vec<(&'a str, Vec<&'a str>)> {
    let mut keys: Vec<(&'a str, Vec<&'a str>)> = Vec::new();
    for (key, value) in tags.into_iter().filter_map(|tag| tag.split_once(':')) {
        match keys.iter_mut().find(|(known, _)| *known == key) {
            Some((_, values)) => values.push(value),
            None => keys.push((key, vec![value])),
        }
    }
    keys
}

/// The `traceparent` of the request that an event is about.
#[must_use]
pub fn traceparent(batch: &RecordBatch, row: usize) -> Option<&str> {
    let column = batch.column_by_name(TRACEPARENT)?.as_string_opt::<i32>()?;
    column.is_valid(row).then(|| column.value(row))
}

/// A row as JSON, nested by the dots of its paths.
#[must_use]
pub fn json(batch: &RecordBatch, at: usize) -> Json<'_> {
    Json(row(batch, at).collect())
}

/// Paths and values that serialize as a nested object. Those of one inner object stand next to each other.
#[derive(Debug)]
pub struct Json<'a>(Vec<(&'a str, Present<'a>)>);

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Nested { fields: &self.0, outer: 0 }.serialize(serializer)
    }
}

/// Fields whose paths begin alike, up to the dot before `outer`.
struct Nested<'a> {
    fields: &'a [(&'a str, Present<'a>)],
    outer: usize,
}

impl Serialize for Nested<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let name = |path: &'_ str| path[self.outer..].find('.').map(|dot| self.outer + dot);
        let mut map = serializer.serialize_map(None)?;
        for group in self.fields.chunk_by(|(a, _), (b, _)| name(a).is_some_and(|dot| b.starts_with(&a[..=dot]))) {
            let (path, value) = &group[0];
            match name(path) {
                None => map.serialize_entry(&path[self.outer..], value)?,
                Some(dot) => {
                    map.serialize_entry(&path[self.outer..dot], &Nested { fields: group, outer: dot + 1 })?;
                }
            }
        }
        map.end()
    }
}

impl Serialize for Present<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Int(n) => serializer.serialize_i64(*n),
            Self::Bool(truth) => serializer.serialize_bool(*truth),
            Self::Texts(texts) => serializer.collect_seq(texts),
            Self::Time(ns) => serializer.serialize_str(&rfc3339(*ns)),
            Self::Float(n) => serializer.serialize_f64(*n),
            Self::Texted(keys) => serializer.collect_map(keys.iter().copied()),
            Self::Tags(keys) => serializer.collect_map(keys.iter().map(|(key, values)| (key, values))),
        }
    }
}

/// A report of a connection: the event `connection`.
pub(crate) struct ConnectionReport<'a> {
    pub(crate) connection_id: &'a str,
    pub(crate) endpoint_id: String,
    pub(crate) part: i64,
    pub(crate) finalized: bool,
    pub(crate) direction: &'a str,
    pub(crate) l7_protocol: &'a str,
    pub(crate) library: Option<Library>,
    /// 1.2, 1.3.
    pub(crate) tls_version: Option<f64>,
    pub(crate) datagrams: bool,
    pub(crate) hostname: &'a str,
    pub(crate) tags: Vec<String>,
    pub(crate) ends: Option<Endpoints>,
    /// Of a Unix socket, in place of addresses: what the server is bound to.
    pub(crate) unix: Option<String>,
    pub(crate) server: bool,
    pub(crate) process: Option<&'a Process>,
    pub(crate) tgid: u32,
    pub(crate) bytes: [u64; 2],
    pub(crate) created_ns: i64,
    pub(crate) closed_ns: Option<i64>,
}

impl ConnectionReport<'_> {
    /// Columns of the event `connection`.
    pub(crate) const SCHEMA: EventSchema = EventSchema {
        event_type: "connection",
        columns: &[
            ("meta.connectionId", Column::Text),
            ("meta.endpointId", Column::Text),
            ("meta.tlsProbeTypesDetected", Column::Texts),
            ("tags", Column::Tags),
            ("finalized", Column::Bool),
            ("part", Column::Int),
            ("direction", Column::Text),
            ("socketProtocol", Column::Text),
            ("l7Protocol", Column::Text),
            ("tlsVersion", Column::Text),
            ("system.hostname", Column::Text),
            ("system.agent", Column::Text),
            ("source.address", Column::Text),
            ("source.hostname", Column::Text),
            ("source.exe", Column::Text),
            ("source.user", Column::Text),
            ("source.userId", Column::Int),
            ("source.pid", Column::Int),
            ("source.container.id", Column::Text),
            ("source.container.name", Column::Text),
            ("source.container.image", Column::Text),
            ("source.container.pod.name", Column::Text),
            ("source.container.pod.namespace", Column::Text),
            ("destination.address", Column::Text),
            ("destination.hostname", Column::Text),
            ("destination.exe", Column::Text),
            ("destination.user", Column::Text),
            ("destination.userId", Column::Int),
            ("destination.pid", Column::Int),
            ("destination.container.id", Column::Text),
            ("destination.container.name", Column::Text),
            ("destination.container.image", Column::Text),
            ("destination.container.pod.name", Column::Text),
            ("destination.container.pod.namespace", Column::Text),
            ("bytesSent", Column::Int),
            ("bytesReceived", Column::Int),
            ("createdAt", Column::Time),
            ("closedAt", Column::Time),
        ],
    };

    pub(crate) fn cells(&self) -> Vec<Cell<'_>> {
        let address = |ip: std::net::IpAddr, port: u16| Cell::Owned(std::net::SocketAddr::new(ip, port).to_string());
        let ends = self.ends.as_ref();
        let local = self.local_cells(ends.map_or(Cell::Null, |e| address(e.local(), e.local_port)));
        let remote_address = ends.map_or(Cell::Null, |e| address(e.remote(), e.remote_port));
        let mut remote = vec![Cell::Null; local.len()];
        remote[0] = remote_address;
        let (source, mut destination) = if self.server { (remote, local) } else { (local, remote) };
        if let Some(address) = self.unix.as_deref().filter(|address| !address.is_empty()) {
            destination[0] = Cell::Text(address);
        }
        let count = |n: u64| {
            if self.finalized { Cell::Int(i64::try_from(n).unwrap_or(i64::MAX)) } else { Cell::Null }
        };
        let mut cells = vec![
            Cell::Text(self.connection_id),
            Cell::Text(&self.endpoint_id),
            self.library.map_or(Cell::Null, |library| Cell::Texts(vec![library.as_str().to_owned()])),
            Cell::Texts(self.tags.clone()),
            Cell::Bool(self.finalized),
            Cell::Int(self.part),
            Cell::Text(self.direction),
            Cell::Text(match &self.unix {
                Some(_) => "unix",
                None if self.datagrams => "udp",
                None => "tcp",
            }),
            Cell::Text(self.l7_protocol),
            self.tls_version.map_or(Cell::Null, |version| Cell::Owned(format!("TLS {version:.1}"))),
            Cell::Text(self.hostname),
            Cell::Text("tap"),
        ];
        cells.extend(source);
        cells.extend(destination);
        cells.extend([
            count(self.bytes[0]),
            count(self.bytes[1]),
            Cell::Time(self.created_ns),
            self.closed_ns.map_or(Cell::Null, Cell::Time),
        ]);
        cells
    }

    fn local_cells<'a>(&'a self, address: Cell<'a>) -> Vec<Cell<'a>> {
        let process = self.process;
        let detail = |name| Cell::from(process.and_then(|process| process.detail(name)));
        vec![
            address,
            Cell::Text(self.hostname),
            process.map(|p| p.exe.as_str()).into(),
            process.and_then(|p| p.user.as_deref()).into(),
            process.and_then(|p| p.uid).map_or(Cell::Null, |uid| Cell::Int(i64::from(uid))),
            Cell::Int(i64::from(self.tgid)),
            detail("container.id"),
            detail("container.name"),
            detail("container.image"),
            detail("pod.name"),
            detail("pod.namespace"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{objects::ARTIFACT_SCHEMA, usage::REQUEST_SCHEMA};

    /// An inner object that is written in two places would be there twice.
    #[test]
    fn columns_of_an_inner_object_stand_together() {
        for schema in [&ConnectionReport::SCHEMA, &ARTIFACT_SCHEMA, &REQUEST_SCHEMA] {
            let mut outer: Vec<&str> =
                schema.columns.iter().map(|(path, _)| path.split_once('.').map_or(*path, |(outer, _)| outer)).collect();
            outer.dedup();
            let there = outer.len();
            outer.sort_unstable();
            outer.dedup();
            assert_eq!(outer.len(), there, "{}", schema.event_type);
        }
    }

    #[test]
    fn paths_nest() {
        const SCHEMA: EventSchema = EventSchema {
            event_type: "test",
            columns: &[
                ("a", Column::Int),
                ("b.c", Column::Text),
                ("b.d.e", Column::Bool),
                ("b.d.f", Column::Texts),
                ("b.none", Column::Int),
                ("bc", Column::Time),
            ],
        };
        let mut events = EventsBuilder::new(&SCHEMA);
        let texts = Cell::Texts(vec!["x".into(), "y".into()]);
        events.push(&[Cell::Int(1), Cell::Text("t\"\n"), Cell::Bool(true), texts, Cell::Null, Cell::Time(0)]);
        events.push(&[Cell::Null, Cell::Null, Cell::Bool(false), Cell::Null, Cell::Null, Cell::Null]);
        let batch = events.finish();
        let text = |row| serde_json::to_string(&json(&batch, row)).expect("it serializes");
        assert_eq!(
            text(0),
            r#"{"a":1,"b":{"c":"t\"\n","d":{"e":true,"f":["x","y"]}},"bc":"1970-01-01T00:00:00.000000000Z"}"#
        );
        assert_eq!(text(1), r#"{"b":{"d":{"e":false}}}"#);
    }
}
