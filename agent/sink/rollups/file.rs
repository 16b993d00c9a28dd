//! One rollup file: rows in order of time, in row groups that engines can pass over.
//!
//! What an engine prunes by: the partition's folder, then minima and maxima of each row group and page (rows are in order
//! of `time`, and ids grow with time), then Bloom filters for one host, one connection, one id or one digest.

use std::io::Write;

use arrow_array::{RecordBatch, cast::AsArray, types::TimestampMicrosecondType};
use arrow_select::{concat::concat_batches, interleave::interleave_record_batch};
use parquet::{
    arrow::{ArrowWriter, arrow_writer::ArrowWriterOptions},
    basic::{Compression, Encoding, ZstdLevel},
    errors::Result,
    file::{
        metadata::{KeyValue, SortingColumn},
        properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder},
    },
    schema::types::ColumnPath,
};
use ringtap_batch::rollups::{COLUMNS, Kind, SCHEMA};

/// Rows of a row group: as many as DuckDB reads with one thread at a time, and few enough to be passed over often.
pub const ROW_GROUP_ROWS: usize = 122_880;
/// Rows of a page, the smallest part that can be passed over.
const PAGE_ROWS: usize = 20_000;
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
    writer: ArrowWriter<W>,
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
        Ok(Self { writer: ArrowWriter::try_new_with_options(to, SCHEMA.clone(), options)?, rows: 0 })
    }

    /// Writes batches as one row group, in order of time.
    ///
    /// # Errors
    ///
    /// What is beneath fails.
    pub fn write(&mut self, batches: &[RecordBatch]) -> Result<()> {
        match order(batches) {
            Order::AsTheyAre => batches.iter().try_for_each(|batch| self.writer.write(batch))?,
            Order::Runs(runs) => {
                let slices: Vec<RecordBatch> =
                    runs.iter().map(|(batch, from, len)| batches[*batch].slice(*from, *len)).collect();
                self.writer.write(&concat_batches(&SCHEMA, &slices)?)?;
            }
            Order::Rows(rows) => {
                let all: Vec<&RecordBatch> = batches.iter().collect();
                self.writer.write(&interleave_record_batch(&all, &rows)?)?;
            }
        }
        self.rows += batches.iter().map(|batch| batch.num_rows() as u64).sum::<u64>();
        self.writer.flush()
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
    for name in UNIQUE {
        all = all.set_column_dictionary_enabled(path(name), false);
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
        _ if name == "src_port" => differences(all),
        _ => all,
    }
}

fn path(name: &str) -> ColumnPath {
    ColumnPath::from(name)
}
