//! The corpus of llhttp: each case yields the messages, bodies and refusals that it states, or stands in the list of
//! differences with its reason; and yields the same however its bytes are cut.

use std::fmt::Write as _;

use crate::{Cause, Connection, Direction, Exchange, Head, Limits, Protocol, Role};

/// One case of the corpus.
#[derive(Debug)]
struct Case {
    name: String,
    response: bool,
    /// A parser that lets much pass is meant.
    lenient: bool,
    wire: Vec<u8>,
    /// What a parser must make of it.
    expected: String,
}

/// A message, as both sides tell it.
#[derive(Debug, Default)]
struct Message {
    method: String,
    target: String,
    status: String,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    /// Its head was whole.
    begun: bool,
    complete: bool,
}

impl Message {
    fn told(&self, out: &mut String) {
        let fields: Vec<String> =
            self.fields.iter().map(|(name, value)| format!("{name}={}", value.trim_matches([' ', '\t']))).collect();
        let Self { method, target, status, body, complete, .. } = self;
        let body = body.escape_ascii();
        let _ = writeln!(out, "{method}{status} {target} [{}] \"{body}\" complete={complete}", fields.join("|"));
    }
}

/// The bytes that a block of the corpus stands for.
fn wire_of(block: &str) -> Vec<u8> {
    let text = block.strip_suffix('\n').unwrap_or(block).replace("\\\n", "").replace('\n', "\r\n");
    let (mut wire, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        let escaped = if *byte == b'\\' { rest.first().copied() } else { None };
        let plain = match escaped {
            Some(b'r') => b'\r',
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'f') => 0x0c,
            Some(b'x') => {
                let digits = std::str::from_utf8(&rest[1..3]).expect("digits");
                rest = &rest[2..];
                u8::from_str_radix(digits, 16).expect("hexadecimal")
            }
            _ => {
                wire.push(*byte);
                continue;
            }
        };
        rest = &rest[1..];
        wire.push(plain);
    }
    wire
}

/// What the log of a case says, in the words of [`Message::told`].
fn expected_of(log: &str) -> String {
    let (mut messages, mut refused): (Vec<Message>, bool) = (Vec::new(), false);
    let mut after = "";
    for line in log.lines() {
        let Some((_, event)) = line.split_once(' ') else { continue };
        let span = || event.split_once("]=\"").and_then(|(_, text)| text.strip_suffix('"')).unwrap_or_default();
        let kind = event.split_once("span[").and_then(|(_, rest)| rest.split(']').next()).unwrap_or(event);
        if event == "message begin" {
            messages.push(Message::default());
        }
        let Some(message) = messages.last_mut() else { continue };
        match kind {
            "method" => message.method.push_str(span()),
            "url" => message.target.push_str(span()),
            "header_field" if after == "header_field" => {
                message.fields.last_mut().expect("a field").0.push_str(span());
            }
            "header_field" => message.fields.push((span().to_owned(), String::new())),
            "header_value" => {
                let value = String::from_utf8_lossy(&wire_of(span())).into_owned();
                message.fields.last_mut().expect("a field").1.push_str(&value);
            }
            "body" => match event.rsplit(']').next() {
                Some("=cr") => message.body.push(b'\r'),
                Some("=lf") => message.body.push(b'\n'),
                _ => message.body.extend(wire_of(span())),
            },
            "message complete" => message.complete = true,
            _ if event.starts_with("headers complete") => {
                message.begun = true;
                let status = event.split_once("status=").and_then(|(_, rest)| rest.split(' ').next());
                message.status = status.unwrap_or_default().to_owned();
            }
            // A pause is asked for by the case; 22 is the end of HTTP on this connection.
            _ if event.starts_with("error code=") => {
                refused |=
                    !["21", "22", "23", "24"].iter().any(|code| event.starts_with(&format!("error code={code} ")));
            }
            _ => {}
        }
        after = kind;
    }
    tell(&messages, refused)
}

fn tell(messages: &[Message], refused: bool) -> String {
    let mut told = String::new();
    for message in messages.iter().filter(|message| message.begun) {
        // Informational responses are no messages of ours.
        if !message.status.starts_with('1') || message.status == "101" {
            message.told(&mut told);
        }
    }
    if refused {
        told.push_str("refused\n");
    }
    told
}

