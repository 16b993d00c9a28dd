//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    config::{DATA_DIR, checked::parse_size},
    containers::Runtimes,
    probe::hold::GUARD as HOLD_GUARD,
};

/// Captures the HTTP transactions of this machine in clear text, out of the path.
#[derive(Debug, Parser)]
#[command(name = "ringtap", version, about, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; `run` if left out.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of `run`.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Capture until Ctrl-C or SIGTERM.
    Run(Box<RunArgs>),
    /// Record what the probes see into a file, for `replay`. Of a configuration only what is captured counts, not where it
    /// goes; nothing else is written.
    Record(RecordArgs),
    /// Measure on this machine.
    #[command(subcommand)]
    Bench(Bench),
    /// Send a recording, or a pcap or pcapng file, through the rules and stores of a configuration.
    Replay(ReplayArgs),
    /// Show stored objects, by the digests that events and rollups have; or as HAR, or as curl commands.
    Show(ShowArgs),
    /// Check a configuration and say what is wrong with it.
    Validate(ValidateArgs),
    /// Say what works on this machine, what does not and why, and which processes stay dark. Asks the agent that runs.
    Doctor(DoctorArgs),
    /// Show the transactions of a running agent as they come, which must serve `/devtools`.
    Top(TopArgs),
    /// Say how a running agent is: whether it captures, what it has seen, and what became of it.
    Status(StatusArgs),
    /// Find the TLS functions of a program without symbols, and print an entry for a file of `--signatures`.
    Signature(SignatureArgs),
    /// The guard of `--hold-new-processes`; not for people.
    #[command(name = HOLD_GUARD, hide = true)]
    HoldGuard,
    /// Print the JSON Schema of configurations, for editors.
    Schema,
    /// Make running agents read their configurations again.
    ReloadConfig,
}

/// Flags of `validate`.
#[derive(Debug, Clone, Args)]
pub struct ValidateArgs {
    /// File, or `-` for standard input.
    pub file: PathBuf,
    /// Print the configuration as it acts: every default filled in, secrets left out.
    #[arg(long)]
    pub effective: bool,
    /// Fail on warnings.
    #[arg(long)]
    pub strict: bool,
    /// A recording, pcap or pcapng file: show which of its transactions would have another outcome than with `--than`.
    #[arg(long, value_name = "RECORDING")]
    pub against: Option<PathBuf>,
    /// The configuration that `--against` compares with; left out: the one that acts when there is no file.
    #[arg(long, value_name = "FILE", env = "QPOINT_CONFIG")]
    pub than: Option<PathBuf>,
}

/// Flags of `signature`.
#[derive(Debug, Clone, Args)]
pub struct SignatureArgs {
    /// Executable or library.
    pub file: PathBuf,
    /// Name and version, for people; left out: the file's name.
    #[arg(long, value_name = "TEXT")]
    pub program: Option<String>,
}

/// Builds without symbols.
#[derive(Debug, Clone, Args)]
pub struct KnownArgs {
    /// More builds of programs without symbols, whose TLS functions are known by place; see `ringtap signature`.
    #[arg(long, env = "RINGTAP_SIGNATURES", value_name = "FILE")]
    pub signatures: Option<PathBuf>,
}

/// Flags of `doctor`.
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// A configuration to check as well.
    #[arg(long, env = "QPOINT_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Check also what `run --hold-new-processes` needs.
    #[arg(long)]
    pub hold_new_processes: bool,
    /// Builds without symbols.
    #[command(flatten)]
    pub known: KnownArgs,
    /// Where the agent serves its metrics; `off`: none is asked.
    #[arg(long, env = "HTTPD_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:10001", value_parser = listen)]
    pub agent: Listen,
}

