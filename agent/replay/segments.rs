//! From TCP segments to the two byte streams of each connection, as raw records.
//!
//! Segments that were sent again or overlap are trimmed, those that came too early wait. What the other end has
//! acknowledged and the capture does not have was lost by the capture: the stream offset jumps, as it does where the
//! kernel's ring was full.

use std::{collections::BTreeMap, net::SocketAddr};

use arrow_array::RecordBatch;
use ringtap_batch::ring::{
    abi::{Endpoints, Kind, Record, Totals, flag},
    records::RecordsBuilder,
};
use zerocopy::{FromZeros as _, IntoBytes as _};

use super::packets::Packet;

/// Connections at most; beyond, the ones that were silent longest end.
const FLOWS_MAX: usize = 65_536;
/// How many end at a time, so that finding them is paid for seldom.
const EVICTED_AT_ONCE: usize = 1024;
/// Bytes of one direction that wait for what is missing before them.
const WAITING_MAX: usize = 1 << 20;
/// The same of all connections.
const ALL_WAITING_MAX: usize = 256 << 20;
/// What a segment that waits takes besides its payload.
const SEGMENT_BYTES: usize = 128;
/// TCP's largest window.
const WINDOW_MAX: u32 = 1 << 30;
/// Segments that may still overtake a missing one that the other end has acknowledged.
const PATIENCE: u32 = 16;

/// From which end connections are seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// As the client's process does.
    Client,
    /// As the server's process does.
    Server,
}

/// The connections of a capture file.
pub struct Flows {
    view: View,
    open: foldhash::HashMap<Key, Flow>,
    connections: u64,
    /// Bytes that segments of all connections hold behind gaps.
    waiting: usize,
    builder: RecordsBuilder,
}

/// Both ends, the smaller address first.
type Key = (SocketAddr, SocketAddr);

struct Flow {
    conn: u64,
    client: SocketAddr,
    late: bool,
    /// Its end was told; what still comes of it is old.
    over: bool,
    last_ns: u64,
    /// From the client, from the server.
    halves: [Half; 2],
}

#[derive(Default)]
struct Half {
    /// Sequence number at `offset`, once one is known.
    sequence: Option<u32>,
    /// Stream offset of the next byte.
    offset: u64,
    /// Segments behind a gap, by stream offset, and the bytes they hold.
    waiting: BTreeMap<u64, Waiting>,
    waiting_bytes: usize,
    /// Segments seen since the other end acknowledged what is missing.
    overtaken: u32,
    fin: Option<u64>,
}

struct Waiting {
    payload: Vec<u8>,
    wire_len: u32,
    time_ns: u64,
}

impl Flows {
    /// None so far.
    #[must_use]
    pub fn new(view: View) -> Self {
        Self {
            view,
            open: foldhash::HashMap::default(),
            connections: 0,
            waiting: 0,
            builder: RecordsBuilder::default(),
        }
    }

