//! The configuration, checked: what the agent runs with.

use std::{path::PathBuf, time::Duration};

use regex::Regex;
use ringtap_batch::{budget::Budgets, process::Process};

pub use super::written::WhenFull;
use super::written::{Compression, Protocol};
use crate::{sink::template::access_url, stack::Stacks};

/// What the agent runs with.
#[derive(Debug)]
pub struct Config {
    /// Where events and objects go.
    pub stores: Stores,
    /// Where transactions go as rows.
    pub rollups: Option<Rollups>,
    /// What is made of transactions.
    pub stacks: Stacks,
    /// Bits of [`ringtap_batch::ring::abi::wanted`].
    pub wanted: u32,
    /// Which processes are left alone, and what is said of the others.
    pub processes: ProcessRules,
    /// What may be kept.
    pub budgets: Budgets,
    /// What its probes may cost a process, in thousandths of its processor time; 0: as much as they do.
    pub probes: u32,
}

impl Config {
    /// Folders that are not named lie below this one.
    pub fn keep_below(&mut self, data_dir: &std::path::Path) {
        if let Some(rollups) = self.rollups.as_mut().filter(|rollups| rollups.is_default_path) {
            rollups.path = data_dir.join("rollups");
        }
    }
}

/// Which processes are left alone, and what is said of the others.
#[derive(Debug, Default)]
pub struct ProcessRules {
    /// Left alone.
    pub filters: Vec<ProcessFilter>,
    /// Tags: a key, and a detail of the process by its name.
    pub tags: Vec<(String, String)>,
    /// Variables of the environment that rules and tags name.
    pub variables: Vec<String>,
    /// Whether rules name the arguments that it was started with. Nobody else gets them: they can hold secrets.
    pub arguments: bool,
    /// Whether they name its control group.
    pub cgroup: bool,
}

impl ProcessRules {
    /// Adds the tags that the details of a process give.
    pub fn add_tags(&self, process: &mut Process) {
        for (key, detail) in &self.tags {
            let tag = process.detail(detail).map(|value| format!("{key}:{value}"));
            if let Some(tag) = tag.filter(|tag| !process.tags.contains(tag)) {
                process.tags.push(tag);
            }
        }
    }
}

/// Where events and objects go, in the order of the configuration; the first of each is the default.
#[derive(Debug, Default)]
pub struct Stores {
    /// Events.
    pub events: Vec<EventStore>,
    /// Objects, and the event store that gets their records.
    pub objects: Vec<(ObjectStore, Route)>,
    /// The `id` of each event store.
    pub event_ids: Vec<Option<String>>,
    /// The `id` of each object store.
    pub object_ids: Vec<Option<String>>,
    /// Where waits what they do not take; `None`: in memory alone.
    pub spool: Option<Spool>,
}

/// The disk spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spool {
    /// Its folder; `None`: below the folder of data.
    pub path: Option<PathBuf>,
    /// Bytes at most.
    pub bytes_max: u64,
    /// How long something waits at most.
    pub age_max: Duration,
    /// What happens when it is full.
    pub when_full: WhenFull,
}

/// Which of the stores, by its place in the configuration; `None`: none.
pub type Route = Option<usize>;

/// A collector.
#[derive(Debug, Clone)]
pub struct Otel {
    /// Host and port, or a URL for HTTP.
    pub endpoint: String,
    /// How to speak to it.
    pub protocol: Protocol,
    /// Header fields of each request.
    pub headers: Vec<(String, String)>,
    /// Resource attribute `service.name`.
    pub service_name: String,
    /// Resource attribute `environment`.
    pub environment: String,
    /// TLS; `None`: plain.
    pub tls: Option<Tls>,
    /// Of requests.
    pub compression: Compression,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Each field of an event also as an attribute of its own.
    pub flat_attributes: bool,
}

/// TLS towards a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM file of the authorities that are trusted; `None`: the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM files of our own certificate, with its chain, and of its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Whether any certificate is taken.
    pub insecure_skip_verify: bool,
}

