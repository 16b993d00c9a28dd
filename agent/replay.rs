//! Replay: a recording or a capture file through everything but the kernel.

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use arrow_array::RecordBatch;
use indicatif::{ProgressBar, ProgressStyle};
use ringtap_batch::{
    budget::{Budgets, Memory},
    clock::WallOffset,
    ids::Ids,
    interest::Everything,
    ledger::Ledger,
    process::Processes,
    ring::{
        abi::{Counters, Kind, flag, wanted},
        records::Records,
    },
    shard::{Context, Shard},
};

use self::{
    capture_file::{CaptureFile, CaptureFileError, PacketCounts},
    segments::View,
};
use crate::{
    config::{Config, checked::ProcessRules},
    files::{Files, uring_allowed},
    pipeline::{Out, Pipeline, Round},
    recording::{RecordedProcesses, Recording, RecordingError},
    sink::{
        Patience,
        console::Console,
        delivery::{Delivery, Ground},
        rollups::Rollups,
    },
};

mod capture_file;
mod packets;
mod segments;

/// What the command line adds to the configuration.
#[derive(Debug, Clone)]
pub struct Options {
    /// The recording or capture file.
    pub file: PathBuf,
    /// Shards, a power of two.
    pub shards: u32,
    /// What may be kept.
    pub budgets: Budgets,
    /// `key:value` tags of everything.
    pub tags: Vec<String>,
    /// Whether to show a progress bar where standard error is a terminal.
    pub progress: bool,
}

/// How a replay went.
#[derive(Debug, serde::Serialize)]
pub struct Summary {
    /// The file.
    pub file: PathBuf,
    /// `recording` or `capture`.
    pub format: &'static str,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Wall time of the replay, in seconds.
    pub seconds: f64,
    /// Of a capture file: its packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packets: Option<PacketCounts>,
    /// The ledger's counts.
    pub ledger: serde_json::Map<String, serde_json::Value>,
    /// Whether they add up.
    pub balanced: bool,
    /// The ledger as a table for people.
    #[serde(skip)]
    pub table: String,
}

/// Why a file cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A recording.
    #[error("{file}: {error}", file = .0.display(), error = .1)]
    Recording(PathBuf, RecordingError),
    /// A capture file.
    #[error("{file}: {error}", file = .0.display(), error = .1)]
    CaptureFile(PathBuf, CaptureFileError),
}

/// Replays a file to its end. A damaged file is an error; what came before the damage has been delivered whole.
///
/// # Errors
///
/// The file cannot be read, or a store cannot be set up.
pub fn replay(config: Config, options: &Options) -> anyhow::Result<(Summary, Option<ReplayError>)> {
    let begun = Instant::now();
    let ledger = Arc::new(Ledger::default());
    let processes = Arc::new(RecordedProcesses::new(config.processes));
    let source = Source::open(&options.file, config.wanted)?;
    let (format, file_bytes) = (source.format(), source.progress().1);
    let (console, console_thread) =
        Console::start(Patience::UntilRoom).context("cannot start the writer of standard output")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let memory = Arc::new(Memory::new(options.budgets.agent));
    // Whoever replays has what waits in the file.
    let ground = Ground {
        console: console.clone(),
        ledger: ledger.clone(),
        memory: memory.clone(),
        patience: Patience::UntilRoom,
        files: Files::start(uring_allowed()).context("cannot start the writer of files")?,
        spool: None,
        stops: tokio::sync::watch::Sender::new(false),
    };
    let (delivery, rollups) = {
        let _inside = runtime.enter();
        let (counts, patience) = ((&ledger, &memory), ground.patience);
        let rollups = Rollups::start(config.rollups.as_ref(), &config.stores, "", counts, patience)?;
        (Delivery::start(&config.stores, &ground)?, rollups)
    };
    // Whoever holds standard output keeps its writer alive.
    drop(ground);
    let stacks = Arc::new(config.stacks);
    let context = Arc::new(Context {
        names: Arc::default(),
        processes: Arc::clone(&processes) as Arc<dyn Processes>,
        ids: Arc::new(Ids::new([0; 3], 0, 0)),
        ledger: ledger.clone(),
        wanted: config.wanted,
        budgets: options.budgets,
        memory,
        interest: stacks.clone(),
        hostname: String::new(),
        tags: options.tags.clone(),
        report_connections: delivery.to.events(Some(0)).is_some(),
    });
    let (to, rollup) = (delivery.to.clone(), rollups.to.clone());
    let out = Out { stacks, to, rollup, console, metrics: Arc::default(), feed: None };
    let mut pipeline = Pipeline::new(&context, options.shards, out);
    let progress = Progress::new(options, file_bytes);
    let (counters, packets, fault) = drive(source, &processes, &ledger, &mut pipeline, &progress)?;
    drop(pipeline);
    // Whoever replays waits for the stores: they give up by themselves on what cannot be delivered.
    runtime.block_on(async { tokio::join!(delivery.drain_until_stop(), rollups.drain(Duration::MAX)) });
    runtime.shutdown_timeout(Duration::from_secs(1));
    console_thread.join(Duration::MAX);
    let summary = Summary {
        file: options.file.clone(),
        format,
        file_bytes,
        seconds: begun.elapsed().as_secs_f64(),
        packets,
        ledger: ledger.named().into_iter().map(|(name, n)| (name.to_owned(), n.into())).collect(),
        balanced: ledger.balance(&counters).is_ok(),
        table: ledger.table(&counters),
    };
    Ok((summary, fault.map(|fault| fault.of(&options.file))))
}

