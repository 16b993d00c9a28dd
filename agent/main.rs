//! `ringtap`: reads the command line, does it, and says with the exit code how it went.
#![forbid(unsafe_code)]

use std::{
    io::{IsTerminal as _, Read as _, Write as _},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context as _;
use clap::Parser as _;
use ringtap::{
    alone::NotAlone,
    bench,
    changes::{self, Changes},
    cli::{
        Bench, Cli, Command, CommonArgs, DoctorArgs, KnownArgs, LogEncoding, LogLevel, RecordArgs, ReplayArgs, RunArgs,
        ShowArgs, SignatureArgs, StatusArgs, ValidateArgs,
    },
    config::{self, Config, DATA_DIR, Problem, effective, exposed, schema},
    doctor,
    probe::{
        hold,
        kernel::KernelError,
        signatures::{Entry, Signatures},
    },
    process::parse_tags,
    quiet::Quiet,
    replay::{self, ReplayError},
    run,
    show::{self, Place, ShowError},
    sink::SinkError,
    status, top,
};
use ringtap_batch::budget::Budgets;
use tracing_subscriber::{Layer as _, filter::FilterExt as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The configuration, the privileges or the kernel do not allow a start; or the command line is wrong.
const EXIT_CANNOT_START: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Some(Command::Validate(arguments)) => validate(&arguments),
        Some(Command::Doctor(arguments)) => examine(&arguments),
        Some(Command::Top(arguments)) => top::top(&arguments).map(|()| ExitCode::SUCCESS),
        Some(Command::Status(arguments)) => print_status(&arguments),
        Some(Command::Signature(arguments)) => print_signature(&arguments),
        Some(Command::HoldGuard) => hold::guard().map(|()| ExitCode::SUCCESS).map_err(Into::into),
        Some(Command::Schema) => print_schema(),
        Some(Command::ReloadConfig) => reload_config(),
        Some(Command::Run(arguments)) => capture(&arguments),
        Some(Command::Record(arguments)) => record(&arguments),
        Some(Command::Replay(arguments)) => replay(&arguments),
        Some(Command::Show(arguments)) => show_objects(&arguments),
        Some(Command::Bench(Bench::Capacity(arguments))) => bench::capacity(&arguments).map(|()| ExitCode::SUCCESS),
        None => capture(&cli.run),
    };
    result.unwrap_or_else(|error| {
        eprintln!("ringtap: {error:#}");
        let cannot_start = error.is::<KernelError>()
            || error.is::<SinkError>()
            || error.is::<CannotStart>()
            || error.is::<NotAlone>()
            || error.is::<WrongSignatures>()
            || error.is::<ReplayError>()
            || error.downcast_ref::<ShowError>().is_some_and(ShowError::is_usage);
        if cannot_start { ExitCode::from(EXIT_CANNOT_START) } else { ExitCode::FAILURE }
    })
}

/// The configuration keeps the agent from starting; what is wrong was printed.
#[derive(Debug, thiserror::Error)]
#[error("the configuration is not valid")]
struct CannotStart;

/// A file of signatures cannot be read, or not be understood.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct WrongSignatures(String);

fn capture(arguments: &RunArgs) -> anyhow::Result<ExitCode> {
    let (config, budgets) = set_up(&arguments.common)?;
    let shards = shards_or(&arguments.common, run::default_shards);
    for (flag, why) in arguments.compatible.not_acting() {
        tracing::warn!("{flag} does not act: {why}");
    }
    let admin = arguments.status_listen.unwrap_or(arguments.httpd_listen).0;
    let mut options = run_options(&arguments.common, shards, arguments.ring_size, budgets, admin);
    options.hold_new = arguments.hold_new_processes;
    options.signatures = known(&arguments.known)?;
    options.runtimes = Some(arguments.runtimes.runtimes());
    options.devtools = arguments.enable_dev_tools.then(|| arguments.dev_tools_token.clone());
    options.beside = arguments.beside;
    options.keep_privileges = arguments.keep_privileges;
    print_report(&run::run(config, &options)?)
}

fn record(arguments: &RecordArgs) -> anyhow::Result<ExitCode> {
    let (config, budgets) = set_up(&arguments.common)?;
    let shards = shards_or(&arguments.common, run::default_shards);
    let mut options = run_options(&arguments.common, shards, arguments.ring_size, budgets, None);
    options.signatures = known(&arguments.known)?;
    options.runtimes = Some(arguments.runtimes.runtimes());
    print_report(&run::record(config, &options, &arguments.output, arguments.redact)?)
}

