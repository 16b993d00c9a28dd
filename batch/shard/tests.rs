//! From records to transactions, objects and events, without a kernel.

use std::sync::Arc;

use ringtap_ring::{
    abi::{Counters, Record},
    records::RecordsBuilder,
};
use zerocopy::FromZeros as _;

use arrow_array::Array as _;

use super::*;
use crate::{
    capture::{Capture, Format, Level, Rule, RuleList},
    events, objects,
    process::Process,
    transactions::Transactions,
    usage,
};

struct OneProcess;

impl Processes for OneProcess {
    fn get(&self, tgid: u32) -> Option<Arc<Process>> {
        Some(Arc::new(Process {
            tgid,
            exe: "/usr/bin/curl".into(),
            uid: Some(0),
            user: Some("root".into()),
            ..Process::default()
        }))
    }
}

fn shard(wanted: u32) -> (Shard, Arc<Ledger>) {
    let ledger = Arc::new(Ledger::default());
    let context = Context {
        names: Arc::default(),
        processes: Arc::new(OneProcess),
        ids: Arc::new(Ids::new([1, 2, 3], 4, 5)),
        ledger: ledger.clone(),
        wanted,
        budgets: Budgets::default(),
        memory: Arc::new(Memory::new(Budgets::default().agent)),
        interest: Arc::new(crate::interest::Everything),
        hostname: "host-a".into(),
        tags: Vec::new(),
        report_connections: true,
    };
    (Shard::new(Arc::new(context)), ledger)
}

/// Records of one connection to 192.0.2.7:443, as the programs write them.
struct Script {
    builder: RecordsBuilder,
    offsets: [u64; 2],
    time_ns: u64,
    layer: u8,
}

impl Script {
    fn new(layer: u8) -> Self {
        Self { builder: RecordsBuilder::default(), offsets: [0; 2], time_ns: 1_000_000_000, layer }
    }

    fn head(&mut self, kind: Kind) -> Record {
        self.time_ns += 2_000_000;
        let mut head = Record::new_zeroed();
        (head.time_ns, head.conn, head.tgid, head.kind) = (self.time_ns, 77, 42, kind as u8);
        head
    }

    fn open(mut self, role: u8) -> Self {
        let head = self.head(Kind::Open);
        let mut ends = [0u8; 40];
        (ends[0], ends[2]) = (2, role);
        ends[4..6].copy_from_slice(&40_000u16.to_ne_bytes());
        ends[6..8].copy_from_slice(&443u16.to_ne_bytes());
        ends[8..12].copy_from_slice(&[10, 0, 0, 1]);
        ends[24..28].copy_from_slice(&[192, 0, 2, 7]);
        self.builder.push_copied(&head, &ends);
        self
    }

    /// On a Unix socket.
    fn open_unix(mut self, role: u8, path: &str) -> Self {
        let head = self.head(Kind::Open);
        let mut ends = [0u8; 152];
        (ends[0], ends[2]) = (1, role);
        ends[40..40 + path.len()].copy_from_slice(path.as_bytes());
        self.builder.push_copied(&head, &ends);
        self
    }

    fn payload(mut self, direction: u8, bytes: &[u8], missing: u32, flags: u32) -> Self {
        let mut head = self.head(Kind::Payload);
        head.direction = direction;
        head.layer = self.layer;
        head.flags = flags;
        head.offset = self.offsets[usize::from(direction)];
        head.len = u32::try_from(bytes.len()).expect("short") + missing;
        self.offsets[usize::from(direction)] += u64::from(head.len);
        self.builder.push_copied(&head, bytes);
        self
    }

    fn close(mut self) -> Self {
        let head = self.head(Kind::Close);
        let mut totals = [[0u64; 2]; 2];
        totals[usize::from(self.layer)] = self.offsets;
        let bytes: Vec<u8> = totals.iter().flatten().flat_map(|n| n.to_ne_bytes()).collect();
        self.builder.push_copied(&head, &bytes);
        self
    }

