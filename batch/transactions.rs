//! The transactions batch: one row an exchange.
//!
//! | column | type | meaning |
//! |---|---|---|
//! | `request_id`, `connection_id` | `Utf8` | xids |
//! | `start_ns` | `Int64` | wall time of the request's first bytes, in nanoseconds since 1970 |
//! | `end_ns` | `Int64` | wall time of the last bytes |
//! | `first_byte_ns` | `Int64`, nullable | wall time of the final response's first bytes |
//! | `direction` | `Utf8` | `ingress`, `egress-internal`, `egress-external` |
//! | `protocol` | `Utf8` | `http1`, `http2` |
//! | `phase` | `Utf8` | `complete`; `started` and `ended` for an exchange that lasts, with the same `request_id` |
//! | `socket` | `Utf8` | how the connection was found: `exact`, `inferred`, `verified` (inferred, and of the right length), `unknown` |
//! | `tls` | `Boolean` | taken as plaintext at a TLS library |
//! | `tls_library` | `Utf8`, nullable | which one |
//! | `tls_version` | `Float64`, nullable | 1.2, 1.3, as the hello messages on the socket agree |
//! | `tls_sni`, `tls_alpn` | `Utf8`, nullable; `List<Utf8>` | what the client asked for |
//! | `process_id` | `UInt32` | 0 if not known |
//! | `process_exe`, `process_user` | `Utf8`, nullable | |
//! | `process_uid` | `UInt32`, nullable | |
//! | `host` | `Utf8` | name of the machine |
//! | `details` | `Map<Utf8, Utf8>` | environment, container and pod of the process, by the names of [`crate::process::Process::details`] |
//! | `tags` | `List<Utf8>` | `key:value` |
//! | `src_ip`, `dst_ip` | `Utf8`, nullable | client and server |
//! | `src_port`, `dst_port` | `UInt16`, nullable | |
//! | `endpoint_id` | `Utf8` | name or address of the other end |
//! | `method`, `url`, `scheme`, `path`, `authority` | `Utf8` | `url` with its query, `path` without |
//! | `request_headers`, `response_headers` | `Map<Utf8, Utf8>` | wire order, repeated names kept, trailers behind |
//! | `request_body`, `response_body` | `BinaryView` | what was kept: the beginning, without holes |
//! | `request_body_size`, `response_body_size` | `UInt64` | true length |
//! | `request_cut`, `response_cut` | `Utf8`, nullable | why less is kept: `limit`, `budget`, `unwanted`, `redacted`, `damage`, `incomplete` |
//! | `request_decoded`, `response_decoded` | `Utf8`, nullable | content codings that were undone in the body |
//! | `request_bytes`, `response_bytes` | `UInt64` | head and body |
//! | `status` | `UInt16` | 499 the connection ended first, 422 not seen for another reason |
//! | `dialect` | `Utf8`, nullable | what the bodies' messages are: `grpc`, `sse`, `websocket` |
//! | `first_message_ns` | `Int64`, nullable | wall time of the response's first message |
//! | `request_message_count`, `response_message_count` | `UInt64`, nullable | messages that came whole |
//! | `request_messages`, `response_messages` | `List<Struct<time_ns, kind, compressed, wire, start, len>>` | the first of them |
//! | `damage` | `List<Struct<cause, part, start, end>>` | missing ranges of the streams |

use std::sync::{Arc, LazyLock};

use arrow_array::{
    Array, ArrayRef, BinaryViewArray, BooleanArray, Float64Array, Int64Array, ListArray, MapArray, RecordBatch,
    StringArray, StructArray, UInt16Array, UInt32Array, UInt64Array,
    builder::{
        BinaryViewBuilder, BooleanBuilder, Float64Builder, Int64Builder, ListBuilder, MapBuilder, StringBuilder,
        StructBuilder, UInt16Builder, UInt32Builder, UInt64Builder,
    },
    cast::AsArray,
    types::{Int64Type, UInt64Type},
};
use arrow_buffer::Buffer;
use arrow_schema::{DataType, Field, Fields, Schema};
use ringtap_exchange::{Body, Damage, Head, Messages};