    /// Rows of the batch so far.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.builder.rows()
    }

    /// Bytes of the batch so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.builder.copied_bytes()
    }

    /// The rows so far; `None` if there are none.
    pub fn take_batch(&mut self) -> Option<RecordBatch> {
        let next = || RecordsBuilder::with_capacity(self.builder.copied_bytes());
        (self.builder.rows() > 0).then(next).map(|next| std::mem::replace(&mut self.builder, next).finish(None))
    }

    /// Takes a segment.
    pub fn packet(&mut self, time_ns: u64, packet: &Packet<'_>) {
        let key = if packet.from <= packet.to { (packet.from, packet.to) } else { (packet.to, packet.from) };
        let opens = packet.syn && packet.acknowledged.is_none();
        let other =
            |flow: &Flow| (opens && flow.is_other_than(packet)) || (flow.over && (opens || flow.goes_on_with(packet)));
        if self.open.get(&key).is_some_and(other) {
            self.end(key, time_ns);
            self.open.remove(&key);
        }
        if !self.open.contains_key(&key) {
            // Late acknowledgements of what has ended open nothing.
            if !packet.syn && packet.payload.is_empty() {
                return;
            }
            self.open(key, time_ns, packet);
        }
        let Self { open: flows, builder, view, waiting, .. } = self;
        let Some(flow) = flows.get_mut(&key).filter(|flow| !flow.over) else { return };
        flow.last_ns = time_ns;
        let waited = flow.waiting_bytes();
        let half = usize::from(packet.from != flow.client);
        let sink = Sink { conn: flow.conn, late: flow.late, direction: direction_of(*view, half) };
        let other = Sink { direction: 1 - sink.direction, ..sink };
        flow.halves[half].segment(time_ns, packet, sink, builder);
        if let Some(acknowledged) = packet.acknowledged {
            flow.halves[1 - half].acknowledge(acknowledged, other, builder);
        }
        *waiting = *waiting + flow.waiting_bytes() - waited;
        if *waiting > ALL_WAITING_MAX {
            *waiting -= flow.waiting_bytes();
            flow.flush(*view, builder);
        }
        let reset = packet.rst && flow.halves[half].is_near(packet.sequence);
        if reset || flow.halves.iter().all(Half::is_over) {
            self.end(key, time_ns);
        }
    }

    /// The file ends: what still waits comes out, and connections stay open.
    pub fn finish(&mut self, _now_ns: u64) {
        let Self { open: flows, builder, view, .. } = self;
        for flow in flows.values_mut().filter(|flow| !flow.over) {
            flow.flush(*view, builder);
        }
        flows.clear();
    }

    fn open(&mut self, key: Key, time_ns: u64, packet: &Packet<'_>) {
        if self.open.len() >= FLOWS_MAX {
            self.evict(time_ns);
        }
        // Without the handshake the end with the smaller port is taken for the server, and nothing is built on it but
        // the addresses' order.
        let client = match (packet.syn, packet.acknowledged.is_some()) {
            (true, false) => packet.from,
            (true, true) => packet.to,
            _ if packet.from.port() >= packet.to.port() => packet.from,
            _ => packet.to,
        };
        let server = if client == packet.from { packet.to } else { packet.from };
        self.connections += 1;
        let late = !packet.syn;
        let flow =
            Flow { conn: self.connections, client, late, over: false, last_ns: time_ns, halves: Default::default() };
        let (local, remote) = if self.view == View::Client { (client, server) } else { (server, client) };
        let role = match (late, self.view) {
            (true, _) => 0,
            (false, View::Client) => 1,
            (false, View::Server) => 2,
        };
        let ends = Endpoints::new(role, local, remote);
        let mut head = head_of(Kind::Open, flow.conn, time_ns, ends.as_bytes().len());
        head.flags = if late { flag::LATE } else { 0 };
        self.builder.push_copied(&head, ends.as_bytes());
        self.open.insert(key, flow);
    }

    /// Ends the connections that were silent longest.
    fn evict(&mut self, time_ns: u64) {
        let mut silent: Vec<(u64, Key)> = self.open.iter().map(|(key, flow)| (flow.last_ns, *key)).collect();
        silent.select_nth_unstable(EVICTED_AT_ONCE);
        for (_, key) in &silent[..EVICTED_AT_ONCE] {
            self.end(*key, time_ns);
            self.open.remove(key);
        }
    }

    fn end(&mut self, key: Key, time_ns: u64) {
        let Some(flow) = self.open.get_mut(&key).filter(|flow| !flow.over) else { return };
        flow.over = true;
        self.waiting -= flow.waiting_bytes();
        flow.flush(self.view, &mut self.builder);
        let mut totals = [0; 2];
        for (half, streams) in flow.halves.iter().enumerate() {
            totals[usize::from(direction_of(self.view, half))] =
                streams.fin.unwrap_or(streams.offset).max(streams.offset);
        }
        let totals = Totals { socket: totals, tls: [0; 2] };
        let head = head_of(Kind::Close, flow.conn, time_ns, totals.as_bytes().len());
        self.builder.push_copied(&head, totals.as_bytes());
    }
}

