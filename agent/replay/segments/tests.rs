//! Streams against a naive model: whatever the network does to segments, the bytes come out in order and once.

use proptest::prelude::*;
use ringtap_batch::ring::records::Records;

use super::*;

const CLIENT: &str = "10.0.0.1:40000";
const SERVER: &str = "10.0.0.2:80";

fn segment(from_client: bool, sequence: u32, payload: &[u8]) -> Packet<'_> {
    let (client, server) = (CLIENT.parse().expect("an address"), SERVER.parse().expect("an address"));
    let (from, to) = if from_client { (client, server) } else { (server, client) };
    let wire_len = u32::try_from(payload.len()).expect("short");
    Packet { from, to, sequence, acknowledged: Some(0), syn: false, fin: false, rst: false, payload, wire_len }
}

fn handshake(flows: &mut Flows, client: u32, server: u32) {
    flows.packet(1, &Packet { syn: true, acknowledged: None, ..segment(true, client, b"") });
    flows.packet(2, &Packet { syn: true, acknowledged: Some(client.wrapping_add(1)), ..segment(false, server, b"") });
}

/// Payloads with their stream offsets.
type Parts = Vec<(u64, Vec<u8>)>;

/// The parts of both directions, and the connection's totals if it has ended.
fn streams(flows: &mut Flows) -> ([Parts; 2], Option<[u64; 2]>) {
    let (mut out, mut totals) = ([Vec::new(), Vec::new()], None);
    if let Some(batch) = flows.take_batch() {
        for row in Records::of(&batch).expect("its schema").rows() {
            match row.kind {
                Some(Kind::Payload) => out[usize::from(row.direction)].push((row.offset, row.payload.to_vec())),
                Some(Kind::Close) => totals = Totals::read(row.payload).map(|t| t.socket),
                _ => {}
            }
        }
    }
    (out, totals)
}

fn joined(parts: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut next = 0;
    parts.iter().fold(Vec::new(), |mut all, (offset, bytes)| {
        assert_eq!(*offset, next, "in order and without a gap");
        next += bytes.len() as u64;
        all.extend(bytes);
        all
    })
}

#[test]
fn a_connection_ends_with_its_totals() {
    let mut flows = Flows::new(View::Client);
    handshake(&mut flows, 100, 200);
    flows.packet(3, &segment(true, 101, b"GET"));
    flows.packet(4, &Packet { fin: true, ..segment(false, 201, b"answer") });
    flows.packet(5, &Packet { fin: true, ..segment(true, 104, b"") });
    let ([sent, received], totals) = streams(&mut flows);
    assert_eq!((joined(&sent).as_slice(), joined(&received).as_slice()), (&b"GET"[..], &b"answer"[..]));
    assert_eq!(totals, Some([3, 6]));
    // What is repeated, or comes behind the end, opens nothing.
    flows.packet(6, &segment(true, 101, b"GET"));
    flows.packet(7, &segment(false, 201, b"answer"));
    assert!(flows.take_batch().is_none());
}

/// From the server's side the same bytes have the other direction.
#[test]
fn both_ends_can_be_looked_from() {
    let mut flows = Flows::new(View::Server);
    handshake(&mut flows, 100, 200);
    flows.packet(3, &segment(true, 101, b"GET"));
    let ([sent, received], _) = streams(&mut flows);
    assert!(sent.is_empty());
    assert_eq!(joined(&received), b"GET");
}

/// What the capture lacks and the other end has acknowledged becomes a row without payload.
#[test]
fn what_the_capture_lacks_is_a_gap() {
    let mut flows = Flows::new(View::Client);
    handshake(&mut flows, 0, 0);
    flows.packet(3, &segment(false, 1, b"abc"));
    flows.packet(4, &segment(false, 11, b"xyz"));
    assert_eq!(streams(&mut flows).0[1], [(0, b"abc".to_vec())]);
    for _ in 0..=PATIENCE {
        flows.packet(5, &Packet { acknowledged: Some(14), ..segment(true, 1, b"") });
    }
    assert_eq!(streams(&mut flows).0[1], [(3, Vec::new()), (10, b"xyz".to_vec())]);
}

/// A packet that was cut short stands for all its bytes, and the next one follows behind them.
#[test]
fn short_packets_keep_their_length() {
    let mut flows = Flows::new(View::Client);
    handshake(&mut flows, 0, 0);
    flows.packet(3, &Packet { wire_len: 1000, ..segment(true, 1, b"abc") });
    flows.packet(4, &segment(true, 1001, b"d"));
    let batch = flows.take_batch().expect("rows");
    let rows: Vec<_> = Records::of(&batch)
        .expect("its schema")
        .rows()
        .filter(|row| row.kind == Some(Kind::Payload))
        .map(|row| (row.offset, row.len, row.payload.to_vec()))
        .collect();
    assert_eq!(rows, [(0, 1000, b"abc".to_vec()), (1000, 1, b"d".to_vec())]);
}

