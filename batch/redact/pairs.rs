//! Values behind the names of secrets in texts that are not JSON: parameters, parts of a form, elements.

use std::{borrow::Cow, ops::Range, sync::LazyLock};

use regex::bytes::Regex;

use super::names;
use crate::token;

/// Names of parameters and elements at most.
const NAME_MAX: usize = 128;

/// `name="…"` of a part, its other fields, an empty line, and what it holds.
static PARTS: LazyLock<Regex> = LazyLock::new(|| {
    let part = r#"(?s-u)name="([^"\r\n]{1,128})"[^\n]*\n(?:[^\r\n][^\n]*\n)*?\r?\n(.*?)(?:\r?\n--|\z)"#;
    Regex::new(part).expect("a test builds it")
});

/// `<name …>text</`.
static ELEMENTS: LazyLock<Regex> = LazyLock::new(|| {
    let element = r"(?s-u)<([A-Za-z0-9_:.-]{1,128})(?:\s[^<>]*)?>([^<>]+)</";
    Regex::new(element).expect("a test builds it")
});

/// The bytes with these ranges masked; `None`: there are none.
fn replaced(bytes: &[u8], ranges: &[Range<usize>]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut copied = 0;
    for range in ranges {
        out.extend_from_slice(&bytes[copied..range.start]);
        out.extend_from_slice(token::mask(&String::from_utf8_lossy(&bytes[range.clone()])).as_bytes());
        copied = range.end;
    }
    out.extend_from_slice(&bytes[copied..]);
    (!ranges.is_empty()).then_some(out)
}

/// Parameters: `name=value` at the start, or behind `?`, `&`, `#` or `;`, wherever a url, a form or something alike stands.
pub(super) fn parameters(bytes: &[u8], is_secret: impl Fn(&str) -> bool) -> Option<Vec<u8>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for equals in memchr::memchr_iter(b'=', bytes) {
        if ranges.last().is_some_and(|last| last.end > equals) {
            continue;
        }
        let before = &bytes[equals.saturating_sub(NAME_MAX)..equals];
        let len = before.iter().rev().take_while(|byte| is_name(**byte)).count();
        let start = equals - len;
        let opens = start == 0 || matches!(bytes[start - 1], b'?' | b'&' | b'#' | b';');
        if len == 0 || !opens || !is_secret(&decoded(&bytes[start..equals])) {
            continue;
        }
        let value = &bytes[equals + 1..];
        let len = value.iter().take_while(|byte| !ends_value(**byte)).count();
        if len > 0 {
            ranges.push(equals + 1..equals + 1 + len);
        }
    }
    replaced(bytes, &ranges)
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'%' | b'[' | b']')
}

fn ends_value(byte: u8) -> bool {
    byte.is_ascii_whitespace() || matches!(byte, b'&' | b'#' | b';' | b'"' | b'\'' | b'<' | b'>' | b'\\')
}

fn decoded(name: &[u8]) -> String {
    let name = form_urlencoded::parse(name).next().map_or(Cow::Borrowed(""), |(name, _)| name);
    name.to_ascii_lowercase()
}

/// Parts of `multipart/form-data`.
pub(super) fn parts(bytes: &[u8], is_secret: impl Fn(&str) -> bool) -> Option<Vec<u8>> {
    let of = |found: regex::bytes::Captures<'_>| {
        let name = String::from_utf8_lossy(&found[1]).to_ascii_lowercase();
        let value = found.get(2).filter(|value| !value.is_empty())?;
        is_secret(&name).then(|| value.range())
    };
    replaced(bytes, &PARTS.captures_iter(bytes).filter_map(of).collect::<Vec<_>>())
}

/// Elements of XML, also with a prefix.
pub(super) fn elements(bytes: &[u8]) -> Option<Vec<u8>> {
    let of = |found: regex::bytes::Captures<'_>| {
        let name = String::from_utf8_lossy(&found[1]).into_owned();
        let own = name.rsplit(':').next().unwrap_or(&name);
        names::is_secret_member(own).then(|| found.get(2).map(|value| value.range()))?
    };
    replaced(bytes, &ELEMENTS.captures_iter(bytes).filter_map(of).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(masked: Option<Vec<u8>>, otherwise: &str) -> String {
        masked.map_or_else(|| otherwise.to_owned(), |bytes| String::from_utf8(bytes).expect("text"))
    }

    #[test]
    fn parameters_are_found_wherever_they_stand() {
        for (given, expected) in [
            ("password=hunter2hunter2&a=b", "password=****ter2&a=b"),
            ("user%5Bapi_key%5D=0123456789abcdef", "user%5Bapi_key%5D=****cdef"),
            ("user[password]=s&user[name]=n", "user[password]=****&user[name]=n"),
            ("https://a/cb?x=1#access_token=0123456789abcdef&t=2", "https://a/cb?x=1#access_token=****cdef&t=2"),
            ("/a;token=0123456789abcdef;api_key=b", "/a;token=****cdef;api_key=****"),
            ("<https://a/?access_token=0123456789abcdef>; rel=next", "<https://a/?access_token=****cdef>; rel=next"),
            (r#"{"next":"https://a/?api_key=0123456789abcdef"}"#, r#"{"next":"https://a/?api_key=****cdef"}"#),
            ("page_size=1&keyword=k", "page_size=1&keyword=k"),
            ("let token=1", "let token=1"),
            ("a==b&=c&token=", "a==b&=c&token="),
        ] {
            assert_eq!(text(parameters(given.as_bytes(), names::is_secret_parameter), given), expected);
        }
    }

    #[test]
    fn parts_and_elements_keep_their_names() {
        let form = "--x\r\nContent-Disposition: form-data; name=\"password\"\r\nX: y\r\n\r\nhunter2hunter2\r\n\
            --x\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\nhello\r\n--x--\r\n";
        assert_eq!(
            text(parts(form.as_bytes(), names::is_secret_parameter), form),
            form.replace("hunter2hunter2", "****ter2")
        );
        let xml = "<a><s:password kind=\"x\">hunter2hunter2</s:password><name>n</name></a>";
        assert_eq!(text(elements(xml.as_bytes()), xml), xml.replace("hunter2hunter2", "****ter2"));
    }
}
