//! Masking of values in JSON where they stand, without parsing the document: what surrounds a value stays as it is, byte
//! for byte, and a document that is cut off or broken is masked as far as it goes.

use super::{MASK, names};
use crate::token;

/// Nesting that is followed; deeper, names alone decide.
const DEPTH_MAX: usize = 128;
/// Documents in texts of documents that are looked into.
const TEXTS_MAX: usize = 3;
/// Digits of a number that can be a secret: those of counts are fewer.
const NUMBER_MIN: usize = 6;

/// A place in JSON documents: `$.a.b`, `$.list[*].c`, `$.list[0]`, `$..name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonPath(Vec<Segment>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Name(String),
    Index(usize),
    Any,
    /// At any depth.
    Below(String),
}

/// A path that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found `{0}`; expected a path such as $.user.ssn, $.items[*].card or $..pin")]
pub struct JsonPathError(String);

impl std::str::FromStr for JsonPath {
    type Err = JsonPathError;

    fn from_str(text: &str) -> Result<Self, JsonPathError> {
        let fault = || JsonPathError(text.to_owned());
        let mut rest = text.strip_prefix('$').ok_or_else(fault)?;
        let mut segments = Vec::new();
        while !rest.is_empty() {
            let name_len = |text: &str| text.find(['.', '[']).unwrap_or(text.len());
            if let Some(after) = rest.strip_prefix("..") {
                let (name, left) = after.split_at(name_len(after));
                segments.push(Segment::Below(name.to_owned()));
                rest = if name.is_empty() { return Err(fault()) } else { left };
            } else if let Some(after) = rest.strip_prefix('.') {
                let (name, left) = after.split_at(name_len(after));
                segments.push(if name == "*" { Segment::Any } else { Segment::Name(name.to_owned()) });
                rest = if name.is_empty() { return Err(fault()) } else { left };
            } else {
                let (inside, left) = rest.strip_prefix('[').and_then(|r| r.split_once(']')).ok_or_else(fault)?;
                let quoted = |quote| inside.strip_prefix(quote)?.strip_suffix(quote);
                segments.push(match (inside, quoted('\'').or_else(|| quoted('"'))) {
                    ("*", _) => Segment::Any,
                    (_, Some(name)) => Segment::Name(name.to_owned()),
                    (index, _) => Segment::Index(index.parse().map_err(|_| fault())?),
                });
                rest = left;
            }
        }
        if segments.is_empty() { Err(fault()) } else { Ok(Self(segments)) }
    }
}

impl JsonPath {
    /// Whether it names this place, or one around it.
    fn covers(&self, place: &[Step]) -> bool {
        covers(&self.0, place)
    }
}

fn covers(segments: &[Segment], place: &[Step]) -> bool {
    let Some((segment, rest)) = segments.split_first() else { return true };
    if let Segment::Below(name) = segment {
        return (0..place.len()).any(|at| place[at].is_named(name) && covers(rest, &place[at + 1..]));
    }
    let Some((step, below)) = place.split_first() else { return false };
    let fits = match segment {
        Segment::Name(name) => step.is_named(name),
        Segment::Index(index) => matches!(step, Step::Item(at) if at == index),
        Segment::Any => true,
        Segment::Below(_) => false,
    };
    fits && covers(rest, below)
}

/// One level of nesting, and where in it we are.
#[derive(Debug)]
enum Step {
    Member(Option<String>),
    Item(usize),
}

impl Step {
    fn is_named(&self, name: &str) -> bool {
        matches!(self, Self::Member(Some(own)) if own == name)
    }
}

/// The document with values masked that `paths` cover, and, if `by_name`, texts of members named like credentials.
/// `None`: there was nothing to mask.
pub(super) fn mask(document: &[u8], paths: &[JsonPath], by_name: bool) -> Option<Vec<u8>> {
    mask_nested(document, paths, by_name, 0)
}