/// The same ports without a beginning, behind an end; and a reset that belongs to nobody.
#[test]
fn what_comes_behind_an_end_is_another_connection() {
    let mut flows = Flows::new(View::Client);
    handshake(&mut flows, 0, 0);
    flows.packet(3, &segment(true, 1, b"one"));
    flows.packet(4, &Packet { rst: true, ..segment(true, 3_000_000_000, b"") });
    flows.packet(5, &segment(true, 4, b"two"));
    flows.packet(6, &Packet { rst: true, ..segment(true, 7, b"") });
    flows.packet(7, &segment(true, 4, b"two"));
    flows.packet(8, &segment(true, 2_500_000_000, b"three"));
    let batch = flows.take_batch().expect("rows");
    let rows = Records::of(&batch).expect("its schema").rows().filter(|row| row.kind == Some(Kind::Payload));
    let found: Vec<(u64, &[u8])> = rows.map(|row| (row.conn, row.payload)).collect();
    assert_eq!(found, [(1, &b"one"[..]), (1, b"two"), (2, b"three")]);
}

/// A new connection between the same ends is another one.
#[test]
fn ports_are_used_again() {
    let mut flows = Flows::new(View::Client);
    handshake(&mut flows, 0, 0);
    flows.packet(3, &segment(true, 1, b"one"));
    handshake(&mut flows, 5_000_000, 7);
    flows.packet(4, &segment(true, 5_000_001, b"two"));
    let batch = flows.take_batch().expect("rows");
    let conns: Vec<u64> = Records::of(&batch)
        .expect("its schema")
        .rows()
        .filter(|row| row.kind == Some(Kind::Payload))
        .map(|row| row.conn)
        .collect();
    assert_eq!(conns, [1, 2]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any cutting into segments, any order within a window, any repetition and overlap; sequence numbers that wrap.
    #[test]
    fn any_order_gives_the_stream(
        data in prop::collection::vec(any::<u8>(), 1..600),
        isn in prop_oneof![Just(u32::MAX - 100), Just(0), any::<u32>()],
        cuts in prop::collection::vec((0usize..600, 1usize..80), 1..60),
        swaps in prop::collection::vec((0usize..100, 0usize..100), 0..60),
    ) {
        // Every byte is in some segment, some are in several.
        let mut segments: Vec<(usize, usize)> = (0..data.len()).step_by(37).map(|at| (at, 37)).collect();
        segments.extend(cuts.into_iter().filter(|(at, _)| *at < data.len()));
        let n = segments.len();
        for (a, b) in swaps {
            segments.swap(a % n, b % n);
        }
        let mut flows = Flows::new(View::Client);
        handshake(&mut flows, isn, 9);
        for (at, len) in segments {
            let end = (at + len).min(data.len());
            let sequence = isn.wrapping_add(1).wrapping_add(u32::try_from(at).expect("short"));
            flows.packet(3, &segment(true, sequence, &data[at..end]));
        }
        let ([sent, _], _) = streams(&mut flows);
        prop_assert_eq!(joined(&sent), data);
    }

    /// Whatever packets say, nothing panics, and what comes out of each direction never goes back.
    #[test]
    fn noise_is_survived(packets in prop::collection::vec(
        (any::<bool>(), any::<u32>(), 0usize..50, any::<[bool; 4]>(), any::<u32>(), 0u32..100), 0..200),
    ) {
        let bytes = [7u8; 50];
        let mut flows = Flows::new(View::Client);
        for (from_client, sequence, len, [syn, fin, rst, near], ack, more) in packets {
            let sequence = if near { sequence % 200 } else { sequence };
            let mut packet = segment(from_client, sequence, &bytes[..len]);
            (packet.syn, packet.fin, packet.rst) = (syn && near, fin, rst && !near);
            packet.acknowledged = near.then_some(ack % 400);
            packet.wire_len += more;
            flows.packet(1, &packet);
        }
        flows.finish(9);
        if let Some(batch) = flows.take_batch() {
            let mut next = std::collections::HashMap::new();
            for row in Records::of(&batch).expect("its schema").rows().filter(|r| r.kind == Some(Kind::Payload)) {
                let next = next.entry((row.conn, row.direction)).or_insert(0);
                prop_assert!(row.offset >= *next);
                *next = row.offset + u64::from(row.len);
            }
        }
    }
}
