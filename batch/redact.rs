//! Redaction: what can be a credential is masked before anything leaves memory.
//!
//! Masked are, by default, the values of credential-like header fields and cookies, of key-like parameters in urls and
//! forms, of key-like members of JSON bodies, parts of forms and elements of XML, and texts of known shapes anywhere. Names
//! and schemes stay, and of long values the last four characters. A configuration adds names, JSON paths and patterns. A
//! body in a content coding that could not be undone is withheld.

use std::{borrow::Cow, sync::Arc};

use arrow_array::{
    Array as _, ArrayRef, BinaryViewArray, MapArray, RecordBatch, StringArray,
    builder::{BinaryViewBuilder, MapBuilder, StringBuilder},
};
use regex::bytes::Regex;

use crate::{
    token::mask,
    transactions::{Transactions, TransactionsBuilder},
};

mod json;
mod names;
mod pairs;
mod shapes;

pub use json::{JsonPath, JsonPathError};

/// What stands for a value of which nothing is shown.
pub const MASK: &str = "****";
/// Names of protocols are shorter than this, tokens longer.
const PROTOCOL_MAX: usize = 40;

/// What is masked.
#[derive(Debug, Clone)]
pub struct Redaction {
    on: bool,
    headers: Vec<String>,
    parameters: Vec<String>,
    paths: Vec<JsonPath>,
    patterns: Vec<Regex>,
}

impl Default for Redaction {
    fn default() -> Self {
        Self { on: true, headers: Vec::new(), parameters: Vec::new(), paths: Vec::new(), patterns: Vec::new() }
    }
}

impl Redaction {
    /// Masks nothing, except what [`Redaction::with_patterns`] adds.
    #[must_use]
    pub fn off() -> Self {
        Self { on: false, ..Self::default() }
    }

    /// Also masks the values of these header fields and parameters, in any case.
    #[must_use]
    pub fn with_names(mut self, headers: &[String], parameters: &[String]) -> Self {
        self.headers.extend(headers.iter().map(|name| name.to_ascii_lowercase()));
        self.parameters.extend(parameters.iter().map(|name| name.to_ascii_lowercase()));
        self
    }

    /// Also masks what lies at these places of JSON bodies.
    #[must_use]
    pub fn with_paths(mut self, paths: Vec<JsonPath>) -> Self {
        self.paths.extend(paths);
        self
    }

    /// Also masks what matches, in urls, header fields and bodies.
    #[must_use]
    pub fn with_patterns(mut self, patterns: impl IntoIterator<Item = Regex>) -> Self {
        self.patterns.extend(patterns);
        self
    }

    fn is_idle(&self) -> bool {
        let Self { on, headers, parameters, paths, patterns } = self;
        !on && headers.is_empty() && parameters.is_empty() && paths.is_empty() && patterns.is_empty()
    }

    /// A transactions batch in which everything that is to be masked is.
    ///
    /// # Panics
    ///
    /// Never: masked columns have the types of those they stand for.
    #[must_use]
    pub fn apply(&self, batch: &RecordBatch) -> RecordBatch {
        let Some(t) = Transactions::of(batch).filter(|_| !self.is_idle()) else { return batch.clone() };
        let url: ArrayRef = Arc::new(self.urls(t.url));
        let (request_body, request_cut) =
            self.bodies(t.request_headers, t.request_decoded, t.request_body, t.request_cut);
        let (response_body, response_cut) =
            self.bodies(t.response_headers, t.response_decoded, t.response_body, t.response_cut);
        let masked: [(&str, ArrayRef); 8] = [
            ("url", url),
            ("path", Arc::new(self.paths_of(t.path))),
            ("request_body", request_body),
            ("response_body", response_body),
            ("request_cut", request_cut),
            ("response_cut", response_cut),
            ("request_headers", Arc::new(self.headers(t.request_headers))),
            ("response_headers", Arc::new(self.headers(t.response_headers))),
        ];
        let schema = batch.schema();
        let mut columns = batch.columns().to_vec();
        for (name, column) in masked {
            columns[schema.index_of(name).expect("a column of transactions")] = column;
        }
        RecordBatch::try_new(schema, columns).expect("as many rows, of the same types")
    }

