//! Rollups: transactions as rows of typed columns, for Parquet files that analysts' engines read.
//!
//! One row a transaction, made column by column of the masked batch: most columns are shared with it, none is walked
//! row by row where a shorter way leads to the same. [`COLUMNS`] is the schema, and `docs/query.md` shows it.
//!
//! - Times are microseconds: parquet-java, and so Spark, refuses nanoseconds.
//! - `time` is the end of the exchange, as `timestamp` is in events: files and partitions go by it, so that an exchange of
//!   two hours does not reach back into an hour that is closed. `start` and `duration_us` fit it to the microsecond.
//! - Ids and digests are text. As bytes they would take half the room before compression and nearly as much behind it, and
//!   each query would have to say them in another form than objects, events and logs do.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use arrow_array::{
    Array as _, ArrayRef, Int64Array, ListArray, MapArray, RecordBatch, StringArray, TimestampMicrosecondArray,
    UInt8Array,
    builder::{ListBuilder, MapBuilder, StringBuilder, UInt8Builder},
    cast::AsArray,
    new_null_array,
};
use arrow_buffer::{BooleanBuffer, NullBuffer};
use arrow_schema::{DataType, Field, Schema, TimeUnit};

use crate::{
    capture::Level,
    objects::Objects,
    transactions::{self, Transactions},
};

/// A column of the rollups.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether a row can be without.
    pub nullable: bool,
    /// For people.
    pub meaning: &'static str,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A moment, in microseconds, UTC.
    Time,
    /// A span in microseconds.
    Micros,
    /// Text.
    Text,
    /// Yes or no.
    Truth,
    /// A version such as 1.3.
    Version,
    /// Bytes or messages.
    Count,
    /// 32 bits.
    Number,
    /// 16 bits.
    Small,
    /// 8 bits.
    Tiny,
    /// Texts.
    Texts,
    /// Texts by name.
    Map,
    /// Missing ranges.
    Damage,
}

impl Kind {
    fn data_type(self) -> DataType {
        // Nested columns are shared with transactions, so they have the same types to the last name.
        let of = |name: &str| transactions::SCHEMA.field_with_name(name).expect("a column of transactions").data_type();
        match self {
            Self::Time => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
            Self::Micros => DataType::Int64,
            Self::Text => DataType::Utf8,
            Self::Truth => DataType::Boolean,
            Self::Version => DataType::Float64,
            Self::Count => DataType::UInt64,
            Self::Number => DataType::UInt32,
            Self::Small => DataType::UInt16,
            Self::Tiny => DataType::UInt8,
            Self::Texts => of("tags").clone(),
            Self::Map => of("request_headers").clone(),
            Self::Damage => of("damage").clone(),
        }
    }

    /// As SQL engines call it.
    #[must_use]
    pub fn sql(self) -> &'static str {
        match self {
            Self::Time => "timestamp, UTC",
            Self::Micros => "int64",
            Self::Text => "text",
            Self::Truth => "boolean",
            Self::Version => "double",
            Self::Count => "uint64",
            Self::Number => "uint32",
            Self::Small => "uint16",
            Self::Tiny => "uint8",
            Self::Texts => "list of text",
            Self::Map => "map of text to text",
            Self::Damage => "list of struct(cause, part, start, end)",
        }
    }
}

const UTC: &str = "UTC";

const fn column(name: &'static str, kind: Kind, meaning: &'static str) -> Column {
    Column { name, kind, nullable: false, meaning }
}

const fn nullable(name: &'static str, kind: Kind, meaning: &'static str) -> Column {
    Column { name, kind, nullable: true, meaning }
}