use crate::{clock::WallOffset, events::Cell};

macro_rules! columns {
    ($($name:ident: $builder:ty, $array:ty;)*) => {
        /// Makes a transactions batch.
        #[derive(Debug)]
        pub struct TransactionsBuilder {
            $(pub(crate) $name: $builder,)*
        }

        impl TransactionsBuilder {
            fn arrays(&mut self) -> Vec<(&'static str, ArrayRef)> {
                vec![$((stringify!($name), Arc::new(self.$name.finish()) as ArrayRef)),*]
            }
        }

        /// Typed view of a transactions batch.
        #[derive(Debug, Clone, Copy)]
        pub struct Transactions<'a> {
            $(
                #[doc = concat!("Column `", stringify!($name), "`.")]
                pub $name: &'a $array,
            )*
        }

        impl<'a> Transactions<'a> {
            /// `None` if the batch has another schema.
            #[must_use]
            pub fn of(batch: &'a RecordBatch) -> Option<Self> {
                Some(Self { $($name: batch.column_by_name(stringify!($name))?.as_any().downcast_ref()?,)* })
            }
        }
    };
}

columns! {
    request_id: StringBuilder, StringArray;
    connection_id: StringBuilder, StringArray;
    start_ns: Int64Builder, Int64Array;
    end_ns: Int64Builder, Int64Array;
    first_byte_ns: Int64Builder, Int64Array;
    direction: StringBuilder, StringArray;
    protocol: StringBuilder, StringArray;
    socket: StringBuilder, StringArray;
    phase: StringBuilder, StringArray;
    tls: BooleanBuilder, BooleanArray;
    tls_library: StringBuilder, StringArray;
    tls_version: Float64Builder, Float64Array;
    tls_sni: StringBuilder, StringArray;
    tls_alpn: ListBuilder<StringBuilder>, ListArray;
    process_id: UInt32Builder, UInt32Array;
    process_exe: StringBuilder, StringArray;
    process_user: StringBuilder, StringArray;
    process_uid: UInt32Builder, UInt32Array;
    host: StringBuilder, StringArray;
    details: MapBuilder<StringBuilder, StringBuilder>, MapArray;
    tags: ListBuilder<StringBuilder>, ListArray;
    src_ip: StringBuilder, StringArray;
    src_port: UInt16Builder, UInt16Array;
    dst_ip: StringBuilder, StringArray;
    dst_port: UInt16Builder, UInt16Array;
    endpoint_id: StringBuilder, StringArray;
    method: StringBuilder, StringArray;
    url: StringBuilder, StringArray;
    scheme: StringBuilder, StringArray;
    path: StringBuilder, StringArray;
    authority: StringBuilder, StringArray;
    request_headers: MapBuilder<StringBuilder, StringBuilder>, MapArray;
    response_headers: MapBuilder<StringBuilder, StringBuilder>, MapArray;
    request_body: BinaryViewBuilder, BinaryViewArray;
    response_body: BinaryViewBuilder, BinaryViewArray;
    request_body_size: UInt64Builder, UInt64Array;
    response_body_size: UInt64Builder, UInt64Array;
    request_cut: StringBuilder, StringArray;
    response_cut: StringBuilder, StringArray;
    request_decoded: StringBuilder, StringArray;
    response_decoded: StringBuilder, StringArray;
    request_bytes: UInt64Builder, UInt64Array;
    response_bytes: UInt64Builder, UInt64Array;
    status: UInt16Builder, UInt16Array;
    dialect: StringBuilder, StringArray;
    first_message_ns: Int64Builder, Int64Array;
    request_message_count: UInt64Builder, UInt64Array;
    response_message_count: UInt64Builder, UInt64Array;
    request_messages: ListBuilder<StructBuilder>, ListArray;
    response_messages: ListBuilder<StructBuilder>, ListArray;
    damage: ListBuilder<StructBuilder>, ListArray;
}

