//! How much of each transaction is kept: the level and format that `http_capture` and its rules give to a row.
//!
//! What can be decided before an exchange is complete is decided then ([`Capture::can_still_reach`]): a field that can
//! still change has no value yet, and an answer that does not depend on such a field is final.

use std::{
    borrow::Cow,
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use arrow_array::Array as _;
use ringtap_rules::{Expression, Fields, Value};

use crate::transactions::{Transactions, port, text};

/// What goes into an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    /// No object.
    #[default]
    None,
    /// Metadata, request line, status.
    Summary,
    /// Also header fields.
    Headers,
    /// Also bodies.
    Full,
}

/// How an object is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `application/json`.
    #[default]
    Json,
    /// `text/plain`.
    Text,
}

/// A rule, and how often its evaluation came to what.
#[derive(Debug)]
pub struct Rule {
    /// Name in the configuration.
    pub name: String,
    /// Checked expression.
    pub expression: Expression,
    /// Level of rows that it matches.
    pub level: Level,
    /// Format of rows that it matches, if it says.
    pub format: Option<Format>,
    /// Matches, other outcomes, errors.
    pub outcomes: [AtomicU64; 3],
}

/// A configured `http_capture`.
#[derive(Debug, Default)]
pub struct Capture {
    /// Level of rows that no rule matches.
    pub level: Level,
    /// Format of rows that no rule matches.
    pub format: Format,
    /// In the order of the configuration: the first that matches decides.
    pub rules: Vec<Rule>,
}

/// What was decided for a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// How much.
    pub level: Level,
    /// In which form.
    pub format: Format,
}

/// Whether the first rule that matches a row that is not complete can be one that wants it; `otherwise` if none does.
pub fn can_still_want<'a>(
    rules: impl IntoIterator<Item = (&'a Expression, bool)>,
    otherwise: bool,
    row: &RowFields<'_>,
) -> bool {
    for (expression, wants) in rules {
        match expression.evaluate_early(row) {
            Some(Ok(true)) => return wants,
            None if wants => return true,
            // It does not match, or wants nothing if it does; what comes behind it may.
            _ => {}
        }
    }
    otherwise
}

impl Capture {
    /// Whether any row at all can come to `level`.
    #[must_use]
    pub fn can_reach(&self, level: Level) -> bool {
        self.level >= level || self.rules.iter().any(|rule| rule.level >= level)
    }

    /// Whether a row that is not complete can still come to `level`.
    #[must_use]
    pub fn can_still_reach(&self, level: Level, row: &RowFields<'_>) -> bool {
        let rules = self.rules.iter().map(|rule| (&rule.expression, rule.level >= level));
        can_still_want(rules, self.level >= level, row)
    }

    /// Decides for a row. A rule that cannot be evaluated does not match.
    #[must_use]
    pub fn decide(&self, row: &RowFields<'_>) -> Decision {
        for rule in &self.rules {
            let outcome = rule.expression.evaluate(row);
            let count = match outcome {
                Ok(true) => 0,
                Ok(false) => 1,
                Err(_) => 2,
            };
            rule.outcomes[count].fetch_add(1, Ordering::Relaxed);
            if outcome == Ok(true) {
                return Decision { level: rule.level, format: rule.format.unwrap_or(self.format) };
            }
        }
        Decision { level: self.level, format: self.format }
    }
}

/// How much of an exchange a row stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The request's head.
    Request,
    /// Also the response's head.
    Response,
    /// All of it.
    Complete,
}

/// The fields of a row, by the names that rules use.
#[derive(Debug, Clone, Copy)]
pub struct RowFields<'a> {
    transactions: &'a Transactions<'a>,
    row: usize,
    stage: Stage,
}

impl<'a> RowFields<'a> {
    /// Those of a complete row.
    #[must_use]
    pub fn new(transactions: &'a Transactions<'a>, row: usize) -> Self {
        Self { transactions, row, stage: Stage::Complete }
    }

    /// Those of a row that stands for part of an exchange.
    #[must_use]
    pub fn early(transactions: &'a Transactions<'a>, row: usize, stage: Stage) -> Self {
        Self { transactions, row, stage }
    }
}

/// Old spellings of the two prefixes.
const PREFIXES: [(&str, &str); 6] = [
    ("http.req.", "http.req."),
    ("http.res.", "http.res."),
    ("request.", "http.req."),
    ("response.", "http.res."),
    ("req.", "http.req."),
    ("res.", "http.res."),
];