fn cases() -> Vec<Case> {
    let Some(corpora) = crate::corpora("llhttp/test") else { return Vec::new() };
    let mut cases = Vec::new();
    for part in ["request", "response"] {
        let mut files: Vec<_> = std::fs::read_dir(corpora.join(part))
            .expect("a folder")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        files.sort();
        for file in files {
            let text = std::fs::read_to_string(&file).expect("a file");
            let stem = file.file_stem().and_then(|stem| stem.to_str()).expect("a name").to_owned();
            let (mut title, mut lenient) = ("", false);
            let mut wire = None;
            let mut blocks = text.split("\n```");
            let mut outside = blocks.next().unwrap_or_default();
            while let Some(block) = blocks.next() {
                lenient = if block.starts_with("http") { outside.contains("-lenient") } else { lenient };
                title =
                    outside.lines().rfind(|line| line.starts_with('#')).unwrap_or(title).trim_start_matches(['#', ' ']);
                let (kind, content) = block.split_once('\n').unwrap_or((block, ""));
                match (kind, wire.take()) {
                    ("http", _) => wire = Some(wire_of(&format!("{content}\n"))),
                    ("log", Some(wire)) => cases.push(Case {
                        name: format!("{part}/{stem}: {title}"),
                        response: part == "response",
                        lenient,
                        wire,
                        expected: expected_of(content),
                    }),
                    _ => {}
                }
                outside = blocks.next().unwrap_or_default();
            }
        }
    }
    cases
}