/// Flags of `top`.
#[derive(Debug, Clone, Args)]
pub struct TopArgs {
    /// Where the agent serves `/devtools`.
    #[arg(long, env = "HTTPD_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:10001", value_parser = listen)]
    pub agent: Listen,
    /// Token that it asks for, where it does.
    #[arg(long, env = "RINGTAP_DEVTOOLS_TOKEN", hide_env_values = true, value_name = "TEXT")]
    pub dev_tools_token: Option<String>,
    /// Show only transactions that this expression of Rulekit matches.
    #[arg(default_value = "", value_name = "RULE")]
    pub rule: String,
}

/// Flags of `status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Where the agent serves its metrics.
    #[arg(long, env = "HTTPD_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:10001", value_parser = listen)]
    pub agent: Listen,
}

/// Flags of `run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Flags of everything that captures or replays.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Stop each process that brings a program or library which was not seen before, until its probes are in place:
    /// nothing is missed of it. A guard lets it go after two seconds, also if the agent hangs or is killed.
    #[arg(long, env = "RINGTAP_HOLD_NEW_PROCESSES")]
    pub hold_new_processes: bool,
    /// Builds without symbols.
    #[command(flatten)]
    pub known: KnownArgs,
    /// Bytes of one ring between kernel and agent, a power of two.
    #[arg(long, env = "RINGTAP_RING_SIZE", value_name = "SIZE", default_value = "32mb", value_parser = ring_size)]
    pub ring_size: u32,
    /// Where metrics are served; `off`: nowhere.
    #[arg(long, env = "HTTPD_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:10001", value_parser = listen)]
    pub httpd_listen: Listen,
    /// Serve the page `/devtools`, which shows every transaction with its bodies to whoever may see it: on a loopback address
    /// everybody on this machine, elsewhere whoever has the token.
    #[arg(long, env = "ENABLE_DEV_TOOLS", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL",
        default_value = "false", require_equals = true)]
    pub enable_dev_tools: bool,
    /// Token that `/devtools` asks for. Left out: none on a loopback address, and elsewhere one that is made and kept in the
    /// data directory, in `devtools-token`.
    #[arg(long, env = "RINGTAP_DEVTOOLS_TOKEN", hide_env_values = true, value_name = "TEXT")]
    pub dev_tools_token: Option<String>,
    /// Stay as privileged as at the start. Else, once its programs are loaded, the agent keeps only the capabilities that a
    /// capture needs, and the kernel refuses it to start programs, to trace others, and what else docs/security.md lists.
    #[arg(long, env = "RINGTAP_KEEP_PRIVILEGES")]
    pub keep_privileges: bool,
    /// Capture also if another agent does on this machine: everything is then captured twice.
    #[arg(long, env = "RINGTAP_BESIDE")]
    pub beside: bool,
    /// Where containers have their names.
    #[command(flatten)]
    pub runtimes: RuntimeArgs,
    /// The same under its old name.
    #[arg(long, env = "STATUS_LISTEN", hide = true, value_parser = listen)]
    pub status_listen: Option<Listen>,
    /// Flags of the program that this is compatible with.
    #[command(flatten)]
    pub compatible: CompatibleArgs,
}

/// Where the runtimes of containers are asked for names, images, labels and pods.
#[derive(Debug, Clone, Args)]
pub struct RuntimeArgs {
    /// Where Docker is asked for names of containers, or Podman.
    #[arg(long, env = "DOCKER_SOCKET", value_name = "PATH", default_value = "/var/run/docker.sock")]
    pub docker_socket_endpoint: PathBuf,
    /// Where containerd is asked.
    #[arg(long, env = "CONTAINERD_SOCKET", value_name = "PATH", default_value = "/run/containerd/containerd.sock")]
    pub containerd_socket_endpoint: PathBuf,
    /// Where the runtime of Kubernetes is asked for pods; left out or empty: containerd, and CRI-O at its usual place.
    #[arg(long, env = "CRI_RUNTIME_SOCKET", value_name = "PATH")]
    pub cri_runtime_socket_endpoint: Option<PathBuf>,
}

