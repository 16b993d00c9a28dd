//! The running agent: kernel, capture, stores, and the order in which they stop.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use ringtap_batch::{
    budget::{Budgets, Memory},
    ids::Ids,
    interest::NoBodies,
    ledger::Ledger,
    process::Processes,
    shard::Context,
};
use tokio::task::JoinSet;

use crate::{
    admin::{self, Health, Told},
    alone,
    config::{Config, checked::ProcessRules},
    containers::{self, Runtimes},
    coverage::Coverage,
    devtools::{Devtools, Feed, access::Access},
    files::{Files, uring_allowed},
    live::{self, Asked, Live, Target, boot_ns},
    metrics::Metrics,
    pipeline::{Out, Pipeline},
    privileges::{self, Needs},
    probe::{
        kernel::{Kernel, Settings},
        signatures::Signatures,
    },
    process::ProcessTable,
    recording::{Recorder, Redactor},
    reload::{Reloader, Slot},
    sink::{
        Patience,
        console::Console,
        delivery::{Delivery, Ground},
        rollups::Rollups,
    },
    spool::Spool,
    stack::Stacks,
};

/// How often memory that is free goes back to the system.
const GIVE_BACK: Duration = Duration::from_secs(5);
/// The whole shutdown, from the signal to the exit.
const SHUTDOWN: Duration = Duration::from_secs(5);
/// Part of it that is kept for closing down after the stores.
const RESERVE: Duration = Duration::from_millis(500);

/// What the command line adds to the configuration.
#[derive(Debug, Clone)]
pub struct Options {
    /// Rings, a power of two.
    pub shards: u32,
    /// Bytes of one ring, a power of two.
    pub ring_bytes: u32,
    /// What may be kept.
    pub budgets: Budgets,
    /// Where the admin server listens, if it does.
    pub admin: Option<SocketAddr>,
    /// The configuration's file, to be read again when it changes.
    pub file: Option<PathBuf>,
    /// What `{{DATA_DIR}}` stands for in it.
    pub data_dir: PathBuf,
    /// The body limit, if the command line sets it.
    pub body: Option<usize>,
    /// `key:value` tags of everything.
    pub tags: Vec<String>,
    /// Stop processes that bring a file which was not looked at yet.
    pub hold_new: bool,
    /// Builds whose functions are known without symbols.
    pub signatures: Arc<Signatures>,
    /// Where containers have their names.
    pub runtimes: Option<Runtimes>,
    /// Whether `/devtools` is served, and the token that it asks for, if one was given.
    pub devtools: Option<Option<String>>,
    /// Whether other agents may capture on this machine.
    pub beside: bool,
    /// Whether the agent stays as privileged as it was started.
    pub keep_privileges: bool,
}

/// How a capture went.
#[derive(Debug)]
pub struct Report {
    /// The ledger, for people.
    pub table: String,
    /// Whether it adds up.
    pub balanced: bool,
}