const NULLABLE: [&str; 19] = [
    "first_byte_ns",
    "process_exe",
    "process_user",
    "process_uid",
    "src_ip",
    "src_port",
    "dst_ip",
    "dst_port",
    "request_cut",
    "response_cut",
    "request_decoded",
    "response_decoded",
    "tls_library",
    "tls_version",
    "tls_sni",
    "dialect",
    "first_message_ns",
    "request_message_count",
    "response_message_count",
];

fn damage_fields() -> Fields {
    let column = |name: &str, kind| Field::new(name, kind, false);
    Fields::from(vec![
        column("cause", DataType::Utf8),
        column("part", DataType::Utf8),
        column("start", DataType::UInt64),
        column("end", DataType::UInt64),
    ])
}

fn message_fields() -> Fields {
    let column = |name: &str, kind| Field::new(name, kind, false);
    Fields::from(vec![
        column("time_ns", DataType::Int64),
        column("kind", DataType::Utf8),
        column("compressed", DataType::Boolean),
        column("wire", DataType::UInt64),
        column("start", DataType::UInt64),
        column("len", DataType::UInt64),
    ])
}

/// The columns, in order.
pub static SCHEMA: LazyLock<Arc<Schema>> = LazyLock::new(|| {
    let arrays = TransactionsBuilder::default().arrays();
    let field =
        |(name, array): &(&str, ArrayRef)| Field::new(*name, array.data_type().clone(), NULLABLE.contains(name));
    Arc::new(Schema::new(arrays.iter().map(field).collect::<Vec<_>>()))
});

/// Bodies below this are copied next to each other: a block for each would cost more.
const MOVED_BODY: usize = 2048;

/// Rows that a batch has room for from the start.
const ROWS: usize = 16;

