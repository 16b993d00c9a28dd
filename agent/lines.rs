//! The plugins `access_logs` and `debug`: transactions as lines on standard output.

use std::{borrow::Cow, fmt::Write as _};

use ringtap_batch::{
    capture::{Format, Level, RowFields, can_still_want},
    clock::rfc3339,
    interest::Interest,
    render::render,
    transactions::{Transactions, port, text},
};
use serde_json::json;

use crate::config::{
    checked::AccessLog,
    written::{LogFormat, Mode},
};

impl AccessLog {
    /// Appends the line of a row; false if it is not to be printed.
    pub fn write(&self, t: &Transactions<'_>, row: usize, to: &mut String) -> bool {
        let fields = RowFields::new(t, row);
        let matching = self.rules.iter().find(|(expression, _)| expression.evaluate(&fields) == Ok(true));
        let mode = matching.map_or(self.mode, |(_, mode)| *mode);
        match (mode, self.format) {
            (Mode::None, _) => return false,
            (Mode::Summary, LogFormat::Console) => summary(t, row, to),
            (Mode::Summary, LogFormat::Json) => to.push_str(&json_summary(t, row)),
            (mode, LogFormat::Console) => to.push_str(&content(t, row, mode, Format::Text)),
            (mode, LogFormat::Json) => to.push_str(&content(t, row, mode, Format::Json)),
        }
        true
    }
}

impl Interest for AccessLog {
    fn wants_bodies(&self) -> bool {
        self.mode == Mode::Full || self.rules.iter().any(|(_, mode)| *mode == Mode::Full)
    }

    fn can_want_bodies(&self, row: &RowFields<'_>) -> bool {
        let rules = self.rules.iter().map(|(expression, mode)| (expression, *mode == Mode::Full));
        can_still_want(rules, self.mode == Mode::Full, row)
    }
}

fn content(t: &Transactions<'_>, row: usize, mode: Mode, format: Format) -> String {
    let level = if mode == Mode::Full { Level::Full } else { Level::Headers };
    let text = String::from_utf8_lossy(&render(t, row, level, format).0).into_owned();
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
    line.to_string()
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