fn mask_nested(document: &[u8], paths: &[JsonPath], by_name: bool, inside_texts: usize) -> Option<Vec<u8>> {
    let mut out: Option<Vec<u8>> = None;
    let mut copied = 0;
    let mut replace = |range: std::ops::Range<usize>, with: &str| {
        let out = out.get_or_insert_with(|| Vec::with_capacity(document.len()));
        out.extend_from_slice(&document[copied..range.start]);
        out.extend_from_slice(with.as_bytes());
        copied = range.end;
    };
    let mut place: Vec<Step> = Vec::new();
    // How much deeper than what is followed.
    let mut beyond = 0usize;
    // Whether the name read last is that of a secret: of a value that follows its name this says more than the place,
    // which a broken document can shift.
    let mut follows_secret = false;
    // Whether the next text is a value, also if a colon comes behind it.
    let mut follows_name = false;
    let mut at = 0;
    while at < document.len() {
        match document[at] {
            open @ (b'{' | b'[') => {
                if open == b'{' {
                    (follows_secret, follows_name) = (false, false);
                }
                if place.len() < DEPTH_MAX {
                    place.push(if open == b'{' { Step::Member(None) } else { Step::Item(0) });
                } else {
                    beyond += 1;
                }
                at += 1;
            }
            close @ (b'}' | b']') => {
                let fits = matches!((close, place.last()), (b'}', Some(Step::Member(_))) | (b']', Some(Step::Item(_))));
                if beyond > 0 {
                    beyond -= 1;
                } else if fits {
                    place.pop();
                }
                (follows_secret, follows_name) = (false, false);
                at += 1;
            }
            b',' => {
                (follows_secret, follows_name) = (false, false);
                match place.last_mut() {
                    Some(Step::Member(name)) => *name = None,
                    Some(Step::Item(index)) => *index += 1,
                    None => {}
                }
                at += 1;
            }
            b'"' => {
                let end = end_of_text(document, at + 1);
                let inside = at + 1..end;
                let named = !follows_name && document.get(end) == Some(&b'"') && is_name(document, end + 1);
                if named {
                    let own = unescaped(&document[inside]);
                    follows_secret = names::is_secret_member(&own);
                    if let Some(Step::Member(name)) = place.last_mut() {
                        *name = Some(own);
                    }
                } else if !inside.is_empty() && ((by_name && follows_secret) || wanted(&place, paths, by_name)) {
                    replace(inside.clone(), &token::mask(&unescaped(&document[inside])).replace(['"', '\\'], "*"));
                } else if by_name && inside_texts < TEXTS_MAX && document[inside.clone()].starts_with(b"{\\\"") {
                    // A document in a text.
                    let own = unescaped(&document[inside.clone()]);
                    let masked = mask_nested(own.as_bytes(), &[], true, inside_texts + 1);
                    if let Some(masked) = masked.and_then(|masked| String::from_utf8(masked).ok()) {
                        let quoted = serde_json::Value::from(masked).to_string();
                        replace(inside, &quoted[1..quoted.len() - 1]);
                    }
                }
                follows_name = named;
                at = (end + 1).min(document.len());
            }
            b'-' | b'0'..=b'9' => {
                let number = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
                let end = at + document[at..].iter().take_while(|byte| number(byte)).count();
                let long = end - at >= NUMBER_MIN;
                if wanted(&place, paths, by_name && long) || (by_name && long && follows_secret) {
                    replace(at..end, &format!("\"{MASK}\""));
                }
                at = end.max(at + 1);
            }
            _ => at += 1,
        }
    }
    let mut out = out?;
    out.extend_from_slice(&document[copied..]);
    Some(out)
}

fn wanted(place: &[Step], paths: &[JsonPath], by_name: bool) -> bool {
    // What lies below a secret's name is secret, whatever it is called itself.
    let secret = |step: &Step| matches!(step, Step::Member(Some(name)) if names::is_secret_member(name));
    (by_name && place.iter().any(secret)) || paths.iter().any(|path| path.covers(place))
}

/// Where a text ends: at its closing quote, with its line, which no text reaches beyond, or with the document.
fn end_of_text(document: &[u8], mut at: usize) -> usize {
    while at < document.len() {
        match document[at] {
            b'"' | b'\n' | b'\r' => return at,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    document.len()
}

/// Whether a colon follows.
fn is_name(document: &[u8], from: usize) -> bool {
    let rest = document.get(from..).unwrap_or_default();
    rest.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':')
}

/// A text as names are compared: escapes resolved where they are whole.
fn unescaped(text: &[u8]) -> String {
    if !text.contains(&b'\\') {
        return String::from_utf8_lossy(text).into_owned();
    }
    let quoted = [b"\"", text, b"\""].concat();
    serde_json::from_slice(&quoted).unwrap_or_else(|_| String::from_utf8_lossy(text).into_owned())
}