impl RuntimeArgs {
    /// The sockets, for whoever asks.
    #[must_use]
    pub fn runtimes(&self) -> Runtimes {
        Runtimes {
            docker: self.docker_socket_endpoint.clone(),
            containerd: self.containerd_socket_endpoint.clone(),
            cri: self.cri_runtime_socket_endpoint.clone().filter(|path| !path.as_os_str().is_empty()),
        }
    }
}

/// Flags of the program that this is compatible with, which are taken and do not act.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = None)]
pub struct CompatibleArgs {
    #[arg(long, env = "BPF_TRACE", hide = true)]
    bpf_trace: Option<String>,
    #[arg(long, env = "CERT_INJECTION", hide = true)]
    cert_injection: Option<String>,
    #[arg(long, env = "SET_TLS_OK", hide = true)]
    set_tls_ok: Option<String>,
    #[arg(long, env = "ENABLE_EGRESS_CONTROLLER", hide = true, num_args = 0..=1, default_missing_value = "true")]
    enable_egress_controller: Option<String>,
    #[arg(long, env = "REGISTRATION_ENDPOINT", hide = true)]
    registration_endpoint: Option<String>,
    #[arg(long, env = "REGISTRATION_TOKEN", hide = true, hide_env_values = true)]
    registration_token: Option<String>,
    #[arg(long, env = "TLS_PROBES", hide = true)]
    tls_probes: Option<String>,
    #[arg(long, env = "SAN_CERT_MAX_SIZE", hide = true)]
    san_cert_max_size: Option<String>,
    #[arg(long, hide = true)]
    audit_log_buffer_size: Option<String>,
    #[arg(long, env = "LOG_CALLER", hide = true, num_args = 0..=1, default_missing_value = "true")]
    log_caller: Option<String>,
}

impl CompatibleArgs {
    /// Those that are given and ask for something, each with why it does not act.
    #[must_use]
    pub fn not_acting(&self) -> Vec<(&'static str, &'static str)> {
        const PROXY: &str = "it is about a proxy in the path, which ringtap is not";
        const CLOUD: &str = "it is about its vendor's services";
        const LATER: &str = "it is not part of this version";
        let all = [
            ("--bpf-trace", &self.bpf_trace, LATER),
            ("--cert-injection", &self.cert_injection, PROXY),
            ("--set-tls-ok", &self.set_tls_ok, PROXY),
            ("--enable-egress-controller", &self.enable_egress_controller, PROXY),
            ("--registration-endpoint", &self.registration_endpoint, CLOUD),
            ("--registration-token", &self.registration_token, CLOUD),
            ("--tls-probes", &self.tls_probes, "every library that is known is probed"),
            ("--san-cert-max-size", &self.san_cert_max_size, PROXY),
            ("--audit-log-buffer-size", &self.audit_log_buffer_size, "it has no effect there either"),
            ("--log-caller", &self.log_caller, LATER),
        ];
        let asked =
            |value: &Option<String>| value.as_deref().is_some_and(|value| !value.is_empty() && value != "false");
        all.into_iter().filter(|(_, value, _)| asked(value)).map(|(flag, _, why)| (flag, why)).collect()
    }
}

/// An address to listen on, or none.
#[derive(Debug, Clone, Copy)]
pub struct Listen(pub Option<SocketAddr>);

