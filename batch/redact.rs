//! Redaction: what can be a credential is masked before anything leaves memory.
//!
//! Masked are, by default, the values of credential-like header fields and cookies, of key-like parameters in urls and
//! forms, of key-like members of JSON bodies, and texts of known shapes anywhere. Names and schemes stay, and of long
//! values the last four characters. A configuration adds names, JSON paths and patterns. A body in a content coding is
//! not looked into.

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
mod shapes;

pub use json::{JsonPath, JsonPathError};

/// What stands for a value of which nothing is shown.
pub(crate) const MASK: &str = "****";

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
        let bodies = |headers, bodies| Arc::new(self.bodies(headers, bodies)) as ArrayRef;
        let masked: [(&str, ArrayRef); 6] = [
            ("url", url),
            ("path", Arc::new(self.texts(t.path))),
            ("request_body", bodies(t.request_headers, t.request_body)),
            ("response_body", bodies(t.response_headers, t.response_body)),
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

    fn texts(&self, column: &StringArray) -> StringArray {
        column.iter().map(|text| text.map(|text| self.shapes(text))).collect()
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
            return self.shapes(value);
        }
        match name.as_str() {
            "authorization" | "proxy-authorization" => Cow::Owned(authorization(value)),
            "cookie" => Cow::Owned(value.split("; ").map(pair).collect::<Vec<_>>().join("; ")),
            "set-cookie" => {
                let (first, rest) = value.split_at(value.find(';').unwrap_or(value.len()));
                Cow::Owned(pair(first) + rest)
            }
            "referer" | "location" | "content-location" | "refresh" => self.url(value),
            name if names::is_secret_header(name) => Cow::Owned(mask(value)),
            _ => self.shapes(value),
        }
    }

    /// Parameters and user names of a url.
    fn url<'a>(&self, url: &'a str) -> Cow<'a, str> {
        let shown = match url.split_once('?') {
            Some((before, query)) if self.has_parameter(query) => {
                Cow::Owned(format!("{before}?{}", self.parameters(query)))
            }
            _ => Cow::Borrowed(url),
        };
        let shown = match (self.on, user_info(&shown)) {
            (true, Some((from, to))) => Cow::Owned(format!("{}{MASK}{}", &shown[..from], &shown[to..])),
            _ => shown,
        };
        match self.shapes(&shown) {
            Cow::Borrowed(_) => shown,
            Cow::Owned(masked) => Cow::Owned(masked),
        }
    }

    fn is_parameter(&self, name: &str) -> bool {
        let name = form_urlencoded::parse(name.as_bytes()).next().map_or(Cow::Borrowed(""), |(name, _)| name);
        let name = name.to_ascii_lowercase();
        self.parameters.contains(&name) || (self.on && names::is_secret_parameter(&name))
    }

    fn has_parameter(&self, query: &str) -> bool {
        query.split('&').any(|part| part.split_once('=').is_some_and(|(name, _)| self.is_parameter(name)))
    }

    fn parameters(&self, query: &str) -> String {
        let (query, fragment) = query.split_at(query.find('#').unwrap_or(query.len()));
        let part = |part: &str| match part.split_once('=') {
            Some((name, value)) if self.is_parameter(name) => format!("{name}={}", mask(value)),
            _ => part.to_owned(),
        };
        query.split('&').map(part).collect::<Vec<_>>().join("&") + fragment
    }

    /// Texts of known shapes, and what matches a pattern.
    fn shapes<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.masked_bytes(text.as_bytes()) {
            // A pattern can cut a character in two.
            Some(masked) => Cow::Owned(String::from_utf8_lossy(&masked).into_owned()),
            None => Cow::Borrowed(text),
        }
    }

    fn masked_bytes(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut masked: Option<Vec<u8>> = None;
        let known = self.on.then(|| &*shapes::KNOWN);
        for pattern in known.into_iter().chain(&self.patterns) {
            let current = masked.as_deref().unwrap_or(bytes);
            if let Cow::Owned(next) = pattern.replace_all(current, |found: &regex::bytes::Captures<'_>| {
                mask(&String::from_utf8_lossy(&found[0])).into_bytes()
            }) {
                masked = Some(next);
            }
        }
        masked
    }

    fn bodies(&self, headers: &MapArray, column: &BinaryViewArray) -> BinaryViewArray {
        let masked: Vec<Option<Vec<u8>>> =
            (0..column.len()).map(|row| self.body(headers, row, column.value(row))).collect();
        if masked.iter().all(Option::is_none) {
            return column.clone();
        }
        let mut builder = BinaryViewBuilder::with_capacity(column.len());
        for (row, masked) in masked.into_iter().enumerate() {
            let bytes = masked.unwrap_or_else(|| column.value(row).to_vec());
            TransactionsBuilder::body(&mut builder, bytes);
        }
        builder.finish()
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

    /// A body with everything masked; `None`: as it is.
    fn body(&self, headers: &MapArray, row: usize, body: &[u8]) -> Option<Vec<u8>> {
        let header = |name| Transactions::header(headers, row, name);
        let coded = header("content-encoding").is_some_and(|coding| !coding.eq_ignore_ascii_case("identity"));
        if body.is_empty() || coded {
            return None;
        }
        self.plain_body(body, header("content-type").unwrap_or_default())
    }

    fn plain_body(&self, body: &[u8], content_type: &str) -> Option<Vec<u8>> {
        let content_type = content_type.to_ascii_lowercase();
        if ["image/", "audio/", "video/", "font/"].iter().any(|kind| content_type.starts_with(kind)) {
            return None;
        }
        let mut masked = None;
        if content_type.starts_with("application/x-www-form-urlencoded") {
            let form = String::from_utf8_lossy(body);
            masked = self.has_parameter(&form).then(|| self.parameters(&form).into_bytes());
        } else if content_type.contains("json")
            || content_type.starts_with("text/event-stream")
            || looks_like_json(body)
        {
            masked = json::mask(body, &self.paths, self.on);
        }
        let shaped = self.masked_bytes(masked.as_deref().unwrap_or(body));
        shaped.or(masked)
    }
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