impl Default for TransactionsBuilder {
    fn default() -> Self {
        let structs = |fields: Fields| {
            let item = Field::new("item", DataType::Struct(fields.clone()), false);
            ListBuilder::new(StructBuilder::from_fields(fields, 0)).with_field(item)
        };
        let headers = || {
            MapBuilder::new(
                None,
                StringBuilder::with_capacity(ROWS, ROWS * 32),
                StringBuilder::with_capacity(ROWS, ROWS * 32),
            )
        };
        Self {
            request_id: StringBuilder::with_capacity(ROWS, ROWS * 32),
            connection_id: StringBuilder::with_capacity(ROWS, ROWS * 32),
            start_ns: Int64Builder::with_capacity(ROWS),
            end_ns: Int64Builder::with_capacity(ROWS),
            first_byte_ns: Int64Builder::with_capacity(ROWS),
            direction: StringBuilder::with_capacity(ROWS, ROWS * 32),
            protocol: StringBuilder::with_capacity(ROWS, ROWS * 32),
            socket: StringBuilder::with_capacity(ROWS, ROWS * 32),
            phase: StringBuilder::with_capacity(ROWS, ROWS * 8),
            tls: BooleanBuilder::with_capacity(ROWS),
            tls_library: StringBuilder::with_capacity(ROWS, ROWS * 8),
            tls_version: Float64Builder::with_capacity(ROWS),
            tls_sni: StringBuilder::with_capacity(ROWS, ROWS * 32),
            tls_alpn: ListBuilder::with_capacity(StringBuilder::new(), ROWS),
            process_id: UInt32Builder::with_capacity(ROWS),
            process_exe: StringBuilder::with_capacity(ROWS, ROWS * 32),
            process_user: StringBuilder::with_capacity(ROWS, ROWS * 32),
            process_uid: UInt32Builder::with_capacity(ROWS),
            host: StringBuilder::with_capacity(ROWS, ROWS * 32),
            details: MapBuilder::new(None, StringBuilder::new(), StringBuilder::new()),
            tags: ListBuilder::with_capacity(StringBuilder::with_capacity(ROWS * 4, ROWS * 64), ROWS),
            src_ip: StringBuilder::with_capacity(ROWS, ROWS * 32),
            src_port: UInt16Builder::with_capacity(ROWS),
            dst_ip: StringBuilder::with_capacity(ROWS, ROWS * 32),
            dst_port: UInt16Builder::with_capacity(ROWS),
            endpoint_id: StringBuilder::with_capacity(ROWS, ROWS * 32),
            method: StringBuilder::with_capacity(ROWS, ROWS * 32),
            url: StringBuilder::with_capacity(ROWS, ROWS * 32),
            scheme: StringBuilder::with_capacity(ROWS, ROWS * 32),
            path: StringBuilder::with_capacity(ROWS, ROWS * 32),
            authority: StringBuilder::with_capacity(ROWS, ROWS * 32),
            request_headers: headers(),
            response_headers: headers(),
            request_body: BinaryViewBuilder::with_capacity(ROWS),
            response_body: BinaryViewBuilder::with_capacity(ROWS),
            request_body_size: UInt64Builder::with_capacity(ROWS),
            response_body_size: UInt64Builder::with_capacity(ROWS),
            request_cut: StringBuilder::with_capacity(ROWS, ROWS * 32),
            response_cut: StringBuilder::with_capacity(ROWS, ROWS * 32),
            request_decoded: StringBuilder::with_capacity(ROWS, 0),
            response_decoded: StringBuilder::with_capacity(ROWS, 0),
            request_bytes: UInt64Builder::with_capacity(ROWS),
            response_bytes: UInt64Builder::with_capacity(ROWS),
            status: UInt16Builder::with_capacity(ROWS),
            dialect: StringBuilder::with_capacity(ROWS, 0),
            first_message_ns: Int64Builder::with_capacity(ROWS),
            request_message_count: UInt64Builder::with_capacity(ROWS),
            response_message_count: UInt64Builder::with_capacity(ROWS),
            request_messages: structs(message_fields()),
            response_messages: structs(message_fields()),
            damage: structs(damage_fields()),
        }
    }
}

/// Whether a row is an exchange, or one end of an exchange that lasts: server-sent events, a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Complete,
    Started,
    Ended,
}

impl Phase {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Started => "started",
            Self::Ended => "ended",
        }
    }
}

/// Why less of a body is kept than there was.
pub(crate) fn cut(body: &Body) -> Option<&'static str> {
    match body {
        Body { holed: true, .. } => Some("damage"),
        Body { complete: false, .. } => Some("incomplete"),
        Body { cut: Some(cut), .. } => Some(cut.as_str()),
        _ => None,
    }
}

impl TransactionsBuilder {
    /// Rows so far.
    #[must_use]
    pub fn rows(&self) -> usize {
        arrow_array::builder::ArrayBuilder::len(&self.request_id)
    }

    pub(crate) fn headers(builder: &mut MapBuilder<StringBuilder, StringBuilder>, head: Option<&Head>) {
        for (name, value) in head.into_iter().flat_map(|head| head.headers.iter().chain(head.trailers.iter())) {
            builder.keys().append_value(name);
            builder.values().append_value(value);
        }
        builder.append(true).expect("as many names as values");
    }

    pub(crate) fn body(builder: &mut BinaryViewBuilder, bytes: Vec<u8>) {
        match u32::try_from(bytes.len()) {
            // A large body moves in as it is.
            Ok(len) if bytes.len() >= MOVED_BODY => {
                let block = builder.append_block(Buffer::from_vec(bytes));
                builder.try_append_view(block, 0, len).expect("the whole of its own block");
            }
            _ => builder.append_value(bytes),
        }
    }