/// The ingest interface of Axiom.
#[derive(Debug, Clone)]
pub struct Axiom {
    /// Address of the interface.
    pub url: String,
    /// Name of the dataset.
    pub dataset: String,
    /// Token of the interface.
    pub token: String,
}

/// Where events go.
#[derive(Debug, Clone)]
pub enum EventStore {
    /// Nowhere.
    Disabled,
    /// JSON lines on standard output.
    Stdout,
    /// OTLP logs.
    Otel(Otel),
    /// JSON over HTTP.
    Axiom(Axiom),
}

impl EventStore {
    /// As it is written.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Stdout => "stdout",
            Self::Otel(_) => "otel",
            Self::Axiom(_) => "axiom",
        }
    }
}

/// Where objects go.
#[derive(Debug, Clone)]
pub enum ObjectStore {
    /// Nowhere.
    Disabled,
    /// JSON lines on standard output.
    Stdout,
    /// An S3-compatible service.
    S3(S3),
    /// OTLP logs.
    Otel(Otel),
    /// A folder, and the template of urls.
    Disk {
        /// Folder.
        path: PathBuf,
        /// Template; empty: `file://` and the path.
        access_url: String,
    },
}

impl ObjectStore {
    /// As it is written.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Stdout => "stdout",
            Self::S3(_) => "s3",
            Self::Otel(_) => "otel",
            Self::Disk { .. } => "disk",
        }
    }

    /// Where its objects lie: `{{DIGEST}}` stands for the digest, `{{DIGEST:2}}` for its first two digits. `None`: nowhere
    /// that has a url.
    #[must_use]
    pub fn url_template(&self) -> Option<String> {
        match self {
            Self::S3(s3) => {
                let scheme = if s3.insecure { "http" } else { "https" };
                let template = match s3.access_url.as_str() {
                    "" => "{{SCHEME}}://{{ENDPOINT}}/{{BUCKET}}/{{DIGEST}}",
                    own => own,
                };
                Some(access_url(template, "{{DIGEST}}", &s3.bucket, &s3.endpoint, scheme))
            }
            Self::Disk { path, access_url: own } if own.is_empty() => {
                Some(format!("file://{}/{{{{DIGEST:2}}}}/{{{{DIGEST}}}}", path.display()))
            }
            Self::Disk { access_url: own, .. } => Some(access_url(own, "{{DIGEST}}", "", "", "file")),
            Self::Disabled | Self::Stdout | Self::Otel(_) => None,
        }
    }
}

/// An S3-compatible service.
#[derive(Debug, Clone)]
pub struct S3 {
    /// Host and port.
    pub endpoint: String,
    /// Bucket.
    pub bucket: String,
    /// Region; `None`: the one that is found where the keys are.
    pub region: Option<String>,
    /// Template of urls.
    pub access_url: String,
    /// Plain HTTP.
    pub insecure: bool,
    /// PEM file of the authorities that are trusted instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// `None`: they are looked for where AWS's own programs look.
    pub keys: Option<Keys>,
    /// Which profile they are looked for in; `None`: `AWS_PROFILE`, or the default one.
    pub profile: Option<String>,
    /// What keys of objects begin with.
    pub prefix: String,
    /// Whether the bucket stands in the path, not in the name of the host.
    pub path_style: bool,
    /// As the service names it; `None`: the bucket's default.
    pub storage_class: Option<String>,
    /// `None`: the bucket's default.
    pub encryption: Option<Encryption>,
    /// How long a presigned url can be used.
    pub presign_expiry: Duration,
}

/// What requests are signed with.
#[derive(Clone)]
pub struct Keys {
    /// Access key.
    pub access: String,
    /// Secret key.
    pub secret: String,
    /// Session token, of temporary ones.
    pub token: Option<String>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

/// How an S3 service encrypts what it keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encryption {
    /// By keys of the service's own.
    Aes256,
    /// By a key of the key management service; `None`: the bucket's.
    Kms(Option<String>),
}

