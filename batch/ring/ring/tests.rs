//! The consumer against a producer that writes a file the way the kernel writes a ring.

use std::{
    collections::VecDeque,
    fs::File,
    os::{fd::AsFd as _, unix::fs::FileExt as _},
};

use arrow_array::RecordBatch;
use ringtap_bpf::abi::Record;
use rustix::{fs::MemfdFlags, param::page_size};
use zerocopy::{FromZeros as _, IntoBytes as _};

use super::*;
use crate::records::Records;

const SIZE: u32 = 64 * 1024;

/// The kernel's side of a ring in a memory file. The file has no double mapping, so each byte is written twice.
struct Producer {
    file: File,
    produced: u64,
    number: u64,
}

impl Producer {
    fn new() -> Self {
        let file = File::from(rustix::fs::memfd_create("ring", MemfdFlags::CLOEXEC).expect("a memory file"));
        file.set_len((2 * page_size()) as u64 + 2 * u64::from(SIZE)).expect("it grows");
        Self { file, produced: 0, number: 0 }
    }

    fn consumed(&self) -> u64 {
        let mut word = [0; 8];
        self.file.read_exact_at(&mut word, 0).expect("readable");
        u64::from_ne_bytes(word)
    }

    fn write(&self, position: u64, bytes: &[u8]) {
        let (data, size) = ((2 * page_size()) as u64, u64::from(SIZE));
        let at = position % size;
        let room = usize::try_from(size - at).expect("a small ring").min(bytes.len());
        for (at, bytes) in [(at, &bytes[..room]), (0, &bytes[room..])] {
            for copy in [0, size] {
                self.file.write_all_at(bytes, data + at + copy).expect("writable");
            }
        }
    }

    /// Reserves and fills a record; `flags` are those of the ring's own head. False: the ring is full.
    fn put(&mut self, payload: usize, flags: u32) -> bool {
        let len = Record::SIZE + payload;
        let taken = (HEAD + len as u64).next_multiple_of(8);
        if self.produced + taken - self.consumed() > u64::from(SIZE) {
            return false;
        }
        let mut head = Record::new_zeroed();
        head.conn = self.number;
        (head.len, head.size) = (u32::try_from(payload).expect("small"), u32::try_from(payload).expect("small"));
        let position = self.produced;
        self.write(position + HEAD, head.as_bytes());
        self.write(position + HEAD + Record::SIZE as u64, &content(self.number, payload));
        self.produced += taken;
        self.file.write_at(&self.produced.to_ne_bytes(), page_size() as u64).expect("writable");
        self.write(position, &(u32::try_from(len).expect("small") | flags).to_ne_bytes());
        self.number += 1;
        true
    }

    /// Submits the record that was put last as busy.
    fn finish_last(&self, payload: usize) {
        let taken = (HEAD + (Record::SIZE + payload) as u64).next_multiple_of(8);
        let len = u32::try_from(Record::SIZE + payload).expect("small");
        self.write(self.produced - taken, &len.to_ne_bytes());
    }

    fn ring(&self) -> Ring {
        Ring::open(self.file.as_fd(), SIZE).expect("it maps")
    }
}

fn content(number: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| u8::try_from((number * 31 + i * 7) % 251).expect("below 251")).collect()
}

/// Every payload is what was written under its number; the numbers.
fn check(batch: &RecordBatch) -> Vec<u64> {
    let rows = Records::of(batch).expect("our schema").rows();
    rows.map(|row| {
        assert_eq!(row.payload, content(row.conn, row.len as usize), "record {}", row.conn);
        row.conn
    })
    .collect()
}

const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;

#[test]
fn records_come_in_order_and_once() {
    let mut producer = Producer::new();
    let mut ring = producer.ring();
    assert!(!ring.has_records());
    assert!(ring.scan().is_none());
    for payload in [0, 1, 12, 13, 255, 256, 5000] {
        assert!(producer.put(payload, 0));
    }
    let batch = ring.scan().expect("seven records");
    assert_eq!(check(&batch), [0, 1, 2, 3, 4, 5, 6]);
    assert!(ring.scan().is_none());
    assert_eq!(ring.stats().leased_bytes, 256 + 5000);
    assert_eq!(producer.consumed(), 0, "the batch holds its span");
    drop(batch);
    assert_eq!(producer.consumed(), producer.produced);
}

