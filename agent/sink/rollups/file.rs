//! One rollup file: rows in order of time, in row groups that engines can pass over.
//!
//! What an engine prunes by: the partition's folder, then minima and maxima of each row group and page (rows are in order
//! of `time`, and ids grow with time), then Bloom filters for one host, one connection, one id or one digest.

use std::io::Write;

use arrow_array::{ArrayRef, RecordBatch, StringArray, cast::AsArray, types::TimestampMicrosecondType};
use arrow_schema::{DataType, Field};
use arrow_select::{concat::concat_batches, interleave::interleave_record_batch};
use parquet::{
    arrow::{
        ArrowWriter,
        arrow_writer::{
            ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, ArrowWriterOptions, compute_leaves,
        },
    },
    basic::{Compression, Encoding, ZstdLevel},
    errors::Result,
    file::{
        metadata::{KeyValue, SortingColumn},
        properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder},
        writer::SerializedFileWriter,
    },
    schema::types::ColumnPath,
};
use ringtap_batch::rollups::{COLUMNS, Kind, SCHEMA};

use super::texts::{self, Manner};

/// Rows of a row group: as many as `DuckDB` reads with one thread at a time, and few enough to be passed over often.
pub const ROW_GROUP_ROWS: usize = 122_880;
/// Rows of a page, the smallest part that can be passed over.
pub(super) const PAGE_ROWS: usize = 20_000;
/// Of hundred lookups of what is not there one reads a row group for nothing.
const BLOOM_FALSE: f64 = 0.01;
/// Runs of rows that lie together are moved as such if they are at least so long on average.
const RUN_MIN: usize = 8;

/// Values of their own in nearly every row: a dictionary would only be thrown away.
const UNIQUE: [&str; 2] = ["request_id", "digest"];
/// Looked for by value.
const LOOKED_UP: [&str; 4] = ["request_id", "connection_id", "request_host", "digest"];
/// Nobody asks for a range of them.
const WITHOUT_ORDER: [&str; 5] = ["digest", "url", "object_url", "path", "tls_sni"];

/// A file that is being written.
pub struct RollupFile<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    columns: ArrowRowGroupWriterFactory,
    compression_level: i32,
    groups: usize,
    rows: u64,
}

impl<W: Write + Send> RollupFile<W> {
    /// Begins a file; `host` is noted in it.
    ///
    /// # Errors
    ///
    /// The first bytes cannot be written.
    pub fn begin(to: W, host: &str, compression_level: i32) -> Result<Self> {
        let options = ArrowWriterOptions::new()
            .with_properties(properties(host, compression_level)?)
            // Everything stands in Parquet's own types; Arrow's would speak to some readers only.
            .with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(to, SCHEMA.clone(), options)?;
        let (writer, columns) = writer.into_serialized_writer()?;
        Ok(Self { writer, columns, compression_level, groups: 0, rows: 0 })
    }

    /// Writes batches as one row group, in order of time.
    ///
    /// # Errors
    ///
    /// What is beneath fails.
    pub fn write(&mut self, batches: &[RecordBatch]) -> Result<()> {
        if batches.is_empty() {
            return Ok(());
        }
        match order(batches) {
            Order::AsTheyAre => self.write_ordered(batches),
            Order::Runs(runs) => {
                let slices: Vec<RecordBatch> =
                    runs.iter().map(|(batch, from, len)| batches[*batch].slice(*from, *len)).collect();
                self.write_ordered(&[concat_batches(&SCHEMA, &slices)?])
            }
            Order::Rows(rows) => {
                let all: Vec<&RecordBatch> = batches.iter().collect();
                self.write_ordered(&[interleave_record_batch(&all, &rows)?])
            }
        }
    }

    fn write_ordered(&mut self, batches: &[RecordBatch]) -> Result<()> {
        let leaves = self.writer.schema_descr().columns().to_vec();
        let mut writers = self.columns.create_column_writers(self.groups)?.into_iter();
        let mut group = self.writer.next_row_group()?;
        let mut place = 0;
        for (column, field) in SCHEMA.fields().iter().enumerate() {
            let arrays: Vec<&ArrayRef> = batches.iter().map(|batch| batch.column(column)).collect();
            let width = compute_leaves(field, &arrays[0].slice(0, 0))?.len();
            let own: Vec<ArrowColumnWriter> = writers.by_ref().take(width).collect();
            let made =
                match manner(field.name(), self.compression_level).filter(|_| field.data_type() == &DataType::Utf8) {
                    Some(manner) => {
                        let texts: Vec<&StringArray> = arrays.iter().map(|array| array.as_string()).collect();
                        texts::chunk(&leaves[place], &texts, manner)?
                    }
                    None => None,
                };
            match made {
                Some((bytes, close)) => group.append_column(&bytes, close)?,
                None => write_values(own, field, &arrays)?
                    .into_iter()
                    .try_for_each(|chunk| chunk.append_to_row_group(&mut group))?,
            }
            place += width;
        }
        group.close()?;
        self.groups += 1;
        self.rows += batches.iter().map(|batch| batch.num_rows() as u64).sum::<u64>();
        Ok(())
    }

