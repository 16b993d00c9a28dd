//! What a redacted recording holds, and what it replays as.

use std::{fs, path::Path};

use ringtap_batch::{
    budget::{Budgets, Memory},
    ids::Ids,
    interest::{Everything, Interest, NoBodies},
    ledger::Ledger,
    process::{Process, Processes},
};

use super::*;
use crate::recording::Recording;

struct Nobody;

impl Processes for Nobody {
    fn get(&self, _tgid: u32) -> Option<Arc<Process>> {
        None
    }
}

fn context(interest: Arc<dyn Interest>) -> Arc<Context> {
    Arc::new(Context {
        names: Arc::default(),
        processes: Arc::new(Nobody),
        ids: Arc::new(Ids::new([1, 2, 3], 4, 5)),
        ledger: Arc::new(Ledger::default()),
        wanted: u32::MAX,
        budgets: Budgets::default(),
        memory: Arc::new(Memory::new(Budgets::default().agent)),
        interest,
        hostname: "host".into(),
        tags: Vec::new(),
        report_connections: true,
    })
}

/// A record of a connection whose process is the client; of a payload `missing` bytes were not read.
fn record(rows: &mut RecordsBuilder, offsets: &mut [u64; 2], kind: Kind, direction: u8, payload: &[u8], missing: u32) {
    layered(rows, offsets, (kind, 0), direction, payload, missing);
}

/// The same on a layer.
fn layered(
    rows: &mut RecordsBuilder,
    offsets: &mut [u64; 2],
    (kind, layer): (Kind, u8),
    direction: u8,
    payload: &[u8],
    missing: u32,
) {
    let mut head = Record::new_zeroed();
    (head.kind, head.conn, head.tgid, head.direction, head.layer) = (kind as u8, 7, 42, direction, layer);
    head.time_ns = 1_000_000_000 + rows.rows() as u64 * 3_000_000;
    head.size = u32::try_from(payload.len()).expect("short");
    if kind == Kind::Payload {
        (head.len, head.offset) = (head.size + missing, offsets[usize::from(direction)]);
        head.flags = if missing > 0 { flag::SENDFILE } else { 0 };
        offsets[usize::from(direction)] += u64::from(head.len);
    }
    rows.push_copied(&head, payload);
}

/// A connection on which these requests and responses go, one after the other; with a response, how much of it is missing.
fn conversation(exchanges: &[(&str, &str, u32)]) -> RecordBatch {
    let (mut rows, mut offsets) = (RecordsBuilder::default(), [0; 2]);
    let address = |text: &str| text.parse().expect("an address");
    let ends = Endpoints::new(1, address("10.0.0.1:40000"), address("192.0.2.7:443"));
    record(&mut rows, &mut offsets, Kind::Open, 0, ends.as_bytes(), 0);
    for (request, response, missing) in exchanges {
        record(&mut rows, &mut offsets, Kind::Payload, 0, request.as_bytes(), 0);
        record(&mut rows, &mut offsets, Kind::Payload, 1, response.as_bytes(), *missing);
    }
    let totals = Totals { socket: offsets, tls: [0; 2] };
    record(&mut rows, &mut offsets, Kind::Close, 0, totals.as_bytes(), 0);
    rows.finish(None)
}

/// What a user sees of each exchange.
fn seen(batches: impl Iterator<Item = RecordBatch>) -> Vec<String> {
    let mut shard = Shard::new(context(Arc::new(Everything)));
    let mut outputs: Vec<Output> = batches.map(|batch| shard.process(Some(&batch), 0, WallOffset(0))).collect();
    outputs.push(shard.finish(u64::MAX, WallOffset(0)));
    let transactions: Vec<RecordBatch> = outputs.into_iter().filter_map(|output| output.transactions).collect();
    let line = |t: &Transactions<'_>, row: usize| {
        let damage: Vec<&str> = t.damage(row).map(|damage| damage.cause).collect();
        let open = |cut| text(cut, row).filter(|cut| ["damage", "incomplete"].contains(cut));
        format!(
            "{} {} {} {}+{} {:?} {:?} {}ms {:?} {} {} {:?}",
            t.method.value(row),
            t.path.value(row),
            t.status.value(row),
            t.request_body_size.value(row),
            t.response_body_size.value(row),
            open(t.request_cut),
            open(t.response_cut),
            t.duration_ms(row),
            damage,
            t.direction.value(row),
            t.scheme.value(row),
            text(t.dst_ip, row),
        )
    };
    let each = transactions.iter().filter_map(Transactions::of);
    each.flat_map(|t| (0..t.rows()).map(|row| line(&t, row)).collect::<Vec<_>>()).collect()
}

fn redacted(batch: &RecordBatch, file: &Path) -> (Vec<u8>, Vec<String>) {
    let recorder = Recorder::create(file, "host", Arc::new(Nobody), Arc::default()).expect("a folder of its own");
    let mut redactor = Redactor::new(&context(Arc::new(NoBodies)), 1, recorder);
    redactor.process(&[Some(batch.clone())], 2_000_000_000, WallOffset(0)).expect("it is written");
    redactor.finish(u64::MAX, WallOffset(0)).expect("it is written");
    let mut recording = Recording::open(file).expect("it is there");
    let batches = std::iter::from_fn(|| recording.read().expect("it is whole"));
    let seen = seen(batches);
    (fs::read(file).expect("it is there"), seen)
}

