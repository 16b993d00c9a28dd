//! An object for people.

use std::{fmt::Write as _, str};

use super::{
    json,
    object::{Content, Damage, Message, Object, Part, Transaction},
    paint::{Paint, Style},
    visible,
};

/// Bytes of a body that is no text which are shown.
const DUMP: usize = 512;
/// Bytes in a line of them.
const DUMP_LINE: usize = 16;

/// An object in lines.
pub(super) fn render(object: &Object, paint: Paint) -> String {
    match &object.content {
        Content::Transaction(transaction) => {
            Page { paint, out: String::new() }.transaction(&object.digest, transaction)
        }
        Content::Json(text) => json::pretty(text, paint) + "\n",
        Content::Other(bytes) => shown(bytes, "", false, paint),
    }
}

struct Page {
    paint: Paint,
    out: String,
}

impl Page {
    fn transaction(mut self, digest: &str, t: &Transaction) -> String {
        let request = &t.request;
        let what = if request.url.is_empty() { &request.path } else { &request.url };
        let title = format!("{} {}", visible::line(&request.method), visible::line(what));
        self.line(&self.paint.paint(Style::Title, &title));
        let outcome = self.outcome(t);
        self.line(&outcome);
        self.out.push('\n');
        self.facts(digest, t);
        self.message("Request", &t.request);
        self.message("Response", &t.response);
        self.out
    }

    fn line(&mut self, text: &str) {
        self.out.push_str(text);
        self.out.push('\n');
    }

    fn outcome(&self, t: &Transaction) -> String {
        let status = t.response.status.unwrap_or_default();
        let fine = (100..400).contains(&status) && t.grpc_status.unwrap_or(0) == 0;
        let mut words = format!("{status} {}", reason(status));
        if let Some(code) = t.grpc_status {
            _ = write!(words, ", gRPC {code} {} {}", t.grpc_status_name, t.grpc_message);
        }
        let words = self.paint.paint(if fine { Style::Good } else { Style::Bad }, visible::line(words.trim()).trim());
        let more = [&t.request.protocol, &t.direction].into_iter().filter(|text| !text.is_empty());
        let more = more.map(|text| visible::line(text)).collect::<Vec<_>>();
        format!("{words} in {} ms{}{}", t.duration_ms, if more.is_empty() { "" } else { ", " }, more.join(", "))
    }

    fn facts(&mut self, digest: &str, t: &Transaction) {
        let m = &t.metadata;
        let joined = |parts: &[&str], by: &str| {
            parts.iter().copied().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(by)
        };
        let process = if m.process_id.is_empty() { String::new() } else { format!("[{}]", m.process_id) };
        let socket = match m.socket.as_deref() {
            Some("inferred") => ", socket inferred from what the thread sent and received",
            Some("verified") => ", socket inferred, and verified by lengths",
            Some("unknown") => ", socket unknown",
            _ => "",
        };
        let connection = format!(
            "{}{}{} bytes sent, {} received{socket}",
            m.connection_id,
            if m.connection_id.is_empty() { "" } else { ", " },
            m.bytes_sent,
            m.bytes_received
        );
        self.fact("time", &t.time);
        self.fact("process", &joined(&[&m.process_exe, &process], " "));
        self.fact("container", &joined(&[&m.container_name, &m.container_image], ", "));
        self.fact("pod", &joined(&[&m.pod_namespace, &m.pod_name], "/"));
        self.fact("endpoint", &m.endpoint_id);
        self.fact("connection", &connection);
        self.fact("request", &m.request_id);
        self.fact("tags", &m.tags.join(", "));
        self.fact("object", digest);
        for damage in &t.damage {
            self.fact("damage", &damage_in_words(damage));
        }
    }

