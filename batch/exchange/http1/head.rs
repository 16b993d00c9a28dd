//! Heads: where they end, and what they say.

use super::fields::{self, FIELDS_MAX, Lenient};
use crate::exchange::{Head, Headers, Version};

/// Header fields that nearly every head has room in; room for more is made only when it is needed.
const FIELDS_USUAL: usize = 64;

/// What the first bytes of a message say about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    Request,
    Response,
    /// The preface of HTTP/2.
    Http2,
    /// Could become a message with more bytes.
    Undecided,
    Other,
}

const RESPONSE_START: &[u8] = b"HTTP/1.";
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";
const METHOD_MAX: usize = 32;

/// The registry of methods, and `PURGE`, which caches know.
#[rustfmt::skip]
const METHODS: [&str; 40] = [
    "ACL", "BASELINE-CONTROL", "BIND", "CHECKIN", "CHECKOUT", "CONNECT", "COPY", "DELETE", "GET", "HEAD", "LABEL", "LINK",
    "LOCK", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL", "MKREDIRECTREF", "MKWORKSPACE", "MOVE", "OPTIONS", "ORDERPATCH",
    "PATCH", "POST", "PROPFIND", "PROPPATCH", "PURGE", "PUT", "QUERY", "REBIND", "REPORT", "SEARCH", "TRACE", "UNBIND",
    "UNCHECKOUT", "UNLINK", "UNLOCK", "UPDATE", "UPDATEREDIRECTREF", "VERSION-CONTROL",
];

/// Whether a method opens these bytes that is known. Where the place was lost, `ET` is not a method but the rest of one.
pub(super) fn has_registered_method(bytes: &[u8]) -> bool {
    let bytes = skip_line_ends(bytes);
    let method = bytes.iter().position(|byte| *byte == b' ').map(|end| &bytes[..end]);
    method.is_some_and(|method| METHODS.iter().any(|known| known.as_bytes() == method))
}

/// Looks at the first bytes after leading line ends.
pub(crate) fn start_of(bytes: &[u8]) -> Start {
    let bytes = skip_line_ends(bytes);
    if bytes.is_empty() {
        return Start::Undecided;
    }
    for (pattern, start) in [(RESPONSE_START, Start::Response), (HTTP2_PREFACE, Start::Http2)] {
        if bytes.starts_with(pattern) {
            return start;
        }
        if pattern.starts_with(bytes) {
            return Start::Undecided;
        }
    }
    request_start(bytes)
}

/// Whether a response may begin so, as far as it is there.
pub(crate) fn may_begin_response<'b>(bytes: impl Iterator<Item = &'b u8>) -> bool {
    bytes.skip_while(|byte| matches!(byte, b'\r' | b'\n')).zip(RESPONSE_START).all(|(byte, expected)| byte == expected)
}

/// `METHOD target HTTP/1.x`, as far as it is there.
fn request_start(bytes: &[u8]) -> Start {
    let Some(space) = bytes.iter().position(|b| is_blank(*b)) else {
        let plausible = bytes.len() <= METHOD_MAX && bytes.iter().all(|b| is_method_byte(*b));
        return if plausible { Start::Undecided } else { Start::Other };
    };
    if space == 0 || space > METHOD_MAX || !bytes[..space].iter().all(|b| is_method_byte(*b)) {
        return Start::Other;
    }
    let target = &bytes[space + 1..];
    match target.iter().position(|b| b.is_ascii_control() && *b != b'\t') {
        Some(end) => {
            let line = target[..end].trim_ascii_end();
            let ends_line = matches!(target[end], b'\r' | b'\n');
            let version = line.rsplit(|b| is_blank(*b)).next().unwrap_or_default();
            if ends_line && version.starts_with(b"HTTP/1.") { Start::Request } else { Start::Other }
        }
        None => Start::Undecided,
    }
}

