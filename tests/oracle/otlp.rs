//! Requests of OTLP: what is written straight from columns, against what the SDK makes of the same rows.

use std::{sync::Arc, time::Duration};

use arrow_array::RecordBatch;
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    logs::v1::LogRecord,
};
use proptest::prelude::*;
use prost::Message as _;
use ringtap::{
    config::{
        checked::Otel,
        written::{Compression, Protocol},
    },
    sink::{Patience, console::Console, otlp::Otlp},
};
use ringtap_batch::{
    events::{Cell, Column, EventSchema, EventsBuilder, TRACEPARENT},
    interest::Everything,
    objects::{Objects, ObjectsBuilder},
    transactions::Transactions,
};

#[path = "../../benches/common/mod.rs"]
mod common;
#[path = "../../benches/common/sdk.rs"]
mod sdk;

use sdk::Sdk;

/// Every type of column, and every field that a body's text names.
const COLUMNS: &[(&str, Column)] = &[
    ("method", Column::Text),
    ("status", Column::Int),
    ("url", Column::Text),
    ("error", Column::Text),
    ("tags", Column::Tags),
    ("process.exe", Column::Text),
    ("process.pid", Column::Int),
    ("from", Column::Texts),
    ("to", Column::Time),
    ("entityType", Column::Texts),
    ("score", Column::Float),
    ("timestamp", Column::Time),
    ("type", Column::Text),
    ("customHeaders", Column::Texted),
    ("direction", Column::Bool),
    ("l7Protocol", Column::Tags),
    ("system.hostname", Column::Text),
    ("meta.endpointId", Column::Float),
    ("createdAt", Column::Time),
    ("_hidden", Column::Text),
    (TRACEPARENT, Column::Text),
];

static SCHEMAS: [EventSchema; 8] = [
    EventSchema { event_type: "request", columns: COLUMNS },
    EventSchema { event_type: "grpc_request", columns: COLUMNS },
    EventSchema { event_type: "issue", columns: COLUMNS },
    EventSchema { event_type: "process_governed", columns: COLUMNS },
    EventSchema { event_type: "pii_entity", columns: COLUMNS },
    EventSchema { event_type: "artifact_record", columns: COLUMNS },
    EventSchema { event_type: "connection", columns: COLUMNS },
    EventSchema { event_type: "of tomorrow", columns: COLUMNS },
];

const TRACES: [&str; 8] = [
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    " 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00 ",
    "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff-more",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
    "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "00-00000000000000000000000000000000-b7ad6b7169203331-01",
    "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-1",
];

fn config(flat_attributes: bool) -> Otel {
    Otel {
        endpoint: "collector:4317".into(),
        protocol: Protocol::Stdout,
        headers: Vec::new(),
        service_name: "tap".into(),
        environment: "tëst".into(),
        tls: None,
        compression: Compression::None,
        timeout: Duration::from_secs(1),
        flat_attributes,
    }
}

fn otlp(config: &Otel) -> Otlp {
    let (console, _thread) = Console::start(Patience::None).expect("a thread");
    Otlp::new(config, "a scope", &console).expect("no network is needed")
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{0,4}", "\\PC{0,200}", Just("ä→\0".to_owned())]
}

fn pair() -> impl Strategy<Value = String> {
    prop_oneof!["[ab]{1,2}:[xy:]{0,3}", "[ab]{2}"]
}

fn cell(column: Column) -> BoxedStrategy<Cell<'static>> {
    let some = match column {
        Column::Text => text().prop_map(Cell::Owned).boxed(),
        Column::Int => prop_oneof![any::<i64>(), -2000i64..2000].prop_map(Cell::Int).boxed(),
        Column::Bool => return any::<bool>().prop_map(Cell::Bool).boxed(),
        Column::Float => (-1e12f64..1e12).prop_map(Cell::Float).boxed(),
        Column::Time => {
            let near = 1_700_000_000_000_000_000i64..1_700_000_002_000_000_000;
            prop_oneof![any::<i64>(), near, -3i64..3].prop_map(Cell::Time).boxed()
        }
        Column::Texts => prop::collection::vec(text(), 0..4).prop_map(Cell::Texts).boxed(),
        Column::Tags | Column::Texted => prop::collection::vec(pair(), 0..6).prop_map(Cell::Texts).boxed(),
    };
    prop_oneof![3 => some, 1 => Just(Cell::Null)].boxed()
}

fn row() -> impl Strategy<Value = Vec<Cell<'static>>> {
    COLUMNS
        .iter()
        .map(|(name, column)| match *name {
            TRACEPARENT => prop::sample::select(&TRACES[..]).prop_map(Cell::Text).boxed(),
            _ => cell(*column),
        })
        .collect::<Vec<_>>()
}

/// Maps have no order, and the time of observation is that of the test.
fn settle(request: &mut ExportLogsServiceRequest) {
    fn value(any: &mut AnyValue) {
        match &mut any.value {
            Some(Value::KvlistValue(list)) => keys(&mut list.values),
            Some(Value::ArrayValue(list)) => list.values.iter_mut().for_each(value),
            _ => {}
        }
    }
    fn keys(pairs: &mut [KeyValue]) {
        pairs.iter_mut().filter_map(|pair| pair.value.as_mut()).for_each(value);
        pairs.sort_by(|a, b| a.key.cmp(&b.key));
    }
    for resource in request.resource_logs.iter_mut().filter_map(|logs| logs.resource.as_mut()) {
        keys(&mut resource.attributes);
    }
    for record in records(request) {
        assert!(record.observed_time_unix_nano > 1_700_000_000_000_000_000);
        record.observed_time_unix_nano = 0;
        keys(&mut record.attributes);
    }
}

