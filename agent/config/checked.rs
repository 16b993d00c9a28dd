//! The configuration, checked: what cannot be acted on is a problem with its place, what need not be is a warning.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use regex::Regex;
use ringtap_batch::{
    budget::Budgets,
    capture::{Capture, Format, Level, Rule},
    ring::abi::{exclude, wanted},
    rules::{Expression, Rules},
};
use serde::de::DeserializeOwned;
use tonic::codegen::http::Uri;

use super::{
    document::{Document, Problem},
    written::{self, EventStoreKind, ObjectStoreKind, Protocol, ValueSource, ValueSourceKind, Written},
};

/// What the agent runs with.
#[derive(Debug)]
pub struct Config {
    /// Where events and objects go.
    pub stores: Stores,
    /// Plugins of the stack for HTTP.
    pub plugins: Plugins,
    /// Bits of [`ringtap_batch::ring::abi::wanted`].
    pub wanted: u32,
    /// Processes that are left alone.
    pub filters: Vec<ProcessFilter>,
    /// What may be kept.
    pub budgets: Budgets,
}

/// Where events and objects go; of several, the first is the default, and the only one that is used so far.
#[derive(Debug)]
pub struct Stores {
    /// Events.
    pub events: Option<EventStore>,
    /// Objects.
    pub objects: Option<ObjectStore>,
}

/// The plugins that act.
#[derive(Debug, Default)]
pub struct Plugins {
    /// `http_capture`.
    pub captures: Vec<Arc<Capture>>,
    /// `access_logs` and `debug`.
    pub logs: Vec<AccessLog>,
    /// `report_usage`.
    pub report_usage: bool,
}

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
    /// TLS.
    pub tls: bool,
}

/// Where events go.
#[derive(Debug, Clone)]
pub enum EventStore {
    /// JSON lines on standard output.
    Stdout,
    /// OTLP logs.
    Otel(Otel),
}

/// Where objects go.
#[derive(Debug, Clone)]
pub enum ObjectStore {
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

/// An S3-compatible service.
#[derive(Debug, Clone)]
pub struct S3 {
    /// Host and port.
    pub endpoint: String,
    /// Bucket.
    pub bucket: String,
    /// Region.
    pub region: String,
    /// Template of urls.
    pub access_url: String,
    /// Plain HTTP.
    pub insecure: bool,
    /// Access key and secret key.
    pub keys: (String, String),
}

/// `access_logs` or `debug`.
#[derive(Debug)]
pub struct AccessLog {
    /// How much, unless a rule says otherwise.
    pub mode: written::Mode,
    /// In which form.
    pub format: written::LogFormat,
    /// The first that matches decides.
    pub rules: Vec<(Expression, written::Mode)>,
}

/// Leaves processes alone whose executable matches.
#[derive(Debug)]
pub struct ProcessFilter {
    pattern: Pattern,
    /// Bits of [`exclude`].
    pub bits: u32,
}

#[derive(Debug)]
enum Pattern {
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

/// Executables of the groups. `qpoint` is the agent itself, which is always left alone.
const GROUPS: [(&str, &[&str]); 6] = [
    ("container", &["/usr/bin/containerd", "/usr/bin/dockerd", "/usr/bin/runc"]),
    ("container-runtimes", &["/usr/bin/containerd", "/usr/bin/dockerd", "/usr/bin/runc"]),
    (
        "eks",
        &[
            "/app/aws-k8s-agent",
            "/usr/bin/amazon-ssm-agent",
            "/usr/bin/ssm-agent-worker",
            "/usr/bin/ssm-document-worker",
        ],
    ),
    (
        "gke",
        &[
            "/home/kubernetes/bin/gcfsd",
            "/event-exporter",
            "/fluent-bit-gke-exporter",
            "/home/kubernetes/bin/node-problem-detector",
        ],
    ),
    (
        "kubernetes",
        &[
            "/home/kubernetes/bin/kubelet",
            "/home/kubernetes/bin/kube-proxy",
            "/proxy-agent",
            "/cluster-proportional-autoscaler",
            "/csi-node-driver-registrar",
        ],
    ),
    ("qpoint", &[]),
];

/// Plugins that are accepted and do not act, with the reason.
const NOT_ACTING: [(&str, &str); 7] = [
    ("http_metrics", "is not part of this version"),
    ("detect_errors", "is not part of this version"),
    ("data_loss_protection", "is not part of this version"),
    ("llm", "is not part of this version"),
    ("qscan", "needs a service of its vendor"),
    ("logger", "has no effect here"),
    ("devtools", "is not part of this version"),
];

/// Checks what was written.
///
/// # Errors
///
/// All problems that keep the agent from starting.
pub fn check(document: &Document, written: Written, warnings: &mut Vec<Problem>) -> Result<Config, Vec<Problem>> {
    let mut checker = Checker { document, warnings, problems: Vec::new() };
    let stores = Stores {
        events: checker.event_store(&written.services.event_stores),
        objects: checker.object_store(&written.services.object_stores),
    };
    let rules = checker.macros(&written.rulekit.macros);
    checker.warn_unused(&written);
    let plugins = checker.plugins(&written, &rules);
    let wanted = wanted_bits(&written.tap);
    let budgets = checker.budgets(&written.tap.budgets);
    let filters = checker.filters(written.tap.filters);
    if checker.problems.is_empty() {
        Ok(Config { stores, plugins, wanted, filters, budgets })
    } else {
        Err(checker.problems)
    }
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

fn wanted_bits(tap: &written::Tap) -> u32 {
    use written::Direction::{All, Egress, EgressExternal, EgressInternal, Ingress};
    let egress = wanted::EGRESS_INTERNAL | wanted::EGRESS_EXTERNAL;
    let direction = match tap.direction {
        All => wanted::INGRESS | egress,
        Ingress => wanted::INGRESS,
        Egress => egress,
        EgressInternal => wanted::EGRESS_INTERNAL,
        EgressExternal => wanted::EGRESS_EXTERNAL,
    };
    direction | if tap.ignore_loopback { 0 } else { wanted::LOOPBACK }
}

struct Checker<'a> {
    document: &'a Document,
    warnings: &'a mut Vec<Problem>,
    problems: Vec<Problem>,
}

impl Checker<'_> {
    fn warn(&mut self, path: &str, message: impl Into<String>) {
        self.warnings.push(self.document.problem(path, message));
    }

