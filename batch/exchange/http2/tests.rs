//! Scenarios on an HTTP/2 connection.

use super::frame::{Frame, Kind, PREFACE, flag};
use crate::{
    Cause, Connection, Direction,
    Direction::{Received, Sent},
    Exchange, Limits, Part, Protocol, Role,
};

/// A frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("small").to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn headers(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    frame(1, flags | flag::END_HEADERS, stream, block)
}

fn data(stream: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    frame(0, flags, stream, payload)
}

/// A field as a literal; with `add` it goes into the table.
fn literal(add: bool, name: &str, value: &str) -> Vec<u8> {
    let len = |text: &str| u8::try_from(text.len()).expect("short");
    let first = if add { 0x40 } else { 0x00 };
    [&[first, len(name)], name.as_bytes(), &[len(value)], value.as_bytes()].concat()
}

/// `GET` to this path, by tables and literals.
fn get(path: &str) -> Vec<u8> {
    [&[0x82, 0x87][..], &literal(false, ":path", path), &literal(false, ":authority", "h")].concat()
}

/// `:status: 200`.
const OK: &[u8] = &[0x88];
/// Empty settings.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

struct Run {
    connection: Connection,
    out: Vec<Exchange>,
    time: u64,
}

impl Run {
    fn new(late: bool) -> Self {
        let connection = Connection::new(Limits::default(), Some(Role::Client), late);
        Self { connection, out: Vec::new(), time: 0 }
    }

    /// Behind the greetings.
    fn fresh() -> Self {
        let mut run = Self::new(false);
        run.feed(&[(Sent, &[PREFACE, SETTINGS].concat()), (Received, SETTINGS)]);
        run
    }

    fn feed(&mut self, parts: &[(Direction, &[u8])]) -> &mut Self {
        for (direction, bytes) in parts {
            self.time += 1;
            let at = self.connection.next_offset(*direction);
            self.connection.data(*direction, at, bytes, self.time, &mut self.out);
        }
        self
    }

    fn miss(&mut self, direction: Direction, len: u64) -> &mut Self {
        self.connection.missing(direction, len, Cause::Unseen, self.time, &mut self.out);
        self
    }

    fn close(&mut self) -> Vec<Exchange> {
        let totals = [Sent, Received].map(|d| self.connection.next_offset(d));
        self.connection.close(Some(totals), self.time + 1, &mut self.out);
        assert_eq!(self.connection.kept_bytes(), 0);
        std::mem::take(&mut self.out)
    }
}

/// `METHOD target -> status body [damage]`, a line an exchange.
fn lines(exchanges: &[Exchange]) -> Vec<String> {
    let line = |e: &Exchange| {
        let (status, body) = e
            .response
            .as_ref()
            .map_or(("-".into(), ""), |r| (r.status.to_string(), std::str::from_utf8(&r.body.bytes).expect("text")));
        let damage: Vec<&str> = e.damage.iter().map(|d| d.cause.as_str()).collect();
        format!("{} {} -> {status} {body:?} {damage:?}", e.request.method, e.request.target)
    };
    exchanges.iter().map(line).collect()
}

/// Two streams at once, padding, priority, continuations, an informational response, trailers, an upload.
fn conversation() -> [Vec<u8>; 2] {
    let post = [&[0x83, 0x87][..], &literal(true, ":path", "/up"), &literal(true, ":authority", "h")].concat();
    let mut padded = vec![4, 0, 0, 0, 0, 15];
    padded.extend_from_slice(&post);
    padded.extend_from_slice(&[0; 4]);
    let sent = [
        PREFACE.to_vec(),
        SETTINGS.to_vec(),
        frame(1, flag::PADDED | flag::PRIORITY | flag::END_HEADERS, 1, &padded),
        headers(3, flag::END_STREAM, &get("/a")),
        frame(0, flag::PADDED, 1, b"\x03hello\0\0\0"),
        frame(8, 0, 0, &[0, 0, 0, 9]),
        frame(0xfa, 0x55, 7, b"an extension"),
        data(1, 0, b", world"),
        headers(1, flag::END_STREAM, &literal(false, "x-sum", "12")),
    ];
    let [first, second] = [&b"\x88"[..], &literal(true, "content-type", "text/plain")];
    let received = [
        SETTINGS.to_vec(),
        frame(4, flag::ACK, 0, &[]),
        headers(1, 0, &literal(false, ":status", "103")),
        frame(1, 0, 3, first),
        frame(9, flag::END_HEADERS, 3, second),
        headers(1, 0, &[0x88, 0xbe]),
        data(3, 0, b"fir"),
        data(1, 0, b"sec"),
        data(3, flag::END_STREAM, b"st"),
        frame(0, flag::PADDED, 1, b"\x02ond\0\0"),
        headers(1, flag::END_STREAM, &literal(false, "grpc-status", "0")),
        frame(7, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0]),
    ];
    [sent.concat(), received.concat()]
}

