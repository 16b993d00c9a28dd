//! A live capture: the prober and the thread that reads the rings, and the order in which they stop.

use std::{
    io,
    os::fd::AsFd as _,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use arrow_array::RecordBatch;
use ringtap_batch::{
    blind::Spot,
    clock::WallOffset,
    governed::Governed,
    ledger::Ledger,
    process::Processes as _,
    ring::{
        Reader, RingStats, WakeFlags,
        abi::{Counters, LostEnd},
    },
    shard::Output,
};
use tokio::sync::oneshot;

use crate::{
    admin::Health,
    coverage::Coverage,
    pipeline::{Pipeline, Round},
    probe::{
        kernel::{Kernel, KernelError, StreamMaps},
        prober::Prober,
        signatures::Signatures,
    },
    process::ProcessTable,
    recording::{Recorder, Redactor},
    reload::Slot,
    run::hostname,
};

/// A reader sleeps no longer, whatever the wake flags say.
const WAIT: Duration = Duration::from_millis(100);
/// After a round with records the next one comes this much later, without having been woken.
const PAUSE: Duration = Duration::from_micros(700);
/// Where records come faster than [`FAST`], each pause is twice the one before, up to this: a round in itself costs as
/// much as dozens of its exchanges.
const LONG_PAUSE: Duration = Duration::from_millis(20);
/// Records a second beyond which nobody waits for a single one.
const FAST: f64 = 2500.0;
/// Fewer in a round say nothing of how fast they come.
const MANY: usize = 4;
/// At the stop, what is reserved is waited for so long.
const LAST_RECORDS: Duration = Duration::from_millis(500);
/// Bytes that the writers of one ring are taken to write in a nanosecond, when a pause must not fill the ring.
const WRITTEN_PER_NS: u64 = 4;
const WALL_REFRESH: Duration = Duration::from_secs(1);

/// Where the records of a live capture go.
pub enum Target {
    /// To the stores.
    Pipeline(Pipeline),
    /// Into a file.
    Recorder(Box<Recorder>),
    /// Into a file, without secrets.
    Redactor(Box<Redactor>),
}

/// What the command line asks of a capture.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Bytes of one ring.
    pub ring_bytes: u32,
    /// Stop processes that bring a file which was not looked at yet.
    pub hold_new: bool,
    /// Builds whose functions are known without symbols.
    pub signatures: Arc<Signatures>,
}

/// Where a capture tells of itself.
pub struct Told {
    /// What is seen of each process.
    pub coverage: Arc<Coverage>,
    /// The agent's counts.
    pub ledger: Arc<Ledger>,
    /// The programs' counts.
    pub kernel: Arc<RwLock<Counters>>,
    /// That it captures.
    pub health: Arc<Health>,
}

/// The two threads.
pub struct Live {
    capture: JoinHandle<anyhow::Result<Counters>>,
    prober: JoinHandle<io::Result<()>>,
    stop: Stop,
}

/// Two flags: first no more probes, then no more records.
#[derive(Clone, Default)]
struct Stop {
    probes: Arc<AtomicBool>,
    capture: Arc<AtomicBool>,
}

/// Tells the other end when it is dropped, however that comes about.
struct TellsEnd(Arc<Mutex<Option<oneshot::Sender<()>>>>);