    fn urls(&self, column: &StringArray) -> StringArray {
        column.iter().map(|url| url.map(|url| self.url(url))).collect()
    }

    fn paths_of(&self, column: &StringArray) -> StringArray {
        column.iter().map(|text| text.map(|text| self.text(text))).collect()
    }

    fn headers(&self, column: &MapArray) -> MapArray {
        let mut masked = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
        for row in 0..column.len() {
            for (name, value) in Transactions::headers(column, row) {
                masked.keys().append_value(name);
                masked.values().append_value(self.header(name, value));
            }
            masked.append(true).expect("as many names as values");
        }
        masked.finish()
    }

    /// The value of a header field.
    pub(crate) fn header<'a>(&self, name: &str, value: &'a str) -> Cow<'a, str> {
        let name = name.to_ascii_lowercase();
        if self.headers.contains(&name) {
            return Cow::Owned(mask(value));
        }
        if !self.on {
            return self.text(value);
        }
        match name.as_str() {
            "authorization" | "proxy-authorization" => Cow::Owned(authorization(value)),
            "cookie" => Cow::Owned(value.split("; ").map(pair).collect::<Vec<_>>().join("; ")),
            "set-cookie" => {
                let (first, rest) = value.split_at(value.find(';').unwrap_or(value.len()));
                Cow::Owned(pair(first) + rest)
            }
            // Where a browser can set no other field, tokens travel among the names of protocols.
            "sec-websocket-protocol" => {
                let one = |part: &str| if part.len() > PROTOCOL_MAX { mask(part) } else { part.to_owned() };
                Cow::Owned(value.split(", ").map(one).collect::<Vec<_>>().join(", "))
            }
            name if names::is_secret_header(name) => Cow::Owned(mask(value)),
            _ => self.url(value),
        }
    }

    /// Parameters and user names of urls.
    fn url<'a>(&self, url: &'a str) -> Cow<'a, str> {
        let shown = self.text(url);
        match (self.on, user_info(&shown)) {
            (true, Some((from, to))) => Cow::Owned(format!("{}{MASK}{}", &shown[..from], &shown[to..])),
            _ => shown,
        }
    }

    fn is_parameter(&self, name: &str) -> bool {
        self.parameters.iter().any(|own| own == name) || (self.on && names::is_secret_parameter(name))
    }

    /// Parameters, texts of known shapes, and what matches a pattern.
    fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.masked_bytes(text.as_bytes()) {
            // A pattern can cut a character in two.
            Some(masked) => Cow::Owned(String::from_utf8_lossy(&masked).into_owned()),
            None => Cow::Borrowed(text),
        }
    }

    fn masked_bytes(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let has_names = self.on || !self.parameters.is_empty();
        let mut masked = has_names.then(|| pairs::parameters(bytes, |name| self.is_parameter(name))).flatten();
        let known = self.on.then(|| &*shapes::KNOWN);
        for pattern in known.into_iter().chain(&self.patterns) {
            let current = masked.as_deref().unwrap_or(bytes);
            if let Cow::Owned(next) = pattern.replace_all(current, |found: &regex::bytes::Captures<'_>| {
                // Nothing is nothing to mask.
                if found[0].is_empty() { Vec::new() } else { mask(&String::from_utf8_lossy(&found[0])).into_bytes() }
            }) {
                masked = Some(next);
            }
        }
        masked
    }

    /// The bodies of a half, and why they were cut.
    fn bodies(
        &self,
        headers: &MapArray,
        decoded: &StringArray,
        column: &BinaryViewArray,
        cut: &StringArray,
    ) -> (ArrayRef, ArrayRef) {
        let masked: Vec<Shown> =
            (0..column.len()).map(|row| self.body(headers, row, decoded.is_valid(row), column.value(row))).collect();
        if masked.iter().all(|shown| matches!(shown, Shown::AsItIs)) {
            return (Arc::new(column.clone()), Arc::new(cut.clone()));
        }
        let withheld = |row: usize| matches!(masked[row], Shown::Withheld);
        let why = |row: usize| cut.is_valid(row).then(|| cut.value(row)).or(withheld(row).then_some("redacted"));
        let cut: StringArray = (0..cut.len()).map(why).collect();
        let mut builder = BinaryViewBuilder::with_capacity(column.len());
        for (row, masked) in masked.into_iter().enumerate() {
            let bytes = match masked {
                Shown::AsItIs => column.value(row).to_vec(),
                Shown::Masked(bytes) => bytes,
                Shown::Withheld => Vec::new(),
            };
            TransactionsBuilder::body(&mut builder, bytes);
        }
        (Arc::new(builder.finish()), Arc::new(cut))
    }

    /// A url with everything masked.
    #[must_use]
    pub fn url_text(&self, url: &str) -> String {
        self.url(url).into_owned()
    }

    /// A body of this content type with everything masked.
    #[must_use]
    pub fn body_bytes(&self, body: &[u8], content_type: &str) -> Vec<u8> {
        self.plain_body(body, content_type).unwrap_or_else(|| body.to_vec())
    }

    /// A text with everything masked that is masked anywhere.
    #[must_use]
    pub fn any_text(&self, text: &str) -> String {
        self.text(text).into_owned()
    }

    fn body(&self, headers: &MapArray, row: usize, decoded: bool, body: &[u8]) -> Shown {
        let header = |name| Transactions::header(headers, row, name);
        if body.is_empty() {
            return Shown::AsItIs;
        }
        // What is still in a coding can be undone by whoever gets it.
        let coded = header("content-encoding").is_some_and(|coding| !coding.eq_ignore_ascii_case("identity"));
        if self.on && coded && !decoded && std::str::from_utf8(body).is_err() {
            return Shown::Withheld;
        }
        self.plain_body(body, header("content-type").unwrap_or_default()).map_or(Shown::AsItIs, Shown::Masked)
    }

    /// A body with everything masked; `None`: as it is. What the sender calls it adds to what is looked for, and takes
    /// nothing away.
    fn plain_body(&self, body: &[u8], content_type: &str) -> Option<Vec<u8>> {
        let content_type = content_type.to_ascii_lowercase();
        let is_json = content_type.contains("json") || content_type.starts_with("text/event-stream");
        let mut masked = None;
        if is_json || looks_like_json(body) {
            masked = json::mask(body, &self.paths, self.on);
        } else if content_type.starts_with("multipart/") || body.starts_with(b"--") {
            masked = pairs::parts(body, |name| self.is_parameter(name));
        } else if self.on && looks_like_xml(body) {
            masked = pairs::elements(body);
        }
        let shaped = self.masked_bytes(masked.as_deref().unwrap_or(body));
        shaped.or(masked)
    }
}

