//! How much of each transaction is kept: the level and format that `http_capture` and its rules give to a row.

use std::{
    borrow::Cow,
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
};

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

impl Capture {
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

/// The fields of a row, by the names that rules use.
#[derive(Debug, Clone, Copy)]
pub struct RowFields<'a> {
    /// The batch.
    pub transactions: &'a Transactions<'a>,
    /// The row.
    pub row: usize,
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

impl RowFields<'_> {
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
            "user.id" => {
                arrow_array::Array::is_valid(t.process_uid, row).then(|| Value::Int(t.process_uid.value(row).into()))
            }
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