/// Of a token (RFC 9110, section 5.6.2).
fn is_method_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Servers and clients skip empty lines in front of a message.
pub(crate) fn skip_line_ends(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|b| !matches!(b, b'\r' | b'\n')).unwrap_or(bytes.len());
    &bytes[start..]
}

/// Length of the head up to and with its empty line, searching from `from` on.
pub(crate) fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from.saturating_sub(3);
    while let Some(line) = memchr::memchr(b'\n', &bytes[at..]) {
        at += line + 1;
        match bytes.get(at..) {
            Some([b'\n', ..]) => return Some(at + 1),
            Some([b'\r', b'\n', ..]) => return Some(at + 2),
            _ => {}
        }
    }
    None
}

/// A parsed request line with its fields.
pub(crate) struct RequestHead {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) head: Head,
}

/// A parsed status line with its fields.
pub(crate) struct ResponseHead {
    pub(crate) status: u16,
    pub(crate) head: Head,
}

/// A request head, and whether servers differ about it. `None` if it is not one.
pub(super) fn parse_request(bytes: &[u8]) -> Option<Lenient<RequestHead>> {
    let bytes = skip_line_ends(bytes);
    let strict = with_fields(|fields| {
        let mut request = httparse::Request::new(fields);
        let done = request.parse(bytes)?.is_complete();
        Ok(request_head(&request, bytes).filter(|_| done))
    });
    match strict {
        Some(head) if head.method.len() > METHOD_MAX => None,
        Some(head) => Some(Lenient { head, odd: has_mixed_lines(bytes) }),
        None => fields::request(bytes).filter(|_| start_of(bytes) == Start::Request),
    }
}

fn request_head(request: &httparse::Request<'_, '_>, bytes: &[u8]) -> Option<RequestHead> {
    let (method, target, version) = (request.method?, request.path?, request.version?);
    let head = head(bytes, version, request.headers);
    Some(RequestHead { method: method.to_owned(), target: target.to_owned(), head })
}

/// A response head, and whether clients differ about it. `None` if it is not one.
pub(super) fn parse_response(bytes: &[u8]) -> Option<Lenient<ResponseHead>> {
    let bytes = skip_line_ends(bytes);
    let strict = with_fields(|fields| {
        let mut response = httparse::Response::new(fields);
        let done = response.parse(bytes)?.is_complete();
        Ok(response_head(&response, bytes).filter(|_| done))
    });
    match strict {
        Some(head) => Some(Lenient { head, odd: has_mixed_lines(bytes) }),
        None => fields::response(bytes).filter(|_| start_of(bytes) == Start::Response),
    }
}

fn response_head(response: &httparse::Response<'_, '_>, bytes: &[u8]) -> Option<ResponseHead> {
    Some(ResponseHead { status: response.code?, head: head(bytes, response.version?, response.headers) })
}

fn head(bytes: &[u8], version: u8, fields: &[httparse::Header<'_>]) -> Head {
    let version = if version == 0 { Version::Http10 } else { Version::Http11 };
    Head { bytes: bytes.len() as u64, version, headers: headers(bytes, fields), trailers: Headers::default() }
}

/// Whether some lines end in a line feed alone and others do not: where a field ends is read in more than one way.
fn has_mixed_lines(bytes: &[u8]) -> bool {
    let (mut bare, mut whole) = (false, false);
    for end in memchr::memchr_iter(b'\n', bytes) {
        let returned = end > 0 && bytes[end - 1] == b'\r';
        bare |= !returned;
        whole |= returned;
    }
    bare && whole
}

/// Trailer fields: lines up to the empty one.
pub(crate) fn parse_trailers(bytes: &[u8]) -> Option<Headers> {
    let strict = with_fields(|fields| match httparse::parse_headers(bytes, fields)? {
        httparse::Status::Complete((_, fields)) => Ok(Some(headers(bytes, fields))),
        httparse::Status::Partial => Ok(None),
    });
    strict.or_else(|| fields::trailers(bytes))
}

/// Parses with room for the usual number of fields, and again with all room if that was too little.
fn with_fields<'b, T>(parse: impl Fn(&mut [httparse::Header<'b>]) -> Result<Option<T>, httparse::Error>) -> Option<T> {
    match parse(&mut [httparse::EMPTY_HEADER; FIELDS_USUAL]) {
        Err(httparse::Error::TooManyHeaders) => parse(&mut vec![httparse::EMPTY_HEADER; FIELDS_MAX]).ok()?,
        parsed => parsed.ok()?,
    }
}

