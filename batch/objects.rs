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
    capture::{Capture, Level, RowFields, tags},
    events::{Cell, Column, EventSchema, EventsBuilder},
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
        ("summary.request_id", Column::Text),
        ("summary.connection_id", Column::Text),
        ("summary.request_method", Column::Text),
        ("summary.request_scheme", Column::Text),
        ("summary.request_host", Column::Text),
        ("summary.request_protocol", Column::Text),
        ("summary.request_content_type", Column::Text),
        ("summary.response_status", Column::Int),
        ("summary.response_content_type", Column::Text),
    ],
};

/// Lower-case hexadecimal SHA-1.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |n: u8| char::from(DIGITS[usize::from(n)]);
    Sha1::digest(bytes).iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Renders the rows that `capture` wants. `None` if it wants none.
#[must_use]
pub fn objects(t: &Transactions<'_>, capture: &Capture) -> Option<RecordBatch> {
    let mut events = EventsBuilder::new(&ARTIFACT_SCHEMA);
    let (mut content_types, mut data) = (StringBuilder::new(), BinaryViewBuilder::new());
    for row in 0..t.rows() {
        let decision = capture.decide(&RowFields::new(t, row));
        if decision.level == Level::None {
            continue;
        }
        let (bytes, content_type) = render(t, row, decision.level, decision.format);
        events.push(&artifact_cells(t, row, digest(&bytes)));
        content_types.append_value(content_type);
        let len = u32::try_from(bytes.len()).expect("bodies are limited far below 4 GiB");
        let block = data.append_block(Buffer::from_vec(bytes));
        data.try_append_view(block, 0, len).expect("the whole of its own block");
    }
    (events.rows() > 0).then(|| {
        let extra: [(&str, ArrayRef); 2] =
            [("content_type", Arc::new(content_types.finish())), ("data", Arc::new(data.finish()))];
        with_columns(&events.finish(), &extra)
    })
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

fn artifact_cells<'a>(t: &'a Transactions<'a>, row: usize, digest: String) -> Vec<Cell<'a>> {
    let header = |column, name| Cell::from(Transactions::header(column, row, name));
    vec![
        Cell::Text(t.connection_id.value(row)),
        Cell::Text(t.endpoint_id.value(row)),
        Cell::Text(t.request_id.value(row)),
        if t.tls.value(row) { Cell::Texts(vec!["openssl".into()]) } else { Cell::Null },
        Cell::Texts(tags(t, row)),
        Cell::Time(t.end_ns.value(row)),
        Cell::Text("http_transaction"),
        Cell::Owned(digest),
        Cell::Null,
        Cell::Int(t.duration_ms(row)),
        Cell::Text(t.direction.value(row)),
        text(t.process_exe, row).into(),
        Cell::Text(t.request_id.value(row)),
        Cell::Text(t.connection_id.value(row)),
        Cell::Text(t.method.value(row)),
        Cell::Text(t.scheme.value(row)),
        Cell::Text(t.authority.value(row)),
        Cell::Text(t.protocol.value(row)),
        header(t.request_headers, "content-type"),
        Cell::Int(t.status.value(row).into()),
        header(t.response_headers, "content-type"),
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