    fn refuse(&mut self, path: &str, message: impl Into<String>) {
        self.problems.push(self.document.problem(path, message));
    }

    fn warn_unused(&mut self, written: &Written) {
        let tap = &written.tap;
        for (path, value, why) in [
            ("control", &written.control, "rules that allow or deny need a proxy in the path, which ringtap is not"),
            ("tags", &written.tags, "tags from the environment and labels are not part of this version"),
            ("services.qscan", &written.services.qscan, "needs a service of its vendor"),
            ("tap.endpoints", &tap.endpoints, "stacks by domain are not part of this version"),
            ("tap.redis", &tap.redis, "only HTTP is captured"),
            ("tap.mysql", &tap.mysql, "only HTTP is captured"),
            ("tap.kafka", &tap.kafka, "only HTTP is captured"),
            ("tap.postgres", &tap.postgres, "only HTTP is captured"),
        ] {
            if !value.is_null() {
                self.warn(path, format!("this section does not act: {why}"));
            }
        }
        if tap.audit_include_dns {
            self.warn("tap.audit_include_dns", "connections of name look-ups are not part of this version");
        }
    }

    fn budgets(&mut self, written: &written::Budgets) -> Budgets {
        let default = Budgets::default();
        let mut budget = |name: &str, text: Option<&str>, default: usize| {
            let Some(text) = text else { return default };
            parse_size(text).unwrap_or_else(|reason| {
                self.refuse(&format!("tap.budgets.{name}"), reason);
                default
            })
        };
        let budgets = Budgets {
            body: budget("body", written.body.as_deref(), default.body),
            connection: budget("connection", written.connection.as_deref(), default.connection),
            shard: budget("shard", written.shard.as_deref(), default.shard),
            agent: budget("agent", written.agent.as_deref(), default.agent),
        };
        if budgets.shard < 1 << 20 || budgets.agent < 1 << 20 {
            self.refuse("tap.budgets", "a shard and the agent need at least 1mb each");
        }
        budgets
    }

    fn event_store(&mut self, stores: &[written::EventStore]) -> Option<EventStore> {
        if stores.len() > 1 {
            self.warn("services.event_stores[1]", "only the first event store is used in this version");
        }
        let (path, store) = ("services.event_stores[0]", stores.first()?);
        match store.kind {
            EventStoreKind::Disabled => None,
            EventStoreKind::Stdout => Some(EventStore::Stdout),
            EventStoreKind::Otel => {
                let endpoint = store.endpoint.as_deref();
                let names = (store.service_name.as_deref(), store.environment.as_deref());
                let otel = self.otel(path, endpoint, store.protocol, &store.headers, names, &store.tls);
                Some(EventStore::Otel(otel))
            }
            EventStoreKind::Axiom | EventStoreKind::Pulse => {
                self.warn(&format!("{path}.type"), "this store does not act in this version; events are dropped");
                None
            }
        }
    }

