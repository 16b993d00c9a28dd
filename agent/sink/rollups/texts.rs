//! Column chunks of texts that occur again and again: a dictionary, and pages of numbers in it.
//!
//! parquet's own writer makes the same chunks value by value; half of all the time of a rollup went there. Here a value
//! costs one lookup: minima and maxima come from the dictionary in order, and numbers and nulls are packed by the page.
//! A column whose values hardly repeat is refused, and written as it is by parquet's writer.

use arrow_array::{Array, StringArray};
use arrow_buffer::{BooleanBuffer, BooleanBufferBuilder};
use bytes::Bytes;
use parquet::{
    basic::{Compression, Encoding},
    bloom_filter::Sbbf,
    column::{
        page::{CompressedPage, Page, PageWriter as _},
        writer::ColumnCloseResult,
    },
    data_type::ByteArray,
    errors::{ParquetError, Result},
    file::{
        metadata::{ColumnChunkMetaData, ColumnIndexBuilder, OffsetIndexBuilder},
        statistics::{Statistics, ValueStatistics},
        writer::{SerializedPageWriter, TrackedWrite},
    },
    schema::types::ColumnDescPtr,
};

use super::file::PAGE_ROWS;

/// A dictionary that grows beyond this is of no use.
const DICTIONARY_BYTES: usize = 1 << 20;
/// After so many rows it shows whether values repeat.
const TRIED_ROWS: usize = 8192;
/// Longer minima and maxima are left out of statistics.
const SHOWN_BYTES: usize = 64;
/// No value.
const NONE: u32 = u32::MAX;

/// How a column is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    pub(super) compression_level: i32,
    /// False answers of its Bloom filter; `None`: it has none.
    pub(super) bloom: Option<f64>,
    /// Whether it has minima and maxima.
    pub(super) statistics: bool,
}

/// Distinct values, numbered as they come.
struct Dictionary {
    /// As the dictionary page has them: length and bytes.
    page: Vec<u8>,
    /// Where each value's bytes begin in it, and end.
    places: Vec<(u32, u32)>,
    /// Open addressing: numbers of values.
    table: Vec<u32>,
    hasher: foldhash::fast::FixedState,
}

impl Dictionary {
    fn new() -> Self {
        Self {
            page: Vec::new(),
            places: Vec::new(),
            table: vec![NONE; 1024],
            hasher: foldhash::fast::FixedState::default(),
        }
    }

    fn value(&self, key: u32) -> &[u8] {
        let (from, to) = self.places[key as usize];
        &self.page[from as usize..to as usize]
    }