const CASES: &[(&str, &str, u32)] = &[
    (
        "GET /items?token=s3cret&flag&s3cret HTTP/1.1\r\nHost: api.example.com\r\nAuthorization: Bearer s3cret\r\nCookie: s3cret\r\n\r\n",
        "HTTP/1.1 200 s3cret\r\nSet-Cookie: s3cret\r\nContent-Length: 6\r\n\r\ns3cret",
        0,
    ),
    (
        "POST /login HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n6\r\ns3cret\r\n0\r\nX-Trailer: s3cret\r\n\r\n",
        "HTTP/1.1 201 Created\r\nX-Own: s3cret\r\nTransfer-Encoding: chunked\r\n\r\n6\r\ns3cret\r\n6\r\ns3cret\r\n0\r\n\r\n",
        0,
    ),
    ("HEAD /large HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", 0),
    ("GET /none HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n", 0),
    ("PUT /empty HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 0),
    ("GET /file HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", 500),
    ("GET /after HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", 0),
    ("GET /cut HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\ns3cret", 0),
];

#[test]
fn exchanges_replay_as_they_were_without_their_secrets() {
    let folder = tempfile::tempdir().expect("a folder");
    let batch = conversation(CASES);
    let (bytes, after) = redacted(&batch, &folder.path().join("x.rtap"));
    let before = seen(std::iter::once(batch));
    assert_eq!(before.len(), CASES.len());
    assert_eq!(before, after);
    let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(!holds("s3cret") && holds("/items?token=*&*&*") && holds("Authorization: *") && holds("api.example.com"));
}

/// A server that ends its answer by closing, and a request without an answer.
#[test]
fn ends_of_connections_stay_what_they_are() {
    let folder = tempfile::tempdir().expect("a folder");
    for response in ["HTTP/1.0 200 OK\r\n\r\nuntil the end", ""] {
        let batch = conversation(&[("GET / HTTP/1.1\r\nHost: a\r\n\r\n", response, 0)]);
        let (_, after) = redacted(&batch, &folder.path().join("x.rtap"));
        assert_eq!(seen(std::iter::once(batch)), after);
    }
}

/// Of what is not HTTP nothing is written at all.
#[test]
fn nothing_else_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let batch = conversation(&[("s3cret\0\x01\x02 of another protocol", "s3cret\0\x03", 0)]);
    let (bytes, after) = redacted(&batch, &folder.path().join("x.rtap"));
    assert!(after.is_empty() && !bytes.windows(6).any(|window| window == b"s3cret"));
}

/// Secrets in odd places of the request line.
#[test]
fn odd_targets_hide_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    for target in [
        "/dl?s3cret==",
        "/dl?=s3cret",
        "/cb#access_token=s3cret",
        "/cart;jsessionid=s3cret;v=s3cret/items",
        "/cb?a#s3cret",
        "s3cret:pw@host/x",
        "http://s3cret:pw@api.example.com/x?s3cret",
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: s3cret:pw@a\r\nS: s3cret\r\n\r\n");
        let batch = conversation(&[(&request, "HTTP/1.1 204 No Content\r\n\r\n", 0)]);
        let (bytes, after) = redacted(&batch, &folder.path().join("x.rtap"));
        assert!(after.len() == 1 && !bytes.windows(6).any(|window| window == b"s3cret"), "{target}: {after:?}");
    }
}

/// Through a proxy: the tunnel's request in clear, what goes through it as plaintext of the same connection.
#[test]
fn what_goes_through_a_tunnel_is_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut rows, mut clear, mut plain) = (RecordsBuilder::default(), [0; 2], [0; 2]);
    let connect = b"CONNECT s3cret:pw@api.example.com:443 HTTP/1.1\r\nHost: api.example.com:443\r\n\r\n";
    record(&mut rows, &mut clear, Kind::Payload, 0, connect, 0);
    record(&mut rows, &mut clear, Kind::Payload, 1, b"HTTP/1.1 200 Connection established\r\n\r\n", 0);
    for _ in 0..2 {
        let request = b"GET /inside HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
        let response = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes";
        layered(&mut rows, &mut plain, (Kind::Payload, 1), 0, request, 0);
        layered(&mut rows, &mut plain, (Kind::Payload, 1), 1, response, 0);
    }
    let batch = rows.finish(None);
    let (bytes, after) = redacted(&batch, &folder.path().join("x.rtap"));
    let before = seen(std::iter::once(batch));
    assert!(before.len() == 3 && before == after, "{before:#?} {after:#?}");
    assert!(!bytes.windows(6).any(|window| window == b"s3cret"));
}

/// An answer whose head was lost, and one that had not come when the recording ended: neither says that the connection
/// was closed.
#[test]
fn missing_answers_keep_their_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let request = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
    for lost in [0, 100] {
        let (mut rows, mut offsets) = (RecordsBuilder::default(), [0; 2]);
        record(&mut rows, &mut offsets, Kind::Payload, 0, request, 0);
        if lost > 0 {
            record(&mut rows, &mut offsets, Kind::Payload, 1, b"", lost);
        }
        let batch = rows.finish(None);
        let (_, after) = redacted(&batch, &folder.path().join("x.rtap"));
        let before = seen(std::iter::once(batch));
        assert!(before[0].contains(" 422 "), "{before:?}");
        assert_eq!(before.len(), after.len());
        assert!(after[0].contains(" 422 "), "{after:?}");
    }
}
