//! The running agent: kernel, capture, stores, and the order in which they stop.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use rayon::prelude::*;
use ringtap_batch::{
    clock::WallOffset,
    ids::Ids,
    ledger::Ledger,
    objects,
    ring::{Reader, WakeFlags, abi::Counters},
    shard::{Context, Output, Shard},
    transactions::Transactions,
    usage,
};
use ringtap_exchange::Limits;

use crate::{
    config::{Config, checked::Plugins},
    probe::{
        kernel::{Kernel, KernelError, Settings, StreamMaps},
        prober::Prober,
    },
    process::ProcessTable,
    sink::{
        console::Console,
        delivery::{Delivery, Outbox},
    },
};

/// The whole shutdown, from the signal to the exit.
const SHUTDOWN: Duration = Duration::from_secs(5);
/// Part of it that is kept for closing down after the stores.
const RESERVE: Duration = Duration::from_millis(500);
/// A reader sleeps no longer, whatever the wake flags say.
const WAIT: Duration = Duration::from_millis(100);
const WALL_REFRESH: Duration = Duration::from_secs(1);

/// What the command line adds to the configuration.
#[derive(Debug, Clone)]
pub struct Options {
    /// Rings, a power of two; 0: one for two processors.
    pub shards: u32,
    /// Bytes of one ring, a power of two.
    pub ring_bytes: u32,
    /// Bytes of one body that are kept.
    pub body_bytes: usize,
}

/// Runs until a signal, and returns the ledger's table, and whether it balances.
///
/// # Errors
///
/// The capture or a store cannot be set up.
pub fn run(config: Config, options: &Options) -> anyhow::Result<(String, bool)> {
    let ledger = Arc::new(Ledger::default());
    let settings = Settings { wanted: config.wanted, shards: shards_of(options), ring_bytes: options.ring_bytes };
    // First: without the privilege nothing else matters.
    let kernel = Kernel::load(settings)?;
    let (console, console_thread) = Console::start().context("cannot start the writer of standard output")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime of the stores")?;
    let delivery = {
        let _inside = runtime.enter();
        Delivery::start(&config, &console, &ledger)?
    };
    let signals = runtime.block_on(async { Signals::listen() }).context("cannot listen for signals")?;
    let Running { capture, prober, stop, ended } = start_capture(kernel, config, options, &ledger, &delivery, console)?;
    tracing::info!("capturing; stop with Ctrl-C");
    runtime.block_on(async {
        tokio::select! {
            () = signals.wait() => tracing::info!("stopping"),
            // A thread lets go of its end only by ending.
            _ = ended => tracing::error!("a thread of the capture has ended by itself; stopping"),
        }
    });
    let stopped = Instant::now();
    runtime.spawn(stop_at_once());
    let counters = end_capture(capture, prober, &stop)?;
    let left = SHUTDOWN.saturating_sub(stopped.elapsed() + RESERVE);
    runtime.block_on(delivery.drain(left));
    // A disk that hangs must not keep us.
    runtime.shutdown_timeout(RESERVE);
    if !console_thread.join(RESERVE) {
        tracing::warn!("standard output is not read; lines that wait are lost");
    }
    Ok((ledger.table(&counters), ledger.balance(&counters).is_ok()))
}

/// Who asks twice does not want to wait.
async fn stop_at_once() {
    if let Ok(again) = Signals::listen() {
        again.wait().await;
        tracing::error!("stopped at once; what was on its way is lost uncounted");
        std::process::exit(1);
    }
}

/// First no more probes, then, when the rings are empty, no more records.
fn end_capture(
    capture: JoinHandle<anyhow::Result<Counters>>,
    prober: JoinHandle<std::io::Result<()>>,
    stop: &Stop,
) -> anyhow::Result<Counters> {
    stop.probes.store(true, Ordering::Relaxed);
    join(prober, "the prober").and_then(|result| result.context("the prober failed"))?;
    stop.capture.store(true, Ordering::Relaxed);
    join(capture, "the capture")?
}

fn join<T>(thread: JoinHandle<T>, name: &str) -> anyhow::Result<T> {
    thread.join().map_err(|_| anyhow::anyhow!("{name} has crashed"))
}

/// Two flags: first no more probes, then no more records.
#[derive(Clone, Default)]
struct Stop {
    probes: Arc<AtomicBool>,
    capture: Arc<AtomicBool>,
}

/// The two threads, and how they stop.
struct Running {
    capture: JoinHandle<anyhow::Result<Counters>>,
    prober: JoinHandle<std::io::Result<()>>,
    stop: Stop,
    /// Resolves when one of the threads ends.
    ended: tokio::sync::oneshot::Receiver<()>,
}

/// Tells the other end when it is dropped, however that comes about.
struct TellsEnd(Arc<std::sync::Mutex<Option<tokio::sync::oneshot::Sender<()>>>>);

impl Drop for TellsEnd {
    fn drop(&mut self) {
        drop(self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take());
    }
}

