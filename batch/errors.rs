//! The plugin `detect_errors`: transactions that look like failures become `issue` events, and parts of them objects.

use std::collections::BTreeMap;

use arrow_array::RecordBatch;

use crate::{
    events::{Cell, Column, EventSchema, EventsBuilder, TRACEPARENT},
    objects::ObjectsBuilder,
    transactions::Transactions,
    usage::category,
};

/// Columns of the event `issue`.
pub const ISSUE_SCHEMA: EventSchema = EventSchema {
    event_type: "issue",
    columns: &[
        ("connectionId", Column::Text),
        ("endpointId", Column::Text),
        ("requestId", Column::Text),
        ("tlsProbeTypesDetected", Column::Texts),
        ("tags", Column::Texts),
        ("timestamp", Column::Time),
        ("direction", Column::Text),
        ("error", Column::Text),
        ("url", Column::Text),
        ("path", Column::Text),
        ("method", Column::Text),
        ("status", Column::Int),
        ("triggerConditions", Column::Texts),
        ("triggerReasons", Column::Texts),
        (TRACEPARENT, Column::Text),
    ],
};

/// A status, or a class of them: `500`, `50x`, `5xx`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusPattern([u8; 3]);

impl std::str::FromStr for StatusPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits: Result<[u8; 3], _> = text.as_bytes().try_into();
        let wild = |byte: u8| byte.is_ascii_digit() || byte.eq_ignore_ascii_case(&b'x');
        match digits {
            Ok([a, b, c]) if a.is_ascii_digit() && wild(b) && wild(c) => Ok(Self([a, b, c])),
            _ => Err(format!("found `{text}`; expected a status such as 500, 50x or 5xx")),
        }
    }
}

impl StatusPattern {
    fn matches(self, status: u16) -> bool {
        let digits = format!("{status:03}");
        self.0.iter().zip(digits.bytes()).all(|(own, digit)| *own == digit || own.eq_ignore_ascii_case(&b'x'))
    }
}

/// A rule: all conditions that it has must hold, and it must have one.
#[derive(Debug, Clone, Default)]
pub struct ErrorRule {
    /// What the issue is called.
    pub name: String,
    /// One of these statuses.
    pub statuses: Vec<StatusPattern>,
    /// The response has no body.
    pub empty_body: bool,
    /// At least so slow, in milliseconds.
    pub slow_ms: Option<i64>,
    /// One of these texts is in the response's body.
    pub contains: Vec<String>,
    /// The response is of one of these categories.
    pub categories: Vec<String>,
    /// One of these urls, with or without the query.
    pub urls: Vec<String>,
    /// None of these urls.
    pub other_urls: Vec<String>,
    /// One of these tags.
    pub tags: Vec<String>,
    /// Make an event of it.
    pub report: bool,
    /// Which parts become objects.
    pub record: Recorded,
}

/// Which parts of a transaction become objects of their own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recorded {
    /// `req-headers`.
    pub request_headers: bool,
    /// `req-body`.
    pub request_body: bool,
    /// `res-headers`.
    pub response_headers: bool,
    /// `res-body`.
    pub response_body: bool,
}

/// A configured `detect_errors`. Every rule looks at every transaction.
#[derive(Debug, Default)]
pub struct Detector {
    /// In the order of the configuration.
    pub rules: Vec<ErrorRule>,
}

/// Condition and reason of a match.
type Trigger = (&'static str, String);

impl ErrorRule {
    /// Whether it can match anything.
    #[must_use]
    pub fn has_condition(&self) -> bool {
        let Self { statuses, empty_body, slow_ms, contains, categories, urls, tags, .. } = self;
        let listed = !statuses.is_empty() || !contains.is_empty() || !categories.is_empty();
        listed || *empty_body || slow_ms.is_some() || !urls.is_empty() || !tags.is_empty()
    }

    /// Whether it needs bodies.
    fn wants_bodies(&self) -> bool {
        !self.contains.is_empty() || self.record.request_body || self.record.response_body
    }

    /// Why it matches; `None`: it does not.
    fn triggers(&self, t: &Transactions<'_>, row: usize) -> Option<Vec<Trigger>> {
        let url = t.url.value(row);
        let bare = url.split('?').next().unwrap_or_default();
        let is_one = |urls: &[String]| urls.iter().any(|one| one == url || one == bare);
        if is_one(&self.other_urls) {
            return None;
        }
        let mut triggers = Vec::new();
        let mut all = true;
        let mut check = |asked: bool, holds: bool, condition: &'static str, reason: &dyn Fn() -> String| {
            all &= !asked || holds;
            triggers.extend((asked && holds).then(|| (condition, reason())));
        };
        let status = t.status.value(row);
        let matches = self.statuses.iter().any(|pattern| pattern.matches(status));
        check(!self.statuses.is_empty(), matches, "detect_errors:status", &|| format!("status is {status}"));
        let mime = Transactions::header(t.response_headers, row, "content-type").unwrap_or_default();
        let category = category(mime);
        let listed = self.categories.iter().any(|one| one == category);
        check(!self.categories.is_empty(), listed, "detect_errors:mime", &|| format!("category is {category}"));
        check(!self.urls.is_empty(), is_one(&self.urls), "detect_errors:url", &|| format!("url is {bare}"));
        let empty = t.response_body_size.value(row) == 0;
        check(self.empty_body, empty, "detect_errors:body", &|| "the response has no body".to_owned());
        let found = self.contained(t, row);
        check(!self.contains.is_empty(), found.is_some(), "detect_errors:body", &|| {
            format!("the response contains `{}`", found.unwrap_or_default())
        });
        let tag = t.tags_of(row).find(|tag| self.tags.iter().any(|one| one == tag));
        check(!self.tags.is_empty(), tag.is_some(), "detect_errors:tag", &|| {
            format!("tag {}", tag.unwrap_or_default())
        });
        let (took, limit) = (t.duration_ms(row), self.slow_ms.unwrap_or(0));
        check(self.slow_ms.is_some(), took >= limit, "detect_errors:duration", &|| format!("took {took} ms"));
        (all && !triggers.is_empty()).then_some(triggers)
    }

    fn contained(&self, t: &Transactions<'_>, row: usize) -> Option<&str> {
        let body = t.response_body.value(row);
        let holds = |text: &&String| memchr::memmem::find(body, text.as_bytes()).is_some();
        self.contains.iter().find(holds).map(String::as_str)
    }
}