fn check(exchanges: &[Exchange]) {
    assert_eq!(lines(exchanges), ["GET /a -> 200 \"first\" []", "POST /up -> 200 \"second\" []"]);
    let post = &exchanges[1];
    assert_eq!(post.request.body.bytes, b"hello, world");
    assert_eq!(post.request.authority.as_deref(), Some("h"));
    assert_eq!(post.request.scheme.as_deref(), Some("https"));
    assert_eq!(post.request.head.trailers.get("x-sum"), Some("12"));
    let response = post.response.as_ref().expect("a response");
    assert_eq!(response.head.headers.get("content-type"), Some("text/plain"));
    assert_eq!(response.head.trailers.get("grpc-status"), Some("0"));
    assert!(post.request.body.complete && response.body.complete && !post.closed_early);
}

#[test]
fn streams_are_told_apart_at_every_split() {
    let [sent, received] = conversation();
    for a in 0..=sent.len() {
        let mut run = Run::new(false);
        run.feed(&[(Sent, &sent[..a]), (Sent, &sent[a..]), (Received, &received)]);
        assert_eq!(run.connection.protocol(), Protocol::Http2);
        check(&run.close());
    }
    for b in 0..=received.len() {
        let mut run = Run::new(false);
        run.feed(&[(Sent, &sent), (Received, &received[..b]), (Received, &received[b..])]);
        check(&run.close());
    }
    let mut run = Run::new(false);
    for (n, byte) in sent.iter().enumerate() {
        run.feed(&[(Sent, &[*byte])]);
        if let Some(byte) = received.get(n) {
            run.feed(&[(Received, &[*byte])]);
        }
    }
    if received.len() > sent.len() {
        run.feed(&[(Received, &received[sent.len()..])]);
    }
    check(&run.close());
}

/// The whole of one direction before the other.
#[test]
fn responses_may_come_first() {
    let [sent, received] = conversation();
    let mut run = Run::new(false);
    run.feed(&[(Received, &received), (Sent, &sent)]);
    let mut out = run.close();
    out.sort_by_key(|e| e.request.method.clone());
    check(&out);
}

#[test]
fn a_hole_in_a_body_touches_one_stream() {
    let mut run = Run::fresh();
    run.feed(&[(Sent, &headers(1, flag::END_STREAM, &get("/1"))), (Sent, &headers(3, flag::END_STREAM, &get("/3")))]);
    run.feed(&[(Received, &headers(1, 0, OK)), (Received, &headers(3, 0, OK))]);
    let body = data(1, flag::END_STREAM, b"0123456789");
    run.feed(&[(Received, &body[..12])]).miss(Received, 7);
    run.feed(&[(Received, &data(3, flag::END_STREAM, b"whole"))]);
    assert_eq!(lines(&run.out), ["GET /1 -> 200 \"012\" [\"unseen\"]", "GET /3 -> 200 \"whole\" []"]);
    let body = &run.out[0].response.as_ref().expect("seen").body;
    assert_eq!((body.size, body.holed, body.complete), (10, true, true));
}

/// A hole across frames marks all that it can have touched, and forgets what was added to the table in it.
#[test]
fn a_hole_across_frames_marks_what_it_can_have_touched() {
    let mut run = Run::fresh();
    run.feed(&[(Sent, &headers(1, flag::END_STREAM, &get("/1"))), (Sent, &headers(3, flag::END_STREAM, &get("/3")))]);
    let kept = [OK, &literal(true, "server", "s")].concat();
    run.feed(&[(Received, &headers(1, 0, &kept)), (Received, &data(1, flag::END_STREAM, b"done"))]);
    run.feed(&[(Sent, &headers(5, flag::END_STREAM, &get("/5")))]);
    run.feed(&[(Received, &headers(5, 0, OK))]).miss(Received, 100);
    run.feed(&[(Received, &headers(3, 0, &[0x88, 0xbe])), (Received, &data(3, flag::END_STREAM, b"late"))]);
    assert_eq!(
        lines(&run.out),
        ["GET /1 -> 200 \"done\" []", "GET /3 -> 200 \"late\" [\"unseen\", \"unknown_headers\"]"]
    );
    // What was added before the hole is not known behind it; the other stream's end may have been in it.
    assert!(run.out[1].response.as_ref().expect("seen").head.headers.is_empty());
    run.time += Limits::default().patience + 10;
    run.feed(&[(Sent, &frame(6, 0, 0, &[0; 8]))]);
    assert_eq!(lines(&run.out[2..]), ["GET /5 -> 200 \"\" [\"unseen\"]"]);
    // A stream that begins behind the hole is whole.
    run.feed(&[(Sent, &headers(7, flag::END_STREAM, &get("/7"))), (Received, &headers(7, flag::END_STREAM, OK))]);
    assert_eq!(lines(&run.out[3..]), ["GET /7 -> 200 \"\" []"]);
}

