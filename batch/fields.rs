//! The fields that rules can name, of one row and of a whole transactions batch.

use std::{borrow::Cow, net::IpAddr};

use arrow_array::{
    Array as _, BinaryViewArray, Int64Array, MapArray, PrimitiveArray, StringArray, types::ArrowPrimitiveType,
};
use ringtap_rules::{Column, Columns, Fields, Value};

use crate::transactions::{Transactions, port, text};

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

    pub(crate) fn place(&self) -> (&'a Transactions<'a>, usize) {
        (self.transactions, self.row)
    }

    /// What is known of the process besides, by its name.
    #[must_use]
    pub fn detail(&self, name: &str) -> Option<&'a str> {
        self.transactions.detail(self.row, name)
    }

    /// Name of the other end, and the host that the request names, both without a port.
    #[must_use]
    pub fn domains(&self) -> [&'a str; 2] {
        let authority = self.transactions.authority.value(self.row);
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
            _ => authority,
        };
        [self.transactions.endpoint_id.value(self.row), host]
    }
}

/// Fields with names of their own.
pub const FIELDS: [&str; 46] = [
    "protocol",
    "type",
    "direction",
    "tags",
    "exe",
    "duration_ms",
    "damage",
    "src.ip",
    "src.port",
    "dst.ip",
    "dst.port",
    "dst.domain",
    "src.process.path",
    "src.process.binary",
    "src.process.hostname",
    "src.process.user.id",
    "src.process.user.name",
    "src.process.args",
    "src.process.cgroup",
    "src.container.id",
    "src.container.name",
    "src.container.image",
    "src.pod.name",
    "src.pod.namespace",
    "dst.process.path",
    "dst.process.binary",
    "dst.process.hostname",
    "dst.process.user.id",
    "dst.process.user.name",
    "dst.process.args",
    "dst.process.cgroup",
    "tls.enabled",
    "tls.version",
    "tls.sni",
    "tls.alpn",
    "http.req.method",
    "http.req.path",
    "http.req.scheme",
    "http.req.host",
    "http.req.url",
    "http.req.size",
    "http.req.body",
    "http.res.status",
    "http.res.size",
    "http.res.body",
    "http.res.transfer-encoding",
];

/// What the names of fields begin with whose last part is up to the traffic or the process.
const OPEN: [&str; 7] = [
    "http.req.headers.",
    "http.res.headers.",
    "http.req.query.",
    "src.process.env.",
    "src.container.labels.",
    "src.pod.labels.",
    "src.pod.annotations.",
];

/// Whether a transaction can have a field.
#[must_use]
pub fn is_known(name: &str) -> bool {
    let name = canonical(name);
    // Of incoming connections the local process is also the destination.
    let source = name.strip_prefix("dst.").map(|rest| format!("src.{rest}"));
    let open = |name: &str| OPEN.iter().any(|prefix| name.len() > prefix.len() && name.starts_with(prefix));
    let listed = |name: &str| FIELDS.contains(&name);
    let local = source.filter(|source| source.matches('.').count() > 1);
    listed(&name) || open(&name) || local.is_some_and(|source| listed(&source) || open(&source))
}

/// Whether a field can only be had by keeping bodies.
#[must_use]
pub fn is_body(name: &str) -> bool {
    matches!(canonical(name).as_ref(), "http.req.body" | "http.res.body")
}

/// A name without the old spellings of its prefix.
fn canonical(name: &str) -> Cow<'_, str> {
    const PREFIXES: [(&str, &str); 4] =
        [("request.", "http.req."), ("response.", "http.res."), ("req.", "http.req."), ("res.", "http.res.")];
    let old = PREFIXES.iter().find_map(|(old, new)| Some((name.strip_prefix(old)?, new)));
    old.map_or(Cow::Borrowed(name), |(rest, new)| Cow::Owned(format!("{new}{rest}")))
}