/// What is shown of a body.
enum Shown {
    AsItIs,
    Masked(Vec<u8>),
    /// Nothing: what it holds cannot be seen.
    Withheld,
}

fn looks_like_xml(body: &[u8]) -> bool {
    body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'<')
}

fn looks_like_json(body: &[u8]) -> bool {
    matches!(body.iter().find(|byte| !byte.is_ascii_whitespace()), Some(b'{' | b'['))
}

/// `name=value` with the value masked.
fn pair(pair: &str) -> String {
    match pair.split_once('=') {
        Some((name, value)) => format!("{name}={}", mask(value)),
        None => mask(pair),
    }
}

/// The scheme stays. Basic is a password in other letters: nothing of it is shown.
fn authorization(value: &str) -> String {
    match value.split_once(' ') {
        Some((scheme, secret)) if scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("token") => {
            format!("{scheme} {}", mask(secret.trim()))
        }
        Some((scheme, _)) => format!("{scheme} {MASK}"),
        None => mask(value),
    }
}

/// Where the password of a url stands, or the whole user information if there is no colon in it.
fn user_info(url: &str) -> Option<(usize, usize)> {
    let start = url.find("://")? + 3;
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |end| start + end);
    let at = start + url[start..end].rfind('@')?;
    let from = url[start..at].find(':').map_or(start, |colon| start + colon + 1);
    (from < at).then_some((from, at))
}

#[cfg(test)]
mod tests;