/// Flags of `bench capacity`.
#[derive(Debug, Clone, Args)]
pub struct CapacityArgs {
    /// Folder for the results: `capacity.json` and `capacity.html`.
    #[arg(short, long, value_name = "FOLDER", default_value = "capacity")]
    pub output: PathBuf,
    /// Configuration of the agent; its stores receive what the load makes. Left out: objects and events are made and
    /// thrown away.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Seconds that each step is measured.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub seconds: u32,
    /// Body sizes to measure.
    #[arg(long, value_name = "SIZE,…", default_value = "0,1kb,16kb,1mb", value_delimiter = ',', value_parser = size)]
    pub bodies: Vec<u64>,
    /// Transports to measure.
    #[arg(long, value_name = "NAME,…", default_value = "plain,tls", value_delimiter = ',')]
    pub transports: Vec<Transport>,
    /// Capture levels to measure; a configuration of your own has its own.
    #[arg(long, value_name = "NAME,…", default_value = "summary,full", value_delimiter = ',')]
    pub levels: Vec<CapacityLevel>,
    /// Bytes of one ring.
    #[arg(long, value_name = "SIZE", default_value = "32mb", value_parser = ring_size)]
    pub ring_size: u32,
    /// Shares of what the server can do alone, in percent; 100 asks for as much as can be.
    #[arg(
        long,
        value_name = "PERCENT,…",
        default_value = "20,40,60,80,100",
        value_delimiter = ',',
        value_parser = clap::value_parser!(u32).range(1..=100)
    )]
    pub steps: Vec<u32>,
    /// Times that everything is measured, one way after the other; the median counts.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub rounds: u32,
    /// Command of another program that looks at the same traffic, to be measured in the agent's place.
    #[arg(long, value_name = "COMMAND")]
    pub other: Option<String>,
    /// Processors of server and load, as `taskset -c` takes them. Left out: all.
    #[arg(long, value_name = "LIST")]
    pub server_cpus: Option<String>,
    /// Processors of the agent, in the same way.
    #[arg(long, value_name = "LIST")]
    pub agent_cpus: Option<String>,
}

/// What the load speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// HTTP/1.1.
    Plain,
    /// HTTP/1.1 over TLS.
    Tls,
}

/// How much the agent captures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CapacityLevel {
    /// Metadata.
    Summary,
    /// Everything.
    Full,
}

/// What to measure.
#[derive(Debug, Clone, Subcommand)]
pub enum Bench {
    /// What this host can carry, and which ring size to set: raises the load of a real server step by step.
    Capacity(CapacityArgs),
}

/// Flags of `record`.
#[derive(Debug, Clone, Args)]
pub struct RecordArgs {
    /// Flags of everything that captures or replays.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Where containers have their names.
    #[command(flatten)]
    pub runtimes: RuntimeArgs,
    /// Builds without symbols.
    #[command(flatten)]
    pub known: KnownArgs,
    /// Bytes of one ring between kernel and recorder, a power of two.
    #[arg(long, env = "RINGTAP_RING_SIZE", value_name = "SIZE", default_value = "64mb", value_parser = ring_size)]
    pub ring_size: u32,
    /// Write no secrets: of what was understood as HTTP the heads, with values of query and header fields masked where
    /// they are not known to be harmless, and the lengths of bodies.
    #[arg(long)]
    pub redact: bool,
    /// File to write; until it is complete it has `.partial` behind its name.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

/// Flags of `replay`.
#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    /// Flags of everything that captures or replays.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Print a summary as one line of JSON on standard output, after everything else, in place of the ledger.
    #[arg(long)]
    pub json: bool,
    /// The recording, pcap or pcapng file.
    pub file: PathBuf,
}

/// Flags of `show`.
#[derive(Debug, Clone, Args)]
pub struct ShowArgs {
    /// Digests of objects, or how they begin, by four digits or more; a path is taken for a file, `-` for standard input.
    #[arg(value_name = "DIGEST", required_unless_present = "last")]
    pub objects: Vec<String>,
    /// The N objects that were stored last, the newest at the end. Not of a bucket.
    #[arg(long, value_name = "N", conflicts_with = "objects", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub last: Option<u32>,
    /// Print an HTTP Archive (HAR 1.2), for browsers and other tools.
    #[arg(long, conflicts_with = "curl")]
    pub har: bool,
    /// Print curl commands that send the requests again.
    #[arg(long)]
    pub curl: bool,
    /// Look in this folder, not in the stores of a configuration.
    #[arg(long, value_name = "FOLDER")]
    pub from: Option<PathBuf>,
    /// Configuration file, whose `disk` and `s3` object stores are looked into. Left out: the folder of the embedded one.
    #[arg(long, env = "QPOINT_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the agent keeps what it writes.
    #[arg(long, env = "DATA_DIR", value_name = "FOLDER", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
    /// Colours.
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub color: ColorWhen,
}