    fn run(self, wanted: u32) -> (Output, Arc<Ledger>) {
        let (mut shard, ledger) = shard(wanted);
        let batch = self.builder.finish(None);
        (shard.process(Some(&batch), self.time_ns, WallOffset(1_700_000_000_000_000_000)), ledger)
    }
}

const REQUEST: &[u8] = b"POST /a/b?q=1 HTTP/1.1\r\nHost: api.example.com:8443\r\nuser-agent: t\r\nAuthorization: Bearer 0123456789abcdef\r\nContent-Length: 2\r\n\r\nhi";
const RESPONSE: &[u8] = b"HTTP/1.1 500 Oops\r\nContent-Type: text/plain\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nContent-Length: 4\r\n\r\nbody";
const ALL: u32 = 15;

fn capture(level: Level, format: Format) -> Capture {
    Capture { level, format, rules: RuleList::default() }
}

fn first_object(output: &Output, capture: &Capture) -> String {
    let batch = output.transactions.as_ref().expect("a transaction");
    let transactions = Transactions::of(batch).expect("its schema");
    let objects = objects::objects(&transactions, &capture.decide(&transactions)).expect("wanted");
    let view = objects::Objects::of(&objects).expect("its schema");
    assert_eq!(view.digest.value(0), objects::digest(view.data.value(0)));
    String::from_utf8(view.data.value(0).to_vec()).expect("text")
}

#[test]
fn a_transaction_becomes_the_documented_object() {
    let (output, ledger) = Script::new(1).open(1).payload(0, REQUEST, 0, 0).payload(1, RESPONSE, 0, 0).close().run(ALL);
    let json: serde_json::Value =
        serde_json::from_str(&first_object(&output, &capture(Level::Full, Format::Json))).expect("JSON");
    let expected = [
        ("/metadata/process_exe", serde_json::json!("/usr/bin/curl")),
        ("/metadata/process_id", "42".into()),
        ("/metadata/endpoint_id", "api.example.com".into()),
        ("/metadata/bytes_sent", REQUEST.len().into()),
        ("/metadata/bytes_received", RESPONSE.len().into()),
        ("/request/method", "POST".into()),
        ("/request/url", "https://api.example.com:8443/a/b?q=1".into()),
        ("/request/path", "/a/b".into()),
        ("/request/protocol", "http1".into()),
        ("/request/user_agent", "t".into()),
        ("/request/headers/:method", "POST".into()),
        ("/request/headers/User-Agent", "t".into()),
        ("/request/body", "aGk=".into()),
        ("/response/status", 500.into()),
        ("/response/headers/Set-Cookie", "a=1, b=2".into()),
        ("/response/header_list/Set-Cookie/1", "b=2".into()),
        ("/response/body", "Ym9keQ==".into()),
        ("/response/body_size", 4.into()),
        ("/direction", "egress-external".into()),
        ("/duration_ms", 2.into()),
        ("/transaction_time", "2023-11-14T22:13:21.004000000Z".into()),
    ];
    for (path, value) in expected {
        assert_eq!(json.pointer(path), Some(&value), "{path} in {json:#}");
    }
    assert_eq!(json.pointer("/metadata/socket"), None);
    let bytes = (REQUEST.len() + RESPONSE.len()) as u64;
    let kernel = Counters { captured_records: 4, captured_bytes: bytes, seen_bytes: bytes, ..Counters::default() };
    assert_eq!(ledger.balance(&kernel), Ok(()));
}