/// Captures until a signal.
///
/// # Errors
///
/// The capture or a store cannot be set up.
pub fn run(config: Config, options: &Options) -> anyhow::Result<Report> {
    let ledger = Arc::new(Ledger::default());
    let _claim = if options.beside { None } else { alone::claim()? };
    let health = Arc::new(Health::new(options.file.clone()));
    // First: without the privilege nothing else matters.
    let kernel = Kernel::load(settings(&config, options))?;
    give_up_privileges(&kernel, options);
    let (console, console_thread) =
        Console::start(Patience::None).context("cannot start the writer of standard output")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime of the stores")?;
    let memory = Arc::new(Memory::new(options.budgets.agent));
    let ground = ground(&config, options, console.clone(), &ledger, &memory)?;
    let (delivery, rollups) = {
        let _inside = runtime.enter();
        let (counts, patience) = ((&ledger, &memory), ground.patience);
        let rollups = Rollups::start(config.rollups.as_ref(), &config.stores, &hostname(), counts, patience)?;
        (Delivery::start(&config.stores, &ground)?, rollups)
    };
    tell_orphans(ground.spool.as_deref());
    let spool = ground.spool.clone();
    let (signals, mut hangup) = runtime.block_on(async { listen() }).context("cannot listen for signals")?;
    let processes = Arc::new(ProcessTable::new(config.processes));
    processes.governed().set_budget(config.probes);
    name_containers(&runtime, &processes, options);
    let devtools = devtools(options)?;
    let feed = devtools.as_ref().map(|devtools| devtools.feed.clone());
    let stacks = Arc::new(Stacks { shown: feed.is_some(), ..config.stacks });
    let metrics = Arc::new(Metrics::default());
    let context = Arc::new(Context {
        names: Arc::default(),
        processes: processes.clone(),
        ids: Arc::new(ids()),
        ledger: ledger.clone(),
        wanted: config.wanted,
        budgets: options.budgets,
        memory: memory.clone(),
        interest: stacks.clone(),
        hostname: hostname(),
        tags: options.tags.clone(),
        report_connections: delivery.to.events(Some(0)).is_some() || stacks.has_metrics(),
    });
    let (to, rollup) = (delivery.to.clone(), rollups.to.clone());
    let out = Out { stacks: stacks.clone(), to, rollup, console, metrics: metrics.clone(), feed: feed.clone() };
    let target = Target::Pipeline(Pipeline::new(&context, options.shards, out));
    let mut reloader = Reloader {
        file: options.file.clone(),
        data_dir: options.data_dir.clone(),
        body: options.body,
        context: context.clone(),
        ground,
        spool: config.stores.spool,
        metrics: metrics.clone(),
        feed,
        health: health.clone(),
        processes: processes.clone(),
        slot: Slot::default(),
        stacks: Arc::new(RwLock::new(stacks)),
        delivery,
        rollups,
        before: JoinSet::new(),
    };
    let kernel_counts = Arc::default();
    let coverage = Arc::new(Coverage::new(processes));
    let told = Told {
        coverage: coverage.clone(),
        ledger: ledger.clone(),
        kernel: Arc::clone(&kernel_counts),
        memory,
        stacks: reloader.stacks.clone(),
        metrics,
        spool,
        health: health.clone(),
        devtools,
        local: options.admin.is_some_and(|address| address.ip().is_loopback()),
    };
    let slot = reloader.slot.clone();
    let asked =
        Asked { ring_bytes: options.ring_bytes, hold_new: options.hold_new, signatures: options.signatures.clone() };
    let tells = live::Told { coverage, ledger: ledger.clone(), kernel: kernel_counts, health: health.clone() };
    // Before the probes, so that whoever asks learns that they are being put in place.
    if let Some(address) = options.admin
        && let Err(error) = runtime.block_on(admin::listen(address, told.clone()))
    {
        tracing::error!(%error, "no metrics, and no health: cannot listen on {address}; it is tried again");
        runtime.spawn(admin::listen_later(address, told));
    }
    let (live, ended) = Live::start(kernel, asked, tells, target, slot)?;
    if !options.keep_privileges
        && let Err(error) = privileges::refuse_calls()
    {
        tracing::warn!("{error}");
    }
    tracing::info!("capturing; stop with Ctrl-C");
    runtime.block_on(async {
        tokio::select! {
            () = until_stopped(signals, ended) => {}
            () = reloader.watch(&mut hangup) => {}
        }
    });
    let stopped = Instant::now();
    health.stops();
    runtime.spawn(stop_at_once());
    // Else the capture could wait for a store for ever.
    reloader.delivery.to.hurry();
    let counters = live.stop()?;
    let left = SHUTDOWN.saturating_sub(stopped.elapsed() + RESERVE);
    drop(context);
    runtime.block_on(reloader.drain(left));
    // A disk that hangs must not keep us.
    runtime.shutdown_timeout(RESERVE);
    if !console_thread.join(RESERVE) {
        tracing::warn!("standard output is not read; lines that wait are lost");
    }
    Ok(Report { table: ledger.table(&counters), balanced: ledger.balance(&counters).is_ok() })
}

/// What outlives configurations. A spool that cannot be used is a warning: the capture is worth more.
fn ground(
    config: &Config,
    options: &Options,
    console: Console,
    ledger: &Arc<Ledger>,
    memory: &Arc<Memory>,
) -> anyhow::Result<Ground> {
    let files = Files::start(uring_allowed()).context("cannot start the writer of files")?;
    let open = |spool| Spool::open(spool, &options.data_dir, files.clone(), ledger);
    let spool = config.stores.spool.as_ref().and_then(|spool| {
        open(spool).inspect_err(|error| tracing::warn!("{error}; what stores do not take waits in memory alone")).ok()
    });
    Ok(Ground {
        console,
        ledger: ledger.clone(),
        memory: memory.clone(),
        patience: Patience::None,
        files,
        spool: spool.map(Arc::new),
        stops: tokio::sync::watch::Sender::new(false),
    })
}

/// Threads that begin from here on have what a capture needs, and no more.
fn give_up_privileges(kernel: &Kernel, options: &Options) {
    if options.keep_privileges {
        return;
    }
    let needs = Needs {
        perf_events: kernel.has_perf_events(),
        hold_new: options.hold_new,
        low_port: options.admin.is_some_and(|address| address.port() < 1024),
    };
    match privileges::drop_capabilities(needs) {
        Ok(left) => tracing::debug!("privileges that are left: {}", left.join(", ")),
        Err(error) => tracing::warn!("the agent stays as privileged as it was started: {error}"),
    }
}

/// The page, if it was asked for and there is a server that it can be on.
fn devtools(options: &Options) -> anyhow::Result<Option<Arc<Devtools>>> {
    let Some(token) = &options.devtools else { return Ok(None) };
    let Some(address) = options.admin else {
        tracing::warn!("no /devtools: there is no server, by --httpd-listen");
        return Ok(None);
    };
    let access = Access::new(address, token.as_deref(), &options.data_dir);
    let access = access.context("cannot keep the token of /devtools")?;
    Ok(Some(Arc::new(Devtools::new(Arc::new(Feed::new(Some(address.port()))), access, hostname()))))
}

