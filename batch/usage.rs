//! The event `request`, from the plugin `report_usage`.

use arrow_array::{Array, RecordBatch};

use crate::{
    capture::tags,
    events::{Cell, Column, EventSchema, EventsBuilder},
    token,
    transactions::Transactions,
};

/// Columns of the event `request`.
pub const REQUEST_SCHEMA: EventSchema = EventSchema {
    event_type: "request",
    columns: &[
        ("connectionId", Column::Text),
        ("endpointId", Column::Text),
        ("requestId", Column::Text),
        ("tlsProbeTypesDetected", Column::Texts),
        ("tags", Column::Texts),
        ("timestamp", Column::Time),
        ("direction", Column::Text),
        ("url", Column::Text),
        ("path", Column::Text),
        ("method", Column::Text),
        ("status", Column::Int),
        ("duration", Column::Int),
        ("contentType", Column::Text),
        ("category", Column::Text),
        ("agent", Column::Text),
        ("bytesSent", Column::Int),
        ("bytesReceived", Column::Int),
        ("authTokenMask", Column::Text),
        ("authTokenHash", Column::Text),
        ("authTokenSource", Column::Text),
        ("authTokenType", Column::Text),
    ],
};

/// One event a transaction.
#[must_use]
pub fn requests(t: &Transactions<'_>) -> RecordBatch {
    let mut events = EventsBuilder::new(&REQUEST_SCHEMA);
    for row in 0..t.rows() {
        events.push(&cells(t, row));
    }
    events.finish()
}

fn cells<'a>(t: &'a Transactions<'a>, row: usize) -> Vec<Cell<'a>> {
    let content_type = Transactions::header(t.response_headers, row, "content-type");
    let request_header = |name: &str| Transactions::header(t.request_headers, row, name);
    let (sent, received) = t.bytes(row);
    let int = |n: u64| Cell::Int(i64::try_from(n).unwrap_or(i64::MAX));
    let mut cells = vec![
        Cell::Text(t.connection_id.value(row)),
        Cell::Text(t.endpoint_id.value(row)),
        Cell::Text(t.request_id.value(row)),
        if t.tls.value(row) { Cell::Texts(vec!["openssl".into()]) } else { Cell::Null },
        Cell::Texts(tags(t, row)),
        Cell::Time(t.end_ns.value(row)),
        Cell::Text(t.direction.value(row)),
        Cell::Text(t.url.value(row)),
        Cell::Text(t.path.value(row)),
        Cell::Text(t.method.value(row)),
        Cell::Int(t.status.value(row).into()),
        Cell::Int(first_byte_ms(t, row)),
        content_type.into(),
        Cell::Text(category(content_type.unwrap_or_default())),
        request_header("user-agent").into(),
        int(sent),
        int(received),
    ];
    match token::find(request_header) {
        Some(token) => cells.extend([
            Cell::Owned(token.mask),
            Cell::Owned(token.hash),
            Cell::Text(token.source),
            Cell::Text(token.kind),
        ]),
        None => cells.extend([Cell::Null, Cell::Null, Cell::Null, Cell::Null]),
    }
    cells
}

/// Milliseconds to the response's first bytes, at least 1.
fn first_byte_ms(t: &Transactions<'_>, row: usize) -> i64 {
    let end = if t.first_byte_ns.is_valid(row) { t.first_byte_ns.value(row) } else { t.end_ns.value(row) };
    ((end - t.start_ns.value(row)) / 1_000_000).max(1)
}

/// The class of a content type.
fn category(content_type: &str) -> &'static str {
    match content_type.split(';').next().unwrap_or_default() {
        "text/html" | "application/json" | "application/grpc" | "text/xml" | "application/xml" | "text/plain" => "app",
        "text/css" => "css",
        "text/javascript" => "js",
        mime if mime.starts_with("font") => "font",
        mime if mime.starts_with("image") => "image",
        mime if mime.starts_with("audio") || mime.starts_with("video") => "media",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::category;

    #[test]
    fn categories_follow_the_content_type() {
        for (mime, expected) in [
            ("application/json; charset=utf-8", "app"),
            ("text/css", "css"),
            ("text/javascript", "js"),
            ("application/javascript", "other"),
            ("font/woff2", "font"),
            ("image/png", "image"),
            ("video/mp4", "media"),
            ("", "other"),
        ] {
            assert_eq!(category(mime), expected, "{mime}");
        }
    }
}