impl Drop for TellsEnd {
    fn drop(&mut self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Live {
    /// Attaches the programs and starts both threads. The second value resolves when one of them ends by itself.
    ///
    /// # Errors
    ///
    /// The kernel refuses what nothing can replace.
    pub fn start(
        mut kernel: Kernel,
        asked: Asked,
        told: Told,
        target: Target,
        slot: Slot,
    ) -> anyhow::Result<(Self, oneshot::Receiver<()>)> {
        let Asked { ring_bytes, hold_new, signatures } = asked;
        let Told { coverage, ledger, kernel: counted, health } = told;
        let (fds, wake) = kernel.ring_fds()?;
        let wake = WakeFlags::map(wake.as_fd(), fds.len()).map_err(KernelError::Io)?;
        let (reader, refused) = Reader::open(fds, ring_bytes, Some(wake)).map_err(KernelError::Io)?;
        if let Some(refused) = refused {
            tracing::warn!("{refused}");
        }
        let maps = kernel.take_stream_maps()?;
        let (wall, refreshed) = (wall_offset(), Instant::now());
        let longest_sleep = Duration::from_nanos(u64::from(ring_bytes) / WRITTEN_PER_NS);
        let capture = Capture {
            reader,
            target,
            slot,
            maps,
            processes: coverage.processes.clone(),
            ledger,
            counted,
            health: health.clone(),
            wall,
            refreshed,
            pause: PAUSE,
            round_ended: refreshed,
            longest_sleep,
            enough: u64::from(ring_bytes) / 16,
        };
        let stop = Stop::default();
        let prober = Prober::start(kernel, coverage, signatures, hold_new)?;
        health.has_probes();
        let (sender, ended) = oneshot::channel();
        let sender = Arc::new(Mutex::new(Some(sender)));
        let (no_more_probes, first) = (stop.probes.clone(), TellsEnd(sender.clone()));
        let prober = std::thread::Builder::new().name("prober".into()).spawn(move || {
            let _first = first;
            prober.run(&no_more_probes)
        })?;
        let (no_more_records, second) = (stop.capture.clone(), TellsEnd(sender));
        let capture = std::thread::Builder::new().name("capture".into()).spawn(move || {
            let _second = second;
            capture.run(&no_more_records)
        })?;
        Ok((Self { capture, prober, stop }, ended))
    }

    /// First no more probes, then, when the rings are empty, no more records; returns what the programs counted.
    ///
    /// # Errors
    ///
    /// A thread has failed.
    pub fn stop(self) -> anyhow::Result<Counters> {
        self.stop.probes.store(true, Ordering::Relaxed);
        join(self.prober, "the prober").and_then(|result| result.context("the prober failed"))?;
        self.stop.capture.store(true, Ordering::Relaxed);
        join(self.capture, "the capture")?
    }
}

fn join<T>(thread: JoinHandle<T>, name: &str) -> anyhow::Result<T> {
    thread.join().map_err(|_| anyhow::anyhow!("{name} has crashed"))
}

/// The thread that reads the rings.
struct Capture {
    reader: Reader,
    target: Target,
    /// Where another configuration is handed over.
    slot: Slot,
    maps: StreamMaps,
    processes: Arc<ProcessTable>,
    ledger: Arc<Ledger>,
    /// What the programs counted, for whoever asks.
    counted: Arc<RwLock<Counters>>,
    health: Arc<Health>,
    wall: WallOffset,
    refreshed: Instant,
    /// After the next round with records.
    pause: Duration,
    round_ended: Instant,
    /// In which the fastest writers do not fill a ring.
    longest_sleep: Duration,
    /// Bytes in a ring that are worth a round.
    enough: u64,
}

impl Capture {
    fn run(mut self, stop: &AtomicBool) -> anyhow::Result<Counters> {
        let (mut last, mut ends) = (0, None);
        loop {
            let stopping = stop.load(Ordering::Relaxed);
            if !stopping && last == 0 {
                self.reader.wait(WAIT).context("cannot wait for the rings")?;
            } else if !stopping && !self.reader.has_records() {
                // Where records come, more will: to wake for each of them would cost more than the work itself.
                self.rest();
            }
            last = self.round()?;
            self.set_pause(last);
            // What a program has reserved it submits at once.
            let late = ends.is_some_and(|ends| ends < Instant::now());
            if stopping && last == 0 && (late || !self.reader.has_reserved()) {
                break;
            }
            if stopping {
                ends.get_or_insert_with(|| Instant::now() + LAST_RECORDS);
            }
        }
        self.settle_lost_ends()?;
        self.target.finish(boot_ns(), self.wall)?;
        self.count_rings();
        Ok(self.maps.counters())
    }

    /// Chooses the pause by how fast records came since the last round.
    fn set_pause(&mut self, records: usize) {
        let seconds = self.round_ended.elapsed().as_secs_f64();
        self.round_ended = Instant::now();
        #[expect(clippy::cast_precision_loss, reason = "a round has thousands of records at most")]
        let fast = records >= MANY && records as f64 > FAST * seconds;
        self.pause = if fast { (self.pause * 2).min(LONG_PAUSE) } else { PAUSE };
    }

    /// Sleeps for the pause, or until a ring has filled up noticeably.
    fn rest(&self) {
        let begun = Instant::now();
        while let Some(left) = self.pause.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
            std::thread::sleep(left.min(self.longest_sleep));
            if self.reader.backlog() > self.enough {
                break;
            }
        }
    }

    /// Scans every ring once and hands the batches on; returns how many records there were.
    fn round(&mut self) -> anyhow::Result<usize> {
        self.health.round();
        if self.refreshed.elapsed() > WALL_REFRESH {
            (self.wall, self.refreshed) = (wall_offset(), Instant::now());
            self.count_rings();
            self.settle_lost_ends()?;
            self.tell_steps();
            self.target.flush()?;
        }
        self.reconfigure();
        let batches = self.reader.scan();
        let records = batches.iter().flatten().map(RecordBatch::num_rows).sum();
        let outputs = self.target.process(&batches, boot_ns(), self.wall)?;
        for output in outputs {
            for (stream, offset) in output.skip {
                self.maps.skip_until(stream, offset);
            }
            for stream in output.ended {
                self.maps.forget(stream);
            }
        }
        Ok(records)
    }

    /// Takes over another configuration, if one waits: between two rounds, so that each batch is the work of one.
    fn reconfigure(&mut self) {
        let (Target::Pipeline(pipeline), Some(next)) = (&mut self.target, self.slot.take()) else { return };
        self.maps.want(next.wanted);
        pipeline.reconfigure(&next.context, next.out);
        // Whoever asked may have been stopped.
        let _ = next.taken.send(());
    }

    /// Connections whose close record found a full ring left it in a map.
    fn settle_lost_ends(&mut self) -> anyhow::Result<()> {
        for (conn, end) in self.maps.take_lost_ends() {
            // Its grace begins now: what came before it can still lie in the ring.
            self.target.close(conn, LostEnd { time_ns: boot_ns(), ..end })?;
        }
        Ok(())
    }

    /// Steps of the governor become events.
    fn tell_steps(&self) {
        let governed = self.processes.governed();
        let Target::Pipeline(pipeline) = &self.target else { return };
        let hostname = hostname();
        for step in governed.take_steps() {
            let process = self.processes.get(step.tgid);
            pipeline.tell(&Governed {
                wall_ns: self.wall.wall_ns(boot_ns()),
                hostname: &hostname,
                from: step.from.as_str(),
                to: step.to.as_str(),
                share: step.share,
                budget: governed.budget().unwrap_or_default(),
                tgid: step.tgid,
                process: process.as_deref(),
            });
        }
    }

    /// Copies the counts of rings and programs to where they are told from.
    fn count_rings(&mut self) {
        *self.counted.write().unwrap_or_else(PoisonError::into_inner) = self.maps.counters();
        let stats = self.reader.stats();
        let sum = |count: fn(&RingStats) -> u64| stats.iter().map(count).sum::<u64>();
        let ledger = &self.ledger;
        ledger.bytes_borrowed.raise_to(sum(|s| s.leased_bytes));
        ledger.bytes_copied.raise_to(sum(|s| s.copied_bytes));
        ledger.records_unreadable.raise_to(sum(|s| s.malformed));
        for (tgid, bytes) in self.maps.take_quic() {
            let process = self.processes.get(tgid);
            let exe = process.as_deref().map_or("", |process| process.exe.as_str());
            self.ledger.blind.add(Spot::Http3, exe, 0, bytes);
        }
    }
}

impl Target {
    fn process(
        &mut self,
        batches: &[Option<RecordBatch>],
        now_ns: u64,
        wall: WallOffset,
    ) -> anyhow::Result<Vec<Output>> {
        match self {
            Self::Pipeline(pipeline) => Ok(pipeline.process(Round::Sharded(batches), now_ns, wall)),
            Self::Recorder(recorder) => {
                for batch in batches.iter().flatten() {
                    recorder.write(batch, wall)?;
                }
                Ok(Vec::new())
            }
            Self::Redactor(redactor) => redactor.process(batches, now_ns, wall),
        }
    }