    /// Rows so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.writer.bytes_written() as u64
    }

    /// Writes the footer.
    ///
    /// # Errors
    ///
    /// What is beneath fails.
    pub fn finish(self) -> Result<W> {
        self.writer.into_inner()
    }
}

/// The chunks of a column by parquet's own writers, one for each leaf.
fn write_values(
    mut writers: Vec<ArrowColumnWriter>,
    field: &Field,
    arrays: &[&ArrayRef],
) -> Result<Vec<ArrowColumnChunk>> {
    for array in arrays {
        for (writer, leaf) in writers.iter_mut().zip(compute_leaves(field, array)?) {
            writer.write(&leaf)?;
        }
    }
    writers.into_iter().map(ArrowColumnWriter::close).collect()
}

/// How a column of texts is written, unless nearly every row has a value of its own.
fn manner(name: &str, compression_level: i32) -> Option<Manner> {
    (!UNIQUE.contains(&name)).then(|| Manner {
        compression_level,
        bloom: LOOKED_UP.contains(&name).then_some(BLOOM_FALSE),
        statistics: !WITHOUT_ORDER.contains(&name),
    })
}

/// How rows come into order.
enum Order {
    AsTheyAre,
    /// Batch, first row, number of rows.
    Runs(Vec<(usize, usize, usize)>),
    /// Batch and row.
    Rows(Vec<(usize, usize)>),
}

/// Rows come nearly in order: each shard hands them over as they end. Mostly whole runs have to be moved.
fn order(batches: &[RecordBatch]) -> Order {
    let times: Vec<&[i64]> =
        batches.iter().map(|batch| &**batch.column(0).as_primitive::<TimestampMicrosecondType>().values()).collect();
    if times.iter().copied().flatten().is_sorted() {
        return Order::AsTheyAre;
    }
    let place = |batch: usize, row: usize| (batch, row);
    let mut rows: Vec<(i64, (usize, usize))> = times
        .iter()
        .enumerate()
        .flat_map(|(batch, times)| times.iter().enumerate().map(move |(row, time)| (*time, place(batch, row))))
        .collect();
    rows.sort_unstable();
    let mut runs: Vec<(usize, usize, usize)> = Vec::new();
    for (_, (batch, row)) in &rows {
        match runs.last_mut() {
            Some((last, from, len)) if last == batch && *from + *len == *row => *len += 1,
            _ => runs.push((*batch, *row, 1)),
        }
    }
    if rows.len() >= runs.len() * RUN_MIN {
        Order::Runs(runs)
    } else {
        Order::Rows(rows.into_iter().map(|(_, place)| place).collect())
    }
}

fn properties(host: &str, compression_level: i32) -> Result<WriterProperties> {
    let note = |key: &str, value: &str| KeyValue::new(format!("ringtap.{key}"), value.to_owned());
    let mut all = WriterProperties::builder()
        .set_created_by(concat!("ringtap ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_key_value_metadata(Some(vec![note("host", host), note("version", env!("CARGO_PKG_VERSION"))]))
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(compression_level)?))
        .set_max_row_group_row_count(None)
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(4096)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_sorting_columns(Some(vec![SortingColumn { column_idx: 0, descending: false, nulls_first: false }]))
        // Names in lists and maps as the format's own text has them.
        .set_coerce_types(true);
    for column in &COLUMNS {
        all = encoded(all, column.name, column.kind);
    }
    for name in LOOKED_UP {
        all = all
            .set_column_bloom_filter_fpp(path(name), BLOOM_FALSE)
            .set_column_bloom_filter_max_ndv(path(name), ROW_GROUP_ROWS as u64);
    }
    for name in WITHOUT_ORDER {
        all = all.set_column_statistics_enabled(path(name), EnabledStatistics::None);
    }
    Ok(all.build())
}

/// How a column's values are written: numbers as differences, texts by their number in a dictionary.
fn encoded(all: WriterPropertiesBuilder, name: &'static str, kind: Kind) -> WriterPropertiesBuilder {
    let differences = |all: WriterPropertiesBuilder| {
        all.set_column_dictionary_enabled(path(name), false)
            .set_column_encoding(path(name), Encoding::DELTA_BINARY_PACKED)
    };
    let nested = |all: WriterPropertiesBuilder, leaves: &[&str]| {
        leaves.iter().fold(all, |all, leaf| {
            let mut parts = vec![name.to_owned()];
            parts.extend(leaf.split('.').map(str::to_owned));
            all.set_column_statistics_enabled(ColumnPath::new(parts), EnabledStatistics::None)
        })
    };
    match kind {
        Kind::Time | Kind::Micros | Kind::Count => differences(all),
        Kind::Map => nested(all, &["key_value.key", "key_value.value"]),
        Kind::Texts => nested(all, &["list.element"]),
        // A dictionary of texts is made apart, where it is of use.
        Kind::Text => all.set_column_dictionary_enabled(path(name), false),
        _ if name == "src_port" => differences(all),
        _ => all,
    }
}

fn path(name: &str) -> ColumnPath {
    ColumnPath::from(name)
}
