//! The raw records batch: one row a record of the kernel (or of a recording, or of a pcap).
//!
//! | column | type | meaning |
//! |---|---|---|
//! | `time_ns` | `UInt64` | boot time in nanoseconds when the call had ended |
//! | `conn` | `UInt64` | connection id (socket cookie) |
//! | `offset` | `UInt64` | stream offset of the first byte |
//! | `len` | `UInt32` | bytes of the stream that the row stands for |
//! | `tgid`, `tid` | `UInt32` | process and thread |
//! | `kind` | `UInt8` | a [`Kind`] |
//! | `direction` | `UInt8` | 0 sent, 1 received |
//! | `layer` | `UInt8` | 0 socket, 1 TLS plaintext |
//! | `flags` | `UInt32` | bits of [`ringtap_bpf::abi::flag`] |
//! | `payload` | `BinaryView` | the bytes; fewer than `len` if they could not be read |

use std::sync::{Arc, LazyLock};

use arrow_array::{
    ArrayRef, BinaryViewArray, RecordBatch, UInt8Array, UInt32Array, UInt64Array,
    builder::make_view,
    cast::AsArray,
    types::{UInt8Type, UInt32Type, UInt64Type},
};
use arrow_buffer::{Buffer, ScalarBuffer};
use arrow_schema::{DataType, Field, Schema};
use ringtap_bpf::abi::{Kind, Record};

/// The columns, in order.
pub static SCHEMA: LazyLock<Arc<Schema>> = LazyLock::new(|| {
    let column = |name: &str, kind: DataType| Field::new(name, kind, false);
    Arc::new(Schema::new(vec![
        column("time_ns", DataType::UInt64),
        column("conn", DataType::UInt64),
        column("offset", DataType::UInt64),
        column("len", DataType::UInt32),
        column("tgid", DataType::UInt32),
        column("tid", DataType::UInt32),
        column("kind", DataType::UInt8),
        column("direction", DataType::UInt8),
        column("layer", DataType::UInt8),
        column("flags", DataType::UInt32),
        column("payload", DataType::BinaryView),
    ]))
});

const COPIED_BLOCK: u32 = 0;
const LEASED_BLOCK: u32 = 1;

/// Makes a batch of records; payloads are copied or point into a leased span.
#[derive(Debug, Default)]
pub struct RecordsBuilder {
    time_ns: Vec<u64>,
    conn: Vec<u64>,
    offset: Vec<u64>,
    len: Vec<u32>,
    tgid: Vec<u32>,
    tid: Vec<u32>,
    kind: Vec<u8>,
    direction: Vec<u8>,
    layer: Vec<u8>,
    flags: Vec<u32>,
    views: Vec<u128>,
    copied: Vec<u8>,
}

impl RecordsBuilder {
    /// Room for so many copied bytes: growing step by step would touch each of them several times.
    #[must_use]
    pub fn with_capacity(copied_bytes: usize) -> Self {
        Self { copied: Vec::with_capacity(copied_bytes), ..Self::default() }
    }

    /// Rows so far.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.views.len()
    }

    /// Bytes copied so far.
    #[must_use]
    pub fn copied_bytes(&self) -> usize {
        self.copied.len()
    }

    fn push_head(&mut self, head: &Record) {
        self.time_ns.push(head.time_ns);
        self.conn.push(head.conn);
        self.offset.push(head.offset);
        self.len.push(head.len);
        self.tgid.push(head.tgid);
        self.tid.push(head.tid);
        self.kind.push(head.kind);
        self.direction.push(head.direction);
        self.layer.push(head.layer);
        self.flags.push(head.flags);
    }

    /// Adds a record whose payload is copied.
    ///
    /// # Panics
    ///
    /// A batch holds at most 4 GiB of copied payload; scans and recordings stay far below.
    pub fn push_copied(&mut self, head: &Record, payload: &[u8]) {
        self.push_head(head);
        let at = u32::try_from(self.copied.len()).expect("a batch holds less than 4 GiB");
        self.views.push(make_view(payload, COPIED_BLOCK, at));
        if payload.len() > 12 {
            self.copied.extend_from_slice(payload);
        }
    }

    /// Adds a record whose payload lies at `at` of the span that [`Self::finish`] is given.
    pub fn push_leased(&mut self, head: &Record, payload: &[u8], at: u32) {
        self.push_head(head);
        self.views.push(make_view(payload, LEASED_BLOCK, at));
    }

    /// The batch. `leased` is the span that leased rows point into.
    ///
    /// # Panics
    ///
    /// A row was pushed as leased and points outside of `leased`: a mistake of the caller.
    #[must_use]
    pub fn finish(self, leased: Option<Buffer>) -> RecordBatch {
        let mut blocks = vec![Buffer::from_vec(self.copied)];
        blocks.extend(leased);
        let payload = BinaryViewArray::try_new(ScalarBuffer::from(self.views), blocks, None)
            .expect("each view was made for its block");
        let columns: Vec<ArrayRef> = vec![
            Arc::new(UInt64Array::from(self.time_ns)),
            Arc::new(UInt64Array::from(self.conn)),
            Arc::new(UInt64Array::from(self.offset)),
            Arc::new(UInt32Array::from(self.len)),
            Arc::new(UInt32Array::from(self.tgid)),
            Arc::new(UInt32Array::from(self.tid)),
            Arc::new(UInt8Array::from(self.kind)),
            Arc::new(UInt8Array::from(self.direction)),
            Arc::new(UInt8Array::from(self.layer)),
            Arc::new(UInt32Array::from(self.flags)),
            Arc::new(payload),
        ];
        RecordBatch::try_new(SCHEMA.clone(), columns).expect("columns are pushed together")
    }
}

