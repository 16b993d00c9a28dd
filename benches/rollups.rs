//! From transactions to rows, and from rows to a Parquet file.
//!
//! With `RINGTAP_ROLLUPS=FOLDER` and `RINGTAP_ROLLUP_ROWS=N` it writes the rollups of a day instead, and prints what that
//! took of the processor as one line of JSON (`./dev rollups`).

use std::{
    fs::{self, File},
    hint::black_box,
    io::{BufWriter, Write},
    path::Path,
    time::Duration,
};

use arrow_array::{RecordBatch, cast::AsArray, types::TimestampMicrosecondType};
use common::day::{Day, rolled_up};
use criterion::{Criterion, Throughput, criterion_group};
use ringtap::sink::rollups::{ROW_GROUP_ROWS, RollupFile};

mod common;

/// The agent's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HOUR_US: i64 = 3_600_000_000;

fn write<W: Write + Send>(to: W, batches: &[RecordBatch], level: i32) -> W {
    let mut file = RollupFile::begin(to, "gate-1", level).expect("begins");
    file.write(batches).expect("written");
    file.finish().expect("finished")
}

fn rollups(criterion: &mut Criterion) {
    let mut day = Day::new(10_000_000);
    let (mut transactions, mut outcomes, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    let mut count = 0;
    while count < 65_536 {
        let batch = day.next_batch().expect("there are more");
        let outcome = day.outcome(&batch);
        rows.push(rolled_up(&batch, &outcome, false));
        count += batch.num_rows();
        transactions.push(batch);
        outcomes.push(outcome);
    }
    common::check("rollups", write(Vec::new(), &rows[..1], 1).len().to_le_bytes(), "0df75688");
    let mut group = criterion.benchmark_group("rollups");
    group.throughput(Throughput::Elements(count as u64)).sample_size(10);
    group.bench_function("rows", |b| {
        b.iter(|| {
            for (batch, outcome) in transactions.iter().zip(&outcomes) {
                black_box(rolled_up(batch, outcome, false));
            }
        });
    });
    for level in [1, 3] {
        group.bench_function(format!("file/zstd-{level}"), |b| b.iter(|| black_box(write(Vec::new(), &rows, level))));
    }
    group.finish();
}

/// Of this thread: what others do on the machine does not count.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let nanoseconds = i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))
}

/// An hour, and its file.
type Open = (i64, RollupFile<BufWriter<File>>);

/// Writes a day, one file an hour, and says how long that took and how large it became.
fn whole_day(folder: &Path, exchanges: usize) {
    let headers = std::env::var_os("RINGTAP_ROLLUP_HEADERS").is_some();
    let level = std::env::var("RINGTAP_ROLLUP_ZSTD").ok().and_then(|level| level.parse().ok()).unwrap_or(1);
    let mut day = Day::new(exchanges);
    let (mut making, mut writing) = (Duration::ZERO, Duration::ZERO);
    let (mut rows, mut files) = (0, 0);
    let (mut held, mut open): (Vec<RecordBatch>, Option<Open>) = (Vec::new(), None);
    let mut flush = |held: &mut Vec<RecordBatch>, open: &mut Option<Open>, end: bool| {
        let begun = processor_time();
        if let Some((_, file)) = open {
            file.write(held).expect("written");
            held.clear();
        }
        if let Some((_, file)) = open.take_if(|_| end) {
            file.finish().expect("finished").flush().expect("flushed");
        }
        writing += processor_time().saturating_sub(begun);
    };
    while let Some(batch) = day.next_batch() {
        let outcome = day.outcome(&batch);
        let begun = processor_time();
        let batch = rolled_up(&batch, &outcome, headers);
        making += processor_time().saturating_sub(begun);
        rows += batch.num_rows();
        // A batch belongs to the hour of its first row here; the agent parts it.
        let hour = batch.column(0).as_primitive::<TimestampMicrosecondType>().value(0).div_euclid(HOUR_US);
        if open.as_ref().is_none_or(|(of, _)| *of != hour) {
            flush(&mut held, &mut open, true);
            let of_day = hour.rem_euclid(24);
            let partition = folder.join(format!("dt=2026-01-02/hour={of_day:02}/host=gate-1"));
            fs::create_dir_all(&partition).expect("made");
            let file = BufWriter::with_capacity(1 << 20, File::create(partition.join("day.parquet")).expect("made"));
            open = Some((hour, RollupFile::begin(file, "gate-1", level).expect("begins")));
            files += 1;
        }
        held.push(batch);
        if held.iter().map(RecordBatch::num_rows).sum::<usize>() >= ROW_GROUP_ROWS {
            flush(&mut held, &mut open, false);
        }
    }
    flush(&mut held, &mut open, true);
    let (making, writing) = (making.as_secs_f64(), writing.as_secs_f64());
    #[expect(clippy::cast_precision_loss, reason = "few enough")]
    let rate = rows as f64 / (making + writing);
    println!(
        "{{\"rows\":{rows},\"files\":{files},\"making_seconds\":{making:.3},\"writing_seconds\":{writing:.3},\"rows_per_second\":{rate:.0}}}"
    );
}

criterion_group!(benches, rollups);

fn main() {
    match std::env::var_os("RINGTAP_ROLLUPS") {
        Some(folder) => {
            let rows = std::env::var("RINGTAP_ROLLUP_ROWS").ok().and_then(|rows| rows.parse().ok());
            whole_day(Path::new(&folder), rows.unwrap_or(1_000_000));
        }
        None => {
            benches();
            Criterion::default().configure_from_args().final_summary();
        }
    }
}