    fn object_store(&mut self, stores: &[written::ObjectStore]) -> Option<ObjectStore> {
        if stores.len() > 1 {
            self.warn("services.object_stores[1]", "only the first object store is used in this version");
        }
        let (path, store) = ("services.object_stores[0]", stores.first()?);
        match store.kind {
            ObjectStoreKind::Disabled => None,
            ObjectStoreKind::Stdout => Some(ObjectStore::Stdout),
            ObjectStoreKind::S3 => self.s3(path, store).map(ObjectStore::S3),
            ObjectStoreKind::Otel => {
                let endpoint = store.otel_endpoint.as_deref();
                let names = (store.service_name.as_deref(), store.environment.as_deref());
                let otel = self.otel(path, endpoint, store.protocol, &store.headers, names, &store.tls);
                Some(ObjectStore::Otel(otel))
            }
            ObjectStoreKind::Disk => {
                let Some(folder) = store.path.clone() else {
                    self.refuse(path, "a disk store needs a `path`");
                    return None;
                };
                let access_url = store.access_url.clone().unwrap_or_default();
                self.check_template(path, &access_url);
                Some(ObjectStore::Disk { path: folder, access_url })
            }
            ObjectStoreKind::Qpoint => {
                self.warn(
                    &format!("{path}.type"),
                    "this store is its vendor's cloud and does not act; objects are dropped",
                );
                None
            }
        }
    }

    fn otel(
        &mut self,
        path: &str,
        endpoint: Option<&str>,
        protocol: Protocol,
        headers: &BTreeMap<String, ValueSource>,
        (service_name, environment): (Option<&str>, Option<&str>),
        tls: &written::Tls,
    ) -> Otel {
        let default = if protocol == Protocol::Http { "localhost:4318" } else { "localhost:4317" };
        if tls.insecure_skip_verify {
            self.refuse(
                &format!("{path}.tls.insecure_skip_verify"),
                "certificates are always checked in this version; remove the key, or set it to false",
            );
        }
        let endpoint = from_environment(endpoint.unwrap_or(default));
        let url = if endpoint.contains("://") { endpoint.clone() } else { format!("http://{endpoint}") };
        if !url.parse::<Uri>().is_ok_and(|uri| uri.host().is_some_and(|host| !host.is_empty())) {
            let key = if path.contains("object") { "otel_endpoint" } else { "endpoint" };
            self.refuse(&format!("{path}.{key}"), format!("found `{endpoint}`; expected host and port, or a URL"));
        }
        let values = headers
            .iter()
            .filter_map(|(name, source)| Some((name.clone(), self.value(&format!("{path}.headers.{name}"), source)?)));
        Otel {
            headers: values.collect(),
            endpoint,
            protocol,
            service_name: service_name.unwrap_or("qtap").to_owned(),
            environment: environment.unwrap_or("production").to_owned(),
            tls: tls.enabled,
        }
    }

    fn s3(&mut self, path: &str, store: &written::ObjectStore) -> Option<S3> {
        let keys = match (&store.access_key, &store.secret_key) {
            (Some(access), Some(secret)) => {
                let access = self.value(&format!("{path}.access_key"), access);
                let secret = self.value(&format!("{path}.secret_key"), secret);
                access.zip(secret)
            }
            (None, None) => {
                self.refuse(path, "an s3 store needs `access_key` and `secret_key` in this version");
                None
            }
            _ => {
                self.refuse(path, "`access_key` and `secret_key` belong together: one of them is missing");
                None
            }
        };
        let Some(bucket) = store.bucket.clone().filter(|bucket| !bucket.is_empty()) else {
            self.refuse(path, "an s3 store needs a `bucket`");
            return None;
        };
        let endpoint = from_environment(store.endpoint.as_deref().unwrap_or("s3.amazonaws.com"));
        if endpoint.contains("://") {
            self.refuse(
                &format!("{path}.endpoint"),
                format!("found `{endpoint}`; expected host and port without a scheme (`insecure: true` means HTTP)"),
            );
        }
        let access_url = store.access_url.clone().unwrap_or_default();
        self.check_template(path, &access_url);
        Some(S3 {
            endpoint,
            bucket,
            region: store.region.clone().unwrap_or_else(|| "us-east-1".into()),
            access_url,
            insecure: store.insecure,
            keys: keys?,
        })
    }