fn run_options(
    common: &CommonArgs,
    shards: u32,
    ring_bytes: u32,
    budgets: Budgets,
    admin: Option<std::net::SocketAddr>,
) -> run::Options {
    run::Options {
        shards,
        ring_bytes,
        budgets,
        admin,
        file: common.config.clone().filter(|file| file != Path::new("-")),
        data_dir: common.data_dir.clone(),
        body: common.http_buffer_size.map(|_| budgets.body),
        tags: parse_tags(&common.tags),
        hold_new: false,
        signatures: Arc::default(),
        runtimes: None,
        devtools: None,
        beside: false,
        keep_privileges: true,
    }
}

/// Builds without symbols that are known.
fn known(arguments: &KnownArgs) -> anyhow::Result<Arc<Signatures>> {
    let read = Signatures::with(arguments.signatures.as_deref());
    Ok(Arc::new(read.map_err(WrongSignatures)?))
}

fn print_signature(arguments: &SignatureArgs) -> anyhow::Result<ExitCode> {
    let SignatureArgs { file, program } = arguments;
    let name = || file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let made = Entry::make(file, &program.clone().unwrap_or_else(name));
    let (entry, undecided) = made.map_err(|why| anyhow::anyhow!("{}: {why}", file.display()))?;
    for undecided in undecided {
        eprintln!("left out: {undecided}");
    }
    print!("{entry}");
    Ok(ExitCode::SUCCESS)
}