fn tell_orphans(spool: Option<&Spool>) {
    for (log, store) in spool.map(Spool::orphans).unwrap_or_default() {
        tracing::warn!(log, "the spool holds things for `{store}`, which the configuration does not have any more");
    }
}

/// Records until a signal, into a file that `ringtap replay` reads.
///
/// # Errors
///
/// The capture cannot be set up, or the file cannot be written.
pub fn record(config: Config, options: &Options, file: &Path, redact: bool) -> anyhow::Result<Report> {
    let ledger = Arc::new(Ledger::default());
    let kernel = Kernel::load(settings(&config, options))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (signals, _hangup) = runtime.block_on(async { listen() }).context("cannot listen for signals")?;
    // Environments and arguments can hold secrets: a recording without secrets has none of them.
    let mut rules = config.processes;
    if redact {
        rules = ProcessRules { filters: rules.filters, ..ProcessRules::default() };
    }
    let processes = Arc::new(ProcessTable::new(rules));
    // Labels can hold them too.
    if !redact {
        name_containers(&runtime, &processes, options);
    }
    let known: Arc<dyn Processes> = processes.clone();
    let target = if redact {
        // What is written is not what was read: its rows are counted by nobody.
        let recorder = Recorder::create(file, &hostname(), known.clone(), Arc::default())?;
        let context = Arc::new(Context {
            names: Arc::default(),
            processes: known,
            ids: Arc::new(ids()),
            ledger: ledger.clone(),
            wanted: config.wanted,
            budgets: options.budgets,
            memory: Arc::new(Memory::new(options.budgets.agent)),
            interest: Arc::new(NoBodies),
            hostname: hostname(),
            tags: Vec::new(),
            report_connections: true,
        });
        Target::Redactor(Box::new(Redactor::new(&context, options.shards, recorder)))
    } else {
        Target::Recorder(Box::new(Recorder::create(file, &hostname(), known, ledger.clone())?))
    };
    let coverage = Arc::new(Coverage::new(processes));
    let asked = Asked { ring_bytes: options.ring_bytes, hold_new: false, signatures: options.signatures.clone() };
    let health = Arc::new(Health::new(None));
    let told = live::Told { coverage, ledger: ledger.clone(), kernel: Arc::default(), health };
    let (live, ended) = Live::start(kernel, asked, told, target, Slot::default())?;
    tracing::info!("recording into {}; stop with Ctrl-C", file.display());
    runtime.block_on(until_stopped(signals, ended));
    let counters = live.stop()?;
    Ok(Report { table: ledger.table(&counters), balanced: ledger.balance(&counters).is_ok() })
}

fn name_containers(runtime: &tokio::runtime::Runtime, processes: &Arc<ProcessTable>, options: &Options) {
    let _inside = runtime.enter();
    if let Some(runtimes) = options.runtimes.clone() {
        containers::start(processes, runtimes);
    }
}

fn settings(config: &Config, options: &Options) -> Settings {
    Settings { wanted: config.wanted, shards: options.shards, ring_bytes: options.ring_bytes }
}

async fn until_stopped(signals: Signals, ended: tokio::sync::oneshot::Receiver<()>) {
    tokio::select! {
        () = signals.wait() => tracing::info!("stopping"),
        // A thread lets go of its end only by ending.
        _ = ended => tracing::error!("a thread of the capture has ended by itself; stopping"),
        () = give_memory_back() => {}
    }
}

/// What a burst, or the start, has left behind: the allocator looks for memory that was free for a while when a thread
/// ends, and ours do not end.
async fn give_memory_back() {
    loop {
        tokio::time::sleep(GIVE_BACK).await;
        // Without a thread it is tried again later.
        let _ = std::thread::Builder::new().spawn(|| drop(std::hint::black_box(vec![0u8; 64])));
    }
}

/// Who asks twice does not want to wait.
async fn stop_at_once() {
    if let Ok(again) = Signals::listen() {
        again.wait().await;
        tracing::error!("stopped at once; what was on its way is lost uncounted");
        std::process::exit(1);
    }
}

/// The signals that end the agent, and the one that makes it read its configuration again; the recorder only survives it.
fn listen() -> std::io::Result<(Signals, tokio::signal::unix::Signal)> {
    use tokio::signal::unix::{SignalKind, signal};
    Ok((Signals::listen()?, signal(SignalKind::hangup())?))
}

/// One for two processors, a power of two.
#[must_use]
pub fn default_shards() -> u32 {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let half = u32::try_from(processors / 2).unwrap_or(1).clamp(1, 32);
    half.next_power_of_two()
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

/// Name of this host.
pub(crate) fn hostname() -> String {
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