#[test]
fn levels_and_formats_keep_what_they_say() {
    let (output, _) = Script::new(1).open(1).payload(0, REQUEST, 0, 0).payload(1, RESPONSE, 0, 0).run(ALL);
    let summary = first_object(&output, &capture(Level::Summary, Format::Json));
    assert!(!summary.contains("headers") && !summary.contains("body\""), "{summary}");
    let headers = first_object(&output, &capture(Level::Headers, Format::Json));
    assert!(headers.contains("headers") && !headers.contains("body\""), "{headers}");
    let text = first_object(&output, &capture(Level::Full, Format::Text));
    for part in
        ["HTTP Transaction\n====", "Metadata:\n", "Request:\n  POST https://", "Response:\n  Status: 500", "body\n"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn the_first_rule_that_matches_decides() {
    let (output, _) = Script::new(1).open(1).payload(0, REQUEST, 0, 0).payload(1, RESPONSE, 0, 0).run(ALL);
    let rules =
        ringtap_rules::Rules::new([("is_error", "http.res.status >= 400 && http.res.status < 600")]).expect("parses");
    let rule = |expression, level| Rule::new("", rules.compile(expression).expect("parses"), (level, None));
    let capture = Capture {
        level: Level::Summary,
        format: Format::Json,
        rules: RuleList(vec![
            rule("nothing.here == 1", Level::None),
            rule("response.status == 200", Level::None),
            rule(
                "is_error() and src.process.binary == 'curl' and http.req.headers.authorization =~ /^Bearer/",
                Level::Full,
            ),
            rule("true", Level::None),
        ]),
    };
    assert!(first_object(&output, &capture).contains("\"body\""));
    let outcomes = |rule: &Rule<_>| {
        let counted = rule.counts.read(&rule.expression);
        [counted.matches, counted.others, counted.errors.iter().map(|(_, n)| n).sum()]
    };
    let all: Vec<[u64; 3]> = capture.rules.0.iter().map(outcomes).collect();
    assert_eq!(all, [[0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 0]]);
    assert_eq!(capture.rules.0[0].counts.read(&capture.rules.0[0].expression).errors, [("nothing.here", 1)]);
}

fn as_json(events: &RecordBatch) -> serde_json::Value {
    serde_json::to_value(events::json(events, 0)).expect("it serializes")
}

#[test]
fn events_carry_the_documented_fields() {
    let (output, _) = Script::new(1).open(1).payload(0, REQUEST, 0, 0).payload(1, RESPONSE, 0, 0).close().run(ALL);
    let batch = output.transactions.as_ref().expect("a transaction");
    let transactions = Transactions::of(batch).expect("its schema");
    let request = as_json(&usage::requests(&transactions, &transactions, &[])[0]);
    for (path, value) in [
        ("/status", serde_json::json!(500)),
        ("/url", "https://api.example.com:8443/a/b?q=1".into()),
        ("/category", "app".into()),
        ("/authTokenType", "bearer".into()),
        ("/authTokenMask", "****cdef".into()),
        ("/tags/0", "bin:curl".into()),
    ] {
        assert_eq!(request.pointer(path), Some(&value), "{path} in {request:#}");
    }
    let objects =
        objects::objects(&transactions, &capture(Level::Summary, Format::Json).decide(&transactions)).expect("wanted");
    let records = objects::Objects::of(&objects).expect("its schema").records(&[Some("https://s/x".into())]);
    let record = as_json(&records);
    assert_eq!(record.pointer("/summary/request_host"), Some(&"api.example.com:8443".into()), "{record:#}");
    assert_eq!(record.pointer("/url"), Some(&"https://s/x".into()));
    assert_eq!(objects::Objects::of(&objects).expect("its schema").records(&[None]).num_rows(), 0);
    let connection = as_json(output.connections.as_ref().expect("it closed"));
    for (path, value) in [
        ("/finalized", serde_json::json!(true)),
        ("/part", 0.into()),
        ("/meta/endpointId", "api.example.com".into()),
        ("/source/address", "10.0.0.1:40000".into()),
        ("/source/exe", "/usr/bin/curl".into()),
        ("/destination/address", "192.0.2.7:443".into()),
        ("/l7Protocol", "http1".into()),
    ] {
        assert_eq!(connection.pointer(path), Some(&value), "{path} in {connection:#}");
    }
}

#[test]
fn missing_bytes_stand_in_the_object() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n";
    let (output, ledger) = Script::new(0)
        .open(1)
        .payload(0, REQUEST, 0, 0)
        .payload(1, head, 0, 0)
        .payload(1, b"", 100, flag::SENDFILE)
        .run(ALL);
    let json: serde_json::Value =
        serde_json::from_str(&first_object(&output, &capture(Level::Full, Format::Json))).expect("JSON");
    assert_eq!(json.pointer("/response/body_size"), Some(&100.into()));
    assert_eq!(json.pointer("/response/truncated"), Some(&"damage".into()));
    assert_eq!(json["damage"], serde_json::json!([{"cause": "sendfile", "part": "response", "start": 40, "end": 140}]));
    assert_eq!(ledger.exchanges_damaged.get(), 1);
}

/// A Unix socket has a path where others have an address; without a name in the request it is the endpoint too.
#[test]
fn unix_sockets_have_a_path() {
    let nameless: &[u8] = b"GET /v1/info HTTP/1.0\r\n\r\n";
    for (role, sends, direction, local) in [(1, 0, "egress-internal", "source"), (2, 1, "ingress", "destination")] {
        let script = Script::new(0).open_unix(role, "/run/docker.sock").payload(sends, nameless, 0, 0);
        let (output, _) = script.payload(1 - sends, RESPONSE, 0, 0).close().run(ALL);
        let batch = output.transactions.as_ref().expect("a transaction");
        let row = Transactions::of(batch).expect("its schema");
        assert_eq!((row.endpoint_id.value(0), row.direction.value(0)), ("unix:/run/docker.sock", direction));
        assert!(row.src_ip.is_null(0) && row.dst_ip.is_null(0) && row.dst_port.is_null(0));
        let connection = as_json(output.connections.as_ref().expect("it closed"));
        for (path, value) in [
            ("/socketProtocol", "unix"),
            ("/l7Protocol", "http1"),
            ("/destination/address", "unix:/run/docker.sock"),
            (&format!("/{local}/exe"), "/usr/bin/curl"),
        ] {
            assert_eq!(connection.pointer(path), Some(&value.into()), "{path} in {connection:#}");
        }
        assert!(connection.pointer("/source/address").is_none(), "{connection:#}");
    }
}

#[test]
fn unwanted_directions_are_filtered_and_counted() {
    let script = || Script::new(0).open(0).payload(0, REQUEST, 0, 0).payload(1, RESPONSE, 0, 0);
    let (output, ledger) = script().run(ringtap_ring::abi::wanted::INGRESS);
    assert!(output.transactions.is_none());
    assert_eq!((ledger.exchanges_seen.get(), ledger.exchanges_filtered.get()), (1, 1));
    let (output, _) = script().run(ringtap_ring::abi::wanted::EGRESS_EXTERNAL);
    assert!(output.transactions.is_some());
}

#[test]
fn other_protocols_are_left_in_the_kernel() {
    let (output, ledger) = Script::new(0).open(1).payload(0, b"\x00\x01\x02", 0, 0).run(ALL);
    assert_eq!(output.skip.len(), 2);
    assert_eq!(output.skip[0].1, u64::MAX);
    assert_eq!(ledger.connections_not_http.get(), 1);
}

#[test]
fn a_close_without_response_is_499() {
    let (output, _) = Script::new(0).open(1).payload(0, REQUEST, 0, 0).close().run(ALL);
    let json = first_object(&output, &capture(Level::Summary, Format::Json));
    assert!(json.contains("\"status\":499"), "{json}");
}

/// Many connections and half-open exchanges: what is kept stays within the budget, bodies are cut before connections go,
/// and both are counted or said.
#[test]
fn crowds_stay_within_the_budget() {
    let ledger = Arc::new(Ledger::default());
    let budgets = Budgets { shard: 64 << 20, ..Budgets::default() };
    let memory = Arc::new(Memory::new(budgets.agent));
    let context = Context {
        names: Arc::default(),
        processes: Arc::new(OneProcess),
        ids: Arc::new(Ids::new([1, 2, 3], 4, 5)),
        ledger: ledger.clone(),
        wanted: ALL,
        budgets,
        memory: memory.clone(),
        interest: Arc::new(crate::interest::Everything),
        hostname: "host-a".into(),
        tags: Vec::new(),
        report_connections: false,
    };
    let mut shard = Shard::new(Arc::new(context));
    let wall = WallOffset(0);
    let feed = |shard: &mut Shard, conns: std::ops::Range<u64>, offset: u64, bytes: &[u8]| {
        let mut builder = RecordsBuilder::default();
        for conn in conns {
            let mut head = Record::default();
            (head.time_ns, head.conn, head.tgid, head.kind) = (1_000_000 + conn, conn, 42, Kind::Payload as u8);
            (head.offset, head.len) = (offset, u32::try_from(bytes.len()).expect("short"));
            head.size = head.len;
            builder.push_copied(&head, bytes);
        }
        shard.process(Some(&builder.finish(None)), 2_000_000, wall)
    };
    // 10,000 uploads that do not end, 50 kB each: far more than the budget.
    let head = b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n";
    for conns in (0..10_000).step_by(100) {
        feed(&mut shard, conns..conns + 100, 0, head);
    }
    for part in 0..10 {
        for conns in (0..10_000).step_by(100) {
            feed(&mut shard, conns..conns + 100, head.len() as u64 + part * 5000, &[b'x'; 5000]);
            assert!(shard.kept_bytes() <= budgets.shard, "{} bytes are kept", shard.kept_bytes());
        }
    }
    assert_eq!((shard.connections(), ledger.connections_evicted.get()), (10_000, 0), "bodies are cut, nobody goes");
    assert_eq!(memory.kept(), shard.kept_bytes());
    // 100,000 connections more that have said a little: now the ones that were silent longest go.
    for conns in (10_000..110_000).step_by(1000) {
        feed(&mut shard, conns..conns + 1000, 0, b"GET / HTTP/1.1\r\n");
        assert!(shard.kept_bytes() <= budgets.shard, "{} bytes are kept", shard.kept_bytes());
    }
    assert!(ledger.connections_evicted.get() > 10_000);
    let output = shard.finish(3_000_000, wall);
    assert_eq!((shard.connections(), shard.kept_bytes(), memory.kept()), (0, 0, 0));
    assert_eq!(ledger.exchanges_seen.get(), 10_000, "each upload was told when it went");
    drop(output);
}

/// What no rule can want any more is skipped from there to its last byte, at the exact offset; what one can want is not.
#[test]
fn unwanted_bodies_are_skipped_in_the_kernel() {
    let rules = ringtap_rules::Rules::default();
    let expression = rules.compile("http.req.method == 'GET' and http.res.status >= 500").expect("it parses");
    let rule = Rule::new("errors", expression, (Level::Full, None));
    let capture = Arc::new(Capture { level: Level::Summary, format: Format::Json, rules: RuleList(vec![rule]) });
    for (method, status, skipped) in [("GET", 200, true), ("GET", 503, false), ("POST", 503, true)] {
        let (mut shard, _) = shard(ALL);
        let context = Arc::get_mut(&mut shard.context).expect("nobody else has it");
        context.interest = capture.clone();
        let request = format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n");
        let response = format!("HTTP/1.1 {status} X\r\nContent-Length: 1000000\r\n\r\nabc");
        let script = Script::new(0).open(1).payload(0, request.as_bytes(), 0, 0).payload(1, response.as_bytes(), 0, 0);
        let output = shard.process(Some(&script.builder.finish(None)), 2_000_000_000, WallOffset(0));
        let end = response.len() as u64 - 3 + 1_000_000;
        let stream = Stream { conn: 77, layer: 0, direction: 1 };
        let expected = if skipped { vec![(stream, end - 1)] } else { Vec::new() };
        assert_eq!(output.skip, expected, "{method} {status}");
    }
}
