//! A transaction as JSON or as text.

use std::{collections::BTreeMap, fmt::Write as _, io};

use arrow_array::{Array as _, ListArray, UInt64Array};
use base64_simd::{Out, STANDARD};
use serde::{Serialize, Serializer};
use serde_json::ser::Formatter;
use sha2::{Digest as _, Sha256};

use crate::{
    capture::{Format, Level},
    clock::rfc3339,
    grpc::Grpc,
    objects::hex,
    transactions::{DamageRow, MessageRow, Transactions, text},
};

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the names of the format")]
struct Transaction<'a> {
    metadata: Metadata<'a>,
    request: Request<'a>,
    response: Response<'a>,
    transaction_time: String,
    duration_ms: i64,
    direction: &'a str,
    /// Ranges of the streams that are missing. Ours.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    damage: Vec<Damage<'a>>,
}

/// The form of a gRPC call.
#[derive(Serialize)]
struct Call<'a> {
    metadata: Metadata<'a>,
    service: &'a str,
    method: &'a str,
    #[serde(flatten)]
    status: CallStatus<'a>,
    request: CallPart<'a>,
    response: CallPart<'a>,
    transaction_time: String,
    duration_ms: i64,
    direction: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    damage: Vec<Damage<'a>>,
}

#[derive(Serialize, Clone)]
#[expect(clippy::struct_field_names, reason = "the names of the format")]
struct CallStatus<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc_status: Option<u8>,
    #[serde(skip_serializing_if = "str::is_empty")]
    grpc_status_name: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    grpc_message: &'a str,
}

#[derive(Serialize)]
struct CallPart<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    #[serde(flatten)]
    status: Option<CallStatus<'a>>,
    #[serde(flatten)]
    content: Content<'a>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    process_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    process_exe: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_image: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_namespace: Option<&'a str>,
    bytes_sent: u64,
    bytes_received: u64,
    request_id: &'a str,
    connection_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    endpoint_id: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<&'a str>,
    /// `inferred`, `verified` or `unknown` where the connection was not found from the call itself. Ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    socket: Option<&'a str>,
}

type HeaderMap = BTreeMap<String, String>;

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the names of the format")]
struct Request<'a> {
    method: &'a str,
    url: &'a str,
    scheme: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    authority: &'a str,
    protocol: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    #[serde(flatten)]
    content: Content<'a>,
}

#[derive(Serialize)]
struct Response<'a> {
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    #[serde(flatten)]
    content: Content<'a>,
}

/// Headers and body, as far as the level has them.
#[derive(Serialize, Default)]
struct Content<'a> {
    #[serde(skip_serializing_if = "HeaderMap::is_empty")]
    headers: HeaderMap,
    /// All values of the names that occur more than once. Ours.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    header_list: BTreeMap<String, Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Bytes<'a>>,
    /// Ours, like the three after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_encoding: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_size: Option<u64>,
    /// Of the bytes in `body`, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<String>,
    /// Content codings that were undone in `body`. Ours, like the one after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_decoded: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<Messages<'a>>,
}

/// The messages that a body is made of.
#[derive(Serialize)]
struct Messages<'a> {
    dialect: &'a str,
    count: u64,
    /// The first of them.
    list: Vec<Message<'a>>,
}

#[derive(Serialize)]
struct Message<'a> {
    time: String,
    kind: &'a str,
    compressed: bool,
    /// Bytes on the wire, without framing.
    size: u64,
    /// Where in the body it lies, as far as the body is kept.
    start: u64,
    length: u64,
}

/// A body, which [`BytesAsBase64`] writes without a text between.
struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// Compact JSON in which byte strings are base64.
struct BytesAsBase64;

impl Formatter for BytesAsBase64 {
    fn write_byte_array<W: io::Write + ?Sized>(&mut self, writer: &mut W, bytes: &[u8]) -> io::Result<()> {
        let mut block = [0u8; 8192];
        writer.write_all(b"\"")?;
        // Whole groups of three, so that padding stands at the end alone.
        for part in bytes.chunks(6144) {
            writer.write_all(STANDARD.encode(part, Out::from_slice(&mut block)))?;
        }
        writer.write_all(b"\"")
    }
}

#[derive(Serialize)]
struct Damage<'a> {
    cause: &'a str,
    part: &'a str,
    start: u64,
    end: u64,
}

