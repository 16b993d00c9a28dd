//! Heads that strict parsers refuse and some real ones accept: folded fields, blanks before the colon, odd characters.
//!
//! Such a head is read the way in which most servers read it. Where servers differ, so that one can be led to see
//! another message than its neighbour, the head is said to be odd.

use super::head::{RequestHead, ResponseHead, text};
use crate::exchange::{Head, Headers, Version};

/// Fields of one head at most.
pub(super) const FIELDS_MAX: usize = 1024;

/// A head, and whether servers differ about it.
pub(super) struct Lenient<T> {
    pub(super) head: T,
    pub(super) odd: bool,
}

/// A request head. `None`: it is none.
pub(super) fn request(bytes: &[u8]) -> Option<Lenient<RequestHead>> {
    let (line, rest) = first_line(bytes);
    let line = text(line);
    let (method, behind) = line.split_once([' ', '\t'])?;
    let (target, version) = behind.trim().rsplit_once([' ', '\t'])?;
    let (headers, odd) = fields(rest)?;
    let target = target.trim_end();
    let head = Head { bytes: bytes.len() as u64, version: version_of(version)?, headers, ..Head::default() };
    // A target with blanks in it can be read in more than one way.
    let odd = odd || target.contains([' ', '\t']) || is_odd_line(&line, version);
    Some(Lenient { head: RequestHead { method: method.to_owned(), target: target.to_owned(), head }, odd })
}

/// A response head. `None`: it is none.
pub(super) fn response(bytes: &[u8]) -> Option<Lenient<ResponseHead>> {
    let (line, rest) = first_line(bytes);
    let line = text(line);
    let (version, behind) = line.split_once([' ', '\t'])?;
    let status = behind.trim().split([' ', '\t']).next()?;
    let status = status.parse().ok().filter(|_| status.len() == 3)?;
    let (headers, odd) = fields(rest)?;
    let head = Head { bytes: bytes.len() as u64, version: version_of(version)?, headers, ..Head::default() };
    Some(Lenient { head: ResponseHead { status, head }, odd: odd || is_odd_line(&line, version) })
}

/// Trailer fields: lines up to the empty one.
pub(super) fn trailers(bytes: &[u8]) -> Option<Headers> {
    fields(bytes).map(|(headers, _)| headers)
}

/// Whether servers differ about a first line.
fn is_odd_line(line: &str, version: &str) -> bool {
    line.contains(|c: char| c.is_ascii_control()) || !matches!(version, "HTTP/1.0" | "HTTP/1.1")
}

fn version_of(text: &str) -> Option<Version> {
    match text {
        "HTTP/1.0" => Some(Version::Http10),
        _ => text.starts_with("HTTP/1.").then_some(Version::Http11),
    }
}

/// A line without its end, and what follows.
fn first_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = memchr::memchr(b'\n', bytes).unwrap_or(bytes.len());
    let (line, rest) = bytes.split_at(end);
    (line.strip_suffix(b"\r").unwrap_or(line), rest.get(1..).unwrap_or_default())
}

/// Fields up to the empty line, and whether any of them is odd. `None`: too many.
fn fields(mut bytes: &[u8]) -> Option<(Headers, bool)> {
    let (mut all, mut odd): (Vec<(String, String)>, bool) = (Vec::new(), false);
    while !bytes.is_empty() {
        let (line, rest) = first_line(bytes);
        bytes = rest;
        if line.is_empty() {
            break;
        }
        if matches!(line[0], b' ' | b'\t') {
            match all.last_mut() {
                Some((name, value)) => {
                    let more = text(trim(line));
                    // Who does not fold takes it for a field of its own.
                    let own = more.split(':').next().unwrap_or_default().trim();
                    odd |= is_framing(name) || is_framing(own) || has_controls(line);
                    if !value.is_empty() && !more.is_empty() {
                        value.push(' ');
                    }
                    value.push_str(&more);
                }
                None => odd = true,
            }
            continue;
        }
        let Some(colon) = memchr::memchr(b':', line) else {
            odd = true;
            continue;
        };
        let (name, value) = (&line[..colon], trim(&line[colon + 1..]));
        let known = name.trim_ascii_end();
        odd |= known.len() < name.len() || known.is_empty() || !known.iter().all(|byte| is_token(*byte));
        odd |= has_controls(value);
        if all.len() >= FIELDS_MAX {
            return None;
        }
        all.push((text(known).into_owned(), text(value).into_owned()));
    }
    let mut headers = Headers::default();
    all.iter().for_each(|(name, value)| headers.push(name, value));
    Some((headers, odd))
}

/// Without the blanks around it.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn has_controls(bytes: &[u8]) -> bool {
    bytes.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t')
}

/// Whether the length of the message hangs on a field.
fn is_framing(name: &str) -> bool {
    name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding")
}

/// The characters of names (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(head: &str) -> (Vec<(String, String)>, bool) {
        let lenient = request(format!("GET / HTTP/1.1\r\n{head}\r\n").as_bytes()).expect("a head");
        let fields = lenient.head.head.headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        (fields.collect(), lenient.odd)
    }

    #[test]
    fn odd_fields_are_read_as_servers_read_them() {
        let one = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        for (head, fields, odd) in [
            ("A: b\r\n c\r\n\td\r\n", one("A", "b c d"), false),
            ("A:\r\n c\r\n", one("A", "c"), false),
            ("Transfer-Encoding: chunked\r\n x\r\n", one("Transfer-Encoding", "chunked x"), true),
            ("Content-Length : 4\r\n", one("Content-Length", "4"), true),
            (" A: b\r\n", vec![], true),
            ("no colon\r\n", vec![], true),
            (": b\r\n", one("", "b"), true),
            ("A: x\x0cy\r\n", one("A", "x\x0cy"), true),
            ("A: caf\u{e9}\r\n", one("A", "caf\u{e9}"), false),
        ] {
            assert_eq!(told(head), (fields, odd), "{head:?}");
        }
    }

    #[test]
    fn odd_first_lines() {
        let line = |line: &str| request(format!("{line}\r\n\r\n").as_bytes()).map(|head| (head.head.target, head.odd));
        assert_eq!(line("GET  /a  HTTP/1.1"), Some(("/a".into(), false)));
        assert_eq!(line("GET /a b HTTP/1.1"), Some(("/a b".into(), true)));
        assert_eq!(line("GET /a HTTP/2.0"), None);
        assert_eq!(line("GET /a"), None);
        let status = |line: &str| response(format!("{line}\r\n\r\n").as_bytes()).map(|head| head.head.status);
        assert_eq!(status("HTTP/1.1  200 OK"), Some(200));
        assert_eq!(status("HTTP/1.1 200"), Some(200));
        assert_eq!(status("HTTP/1.1 20 OK"), None);
    }
}