/// Hands the transactions of a file to `take`, batch by batch, whole and unfiltered; nothing goes anywhere else.
///
/// # Errors
///
/// The file cannot be read.
pub fn transactions(file: &Path, wanted_bits: u32, take: &dyn Fn(&RecordBatch)) -> anyhow::Result<()> {
    let processes = Arc::new(RecordedProcesses::new(ProcessRules::default()));
    let context = Arc::new(Context {
        names: Arc::default(),
        processes: Arc::clone(&processes) as Arc<dyn Processes>,
        ids: Arc::new(Ids::new([0; 3], 0, 0)),
        ledger: Arc::default(),
        wanted: wanted::INGRESS | wanted::EGRESS_INTERNAL | wanted::EGRESS_EXTERNAL | wanted::LOOPBACK,
        budgets: Budgets::default(),
        memory: Arc::new(Memory::new(Budgets::default().agent)),
        interest: Arc::new(Everything),
        hostname: String::new(),
        tags: Vec::new(),
        report_connections: false,
    });
    let mut source = Source::open(file, wanted_bits)?;
    let mut shard = Shard::new(context);
    let (mut now_ns, mut wall) = (0, WallOffset(0));
    loop {
        let chunk = source.read().map_err(|fault| fault.of(file))?;
        let Some(chunk) = chunk else { break };
        (now_ns, wall) = (chunk.now_ns.max(now_ns), chunk.wall);
        processes.learn(&chunk.batch);
        shard.process(Some(&chunk.batch), now_ns, wall).transactions.iter().for_each(take);
    }
    shard.finish(now_ns, wall).transactions.iter().for_each(take);
    Ok(())
}

/// A batch on its way from the reader to the shards.
struct Chunk {
    batch: RecordBatch,
    now_ns: u64,
    wall: WallOffset,
    at: u64,
}

/// Batches that may be read ahead.
const READ_AHEAD: usize = 2;

/// Reads on a thread of its own, ahead of the shards.
fn drive(
    mut source: Source,
    processes: &RecordedProcesses,
    ledger: &Ledger,
    pipeline: &mut Pipeline,
    progress: &Progress,
) -> anyhow::Result<(Counters, Option<PacketCounts>, Option<SourceError>)> {
    let (sender, chunks) = mpsc::sync_channel(READ_AHEAD);
    let reader = std::thread::Builder::new().name("replay-reader".into()).spawn(move || {
        let fault = loop {
            match source.read() {
                // The other end is gone only if it has crashed.
                Ok(Some(chunk)) => {
                    if sender.send(chunk).is_err() {
                        break None;
                    }
                }
                Ok(None) => break None,
                Err(fault) => break Some(fault),
            }
        };
        (source.packets(), fault)
    })?;
    let (mut counters, mut now_ns, mut wall) = (Counters::default(), 0, WallOffset(0));
    while let Ok(chunk) = chunks.recv() {
        (now_ns, wall) = (chunk.now_ns.max(now_ns), chunk.wall);
        processes.learn(&chunk.batch);
        count(&chunk.batch, &mut counters, ledger);
        pipeline.process(Round::Mixed(&chunk.batch), now_ns, wall);
        progress.at(chunk.at);
    }
    pipeline.finish(now_ns, wall);
    let (packets, fault) = reader.join().map_err(|_| anyhow::anyhow!("the reader has crashed"))?;
    Ok((counters, packets, fault))
}

