//! Transactions as an HTTP Archive, version 1.2, for browsers and tools.
//!
//! What HAR has no field for stands in `_ringtap`. Of times only the whole is known, so it is `wait`, and `send` and
//! `receive` are 0, which the format demands; those that may be unknown are -1.

use std::{collections::BTreeMap, net::IpAddr};

use base64_simd::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    object::{Message, Transaction},
    text::reason,
    visible,
};

/// Entries of a log, by their time.
#[derive(Debug, Default)]
pub(super) struct Log {
    entries: BTreeMap<(Timestamp, usize), Value>,
}

impl Log {
    pub(super) fn add(&mut self, digest: &str, t: &Transaction) {
        let time: Timestamp = t.time.parse().unwrap_or(Timestamp::UNIX_EPOCH);
        self.entries.insert((time, self.entries.len()), entry(digest, time, t));
    }

    /// The archive as JSON, in which nothing drives a terminal.
    pub(super) fn finish(self) -> String {
        let archive = json!({"log": {
            "version": "1.2",
            "creator": {"name": "ringtap", "version": env!("CARGO_PKG_VERSION")},
            "entries": self.entries.into_values().collect::<Vec<_>>(),
        }});
        visible::json(&format!("{archive:#}\n"))
    }
}

fn entry(digest: &str, time: Timestamp, t: &Transaction) -> Value {
    let mut entry = json!({
        "startedDateTime": format!("{time:.6}"),
        "time": t.duration_ms,
        "request": request(t),
        "response": response(t),
        "cache": {},
        "timings": {
            "blocked": -1, "dns": -1, "connect": -1, "ssl": -1, "send": 0, "wait": t.duration_ms, "receive": 0,
            "comment": "only the whole time is known",
        },
        "_ringtap": own(digest, t),
    });
    let m = &t.metadata;
    if !m.connection_id.is_empty() {
        entry["connection"] = m.connection_id.as_str().into();
    }
    let address = m.tags.iter().filter_map(|tag| tag.strip_prefix("ip:")).find_map(|ip| ip.parse::<IpAddr>().ok());
    if let Some(address) = address.filter(|_| t.direction.starts_with("egress")) {
        entry["serverIPAddress"] = address.to_string().into();
    }
    entry
}

fn version(t: &Transaction) -> &'static str {
    if t.is_http2() { "HTTP/2" } else { "HTTP/1.1" }
}

fn named(pairs: impl Iterator<Item = (String, String)>) -> Vec<Value> {
    pairs.map(|(name, value)| json!({"name": name, "value": value})).collect()
}

fn fields(message: &Message) -> Vec<Value> {
    named(message.fields().map(|(name, value)| (name.to_owned(), value.to_owned())))
}

fn request(t: &Transaction) -> Value {
    let request = &t.request;
    let query = request.url.split('#').next().and_then(|url| url.split_once('?')).map_or("", |(_, query)| query);
    let cookies = request.fields().filter(|(name, _)| name.eq_ignore_ascii_case("cookie"));
    let cookies = cookies.flat_map(|(_, value)| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut made = json!({
        "method": request.method,
        "url": request.url,
        "httpVersion": version(t),
        "cookies": named(cookies.map(|(name, value)| (name.to_owned(), value.to_owned()))),
        "headers": fields(request),
        "queryString": named(form_urlencoded::parse(query.as_bytes()).into_owned()),
        "headersSize": -1,
        "bodySize": size_on_the_wire(request),
    });
    if !request.body.is_empty() {
        made["postData"] = post_data(request);
    }
    made
}

fn response(t: &Transaction) -> Value {
    let response = &t.response;
    let status = response.status.unwrap_or_default();
    let cookies = response.fields().filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"));
    json!({
        "status": status,
        "statusText": reason(status),
        "httpVersion": version(t),
        "cookies": cookies.filter_map(|(_, value)| set_cookie(value)).collect::<Vec<_>>(),
        "headers": fields(response),
        "content": content(response),
        "redirectURL": response.field("location").unwrap_or_default(),
        "headersSize": -1,
        "bodySize": size_on_the_wire(response),
    })
}

/// -1: unknown.
fn size_on_the_wire(message: &Message) -> i64 {
    let known = message.body_size.or_else(|| (!message.body.is_empty()).then_some(message.body.len() as u64));
    // Without a body, objects name no size, nor where bodies were not wanted.
    let length = message.field("content-length").and_then(|length| length.trim().parse().ok());
    known.or(length).and_then(|size| i64::try_from(size).ok()).unwrap_or(-1)
}

fn mime_type(message: &Message) -> &str {
    message.content_type.as_deref().or_else(|| message.field("content-type")).unwrap_or("")
}

/// A body as text, or in base64.
fn body(bytes: &[u8]) -> (String, bool) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), false),
        Err(_) => (STANDARD.encode_to_string(bytes), true),
    }
}