impl Fields for RowFields<'_> {
    fn is_pending(&self, name: &str) -> bool {
        if self.stage == Stage::Complete {
            return false;
        }
        let (t, row) = (self.transactions, self.row);
        match name.split_once('.') {
            Some(("response" | "res", _)) => self.is_response_pending(name),
            Some(("http", rest)) if rest.starts_with("res.") => self.is_response_pending(name),
            // A field that the head lacks can come as a trailer.
            Some(("request" | "req" | "http", _)) => {
                name.contains(".headers.") && self.field(name).is_none() && is_chunked(t.request_headers, row)
            }
            // What is not known of the connection yet, or of the process, can become known.
            _ => self.field(name).is_none() || (name == "tags" && t.process_exe.is_null(row)),
        }
    }

    fn field(&self, name: &str) -> Option<Value<'_>> {
        for (written, meant) in PREFIXES {
            if let Some(rest) = name.strip_prefix(written) {
                return if meant == "http.req." { self.request(rest) } else { self.response(rest) };
            }
        }
        let (t, row) = (self.transactions, self.row);
        let ip = |column| text(column, row)?.parse::<IpAddr>().ok().map(Value::Ip);
        let number = |column| port(column, row).map(|n| Value::Int(n.into()));
        match name {
            "protocol" => Some(Value::text(t.protocol.value(row))),
            "type" => Some(Value::text("tcp")),
            "direction" => Some(Value::text(t.direction.value(row))),
            "tags" => Some(Value::Texts(tags(t, row).into_iter().map(Cow::Owned).collect())),
            "src.ip" => ip(t.src_ip),
            "dst.ip" => ip(t.dst_ip),
            "src.port" => number(t.src_port),
            "dst.port" => number(t.dst_port),
            "dst.domain" => {
                let endpoint = t.endpoint_id.value(row);
                (endpoint.parse::<IpAddr>().is_err() && !endpoint.is_empty()).then(|| Value::text(endpoint))
            }
            "tls.enabled" => Some(Value::Bool(t.tls.value(row))),
            "exe" => text(t.process_exe, row).map(Value::text),
            _ => self.process(name),
        }
    }
}

fn is_chunked(headers: &arrow_array::MapArray, row: usize) -> bool {
    Transactions::header(headers, row, "transfer-encoding").is_some()
}

impl RowFields<'_> {
    fn is_response_pending(&self, name: &str) -> bool {
        let chunked = || is_chunked(self.transactions.response_headers, self.row);
        self.stage == Stage::Request || (self.field(name).is_none() && chunked())
    }

    fn request(&self, name: &str) -> Option<Value<'_>> {
        let (t, row) = (self.transactions, self.row);
        Some(Value::text(match name {
            "method" => t.method.value(row),
            "path" => t.path.value(row),
            "scheme" => t.scheme.value(row),
            "host" => t.authority.value(row),
            "url" => t.url.value(row),
            _ => Transactions::header(t.request_headers, row, name.strip_prefix("headers.")?)?,
        }))
    }

    fn response(&self, name: &str) -> Option<Value<'_>> {
        let (t, row) = (self.transactions, self.row);
        let header = |name| Transactions::header(t.response_headers, row, name).map(Value::text);
        match name {
            "status" => Some(Value::Int(t.status.value(row).into())),
            "transfer-encoding" => header("transfer-encoding"),
            _ => header(name.strip_prefix("headers.")?),
        }
    }

    /// The process is the client's for egress and the server's for ingress.
    fn process(&self, name: &str) -> Option<Value<'_>> {
        let (t, row) = (self.transactions, self.row);
        let side = if t.direction.value(row) == "ingress" { "dst.process." } else { "src.process." };
        match name.strip_prefix(side)? {
            "path" => text(t.process_exe, row).map(Value::text),
            "binary" => text(t.process_exe, row).map(|exe| Value::text(exe.rsplit('/').next().unwrap_or_default())),
            "user.name" => text(t.process_user, row).map(Value::text),
            "user.id" => t.process_uid.is_valid(row).then(|| Value::Int(t.process_uid.value(row).into())),
            _ => None,
        }
    }
}

/// `key:value` tags of a row.
#[must_use]
pub fn tags(t: &Transactions<'_>, row: usize) -> Vec<String> {
    let binary = text(t.process_exe, row).and_then(|exe| exe.rsplit('/').next());
    let ip = if t.direction.value(row) == "ingress" { t.src_ip } else { t.dst_ip };
    let endpoint = t.endpoint_id.value(row);
    let host = (Some(endpoint) != text(ip, row)).then_some(endpoint);
    let named = [("bin", binary), ("host", host), ("ip", text(ip, row)), ("protocol", Some(t.protocol.value(row)))];
    let tag = |(key, value): (&str, Option<&str>)| value.filter(|v| !v.is_empty()).map(|v| format!("{key}:{v}"));
    named.into_iter().filter_map(tag).collect()
}
