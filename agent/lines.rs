//! The plugins `access_logs` and `debug`: transactions as lines on standard output.

use std::{borrow::Cow, collections::BTreeMap, fmt::Write as _};

use arrow_array::{BinaryViewArray, MapArray};
use ringtap_batch::{
    capture::{Format, Level, RuleList},
    clock::rfc3339,
    fields::RowFields,
    interest::Interest,
    render::render,
    transactions::{Transactions, port, text},
};
use serde_json::{Value, json};

use crate::{
    config::written::{LogFormat, Mode},
    stack::Lines,
};

/// Lines are handed over in blocks of about this size.
const BLOCK: usize = 16 << 10;

/// A configured `access_logs` or `debug`.
#[derive(Debug)]
pub struct AccessLog {
    /// How much, unless a rule says otherwise.
    pub mode: Mode,
    /// In which form.
    pub format: LogFormat,
    /// The first that matches decides.
    pub rules: RuleList<Mode>,
}

impl AccessLog {
    /// Hands over the lines of a batch. Rules see `raw`, lines are made of `shown`.
    pub fn write(&self, shown: &Transactions<'_>, raw: &Transactions<'_>, lines: Lines<'_>) {
        let mut block = String::new();
        for (row, rule) in self.rules.decide(raw).into_iter().enumerate() {
            let mode = rule.map_or(self.mode, |rule| rule.gives);
            if mode != Mode::None {
                self.line(shown, row, mode, &mut block);
                block.push('\n');
            }
            if block.len() >= BLOCK || (row + 1 == shown.rows() && !block.is_empty()) {
                block.truncate(block.len() - 1);
                lines(std::mem::take(&mut block));
            }
        }
    }

    fn line(&self, t: &Transactions<'_>, row: usize, mode: Mode, to: &mut String) {
        match (mode, self.format) {
            (Mode::Summary, LogFormat::Console) => summary(t, row, to),
            (Mode::Summary, LogFormat::Json) => to.push_str(&json_summary(t, row)),
            (mode, LogFormat::Console) => to.push_str(&content(t, row, mode)),
            (mode, LogFormat::Json) => to.push_str(&json_details(t, row, mode)),
        }
    }
}

impl Interest for AccessLog {
    fn wants_bodies(&self) -> bool {
        self.mode == Mode::Full || self.rules.wants_bodies(|mode| *mode == Mode::Full)
    }

    fn can_want_bodies(&self, row: &RowFields<'_>) -> bool {
        self.rules.can_want_bodies(|mode| *mode == Mode::Full, self.mode == Mode::Full, row)
    }
}

