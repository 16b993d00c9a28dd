//! The plugin `data_loss_protection`: what matches a pattern is reported and recorded, never in clear. Masking it in
//! what leaves is the part of [`crate::redact`].

use arrow_array::RecordBatch;
use regex::bytes::Regex;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::{
    events::{Cell, Column, EventSchema, EventsBuilder, TRACEPARENT},
    objects::{ObjectsBuilder, hex},
    token::mask,
    transactions::Transactions,
};

/// Columns of the event `pii_entity`.
pub const PII_SCHEMA: EventSchema = EventSchema {
    event_type: "pii_entity",
    columns: &[
        ("connectionId", Column::Text),
        ("endpointId", Column::Text),
        ("requestId", Column::Text),
        ("tlsProbeTypesDetected", Column::Texts),
        ("tags", Column::Texts),
        ("timestamp", Column::Time),
        ("entityType", Column::Text),
        ("score", Column::Float),
        ("entitySource", Column::Text),
        ("fieldPath", Column::Text),
        ("valueHash", Column::Text),
        ("requestMethod", Column::Text),
        ("requestPath", Column::Text),
        (TRACEPARENT, Column::Text),
    ],
};

/// Matches of one rule in one part that are told at most.
const MATCHES_MAX: usize = 100;

/// A pattern, and what to do with what it matches.
#[derive(Debug, Clone)]
pub struct DlpRule {
    /// What it finds.
    pub label: String,
    /// How.
    pub pattern: Regex,
    /// As `pii_entity` events.
    pub report: bool,
    /// As a `dlp_matches` object.
    pub record: bool,
}

/// A configured `data_loss_protection`.
#[derive(Debug, Default)]
pub struct Scanner {
    /// Also header fields.
    pub headers: bool,
    /// Each looks at every transaction.
    pub rules: Vec<DlpRule>,
}

#[derive(Serialize)]
struct Match<'a> {
    label: &'a str,
    source: &'static str,
    field: String,
    offset: usize,
    length: usize,
    mask: String,
    value_sha256: String,
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the name in the object")]
struct Matches<'a> {
    request_id: &'a str,
    connection_id: &'a str,
    matches: Vec<Match<'a>>,
    version: u8,
}

impl Scanner {
    /// Looks at each row of `raw`; what it says of them is masked, and their paths are those of `shown`.
    #[must_use]
    pub fn scan(&self, shown: &Transactions<'_>, raw: &Transactions<'_>) -> (Option<RecordBatch>, Option<RecordBatch>) {
        let (mut events, mut objects) = (EventsBuilder::new(&PII_SCHEMA), ObjectsBuilder::default());
        for row in 0..raw.rows() {
            let mut recorded = Vec::new();
            for rule in &self.rules {
                let found = self.matches(rule, raw, row);
                if rule.report {
                    found.iter().for_each(|one| events.push(&cells(shown, row, one)));
                }
                if rule.record {
                    recorded.extend(found);
                }
            }
            if !recorded.is_empty() {
                let (request_id, connection_id) = (shown.request_id.value(row), shown.connection_id.value(row));
                let all = Matches { request_id, connection_id, matches: recorded, version: 1 };
                let bytes = serde_json::to_vec(&all).expect("texts and numbers always serialize");
                objects.push(shown, row, "dlp_matches", (bytes, "application/json"));
            }
        }
        ((events.rows() > 0).then(|| events.finish()), objects.finish())
    }

    /// Labels of the rules that find something in a row, and how often.
    #[must_use]
    pub fn matching(&self, t: &Transactions<'_>, row: usize) -> Vec<(&str, usize)> {
        let found = self.rules.iter().map(|rule| (rule.label.as_str(), self.matches(rule, t, row).len()));
        found.filter(|(_, n)| *n > 0).collect()
    }

    fn matches<'a>(&self, rule: &'a DlpRule, t: &Transactions<'_>, row: usize) -> Vec<Match<'a>> {
        let mut found = Vec::new();
        let mut search = |source: &'static str, field: &str, bytes: &[u8]| {
            for one in rule.pattern.find_iter(bytes).filter(|one| !one.is_empty()).take(MATCHES_MAX) {
                found.push(Match {
                    label: &rule.label,
                    source,
                    field: field.to_owned(),
                    offset: one.start(),
                    length: one.len(),
                    mask: mask(&String::from_utf8_lossy(one.as_bytes())),
                    value_sha256: hex(&Sha256::digest(one.as_bytes())),
                });
            }
        };
        search("request", "url", t.url.value(row).as_bytes());
        let sides = [("request", t.request_headers, t.request_body), ("response", t.response_headers, t.response_body)];
        for (source, headers, bodies) in sides {
            for (name, value) in Transactions::headers(headers, row).filter(|_| self.headers) {
                search(source, &format!("headers.{name}"), value.as_bytes());
            }
            search(source, "body", bodies.value(row));
        }
        found
    }
}

fn cells<'a>(t: &Transactions<'a>, row: usize, one: &'a Match<'_>) -> Vec<Cell<'a>> {
    vec![
        Cell::Text(t.connection_id.value(row)),
        Cell::Text(t.endpoint_id.value(row)),
        Cell::Text(t.request_id.value(row)),
        t.tls_probes(row),
        Cell::Texts(t.tags_of(row).map(str::to_owned).collect()),
        Cell::Time(t.end_ns.value(row)),
        Cell::Text(one.label),
        // A pattern matches or it does not.
        Cell::Float(1.0),
        Cell::Text(one.source),
        Cell::Text(&one.field),
        Cell::Text(&one.value_sha256),
        Cell::Text(t.method.value(row)),
        Cell::Text(t.path.value(row)),
        Transactions::header(t.request_headers, row, "traceparent").into(),
    ]
}