fn direction_of(view: View, half: usize) -> u8 {
    u8::from((half == 0) != (view == View::Client))
}

fn head_of(kind: Kind, conn: u64, time_ns: u64, size: usize) -> Record {
    let mut head = Record::new_zeroed();
    (head.kind, head.conn, head.time_ns) = (kind as u8, conn, time_ns);
    head.size = u32::try_from(size).unwrap_or(u32::MAX);
    head
}

/// Where the bytes of a half go.
#[derive(Clone, Copy)]
struct Sink {
    conn: u64,
    late: bool,
    direction: u8,
}

impl Sink {
    fn push(self, time_ns: u64, offset: u64, payload: &[u8], wire_len: u32, builder: &mut RecordsBuilder) {
        let mut head = head_of(Kind::Payload, self.conn, time_ns, payload.len());
        (head.offset, head.len, head.direction) = (offset, wire_len, self.direction);
        let short = (payload.len() as u64) < u64::from(wire_len);
        head.flags = if self.late { flag::LATE } else { 0 } | if short { flag::UNCAPTURED } else { 0 };
        builder.push_copied(&head, payload);
    }
}

impl Flow {
    /// Whether a SYN begins another connection between the same ends: its sequence is not the one we follow.
    fn is_other_than(&self, packet: &Packet<'_>) -> bool {
        let half = &self.halves[usize::from(packet.from != self.client)];
        half.sequence.is_some_and(|sequence| half.offset > 0 || sequence != packet.sequence.wrapping_add(1))
    }

    /// Whether a segment behind the end has something new: the ports are used again, and the capture lacks the beginning.
    fn goes_on_with(&self, packet: &Packet<'_>) -> bool {
        let half = &self.halves[usize::from(packet.from != self.client)];
        let end = packet.sequence.wrapping_add(packet.wire_len);
        !packet.payload.is_empty()
            && half
                .sequence
                .is_none_or(|sequence| end.wrapping_sub(sequence).cast_signed() > 0 || !half.is_near(packet.sequence))
    }

    fn waiting_bytes(&self) -> usize {
        self.halves.iter().map(|half| half.waiting_bytes).sum()
    }

    fn flush(&mut self, view: View, builder: &mut RecordsBuilder) {
        for (half, streams) in self.halves.iter_mut().enumerate() {
            let sink = Sink { conn: self.conn, late: self.late, direction: direction_of(view, half) };
            while streams.skip_gap(sink, builder) {
                streams.drain(sink, builder);
            }
        }
    }
}

impl Half {
    fn segment(&mut self, time_ns: u64, packet: &Packet<'_>, sink: Sink, builder: &mut RecordsBuilder) {
        let first = if packet.syn { packet.sequence.wrapping_add(1) } else { packet.sequence };
        let sequence = *self.sequence.get_or_insert(first);
        // Where the segment lies from the next byte: before it, there, or behind a gap.
        let distance = i64::from(first.wrapping_sub(sequence).cast_signed());
        if packet.wire_len > 0 {
            self.payload(time_ns, distance, packet, sink, builder);
        }
        if packet.fin {
            let end = self.at(distance, sequence).saturating_add(u64::from(packet.wire_len));
            self.fin.get_or_insert(end);
        }
    }

    /// The stream offset so far from the byte that was next when `sequence` was.
    fn at(&self, distance: i64, sequence: u32) -> u64 {
        let moved = self.sequence.map_or(0, |now| u64::from(now.wrapping_sub(sequence)));
        (self.offset - moved).saturating_add_signed(distance)
    }

