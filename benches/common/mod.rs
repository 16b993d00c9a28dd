//! What the benches share: traffic from a fixed seed, and a check that a stage still gives the same result.
#![allow(dead_code, reason = "each bench uses a part")]

pub mod day;

use std::sync::Arc;

use arrow_array::RecordBatch;
use ringtap_batch::{
    budget::{Budgets, Memory},
    clock::WallOffset,
    ids::Ids,
    interest::Interest,
    ledger::Ledger,
    process::{Process, Processes},
    ring::{
        abi::{CHUNK_MAX, Endpoints, Kind, Record},
        records::RecordsBuilder,
    },
    shard::{Context, Shard},
};
use sha1::{Digest as _, Sha1};

/// Numbers from a fixed seed.
pub struct Random(u64);

impl Random {
    pub fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// Fails if a stage's result is another one than when its bench was written.
pub fn check(stage: &str, bytes: impl AsRef<[u8]>, expected: &str) {
    let [a, b, c, d, ..]: [u8; 20] = Sha1::digest(bytes.as_ref()).into();
    assert_eq!(
        format!("{:08x}", u32::from_be_bytes([a, b, c, d])),
        expected,
        "{stage} gives another result than it did"
    );
}

/// One keep-alive exchange: the request, and the response with a body of `size` bytes.
pub fn exchange(random: &mut Random, size: usize) -> (Vec<u8>, Vec<u8>) {
    let (page, status) =
        (random.below(1000), [200, 200, 200, 404, 500][usize::try_from(random.below(5)).expect("small")]);
    let request = format!(
        "GET /api/items?page={page} HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: bench/1\r\nAccept: */*\r\n\r\n"
    );
    let mut response =
        format!("HTTP/1.1 {status} X\r\nServer: s\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n")
            .into_bytes();
    response.extend((0..size).map(|at| b"0123456789abcdef"[(at ^ usize::try_from(page).expect("small")) % 16]));
    (request.into_bytes(), response)
}

/// A raw records batch with `exchanges` exchanges on each of `connections` connections, as the programs write them.
/// The second value is the number of payload bytes.
pub fn records(connections: u64, exchanges: usize, size: usize) -> (RecordBatch, u64) {
    let mut random = Random::new();
    let mut builder = RecordsBuilder::default();
    let mut time_ns = 1_000_000_000;
    let mut offsets = vec![[0u64; 2]; usize::try_from(connections).expect("few")];
    let mut push = |conn: u64, kind: Kind, direction: u8, offset: u64, bytes: &[u8]| {
        let mut head = Record::default();
        time_ns += 1000;
        (head.time_ns, head.conn, head.tgid, head.kind) = (time_ns, conn, 42, kind as u8);
        (head.direction, head.offset) = (direction, offset);
        head.len = u32::try_from(bytes.len()).expect("a chunk");
        head.size = head.len;
        builder.push_copied(&head, bytes);
    };
    let local = "10.0.0.1:40000".parse().expect("an address");
    let remote = "192.0.2.7:80".parse().expect("an address");
    let ends = Endpoints::new(1, local, remote);
    for conn in 1..=connections {
        push(conn, Kind::Open, 0, 0, zerocopy::IntoBytes::as_bytes(&ends));
    }
    for _ in 0..exchanges {
        for (conn, offsets) in (1..).zip(&mut offsets) {
            let (request, response) = exchange(&mut random, size);
            for (direction, stream) in [(0u8, &request), (1, &response)] {
                for chunk in stream.chunks(CHUNK_MAX) {
                    let offset = &mut offsets[usize::from(direction)];
                    push(conn, Kind::Payload, direction, *offset, chunk);
                    *offset += chunk.len() as u64;
                }
            }
        }
    }
    let bytes = offsets.iter().flatten().sum();
    (builder.finish(None), bytes)
}

struct OneProcess(Arc<Process>);

impl Processes for OneProcess {
    fn get(&self, _tgid: u32) -> Option<Arc<Process>> {
        Some(self.0.clone())
    }
}

/// What a shard needs to know.
pub fn context(interest: Arc<dyn Interest>) -> Arc<Context> {
    let process = Process {
        tgid: 42,
        exe: "/usr/bin/curl".into(),
        uid: Some(0),
        user: Some("root".into()),
        ..Process::default()
    };
    Arc::new(Context {
        names: Arc::default(),
        processes: Arc::new(OneProcess(Arc::new(process))),
        ids: Arc::new(Ids::new([1, 2, 3], 4, 5)),
        ledger: Arc::new(Ledger::default()),
        wanted: 15,
        budgets: Budgets::default(),
        memory: Arc::new(Memory::new(Budgets::default().agent)),
        interest,
        hostname: "host-a".into(),
        tags: Vec::new(),
        report_connections: false,
    })
}

/// The transactions of a batch of records.
pub fn transactions(batch: &RecordBatch, interest: Arc<dyn Interest>) -> RecordBatch {
    let mut shard = Shard::new(context(interest));
    let output = shard.process(Some(batch), 2_000_000_000, WallOffset(1_700_000_000_000_000_000));
    output.transactions.expect("exchanges are complete")
}