    fn check_template(&mut self, path: &str, template: &str) {
        if !template.is_empty() && !template.contains("{{DIGEST}}") {
            self.warn(&format!("{path}.access_url"), "without {{DIGEST}} all objects get the same url");
        }
    }

    fn value(&mut self, path: &str, source: &ValueSource) -> Option<String> {
        match source.kind {
            ValueSourceKind::Text => Some(source.value.clone()),
            ValueSourceKind::Env => match std::env::var(&source.value) {
                Ok(value) if !value.is_empty() => Some(value),
                _ => {
                    self.refuse(path, format!("the environment variable `{}` is not set or empty", source.value));
                    None
                }
            },
        }
    }

    fn macros(&mut self, macros: &[written::Macro]) -> Rules {
        match Rules::new(macros.iter().map(|m| (m.name.as_str(), m.expr.as_str()))) {
            Ok(rules) => {
                for (i, one) in macros.iter().enumerate() {
                    if rules.compile(&one.expr).is_ok_and(|e| e.mixes_and_with_or()) {
                        self.warn(&format!("rulekit.macros[{i}].expr"), MIXED);
                    }
                }
                rules
            }
            Err((name, error)) => {
                let index = macros.iter().position(|m| m.name == name).unwrap_or_default();
                self.refuse(&format!("rulekit.macros[{index}].expr"), error.to_string());
                Rules::default()
            }
        }
    }

    fn plugins(&mut self, written: &Written, rules: &Rules) -> Plugins {
        let mut plugins = Plugins::default();
        let name = written.tap.http.stack.as_str();
        if matches!(name, "" | "none") {
            self.warn("tap.http", "no stack is named, so HTTP is not processed");
            return plugins;
        }
        let Some(stack) = written.stacks.get(name) else {
            let known: Vec<&str> = written.stacks.keys().map(String::as_str).collect();
            self.refuse("tap.http.stack", format!("found `{name}`; the stacks are: {}", known.join(", ")));
            return plugins;
        };
        self.stack(name, stack, rules, &mut plugins);
        // The others are only checked.
        for (other, stack) in written.stacks.iter().filter(|(other, _)| *other != name) {
            self.stack(other, stack, rules, &mut Plugins::default());
        }
        plugins
    }

    fn stack(&mut self, name: &str, stack: &written::Stack, rules: &Rules, plugins: &mut Plugins) {
        for (i, plugin) in stack.plugins.iter().enumerate() {
            self.plugin(&format!("stacks.{name}.plugins[{i}]"), plugin, rules, plugins);
        }
    }

    fn plugin(&mut self, path: &str, plugin: &written::Plugin, rules: &Rules, plugins: &mut Plugins) {
        let config = format!("{path}.config");
        match plugin.kind.as_str() {
            "http_capture" => {
                let Some(written) = self.part::<written::HttpCapture>(&config, &plugin.config) else { return };
                if !written.object_store.disabled {
                    plugins.captures.push(Arc::new(self.capture(&config, &written, rules)));
                }
            }
            kind @ ("access_logs" | "debug") => {
                let Some(written) = self.part::<written::AccessLogs>(&config, &plugin.config) else { return };
                let default = if kind == "debug" { written::LogFormat::Console } else { written::LogFormat::Json };
                let mut log =
                    AccessLog { mode: written.mode, format: written.format.unwrap_or(default), rules: Vec::new() };
                for (i, rule) in written.rules.iter().enumerate() {
                    let compiled = self.rule(&format!("{config}.rules[{i}].expr"), &rule.expr, rules);
                    log.rules.extend(compiled.map(|expression| (expression, rule.mode)));
                }
                plugins.logs.push(log);
            }
            "report_usage" => {
                plugins.report_usage |= self.part::<written::ReportUsage>(&config, &plugin.config).is_some();
            }
            other => {
                let known = NOT_ACTING.iter().find(|(name, _)| *name == other);
                let why = known.map_or("is not known", |(_, why)| why);
                self.warn(&format!("{path}.type"), format!("the plugin `{other}` does not act: it {why}"));
            }
        }
    }