/// A request that was lost is said to be unknown; its response is not given to another one.
#[test]
fn a_lost_request_is_unknown() {
    let mut run = Run::fresh();
    let lost = headers(1, flag::END_STREAM, &get("/1"));
    run.miss(Sent, lost.len() as u64);
    run.feed(&[(Sent, &headers(3, flag::END_STREAM, &get("/3"))), (Received, &headers(1, 0, OK))]);
    run.feed(&[(Received, &data(1, flag::END_STREAM, b"x")), (Received, &headers(3, flag::END_STREAM, OK))]);
    assert_eq!(lines(&run.out), ["unknown unknown -> 200 \"x\" [\"resync\"]", "GET /3 -> 200 \"\" []"]);
}

/// Joined at every frame: nothing that is said is wrong.
#[test]
fn late_joins_never_guess() {
    let [sent, received] = conversation();
    let frames = |mut bytes: &[u8]| {
        let mut starts = Vec::new();
        let all = bytes.len();
        while let Some((head, rest)) = bytes.split_first_chunk() {
            starts.push(all - bytes.len());
            bytes = &rest[Frame::of(*head).len as usize..];
        }
        starts
    };
    let mut joined = 0;
    for a in frames(&sent[PREFACE.len()..]) {
        for b in frames(&received) {
            let mut run = Run::new(true);
            run.feed(&[(Sent, &sent[PREFACE.len() + a..]), (Received, &received[b..])]);
            for exchange in run.close() {
                joined += 1;
                let (method, target) = (exchange.request.method.as_str(), exchange.request.target.as_str());
                assert!(matches!((method, target), ("GET", "/a") | ("POST", "/up") | ("unknown", "unknown")));
                let response = exchange.response.as_ref();
                assert!(response.is_none_or(|r| matches!(r.status, 0 | 200)));
                let kind = response.and_then(|r| r.head.headers.get("content-type"));
                assert!(kind.is_none_or(|kind| kind == "text/plain"));
                let whole = response.is_some_and(|r| r.body.complete) && method != "unknown";
                assert!(whole || !exchange.damage.is_empty() || exchange.closed_early, "{exchange:?}");
            }
        }
    }
    assert!(joined > 50, "{joined}");
}

/// Another thread of the client was faster: what the server has answered, and reset since it wants no more of the request,
/// is there before the request.
#[test]
fn a_reset_behind_an_early_answer_waits_for_the_request() {
    let reset = frame(3, 0, 1, &[0, 0, 0, 0]);
    let answer = [headers(1, flag::END_STREAM, OK), reset.clone()].concat();
    let mut run = Run::fresh();
    run.feed(&[(Received, &answer), (Sent, &headers(1, 0, &get("/a"))), (Sent, &data(1, flag::END_STREAM, b"body"))]);
    let [exchange] = run.out.as_slice() else { panic!("{:?}", run.out) };
    assert_eq!((exchange.request.target.as_str(), exchange.response.as_ref().map(|r| r.status)), ("/a", Some(200)));
    assert!(exchange.damage.is_empty() && !exchange.closed_early && exchange.request.body.bytes == b"body");
    // Without an answer it was refused.
    let mut run = Run::fresh();
    run.feed(&[(Received, &reset), (Sent, &headers(1, flag::END_STREAM, &get("/b")))]);
    let [exchange] = run.out.as_slice() else { panic!("{:?}", run.out) };
    assert!(exchange.response.is_none() && exchange.closed_early && exchange.damage.is_empty());
}