/// One row of the batch; the payload is borrowed from it.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// Boot time in nanoseconds.
    pub time_ns: u64,
    /// Connection id.
    pub conn: u64,
    /// Stream offset of the first byte.
    pub offset: u64,
    /// Bytes of the stream that the row stands for.
    pub len: u32,
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// What the row is about; `None` for a kind that this build does not know.
    pub kind: Option<Kind>,
    /// 0 sent, 1 received.
    pub direction: u8,
    /// 0 socket, 1 TLS plaintext.
    pub layer: u8,
    /// Bits of [`ringtap_bpf::abi::flag`].
    pub flags: u32,
    /// The bytes.
    pub payload: &'a [u8],
}

impl Row<'_> {
    /// The row as the head of a record.
    #[must_use]
    pub fn head(&self) -> Record {
        let mut head = Record::default();
        (head.time_ns, head.conn, head.offset, head.len) = (self.time_ns, self.conn, self.offset, self.len);
        (head.tgid, head.tid, head.flags) = (self.tgid, self.tid, self.flags);
        (head.kind, head.direction, head.layer) = (self.kind.map_or(0, |kind| kind as u8), self.direction, self.layer);
        head.size = u32::try_from(self.payload.len()).expect("payloads are far below 4 GiB");
        head
    }
}

/// Typed view of a raw records batch.
#[derive(Debug, Clone, Copy)]
pub struct Records<'a> {
    time_ns: &'a UInt64Array,
    conn: &'a UInt64Array,
    offset: &'a UInt64Array,
    len: &'a UInt32Array,
    tgid: &'a UInt32Array,
    tid: &'a UInt32Array,
    kind: &'a UInt8Array,
    direction: &'a UInt8Array,
    layer: &'a UInt8Array,
    flags: &'a UInt32Array,
    payload: &'a BinaryViewArray,
}

impl<'a> Records<'a> {
    /// `None` if the batch has another schema.
    #[must_use]
    pub fn of(batch: &'a RecordBatch) -> Option<Self> {
        if batch.schema_ref().fields() != SCHEMA.fields() {
            return None;
        }
        let u64s = |i: usize| batch.column(i).as_primitive::<UInt64Type>();
        let u32s = |i: usize| batch.column(i).as_primitive::<UInt32Type>();
        let u8s = |i: usize| batch.column(i).as_primitive::<UInt8Type>();
        Some(Self {
            time_ns: u64s(0),
            conn: u64s(1),
            offset: u64s(2),
            len: u32s(3),
            tgid: u32s(4),
            tid: u32s(5),
            kind: u8s(6),
            direction: u8s(7),
            layer: u8s(8),
            flags: u32s(9),
            payload: batch.column(10).as_binary_view(),
        })
    }

    /// The rows, in the order of the ring.
    pub fn rows(self) -> impl Iterator<Item = Row<'a>> {
        (0..self.conn.len()).map(move |i| Row {
            time_ns: self.time_ns.value(i),
            conn: self.conn.value(i),
            offset: self.offset.value(i),
            len: self.len.value(i),
            tgid: self.tgid.value(i),
            tid: self.tid.value(i),
            kind: Kind::from_byte(self.kind.value(i)),
            direction: self.direction.value(i),
            layer: self.layer.value(i),
            flags: self.flags.value(i),
            payload: self.payload.value(i),
        })
    }
}