/// All columns, in order.
pub const COLUMNS: [Column; 60] = [
    column("time", Kind::Time, "end of the exchange; files are sorted by it"),
    column("start", Kind::Time, "first bytes of the request"),
    column("duration_us", Kind::Micros, "from `start` to `time`"),
    nullable("first_byte_us", Kind::Micros, "from `start` to the first bytes of the final response"),
    column("request_id", Kind::Text, "id of the exchange, as in events and objects"),
    column("connection_id", Kind::Text, "id of its connection"),
    column("phase", Kind::Text, "`complete`, or `ended` of an exchange that lasted (WebSocket, event stream)"),
    column("direction", Kind::Text, "`ingress`, `egress-internal`, `egress-external`"),
    column("protocol", Kind::Text, "`http1`, `http2`"),
    column("socket", Kind::Text, "how the connection was found: `exact`, `verified`, `inferred`, `unknown`"),
    column("tls", Kind::Truth, "taken as plaintext at a TLS library"),
    nullable("tls_library", Kind::Text, "which one"),
    nullable("tls_version", Kind::Version, "1.2, 1.3"),
    nullable("tls_sni", Kind::Text, "server name that the client asked for"),
    column("tls_alpn", Kind::Texts, "protocols that the client offered"),
    column("process_id", Kind::Number, "0 if not known"),
    nullable("process_exe", Kind::Text, "path of the executable"),
    nullable("process_user", Kind::Text, "name of its user"),
    nullable("process_uid", Kind::Number, "number of its user"),
    nullable("container_id", Kind::Text, "id of its container"),
    nullable("container_name", Kind::Text, "name of its container"),
    nullable("container_image", Kind::Text, "image of its container"),
    nullable("pod_name", Kind::Text, "name of its pod"),
    nullable("pod_namespace", Kind::Text, "namespace of its pod"),
    column("labels", Kind::Map, "`container.labels.…` and `pod.labels.…`"),
    column("tags", Kind::Texts, "configured `key:value` tags"),
    nullable("src_ip", Kind::Text, "address of the client"),
    nullable("src_port", Kind::Small, "port of the client"),
    nullable("dst_ip", Kind::Text, "address of the server"),
    nullable("dst_port", Kind::Small, "port of the server"),
    column("endpoint_id", Kind::Text, "name or address of the other end"),
    column("method", Kind::Text, "of the request"),
    column("scheme", Kind::Text, "`http`, `https`"),
    column("request_host", Kind::Text, "authority of the request: host, and port if it names one"),
    column("path", Kind::Text, "without the query, masked"),
    column("url", Kind::Text, "with the query, masked"),
    nullable("request_content_type", Kind::Text, "`content-type` of the request"),
    nullable("response_content_type", Kind::Text, "`content-type` of the response"),
    nullable(
        "request_headers",
        Kind::Map,
        "wire order, names repeated as they came, masked; at level headers and above",
    ),
    nullable("response_headers", Kind::Map, "the same of the response, trailers behind"),
    column("request_body_size", Kind::Count, "true length on the wire, in bytes"),
    column("response_body_size", Kind::Count, "the same of the response"),
    column("request_bytes", Kind::Count, "head and body"),
    column("response_bytes", Kind::Count, "head and body"),
    nullable("request_cut", Kind::Text, "why less of the body is kept, as `truncated` in objects"),
    nullable("response_cut", Kind::Text, "the same of the response"),
    column("status", Kind::Small, "499: the connection ended first; 422: not seen for another reason"),
    nullable("dialect", Kind::Text, "`grpc`, `sse`, `websocket`"),
    nullable("grpc_status", Kind::Tiny, "status of a gRPC call"),
    nullable("first_message_us", Kind::Micros, "from `start` to the response's first message"),
    nullable("request_messages", Kind::Count, "messages of the request"),
    nullable("response_messages", Kind::Count, "messages of the response"),
    column("stack", Kind::Text, "stack that it went through"),
    nullable("level", Kind::Text, "what `http_capture` kept: `none`, `summary`, `headers`, `full`"),
    nullable("rule", Kind::Text, "the rule of `http_capture` that decided"),
    nullable("digest", Kind::Text, "SHA-1 of its object, 40 hexadecimal digits"),
    nullable(
        "object_url",
        Kind::Text,
        "where the object lies; `{{DIGEST}}` stands for `digest`, `{{DIGEST:2}}` for its first two digits",
    ),
    column("damaged", Kind::Truth, "whether bytes are missing"),
    column("missing_bytes", Kind::Count, "bytes that are known to be missing"),
    column("damage", Kind::Damage, "the missing ranges, by cause"),
];

/// The schema of every rollup batch.
pub static SCHEMA: LazyLock<Arc<Schema>> = LazyLock::new(|| {
    let field = |column: &Column| Field::new(column.name, column.kind.data_type(), column.nullable);
    Arc::new(Schema::new(COLUMNS.iter().map(field).collect::<Vec<_>>()))
});