fn print_status(arguments: &StatusArgs) -> anyhow::Result<ExitCode> {
    let address = arguments.agent.0.context("`--agent` names no address")?;
    let status = status::status(address)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&status).context("the status cannot be written")?);
    } else {
        print!("{}", status.text());
    }
    Ok(if status.ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn examine(arguments: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let (config, known) = (arguments.config.as_deref(), arguments.known.signatures.as_deref());
    let report = doctor::examine(config, known, arguments.hold_new_processes, arguments.agent.0)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report).context("the report cannot be written")?);
    } else {
        print!("{}", report.text());
    }
    Ok(if report.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_report(report: &run::Report) -> anyhow::Result<ExitCode> {
    std::io::stderr().write_all(report.table.as_bytes()).context("cannot print the ledger")?;
    warn_unless(report.balanced);
    Ok(ExitCode::SUCCESS)
}

fn replay(arguments: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let (config, budgets) = set_up(&arguments.common)?;
    let file = arguments.file.clone();
    // Nothing else runs beside a replay: it takes all processors.
    let shards = shards_or(&arguments.common, || run::default_shards() * 2);
    let options = replay::Options { file, shards, budgets, progress: true, tags: parse_tags(&arguments.common.tags) };
    let (summary, fault) = replay::replay(config, &options)?;
    if arguments.json {
        println!("{}", serde_json::to_string(&summary).context("the summary cannot be written")?);
    } else {
        eprint!("{}", summary.table);
    }
    warn_unless(summary.balanced);
    match fault {
        None => Ok(ExitCode::SUCCESS),
        Some(fault) => Err(anyhow::Error::new(fault).context("the replay has ended early")),
    }
}

/// Log, configuration, budgets.
fn set_up(arguments: &CommonArgs) -> anyhow::Result<(Config, Budgets)> {
    set_up_log(arguments);
    let mut config = match &arguments.config {
        None => config::embedded(&arguments.data_dir),
        Some(file) => read_config(file, &arguments.data_dir)?,
    };
    config.keep_below(&arguments.data_dir);
    let mut budgets = config.budgets;
    if let Some(body) = arguments.http_buffer_size {
        budgets.body = usize::try_from(body).context("the body limit is too large")?;
    }
    Ok((config, budgets))
}

fn shards_or(arguments: &CommonArgs, default: fn() -> u32) -> u32 {
    if arguments.shards > 0 { arguments.shards } else { default() }
}

fn warn_unless(balanced: bool) {
    if !balanced {
        tracing::error!("the ledger does not balance; this is a defect, please report it with the table above");
    }
}

fn validate(arguments: &ValidateArgs) -> anyhow::Result<ExitCode> {
    let (name, text) = read_text(&arguments.file, Path::new(DATA_DIR))?;
    let config::File { document, written, config, warnings } =
        config::read_whole(&name, &text).map_err(|problems| {
            print_all("error", &problems);
            CannotStart
        })?;
    print_all("warning", &warnings);
    if arguments.strict && !warnings.is_empty() {
        anyhow::bail!("{} warnings, and --strict allows none", warnings.len());
    }
    if arguments.effective {
        print!("{}", effective::print(&document, written).context("the configuration cannot be written")?);
    }
    match &arguments.against {
        Some(recording) => print_changes(&config, arguments.than.as_deref(), recording)?,
        None if !arguments.effective => println!("Config is valid."),
        None => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn print_changes(new: &Config, than: Option<&Path>, recording: &Path) -> anyhow::Result<()> {
    let old = match than {
        None => config::embedded(Path::new(DATA_DIR)),
        Some(file) => {
            let (name, text) = read_text(file, Path::new(DATA_DIR))?;
            config::read(&name, &text)
                .map_err(|problems| {
                    print_all("error", &problems);
                    CannotStart
                })?
                .0
        }
    };
    let Changes { transactions, changed, kinds, examples } = changes::compare(&old, new, recording)?;
    println!("{changed} of {transactions} recorded transactions would have another outcome.");
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by(|(a, n), (b, m)| m.cmp(n).then_with(|| a.cmp(b)));
    for ((before, after), n) in kinds {
        println!("{n:>8}  {before} → {after}");
    }
    if !examples.is_empty() {
        println!("\nThe first of them:");
        examples.iter().for_each(|example| println!("  {example}"));
    }
    Ok(())
}

fn show_objects(arguments: &ShowArgs) -> anyhow::Result<ExitCode> {
    let in_stores = |name: &String| name != "-" && !name.contains('/');
    let places = match (&arguments.from, &arguments.config) {
        (Some(folder), _) => vec![Place::Folder(folder.clone())],
        // What is handed over needs no store.
        _ if arguments.last.is_none() && !arguments.objects.iter().any(in_stores) => Vec::new(),
        (None, Some(file)) => show::places(&read_config(file, &arguments.data_dir)?),
        (None, None) => show::places(&config::embedded(&arguments.data_dir)),
    };
    show::show(arguments, &places)?;
    Ok(ExitCode::SUCCESS)
}

fn print_schema() -> anyhow::Result<ExitCode> {
    println!("{}", serde_json::to_string_pretty(&schema::schema()).context("the schema cannot be written")?);
    Ok(ExitCode::SUCCESS)
}

/// Sends SIGHUP to the agents on this machine that wait for it.
fn reload_config() -> anyhow::Result<ExitCode> {
    let agents = ringtap::process::running_agents();
    anyhow::ensure!(!agents.is_empty(), "no agent runs on this machine that this user can see");
    for agent in agents {
        let id = i32::try_from(agent).ok().and_then(rustix::process::Pid::from_raw).context("no such process")?;
        rustix::process::kill_process(id, rustix::process::Signal::HUP)
            .with_context(|| format!("cannot signal process {agent}"))?;
        println!("asked process {agent} to reload; its log says how that went");
    }
    Ok(ExitCode::SUCCESS)
}

fn read_config(file: &Path, data_dir: &Path) -> anyhow::Result<Config> {
    let (name, text) = read_text(file, data_dir)?;
    match config::read(&name, &text) {
        Ok((config, warnings)) => {
            for warning in warnings {
                tracing::warn!("{warning}");
            }
            for warning in exposed::warnings(file, &text) {
                tracing::warn!("{warning}");
            }
            Ok(config)
        }
        Err(problems) => {
            print_all("error", &problems);
            Err(CannotStart.into())
        }
    }
}

fn read_text(file: &Path, data_dir: &Path) -> anyhow::Result<(String, String)> {
    if file.to_str().is_some_and(|name| name.starts_with("http://") || name.starts_with("https://")) {
        eprintln!("ringtap: a configuration is a file in this version, not a URL: {}", file.display());
        return Err(CannotStart.into());
    }
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
        return Ok(("standard input".into(), config::with_data_dir(&text, data_dir)));
    }
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|error| {
        eprintln!("ringtap: cannot read {name}: {error}");
        CannotStart
    })?;
    Ok((name, config::with_data_dir(&text, data_dir)))
}

fn print_all(kind: &str, problems: &[Problem]) {
    for problem in problems {
        eprintln!("{kind}: {problem}");
    }
}

fn set_up_log(arguments: &CommonArgs) {
    let level = match arguments.log_level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    };
    let terminal = std::io::stderr().is_terminal();
    let encoding = arguments.log_encoding.unwrap_or(if terminal { LogEncoding::Console } else { LogEncoding::Json });
    // Libraries below speak only of what went wrong: their chatter is not ours.
    let ours = tracing_subscriber::filter::filter_fn(move |metadata| {
        let limit = if metadata.target().starts_with("ringtap") { level } else { tracing::Level::ERROR };
        *metadata.level() <= limit
    });
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let layer = match encoding {
        LogEncoding::Console => layer.with_ansi(terminal).boxed(),
        LogEncoding::Json => layer.json().boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(ours.and(Quiet::default()))).init();
}