    /// Where a value stands in the table, or would.
    fn slot(&self, value: &[u8]) -> usize {
        use std::hash::BuildHasher as _;
        let mask = self.table.len() - 1;
        #[expect(clippy::cast_possible_truncation, reason = "only its lower bits count")]
        let mut slot = self.hasher.hash_one(value) as usize & mask;
        while self.table[slot] != NONE && self.value(self.table[slot]) != value {
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn key(&mut self, value: &[u8]) -> u32 {
        let slot = self.slot(value);
        if self.table[slot] != NONE {
            return self.table[slot];
        }
        let number = |n: usize| u32::try_from(n).expect("a dictionary has a megabyte");
        let key = number(self.places.len());
        self.page.extend_from_slice(&number(value.len()).to_le_bytes());
        let from = number(self.page.len());
        self.page.extend_from_slice(value);
        self.places.push((from, number(self.page.len())));
        self.table[slot] = key;
        if self.places.len() * 2 > self.table.len() {
            self.table = vec![NONE; self.table.len() * 4];
            for key in 0..=key {
                let slot = self.slot(self.value(key));
                self.table[slot] = key;
            }
        }
        key
    }

    /// Numbers by the order of their values, and the place of each number in that order.
    fn order(&self) -> (Vec<u32>, Vec<u32>) {
        let mut sorted: Vec<u32> = (0..self.places.len()).map(|key| u32::try_from(key).unwrap_or(NONE)).collect();
        sorted.sort_unstable_by(|a, b| self.value(*a).cmp(self.value(*b)));
        let mut ranks = vec![0; sorted.len()];
        for (rank, key) in (0..).zip(&sorted) {
            ranks[*key as usize] = rank;
        }
        (sorted, ranks)
    }
}

/// All values of a chunk by their numbers; those that are null have none.
struct Keys {
    dictionary: Dictionary,
    numbers: Vec<u32>,
    /// `None`: no row is null.
    valid: Option<BooleanBuffer>,
}

impl Keys {
    /// `None`: values hardly repeat, or there are none.
    fn of(arrays: &[&StringArray]) -> Option<Self> {
        let rows = arrays.iter().copied().map(Array::len).sum();
        let (mut dictionary, mut keys) = (Dictionary::new(), Vec::with_capacity(rows));
        let nullable = arrays.iter().any(|array| array.null_count() > 0);
        let mut valid = BooleanBufferBuilder::new(if nullable { rows } else { 0 });
        let (mut last, mut last_key): (Option<&[u8]>, u32) = (None, 0);
        for array in arrays {
            let (offsets, bytes) = (array.value_offsets(), array.value_data());
            let mut add = |row: usize| {
                let at = |offset: i32| usize::try_from(offset).expect("offsets are not negative");
                let value = &bytes[at(offsets[row])..at(offsets[row + 1])];
                if last != Some(value) {
                    (last, last_key) = (Some(value), dictionary.key(value));
                }
                keys.push(last_key);
            };
            match array.nulls().filter(|nulls| nulls.null_count() > 0) {
                None => (0..array.len()).for_each(&mut add),
                Some(nulls) => nulls.valid_indices().for_each(&mut add),
            }
            if nullable {
                match array.nulls() {
                    None => valid.append_n(array.len(), true),
                    Some(nulls) => valid.append_buffer(nulls.inner()),
                }
            }
            let values = dictionary.places.len();
            if dictionary.page.len() > DICTIONARY_BYTES || (keys.len() > TRIED_ROWS && values > keys.len() / 2) {
                return None;
            }
        }
        // Where nothing is, nothing is won.
        (!keys.is_empty()).then(|| Self { dictionary, numbers: keys, valid: nullable.then(|| valid.finish()) })
    }
}

/// A chunk as it goes into the file.
pub(super) fn chunk(
    column: &ColumnDescPtr,
    arrays: &[&StringArray],
    manner: Manner,
) -> Result<Option<(Bytes, ColumnCloseResult)>> {
    let Some(all) = Keys::of(arrays) else { return Ok(None) };
    let rows = arrays.iter().copied().map(Array::len).sum();
    ChunkWriter::new(column, &all, manner)?.write(rows).map(Some)
}

struct ChunkWriter<'a> {
    column: &'a ColumnDescPtr,
    all: &'a Keys,
    manner: Manner,
    sorted: Vec<u32>,
    ranks: Vec<u32>,
    zstd: zstd::bulk::Compressor<'static>,
    to: TrackedWrite<Vec<u8>>,
    uncompressed: usize,
    index: ColumnIndexBuilder,
    offsets: OffsetIndexBuilder,
}

impl<'a> ChunkWriter<'a> {
    fn new(column: &'a ColumnDescPtr, all: &'a Keys, manner: Manner) -> Result<Self> {
        let (sorted, ranks) = if manner.statistics { all.dictionary.order() } else { (Vec::new(), Vec::new()) };
        Ok(Self {
            column,
            all,
            manner,
            sorted,
            ranks,
            zstd: zstd::bulk::Compressor::new(manner.compression_level)?,
            to: TrackedWrite::new(Vec::new()),
            uncompressed: 0,
            index: ColumnIndexBuilder::new(column.physical_type()),
            offsets: OffsetIndexBuilder::new(),
        })
    }