    fn close(&mut self, conn: u64, end: LostEnd) -> anyhow::Result<()> {
        match self {
            Self::Pipeline(pipeline) => pipeline.close(conn, end),
            Self::Recorder(recorder) => recorder.close(conn, end)?,
            Self::Redactor(redactor) => redactor.close(conn, end),
        }
        Ok(())
    }

    /// A recording that is cut off lacks no more than a second.
    fn flush(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Pipeline(_) => Ok(()),
            Self::Recorder(recorder) => recorder.flush(),
            Self::Redactor(redactor) => redactor.flush(),
        }
    }

    fn finish(&mut self, now_ns: u64, wall: WallOffset) -> anyhow::Result<()> {
        match self {
            Self::Pipeline(pipeline) => pipeline.finish(now_ns, wall),
            Self::Recorder(recorder) => recorder.finish()?,
            Self::Redactor(redactor) => redactor.finish(now_ns, wall)?,
        }
        Ok(())
    }
}

/// Boot time in nanoseconds.
#[must_use]
pub fn boot_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)).unwrap_or(0)
}

/// Wall time minus boot time, as of now.
#[must_use]
pub fn wall_offset() -> WallOffset {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let offset = i128::try_from(wall).unwrap_or(0) - i128::from(boot_ns());
    WallOffset(i64::try_from(offset).unwrap_or(0))
}