/// Transactions as rows in Parquet files.
#[derive(Debug, Clone)]
pub struct Rollups {
    /// Folder of the files, or where they are made and wait for the store.
    pub path: PathBuf,
    /// Whether nobody has named it.
    pub is_default_path: bool,
    /// The store that gets them.
    pub store: Option<S3>,
    /// First part of their keys in it.
    pub prefix: String,
    /// Bytes of a file, about.
    pub max_bytes: u64,
    /// From a file's first row to its end.
    pub max_age: Duration,
    /// Whether header fields are kept.
    pub headers: bool,
    /// Of zstd.
    pub compression_level: i32,
    /// Older files are deleted.
    pub retention: Option<Duration>,
    /// Bytes of files that may wait for the store.
    pub max_waiting: u64,
}

/// Leaves processes alone whose executable matches.
#[derive(Debug)]
pub struct ProcessFilter {
    pub(super) pattern: Pattern,
    /// Bits of [`exclude`].
    pub bits: u32,
}

#[derive(Debug)]
pub(super) enum Pattern {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Contains(String),
    Regex(Regex),
}

impl ProcessFilter {
    /// Whether a path matches.
    #[must_use]
    pub fn matches(&self, exe: &str) -> bool {
        match &self.pattern {
            Pattern::Exact(text) => exe == text,
            Pattern::Prefix(text) => exe.starts_with(text),
            Pattern::Suffix(text) => exe.ends_with(text),
            Pattern::Contains(text) => exe.contains(text),
            Pattern::Regex(regex) => regex.is_match(exe),
        }
    }
}

/// What a process says of itself by `QPOINT_STRATEGY`: a strategy, and filters by its executable. Only `ignore` changes
/// what is done here. `None`: it is not a strategy.
#[must_use]
pub fn is_ignored_by_strategy(value: &str, exe: &str) -> Option<bool> {
    let mut parts = value.split(',').map(str::trim);
    let strategy = parts.next()?;
    if !["observe", "ignore", "audit", "forward", "proxy"].contains(&strategy) {
        return None;
    }
    let mut filters = parts.filter(|part| !part.is_empty()).peekable();
    let every = filters.peek().is_none();
    let mut applies = every;
    for filter in filters {
        let (kind, text) = filter.strip_prefix("exe.")?.split_once(':')?;
        applies |= match kind {
            "exact" => exe == text,
            "prefix" => exe.starts_with(text),
            "suffix" => exe.ends_with(text),
            "contains" => exe.contains(text),
            "regex" => Regex::new(text).is_ok_and(|regex| regex.is_match(exe)),
            _ => return None,
        };
    }
    Some(applies && strategy == "ignore")
}

/// A span of time with its unit: `90s`, `15m`, `1h`, `7d`.
///
/// # Errors
///
/// What is wrong with it.
pub fn parse_span(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.trim().split_at(text.trim().find(|c: char| !c.is_ascii_digit()).unwrap_or(0));
    let seconds = match unit.trim() {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        "d" => Some(86_400),
        _ => None,
    };
    let span = number.parse::<u64>().ok().zip(seconds).and_then(|(n, seconds)| n.checked_mul(seconds));
    span.map(Duration::from_secs).ok_or_else(|| format!("`{text}` is not a span of time such as 90s, 15m, 1h or 7d"))
}

/// A number of bytes with an optional `kb`, `mb` or `gb`, each 1024 times the last, up to 64 gb.
///
/// # Errors
///
/// What is wrong with it.
pub fn parse_size(text: &str) -> Result<usize, String> {
    let lower = text.trim().to_ascii_lowercase();
    let (digits, shift) = [("gb", 30), ("mb", 20), ("kb", 10), ("b", 0)]
        .into_iter()
        .find_map(|(unit, shift)| Some((lower.strip_suffix(unit)?, shift)))
        .unwrap_or((&lower, 0));
    let number: usize = digits.trim().parse().map_err(|_| format!("`{text}` is not a size such as 512kb or 2mb"))?;
    number.checked_mul(1 << shift).filter(|n| *n <= 64 << 30).ok_or_else(|| format!("`{text}` is more than 64gb"))
}