/// What the programs would have counted had these rows come from them.
fn count(batch: &RecordBatch, counters: &mut Counters, ledger: &Ledger) {
    for row in Records::of(batch).into_iter().flat_map(Records::rows) {
        counters.captured_records += 1;
        if row.kind != Some(Kind::Payload) {
            continue;
        }
        let (len, read) = (u64::from(row.len), row.payload.len() as u64);
        counters.seen_bytes += len;
        counters.captured_bytes += read;
        let short = len.saturating_sub(read);
        match row.flags {
            f if f & flag::SENDFILE != 0 => counters.sendfile_bytes += short,
            f if f & flag::SPLICED != 0 => counters.spliced_bytes += short,
            f if f & flag::DISCARDED != 0 => counters.discarded_bytes += short,
            f if f & flag::UNCAPTURED != 0 => ledger.bytes_uncaptured.add(short),
            // Nobody has lost them.
            f if f & flag::REDACTED != 0 => counters.skipped_bytes += short,
            _ => counters.fault_bytes += short,
        }
    }
}

/// Why a source cannot be read on.
enum SourceError {
    Recording(RecordingError),
    CaptureFile(CaptureFileError),
}

impl SourceError {
    fn of(self, file: &Path) -> ReplayError {
        match self {
            Self::Recording(error) => ReplayError::Recording(file.to_owned(), error),
            Self::CaptureFile(error) => ReplayError::CaptureFile(file.to_owned(), error),
        }
    }
}

/// Where the records come from.
enum Source {
    Recording(Box<Recording>),
    CaptureFile(Box<CaptureFile>),
}

impl Source {
    fn open(path: &Path, wanted_bits: u32) -> Result<Self, ReplayError> {
        // Connections of a capture file have two ends: they are seen from the one that the configuration wants.
        let egress = wanted_bits & (wanted::EGRESS_INTERNAL | wanted::EGRESS_EXTERNAL) != 0;
        let view = if egress { View::Client } else { View::Server };
        if is_arrow(path).map_err(|error| ReplayError::CaptureFile(path.to_owned(), error.into()))? {
            let recording = Recording::open(path);
            return recording
                .map(|r| Self::Recording(Box::new(r)))
                .map_err(|error| ReplayError::Recording(path.to_owned(), error));
        }
        let file = CaptureFile::open(path, view);
        file.map(|f| Self::CaptureFile(Box::new(f))).map_err(|error| ReplayError::CaptureFile(path.to_owned(), error))
    }

    fn format(&self) -> &'static str {
        match self {
            Self::Recording(_) => "recording",
            Self::CaptureFile(_) => "capture",
        }
    }

    fn progress(&self) -> (u64, u64) {
        match self {
            Self::Recording(recording) => recording.progress(),
            Self::CaptureFile(file) => file.progress(),
        }
    }

    fn packets(&self) -> Option<PacketCounts> {
        match self {
            Self::Recording(_) => None,
            Self::CaptureFile(file) => Some(file.counts()),
        }
    }

    fn read(&mut self) -> Result<Option<Chunk>, SourceError> {
        let (batch, wall, now_ns) = match self {
            Self::Recording(recording) => {
                let batch = recording.read().map_err(SourceError::Recording)?;
                let now_ns = batch.as_ref().map_or(0, last_time);
                (batch, recording.wall(), now_ns)
            }
            Self::CaptureFile(file) => {
                let batch = file.read().map_err(SourceError::CaptureFile)?;
                (batch, WallOffset(0), file.now_ns())
            }
        };
        let at = self.progress().0;
        Ok(batch.map(|batch| Chunk { batch, now_ns, wall, at }))
    }
}

fn is_arrow(path: &Path) -> std::io::Result<bool> {
    use std::io::Read as _;
    let mut first = Vec::new();
    std::fs::File::open(path)?.take(4).read_to_end(&mut first)?;
    Ok(first == [0xff; 4])
}

fn last_time(batch: &RecordBatch) -> u64 {
    Records::of(batch).and_then(|records| records.rows().map(|row| row.time_ns).max()).unwrap_or(0)
}

/// How far the replay has come, for people.
struct Progress(ProgressBar);

impl Progress {
    fn new(options: &Options, len: u64) -> Self {
        if !options.progress || !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let style = "{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
        let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
        Self(ProgressBar::new(len).with_style(style))
    }

    fn at(&self, bytes: u64) {
        self.0.set_position(bytes);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
