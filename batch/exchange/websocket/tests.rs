use flate2::{Compress, Compression, FlushCompress};

use super::*;
use crate::{Connection, Direction, Messages, Role};

const ASK: &[u8] = b"GET /chat HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
const AGREED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
const DEFLATED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover\r\n\r\n";

fn frame(first: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let bit = if mask.is_some() { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..=125 => bytes.push(bit | u8::try_from(len).expect("small")),
        len @ 126..=65535 => {
            bytes.push(bit | 0x7e);
            bytes.extend_from_slice(&u16::try_from(len).expect("small").to_be_bytes());
        }
        len => {
            bytes.push(bit | 0x7f);
            bytes.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(mask.as_ref().map_or(&[][..], |mask| mask));
    let mask = mask.unwrap_or_default();
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// A whole conversation: requests, responses.
fn talk() -> [Vec<u8>; 2] {
    let mask = Some([1, 2, 3, 4]);
    let long = vec![b'x'; 300];
    let sent = [
        ASK.to_vec(),
        frame(0x01, mask, b"hel"),
        frame(0x89, mask, b"?"),
        frame(0x80, mask, b"lo"),
        frame(0x82, mask, &long),
        frame(0x88, mask, &[3, 232]),
    ];
    let received = [AGREED.to_vec(), frame(0x81, None, b"hi"), frame(0x8a, None, b"?"), frame(0x88, None, &[3, 232])];
    [sent.concat(), received.concat()]
}

fn run(parts: &[(Direction, &[u8])]) -> Vec<Exchange> {
    let mut connection = Connection::new(Limits::default(), Some(Role::Client), false);
    let mut out = Vec::new();
    for (direction, bytes) in parts {
        let at = connection.next_offset(*direction);
        connection.data(*direction, at, bytes, 1, &mut out);
    }
    assert!(out.len() <= 1);
    connection.close(Some([Direction::Sent, Direction::Received].map(|d| connection.next_offset(d))), 2, &mut out);
    assert_eq!(connection.kept_bytes(), 0);
    out
}

fn kinds(messages: &Messages) -> Vec<(&'static str, u64, u64)> {
    messages.listed.iter().map(|m| (m.kind.as_str(), m.wire, m.len)).collect()
}

#[test]
fn messages_are_found_at_every_split() {
    let [sent, received] = talk();
    let (ask, talk) = sent.split_at(ASK.len());
    let whole = run(&[(Direction::Sent, ask), (Direction::Received, &received), (Direction::Sent, talk)]);
    let [exchange] = whole.as_slice() else { panic!("{whole:?}") };
    let messages = exchange.messages(Part::Request).expect("messages");
    assert_eq!(kinds(messages), [("ping", 1, 0), ("text", 5, 5), ("binary", 300, 300), ("close", 2, 2)]);
    assert_eq!(&exchange.request.body.bytes[..6], b"hellox");
    let answers = exchange.messages(Part::Response).expect("messages");
    assert_eq!(kinds(answers), [("text", 2, 2), ("pong", 1, 1), ("close", 2, 2)]);
    assert!(!exchange.closed_early && exchange.request.body.complete);
    for a in 0..=talk.len() {
        for b in [0, 10, AGREED.len(), AGREED.len() + 1, received.len() - 3, received.len()] {
            let parts = [
                (Direction::Sent, ask),
                (Direction::Received, &received[..b]),
                (Direction::Sent, &talk[..a]),
                (Direction::Received, &received[b..]),
                (Direction::Sent, &talk[a..]),
            ];
            let split = run(&parts);
            assert_eq!(split[0].messages, exchange.messages, "split at {a}, {b}");
            assert_eq!(split[0].request.body.bytes, exchange.request.body.bytes, "split at {a}, {b}");
        }
    }
}

/// With a context that goes on from message to message in one direction, and a fresh one in the other.
#[test]
fn compressed_messages_are_inflated() {
    let mut kept = Compress::new(Compression::default(), false);
    let mut deflate = |text: &[u8], fresh: bool| {
        let mut out = Vec::with_capacity(1024);
        let mut once = Compress::new(Compression::default(), false);
        let coder = if fresh { &mut once } else { &mut kept };
        coder.compress_vec(text, &mut out, FlushCompress::Sync).expect("room");
        out.truncate(out.len() - DEFLATE_TAIL.len());
        out
    };
    let text = b"a message that is said more than once";
    let sent =
        [frame(0xc1, Some([9; 4]), &deflate(text, true)), frame(0xc1, Some([7; 4]), &deflate(text, true))].concat();
    let received = [frame(0xc1, None, &deflate(text, false)), frame(0xc1, None, &deflate(text, false))].concat();
    let out = run(&[
        (Direction::Sent, ASK),
        (Direction::Received, DEFLATED),
        (Direction::Sent, &sent),
        (Direction::Received, &received),
    ]);
    assert_eq!(out[0].request.body.bytes, [&text[..], text].concat());
    let response = out[0].response.as_ref().expect("a response");
    assert_eq!(response.body.bytes, [&text[..], text].concat());
    let messages = out[0].messages(Part::Response).expect("messages");
    assert_eq!((messages.count, messages.compressed), (2, 2));
    assert!(messages.listed[1].wire < messages.listed[0].wire, "{messages:?}");
}

/// Few bytes can stand for many: none of them waits for the next message.
#[test]
fn long_messages_are_inflated_whole() {
    let mut coder = Compress::new(Compression::best(), false);
    let mut deflate = |text: &[u8]| {
        let mut out = Vec::with_capacity(1024);
        coder.compress_vec(text, &mut out, FlushCompress::Sync).expect("room");
        out.truncate(out.len() - DEFLATE_TAIL.len());
        out
    };
    let (long, short) = (vec![b'x'; 100_000], b"short".to_vec());
    let wire = [frame(0xc1, None, &deflate(&long)), frame(0xc1, None, &deflate(&short))].concat();
    for cut in [0, 5, 20, wire.len() - 1] {
        let parts = [(Direction::Received, &wire[..cut]), (Direction::Received, &wire[cut..])];
        let out = run(&[&[(Direction::Sent, ASK), (Direction::Received, DEFLATED)][..], &parts].concat());
        let response = out[0].response.as_ref().expect("a response");
        assert!(response.body.bytes == [&long[..], &short].concat(), "cut at {cut}: {}", response.body.bytes.len());
        let lengths: Vec<u64> =
            out[0].messages(Part::Response).expect("messages").listed.iter().map(|m| m.len).collect();
        assert_eq!(lengths, [100_000, 5]);
    }
}

/// What inflates without end is cut where bodies are.
#[test]
fn bombs_are_cut() {
    let mut out = Vec::with_capacity(1 << 20);
    let mut coder = Compress::new(Compression::best(), false);
    coder.compress_vec(&vec![0; 64 << 20], &mut out, FlushCompress::Sync).expect("room");
    out.truncate(out.len() - DEFLATE_TAIL.len());
    let bomb = frame(0xc2, None, &out);
    let done = run(&[(Direction::Sent, ASK), (Direction::Received, DEFLATED), (Direction::Received, &bomb)]);
    let body = &done[0].response.as_ref().expect("a response").body;
    assert_eq!((body.bytes.len(), body.cut), (Limits::default().body, Some(Cut::Limit)));
}

#[test]
fn holes_keep_the_place_inside_of_a_frame() {
    let mut connection = Connection::new(Limits::default(), Some(Role::Client), false);
    let mut out = Vec::new();
    connection.data(Direction::Sent, 0, ASK, 1, &mut out);
    connection.data(Direction::Received, 0, AGREED, 1, &mut out);
    let at = AGREED.len() as u64;
    let first = frame(0x81, None, b"0123456789");
    connection.data(Direction::Received, at, &first[..5], 2, &mut out);
    let behind = at + first.len() as u64;
    connection.data(Direction::Received, behind, &frame(0x81, None, b"next"), 3, &mut out);
    // A hole across frames: nothing in the stream gives the place back.
    connection.data(Direction::Received, behind + 500, &frame(0x81, None, b"lost"), 4, &mut out);
    connection.close(None, 5, &mut out);
    let messages = out[0].messages(Part::Response).expect("messages");
    assert_eq!(kinds(messages), [("text", 10, 3), ("text", 4, 0)]);
    assert_eq!(out[0].damage.len(), 2);
}