/// What a stack has decided and made of the rows.
#[derive(Debug, Default)]
pub struct Outcome<'a> {
    /// Name of the stack.
    pub stack: &'a str,
    /// Level of each row; empty: nothing decided.
    pub levels: Vec<Level>,
    /// Name of the rule that decided, of each row.
    pub rules: Vec<Option<&'a str>>,
    /// Digests of the objects.
    pub digests: Option<StringArray>,
    /// Where objects lie.
    pub object_url: Option<Arc<str>>,
}

impl Outcome<'_> {
    /// Takes note of the objects that were made of those rows whose level is not none.
    pub fn note_objects(&mut self, objects: &RecordBatch, url: Option<Arc<str>>) {
        let Some(objects) = Objects::of(objects) else { return };
        self.object_url = url;
        if objects.rows() == self.levels.len() {
            self.digests = Some(objects.digest.clone());
            return;
        }
        let mut made = objects.digest.iter();
        let of_row = |level: &Level| if *level == Level::None { None } else { made.next().flatten() };
        self.digests = Some(self.levels.iter().map(of_row).collect());
    }
}

/// The rows of a masked batch. `headers` says whether header fields are kept where the row's level has them.
///
/// # Panics
///
/// Never: the columns are those of [`COLUMNS`], each as long as the batch.
#[must_use]
pub fn rows(t: &Transactions<'_>, outcome: &Outcome<'_>, headers: bool) -> RecordBatch {
    let mut columns: HashMap<&'static str, ArrayRef> = HashMap::with_capacity(COLUMNS.len());
    let mut add = |name: &'static str, array: ArrayRef| {
        columns.insert(name, array);
    };
    times(t, &mut add);
    shared(t, &mut add);
    process(t, &mut add);
    contents(t, &headers_of(t, outcome, headers), &mut add);
    outcomes(t.rows(), outcome, &mut add);
    damage(t, &mut add);
    let ordered = COLUMNS.iter().map(|column| columns.remove(column.name).expect("every column is made")).collect();
    RecordBatch::try_new(SCHEMA.clone(), ordered).expect("of the schema's types, a value for each row")
}