/// An object's bytes and their content type.
#[must_use]
pub fn render(t: &Transactions<'_>, row: usize, level: Level, format: Format) -> (Vec<u8>, &'static str) {
    match format {
        Format::Json => {
            let bodies = t.request_body.value(row).len() + t.response_body.value(row).len();
            let mut bytes = Vec::with_capacity(1024 + if level == Level::Full { bodies * 4 / 3 } else { 0 });
            let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, BytesAsBase64);
            let written = match Grpc::of(t, row) {
                None => transaction(t, row, level).serialize(&mut serializer),
                Some(grpc) => call(t, row, level, &grpc).serialize(&mut serializer),
            };
            written.expect("texts and numbers always serialize");
            (bytes, "application/json")
        }
        Format::Text => (as_text(t, row, level).into_bytes(), "text/plain"),
    }
}

fn transaction<'a>(t: &'a Transactions<'a>, row: usize, level: Level) -> Transaction<'a> {
    let (bytes_sent, bytes_received) = t.bytes(row);
    let request_header = |name| Transactions::header(t.request_headers, row, name);
    let damage = |d: DamageRow<'a>| Damage { cause: d.cause, part: d.part, start: d.start, end: d.end };
    Transaction {
        metadata: Metadata {
            process_id: t.process_id.value(row).to_string(),
            process_exe: text(t.process_exe, row),
            container_name: t.detail(row, "container.name"),
            container_image: t.detail(row, "container.image"),
            pod_name: t.detail(row, "pod.name"),
            pod_namespace: t.detail(row, "pod.namespace"),
            bytes_sent,
            bytes_received,
            request_id: t.request_id.value(row),
            connection_id: t.connection_id.value(row),
            endpoint_id: t.endpoint_id.value(row),
            tags: t.tags_of(row).collect(),
            socket: Some(t.socket.value(row)).filter(|socket| *socket != "exact"),
        },
        request: Request {
            method: t.method.value(row),
            url: t.url.value(row),
            scheme: t.scheme.value(row),
            path: t.path.value(row),
            authority: t.authority.value(row),
            protocol: t.protocol.value(row),
            request_id: t.request_id.value(row),
            user_agent: request_header("user-agent"),
            content_type: request_header("content-type"),
            content: request_content(t, row, level),
        },
        response: Response {
            status: t.status.value(row),
            content_type: Transactions::header(t.response_headers, row, "content-type"),
            content: response_content(t, row, level),
        },
        transaction_time: rfc3339(t.start_ns.value(row)),
        duration_ms: t.duration_ms(row),
        direction: t.direction.value(row),
        damage: t.damage(row).map(damage).collect(),
    }
}

fn call<'a>(t: &'a Transactions<'a>, row: usize, level: Level, grpc: &'a Grpc<'a>) -> Call<'a> {
    let Transaction { metadata, request, response, transaction_time, duration_ms, direction, damage } =
        transaction(t, row, level);
    let status =
        CallStatus { grpc_status: grpc.status, grpc_status_name: grpc.status_name(), grpc_message: &grpc.message };
    Call {
        metadata,
        service: grpc.service,
        method: grpc.method,
        status: status.clone(),
        request: CallPart { content_type: request.content_type, status: None, content: request.content },
        response: CallPart { content_type: response.content_type, status: Some(status), content: response.content },
        transaction_time,
        duration_ms,
        direction,
        damage,
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn request_content<'a>(t: &'a Transactions<'a>, row: usize, level: Level) -> Content<'a> {
    let mut content = Content::default();
    if level >= Level::Headers {
        content.headers(Transactions::headers(t.request_headers, row));
        for (name, value) in [
            (":authority", t.authority.value(row)),
            (":method", t.method.value(row)),
            (":path", t.path.value(row)),
            (":scheme", t.scheme.value(row)),
        ] {
            content.headers.insert(name.into(), value.into());
        }
    }
    if level >= Level::Full {
        content.body(t.request_body.value(row), t.request_body_size.value(row), text(t.request_cut, row));
        content.body_decoded = text(t.request_decoded, row);
        content.messages = messages(t, row, t.request_message_count, t.request_messages);
    }
    content
}

fn response_content<'a>(t: &'a Transactions<'a>, row: usize, level: Level) -> Content<'a> {
    let mut content = Content::default();
    if level >= Level::Headers {
        content.headers(Transactions::headers(t.response_headers, row));
        content.headers.insert(":status".into(), t.status.value(row).to_string());
    }
    if level >= Level::Full {
        content.body(t.response_body.value(row), t.response_body_size.value(row), text(t.response_cut, row));
        content.body_decoded = text(t.response_decoded, row);
        content.messages = messages(t, row, t.response_message_count, t.response_messages);
    }
    content
}

fn messages<'a>(t: &Transactions<'a>, row: usize, count: &UInt64Array, list: &'a ListArray) -> Option<Messages<'a>> {
    let message = |m: MessageRow<'a>| Message {
        time: rfc3339(m.time_ns),
        kind: m.kind,
        compressed: m.compressed,
        size: m.wire,
        start: m.start,
        length: m.len,
    };
    count.is_valid(row).then(|| Messages {
        dialect: text(t.dialect, row).unwrap_or_default(),
        count: count.value(row),
        list: Transactions::messages(list, row).map(message).collect(),
    })
}

impl<'a> Content<'a> {
    fn headers<'b>(&mut self, fields: impl Iterator<Item = (&'b str, &'b str)>) {
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in fields {
            all.entry(canonical(name)).or_default().push(value.to_owned());
        }
        self.headers = all.iter().map(|(name, values)| (name.clone(), values.join(", "))).collect();
        all.retain(|_, values| values.len() > 1);
        self.header_list = all;
    }

    fn body(&mut self, bytes: &'a [u8], size: u64, cut: Option<&str>) {
        if size == 0 && cut.is_none() {
            return;
        }
        self.body = (!bytes.is_empty()).then_some(Bytes(bytes));
        self.body_sha256 = self.body.as_ref().map(|body| sha256(body.0));
        self.body_encoding = self.body.is_some().then_some("base64");
        self.body_size = Some(size);
        self.truncated = cut.map(str::to_owned);
    }
}