    fn payload(&mut self, time_ns: u64, distance: i64, packet: &Packet<'_>, sink: Sink, builder: &mut RecordsBuilder) {
        if distance > 0 {
            let at = self.offset.saturating_add_signed(distance);
            let waiting = Waiting { payload: packet.payload.to_vec(), wire_len: packet.wire_len, time_ns };
            // Of two that begin alike the longer one stays.
            if self.waiting.get(&at).is_none_or(|old| old.wire_len < packet.wire_len) {
                self.waiting_bytes += waiting.payload.len() + SEGMENT_BYTES;
                if let Some(old) = self.waiting.insert(at, waiting) {
                    self.waiting_bytes -= old.payload.len() + SEGMENT_BYTES;
                }
            }
            if self.waiting_bytes > WAITING_MAX {
                self.skip_gap(sink, builder);
                self.drain(sink, builder);
            }
            return;
        }
        self.take(time_ns, distance.unsigned_abs(), packet.payload, packet.wire_len, sink, builder);
        self.drain(sink, builder);
    }

    /// Takes a segment that begins `seen` bytes before the next byte.
    fn take(
        &mut self,
        time_ns: u64,
        seen: u64,
        payload: &[u8],
        wire_len: u32,
        sink: Sink,
        builder: &mut RecordsBuilder,
    ) {
        let Some(fresh) = u64::from(wire_len).checked_sub(seen).filter(|fresh| *fresh > 0) else { return };
        let payload = usize::try_from(seen).ok().and_then(|seen| payload.get(seen..)).unwrap_or_default();
        let fresh = u32::try_from(fresh).unwrap_or(u32::MAX);
        sink.push(time_ns, self.offset, payload, fresh, builder);
        self.offset += u64::from(fresh);
        self.sequence = self.sequence.map(|sequence| sequence.wrapping_add(fresh));
        self.overtaken = 0;
    }

    /// Takes what waited and has its turn now.
    fn drain(&mut self, sink: Sink, builder: &mut RecordsBuilder) {
        while let Some(entry) = self.waiting.first_entry().filter(|entry| *entry.key() <= self.offset) {
            let (at, segment) = entry.remove_entry();
            self.waiting_bytes -= segment.payload.len() + SEGMENT_BYTES;
            self.take(segment.time_ns, self.offset - at, &segment.payload, segment.wire_len, sink, builder);
        }
    }

    /// The other end has all up to here: what is missing before it is not late but lost, once some have overtaken it.
    fn acknowledge(&mut self, acknowledged: u32, sink: Sink, builder: &mut RecordsBuilder) {
        let (Some(sequence), Some((at, _))) = (self.sequence, self.waiting.first_key_value()) else { return };
        let has = i64::from(acknowledged.wrapping_sub(sequence).cast_signed());
        if has <= 0 || self.offset.saturating_add_signed(has) < *at {
            return;
        }
        self.overtaken += 1;
        if self.overtaken > PATIENCE && self.skip_gap(sink, builder) {
            self.drain(sink, builder);
        }
    }

    /// Goes on behind the gap; false if nothing waits there.
    fn skip_gap(&mut self, sink: Sink, builder: &mut RecordsBuilder) -> bool {
        let Some((at, next)) = self.waiting.first_key_value() else { return false };
        let gap = u32::try_from(at.saturating_sub(self.offset)).expect("half of the sequence numbers at most");
        if gap > 0 {
            sink.push(next.time_ns, self.offset, &[], gap, builder);
        }
        self.offset += u64::from(gap);
        self.sequence = self.sequence.map(|sequence| sequence.wrapping_add(gap));
        self.overtaken = 0;
        true
    }

    /// Whether a sequence number is one that this half can have had lately, or have soon.
    fn is_near(&self, sequence: u32) -> bool {
        self.sequence.is_none_or(|next| next.wrapping_sub(sequence).cast_signed().unsigned_abs() <= WINDOW_MAX)
    }

    fn is_over(&self) -> bool {
        self.fin.is_some_and(|fin| self.offset >= fin)
    }
}

#[cfg(test)]
mod tests;