impl Fields for RowFields<'_> {
    fn is_pending(&self, name: &str) -> bool {
        if self.stage == Stage::Complete {
            return false;
        }
        let (t, row) = (self.transactions, self.row);
        let name = canonical(name);
        match name.as_ref() {
            "http.req.body" | "http.res.body" | "http.req.size" | "http.res.size" | "duration_ms" | "damage" => true,
            name if name.starts_with("http.res.") => {
                let chunked = || has_trailers(t, t.response_headers, row);
                self.stage == Stage::Request || (self.field(name).is_none() && chunked())
            }
            // A field that the head lacks can come as a trailer.
            name if name.starts_with("http.req.") => {
                name.contains(".headers.") && self.field(name).is_none() && has_trailers(t, t.request_headers, row)
            }
            // What is not known of the connection yet, or of the process, can become known.
            name => self.field(name).is_none() || (name == "tags" && t.process_exe.is_null(row)),
        }
    }

    fn field(&self, name: &str) -> Option<Value<'_>> {
        let (t, row) = (self.transactions, self.row);
        let name = canonical(name);
        if let Some(rest) = name.strip_prefix("http.req.") {
            return request(t, row, rest);
        }
        if let Some(rest) = name.strip_prefix("http.res.") {
            return response(t, row, rest);
        }
        let ip = |column| text(column, row)?.parse::<IpAddr>().ok().map(Value::Ip);
        let number = |column| port(column, row).map(|n| Value::Int(n.into()));
        match name.as_ref() {
            "protocol" => Some(Value::text(t.protocol.value(row))),
            "type" => Some(Value::text("tcp")),
            "direction" => Some(Value::text(t.direction.value(row))),
            "tags" => Some(Value::Texts(t.tags_of(row).map(Cow::Borrowed).collect())),
            "src.ip" => ip(t.src_ip),
            "dst.ip" => ip(t.dst_ip),
            "src.port" => number(t.src_port),
            "dst.port" => number(t.dst_port),
            "dst.domain" => {
                let endpoint = t.endpoint_id.value(row);
                (endpoint.parse::<IpAddr>().is_err() && !endpoint.is_empty()).then(|| Value::text(endpoint))
            }
            "tls.enabled" => Some(Value::Bool(t.tls.value(row))),
            "tls.version" => t.tls_version.is_valid(row).then(|| Value::Float(t.tls_version.value(row))),
            "tls.sni" => text(t.tls_sni, row).map(Value::text),
            "tls.alpn" => {
                let offered: Vec<_> = Transactions::texts(t.tls_alpn, row).map(Cow::Borrowed).collect();
                (!offered.is_empty()).then_some(Value::Texts(offered))
            }
            "exe" => text(t.process_exe, row).map(Value::text),
            "duration_ms" => Some(Value::Int(t.duration_ms(row).into())),
            "damage" => Some(Value::Text(causes(t, row).into())),
            name => process(t, row, name),
        }
    }
}

/// Whether fields can come behind the body.
fn has_trailers(t: &Transactions<'_>, headers: &MapArray, row: usize) -> bool {
    t.protocol.value(row) == "http2" || Transactions::header(headers, row, "transfer-encoding").is_some()
}

/// Causes of the damage, each once, with commas between; empty if there is none.
fn causes(t: &Transactions<'_>, row: usize) -> String {
    let mut causes: Vec<&str> = t.damage(row).map(|damage| damage.cause).collect();
    causes.sort_unstable();
    causes.dedup();
    causes.join(",")
}

fn request<'a>(t: &Transactions<'a>, row: usize, name: &str) -> Option<Value<'a>> {
    Some(match name {
        "method" => Value::text(t.method.value(row)),
        "path" => Value::text(t.path.value(row)),
        "scheme" => Value::text(t.scheme.value(row)),
        "host" => Value::text(t.authority.value(row)),
        "url" => Value::text(t.url.value(row)),
        "size" => Value::Int(t.request_body_size.value(row).into()),
        "body" => return body(t.request_body, row, t.request_body_size.value(row)),
        name => match name.strip_prefix("query.") {
            Some(name) => Value::Text(query(t.url.value(row), name)?),
            None => Value::text(Transactions::header(t.request_headers, row, name.strip_prefix("headers.")?)?),
        },
    })
}

fn response<'a>(t: &Transactions<'a>, row: usize, name: &str) -> Option<Value<'a>> {
    let header = |name| Transactions::header(t.response_headers, row, name).map(Value::text);
    match name {
        "status" => Some(Value::Int(t.status.value(row).into())),
        "size" => Some(Value::Int(t.response_body_size.value(row).into())),
        "body" => body(t.response_body, row, t.response_body_size.value(row)),
        "transfer-encoding" => header("transfer-encoding"),
        _ => header(name.strip_prefix("headers.")?),
    }
}

/// The kept part of a body; a body of which nothing is kept is not there.
fn body(column: &BinaryViewArray, row: usize, size: u64) -> Option<Value<'_>> {
    let kept = column.value(row);
    (!kept.is_empty() || size == 0).then(|| Value::Text(String::from_utf8_lossy(kept)))
}

/// The first value of a parameter, decoded.
fn query<'a>(url: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let (_, query) = url.split_once('?')?;
    form_urlencoded::parse(query.as_bytes()).find(|(known, _)| known == name).map(|(_, value)| value)
}