type Add<'a> = &'a mut dyn FnMut(&'static str, ArrayRef);

fn times(t: &Transactions<'_>, add: Add<'_>) {
    let us = |ns: &Int64Array| -> Vec<i64> { ns.values().iter().map(|ns| ns.div_euclid(1000)).collect() };
    let (start, end) = (us(t.start_ns), us(t.end_ns));
    let since = |column: &Int64Array| -> ArrayRef {
        let spans = column.values().iter().zip(&start).map(|(ns, start)| ns.div_euclid(1000) - start);
        Arc::new(Int64Array::new(spans.collect(), column.nulls().cloned()))
    };
    add("first_byte_us", since(t.first_byte_ns));
    add("first_message_us", since(t.first_message_ns));
    add("duration_us", Arc::new(end.iter().zip(&start).map(|(end, start)| end - start).collect::<Int64Array>()));
    for (name, times) in [("time", end), ("start", start)] {
        add(name, Arc::new(TimestampMicrosecondArray::from(times).with_timezone(UTC)));
    }
}

/// The columns that stay as they are.
fn shared(t: &Transactions<'_>, add: Add<'_>) {
    macro_rules! share {
        ($($name:literal: $column:ident,)*) => { $(add($name, Arc::new(t.$column.clone()));)* };
    }
    share! {
        "request_id": request_id,
        "connection_id": connection_id,
        "phase": phase,
        "direction": direction,
        "protocol": protocol,
        "socket": socket,
        "tls": tls,
        "tls_library": tls_library,
        "tls_version": tls_version,
        "tls_sni": tls_sni,
        "tls_alpn": tls_alpn,
        "process_id": process_id,
        "process_exe": process_exe,
        "process_user": process_user,
        "process_uid": process_uid,
        "src_ip": src_ip,
        "src_port": src_port,
        "dst_ip": dst_ip,
        "dst_port": dst_port,
        "endpoint_id": endpoint_id,
        "method": method,
        "scheme": scheme,
        "request_host": authority,
        "path": path,
        "url": url,
        "request_body_size": request_body_size,
        "response_body_size": response_body_size,
        "request_bytes": request_bytes,
        "response_bytes": response_bytes,
        "request_cut": request_cut,
        "response_cut": response_cut,
        "status": status,
        "dialect": dialect,
        "request_messages": request_message_count,
        "response_messages": response_message_count,
    }
}

/// Details of a process that have a column of their own.
const DETAILS: [(&str, &str); 5] = [
    ("container_id", "container.id"),
    ("container_name", "container.name"),
    ("container_image", "container.image"),
    ("pod_name", "pod.name"),
    ("pod_namespace", "pod.namespace"),
];
/// Details that are kept as labels. Others stay behind: variables of the environment can hold secrets.
const LABELS: [&str; 2] = ["container.labels.", "pod.labels."];

/// What is known of a process besides.
struct Known<'a> {
    details: [Option<&'a str>; DETAILS.len()],
    labels: Vec<(&'a str, &'a str)>,
}

impl<'a> Known<'a> {
    fn of(t: &Transactions<'a>, row: usize) -> Self {
        let mut known = Self { details: [None; DETAILS.len()], labels: Vec::new() };
        for (name, value) in Transactions::headers(t.details, row) {
            if let Some(at) = DETAILS.iter().position(|(_, detail)| *detail == name) {
                known.details[at] = Some(value);
            } else if LABELS.iter().any(|prefix| name.starts_with(prefix)) {
                known.labels.push((name, value));
            }
        }
        known
    }
}

fn process(t: &Transactions<'_>, add: Add<'_>) {
    add("tags", Arc::new(tags(t)));
    if !t.has_details() {
        for (name, _) in DETAILS {
            add(name, new_null_array(&DataType::Utf8, t.rows()));
        }
        return add("labels", Arc::new(t.details.clone()));
    }
    let mut builders: [StringBuilder; DETAILS.len()] = Default::default();
    let mut labels = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    // A batch is of few processes: what is known of each is looked up once.
    let mut seen: HashMap<u32, ([&[u8]; 2], Known<'_>), foldhash::fast::FixedState> = HashMap::default();
    for row in 0..t.rows() {
        let bytes = bytes_of(t.details, row);
        let fresh = || (bytes, Known::of(t, row));
        let entry = seen.entry(t.process_id.value(row)).or_insert_with(fresh);
        if entry.0 != bytes {
            *entry = fresh();
        }
        for (builder, value) in builders.iter_mut().zip(entry.1.details) {
            builder.append_option(value);
        }
        for (name, value) in &entry.1.labels {
            labels.keys().append_value(name);
            labels.values().append_value(value);
        }
        labels.append(true).expect("as many names as values");
    }
    for ((name, _), builder) in DETAILS.into_iter().zip(&mut builders) {
        add(name, Arc::new(builder.finish()));
    }
    add("labels", Arc::new(labels.finish()));
}

/// The names and the values of a row of a map, each one behind the other.
fn bytes_of(column: &MapArray, row: usize) -> [&[u8]; 2] {
    let at = |offset: i32| usize::try_from(offset).expect("offsets are not negative");
    let (from, to) = (at(column.value_offsets()[row]), at(column.value_offsets()[row + 1]));
    [column.keys(), column.values()].map(|texts| {
        let texts = texts.as_string::<i32>();
        &texts.value_data()[at(texts.value_offsets()[from])..at(texts.value_offsets()[to])]
    })
}

/// Configured tags: those that other columns say anyway come first, the protocol last of them.
fn tags(t: &Transactions<'_>) -> ListArray {
    const LAST: &str = "protocol:";
    let mut list = ListBuilder::new(StringBuilder::new());
    for row in 0..t.rows() {
        for tag in t.tags_of(row).skip_while(|tag| !tag.starts_with(LAST)).skip(1) {
            list.values().append_value(tag);
        }
        list.append(true);
    }
    list.finish()
}

/// Header fields of both sides, where they are kept.
fn headers_of(t: &Transactions<'_>, outcome: &Outcome<'_>, headers: bool) -> [ArrayRef; 2] {
    let kept = |row: usize| outcome.levels.get(row).is_none_or(|level| *level >= Level::Headers);
    let kept = if headers { BooleanBuffer::collect_bool(t.rows(), kept) } else { BooleanBuffer::new_unset(t.rows()) };
    [t.request_headers, t.response_headers].map(|column| -> ArrayRef {
        match kept.count_set_bits() {
            0 => new_null_array(column.data_type(), t.rows()),
            n if n == t.rows() => Arc::new(column.clone()),
            _ => Arc::new(only(column, &kept)),
        }
    })
}

/// A map without the rows that are not kept.
fn only(column: &MapArray, kept: &BooleanBuffer) -> MapArray {
    let mut builder = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    for row in 0..column.len() {
        if kept.value(row) {
            for (name, value) in Transactions::headers(column, row) {
                builder.keys().append_value(name);
                builder.values().append_value(value);
            }
        }
        builder.append(kept.value(row)).expect("as many names as values");
    }
    builder.finish()
}

fn contents(t: &Transactions<'_>, [request, response]: &[ArrayRef; 2], add: Add<'_>) {
    add("request_headers", request.clone());
    add("response_headers", response.clone());
    add("request_content_type", Arc::new(content_types(t.request_headers)));
    add("response_content_type", Arc::new(content_types(t.response_headers)));
    add("grpc_status", Arc::new(grpc_statuses(t)));
}

/// The first `content-type` of each row: one pass over all names, of which few have its length.
fn content_types(column: &MapArray) -> StringArray {
    const NAME: &[u8] = b"content-type";
    let (names, values) = (column.keys().as_string::<i32>(), column.values().as_string::<i32>());
    let (bytes, offsets) = (names.value_data(), names.value_offsets());
    let at = |offset: i32| usize::try_from(offset).expect("offsets are not negative");
    let mut builder = StringBuilder::with_capacity(column.len(), column.len() * 16);
    for bounds in column.value_offsets().windows(2) {
        let found = (at(bounds[0])..at(bounds[1])).find(|i| {
            let (from, to) = (at(offsets[*i]), at(offsets[*i + 1]));
            to - from == NAME.len() && bytes[from..to].eq_ignore_ascii_case(NAME)
        });
        builder.append_option(found.map(|i| values.value(i)));
    }
    builder.finish()
}

fn grpc_statuses(t: &Transactions<'_>) -> UInt8Array {
    if t.dialect.null_count() == t.rows() {
        return UInt8Array::new_null(t.rows());
    }
    let mut builder = UInt8Builder::with_capacity(t.rows());
    for row in 0..t.rows() {
        let is_grpc = t.dialect.is_valid(row) && t.dialect.value(row) == "grpc";
        let status = is_grpc.then(|| Transactions::header(t.response_headers, row, "grpc-status")).flatten();
        builder.append_option(status.and_then(|status| status.trim().parse().ok()));
    }
    builder.finish()
}

fn outcomes(rows: usize, outcome: &Outcome<'_>, add: Add<'_>) {
    let none = || new_null_array(&DataType::Utf8, rows);
    add("stack", Arc::new(StringArray::from_iter_values(std::iter::repeat_n(outcome.stack, rows))));
    if outcome.levels.len() == rows {
        add("level", Arc::new(StringArray::from_iter_values(outcome.levels.iter().map(|level| level.as_str()))));
    } else {
        add("level", none());
    }
    let decided = outcome.rules.len() == rows && outcome.rules.iter().any(Option::is_some);
    add("rule", if decided { Arc::new(outcome.rules.iter().collect::<StringArray>()) } else { none() });
    let digests = outcome.digests.as_ref().filter(|digests| digests.len() == rows);
    add("digest", digests.map_or_else(none, |digests| Arc::new(digests.clone())));
    let url = outcome.object_url.as_deref().zip(digests);
    add(
        "object_url",
        url.map_or_else(none, |(url, digests)| {
            Arc::new(digests.iter().map(|digest| digest.map(|_| url)).collect::<StringArray>())
        }),
    );
}

fn damage(t: &Transactions<'_>, add: Add<'_>) {
    let offsets = t.damage.value_offsets();
    let some = BooleanBuffer::collect_bool(t.rows(), |row| offsets[row] < offsets[row + 1]);
    let missing = |row: usize| -> u64 {
        if some.value(row) { t.damage(row).map(|one| one.end.saturating_sub(one.start)).sum() } else { 0 }
    };
    add("missing_bytes", Arc::new(arrow_array::UInt64Array::from_iter_values((0..t.rows()).map(missing))));
    add("damaged", Arc::new(arrow_array::BooleanArray::new(some, None::<NullBuffer>)));
    add("damage", Arc::new(t.damage.clone()));
}

#[cfg(test)]
mod tests;