    pub(crate) fn damage(&mut self, damage: &[Damage]) {
        for one in damage {
            let row = self.damage.values();
            let fault = "the columns of damage_fields";
            row.field_builder::<StringBuilder>(0).expect(fault).append_value(one.cause.as_str());
            row.field_builder::<StringBuilder>(1).expect(fault).append_value(one.part.as_str());
            row.field_builder::<UInt64Builder>(2).expect(fault).append_value(one.start);
            row.field_builder::<UInt64Builder>(3).expect(fault).append_value(one.end);
            row.append(true);
        }
        self.damage.append(true);
    }

    /// The messages of a half, with their times on the wall.
    pub(crate) fn messages(
        (count, list): (&mut UInt64Builder, &mut ListBuilder<StructBuilder>),
        messages: Option<&Messages>,
        wall: WallOffset,
    ) {
        count.append_option(messages.map(|messages| messages.count));
        for one in messages.into_iter().flat_map(|messages| &messages.listed) {
            let row = list.values();
            let fault = "the columns of message_fields";
            row.field_builder::<Int64Builder>(0).expect(fault).append_value(wall.wall_ns(one.time));
            row.field_builder::<StringBuilder>(1).expect(fault).append_value(one.kind.as_str());
            row.field_builder::<BooleanBuilder>(2).expect(fault).append_value(one.compressed);
            row.field_builder::<UInt64Builder>(3).expect(fault).append_value(one.wire);
            row.field_builder::<UInt64Builder>(4).expect(fault).append_value(one.start);
            row.field_builder::<UInt64Builder>(5).expect(fault).append_value(one.len);
            row.append(true);
        }
        list.append(true);
    }

    /// The batch.
    ///
    /// # Panics
    ///
    /// A row was pushed in part: a mistake of this crate.
    #[must_use]
    pub fn finish(mut self) -> RecordBatch {
        let arrays = self.arrays().into_iter().map(|(_, array)| array).collect();
        RecordBatch::try_new(SCHEMA.clone(), arrays).expect("rows are pushed whole")
    }
}

/// A missing range, as the batch holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DamageRow<'a> {
    /// Why.
    pub cause: &'a str,
    /// `request` or `response`.
    pub part: &'a str,
    /// Stream offset of the first byte.
    pub start: u64,
    /// Stream offset behind the last byte.
    pub end: u64,
}

/// A message, as the batch holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageRow<'a> {
    /// When its last byte came, in nanoseconds since 1970.
    pub time_ns: i64,
    /// `data`, `text`, `binary`, `ping`, `pong`, `close`.
    pub kind: &'a str,
    /// Whether it is compressed on the wire.
    pub compressed: bool,
    /// Bytes on the wire, without framing.
    pub wire: u64,
    /// Where in the body it begins.
    pub start: u64,
    /// Bytes that it has there.
    pub len: u64,
}