fn start_capture(
    mut kernel: Kernel,
    config: Config,
    options: &Options,
    ledger: &Arc<Ledger>,
    delivery: &Delivery,
    console: Console,
) -> anyhow::Result<Running> {
    let (fds, wake) = kernel.ring_fds()?;
    let wake = WakeFlags::map(std::os::fd::AsFd::as_fd(&wake), fds.len()).map_err(KernelError::Io)?;
    let (reader, refused) = Reader::open(fds, options.ring_bytes, Some(wake)).map_err(KernelError::Io)?;
    if let Some(refused) = refused {
        tracing::warn!("{refused}");
    }
    let maps = kernel.take_stream_maps()?;
    let processes = Arc::new(ProcessTable::new(config.filters));
    let context = Context {
        processes: processes.clone(),
        ids: Arc::new(ids()),
        ledger: ledger.clone(),
        wanted: config.wanted,
        limits: Limits { body: options.body_bytes, ..Limits::default() },
        hostname: hostname(),
        report_connections: delivery.events.is_some(),
    };
    let context = Arc::new(context);
    let shards = (0..reader.shards()).map(|_| Shard::new(context.clone())).collect();
    let out =
        Out { plugins: config.plugins, events: delivery.events.clone(), objects: delivery.objects.clone(), console };
    let capture =
        Capture { reader, shards, maps, out, ledger: ledger.clone(), wall: wall_offset(), refreshed: Instant::now() };
    let stop = Stop::default();
    let prober = Prober::start(kernel, processes)?;
    let (sender, ended) = tokio::sync::oneshot::channel();
    let sender = Arc::new(std::sync::Mutex::new(Some(sender)));
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
    Ok(Running { capture, prober, stop, ended })
}

fn shards_of(options: &Options) -> u32 {
    if options.shards > 0 { options.shards } else { default_shards() }
}

fn default_shards() -> u32 {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let half = u32::try_from(processors / 2).unwrap_or(1).clamp(1, 32);
    half.next_power_of_two()
}

/// The thread that reads the rings.
struct Capture {
    reader: Reader,
    shards: Vec<Shard>,
    maps: StreamMaps,
    out: Out,
    ledger: Arc<Ledger>,
    wall: WallOffset,
    refreshed: Instant,
}

/// What transactions are handed to.
struct Out {
    plugins: Plugins,
    events: Option<Outbox>,
    objects: Option<Outbox>,
    console: Console,
}

impl Capture {
    fn run(mut self, stop: &AtomicBool) -> anyhow::Result<Counters> {
        loop {
            let stopping = stop.load(Ordering::Relaxed);
            if !stopping {
                self.reader.wait(WAIT).context("cannot wait for the rings")?;
            }
            let records = self.round();
            if stopping && records == 0 {
                break;
            }
        }
        let (now, wall) = (boot_ns(), self.wall);
        let outputs: Vec<Output> = self.shards.iter_mut().map(|shard| shard.finish(now, wall)).collect();
        self.hand_out(outputs);
        let malformed = self.reader.stats().iter().map(|stats| stats.malformed).sum();
        self.ledger.records_malformed.add(malformed);
        Ok(self.maps.counters())
    }

    /// Scans every ring once and lets the shards work side by side; returns how many records there were.
    fn round(&mut self) -> usize {
        if self.refreshed.elapsed() > WALL_REFRESH {
            (self.wall, self.refreshed) = (wall_offset(), Instant::now());
        }
        let batches = self.reader.scan();
        let records = batches.iter().flatten().map(arrow_array::RecordBatch::num_rows).sum();
        let (now, wall) = (boot_ns(), self.wall);
        let outputs = match self.shards.as_mut_slice() {
            [only] => vec![only.process(batches[0].as_ref(), now, wall)],
            many => many
                .par_iter_mut()
                .zip(batches)
                .map(|(shard, batch)| shard.process(batch.as_ref(), now, wall))
                .collect(),
        };
        self.hand_out(outputs);
        records
    }

    fn hand_out(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            for (stream, offset) in output.skip {
                self.maps.skip_until(stream, offset);
            }
            for stream in output.ended {
                self.maps.forget(stream);
            }
            if let (Some(connections), Some(events)) = (output.connections, &self.out.events) {
                events.offer(connections);
            }
            if let Some(transactions) = output.transactions.as_ref().and_then(Transactions::of) {
                self.out.transactions(&transactions);
            }
        }
    }
}

impl Out {
    fn transactions(&self, t: &Transactions<'_>) {
        for log in &self.plugins.logs {
            for line in (0..t.rows()).filter_map(|row| log.line(t, row)) {
                if self.console.line(line).is_err() {
                    tracing::debug!("a line was dropped: standard output is slow or closed");
                }
            }
        }
        if let (true, Some(events)) = (self.plugins.report_usage, &self.events) {
            events.offer(usage::requests(t));
        }
        let Some(outbox) = &self.objects else { return };
        for capture in &self.plugins.captures {
            if let Some(objects) = objects::objects(t, capture) {
                outbox.offer(objects);
            }
        }
    }
}

/// The signals that end the agent.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn wait(mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

fn boot_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)).unwrap_or(0)
}

fn wall_offset() -> WallOffset {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let offset = i128::try_from(wall).unwrap_or(0) - i128::from(boot_ns());
    WallOffset(i64::try_from(offset).unwrap_or(0))
}

fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Ids differ between hosts by their name, and between runs by process and time.
fn ids() -> Ids {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    hostname().hash(&mut hasher);
    let [a, b, c, ..] = hasher.finish().to_be_bytes();
    #[expect(clippy::cast_possible_truncation, reason = "only their difference counts")]
    let (process, seed) = (std::process::id() as u16, boot_ns() as u32);
    Ids::new([a, b, c], process, seed)
}
