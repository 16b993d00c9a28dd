//! From a full ring of the kernel to record batches, against aya's reader, which copies; and how fast a sleeping reader
//! wakes. Needs root; without it nothing is measured.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use aya::{Ebpf, EbpfLoader, maps::RingBuf, programs::RawTracePoint};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringtap_batch::ring::{
    Reader, Ring,
    abi::Record,
    records::{Records, RecordsBuilder},
};

const RING: u32 = 16 << 20;

/// A ring, and a program that puts a record into it whenever this process asks for its parent's id.
struct Producer {
    ebpf: Ebpf,
    size: u32,
}

impl Producer {
    fn new(size: u32, wakes: u32) -> anyhow::Result<Self> {
        let (process, call) = (std::process::id(), libc::SYS_getppid.cast_unsigned());
        let mut ebpf = EbpfLoader::new()
            .override_global("bench_tgid", &process, true)
            .override_global("trigger", &call, true)
            .override_global("payload", &size, true)
            .override_global("wakes", &wakes, true)
            .map_max_entries("bench_ring", RING)
            .load(ringtap_bpf::bench_object())?;
        let program: &mut RawTracePoint =
            ebpf.program_mut("bench_produce").ok_or_else(|| anyhow::anyhow!("no program"))?.try_into()?;
        program.load()?;
        program.attach("sys_enter")?;
        Ok(Self { ebpf, size })
    }

    /// Records that a full ring holds.
    fn capacity(&self) -> u64 {
        let taken = (8 + Record::SIZE as u64 + u64::from(self.size)).next_multiple_of(8);
        // The kernel keeps one byte between the positions.
        (u64::from(RING) - 1) / taken
    }

    fn fill(&self) -> u64 {
        (0..self.capacity()).for_each(|_| produce());
        self.capacity()
    }

    fn fd(&mut self) -> anyhow::Result<OwnedFd> {
        let Some(aya::maps::Map::RingBuf(ring)) = self.ebpf.map("bench_ring") else { anyhow::bail!("no ring") };
        Ok(ring.fd().as_fd().try_clone_to_owned()?)
    }
}

/// One record.
fn produce() {
    std::hint::black_box(rustix::process::getppid());
}

/// Drains with our reader: batches borrow what is large. Returns records and payload bytes.
fn ours(ring: &mut Ring) -> (u64, u64) {
    let (mut records, mut bytes) = (0, 0);
    while let Some(batch) = ring.scan() {
        records += batch.num_rows() as u64;
        bytes += lengths(&batch);
    }
    (records, bytes)
}

/// The same with aya's reader, which hands out one record after the other.
fn theirs(ring: &mut RingBuf<aya::maps::MapData>) -> (u64, u64) {
    let (mut records, mut bytes) = (0, 0);
    loop {
        let mut builder = RecordsBuilder::default();
        while builder.rows() < 8192
            && let Some(item) = ring.next()
        {
            if let Some((head, payload)) = Record::split(&item) {
                builder.push_copied(&head, payload);
            }
        }
        if builder.rows() == 0 {
            return (records, bytes);
        }
        records += builder.rows() as u64;
        bytes += lengths(&builder.finish(None));
    }
}

fn lengths(batch: &arrow_array::RecordBatch) -> u64 {
    Records::of(batch).map_or(0, |records| records.rows().map(|row| row.payload.len() as u64).sum())
}

fn drain(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring/drain");
    group.sample_size(10);
    for size in [64u32, 256, 512, 1024, 2048, 4096, 16_384] {
        let mut producer = match Producer::new(size, 0) {
            Ok(producer) => producer,
            Err(error) => {
                eprintln!("ring: not measured: {error}");
                return;
            }
        };
        let fd = producer.fd().expect("a ring");
        let mut ring = Ring::open(fd.as_fd(), RING).expect("it maps");
        let (n, each) = (producer.fill(), u64::from(size));
        assert_eq!(ours(&mut ring), (n, n * each), "every record once");
        group.throughput(Throughput::Elements(n));
        group.bench_function(format!("ours/{size}"), |b| {
            b.iter_custom(|rounds| timed(rounds, &producer, || ours(&mut ring)));
        });
        // Where the border between copying and borrowing should lie.
        if size <= 2048 {
            for (name, border) in [("copied", usize::MAX), ("borrowed", 0)] {
                ring.set_copy_below(border);
                group.bench_function(format!("{name}/{size}"), |b| {
                    b.iter_custom(|rounds| timed(rounds, &producer, || ours(&mut ring)));
                });
            }
        }
        drop(ring);
        let map = producer.ebpf.take_map("bench_ring").expect("a ring");
        let mut copying = RingBuf::try_from(map).expect("it maps");
        producer.fill();
        assert_eq!(theirs(&mut copying), (n, n * each), "every record once");
        group.bench_function(format!("aya/{size}"), |b| {
            b.iter_custom(|rounds| timed(rounds, &producer, || theirs(&mut copying)));
        });
    }
    group.finish();
}

/// Time of draining alone.
fn timed(rounds: u64, producer: &Producer, mut drain: impl FnMut() -> (u64, u64)) -> Duration {
    let mut spent = Duration::ZERO;
    for _ in 0..rounds {
        let n = producer.fill();
        let begun = Instant::now();
        let (records, _) = drain();
        spent += begun.elapsed();
        assert_eq!(records, n);
    }
    spent
}

/// 1,000 records a second into a ring whose reader sleeps: from the record's own time to the scan that finds it.
fn wake(criterion: &mut Criterion) {
    let Ok(mut producer) = Producer::new(64, 1) else { return };
    let fd = producer.fd().expect("a ring");
    let mut group = criterion.benchmark_group("ring/wake");
    group.sample_size(10);
    let (mut reader, _) = Reader::open(vec![fd], RING, None).expect("it maps");
    let mut latencies: Vec<u64> = Vec::new();
    group.bench_function("1000-per-second", |b| {
        b.iter_custom(|rounds| {
            let stop = Arc::new(AtomicBool::new(false));
            let n = (rounds * 20).min(5000);
            let producing = {
                let stop = stop.clone();
                std::thread::spawn(move || {
                    for _ in 0..n {
                        std::thread::sleep(Duration::from_millis(1));
                        produce();
                    }
                    stop.store(true, Ordering::Relaxed);
                })
            };
            let mut spent = 0;
            let mut seen = 0;
            while !stop.load(Ordering::Relaxed) || seen < n {
                reader.wait(Duration::from_millis(100)).expect("it waits");
                for batch in reader.scan().into_iter().flatten() {
                    let now = boot_ns();
                    for row in Records::of(&batch).into_iter().flat_map(Records::rows) {
                        seen += 1;
                        latencies.push(now.saturating_sub(row.time_ns));
                        spent += now.saturating_sub(row.time_ns);
                    }
                }
            }
            producing.join().expect("it produces");
            Duration::from_nanos(spent * rounds / n.max(1))
        });
    });
    group.finish();
    latencies.sort_unstable();
    if let [.., _] = latencies.as_slice() {
        let at = |share: usize| latencies[(latencies.len() - 1) * share / 1000] / 1000;
        println!("ring/wake: p50 {} us, p99 {} us, p99.9 {} us of {}", at(500), at(990), at(999), latencies.len());
    }
}

fn boot_ns() -> u64 {
    ringtap::live::boot_ns()
}

criterion_group!(benches, drain, wake);
criterion_main!(benches);