/// The process is the client's for egress and the server's for ingress. `src.` names it either way, as existing rules
/// assume; `dst.` only where it is the server.
fn process<'a>(t: &Transactions<'a>, row: usize, name: &str) -> Option<Value<'a>> {
    let ingress = t.direction.value(row) == "ingress";
    let name = match name.strip_prefix("dst.") {
        Some(name) if ingress => name,
        _ => name.strip_prefix("src.")?,
    };
    match name {
        "process.path" => text(t.process_exe, row).map(Value::text),
        "process.binary" => text(t.process_exe, row).map(|exe| Value::text(exe.rsplit('/').next().unwrap_or_default())),
        "process.hostname" => Some(Value::text(t.host.value(row))),
        "process.user.name" => text(t.process_user, row).map(Value::text),
        "process.user.id" => t.process_uid.is_valid(row).then(|| Value::Int(t.process_uid.value(row).into())),
        name => t.detail(row, name).map(Value::text),
    }
}

impl Columns for Transactions<'_> {
    fn rows(&self) -> usize {
        Transactions::rows(self)
    }

    fn column(&self, name: &str) -> Column<'_> {
        let name = canonical(name);
        match name.as_ref() {
            "protocol" => Column::Text(self.protocol.clone()),
            "direction" => Column::Text(self.direction.clone()),
            "http.req.method" => Column::Text(self.method.clone()),
            "http.req.path" => Column::Text(self.path.clone()),
            "http.req.scheme" => Column::Text(self.scheme.clone()),
            "http.req.host" => Column::Text(self.authority.clone()),
            "http.req.url" => Column::Text(self.url.clone()),
            "http.res.status" => integers(self.status),
            "http.req.size" => sizes(self.request_body_size.values()),
            "http.res.size" => sizes(self.response_body_size.values()),
            "src.port" => integers(self.src_port),
            "dst.port" => integers(self.dst_port),
            "exe" | "src.process.path" => Column::Text(self.process_exe.clone()),
            "src.process.user.name" => Column::Text(self.process_user.clone()),
            "src.process.hostname" => Column::Text(self.host.clone()),
            "tls.enabled" => Column::Bool(self.tls.clone()),
            "tls.sni" => Column::Text(self.tls_sni.clone()),
            "duration_ms" => Column::Int((0..Columns::rows(self)).map(|row| Some(self.duration_ms(row))).collect()),
            name => self.other(name),
        }
    }
}

impl Transactions<'_> {
    fn other(&self, name: &str) -> Column<'_> {
        let rows = 0..Columns::rows(self);
        let headers = |column, name| {
            Column::Text(rows.clone().map(|row| Transactions::header(column, row, name)).collect::<StringArray>())
        };
        if let Some(header) = name.strip_prefix("http.req.headers.") {
            return headers(self.request_headers, header);
        }
        if let Some(header) = name.strip_prefix("http.res.headers.") {
            return headers(self.response_headers, header);
        }
        if let "src.ip" | "dst.ip" = name {
            return addresses(if name == "src.ip" { self.src_ip } else { self.dst_ip });
        }
        let value = |row| {
            let value = match name.split_once('.') {
                Some(("http", rest)) if rest.starts_with("req.") => request(self, row, &rest[4..]),
                Some(("http", rest)) if rest.starts_with("res.") => response(self, row, &rest[4..]),
                _ => return RowFields::new(self, row).field(name).map(owned),
            };
            value.map(owned)
        };
        Column::Values(rows.map(value).collect())
    }
}

/// Addresses of neighbouring rows are often the same: each is read once.
fn addresses(column: &StringArray) -> Column<'static> {
    let mut last: Option<(&str, Option<Value<'static>>)> = None;
    let mut values = Vec::with_capacity(column.len());
    for text in column {
        let read = match (&last, text) {
            (Some((known, value)), Some(text)) if *known == text => value.clone(),
            (_, Some(text)) => text.parse::<IpAddr>().ok().map(Value::Ip),
            (_, None) => None,
        };
        last = text.map(|text| (text, read.clone()));
        values.push(read);
    }
    Column::Values(values)
}

/// The same value, borrowed from nothing that is shorter lived than the batch.
fn owned(value: Value<'_>) -> Value<'static> {
    match value {
        Value::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
        Value::Texts(texts) => Value::Texts(texts.into_iter().map(|text| Cow::Owned(text.into_owned())).collect()),
        Value::Int(n) => Value::Int(n),
        Value::Float(n) => Value::Float(n),
        Value::Bool(truth) => Value::Bool(truth),
        Value::Ip(ip) => Value::Ip(ip),
        // Only literals are of the other types.
        _ => Value::Bool(false),
    }
}

fn integers<T: ArrowPrimitiveType>(column: &PrimitiveArray<T>) -> Column<'static>
where
    i64: From<T::Native>,
{
    Column::Int(column.unary(i64::from))
}

fn sizes(column: &[u64]) -> Column<'static> {
    let size = |n: &u64| i64::try_from(*n).unwrap_or(i64::MAX);
    Column::Int(Int64Array::from_iter_values(column.iter().map(size)))
}
