//! Scenarios on a connection: each says what happens and what must come of it.

use super::*;
use crate::exchange::{Cut, Damage, Exchange, Request, Response};

/// What the process at one end sees, in order.
enum Event<'a> {
    Request(&'a [u8]),
    Response(&'a [u8]),
    MissRequest(u64),
    MissResponse(u64),
}
use Event::{MissRequest, MissResponse, Request as Req, Response as Res};

struct Run {
    connection: Connection,
    out: Vec<Exchange>,
    time: u64,
}

impl Run {
    fn new(role: Option<Role>, late: bool) -> Self {
        Self { connection: Connection::new(Limits::default(), role, late), out: Vec::new(), time: 0 }
    }

    fn client() -> Self {
        Self::new(Some(Role::Client), false)
    }

    fn feed(&mut self, events: &[Event<'_>]) -> &mut Self {
        for event in events {
            self.time += 1;
            let (direction, bytes, missing) = match event {
                Req(bytes) => (Direction::Sent, *bytes, 0),
                Res(bytes) => (Direction::Received, *bytes, 0),
                MissRequest(len) => (Direction::Sent, &[][..], *len),
                MissResponse(len) => (Direction::Received, &[][..], *len),
            };
            if missing > 0 {
                self.connection.missing(direction, missing, Cause::Unseen, self.time, &mut self.out);
            }
            let at = self.connection.next_offset(direction);
            self.connection.data(direction, at, bytes, self.time, &mut self.out);
        }
        self
    }

    fn close(&mut self) -> Vec<Exchange> {
        let totals = [Direction::Sent, Direction::Received].map(|d| self.connection.next_offset(d));
        self.connection.close(Some(totals), self.time + 1, &mut self.out);
        std::mem::take(&mut self.out)
    }
}

/// `METHOD target -> status body-length [damage causes]`, a line an exchange.
fn lines(exchanges: &[Exchange]) -> Vec<String> {
    let line = |e: &Exchange| {
        let status = e.response.as_ref().map_or("-".into(), |r| r.status.to_string());
        let body = e.response.as_ref().map_or(0, |r| r.body.size);
        let damage: Vec<&str> = e.damage.iter().map(|d| d.cause.as_str()).collect();
        format!("{} {} -> {status} {body} {damage:?}", e.request.method, e.request.target)
    };
    exchanges.iter().map(line).collect()
}

const GET: &[u8] = b"GET /a?x=1 HTTP/1.1\r\nHost: h\r\n\r\n";
const OK5: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

#[test]
fn keep_alive_keeps_order_and_queries() {
    let mut run = Run::client();
    run.feed(&[
        Req(GET),
        Res(OK5),
        Req(b"GET /b HTTP/1.1\r\n\r\n"),
        Res(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"),
    ]);
    assert_eq!(lines(&run.out), ["GET /a?x=1 -> 200 5 []", "GET /b -> 404 0 []"]);
    assert_eq!(run.connection.protocol(), Protocol::Http1);
}

/// The same result wherever the two streams are cut: pipelining, HEAD, 204, 304, 1xx, chunks, trailers, late bodies.
#[test]
fn any_split_gives_the_same() {
    let requests =
        b"HEAD /h HTTP/1.1\r\n\r\nPOST /p HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\n\
        \r\nDELETE /d HTTP/1.1\r\nContent-Length: 2\r\n\r\nxyGET /n HTTP/1.0\r\n\r\n";
    let responses = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n\
        HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nz\r\n0\r\n\r\nHTTP/1.1 204 None\r\n\r\nHTTP/1.0 200 OK\r\n\r\nuntil the end";
    let whole = {
        let mut run = Run::client();
        run.feed(&[Req(requests), Res(responses)]);
        run.close()
    };
    assert_eq!(
        lines(&whole),
        ["HEAD /h -> 200 0 []", "POST /p -> 201 1 []", "DELETE /d -> 204 0 []", "GET /n -> 200 13 []"]
    );
    assert_eq!(whole[1].request.body.bytes, b"abc");
    assert_eq!(whole[1].request.head.trailers.get("t"), Some("1"));
    let content = |exchanges: &[Exchange]| -> Vec<(Request, Option<Response>)> {
        exchanges.iter().map(|e| (e.request.clone(), e.response.clone())).collect()
    };
    for a in 0..=requests.len() {
        for b in 0..=responses.len() {
            let mut run = Run::client();
            run.feed(&[Req(&requests[..a]), Req(&requests[a..]), Res(&responses[..b]), Res(&responses[b..])]);
            assert_eq!(content(&run.close()), content(&whole), "split at {a}, {b}");
        }
    }
}

/// Byte by byte, and with the response seen before the request's record.
#[test]
fn single_bytes_and_overtaking_responses() {
    let mut run = Run::client();
    for byte in GET {
        run.feed(&[Req(&[*byte])]);
    }
    for byte in OK5 {
        run.feed(&[Res(&[*byte])]);
    }
    run.feed(&[Res(OK5), Req(GET)]);
    assert_eq!(lines(&run.close()), ["GET /a?x=1 -> 200 5 []"; 2]);
}

#[test]
fn the_role_shows_in_the_traffic() {
    let mut run = Run::new(None, false);
    run.feed(&[Req(OK5)]);
    assert_eq!(run.connection.role(), Some(Role::Server));
    let mut run = Run::new(None, false);
    run.feed(&[Req(GET), Res(OK5)]);
    assert_eq!(run.connection.role(), Some(Role::Client));
    assert_eq!(run.out.len(), 1);
}

#[test]
fn a_close_before_the_response_is_said() {
    let mut run = Run::client();
    let out = run.feed(&[Req(GET)]).close();
    assert!(out[0].closed_early && out[0].response.is_none());
    let out = Run::client().feed(&[Req(GET), Res(&OK5[..OK5.len() - 2])]).close();
    let body = &out[0].response.as_ref().expect("its head was seen").body;
    assert!(out[0].closed_early && !body.complete && body.size == 3);
}

#[test]
fn a_hole_in_a_body_keeps_its_length_and_the_connection() {
    let mut run = Run::client();
    run.feed(&[
        Req(GET),
        Res(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab"),
        MissResponse(5),
        Res(b"cde"),
        Req(GET),
        Res(OK5),
    ]);
    assert_eq!(lines(&run.out), ["GET /a?x=1 -> 200 10 [\"unseen\"]", "GET /a?x=1 -> 200 5 []"]);
    let body = &run.out[0].response.as_ref().expect("seen").body;
    assert_eq!((body.bytes.as_slice(), body.size, body.holed, body.complete), (&b"ab"[..], 10, true, true));
    assert_eq!(run.out[0].damage[0], Damage { cause: Cause::Unseen, part: Part::Response, start: 41, end: 46 });
}

/// A hole up to the very end of a body completes the exchange, as with `sendfile`.
#[test]
fn a_hole_at_the_end_completes_the_exchange() {
    let mut run = Run::client();
    run.feed(&[Req(GET), Res(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"), MissResponse(7)]);
    assert_eq!(lines(&run.out), ["GET /a?x=1 -> 200 7 [\"unseen\"]"]);
}

/// A whole response is lost: its request is given out without one and the next pair is right.
#[test]
fn a_lost_response_shifts_no_pairs() {
    let mut run = Run::client();
    run.feed(&[Req(b"GET /1 HTTP/1.1\r\n\r\n"), MissResponse(43), Req(b"GET /2 HTTP/1.1\r\n\r\n"), Res(OK5)]);
    assert_eq!(lines(&run.out), ["GET /1 -> - 0 [\"unseen\"]", "GET /2 -> 200 5 []"]);
}

/// A full ring is noticed only with the next record of its direction, when the other half has moved on already.
#[test]
fn losses_that_are_noticed_late_shift_no_pairs() {
    let request = |n: u8| format!("GET /{n} HTTP/1.1\r\n\r\n").into_bytes();
    let response = |n: u8| format!("HTTP/1.1 21{n} OK\r\nContent-Length: 1\r\n\r\n{n}").into_bytes();
    let [q1, q2, q3, q4] = [1, 2, 3, 4].map(request);
    let [s1, s2, s3, s4] = [1, 2, 3, 4].map(response);
    let mut run = Run::client();
    run.feed(&[Req(&q1), Res(&s1), Res(&s2), MissRequest(q2.len() as u64), Req(&q3), Res(&s3), Req(&q4), Res(&s4)]);
    assert_eq!(lines(&run.out), ["GET /1 -> 211 1 []", "GET /3 -> 213 1 [\"resync\"]", "GET /4 -> 214 1 []"]);
    assert_eq!(run.connection.orphans(), 1);
    let mut run = Run::client();
    run.feed(&[Req(&q1), Req(&q2), MissResponse(s1.len() as u64), Res(&s2), Req(&q3), Res(&s3)]);
    let paired = lines(&run.close());
    assert!(paired[0].starts_with("GET /1 -> - 0"), "{paired:?}");
    assert!(!paired[1].contains("211") && paired[2] == "GET /3 -> 213 1 []", "{paired:?}");
}

/// What is missing of an answer that came before its request is missing there, not in the one after it.
#[test]
fn holes_in_held_answers_shift_no_pairs() {
    let request = |n: u8| format!("GET /{n} HTTP/1.1\r\n\r\n").into_bytes();
    let response = |n: u8| format!("HTTP/1.1 21{n} OK\r\nContent-Length: 1\r\n\r\n{n}").into_bytes();
    let [q1, q2, q3, q4] = [1, 2, 3, 4].map(request);
    let [s2, s3, s4] = [2, 3, 4].map(response);
    let mut run = Run::client();
    run.feed(&[Res(b"HTTP/1.1 211 OK\r\nContent-Length: 30\r\n\r\n0123456789"), MissResponse(20)]);
    run.feed(&[Req(&q1), Req(&q2), Res(&s2), Req(&q3), Res(&s3)]);
    assert_eq!(lines(&run.out), ["GET /1 -> 211 30 [\"unseen\"]", "GET /2 -> 212 1 []", "GET /3 -> 213 1 []"]);
    // Both holes show late: each in the record after it.
    let mut run = Run::client();
    run.feed(&[Req(b"GET /1 HTTP/1.1\r\nHost"), Res(b"HTTP/1.1 211 OK\r\nCont"), MissResponse(20), Res(b"body one")]);
    run.feed(&[MissRequest(8), Req(&q2), Res(&s2), Req(&q3), Res(&s3), Req(&q4), Res(&s4)]);
    let told = lines(&run.out);
    assert!(told[0].starts_with("GET /2 -> 212 1"), "{told:?}");
    assert_eq!(told[1..], ["GET /3 -> 213 1 []", "GET /4 -> 214 1 []"]);
}

/// Of a client that pipelines, nothing behind a lost request can be paired.
#[test]
fn pipelined_requests_behind_a_loss_are_not_paired() {
    let request = |n: u8| format!("GET /{n} HTTP/1.1\r\n\r\n").into_bytes();
    let response = |n: u8| format!("HTTP/1.1 21{n} OK\r\nContent-Length: 1\r\n\r\n{n}").into_bytes();
    let [q1, q3, q4, q5] = [1, 3, 4, 5].map(request);
    let [s1, s2, s3, s4, s5] = [1, 2, 3, 4, 5].map(response);
    let mut run = Run::client();
    run.feed(&[
        Req(&q1),
        MissRequest(20),
        Req(&q3),
        Req(&q4),
        Res(&s1),
        Res(&s2),
        Res(&s3),
        Res(&s4),
        Req(&q5),
        Res(&s5),
    ]);
    let told = lines(&run.close());
    assert_eq!(told[0], "GET /1 -> 211 1 []");
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(told[1..].iter().all(|line| line.contains("-> - 0") && line.contains("resync")), "{told:?}");
}

/// The next request is on its way: what was lost has answered the one before it.
#[test]
fn an_answer_behind_a_loss_is_not_that_of_an_older_request() {
    let mut run = Run::client();
    run.feed(&[Req(b"GET /1 HTTP/1.1\r\n\r\n"), MissResponse(50), Req(b"GET "), Res(OK5)]);
    let told = lines(&run.close());
    assert_eq!(told, ["GET /1 -> - 0 [\"unseen\"]"]);
}

/// A hole behind a request for an upgrade is a hole of what follows.
#[test]
fn holes_behind_a_request_for_an_upgrade_stay_there() {
    let mut run = Run::client();
    run.feed(&[Req(
        b"GET /1 HTTP/1.1\r\nUpgrade: h2c\r\n\r\nPOST /2 HTTP/1.1\r\nContent-Length: 100\r\n\r\n0123456789",
    )]);
    run.feed(&[MissRequest(90), Req(b"GET /3 HTTP/1.1\r\n\r\n"), Res(OK5), Res(OK5), Res(OK5)]);
    let out = run.close();
    let told = lines(&out);
    assert_eq!(told, ["GET /1 -> 200 5 []", "POST /2 -> 200 5 [\"unseen\"]", "GET /3 -> 200 5 []"]);
    assert_eq!(out[1].request.body.bytes, b"0123456789");
}

/// Two answers in records that overtook the requests keep their order, wherever they are cut.
#[test]
fn held_answers_keep_their_order() {
    let answers = b"HTTP/1.1 201 A\r\nContent-Length: 1\r\n\r\naHTTP/1.1 202 B\r\nContent-Length: 1\r\n\r\nb";
    for cut in 0..=answers.len() {
        let mut run = Run::client();
        run.feed(&[Res(&answers[..cut]), Res(&answers[cut..]), Req(b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n")]);
        assert_eq!(lines(&run.out), ["GET /1 -> 201 1 []", "GET /2 -> 202 1 []"], "cut at {cut}");
    }
}

/// Also one whose records hold nothing but ends of lines.
/// Whatever the records, a server that does not begin with a status line before it was asked is not taken for one of
/// HTTP.
#[test]
fn what_comes_first_from_a_server_is_a_status_line() {
    for (first, spoken) in
        [("HTTP/1.1 200 OK\r\n", Protocol::Http1), ("h\r", Protocol::Other), ("GET / ", Protocol::Other)]
    {
        for cut in 0..=first.len() {
            let mut connection = Connection::new(Limits::default(), Some(Role::Client), false);
            let mut out: Vec<Exchange> = Vec::new();
            let (head, rest) = first.as_bytes().split_at(cut);
            connection.data(Direction::Sent, 0, b"GET / HT", 1, &mut out);
            connection.data(Direction::Received, 0, head, 2, &mut out);
            connection.data(Direction::Received, cut as u64, rest, 3, &mut out);
            connection.data(Direction::Sent, 8, b"TP/1.1\r\n\r\n", 4, &mut out);
            assert_eq!(connection.protocol(), spoken, "{first:?} cut at {cut}");
        }
    }
}

#[test]
fn held_answers_are_whole() {
    let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let mut run = Run::client();
    for byte in answer {
        run.feed(&[Res(std::slice::from_ref(byte))]);
    }
    run.feed(&[Req(GET)]);
    let body = &run.out[0].response.as_ref().expect("it is answered").body;
    assert_eq!((body.bytes.as_slice(), body.complete), (&b"\r\nabc"[..], true));
}

/// The answer to a request for an upgrade was there before it: what stands behind the request in its record is not lost.
#[test]
fn what_follows_a_request_for_an_upgrade_is_read_when_the_answer_was_held() {
    let head = "GET /chat HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    let mut run = Run::client();
    run.feed(&[Res(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")]);
    // And so is what the server said in records of their own.
    run.feed(&[Res(b"\x81\x02hi"), Res(b"\x81\x02ho")]);
    run.feed(&[Req(&[head.as_bytes(), b"\x81\x85\0\0\0\0hello"].concat()), Req(b"\x88\x80\0\0\0\0")]);
    run.feed(&[Res(b"\x88\x00")]);
    assert_eq!(run.out[0].request.body.bytes, b"hello");
    assert_eq!(run.out[0].response.as_ref().expect("it is answered").body.bytes, b"hiho");
}

/// An upload whose exchange was given up does not block the requests after it.
#[test]
fn a_given_up_upload_ends_without_harm() {
    let mut run = Run::client();
    run.feed(&[
        Req(b"POST /up HTTP/1.1\r\nContent-Length: 6\r\n\r\nab"),
        Res(b"HTTP/1.1 413 Large\r\nContent-Length: 9\r\n\r\nx"),
    ]);
    run.feed(&[MissResponse(20), Res(OK5), Req(b"cdef"), Req(GET), Res(OK5)]);
    let paired = lines(&run.close());
    assert!(paired[0].starts_with("POST /up -> 413"), "{paired:?}");
    assert_eq!(paired.last().map(String::as_str), Some("GET /a?x=1 -> 200 5 []"), "{paired:?}");
}

/// A whole request is lost: its response is passed over and never given to the next request.
#[test]
fn a_lost_request_leaves_an_orphan() {
    let mut run = Run::client();
    run.feed(&[Req(GET), Res(OK5), MissRequest(20), Res(b"HTTP/1.1 500 No\r\nContent-Length: 1\r\n\r\nx")]);
    run.feed(&[Req(b"GET /3 HTTP/1.1\r\n\r\n"), Res(OK5)]);
    assert_eq!(lines(&run.out), ["GET /a?x=1 -> 200 5 []", "GET /3 -> 200 5 [\"resync\"]"]);
    assert_eq!(run.connection.orphans(), 1);
}

#[test]
fn chunks_that_lose_their_place_resume_with_the_next_message() {
    let mut run = Run::client();
    run.feed(&[
        Req(GET),
        Res(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
        MissResponse(9),
        Res(b"rest\r\n0\r\n\r\n"),
    ]);
    run.feed(&[Req(b"GET /2 HTTP/1.1\r\n\r\n"), Res(OK5)]);
    assert_eq!(lines(&run.out), ["GET /a?x=1 -> 200 3 [\"unseen\"]", "GET /2 -> 200 5 []"]);
}

/// Joined in the middle of a download: the next request is the first that is captured.
#[test]
fn a_late_join_begins_at_a_boundary() {
    let mut run = Run::new(Some(Role::Client), true);
    run.feed(&[Res(b"tail of a body"), Res(OK5), Req(GET), Res(OK5)]);
    assert_eq!(lines(&run.out), ["GET /a?x=1 -> 200 5 []"]);
    let mut run = Run::new(None, true);
    run.feed(&[Res(b"tail"), Req(GET), Res(OK5)]);
    assert_eq!(lines(&run.out), ["GET /a?x=1 -> 200 5 []"]);
}

#[test]
fn other_protocols_are_given_up_at_once() {
    for bytes in [&b"SSH-2.0-x\r\n"[..], b"\x00\x01\x02", b"*1\r\n$4\r\nPING\r\n"] {
        let mut run = Run::client();
        run.feed(&[Req(bytes)]);
        assert!(run.connection.is_opaque(), "{}", bytes.escape_ascii());
    }
    let mut run = Run::client();
    run.feed(&[Req(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")]);
    assert_eq!(run.connection.protocol(), Protocol::Http2);
    let mut run = Run::client();
    run.feed(&[Res(b"220 mail ready\r\n")]);
    assert!(run.connection.is_opaque());
}

#[test]
fn tunnels_and_upgrades_end_http() {
    for (request, response) in [
        (&b"CONNECT a:1 HTTP/1.1\r\n\r\n"[..], &b"HTTP/1.1 200 OK\r\n\r\n\x16\x03\x01"[..]),
        (b"GET /ws HTTP/1.1\r\nUpgrade: x\r\n\r\n", b"HTTP/1.1 101 Switching\r\n\r\n\x81\x01a"),
    ] {
        let mut run = Run::client();
        run.feed(&[Req(request), Res(response), Req(b"\x16\x03\x01")]);
        assert_eq!(run.out.len(), 1);
        assert!(run.connection.is_opaque());
    }
}

/// Bytes that were sent into a tunnel before its answer are no requests.
#[test]
fn what_is_sent_into_a_tunnel_is_no_request() {
    let mut run = Run::client();
    run.feed(&[Req(b"CONNECT a:1 HTTP/1.1\r\n\r\nGET /inside HTTP/1.1\r\n\r\n"), Res(b"HTTP/1.1 200 OK\r\n\r\n")]);
    assert_eq!(lines(&run.close()), ["CONNECT a:1 -> 200 0 []"]);
}

/// When nobody looks any more, what was open is neither complete nor closed.
#[test]
fn the_end_of_looking_is_not_the_end_of_the_connection() {
    let mut run = Run::client();
    run.feed(&[Req(GET), Res(b"HTTP/1.1 200 OK\r\n\r\npart")]);
    run.connection.close(None, 9, &mut run.out);
    let response = run.out[0].response.as_ref().expect("seen");
    assert!(!response.body.complete && !run.out[0].closed_early);
}

#[test]
fn ambiguous_lengths_are_reported() {
    let mut run = Run::client();
    run.feed(&[Req(b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), Res(OK5)]);
    assert_eq!(lines(&run.out), ["POST / -> 200 5 [\"ambiguous_length\"]"]);
}

#[test]
fn bodies_and_queues_are_bounded() {
    let limits = Limits { body: 4, pipeline: 2, ..Limits::default() };
    let mut run = Run::client();
    run.connection = Connection::new(limits, Some(Role::Client), false);
    run.feed(&[Req(GET), Res(OK5)]);
    let body = &run.out[0].response.as_ref().expect("seen").body;
    assert_eq!(
        (body.bytes.as_slice(), body.size, body.cut, body.truncated()),
        (&b"hell"[..], 5, Some(Cut::Limit), true)
    );
    for _ in 0..5 {
        run.feed(&[Req(GET)]);
    }
    assert!(run.connection.open_exchanges() <= 2);
}

/// Says what it was asked, and wants no body of a request to `/big`.
#[derive(Default)]
struct Choosy {
    out: Vec<Exchange>,
    asked: Vec<(Part, bool)>,
}

impl Observer for Choosy {
    fn complete(&mut self, exchange: Exchange) {
        self.out.push(exchange);
    }

    fn refuses_body(&mut self, exchange: &Exchange, part: Part) -> Option<Cut> {
        self.asked.push((part, exchange.response.is_some()));
        (exchange.request.target == "/big").then_some(Cut::Unwanted)
    }
}

/// A body that nobody wants may be missing but for its last byte: nothing is damaged, and the size is true.
#[test]
fn unwanted_bodies_need_not_come() {
    let mut out = Choosy::default();
    let mut c = Connection::new(Limits { large: 1000, ..Limits::default() }, Some(Role::Client), false);
    c.data(Direction::Sent, 0, b"GET /big HTTP/1.1\r\n\r\n", 1, &mut out);
    assert_eq!(c.unwanted_until(Direction::Received), None);
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n";
    c.data(Direction::Received, 0, head, 2, &mut out);
    c.data(Direction::Received, head.len() as u64, b"ab", 3, &mut out);
    let last = head.len() as u64 + 999_999;
    assert_eq!(c.unwanted_until(Direction::Received), Some(last));
    assert_eq!(c.unwanted_until(Direction::Sent), None);
    c.data(Direction::Received, last, b"z", 9, &mut out);
    let [exchange] = out.out.as_slice() else { panic!("{:?}", out.out) };
    let body = &exchange.response.as_ref().expect("seen").body;
    assert_eq!((body.size, body.bytes.len(), body.cut, body.complete), (1_000_000, 0, Some(Cut::Unwanted), true));
    assert_eq!((exchange.damage.len(), exchange.times.end), (0, 9));
    assert_eq!(out.asked, [(Part::Response, true)]);
    assert_eq!((c.kept_bytes(), c.unwanted_until(Direction::Received)), (0, None));
}

/// Of chunked bodies the present chunk can stay away, of one that ends with the connection all of it.
#[test]
fn unwanted_bodies_without_a_length() {
    let none = Limits { bodies: false, ..Limits::default() };
    let mut c = Connection::new(none, Some(Role::Client), false);
    let mut out = Vec::new();
    c.data(Direction::Sent, 0, GET, 1, &mut out);
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000\r\nx";
    c.data(Direction::Received, 0, head, 2, &mut out);
    let end = head.len() as u64 - 1 + 0x10000;
    assert_eq!(c.unwanted_until(Direction::Received), Some(end));
    c.data(Direction::Received, end, b"\r\n0\r\n\r\n", 3, &mut out);
    assert_eq!(lines(&out), ["GET /a?x=1 -> 200 65536 []"]);
    c.data(Direction::Sent, GET.len() as u64, GET, 4, &mut out);
    c.data(Direction::Received, end + 7, b"HTTP/1.1 200 OK\r\n\r\nsome", 5, &mut out);
    assert_eq!(c.unwanted_until(Direction::Received), Some(u64::MAX));
    c.close(Some([2 * GET.len() as u64, end + 7 + 19 + 5_000_000]), 9, &mut out);
    assert_eq!(lines(&out)[1], "GET /a?x=1 -> 200 5000000 []");
    assert_eq!(out[1].response.as_ref().map(|r| (r.body.complete, r.body.cut)), Some((true, Some(Cut::Unwanted))));
}

/// What a connection keeps ends at its budget; bodies are cut, heads stay, and sizes are true.
#[test]
fn connections_have_a_budget() {
    let limits = Limits { body: 60_000, connection: 100_000, ..Limits::default() };
    let mut run = Run::client();
    run.connection = Connection::new(limits, Some(Role::Client), false);
    let post = [&b"POST / HTTP/1.1\r\nContent-Length: 50000\r\n\r\n"[..], &vec![b'x'; 50_000]].concat();
    for _ in 0..10 {
        for part in post.chunks(1000) {
            run.feed(&[Req(part)]);
        }
        assert!(run.connection.kept_bytes() < 110_000, "{}", run.connection.kept_bytes());
    }
    for _ in 0..10 {
        run.feed(&[Res(OK5)]);
    }
    let bodies: Vec<_> = run.out.iter().map(|e| &e.request.body).collect();
    assert!(bodies.iter().all(|body| body.size == 50_000 && body.complete));
    assert_eq!((bodies[0].cut, bodies[9].cut), (None, Some(Cut::Budget)));
    assert_eq!(run.connection.kept_bytes(), 0);
}

/// Any bytes at all, at any split and with any gaps, neither panic nor grow without bound.
#[test]
fn noise_is_survived() {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |n: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % n as u64).expect("small")
    };
    let pieces: [&[u8]; 12] = [
        GET,
        OK5,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"\r\n",
        b"HEAD / HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 100 C\r\n\r\n",
        b"\x00\xff",
        b"POST / HTTP/1.1\r\nContent-Length: 7\r\n\r\n",
        b"HTTP/1.1 304 N\r\n\r\n",
        b"x",
    ];
    for round in 0..3000 {
        let mut run = Run::new([Some(Role::Client), Some(Role::Server), None][round % 3], round % 2 == 0);
        for _ in 0..40 {
            let piece = pieces[next(pieces.len())];
            let cut = next(piece.len() + 1);
            match next(8) {
                0 => run.feed(&[MissRequest(next(30) as u64)]),
                1 => run.feed(&[MissResponse(next(30) as u64)]),
                2..=4 => run.feed(&[Req(&piece[..cut]), Req(&piece[cut..])]),
                _ => run.feed(&[Res(&piece[..cut]), Res(&piece[cut..])]),
            };
        }
        let requests = run.close().len();
        assert!(requests <= 80);
        assert_eq!(run.connection.kept_bytes(), 0);
    }
}

/// Methods are compared as they are written, tokens of any kind are methods, and targets need not begin with a slash.
#[test]
fn first_lines_that_servers_answer_are_read() {
    for (line, told) in [
        ("head / HTTP/1.1", "head / -> 200 5 []"),
        ("connect / HTTP/1.1", "connect / -> 200 5 []"),
        ("F.OO1 / HTTP/1.1", "F.OO1 / -> 200 5 []"),
        ("GET / HTTP/1.1 ", "GET / -> 200 5 []"),
        ("GET\t/ HTTP/1.1", "GET / -> 200 5 []"),
        ("GET ?q HTTP/1.1", "GET ?q -> 200 5 []"),
    ] {
        let mut run = Run::client();
        run.feed(&[Req(format!("{line}\r\n\r\n").as_bytes()), Res(OK5), Req(GET), Res(OK5)]);
        let lines = lines(&run.out);
        assert_eq!(lines.len(), 2, "{line}: {lines:?}");
        assert!(lines[0].starts_with(told.trim_end_matches(" []")), "{line}: {lines:?}");
    }
    let mut run = Run::client();
    run.feed(&[Req(b"CONNECT [2001:db8::1]:80 HTTP/1.1\r\n\r\n"), Res(b"HTTP/1.1 200 OK\r\n\r\n")]);
    assert_eq!(lines(&run.out), ["CONNECT [2001:db8::1]:80 -> 200 0 []"]);
}

/// Shapes that are read in more than one way are marked.
#[test]
fn shapes_that_smuggle_are_marked() {
    for (head, cause) in [
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "ambiguous_length"),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\nContent-Length: 1\r\n\r\nx", "ambiguous_length"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "malformed"),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n", "malformed"),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;a\rb\r\nx\r\n0\r\n\r\n", "malformed"),
    ] {
        let mut run = Run::client();
        run.feed(&[Req(head.as_bytes()), Res(OK5)]);
        assert_eq!(lines(&run.out).len(), 1, "{head}");
        assert!(lines(&run.out)[0].contains(cause), "{head}: {:?}", lines(&run.out));
    }
}

/// A line that comes byte by byte costs no more than its length.
#[test]
fn long_first_lines_are_not_read_again_and_again() {
    let begun = std::time::Instant::now();
    let mut connection = Connection::new(Limits { head: 1 << 20, ..Limits::default() }, None, false);
    let mut out: Vec<Exchange> = Vec::new();
    let line = [b"GET /".to_vec(), vec![b'a'; 200_000], b" HTTP/1.1\r\n\r\n".to_vec()].concat();
    for (at, byte) in line.iter().enumerate() {
        connection.data(Direction::Sent, at as u64, &[*byte], 1, &mut out);
    }
    assert_eq!((connection.open_exchanges(), connection.protocol()), (1, Protocol::Http1));
    // The square of it takes minutes.
    assert!(begun.elapsed() < std::time::Duration::from_secs(20));
}
