//! The events `request` and `grpc_request`, from the plugin `report_usage`.

use arrow_array::{Array, RecordBatch, UInt64Array};

use crate::{
    events::{Cell, Column, EventSchema, EventsBuilder, TRACEPARENT},
    grpc::Grpc,
    token,
    transactions::{Transactions, text},
};

macro_rules! columns {
    ($($more:expr),*) => {
        &[
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
            ("customHeaders", Column::Texted),
            ("phase", Column::Text),
            ("messages.dialect", Column::Text),
            ("messages.request", Column::Int),
            ("messages.response", Column::Int),
            ("messages.firstMs", Column::Int),
            (TRACEPARENT, Column::Text),
            $($more),*
        ]
    };
}

/// Columns of the event `request`.
pub const REQUEST_SCHEMA: EventSchema = EventSchema { event_type: "request", columns: columns![] };

/// Columns of the event `grpc_request`.
pub const GRPC_SCHEMA: EventSchema = EventSchema {
    event_type: "grpc_request",
    columns: columns![
        ("grpcService", Column::Text),
        ("grpcMethod", Column::Text),
        ("grpcStatus", Column::Int),
        ("grpcStatusName", Column::Text),
        ("grpcMessage", Column::Text),
        ("process.exe", Column::Text),
        ("process.pid", Column::Int),
        ("process.containerName", Column::Text),
        ("process.containerImage", Column::Text),
        ("process.podName", Column::Text),
        ("process.podNamespace", Column::Text)
    ],
};

/// One event a transaction. `raw` is the batch before redaction: of the credential that it holds, only what
/// [`token::find`] makes of it goes on. `headers` are the names of header fields to promote.
#[must_use]
pub fn requests(t: &Transactions<'_>, raw: &Transactions<'_>, headers: &[String]) -> Vec<RecordBatch> {
    let mut events = [EventsBuilder::new(&REQUEST_SCHEMA), EventsBuilder::new(&GRPC_SCHEMA)];
    for row in 0..t.rows() {
        let mut cells = cells(t, raw, row, headers);
        match Grpc::of(t, row) {
            None => events[0].push(&cells),
            Some(grpc) => {
                cells[STATUS] = Cell::Int(grpc.http_status(t.status.value(row)).into());
                cells.extend(grpc_cells(t, row, &grpc));
                events[1].push(&cells);
            }
        }
    }
    events.into_iter().filter(|events| events.rows() > 0).map(EventsBuilder::finish).collect()
}

/// Where `status` stands among the columns.
const STATUS: usize = 10;

fn grpc_cells<'a>(t: &Transactions<'a>, row: usize, grpc: &Grpc<'a>) -> Vec<Cell<'a>> {
    let detail = |name| Cell::from(t.detail(row, name));
    vec![
        Cell::Text(grpc.service),
        Cell::Text(grpc.method),
        grpc.status.map_or(Cell::Null, |n| Cell::Int(n.into())),
        Cell::Text(grpc.status_name()),
        Cell::Owned(grpc.message.clone().into_owned()),
        text(t.process_exe, row).into(),
        Cell::Int(t.process_id.value(row).into()),
        detail("container.name"),
        detail("container.image"),
        detail("pod.name"),
        detail("pod.namespace"),
    ]
}

/// `req.<Name>` and `res.<Name>` of the header fields that are there.
fn promoted(t: &Transactions<'_>, row: usize, names: &[String]) -> Vec<String> {
    let both = [("req", t.request_headers), ("res", t.response_headers)];
    let found = both.into_iter().flat_map(|(part, column)| {
        let value = move |name: &String| Some(format!("{part}.{name}:{}", Transactions::header(column, row, name)?));
        names.iter().filter_map(value)
    });
    found.collect()
}

fn cells<'a>(t: &Transactions<'a>, raw: &Transactions<'a>, row: usize, headers: &[String]) -> Vec<Cell<'a>> {
    let content_type = Transactions::header(t.response_headers, row, "content-type");
    let request_header = |name: &str| Transactions::header(t.request_headers, row, name);
    let (sent, received) = t.bytes(row);
    let int = |n: u64| Cell::Int(i64::try_from(n).unwrap_or(i64::MAX));
    let mut cells = vec![
        Cell::Text(t.connection_id.value(row)),
        Cell::Text(t.endpoint_id.value(row)),
        Cell::Text(t.request_id.value(row)),
        t.tls_probes(row),
        Cell::Texts(t.tags_of(row).map(str::to_owned).collect()),
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
    match token::find(|name| Transactions::header(raw.request_headers, row, name)) {
        Some(token) => cells.extend([
            Cell::Owned(token.mask),
            Cell::Owned(token.hash),
            Cell::Text(token.source),
            Cell::Text(token.kind),
        ]),
        None => cells.extend([Cell::Null, Cell::Null, Cell::Null, Cell::Null]),
    }
    cells.push(Cell::Texts(promoted(t, row, headers)));
    cells.extend(message_cells(t, row));
    cells.push(request_header("traceparent").into());
    cells
}

/// Ours: which end of an exchange that lasts the event is about, and the messages that it is made of.
fn message_cells<'a>(t: &Transactions<'a>, row: usize) -> [Cell<'a>; 5] {
    let count = |column: &UInt64Array| {
        let count = column.is_valid(row).then(|| i64::try_from(column.value(row)).unwrap_or(i64::MAX));
        count.map_or(Cell::Null, Cell::Int)
    };
    let first = t.first_message_ns.is_valid(row).then(|| t.first_message_ns.value(row) - t.start_ns.value(row));
    [
        Some(t.phase.value(row)).filter(|phase| *phase != "complete").into(),
        text(t.dialect, row).into(),
        count(t.request_message_count),
        count(t.response_message_count),
        first.map_or(Cell::Null, |ns| Cell::Int((ns / 1_000_000).max(1))),
    ]
}

/// Milliseconds to the response's first bytes, at least 1.
fn first_byte_ms(t: &Transactions<'_>, row: usize) -> i64 {
    let end = if t.first_byte_ns.is_valid(row) { t.first_byte_ns.value(row) } else { t.end_ns.value(row) };
    ((end - t.start_ns.value(row)) / 1_000_000).max(1)
}

/// The class of a content type.
pub(crate) fn category(content_type: &str) -> &'static str {
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
