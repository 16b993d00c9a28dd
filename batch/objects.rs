//! Objects: transactions as bytes with their digest, and the events that say where they are stored.
//!
//! The objects batch has the columns of the event `artifact_record` (see [`ARTIFACT_SCHEMA`]), and:
//!
//! | column | type | meaning |
//! |---|---|---|
//! | `content_type` | `Utf8` | of the bytes |
//! | `data` | `BinaryView` | the bytes, one block an object |

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BinaryViewArray, BooleanArray, RecordBatch, StringArray,
    builder::{BinaryViewBuilder, StringBuilder},
    cast::AsArray,
};
use arrow_buffer::Buffer;
use arrow_schema::{Field, Schema};
use arrow_select::filter::filter_record_batch;
use sha1::{Digest as _, Sha1};

use crate::{
    capture::{Decision, Level},
    events::{Cell, Column, EventSchema, EventsBuilder, TRACEPARENT},
    grpc::Grpc,
    render::render,
    transactions::{Transactions, text},
};

/// Columns of the event `artifact_record`.
pub const ARTIFACT_SCHEMA: EventSchema = EventSchema {
    event_type: "artifact_record",
    columns: &[
        ("connectionId", Column::Text),
        ("endpointId", Column::Text),
        ("requestId", Column::Text),
        ("tlsProbeTypesDetected", Column::Texts),
        ("tags", Column::Texts),
        ("timestamp", Column::Time),
        ("type", Column::Text),
        ("digest", Column::Text),
        ("url", Column::Text),
        ("summary.duration_ms", Column::Int),
        ("summary.direction", Column::Text),
        ("summary.process_exe", Column::Text),
        ("summary.container_name", Column::Text),
        ("summary.container_image", Column::Text),
        ("summary.pod_name", Column::Text),
        ("summary.pod_namespace", Column::Text),
        ("summary.request_id", Column::Text),
        ("summary.connection_id", Column::Text),
        ("summary.request_method", Column::Text),
        ("summary.request_scheme", Column::Text),
        ("summary.request_host", Column::Text),
        ("summary.request_protocol", Column::Text),
        ("summary.request_content_type", Column::Text),
        ("summary.response_status", Column::Int),
        ("summary.response_content_type", Column::Text),
        ("summary.grpc_service", Column::Text),
        ("summary.grpc_method", Column::Text),
        ("summary.grpc_status", Column::Int),
        ("summary.grpc_status_name", Column::Text),
        (TRACEPARENT, Column::Text),
    ],
};

/// Lower-case hexadecimal SHA-1.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    hex(&Sha1::digest(bytes))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |n: u8| char::from(DIGITS[usize::from(n)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Makes an objects batch.
#[derive(Debug)]
pub struct ObjectsBuilder {
    events: EventsBuilder,
    content_types: StringBuilder,
    data: BinaryViewBuilder,
}

impl Default for ObjectsBuilder {
    fn default() -> Self {
        Self {
            events: EventsBuilder::new(&ARTIFACT_SCHEMA),
            content_types: StringBuilder::new(),
            data: BinaryViewBuilder::new(),
        }
    }
}

impl ObjectsBuilder {
    /// Adds an object of type `kind` about a row.
    ///
    /// # Panics
    ///
    /// It is larger than 4 GiB; bodies are limited far below.
    pub fn push(&mut self, t: &Transactions<'_>, row: usize, kind: &str, (bytes, content_type): (Vec<u8>, &str)) {
        self.events.push(&artifact_cells(t, row, kind, digest(&bytes)));
        self.content_types.append_value(content_type);
        let len = u32::try_from(bytes.len()).expect("bodies are limited far below 4 GiB");
        let block = self.data.append_block(Buffer::from_vec(bytes));
        self.data.try_append_view(block, 0, len).expect("the whole of its own block");
    }

    /// The batch; `None` if it is empty.
    #[must_use]
    pub fn finish(mut self) -> Option<RecordBatch> {
        (self.events.rows() > 0).then(|| {
            let extra: [(&str, ArrayRef); 2] =
                [("content_type", Arc::new(self.content_types.finish())), ("data", Arc::new(self.data.finish()))];
            with_columns(&self.events.finish(), &extra)
        })
    }
}

/// Renders the rows that are wanted. `None` if none is.
#[must_use]
pub fn objects(t: &Transactions<'_>, decisions: &[Decision]) -> Option<RecordBatch> {
    let mut made = ObjectsBuilder::default();
    for (row, decision) in decisions.iter().enumerate().filter(|(_, decision)| decision.level != Level::None) {
        let kind = if Grpc::of(t, row).is_some() { "grpc_transaction" } else { "http_transaction" };
        made.push(t, row, kind, render(t, row, decision.level, decision.format));
    }
    made.finish()
}