#[test]
fn resets_and_goaways_end_streams() {
    let mut run = Run::fresh();
    for id in [1, 3, 5] {
        run.feed(&[(Sent, &headers(id, flag::END_STREAM, &get(&format!("/{id}"))))]);
    }
    run.feed(&[(Received, &headers(1, 0, OK)), (Sent, &frame(3, 0, 1, &[0, 0, 0, 8]))]);
    // What was under way when it was reset is no exchange of its own.
    run.feed(&[(Received, &data(1, flag::END_STREAM, b"late"))]);
    run.feed(&[(Received, &frame(7, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0])), (Received, &headers(3, flag::END_STREAM, OK))]);
    assert_eq!(lines(&run.out), ["GET /1 -> 200 \"\" []", "GET /5 -> - \"\" []", "GET /3 -> 200 \"\" []"]);
    assert_eq!(run.out.iter().map(|e| e.closed_early).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(run.connection.orphans(), 0);
}

#[test]
fn pushes_are_exchanges() {
    let mut run = Run::fresh();
    run.feed(&[(Sent, &headers(1, flag::END_STREAM, &get("/page")))]);
    let promise = [&2_u32.to_be_bytes()[..], &get("/style")].concat();
    run.feed(&[(Received, &frame(5, flag::END_HEADERS, 1, &promise)), (Received, &headers(1, flag::END_STREAM, OK))]);
    run.feed(&[(Received, &headers(2, 0, OK)), (Received, &data(2, flag::END_STREAM, b"css"))]);
    assert_eq!(lines(&run.out), ["GET /page -> 200 \"\" []", "GET /style -> 200 \"css\" []"]);
}