    fn fact(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            let style = if name == "damage" { Style::Bad } else { Style::Note };
            let name = self.paint.paint(style, &format!("{name:<11}"));
            self.line(&format!("  {name} {}", visible::line(value)));
        }
    }

    fn message(&mut self, title: &str, message: &Message) {
        self.out.push('\n');
        self.line(&self.paint.paint(Style::Title, title));
        if !message.has_fields() {
            self.note("header fields and body were not captured");
        }
        for (name, value) in message.fields() {
            let name = self.paint.paint(Style::Name, &visible::line(name));
            self.line(&format!("  {name}: {}", visible::line(value)));
        }
        let (body, codings) = message.plain();
        if let Some(words) = about(message, body.len(), codings) {
            self.out.push('\n');
            self.note(&words);
        }
        match own_messages(message, &body) {
            Some(parts) => self.parts(&parts),
            None if body.is_empty() => {}
            None => {
                let shown = shown(&body, &message.media_type(), message.truncated.is_some(), self.paint);
                self.out.push('\n');
                self.indented(&shown);
            }
        }
    }

    /// The messages that a body is made of, one by one.
    fn parts(&mut self, parts: &[(&Part, &[u8])]) {
        for (n, (part, bytes)) in parts.iter().enumerate() {
            self.out.push('\n');
            let compressed = if part.compressed { ", compressed" } else { "" };
            self.note(&format!("message {}: {}, {} bytes{compressed}, {}", n + 1, part.kind, part.size, part.time));
            if !bytes.is_empty() {
                self.indented(&shown(bytes, "", false, self.paint));
            }
        }
    }

    fn note(&mut self, words: &str) {
        let words = self.paint.paint(Style::Note, &format!("[{}]", visible::line(words)));
        self.line(&format!("  {words}"));
    }

    fn indented(&mut self, text: &str) {
        for line in text.lines() {
            self.line(&if line.is_empty() { String::new() } else { format!("  {line}") });
        }
    }
}

/// Its messages with their bytes, if they are all there: masks can have moved what is behind them.
fn own_messages<'a>(message: &'a Message, body: &'a [u8]) -> Option<Vec<(&'a Part, &'a [u8])>> {
    let messages = message.messages.as_ref().filter(|messages| messages.dialect != "sse")?;
    if messages.list.len() as u64 != messages.count || messages.list.is_empty() {
        return None;
    }
    let mut parts = Vec::new();
    let mut end = 0;
    for part in &messages.list {
        let start = usize::try_from(part.start).ok().filter(|start| *start >= end)?;
        end = start.checked_add(usize::try_from(part.length).ok()?)?;
        parts.push((part, body.get(start..end)?));
    }
    (end == body.len()).then_some(parts)
}

/// What is to be said of a body besides its bytes.
fn about(message: &Message, len: usize, codings: Option<&str>) -> Option<String> {
    let mut words = Vec::new();
    if let Some(messages) = &message.messages {
        let s = if messages.count == 1 { "" } else { "s" };
        words.push(format!("{} message{s} ({})", messages.count, messages.dialect));
    }
    let size = message.body_size.unwrap_or(message.body.len() as u64);
    match codings {
        Some(codings) => words.push(format!("{len} bytes, {size} on the wire in {codings}")),
        None if message.truncated.is_some() => words.push(format!("the first {len} of {size} bytes")),
        None if len > 0 => words.push(format!("{len} bytes")),
        None => {}
    }
    if let Some(why) = &message.truncated {
        words.push(format!("not whole: {}", cut_in_words(why)));
    }
    (!words.is_empty()).then(|| words.join("; "))
}

fn cut_in_words(why: &str) -> &str {
    match why {
        "limit" => "it is longer than bodies may be",
        "budget" => "there was no more memory for it",
        "governor" => "to capture it would have cost its process too much",
        "damage" => "a piece of the stream is missing",
        "redacted" => "it was left out so that no secret is in it",
        "coding" => "its content coding breaks off or is damaged",
        "incomplete" => "the message did not end",
        "unwanted" => "nothing wanted it",
        other => other,
    }
}

fn damage_in_words(damage: &Damage) -> String {
    let Damage { cause, part, start, end } = damage;
    let why = match cause.as_str() {
        "unseen" => "a full ring, a way into the socket that is not observed, or a capture file that lacks them",
        "fault" => "their memory could not be read",
        "sendfile" => "they went from a file to the socket inside the kernel",
        "splice" => "they went through a pipe inside the kernel",
        "discarded" => "the program let the kernel discard them",
        "resync" => "a whole message may be missing before this exchange",
        "limit" => "longer than is allowed",
        "malformed" => "not HTTP as it has to be",
        "ambiguous_length" => "lengths that contradict each other",
        "governor" => "the connection was left out from there on, since probes cost its process too much",
        "unknown_headers" => "HTTP/2 joined late: fields that refer to what was not seen are left out",
        other => other,
    };
    match end.saturating_sub(*start) {
        0 => format!("of the {part}, at offset {start} of the stream: {why}"),
        n => format!("{n} bytes of the {part} are missing, offsets {start} to {end} of the stream: {why}"),
    }
}