fn with_columns(batch: &RecordBatch, extra: &[(&str, ArrayRef)]) -> RecordBatch {
    let mut fields: Vec<Arc<Field>> = batch.schema_ref().fields().iter().cloned().collect();
    let mut columns = batch.columns().to_vec();
    for (name, array) in extra {
        fields.push(Arc::new(Field::new(*name, array.data_type().clone(), false)));
        columns.push(array.clone());
    }
    let schema = Schema::new_with_metadata(fields, batch.schema_ref().metadata().clone());
    RecordBatch::try_new(Arc::new(schema), columns).expect("a value for each row was appended")
}

fn artifact_cells<'a>(t: &Transactions<'a>, row: usize, kind: &'a str, digest: String) -> Vec<Cell<'a>> {
    let detail = |name| Cell::from(t.detail(row, name));
    let grpc = Grpc::of(t, row);
    let called = |of: fn(&Grpc<'a>) -> &'a str| Cell::from(grpc.as_ref().map(of));
    let header = |column, name| Cell::from(Transactions::header(column, row, name));
    vec![
        Cell::Text(t.connection_id.value(row)),
        Cell::Text(t.endpoint_id.value(row)),
        Cell::Text(t.request_id.value(row)),
        t.tls_probes(row),
        Cell::Texts(t.tags_of(row).map(str::to_owned).collect()),
        Cell::Time(t.end_ns.value(row)),
        Cell::Text(kind),
        Cell::Owned(digest),
        Cell::Null,
        Cell::Int(t.duration_ms(row)),
        Cell::Text(t.direction.value(row)),
        text(t.process_exe, row).into(),
        detail("container.name"),
        detail("container.image"),
        detail("pod.name"),
        detail("pod.namespace"),
        Cell::Text(t.request_id.value(row)),
        Cell::Text(t.connection_id.value(row)),
        Cell::Text(t.method.value(row)),
        Cell::Text(t.scheme.value(row)),
        Cell::Text(t.authority.value(row)),
        Cell::Text(t.protocol.value(row)),
        header(t.request_headers, "content-type"),
        Cell::Int(t.status.value(row).into()),
        header(t.response_headers, "content-type"),
        called(|grpc| grpc.service),
        called(|grpc| grpc.method),
        grpc.as_ref().and_then(|grpc| grpc.status).map_or(Cell::Null, |n| Cell::Int(n.into())),
        called(Grpc::status_name),
        header(t.request_headers, "traceparent"),
    ]
}

/// Typed view of an objects batch.
#[derive(Debug, Clone, Copy)]
pub struct Objects<'a> {
    batch: &'a RecordBatch,
    /// Lower-case hexadecimal SHA-1 of `data`.
    pub digest: &'a StringArray,
    /// Kind of artifact.
    pub artifact_type: &'a StringArray,
    /// Content type.
    pub content_type: &'a StringArray,
    /// The bytes.
    pub data: &'a BinaryViewArray,
}

impl<'a> Objects<'a> {
    /// `None` if the batch has another schema.
    #[must_use]
    pub fn of(batch: &'a RecordBatch) -> Option<Self> {
        Some(Self {
            batch,
            digest: batch.column_by_name("digest")?.as_string_opt()?,
            artifact_type: batch.column_by_name("type")?.as_string_opt()?,
            content_type: batch.column_by_name("content_type")?.as_string_opt()?,
            data: batch.column_by_name("data")?.as_binary_view_opt()?,
        })
    }

    /// Number of objects.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.batch.num_rows()
    }

    /// The bytes of an object, which live as long as the buffer.
    ///
    /// # Panics
    ///
    /// There is no such row.
    #[must_use]
    pub fn bytes(&self, row: usize) -> Buffer {
        let bytes = self.data.value(row);
        let inside = |block: &&Buffer| block.as_ptr_range().contains(&bytes.as_ptr());
        match self.data.data_buffers().iter().find(inside) {
            Some(block) => {
                let at = bytes.as_ptr().addr() - block.as_ptr().addr();
                block.slice_with_length(at, bytes.len())
            }
            // So short that they lie in the view.
            None => Buffer::from(bytes),
        }
    }

    /// The `artifact_record` events of the objects that a store took: those with a url.
    ///
    /// # Panics
    ///
    /// `urls` are not as many as the objects: a mistake of the caller.
    #[must_use]
    pub fn records(&self, urls: &[Option<String>]) -> RecordBatch {
        assert_eq!(urls.len(), self.rows(), "an answer for each object");
        let at = self.batch.schema_ref().index_of("url").expect("checked by the constructor's schema");
        let mut columns = self.batch.columns()[..ARTIFACT_SCHEMA.columns.len()].to_vec();
        columns[at] =
            Arc::new(urls.iter().map(|url| url.as_deref().filter(|u| !u.is_empty())).collect::<StringArray>());
        let fields: Vec<Arc<Field>> = self.batch.schema_ref().fields().iter().take(columns.len()).cloned().collect();
        let schema = Schema::new_with_metadata(fields, self.batch.schema_ref().metadata().clone());
        let all = RecordBatch::try_new(Arc::new(schema), columns).expect("the event's own columns");
        let stored: BooleanArray = urls.iter().map(|url| Some(url.is_some())).collect();
        filter_record_batch(&all, &stored).expect("as many answers as rows")
    }
}