/// From HTTP/1.1, where the request is the first stream.
#[test]
fn an_upgrade_becomes_the_first_stream() {
    let mut run = Run::new(false);
    run.feed(&[(Sent, b"GET /up HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n")]);
    let answer = [&b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n"[..], SETTINGS].concat();
    run.feed(&[(Received, &answer), (Sent, &[PREFACE, SETTINGS].concat())]);
    run.feed(&[(Received, &headers(1, 0, OK)), (Received, &data(1, flag::END_STREAM, b"yes"))]);
    run.feed(&[(Sent, &headers(3, flag::END_STREAM, &get("/3"))), (Received, &headers(3, flag::END_STREAM, OK))]);
    assert_eq!(lines(&run.out), ["GET /up -> 200 \"yes\" []", "GET /3 -> 200 \"\" []"]);
}

/// A server that does not take the offer answers in HTTP/1.1.
#[test]
fn an_upgrade_that_is_not_taken_changes_nothing() {
    let mut run = Run::new(false);
    run.feed(&[(Sent, b"GET /up HTTP/1.1\r\nUpgrade: h2c\r\n\r\nGET /2 HTTP/1.1\r\n\r\n")]);
    run.feed(&[(Received, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 204 No\r\n\r\n")]);
    assert_eq!(lines(&run.out), ["GET /up -> 200 \"x\" []", "GET /2 -> 204 \"\" []"]);
}

/// Cookies that came in crumbs are one.
#[test]
fn crumbs_are_joined() {
    let mut run = Run::fresh();
    let block = [get("/"), literal(false, "cookie", "a=1"), literal(false, "cookie", "b=2")].concat();
    run.feed(&[(Sent, &headers(1, flag::END_STREAM, &block)), (Received, &headers(1, flag::END_STREAM, OK))]);
    assert_eq!(run.out[0].request.head.headers.get("cookie"), Some("a=1; b=2"));
}

/// Entries that are asked for again and again, streams without end, blocks that never end: memory stays flat.
#[test]
fn bombs_and_floods_stay_within_limits() {
    let limits = Limits { pipeline: 50, ..Limits::default() };
    let mut run = Run::fresh();
    run.connection = Connection::new(limits, Some(Role::Client), false);
    run.feed(&[(Sent, &[PREFACE, SETTINGS].concat())]);
    let value = "x".repeat(120);
    let mut bomb = [get("/"), literal(true, "x-large", &value)].concat();
    bomb.extend(std::iter::repeat_n(0xbe, 16_000));
    for id in 0..200 {
        run.feed(&[(Sent, &headers(id * 2 + 1, 0, &bomb))]);
        assert!(run.connection.kept_bytes() < (limits.connection + 2 * limits.head), "{}", run.connection.kept_bytes());
        assert!(run.connection.open_exchanges() <= 50);
    }
    run.feed(&[(Sent, &frame(1, 0, 401, &get("/endless")))]);
    for _ in 0..100 {
        run.feed(&[(Sent, &frame(9, 0, 401, &[0x82; 16_000]))]);
    }
    assert!(run.connection.kept_bytes() < limits.connection + 2 * limits.head);
    let out = run.close();
    assert!(out.iter().all(|e| e.damage.iter().any(|d| d.cause == Cause::Limit)), "{:?}", lines(&out).first());
}

/// References to one large field, in blocks that are not the first of their streams.
#[test]
fn bombs_in_trailers_stay_within_limits() {
    let limits = Limits::default();
    let mut run = Run::fresh();
    let large = [get("/"), literal(true, "x-large", &"x".repeat(120))].concat();
    run.feed(&[
        (Sent, &headers(1, 0, &large)),
        (Received, &headers(1, 0, &[&[0x88][..], &large[large.len() - 130..]].concat())),
    ]);
    for id in 1..900 {
        run.feed(&[(Sent, &headers(id * 2 + 1, 0, &get("/"))), (Received, &headers(id * 2 + 1, 0, OK))]);
    }
    let bomb = vec![0xbe; 500];
    for id in 1..900 {
        run.feed(&[(Sent, &headers(id * 2 + 1, flag::END_STREAM, &bomb))]);
        assert!(run.connection.kept_bytes() < limits.connection + 2 * limits.head, "{}", run.connection.kept_bytes());
    }
}

/// Lengths and fields that those who forward them read in more than one way.
#[test]
fn shapes_that_smuggle_are_marked() {
    let post = |fields: &[u8]| [&[0x83, 0x87][..], &literal(false, ":path", "/"), fields].concat();
    for (fields, cause) in [
        (literal(false, "content-length", "0"), Cause::AmbiguousLength),
        (literal(false, "content-length", "3"), Cause::AmbiguousLength),
        (literal(false, "transfer-encoding", "chunked"), Cause::Malformed),
        (literal(false, "x-a", "a\r\nb: c"), Cause::Malformed),
        (literal(false, ":path", "/other"), Cause::Malformed),
    ] {
        let mut run = Run::fresh();
        run.feed(&[(Sent, &headers(1, 0, &post(&fields))), (Sent, &data(1, flag::END_STREAM, b"12345"))]);
        run.feed(&[(Received, &headers(1, flag::END_STREAM, OK))]);
        assert_eq!(run.out.len(), 1);
        assert!(run.out[0].damage.iter().any(|damage| damage.cause == cause), "{cause:?}: {:?}", run.out[0].damage);
    }
    // A HEAD request is answered with the length of what it left out.
    let mut run = Run::fresh();
    let head = [&literal(false, ":method", "HEAD")[..], &[0x87], &literal(false, ":path", "/")].concat();
    let answer = [OK, &literal(false, "content-length", "5")].concat();
    run.feed(&[(Sent, &headers(1, flag::END_STREAM, &head)), (Received, &headers(1, flag::END_STREAM, &answer))]);
    assert_eq!(run.out[0].damage, []);
}

/// Trailers of a request whose stream was reset make no exchange of their own.
#[test]
fn late_trailers_make_no_ghosts() {
    let mut run = Run::fresh();
    run.feed(&[(Sent, &headers(1, 0, &get("/"))), (Received, &headers(1, flag::END_STREAM, OK))]);
    run.feed(&[(Received, &frame(3, 0, 1, &[0; 4])), (Sent, &headers(1, flag::END_STREAM, &literal(false, "x", "y")))]);
    assert_eq!(run.close().len(), 1);
}

/// A server that does not know HTTP/2 says so in HTTP/1: no answer, and a mark.
#[test]
fn an_answer_in_http1_is_none() {
    let mut run = Run::new(false);
    run.feed(&[(Sent, &[PREFACE, SETTINGS, &headers(1, flag::END_STREAM, &get("/"))].concat())]);
    run.feed(&[(Received, b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")]);
    let out = run.close();
    assert_eq!(out.len(), 1);
    assert!(out[0].response.is_none() && out[0].damage.iter().any(|d| d.cause == Cause::Malformed), "{:?}", out[0]);
}

/// An extended CONNECT has a path like any other request.
#[test]
fn extended_connect_says_what_it_asks_for() {
    let mut run = Run::fresh();
    let fields = [
        &literal(false, ":method", "CONNECT")[..],
        &literal(false, ":protocol", "websocket"),
        &[0x87],
        &literal(false, ":path", "/chat?x=1"),
        &literal(false, ":authority", "example.test"),
    ]
    .concat();
    run.feed(&[(Sent, &headers(1, 0, &fields)), (Received, &headers(1, 0, OK))]);
    let request = &run.close()[0].request;
    assert_eq!((request.target.as_str(), request.protocol.as_deref()), ("/chat?x=1", Some("websocket")));
}

/// Frames that a peer must refuse and we read: one longer than the 16 KiB of a connection whose settings were never
/// changed, since the settings can have been changed before anybody looked.
const READ_ALL_THE_SAME: [&str; 1] = ["data-frame-size"];

/// The corpus of frames: each is read as it says, or refused.
#[test]
fn the_corpus_of_frames() {
    let Some(corpora) = crate::corpora("http2-frames") else { return };
    let mut cases = 0;
    for folder in
        std::fs::read_dir(corpora).expect("a folder").map(|e| e.expect("an entry").path()).filter(|p| p.is_dir())
    {
        let files = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
        for file in files.filter(|file| file.extension().is_some_and(|end| end == "json")) {
            let case: serde_json::Value =
                serde_json::from_str(&std::fs::read_to_string(&file).expect("a case")).expect("JSON");
            cases += 1;
            check_frame(&case, &file);
        }
    }
    assert_eq!(cases, 34, "cases");
}

fn check_frame(case: &serde_json::Value, file: &std::path::Path) {
    let hex: Vec<u8> = case["wire"].as_str().expect("hexadecimal").bytes().collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ascii"), 16).expect("hexadecimal");
    let wire: Vec<u8> = hex.chunks(2).map(byte).collect();
    let (head, payload) = wire.split_first_chunk().expect("a head");
    let frame = Frame::of(*head);
    let fields = &case["frame"];
    if fields.is_null() {
        let name = file.file_stem().and_then(|name| name.to_str()).expect("a name");
        let refused = !frame.is_valid() || refused_by_payload(frame, payload);
        assert_eq!(refused, !READ_ALL_THE_SAME.contains(&name), "{name}");
        return;
    }
    assert!(frame.is_valid(), "{}", file.display());
    let number = |name: &str| fields[name].as_u64().expect("a number");
    assert_eq!(u64::from(frame.len), number("length"), "{}", file.display());
    assert_eq!(u64::from(frame.flags), number("flags"), "{}", file.display());
    assert_eq!(u64::from(frame.stream), number("stream_identifier"), "{}", file.display());
    let kinds = [
        Kind::Data,
        Kind::Headers,
        Kind::Priority,
        Kind::RstStream,
        Kind::Settings,
        Kind::PushPromise,
        Kind::Ping,
        Kind::Goaway,
        Kind::WindowUpdate,
        Kind::Continuation,
    ];
    assert_eq!(frame.kind, kinds[usize::try_from(number("type")).expect("small")], "{}", file.display());
    if frame.kind == Kind::Data {
        // The body is what is left without its padding.
        let mut run = Run::fresh();
        run.feed(&[(Sent, &headers(frame.stream, 0, &get("/"))), (Sent, &wire)]);
        let said = fields["frame_payload"]["data"].as_str().expect("text");
        assert_eq!(run.close()[0].request.body.bytes, said.as_bytes(), "{}", file.display());
    }
}

/// What is wrong only with the payload: padding longer than the frame, a window that grows by nothing, odd promises.
fn refused_by_payload(frame: Frame, payload: &[u8]) -> bool {
    let padded = frame.flags & flag::PADDED != 0 && u32::from(payload[0]) >= frame.len;
    match frame.kind {
        Kind::Data | Kind::Headers => padded,
        Kind::PushPromise => padded || payload.get(3).is_some_and(|last| *last == 0 || last % 2 == 1),
        Kind::WindowUpdate => payload == [0; 4],
        _ => false,
    }
}

/// Which half a response is in, where nobody said which end the process is.
#[test]
fn the_role_shows_in_the_frames() {
    let mut run = Run::new(true);
    run.connection = Connection::new(Limits::default(), None, true);
    run.feed(&[(Received, &data(9, 0, b"of nobody")), (Received, &headers(1, flag::END_STREAM, &get("/1")))]);
    assert_eq!(run.connection.role(), Some(Role::Server));
    run.feed(&[(Sent, &headers(1, flag::END_STREAM, OK))]);
    assert_eq!(lines(&run.out), ["GET /1 -> 200 \"\" []"]);
    assert!(run.out[0].messages(Part::Request).is_none());
}
