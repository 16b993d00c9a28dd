use arrow_array::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;
use crate::sink::rollups::RollupFile;

/// The values of `rule`, a nullable column, through a file.
fn round_trip(values: &[Vec<Option<String>>]) -> Vec<Option<String>> {
    let schema = ringtap_batch::rollups::SCHEMA.clone();
    let place = schema.index_of("rule").expect("a column");
    let batch = |values: &Vec<Option<String>>| {
        let columns = schema.fields().iter().enumerate().map(|(at, field)| -> arrow_array::ArrayRef {
            if at == place {
                return std::sync::Arc::new(values.iter().map(Option::as_deref).collect::<StringArray>());
            }
            // Anything will do that is not null.
            let empty = arrow_array::new_null_array(field.data_type(), values.len());
            let data = empty.to_data().into_builder().nulls(None).build().expect("valid without nulls");
            if field.is_nullable() { empty } else { arrow_array::make_array(data) }
        });
        RecordBatch::try_new(schema.clone(), columns.collect()).expect("the schema's columns")
    };
    let batches: Vec<RecordBatch> = values.iter().map(batch).collect();
    let mut file = RollupFile::begin(Vec::new(), "a", 1).expect("begins");
    file.write(&batches).expect("written");
    let bytes = Bytes::from(file.finish().expect("finished"));
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).expect("a file").build().expect("a reader");
    let mut read = Vec::new();
    for batch in reader {
        let batch = batch.expect("readable");
        let column = batch.column(place).as_any().downcast_ref::<StringArray>().expect("texts").clone();
        read.extend(column.iter().map(|text| text.map(str::to_owned)));
    }
    read
}

/// Every shape of a chunk: one value, many, nulls in part and as whole pages, several batches, and values that hardly
/// repeat, which go the other way.
#[test]
fn whatever_is_written_is_read() {
    let text = |n: usize| Some(format!("value-{n}"));
    let of = |rows: usize, value: &dyn Fn(usize) -> Option<String>| (0..rows).map(value).collect::<Vec<_>>();
    for values in [
        vec![of(1, &|_| text(0))],
        vec![of(50_001, &|_| text(0))],
        vec![of(50_001, &|n| text(n % 3))],
        vec![of(50_001, &|n| text(n * n % 257)), of(30, &|n| text(n))],
        vec![of(50_001, &|n| text(n % 5000))],
        vec![of(50_001, &|n| if n % 7 == 0 { None } else { text(n % 90) }), of(3, &|n| text(n))],
        vec![of(9, &|n| text(n % 2)), of(70_000, &|_| None), of(5, &|n| text(n % 2))],
        vec![of(40_000, &|_| None)],
        vec![of(40_000, &text)],
        vec![of(20, &|_| Some("x".repeat(5000)))],
        vec![of(20_000, &|n| Some("é".repeat(n % 4)))],
    ] {
        let expected: Vec<Option<String>> = values.iter().flatten().cloned().collect();
        assert!(round_trip(&values) == expected, "{} rows, first {:?}", expected.len(), expected[0]);
    }
}

#[test]
fn numbers_are_packed_from_the_lowest_bit() {
    let packed = |keys: &[u32], width| {
        let mut to = Vec::new();
        numbers(keys, width, &mut to);
        to
    };
    // The example of the format's own text.
    assert_eq!(packed(&[0, 1, 2, 3, 4, 5, 6, 7], 3), [3, 0b1000_1000, 0b1100_0110, 0b1111_1010]);
    assert_eq!(packed(&[5; 300], 3), [0xd8, 0x04, 5]);
    assert_eq!(packed(&[1, 0], 1), [3, 1]);
}