impl<'a> Transactions<'a> {
    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.request_id.len()
    }

    /// Texts of a row of a list.
    pub fn texts(column: &'a ListArray, row: usize) -> impl Iterator<Item = &'a str> {
        let (values, offsets) = (column.values().as_string::<i32>(), column.value_offsets());
        let at = |i: usize| usize::try_from(offsets[i]).expect("offsets are not negative");
        (at(row)..at(row + 1)).map(move |i| values.value(i))
    }

    /// Where the plaintext of a row was taken, for events.
    pub(crate) fn tls_probes(&self, row: usize) -> Cell<'a> {
        if self.tls_library.is_null(row) {
            Cell::Null
        } else {
            Cell::Texts(vec![self.tls_library.value(row).to_owned()])
        }
    }

    /// `key:value` tags of a row.
    pub fn tags_of(&self, row: usize) -> impl Iterator<Item = &'a str> {
        Self::texts(self.tags, row)
    }

    /// Whether more is known of the process of any row.
    #[must_use]
    pub fn has_details(&self) -> bool {
        !self.details.entries().is_empty()
    }

    /// What is known of the process besides, by its name.
    #[must_use]
    pub fn detail(&self, row: usize, name: &str) -> Option<&'a str> {
        Self::headers(self.details, row).find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Header fields of a row.
    pub fn headers(column: &'a MapArray, row: usize) -> impl Iterator<Item = (&'a str, &'a str)> {
        let (names, values) = (column.keys().as_string::<i32>(), column.values().as_string::<i32>());
        let offsets = column.value_offsets();
        let at = |i: usize| usize::try_from(offsets[i]).expect("offsets are not negative");
        (at(row)..at(row + 1)).map(move |i| (names.value(i), values.value(i)))
    }

    /// First value of a header field, by name in any case.
    #[must_use]
    pub fn header(column: &'a MapArray, row: usize, name: &str) -> Option<&'a str> {
        let (names, offsets) = (column.keys().as_string::<i32>(), column.value_offsets());
        let at = |i: usize| usize::try_from(offsets[i]).expect("offsets are not negative");
        let found = (at(row)..at(row + 1)).find(|i| names.value(*i).eq_ignore_ascii_case(name))?;
        Some(column.values().as_string::<i32>().value(found))
    }

    /// What is missing of a row.
    pub fn damage(&self, row: usize) -> impl Iterator<Item = DamageRow<'a>> {
        let offsets = self.damage.value_offsets();
        let at = |i: usize| usize::try_from(offsets[i]).expect("offsets are not negative");
        let values: &'a StructArray = self.damage.values().as_struct();
        (at(row)..at(row + 1)).map(move |i| DamageRow {
            cause: values.column(0).as_string::<i32>().value(i),
            part: values.column(1).as_string::<i32>().value(i),
            start: values.column(2).as_primitive::<UInt64Type>().value(i),
            end: values.column(3).as_primitive::<UInt64Type>().value(i),
        })
    }

    /// Messages of a row of `request_messages` or `response_messages`.
    pub fn messages(column: &'a ListArray, row: usize) -> impl Iterator<Item = MessageRow<'a>> {
        let offsets = column.value_offsets();
        let at = |i: usize| usize::try_from(offsets[i]).expect("offsets are not negative");
        let values: &'a StructArray = column.values().as_struct();
        let number = |column: usize, i: usize| values.column(column).as_primitive::<UInt64Type>().value(i);
        (at(row)..at(row + 1)).map(move |i| MessageRow {
            time_ns: values.column(0).as_primitive::<Int64Type>().value(i),
            kind: values.column(1).as_string::<i32>().value(i),
            compressed: values.column(2).as_boolean().value(i),
            wire: number(3, i),
            start: number(4, i),
            len: number(5, i),
        })
    }

    /// Whether the row is only the beginning of an exchange that lasts.
    #[must_use]
    pub fn has_only_started(&self, row: usize) -> bool {
        self.phase.value(row) == Phase::Started.as_str()
    }

    /// Milliseconds from the first bytes to the last, at least 1.
    #[must_use]
    pub fn duration_ms(&self, row: usize) -> i64 {
        ((self.end_ns.value(row) - self.start_ns.value(row)) / 1_000_000).max(1)
    }

    /// Bytes that the process sent and received.
    #[must_use]
    pub fn bytes(&self, row: usize) -> (u64, u64) {
        let (request, response) = (self.request_bytes.value(row), self.response_bytes.value(row));
        if self.direction.value(row) == "ingress" { (response, request) } else { (request, response) }
    }
}

/// Value of a nullable text.
#[must_use]
pub fn text(column: &StringArray, row: usize) -> Option<&str> {
    column.is_valid(row).then(|| column.value(row))
}

/// Value of a nullable port.
#[must_use]
pub fn port(column: &UInt16Array, row: usize) -> Option<u16> {
    column.is_valid(row).then(|| column.value(row))
}