/// Whether something is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorWhen {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// In any case.
    Always,
    /// Not at all.
    Never,
}

/// Flags of everything that captures or replays.
#[derive(Debug, Clone, Args)]
pub struct CommonArgs {
    /// Configuration file. Without one everything is captured; transactions are printed, and kept under the data directory.
    #[arg(long, env = "QPOINT_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// `key:value` tags of everything that is reported, with commas between.
    #[arg(long, env = "QPOINT_DEPLOYMENT_TAGS", value_name = "TAGS", default_value = "")]
    pub tags: String,
    /// Where the agent keeps what it writes.
    #[arg(long, env = "DATA_DIR", value_name = "FOLDER", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
    /// Bytes of one body that are kept; a longer one is cut, and says so [default: 2mb].
    #[arg(long, env = "HTTP_BUFFER_SIZE", value_name = "SIZE", value_parser = size)]
    pub http_buffer_size: Option<u64>,
    /// Shards, and so rings, that work side by side, a power of two; 0: one for two processors.
    #[arg(long, env = "RINGTAP_SHARDS", value_name = "N", default_value_t = 0, value_parser = shards)]
    pub shards: u32,
    /// How much is said on standard error.
    #[arg(long, env = "LOG_LEVEL", default_value = "info")]
    pub log_level: LogLevel,
    /// Form of what is said; readable on a terminal, JSON elsewhere, if left out.
    #[arg(long, env = "LOG_ENCODING")]
    pub log_encoding: Option<LogEncoding>,
}

/// How much is said.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum LogLevel {
    /// Losses and failures.
    Error,
    /// Also what does not act.
    Warn,
    /// Also what happens seldom.
    Info,
    /// Also what happens often.
    Debug,
    /// Everything.
    Trace,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum LogEncoding {
    /// Readable lines.
    Console,
    /// JSON lines.
    Json,
}

fn size(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text)?;
    if bytes > 2 << 30 { Err(format!("`{text}` is more than 2gb")) } else { Ok(bytes as u64) }
}

fn listen(text: &str) -> Result<Listen, String> {
    if text == "off" || text.is_empty() {
        return Ok(Listen(None));
    }
    let address = text.parse().map_err(|_| format!("`{text}` is not an address such as 127.0.0.1:10001, nor `off`"))?;
    Ok(Listen(Some(address)))
}

fn ring_size(text: &str) -> Result<u32, String> {
    let bytes = size(text)?;
    match u32::try_from(bytes) {
        Ok(bytes) if bytes.is_power_of_two() && (64 << 10..=1 << 30).contains(&bytes) => Ok(bytes),
        _ => Err(format!("`{text}` is not a power of two from 64kb to 1gb")),
    }
}

fn shards(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(n) if n == 0 || (n.is_power_of_two() && n <= 64) => Ok(n),
        _ => Err(format!("`{text}` is not 0 or a power of two up to 64")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn flags_of_the_other_program_are_taken_and_named() {
        let parsed = Cli::try_parse_from([
            "ringtap",
            "--registration-token",
            "t",
            "--tls-probes=openssl",
            "--enable-dev-tools",
            "--status-listen",
            "0.0.0.0:1",
        ]);
        let run = parsed.expect("they are known").run;
        let named: Vec<&str> = run.compatible.not_acting().into_iter().map(|(flag, _)| flag).collect();
        assert_eq!(named, ["--registration-token", "--tls-probes"]);
        assert!(run.status_listen.is_some() && run.enable_dev_tools);
    }

    #[test]
    fn sizes_have_units_and_limits() {
        assert_eq!(size("2mb"), Ok(2 << 20));
        assert_eq!(size("512"), Ok(512));
        assert_eq!(size(" 1 KB "), Ok(1024));
        assert!(size("3gb").is_err() && size("many").is_err() && size("-1").is_err());
        assert!(ring_size("3mb").is_err() && ring_size("4kb").is_err());
        assert!(shards("3").is_err() && shards("128").is_err());
    }
}