    fn write(mut self, rows: usize) -> Result<(Bytes, ColumnCloseResult)> {
        let number = |n: usize| u32::try_from(n).map_err(|_| ParquetError::General("too many values".into()));
        let dictionary = Page::DictionaryPage {
            buf: self.compressed(&self.all.dictionary.page)?,
            num_values: number(self.all.dictionary.places.len())?,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        self.page(dictionary, self.all.dictionary.page.len())?;
        let data_offset = self.to.bytes_written();
        let (mut from, mut key) = (0, 0);
        while from < rows {
            let len = PAGE_ROWS.min(rows - from);
            let valid = self.all.valid.as_ref().map(|valid| valid.slice(from, len));
            let keys = valid.as_ref().map_or(len, BooleanBuffer::count_set_bits);
            self.data_page(len, valid.as_ref(), key..key + keys)?;
            (from, key) = (from + len, key + keys);
        }
        self.finish(rows, data_offset)
    }

    fn data_page(&mut self, rows: usize, valid: Option<&BooleanBuffer>, keys: std::ops::Range<usize>) -> Result<()> {
        let keys = &self.all.numbers[keys];
        let mut buffer = Vec::with_capacity(keys.len() * 2 + rows / 8 + 64);
        if self.column.max_def_level() > 0 {
            buffer.extend_from_slice(&[0; 4]);
            levels(rows, valid.filter(|_| keys.len() < rows), keys.is_empty(), &mut buffer);
            let len = u32::try_from(buffer.len() - 4).expect("a page has few rows");
            buffer[..4].copy_from_slice(&len.to_le_bytes());
        }
        let width = width(self.all.dictionary.places.len());
        buffer.push(width);
        numbers(keys, width, &mut buffer);
        let at = self.to.bytes_written();
        let page = Page::DataPage {
            buf: self.compressed(&buffer)?,
            num_values: u32::try_from(rows).expect("a page has few rows"),
            encoding: Encoding::RLE_DICTIONARY,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        self.page(page, buffer.len())?;
        let size = i32::try_from(self.to.bytes_written() - at).expect("a page is small");
        self.offsets.append_row_count(long(rows));
        self.offsets.append_offset_and_size(long(at), size);
        self.note(keys, rows);
        Ok(())
    }

    /// Minimum and maximum of a page.
    fn note(&mut self, keys: &[u32], rows: usize) {
        if !self.manner.statistics {
            return;
        }
        let ranks = keys.iter().map(|key| self.ranks[*key as usize]);
        let ends = ranks.fold(None, |ends: Option<(u32, u32)>, rank| {
            Some(ends.map_or((rank, rank), |(min, max)| (min.min(rank), max.max(rank))))
        });
        let nulls = long(rows - keys.len());
        let Some((min, max)) = ends else { return self.index.append(true, Vec::new(), Vec::new(), nulls, None) };
        let [min, max] = [min, max].map(|rank| self.all.dictionary.value(self.sorted[rank as usize]).to_vec());
        if min.len().max(max.len()) > SHOWN_BYTES {
            self.index.to_invalid();
        }
        self.index.append(false, min, max, nulls, None);
    }

    fn compressed(&mut self, bytes: &[u8]) -> Result<Bytes> {
        Ok(self.zstd.compress(bytes)?.into())
    }

    fn page(&mut self, page: Page, uncompressed: usize) -> Result<()> {
        let spec = SerializedPageWriter::new(&mut self.to).write_page(CompressedPage::new(page, uncompressed))?;
        self.uncompressed += spec.uncompressed_size;
        Ok(())
    }

    fn finish(self, rows: usize, data_offset: usize) -> Result<(Bytes, ColumnCloseResult)> {
        let Self { column, all, manner, sorted, uncompressed, index, offsets, to, .. } = self;
        let bytes: Bytes = to.into_inner()?.into();
        let mut metadata = ColumnChunkMetaData::builder(column.clone())
            .set_compression(Compression::ZSTD(parquet::basic::ZstdLevel::try_new(manner.compression_level)?))
            .set_encodings(vec![Encoding::PLAIN, Encoding::RLE, Encoding::RLE_DICTIONARY])
            .set_total_compressed_size(long(bytes.len()))
            .set_total_uncompressed_size(long(uncompressed))
            .set_num_values(long(rows))
            .set_dictionary_page_offset(Some(0))
            .set_data_page_offset(long(data_offset));
        if manner.statistics {
            let value = |key: Option<&u32>| {
                let value = key.map(|key| all.dictionary.value(*key)).filter(|value| value.len() <= SHOWN_BYTES);
                value.map(|value| ByteArray::from(value.to_vec()))
            };
            let (min, max) = (value(sorted.first()), value(sorted.last()));
            let nulls = (rows - all.numbers.len()) as u64;
            let statistics = ValueStatistics::new(min, max, None, Some(nulls), false);
            metadata = metadata.set_statistics(Statistics::ByteArray(statistics));
        }
        let bloom_filter = manner.bloom.map(|falsely| bloom(&all.dictionary, falsely)).transpose()?;
        let close = ColumnCloseResult {
            bytes_written: bytes.len() as u64,
            rows_written: rows as u64,
            metadata: metadata.build()?,
            bloom_filter,
            column_index: if manner.statistics && index.valid() { Some(index.build()?) } else { None },
            offset_index: Some(offsets.build()),
        };
        Ok((bytes, close))
    }
}

fn bloom(dictionary: &Dictionary, falsely: f64) -> Result<Sbbf> {
    let mut filter = Sbbf::new_with_ndv_fpp(dictionary.places.len().max(1) as u64, falsely)?;
    for (from, to) in &dictionary.places {
        filter.insert(&dictionary.page[*from as usize..*to as usize]);
    }
    Ok(filter)
}

fn long(n: usize) -> i64 {
    i64::try_from(n).expect("chunks are far smaller")
}

/// Bits of a number below `values`.
fn width(values: usize) -> u8 {
    u8::try_from(usize::BITS - values.saturating_sub(1).leading_zeros()).expect("at most 64")
}

/// Definition levels: one run where all rows are alike, else a bit a row.
fn levels(rows: usize, mixed: Option<&BooleanBuffer>, all_null: bool, to: &mut Vec<u8>) {
    match mixed.filter(|_| !all_null) {
        None => {
            variable(rows << 1, to);
            to.push(u8::from(!all_null));
        }
        Some(valid) => {
            variable((rows.div_ceil(8) << 1) | 1, to);
            // Arrow's bits and Parquet's lie in the same order.
            to.extend_from_slice(valid.sliced().as_slice().get(..rows.div_ceil(8)).unwrap_or_default());
        }
    }
}

/// Numbers of `width` bits: one run where all are alike, else all of them packed.
fn numbers(keys: &[u32], width: u8, to: &mut Vec<u8>) {
    let Some(first) = keys.first() else { return };
    if keys.iter().all(|key| key == first) {
        variable(keys.len() << 1, to);
        to.extend_from_slice(&first.to_le_bytes()[..usize::from(width.div_ceil(8))]);
        return;
    }
    variable((keys.len().div_ceil(8) << 1) | 1, to);
    let end = to.len() + keys.len().div_ceil(8) * usize::from(width);
    let (mut bits, mut count) = (0u64, 0u32);
    for key in keys {
        bits |= u64::from(*key) << count;
        count += u32::from(width);
        if count >= 32 {
            #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
            to.extend_from_slice(&(bits as u32).to_le_bytes());
            bits >>= 32;
            count -= 32;
        }
    }
    to.extend_from_slice(&bits.to_le_bytes());
    // A group is of eight: what lacks is nothing.
    to.resize(end, 0);
}

/// Seven bits a byte, the lowest first.
fn variable(mut n: usize, to: &mut Vec<u8>) {
    while n > 0x7f {
        to.push(u8::try_from(n & 0x7f).expect("seven bits") | 0x80);
        n >>= 7;
    }
    to.push(u8::try_from(n).expect("seven bits"));
}

#[cfg(test)]
mod tests;