impl Detector {
    /// Whether the bodies of any row can be of use.
    #[must_use]
    pub fn wants_bodies(&self) -> bool {
        self.rules.iter().any(ErrorRule::wants_bodies)
    }

    /// Names of the rules that match a row.
    #[must_use]
    pub fn matching(&self, t: &Transactions<'_>, row: usize) -> Vec<&str> {
        self.rules.iter().filter(|rule| rule.triggers(t, row).is_some()).map(|rule| rule.name.as_str()).collect()
    }

    /// Looks at each row of `raw`, and makes events and objects of the masked ones in `shown`.
    #[must_use]
    pub fn detect(
        &self,
        shown: &Transactions<'_>,
        raw: &Transactions<'_>,
    ) -> (Option<RecordBatch>, Option<RecordBatch>) {
        let (mut issues, mut objects) = (EventsBuilder::new(&ISSUE_SCHEMA), ObjectsBuilder::default());
        for row in 0..raw.rows() {
            let mut recorded = Recorded::default();
            for rule in &self.rules {
                let Some(triggers) = rule.triggers(raw, row) else { continue };
                if rule.report {
                    issues.push(&cells(shown, row, &rule.name, triggers));
                }
                recorded = recorded.with(rule.record);
            }
            record(shown, row, recorded, &mut objects);
        }
        ((issues.rows() > 0).then(|| issues.finish()), objects.finish())
    }
}

impl Recorded {
    fn with(self, other: Self) -> Self {
        Self {
            request_headers: self.request_headers || other.request_headers,
            request_body: self.request_body || other.request_body,
            response_headers: self.response_headers || other.response_headers,
            response_body: self.response_body || other.response_body,
        }
    }
}

fn record(t: &Transactions<'_>, row: usize, parts: Recorded, to: &mut ObjectsBuilder) {
    let sides = [
        ("req-headers", parts.request_headers, "req-body", parts.request_body, t.request_headers, t.request_body),
        ("res-headers", parts.response_headers, "res-body", parts.response_body, t.response_headers, t.response_body),
    ];
    for (headers_kind, headers, body_kind, body, fields, bodies) in sides {
        if headers {
            let mut joined: BTreeMap<&str, String> = BTreeMap::new();
            for (name, value) in Transactions::headers(fields, row) {
                let all = joined.entry(name).or_default();
                *all = if all.is_empty() { value.to_owned() } else { format!("{all}, {value}") };
            }
            let bytes = serde_json::to_vec(&joined).expect("texts always serialize");
            to.push(t, row, headers_kind, (bytes, "application/json"));
        }
        if body && !bodies.value(row).is_empty() {
            let content_type = Transactions::header(fields, row, "content-type").unwrap_or("text/plain");
            to.push(t, row, body_kind, (bodies.value(row).to_vec(), content_type));
        }
    }
}

fn cells<'a>(t: &Transactions<'a>, row: usize, name: &'a str, triggers: Vec<Trigger>) -> Vec<Cell<'a>> {
    let (conditions, reasons) = triggers.into_iter().map(|(condition, reason)| (condition.to_owned(), reason)).unzip();
    vec![
        Cell::Text(t.connection_id.value(row)),
        Cell::Text(t.endpoint_id.value(row)),
        Cell::Text(t.request_id.value(row)),
        t.tls_probes(row),
        Cell::Texts(t.tags_of(row).map(str::to_owned).collect()),
        Cell::Time(t.end_ns.value(row)),
        Cell::Text(t.direction.value(row)),
        Cell::Text(name),
        Cell::Text(t.url.value(row)),
        Cell::Text(t.path.value(row)),
        Cell::Text(t.method.value(row)),
        Cell::Int(t.status.value(row).into()),
        Cell::Texts(conditions),
        Cell::Texts(reasons),
        Transactions::header(t.request_headers, row, "traceparent").into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::StatusPattern;

    #[test]
    fn statuses_have_wildcards_behind_the_first_digit() {
        let pattern = |text: &str| text.parse::<StatusPattern>();
        assert!(pattern("5xx").expect("a class").matches(503));
        assert!(pattern("50X").expect("a class").matches(503) && !pattern("50x").expect("a class").matches(510));
        assert!(!pattern("500").expect("a status").matches(501));
        assert!(pattern("xxx").is_err() && pattern("50").is_err() && pattern("5000").is_err());
    }
}