/// The fields that were found in `bytes`.
fn headers(bytes: &[u8], fields: &[httparse::Header<'_>]) -> Headers {
    // Text is checked, and copied, as one.
    let Ok(whole) = std::str::from_utf8(bytes) else {
        let mut headers = Headers::default();
        fields.iter().for_each(|field| headers.push(field.name, &text(field.value)));
        return headers;
    };
    let start = bytes.as_ptr().addr();
    let range = |part: &[u8]| {
        // The parser has nothing to point at for values that are empty.
        let from = part.as_ptr().addr().checked_sub(start).filter(|from| from + part.len() <= bytes.len()).unwrap_or(0);
        from..from + part.len()
    };
    let mut headers = Headers::with_text(whole, fields.len());
    for field in fields {
        headers.push_range(range(field.name.as_bytes()), range(field.value));
    }
    headers
}

/// Field values are UTF-8 in practice and Latin-1 by the book.
pub(crate) fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => bytes.iter().map(|b| char::from(*b)).collect::<String>().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_told_apart() {
        let check = |bytes: &[u8], expected| assert_eq!(start_of(bytes), expected, "{}", bytes.escape_ascii());
        check(b"GET / HTTP/1.1\r\n", Start::Request);
        check(b"\r\nPROPFIND /a b HTTP/1.0\n", Start::Request);
        check(b"OPTIONS * HTTP/1.1\r\n", Start::Request);
        check(b"CONNECT a:443 HTTP/1.1\r\n", Start::Request);
        check(b"HTTP/1.0 200 OK\r\n", Start::Response);
        check(b"HTT", Start::Undecided);
        check(b"GE", Start::Undecided);
        check(b"GET /lon", Start::Undecided);
        check(b"PRI * HTTP/2.0\r\n\r\nSM", Start::Http2);
        check(b"PRI * HT", Start::Undecided);
        check(b"SSH-2.0-OpenSSH\r\n", Start::Other);
        check(b"\x16\x03\x01", Start::Other);
        check(b"GET /\r\n", Start::Other);
        check(b"EHLO mail HELO\r\n", Start::Other);
        check(b"*1\r\n$4\r\nPING\r\n", Start::Other);
    }

    #[test]
    fn ends_are_found_at_any_split() {
        let head = b"GET / HTTP/1.1\r\nA: b\r\n\r\nrest";
        assert_eq!(head_end(head, 0), Some(24));
        for split in 0..24 {
            assert_eq!(head_end(&head[..split], 0), None, "cut at {split}");
            assert_eq!(head_end(head, split), Some(24), "searched from {split}");
        }
        assert_eq!(head_end(b"HTTP/1.1 200 OK\nA: b\n\nrest", 0), Some(22));
    }

    #[test]
    fn heads_with_many_fields_are_parsed_up_to_the_limit() {
        for (fields, parsed) in [(64, true), (65, true), (FIELDS_MAX, true), (FIELDS_MAX + 1, false)] {
            let head = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(fields));
            let found = parse_request(head.as_bytes()).map(|head| head.head.head.headers.iter().count());
            assert_eq!(found, parsed.then_some(fields), "{fields} fields");
        }
    }

    #[test]
    fn repeated_and_odd_fields_are_kept() {
        let head = parse_response(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nX: \xe9\r\n\r\n")
            .expect("a head")
            .head;
        assert_eq!(head.head.headers.get_all("Set-Cookie").collect::<Vec<_>>(), ["a=1", "b=2"]);
        assert_eq!(head.head.headers.get("x"), Some("\u{e9}"));
    }
}