/// A reason for a status.
pub(super) fn reason(status: u16) -> &'static str {
    hyper::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default()
}

/// The text that bytes are; one whose end was cut may break off within a character. `None`: they are no text.
pub(super) fn as_text(bytes: &[u8], cut: bool) -> Option<&str> {
    let text = match str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if cut && error.error_len().is_none() => str::from_utf8(&bytes[..error.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    let controls = text.bytes().filter(|byte| *byte < 0x20 && !b"\n\r\t\x1b".contains(byte)).count();
    (!text.contains('\0') && controls * 16 <= text.len()).then_some(text)
}

/// Bytes in lines, by what they are.
fn shown(bytes: &[u8], media_type: &str, cut: bool, paint: Paint) -> String {
    let Some(text) = as_text(bytes, cut) else { return dump(bytes, paint) };
    let mut lines = match json_values(text, media_type) {
        Some(values) => values.iter().map(|value| json::pretty(value, paint)).collect::<Vec<_>>().join("\n"),
        None if media_type == "text/event-stream" => {
            text.lines().map(|line| event_line(line, paint)).collect::<Vec<_>>().join("\n")
        }
        None => visible::lines(text),
    };
    if !lines.ends_with('\n') {
        lines.push('\n');
    }
    lines
}

fn json_values<'a>(text: &'a str, media_type: &str) -> Option<Vec<&'a str>> {
    let may_be = media_type.contains("json") || text.trim_start().starts_with(['{', '[']);
    may_be.then(|| json::values(text)).flatten()
}

/// A line of an event stream.
fn event_line(line: &str, paint: Paint) -> String {
    let Some(data) = line.strip_prefix("data:") else { return visible::lines(line) };
    match json_values(data, "").as_deref() {
        Some([value]) => format!("data: {}", json::pretty(value, paint).replace('\n', "\n      ")),
        _ => visible::lines(line),
    }
}

/// The beginning, in hexadecimal and as ASCII.
fn dump(bytes: &[u8], paint: Paint) -> String {
    let mut out = String::new();
    for (n, line) in bytes[..bytes.len().min(DUMP)].chunks(DUMP_LINE).enumerate() {
        let hex: String = line.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
        let ascii = |byte: &u8| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' };
        let ascii: String = line.iter().map(ascii).collect();
        // Never fails: a string takes everything.
        _ = writeln!(out, "{:08x}  {hex:<48} |{ascii}|", n * DUMP_LINE);
    }
    if bytes.len() > DUMP {
        let more = paint.paint(Style::Note, &format!("[{} more bytes]", bytes.len() - DUMP));
        _ = writeln!(out, "{more}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_by_what_they_are() {
        let shown = |bytes: &[u8], media_type: &str| shown(bytes, media_type, false, Paint::none());
        assert_eq!(shown(b"plain", "text/plain"), "plain\n");
        assert_eq!(shown(b"[1]", ""), "[\n  1\n]\n");
        assert_eq!(shown(b"{\"a\":1}\n{\"a\":2}\n", "application/x-ndjson"), "{\n  \"a\": 1\n}\n{\n  \"a\": 2\n}\n");
        assert_eq!(
            shown(b"event: x\ndata: {\"a\":[1]}\n\ndata: [DONE]\n", "text/event-stream"),
            "event: x\ndata: {\n        \"a\": [\n          1\n        ]\n      }\n\ndata: [DONE]\n"
        );
        assert_eq!(shown(b"\x00A\xff", ""), format!("00000000  00 41 ff {:39} |.A.|\n", ""));
        assert!(shown(&[0xff; 600], "").ends_with("|................|\n[88 more bytes]\n"));
        assert_eq!(shown(b"\x1b[31mred", ""), "\\x1b[31mred\n");
    }

    #[test]
    fn a_text_may_break_off() {
        let bytes = &"ab€".as_bytes()[..4];
        assert_eq!((as_text(bytes, true), as_text(bytes, false)), (Some("ab"), None));
    }
}
