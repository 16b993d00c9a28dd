//! Header blocks of another encoder, as requests of one connection.

use std::process::{Command, Stdio};

use ringtap_exchange::{Cause, Connection, Direction, Exchange, Limits, Role};

use crate::tools::{program, skip, tool};

const BLOCKS: usize = 300;
const SEEDS: u64 = 8;

/// A block and what it says.
struct Block {
    wire: Vec<u8>,
    fields: Vec<(String, String)>,
}

/// `None`: what makes them is not installed.
fn blocks(seed: u64) -> Option<Vec<Block>> {
    let output = Command::new(tool("python3")?)
        .arg(program("hpack_blocks.py"))
        .args([seed.to_string(), BLOCKS.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .expect("the program starts");
    let text = String::from_utf8(output.stdout).expect("text");
    let block = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let digits = line["wire"].as_str().expect("hexadecimal").as_bytes();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ascii"), 16).expect("a byte");
        let pair = |pair: &serde_json::Value| {
            let text = |n: usize| pair[n].as_str().expect("text").to_owned();
            (text(0), text(1))
        };
        let fields = line["fields"].as_array().expect("fields").iter().map(pair).collect();
        Block { wire: digits.chunks(2).map(byte).collect(), fields }
    };
    Some(text.lines().map(block).collect())
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("small").to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A block as frames of 1 to 1000 bytes.
fn request(n: usize, block: &Block) -> Vec<u8> {
    let stream = u32::try_from(n * 2 + 1).expect("small");
    let parts: Vec<&[u8]> = block.wire.chunks(1 + n * 37 % 1000).collect();
    let (last, mut bytes) = (parts.len() - 1, Vec::new());
    for (at, part) in parts.into_iter().enumerate() {
        let end_headers = if at == last { 4 } else { 0 };
        bytes.extend(if at == 0 {
            frame(1, 1 | end_headers, stream, part)
        } else {
            frame(9, end_headers, stream, part)
        });
    }
    bytes
}

/// Requests from the given one on, each with its answer.
fn feed(blocks: &[Block], from: usize) -> Vec<Exchange> {
    let late = from > 0;
    let mut connection = Connection::new(Limits::default(), Some(Role::Client), late);
    let mut out = Vec::new();
    let mut data = |direction, bytes: &[u8]| {
        let at = connection.next_offset(direction);
        connection.data(direction, at, bytes, 0, &mut out);
    };
    if !late {
        data(Direction::Sent, &[&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[])].concat());
        // The table may have 65,536 bytes.
        data(Direction::Received, &frame(4, 0, 0, &[0, 1, 0, 1, 0, 0]));
        data(Direction::Sent, &frame(4, 1, 0, &[]));
    }
    for (n, block) in blocks.iter().enumerate().skip(from) {
        data(Direction::Sent, &request(n, block));
        let stream = u32::try_from(n * 2 + 1).expect("small");
        data(Direction::Received, &frame(1, 5, stream, &[0x88]));
    }
    out
}

/// Fields as they stand in a block. What is not known is not among them.
fn fields(exchange: &Exchange) -> Vec<(String, String)> {
    let request = &exchange.request;
    let pseudo =
        [(":method", Some(&request.method)), (":scheme", request.scheme.as_ref()), (":path", Some(&request.target))];
    let known = pseudo.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.clone())));
    let known = known.filter(|(_, value)| value != "unknown");
    known.chain(request.head.headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned()))).collect()
}

fn is_subsequence(part: &[(String, String)], whole: &[(String, String)]) -> bool {
    let mut rest = whole.iter();
    part.iter().all(|field| rest.any(|other| other == field))
}

#[test]
fn blocks_of_another_encoder_are_decoded_exactly() {
    for seed in 0..SEEDS {
        let Some(blocks) = blocks(seed) else { return skip("hpack", "./dev tools installs the other encoder") };
        assert_eq!(blocks.len(), BLOCKS);
        let told = feed(&blocks, 0);
        assert_eq!(told.len(), BLOCKS, "seed {seed}");
        for (n, (exchange, block)) in told.iter().zip(&blocks).enumerate() {
            assert!(exchange.damage.is_empty(), "seed {seed}, block {n}: {exchange:?}");
            assert_eq!(fields(exchange), block.fields, "seed {seed}, block {n}");
        }
    }
}

/// From any request on: what is told is what was meant, and where less is told there is a mark.
#[test]
fn joined_late_nothing_is_guessed() {
    for seed in 0..SEEDS {
        let Some(blocks) = blocks(seed) else { return skip("hpack", "./dev tools installs the other encoder") };
        let mut whole = 0;
        for from in 1..BLOCKS {
            let told = feed(&blocks, from);
            // The first requests may pass until the role and the frames are certain.
            let first = (BLOCKS - from) - told.len();
            for (n, exchange) in told.iter().enumerate() {
                let block = &blocks[from + first + n];
                let found = fields(exchange);
                assert!(is_subsequence(&found, &block.fields), "seed {seed}, from {from}, {n}: {found:?}");
                let unknown = exchange.damage.iter().any(|damage| damage.cause == Cause::UnknownHeaders);
                assert!(unknown || found.len() == block.fields.len(), "seed {seed}, from {from}, {n}: {found:?}");
                whole += usize::from(!unknown);
            }
        }
        assert!(whole > BLOCKS * BLOCKS / 20, "seed {seed}: only {whole} were told whole");
    }
}