#[test]
fn busy_records_stop_a_scan_and_discarded_ones_do_not() {
    let mut producer = Producer::new();
    let mut ring = producer.ring();
    producer.put(10, DISCARDED);
    producer.put(10, 0);
    producer.put(100, BUSY);
    assert_eq!(check(&ring.scan().expect("one record")), [1]);
    assert!(!ring.has_records());
    producer.finish_last(100);
    assert!(ring.has_records());
    assert_eq!(check(&ring.scan().expect("the other one")), [2]);
    assert_eq!(producer.consumed(), producer.produced);
}

#[test]
fn small_payloads_are_copied_and_in_crowded_rings_all_are() {
    let mut producer = Producer::new();
    let mut ring = producer.ring();
    producer.put(200, 0);
    let small = ring.scan().expect("a record");
    assert_eq!(producer.consumed(), producer.produced, "it was copied");
    let mut held = Vec::new();
    while ring.lent() <= u64::from(SIZE) / 2 {
        assert!(producer.put(8000, 0));
        held.push(ring.scan().expect("a record"));
    }
    let leased = ring.stats().leased_bytes;
    assert_eq!(leased, 8000 * held.len() as u64);
    assert!(producer.put(8000, 0));
    let crowded = ring.scan().expect("a record");
    assert_eq!(ring.stats().leased_bytes, leased, "while more than half is lent, all are copied");
    held.clear();
    assert_eq!(producer.consumed(), producer.produced, "the copy holds nothing");
    check(&small);
    check(&crowded);
}

/// Of a full ring each scan takes a part, so that what is done with goes back while the rest waits.
#[test]
fn scans_take_a_part() {
    let mut producer = Producer::new();
    let mut ring = producer.ring();
    while producer.put(4000, 0) {}
    let mut scans = 0;
    while let Some(batch) = ring.scan() {
        scans += 1;
        assert!(ring.lent() <= u64::from(SIZE) / 8 + 4096);
        check(&batch);
    }
    assert_eq!((scans, producer.consumed()), (6, producer.produced));
}

#[test]
fn malformed_records_are_counted() {
    let mut producer = Producer::new();
    let mut ring = producer.ring();
    producer.put(64, 0);
    // A record that claims more payload than it has.
    producer.write(HEAD + 28, &1000u32.to_ne_bytes());
    producer.put(8, 0);
    assert_eq!(check(&ring.scan().expect("the sound one")), [1]);
    assert_eq!(ring.stats().malformed, 1);
}

/// Random sizes, scans, and batches that are kept and dropped in any order: nothing is lost, changed or given out
/// twice, and the position never passes a batch that is still held.
#[test]
fn leases_return_in_any_order() {
    for seed in 1..=20u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = |n: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % n
        };
        let mut producer = Producer::new();
        let mut ring = producer.ring();
        let mut held: VecDeque<RecordBatch> = VecDeque::new();
        let mut expected = 0;
        let mut discarded = Vec::new();
        for _ in 0..400 {
            match random(4) {
                0 | 1 => {
                    let flags = if random(9) == 0 { DISCARDED } else { 0 };
                    let number = producer.number;
                    if producer.put(usize::try_from(random(6000)).expect("small"), flags) && flags != 0 {
                        discarded.push(number);
                    }
                }
                2 => {
                    if let Some(batch) = ring.scan() {
                        for number in check(&batch) {
                            while discarded.contains(&expected) {
                                expected += 1;
                            }
                            assert_eq!(number, expected, "seed {seed}");
                            expected += 1;
                        }
                        held.push_back(batch);
                    }
                }
                _ if !held.is_empty() => {
                    let at = usize::try_from(random(held.len() as u64)).expect("small");
                    check(&held[at]);
                    held.remove(at);
                }
                _ => {}
            }
        }
        for batch in &held {
            check(batch);
        }
        held.clear();
        while ring.scan().is_some() {}
        assert_eq!(producer.consumed(), producer.produced, "seed {seed}");
    }
}