/// The format knows no coding for bodies of requests: the field is ours.
fn post_data(request: &Message) -> Value {
    let (plain, _) = request.plain();
    let (text, in_base64) = body(&plain);
    let mut made = json!({"mimeType": mime_type(request), "text": text});
    if in_base64 {
        made["_encoding"] = "base64".into();
    } else if request.media_type() == "application/x-www-form-urlencoded" {
        made["params"] = named(form_urlencoded::parse(&plain).into_owned()).into();
    }
    made
}

fn content(response: &Message) -> Value {
    let (plain, codings) = response.plain();
    let kept_none = plain.is_empty() && response.truncated.is_none();
    let size =
        if kept_none { size_on_the_wire(response).max(0) } else { i64::try_from(plain.len()).unwrap_or(i64::MAX) };
    let mut made = json!({"size": size, "mimeType": mime_type(response)});
    if !plain.is_empty() {
        let (text, in_base64) = body(&plain);
        made["text"] = text.into();
        if in_base64 {
            made["encoding"] = "base64".into();
        }
    }
    let wire = size_on_the_wire(response);
    if codings.is_some() && wire >= 0 {
        made["compression"] = (size - wire).into();
    }
    made
}

/// `Expires` is left out: it is a date of another form.
fn set_cookie(value: &str) -> Option<Value> {
    let mut parts = value.split(';').map(str::trim);
    let (name, value) = parts.next()?.split_once('=')?;
    let mut cookie = json!({"name": name, "value": value, "httpOnly": false, "secure": false});
    for part in parts {
        let (attribute, value) = part.split_once('=').unwrap_or((part, ""));
        match attribute.to_ascii_lowercase().as_str() {
            "path" => cookie["path"] = value.into(),
            "domain" => cookie["domain"] = value.into(),
            "httponly" => cookie["httpOnly"] = true.into(),
            "secure" => cookie["secure"] = true.into(),
            "samesite" => cookie["_sameSite"] = value.into(),
            _ => {}
        }
    }
    Some(cookie)
}

/// What the format has no field for.
fn own(digest: &str, t: &Transaction) -> Value {
    let m = &t.metadata;
    let damage = t.damage.iter().map(|d| json!({"cause": d.cause, "part": d.part, "start": d.start, "end": d.end}));
    let mut made = json!({
        "digest": digest,
        "process": texts(&[("id", &m.process_id), ("exe", &m.process_exe)]),
        "container": texts(&[("name", &m.container_name), ("image", &m.container_image)]),
        "pod": texts(&[("name", &m.pod_name), ("namespace", &m.pod_namespace)]),
        "connection": texts(&[
            ("id", &m.connection_id),
            ("endpoint", &m.endpoint_id),
            ("direction", &t.direction),
            ("socket", m.socket.as_deref().unwrap_or_default()),
        ]),
        "request_id": m.request_id,
        "bytes_sent": m.bytes_sent,
        "bytes_received": m.bytes_received,
        "tags": m.tags,
        "damage": damage.collect::<Vec<_>>(),
        "request": about(&t.request),
        "response": about(&t.response),
    });
    if let Some(service) = &t.service {
        let status = t.grpc_status.map(|status| status.to_string()).unwrap_or_default();
        made["grpc"] = texts(&[
            ("service", service),
            ("method", t.method.as_deref().unwrap_or_default()),
            ("status", &status),
            ("status_name", &t.grpc_status_name),
            ("message", &t.grpc_message),
        ]);
    }
    if let Some(fields) = made.as_object_mut() {
        fields.retain(|_, value| *value != json!({}) && *value != json!([]) && *value != json!(""));
    }
    made
}

fn texts(pairs: &[(&str, &str)]) -> Value {
    let some = pairs.iter().filter(|(_, value)| !value.is_empty());
    some.map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect::<Map<_, _>>().into()
}

/// What is to be known of a body.
fn about(message: &Message) -> Value {
    let (_, codings) = message.plain();
    let mut made = texts(&[
        ("truncated", message.truncated.as_deref().unwrap_or_default()),
        ("body_decoded", codings.unwrap_or_default()),
    ]);
    if !message.has_fields() {
        made["headers"] = "not captured".into();
    }
    if let Some(messages) = &message.messages {
        made["messages"] = json!({"dialect": messages.dialect, "count": messages.count});
    }
    made
}