    fn part<T: DeserializeOwned + Default>(&mut self, path: &str, value: &serde_yaml::Value) -> Option<T> {
        match self.document.decode_part(path, value.clone(), self.warnings) {
            Ok(part) => Some(part),
            Err(problem) => {
                self.problems.push(problem);
                None
            }
        }
    }

    fn capture(&mut self, path: &str, written: &written::HttpCapture, rules: &Rules) -> Capture {
        let mut capture = Capture { level: level(written.level), format: format(written.format), rules: Vec::new() };
        for (i, rule) in written.rules.iter().enumerate() {
            let expression = self.rule(&format!("{path}.rules[{i}].expr"), &rule.expr, rules);
            capture.rules.extend(expression.map(|expression| Rule {
                name: rule.name.clone(),
                expression,
                level: level(rule.level),
                format: rule.format.map(format),
                outcomes: Default::default(),
            }));
        }
        capture
    }

    /// A rule that does not parse refuses the start: a capture that silently lacks a rule keeps too little or too much.
    fn rule(&mut self, path: &str, text: &str, rules: &Rules) -> Option<Expression> {
        match rules.compile(text) {
            Ok(expression) => {
                if expression.mixes_and_with_or() {
                    self.warn(path, MIXED);
                }
                Some(expression)
            }
            Err(error) => {
                self.refuse(path, error.to_string());
                None
            }
        }
    }

    fn filters(&mut self, filters: written::Filters) -> Vec<ProcessFilter> {
        let mut checked = Vec::new();
        for (i, group) in filters.groups.iter().enumerate() {
            match GROUPS.iter().find(|(name, _)| name == group) {
                Some((_, executables)) => checked.extend(
                    executables
                        .iter()
                        .map(|exe| ProcessFilter { pattern: Pattern::Exact((*exe).to_owned()), bits: exclude::ALL }),
                ),
                None => {
                    let known: Vec<&str> = GROUPS.iter().map(|(name, _)| *name).collect();
                    let message =
                        format!("the group `{group}` is not known and ignored; there are {}", known.join(", "));
                    self.warn(&format!("tap.filters.groups[{i}]"), message);
                }
            }
        }
        for (i, filter) in filters.custom.into_iter().enumerate() {
            checked.extend(self.custom_filter(&format!("tap.filters.custom[{i}]"), filter));
        }
        checked
    }

    fn custom_filter(&mut self, path: &str, filter: written::CustomFilter) -> Option<ProcessFilter> {
        if filter.exe.is_empty() {
            self.refuse(&format!("{path}.exe"), "found an empty text; expected a path or a pattern");
            return None;
        }
        let pattern = match filter.strategy {
            written::Strategy::Exact => Pattern::Exact(filter.exe),
            written::Strategy::Prefix => Pattern::Prefix(filter.exe),
            written::Strategy::Suffix => Pattern::Suffix(filter.exe),
            written::Strategy::Contains => Pattern::Contains(filter.exe),
            written::Strategy::Regex => match Regex::new(&filter.exe) {
                Ok(regex) => Pattern::Regex(regex),
                Err(error) => {
                    self.refuse(&format!("{path}.exe"), format!("not a regular expression: {error}"));
                    return None;
                }
            },
        };
        let bit = |only: &written::Only| match only {
            written::Only::Data => exclude::DATA,
            written::Only::Dns => exclude::DNS,
            written::Only::Tls => exclude::TLS,
            written::Only::Http => exclude::HTTP,
        };
        let bits = filter.only.iter().map(bit).fold(0, |all, bit| all | bit);
        Some(ProcessFilter { pattern, bits: if bits == 0 { exclude::ALL } else { bits } })
    }
}

const MIXED: &str = "`and` and `or` are mixed without parentheses: `or` binds tighter here, so that `a and b or c` means \
                     `a and (b or c)`; write the parentheses";

fn level(level: written::Level) -> Level {
    match level {
        written::Level::None => Level::None,
        written::Level::Summary => Level::Summary,
        written::Level::Headers => Level::Headers,
        written::Level::Full => Level::Full,
    }
}

fn format(format: written::Format) -> Format {
    match format {
        written::Format::Json => Format::Json,
        written::Format::Text => Format::Text,
    }
}

/// Replaces `{{NAME}}` by the environment; a name that is not set stays as it stands.
fn from_environment(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, behind)) = after.split_once("}}") else { break };
        out.push_str(before);
        out.push_str(&std::env::var(name.trim()).unwrap_or_else(|_| format!("{{{{{name}}}}}")));
        rest = behind;
    }
    out + rest
}