/// `content-type` as `Content-Type`.
fn canonical(name: &str) -> String {
    let mut upper = true;
    let letter = |c: char| {
        let c = if upper { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
        upper = c == '-';
        c
    };
    name.chars().map(letter).collect()
}

fn as_text(t: &Transactions<'_>, row: usize, level: Level) -> String {
    let transaction = transaction(t, row, level);
    let (m, q, s) = (&transaction.metadata, &transaction.request, &transaction.response);
    let mut out = String::from("HTTP Transaction\n================\n\nMetadata:\n");
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(out, "  {name}: {value}");
        }
    };
    line("Time", &transaction.transaction_time);
    line("Duration", &format!("{} ms", transaction.duration_ms));
    line("Direction", transaction.direction);
    line("Process", &format!("{} ({})", m.process_exe.unwrap_or("unknown"), m.process_id));
    line("Endpoint", m.endpoint_id);
    line("Connection", m.connection_id);
    line("Request ID", m.request_id);
    line("Bytes", &format!("{} sent, {} received", m.bytes_sent, m.bytes_received));
    line("Socket", m.socket.unwrap_or_default());
    line("Container", m.container_name.unwrap_or_default());
    line("Image", m.container_image.unwrap_or_default());
    line("Pod", &[m.pod_namespace, m.pod_name].into_iter().flatten().collect::<Vec<_>>().join("/"));
    if let Some(grpc) = Grpc::of(t, row) {
        line("gRPC", &format!("{}/{} {}", grpc.service, grpc.method, grpc.status_name()));
    }
    line("Tags", &m.tags.join(", "));
    for d in &transaction.damage {
        line("Damage", &format!("{} of the {}, stream offsets {} to {}", d.cause, d.part, d.start, d.end));
    }
    let _ = write!(out, "\nRequest:\n  {} {}\n", q.method, q.url);
    write_content(&mut out, &q.content, t.request_body.value(row));
    let _ = write!(out, "\nResponse:\n  Status: {}\n", s.status);
    write_content(&mut out, &s.content, t.response_body.value(row));
    out
}

fn write_content(out: &mut String, content: &Content<'_>, body: &[u8]) {
    for (name, value) in content.headers.iter().filter(|(name, _)| !name.starts_with(':')) {
        let _ = writeln!(out, "  {name}: {value}");
    }
    if let Some(messages) = &content.messages {
        let _ = writeln!(out, "  Messages: {} ({})", messages.count, messages.dialect);
    }
    if let Some(size) = content.body_size {
        let cut = content.truncated.as_ref().map_or_else(String::new, |why| format!(", cut: {why}"));
        let decoded = content.body_decoded.map_or_else(String::new, |codings| format!(", decoded: {codings}"));
        let _ = write!(out, "\n  Body ({size} bytes{decoded}{cut}):\n{}\n", String::from_utf8_lossy(body));
    }
}