fn records(request: &mut ExportLogsServiceRequest) -> impl Iterator<Item = &mut LogRecord> {
    let scopes = request.resource_logs.iter_mut().flat_map(|resource| &mut resource.scope_logs);
    scopes.flat_map(|scope| &mut scope.log_records)
}

fn decode(message: &[u8]) -> ExportLogsServiceRequest {
    ExportLogsServiceRequest::decode(message).expect("it is one")
}

/// Both make the same of a batch.
fn compare(batch: &RecordBatch, flat: bool) {
    let config = config(flat);
    let messages = otlp(&config).messages(batch);
    assert_eq!(messages.len(), 1);
    let mut ours = decode(&messages[0]);
    // Written as prost writes it, every number as short as it can be.
    assert_eq!(ours.encoded_len(), messages[0].len());
    let sdk = Sdk::new(&config, "a scope");
    let mut theirs = sdk.request(&sdk.records(batch));
    settle(&mut ours);
    settle(&mut theirs);
    assert_eq!(ours, theirs);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn events_are_what_the_sdk_makes_of_them(
        kind in 0..SCHEMAS.len(), rows in prop::collection::vec(row(), 1..12), flat: bool, from in 0..6usize
    ) {
        let mut events = EventsBuilder::new(&SCHEMAS[kind]);
        rows.iter().for_each(|row| events.push(row));
        let batch = events.finish();
        compare(&batch, flat);
        // A slice, whose columns begin in the middle of their buffers.
        let from = from.min(rows.len() - 1);
        compare(&batch.slice(from, rows.len() - from), flat);
    }

    #[test]
    fn objects_are_what_the_sdk_makes_of_them(data: Vec<u8>, content_type in "[a-z/]{0,12}") {
        let (batch, _) = common::records(2, 1, 20);
        let made = common::transactions(&batch, Arc::new(Everything));
        let t = Transactions::of(&made).expect("its schema");
        let mut objects = ObjectsBuilder::default();
        objects.push(&t, 1, "http_transaction", (b"first".to_vec(), "text/plain"));
        objects.push(&t, 0, "http_transaction", (data, &content_type));
        let batch = objects.finish().expect("two");
        let (config, objects) = (config(false), Objects::of(&batch).expect("its schema"));
        let message = otlp(&config).object_message(&objects, 1, &batch);
        let mut ours = decode(&message);
        prop_assert_eq!(ours.encoded_len(), message.len());
        let sdk = Sdk::new(&config, "a scope");
        let mut theirs = sdk.request(&[sdk.artifact(&objects, 1, &batch)]);
        settle(&mut ours);
        settle(&mut theirs);
        prop_assert_eq!(ours, theirs);
    }
}

/// Keys stand in the order of the columns.
#[test]
fn the_order_of_fields_is_that_of_the_schema() {
    let mut events = EventsBuilder::new(&SCHEMAS[0]);
    let mut cells = vec![Cell::Null; COLUMNS.len()];
    cells[0] = Cell::Text("GET");
    cells[1] = Cell::Int(200);
    cells[4] = Cell::Texts(["z:1", "a:2", "z:3"].map(str::to_owned).to_vec());
    cells[14] = Cell::Bool(true);
    events.push(&cells);
    let batch = events.finish();
    let mut request = decode(&otlp(&config(true)).messages(&batch)[0]);
    let record = records(&mut request).next().expect("one");
    let names: Vec<&str> = record.attributes.iter().map(|pair| pair.key.as_str()).collect();
    assert_eq!(names, ["method", "status", "tags.z", "tags.a", "direction", "event.type", "event"]);
}

/// What no receiver of gRPC takes by default becomes several requests, in order and whole.
#[test]
fn a_large_batch_becomes_several_requests() {
    let mut events = EventsBuilder::new(&SCHEMAS[7]);
    let long = "x".repeat(90_000);
    for n in 0..100 {
        let mut cells = vec![Cell::Null; COLUMNS.len()];
        (cells[1], cells[2], cells[14]) = (Cell::Int(n), Cell::Text(&long), Cell::Bool(true));
        if n == 50 {
            cells[3] = Cell::Owned(long.repeat(50));
        }
        events.push(&cells);
    }
    let batch = events.finish();
    let messages = otlp(&config(false)).messages(&batch);
    let over = messages.iter().filter(|message| message.len() > 4 << 20).count();
    assert_eq!((messages.len(), over), (5, 1), "only the record that is too long by itself");
    let mut told = Vec::new();
    for message in messages {
        for record in records(&mut decode(&message)) {
            let Some(Value::KvlistValue(event)) = record.attributes[1].value.as_ref().and_then(|v| v.value.as_ref())
            else {
                panic!("{record:?}")
            };
            told.push(event.values[0].value.clone().and_then(|value| value.value));
        }
    }
    assert_eq!(told, (0..100).map(|n| Some(Value::IntValue(n))).collect::<Vec<_>>());
    assert!(otlp(&config(false)).messages(&batch.slice(0, 0)).is_empty());
}
