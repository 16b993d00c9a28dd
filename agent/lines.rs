//! The plugins `access_logs` and `debug`: transactions as lines on standard output.

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
    /// The line of a row; `None` if it is not to be printed.
    #[must_use]
    pub fn line(&self, t: &Transactions<'_>, row: usize) -> Option<String> {
        let fields = RowFields::new(t, row);
        let matching = self.rules.iter().find(|(expression, _)| expression.evaluate(&fields) == Ok(true));
        let mode = matching.map_or(self.mode, |(_, mode)| *mode);
        match (mode, self.format) {
            (Mode::None, _) => None,
            (Mode::Summary, LogFormat::Console) => Some(summary(t, row)),
            (Mode::Summary, LogFormat::Json) => Some(json_summary(t, row)),
            (mode, LogFormat::Console) => Some(content(t, row, mode, Format::Text)),
            (mode, LogFormat::Json) => Some(content(t, row, mode, Format::Json)),
        }
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
fn summary(t: &Transactions<'_>, row: usize) -> String {
    let time = rfc3339(t.start_ns.value(row));
    let time = time.get(11..23).unwrap_or_default();
    let process = text(t.process_exe, row).and_then(|exe| exe.rsplit('/').next()).unwrap_or("unknown");
    let ingress = t.direction.value(row) == "ingress";
    let (ip, port_column, arrow) = if ingress { (t.src_ip, t.src_port, '←') } else { (t.dst_ip, t.dst_port, '→') };
    let peer = match (text(ip, row), port(port_column, row)) {
        (Some(ip), Some(port)) if ip.contains(':') => format!("[{ip}]:{port}"),
        (Some(ip), Some(port)) => format!("{ip}:{port}"),
        _ => "unknown".into(),
    };
    let damage: u64 = t.damage(row).map(|d| d.end - d.start).sum();
    let marks = match (t.damage(row).count(), t.socket.value(row)) {
        (0, "exact") => String::new(),
        (0, socket) => format!("  socket {socket}"),
        (_, _) => format!("  DAMAGED, {damage} bytes missing"),
    };
    let url: String = t.url.value(row).chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    format!(
        "{time}  {}  {:<6} {url}  {} ms  {}  {process}[{}] {arrow} {peer}{marks}",
        t.status.value(row),
        t.method.value(row),
        t.duration_ms(row),
        size(t.response_bytes.value(row)),
        t.process_id.value(row),
    )
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
    fn sizes_are_readable() {
        assert_eq!([0, 999, 1_200, 3_400_000].map(super::size), ["0 B", "999 B", "1.2 kB", "3.4 MB"]);
    }
}