fn fields(head: &Head) -> Vec<(String, String)> {
    let all = head.headers.iter().chain(head.trailers.iter());
    all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// What we make of a case whose bytes come in these parts.
fn found(case: &Case, parts: &[&[u8]]) -> String {
    let mut connection = Connection::new(Limits::default(), Some(Role::Client), false);
    let mut out: Vec<Exchange> = Vec::new();
    let direction = if case.response { Direction::Received } else { Direction::Sent };
    if case.response {
        connection.data(Direction::Sent, 0, &b"GET / HTTP/1.1\r\n\r\n".repeat(8), 0, &mut out);
    }
    for part in parts {
        let at = connection.next_offset(direction);
        connection.data(direction, at, part, 1, &mut out);
    }
    let mut refused = connection.protocol() == Protocol::Other;
    let tunnel = |e: &Exchange| e.response.as_ref().is_some_and(|r| r.status == 101);
    refused &= !out.iter().any(tunnel);
    connection.close(None, 2, &mut out);
    refused |= out.iter().flat_map(|e| &e.damage).any(|d| matches!(d.cause, Cause::Malformed | Cause::AmbiguousLength));
    let message = |exchange: &Exchange| {
        if case.response {
            let response = exchange.response.as_ref()?;
            return Some(Message {
                status: response.status.to_string(),
                fields: fields(&response.head),
                body: response.body.bytes.clone(),
                begun: true,
                complete: response.body.complete,
                ..Message::default()
            });
        }
        let request = &exchange.request;
        Some(Message {
            method: request.method.clone(),
            target: request.target.clone(),
            fields: fields(&request.head),
            body: request.body.bytes.clone(),
            begun: true,
            complete: request.body.complete,
            ..Message::default()
        })
    };
    tell(&out.iter().filter_map(message).collect::<Vec<_>>(), refused)
}

/// What must be refused is refused, or marked as what servers differ about, or not told at all. What a lenient parser
/// reads is read; that it is marked besides is no difference.
fn is_as_expected(case: &Case, found: &str) -> bool {
    let refused = |told: &str| told.ends_with("refused\n");
    let messages = |told: &str| told.trim_end_matches("refused\n").to_owned();
    let same = messages(found) == messages(&case.expected);
    match refused(&case.expected) {
        true => same || refused(found),
        false => same && (case.lenient || !refused(found)),
    }
}

/// Where we differ, and why.
const DIFFERENT: [(&str, &[&str]); 16] = [
    (
        "Folds are one blank, as RFC 9112 asks; llhttp keeps the blanks of the wire.",
        &[
            "request/connection: Multiple tokens with folding, LWS, and CRLF",
            "request/sample: Line folding in header value with CRLF",
            "request/sample: X-SSL-Nonsense",
        ],
    ),
    (
        "A name ends before the blank that must not be there; llhttp makes it a part of the name.",
        &[
            "request/connection: Invalid whitespace token with `Connection` header field (lenient)",
            "request/content-length: Invalid whitespace token with `Content-Length` header field (lenient)",
        ],
    ),
    (
        "What a client sends behind `Connection: close` is what it sends; whether the server reads it is its own affair.",
        &["request/connection: No restart when keep-alive is off (1.0)"],
    ),
    (
        "A request whose length is told in two ways, or in one that servers differ about, has no body of ours, and is marked.",
        &[
            "request/content-length: No error on simultaneous `Content-Length` and `Transfer-Encoding: identity` (lenient)",
            "request/transfer-encoding: POST with `Transfer-Encoding` and `Content-Length` (lenient)",
            "request/transfer-encoding: POST with `chunked` before other transfer-coding (lenient)",
            "request/transfer-encoding: POST with `chunked` and duplicate transfer-encoding (lenient)",
        ],
    ),
    (
        "Read as llhttp reads it, and marked besides: clients differ about such a length.",
        &[
            "response/transfer-encoding: `chunked` before other transfer-encoding",
            "response/transfer-encoding: multiple transfer-encoding where chunked is not the last one",
            "response/transfer-encoding: Invalid OBS fold after chunked value",
        ],
    ),
    (
        "The case tells its parser that no body follows; the bytes do not.",
        &[
            "request/content-length: Content-Length reset when no body is received",
            "response/content-length: Content-Length reset when no body is received",
        ],
    ),
    (
        "A carriage return alone ends no line.",
        &[
            "request/content-length: Missing CRLF-CRLF before body (lenient)",
            "request/invalid: Headers separated by dummy characters (lenient)",
            "request/lenient-headers: Empty headers separated by CR (lenient)",
            "request/transfer-encoding: Chunk header not terminated by CRLF (lenient)",
            "response/invalid: Bare CR after response line (lenient)",
        ],
    ),
    (
        "Lines that all end in a line feed alone are read: real servers send them.",
        &[
            "request/sample: Line folding in header value with LF",
            "response/invalid: Only LFs present and no body",
            "response/invalid: Only LFs present",
            "response/sample: No carriage ret",
        ],
    ),
    (
        "The empty line behind the last chunk ends the trailers, of which there are none.",
        &["request/invalid: Only LFs present (lenient)"],
    ),
    (
        "Methods are not counted: any word is one.",
        &[
            "request/invalid: HTTP protocol and ANNOUNCE method",
            "request/invalid: Invalid method",
            "request/method: PRI request HTTP2",
        ],
    ),
    (
        "RTSP, ICE, versions that are not 1.x: not HTTP/1.",
        &[
            "request/lenient-version: Invalid HTTP version (lenient)",
            "request/method: SOURCE request with ICE",
            "request/method: OPTIONS request with RTSP",
            "request/method: ANNOUNCE request with RTSP",
            "request/sample: No HTTP version",
            "response/lenient-version: Invalid HTTP version (lenient)",
            "response/sample: RTSP response",
            "response/sample: ICE response",
            "response/sample: HTTP version 0.9",
        ],
    ),
    (
        "What stands behind a chunk's size is passed over, as servers do: it changes no length.",
        &[
            "request/transfer-encoding: No semicolon before chunk extensions",
            "request/transfer-encoding: No extension after semicolon",
            "request/transfer-encoding: Unbalanced chunk extensions quoting",
            "request/transfer-encoding: Space after chunk header",
            "response/transfer-encoding: Trailing space on chunked body",
            "response/transfer-encoding: No semicolon before chunk extensions",
            "response/transfer-encoding: No extension after semicolon",
            "response/transfer-encoding: Unbalanced chunk extensions quoting",
        ],
    ),
    (
        "Marked; the bytes behind such a request are not taken for its body.",
        &["request/transfer-encoding: Invalid OBS fold after chunked value"],
    ),
    (
        "More than one blank in a first line is read by clients and servers alike.",
        &["response/invalid: Extra space between HTTP version and status code"],
    ),
    (
        "Targets are what the client sent, also where they are not ASCII.",
        &["request/uri: Disallow UTF-8 in URI path in strict mode"],
    ),
    (
        "The connection goes on in HTTP/2, where the answer to this request comes.",
        &[
            "response/connection: HTTP 101 response with Upgrade and Content-Length header",
            "response/connection: HTTP 101 response with Upgrade and Transfer-Encoding header",
        ],
    ),
];

/// Behind what is refused a message is looked for where records begin: what is found there hangs on the cut.
fn up_to_refusal(told: &str) -> Vec<&str> {
    let refused = told.ends_with("refused\n");
    let last = told.lines().position(|line| refused && line.ends_with("complete=false"));
    told.lines().take(last.map_or(usize::MAX, |last| last + 1)).collect()
}

#[test]
fn the_corpus_of_llhttp() {
    let cases = cases();
    if cases.is_empty() {
        return;
    }
    let mut different = String::new();
    for case in &cases {
        let whole = found(case, &[&case.wire]);
        for cut in 1..case.wire.len() {
            let split = found(case, &[&case.wire[..cut], &case.wire[cut..]]);
            let (split, whole) = (up_to_refusal(&split), up_to_refusal(&whole));
            assert_eq!(split, whole, "{} cut at {cut}: {}", case.name, case.wire.escape_ascii());
        }
        if !is_as_expected(case, &whole) && !DIFFERENT.iter().any(|(_, names)| names.contains(&case.name.as_str())) {
            let _ = write!(
                different,
                "{}\n  wire {}\n  expected\n{}  found\n{whole}\n",
                case.name,
                case.wire.escape_ascii(),
                case.expected
            );
        }
    }
    assert!(different.is_empty(), "{different}");
    assert!(cases.len() > 240, "{} cases", cases.len());
}