fn content(t: &Transactions<'_>, row: usize, mode: Mode) -> String {
    let level = if mode == Mode::Full { Level::Full } else { Level::Headers };
    let text = String::from_utf8_lossy(&render(t, row, level, Format::Text).0).into_owned();
    // Traffic can hold what moves a terminal's cursor; only the lines' own structure passes.
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// `12:00:01.234  200  GET https://host/path  12 ms  1.2 kB  curl[42] → 192.0.2.7:443`
fn summary(t: &Transactions<'_>, row: usize, to: &mut String) {
    let process = text(t.process_exe, row).and_then(|exe| exe.rsplit('/').next()).unwrap_or("unknown");
    let ingress = t.direction.value(row) == "ingress";
    let (ip, port_column, arrow) = if ingress { (t.src_ip, t.src_port, '←') } else { (t.dst_ip, t.dst_port, '→') };
    let url = t.url.value(row);
    // Traffic can hold what moves a terminal's cursor.
    let clean = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let url = if url.chars().any(char::is_control) { Cow::Owned(url.chars().map(clean).collect()) } else { url.into() };
    time_of_day(t.start_ns.value(row), to);
    let bytes = size(t.response_bytes.value(row));
    let (status, method, ms) = (t.status.value(row), t.method.value(row), t.duration_ms(row));
    let id = t.process_id.value(row);
    let _ = write!(to, "  {status}  {method:<6} {url}  {ms} ms  {bytes}  {process}[{id}] {arrow} ");
    let _ = match (text(ip, row), port(port_column, row)) {
        (Some(ip), Some(port)) if ip.contains(':') => write!(to, "[{ip}]:{port}"),
        (Some(ip), Some(port)) => write!(to, "{ip}:{port}"),
        _ => write!(to, "unknown"),
    };
    let _ = match t.phase.value(row) {
        "complete" => Ok(()),
        phase => write!(to, "  {} {phase}", text(t.dialect, row).unwrap_or("stream")),
    };
    let _ = match (t.damage(row).count(), t.socket.value(row)) {
        (0, "exact") => Ok(()),
        (0, socket) => write!(to, "  socket {socket}"),
        (_, _) => write!(to, "  DAMAGED, {} bytes missing", t.damage(row).map(|d| d.end - d.start).sum::<u64>()),
    };
}

/// `12:00:01.234`, UTC.
fn time_of_day(wall_ns: i64, to: &mut String) {
    let ms = wall_ns.div_euclid(1_000_000).rem_euclid(86_400_000);
    let (s, ms) = (ms / 1000, ms % 1000);
    let _ = write!(to, "{:02}:{:02}:{:02}.{ms:03}", s / 3600, s / 60 % 60, s % 60);
}

#[expect(clippy::cast_precision_loss, reason = "for people, to one decimal")]
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

fn json_summary(t: &Transactions<'_>, row: usize) -> String {
    let line = json!({
        "level": "info",
        "ts": rfc3339(t.start_ns.value(row)),
        "msg": "HTTP transaction",
        "bin": text(t.process_exe, row).and_then(|exe| exe.rsplit('/').next()),
        "direction": t.direction.value(row),
        "method": t.method.value(row),
        "url": t.url.value(row),
        "status": t.status.value(row),
        "qpoint_request_id": t.request_id.value(row),
    });
    with_phase(t, row, line).to_string()
}

/// Says which end of an exchange that lasts the line is about.
fn with_phase(t: &Transactions<'_>, row: usize, mut line: Value) -> Value {
    if t.phase.value(row) != "complete" {
        line["phase"] = t.phase.value(row).into();
    }
    line
}

/// Header fields, and with `full` bodies, in the form of existing consumers.
fn json_details(t: &Transactions<'_>, row: usize, mode: Mode) -> String {
    let (sent, received) = t.bytes(row);
    let detail = |name| t.detail(row, name);
    let mut line = json!({
        "level": "info",
        "ts": rfc3339(t.start_ns.value(row)),
        "msg": "HTTP transaction",
        "meta": {
            "bytes_sent": sent.to_string(),
            "bytes_received": received.to_string(),
            "pid": t.process_id.value(row),
            "exe": text(t.process_exe, row),
            "container_name": detail("container.name"),
            "container_image": detail("container.image"),
            "pod_name": detail("pod.name"),
            "pod_namespace": detail("pod.namespace"),
        },
        "direction": t.direction.value(row),
        "request": {
            "url": t.url.value(row),
            "method": t.method.value(row),
            "proto": t.protocol.value(row),
            "qpoint_request_id": t.request_id.value(row),
            "headers": headers(t.request_headers, row),
        },
        "response": {"status": t.status.value(row), "headers": headers(t.response_headers, row)},
    });
    if let Value::Object(meta) = &mut line["meta"] {
        meta.retain(|_, value| !value.is_null());
    }
    if mode == Mode::Full {
        line["request"]["body"] = body(t.request_headers, t.request_body, row).into();
        line["response"]["body"] = body(t.response_headers, t.response_body, row).into();
    }
    with_phase(t, row, line).to_string()
}

fn headers<'a>(column: &'a MapArray, row: usize) -> BTreeMap<&'a str, String> {
    let mut all: BTreeMap<&'a str, String> = BTreeMap::new();
    for (name, value) in Transactions::headers(column, row) {
        let joined = all.entry(name).or_default();
        *joined = if joined.is_empty() { value.to_owned() } else { format!("{joined}, {value}") };
    }
    all
}

/// Text, or the word `<binary>`.
fn body<'a>(headers: &MapArray, column: &'a BinaryViewArray, row: usize) -> Cow<'a, str> {
    const BINARY: [&str; 7] = [
        "application/octet-stream",
        "application/pdf",
        "image/",
        "audio/",
        "video/",
        "application/zip",
        "application/x-gzip",
    ];
    let content_type = Transactions::header(headers, row, "content-type").unwrap_or_default();
    if BINARY.iter().any(|kind| content_type.starts_with(kind)) {
        return "<binary>".into();
    }
    String::from_utf8_lossy(column.value(row))
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_those_of_the_day() {
        let mut text = String::new();
        super::time_of_day(1_700_000_000_123_456_789, &mut text);
        assert_eq!(text, "22:13:20.123");
    }

    #[test]
    fn sizes_are_readable() {
        assert_eq!([0, 999, 1_200, 3_400_000].map(super::size), ["0 B", "999 B", "1.2 kB", "3.4 MB"]);
    }
}
