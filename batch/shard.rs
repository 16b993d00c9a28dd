//! A shard: raw records in, transactions and connection reports out.

use std::sync::Arc;

use arrow_array::RecordBatch;
use ringtap_exchange::{Cause, Cut, Direction, Exchange, Limits, Observer, Part, Role, dns::Answer};
use ringtap_ring::{
    abi::{Endpoints, Kind, Library, Stream, Totals, flag, shard_of, unix_path},
    records::{Records, Row},
};

use crate::{
    blind::Spot,
    budget::{Budgets, Memory},
    clock::WallOffset,
    coding::{Plain, plain},
    connections::{Connection, Socket},
    events::{ConnectionReport, EventsBuilder},
    fields::Stage,
    ids::Ids,
    interest::{self, Interest},
    ledger::Ledger,
    names::Names,
    process::Processes,
    row::NewRow,
    transactions::{Phase, TransactionsBuilder},
};

/// Connections of one shard at most; beyond, the ones that were silent longest go.
const CONNECTIONS_MAX: usize = 131_072;
/// What a connection takes besides what its exchanges keep.
const CONNECTION_BYTES: usize = 2048;
/// How often all connections are looked at.
const TICK_NS: u64 = 100_000_000;
/// Of all connections so many are reported at one look at most: one in this many, but not fewer than the second number.
const REPORTED_SHARE: usize = 64;
const REPORTED_MIN: usize = 256;
/// How many go at a time at most, so that finding them is paid for seldom.
const EVICTED_AT_ONCE: usize = 1024;
/// Bytes that are worth telling the kernel not to copy: fewer are mostly in the ring already.
const SKIP_MIN: u64 = 64 << 10;

/// What shards share, and are told at the start.
pub struct Context {
    /// Looks processes up.
    pub processes: Arc<dyn Processes>,
    /// Names of addresses, as name servers have answered them.
    pub names: Arc<Names>,
    /// Makes identifiers.
    pub ids: Arc<Ids>,
    /// Counts.
    pub ledger: Arc<Ledger>,
    /// Bits of [`ringtap_ring::abi::wanted`].
    pub wanted: u32,
    /// What may be kept.
    pub budgets: Budgets,
    /// What all shards keep.
    pub memory: Arc<Memory>,
    /// Who wants bodies.
    pub interest: Arc<dyn Interest>,
    /// Name of this host, for reports.
    pub hostname: String,
    /// `key:value` tags of everything.
    pub tags: Vec<String>,
    /// Whether connections are reported as events.
    pub report_connections: bool,
}

/// What came of some records.
#[derive(Debug, Default)]
pub struct Output {
    /// A transactions batch.
    pub transactions: Option<RecordBatch>,
    /// A batch of `connection` events.
    pub connections: Option<RecordBatch>,
    /// Streams of which nothing more is wanted, up to this offset.
    pub skip: Vec<(Stream, u64)>,
    /// Streams that have ended, of which something was skipped: what was said of them can be forgotten.
    pub ended: Vec<Stream>,
}

/// The connection table of one shard.
pub struct Shard {
    context: Arc<Context>,
    /// Which of how many shards it is: the rows of other shards' connections are passed over.
    place: (u32, u32),
    limits: Limits,
    connections: Connections,
    /// Connections that TCP has closed, and whose last bytes may still come.
    closing: Vec<u64>,
    ticked_ns: u64,
    /// Bytes that the connections keep, and how many of them the agent's memory knows of.
    kept: usize,
    reported: usize,
    exchanges: Vec<Exchange>,
    transactions: TransactionsBuilder,
    reports: EventsBuilder,
    skip: Vec<(Stream, u64)>,
    ended: Vec<Stream>,
    wall: WallOffset,
}

type Connections = std::collections::HashMap<u64, Connection, foldhash::fast::FixedState>;

impl Shard {
    /// An empty shard that takes all records it is given.
    #[must_use]
    pub fn new(context: Arc<Context>) -> Self {
        Self::one_of(context, 0, 1)
    }

    /// An empty shard that takes only the records whose connections are its own, of so many shards.
    #[must_use]
    pub fn one_of(context: Arc<Context>, index: u32, shards: u32) -> Self {
        let limits = limits_of(&context);
        Self {
            context,
            place: (index, shards),
            limits,
            connections: Connections::default(),
            closing: Vec::new(),
            ticked_ns: 0,
            kept: 0,
            reported: 0,
            exchanges: Vec::new(),
            transactions: TransactionsBuilder::default(),
            reports: EventsBuilder::new(&ConnectionReport::SCHEMA),
            skip: Vec::new(),
            ended: Vec::new(),
            wall: WallOffset::default(),
        }
    }

    /// Goes on with what another configuration says; what is under way stays.
    pub fn reconfigure(&mut self, context: Arc<Context>) {
        self.limits = limits_of(&context);
        self.context = context;
    }

    /// Connections that are known.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Bytes that are kept of them.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        self.kept
    }

    /// Takes a raw records batch, if there is one, and the time; hands out what is complete.
    pub fn process(&mut self, batch: Option<&RecordBatch>, now_ns: u64, wall: WallOffset) -> Output {
        self.wall = wall;
        let (mut records, mut bytes) = (0, 0);
        let (index, shards) = self.place;
        for row in batch.and_then(Records::of).into_iter().flat_map(Records::rows) {
            if shards > 1 && shard_of(row.conn, shards) != index {
                continue;
            }
            records += 1;
            if row.kind == Some(Kind::Payload) {
                bytes += row.payload.len() as u64;
            }
            self.record(&row);
        }
        self.context.ledger.records_read.add(records);
        self.context.ledger.bytes_read.add(bytes);
        self.tick(now_ns);
        self.keep_to_budget(now_ns);
        self.take_output()
    }

    /// Ends all connections: the agent stops.
    pub fn finish(&mut self, now_ns: u64, wall: WallOffset) -> Output {
        self.wall = wall;
        let ids: Vec<u64> = self.connections.keys().copied().collect();
        for id in ids {
            self.end(id, now_ns);
        }
        self.report_memory();
        self.take_output()
    }

    /// Ends a connection whose close record was lost, after so many bytes.
    pub fn close(&mut self, conn: u64, time_ns: u64, totals: Totals) {
        if let Some(connection) = self.connections.get_mut(&conn)
            && connection.closed.is_none()
        {
            connection.closed = Some((time_ns, totals));
            self.closing.push(conn);
        }
    }

    /// The connection has ended, and the programs have left it out from some moment on.
    fn leave_out(&mut self, row: &Row<'_>, totals: Totals) {
        if let Some(connection) = self.connections.get_mut(&row.conn) {
            connection.left_out = true;
        }
        self.close(row.conn, row.time_ns, totals);
    }

    fn take_output(&mut self) -> Output {
        let transactions = (self.transactions.rows() > 0).then(|| std::mem::take(&mut self.transactions).finish());
        let reports = (self.reports.rows() > 0)
            .then(|| std::mem::replace(&mut self.reports, EventsBuilder::new(&ConnectionReport::SCHEMA)).finish());
        Output {
            transactions,
            connections: reports,
            skip: std::mem::take(&mut self.skip),
            ended: std::mem::take(&mut self.ended),
        }
    }

    fn record(&mut self, row: &Row<'_>) {
        match row.kind {
            Some(Kind::Payload) if row.flags & flag::DATAGRAM != 0 => self.datagram(row),
            Some(Kind::Payload) => self.payload(row),
            Some(Kind::Open) => match Endpoints::read(row.payload) {
                Some(ends) => self.open(row, ends),
                None => self.context.ledger.records_malformed.add(1),
            },
            Some(Kind::Close) => match Totals::read(row.payload) {
                Some(totals) if row.flags & flag::GOVERNED != 0 => self.leave_out(row, totals),
                Some(totals) => self.close(row.conn, row.time_ns, totals),
                None => self.context.ledger.records_malformed.add(1),
            },
            // Whoever replays a recording has read these.
            Some(Kind::Process | Kind::Clock) => {}
            _ => self.context.ledger.records_malformed.add(1),
        }
    }

    /// Makes room in a full table for the record's connection, if that is new to us.
    fn make_room(&mut self, row: &Row<'_>) {
        if self.connections.len() >= CONNECTIONS_MAX && !self.connections.contains_key(&row.conn) {
            self.evict(row.time_ns);
        }
    }

    fn open(&mut self, row: &Row<'_>, ends: Endpoints) {
        self.make_room(row);
        let connection = connection_of(&mut self.connections, &self.context, row, self.wall, &mut self.kept);
        connection.open(ends, row.flags & flag::LATE != 0);
        connection.datagrams = row.flags & flag::DATAGRAM != 0;
        connection.path = unix_path(row.payload);
        connection.answered = connection.remote().and_then(|ip| self.context.names.of(ip, row.time_ns));
        connection.last_ns = row.time_ns;
    }

    /// A look-up, or its answer. Of the socket nothing is known unless it was announced, which is so where it is wanted.
    fn datagram(&mut self, row: &Row<'_>) {
        let sent = row.direction == 0;
        if let Some(answer) = Answer::read(row.payload).filter(|_| !sent) {
            self.context.names.learn(&answer, row.time_ns);
        }
        if let Some(connection) = self.connections.get_mut(&row.conn) {
            connection.last_ns = row.time_ns;
            connection.bytes[usize::from(row.direction & 1)] += u64::from(row.len);
        }
    }

    fn payload(&mut self, row: &Row<'_>) {
        let (limits, late) = (self.limits, row.flags & flag::LATE != 0);
        let over_budget = self.is_over_budget();
        self.make_room(row);
        let Self { context, connections, exchanges, transactions, kept: all_kept, wall, .. } = self;
        let wall = *wall;
        let connection = connection_of(connections, context, row, wall, all_kept);
        connection.last_ns = row.time_ns;
        if row.flags & flag::UNATTRIBUTED != 0 {
            connection.socket = Socket::Unknown;
            // Those of a socket that was inferred until there was doubt.
            connection.ends = None;
        } else if row.flags & flag::INFERRED != 0 {
            connection.socket = if row.flags & flag::VERIFIED != 0 { Socket::Verified } else { Socket::Inferred };
        }
        let (direction, layer) = (direction_of(row), usize::from(row.layer.min(1)));
        if layer == 1 {
            connection.library = Library::of_flags(row.flags);
        }
        let moved = &mut connection.bytes[usize::from(row.direction & 1)];
        *moved = moved.saturating_add(u64::from(row.len));
        let mut streams = connection.take_streams(layer, limits, late);
        streams.set_over_budget(over_budget);
        let (was_opaque, orphans, kept) = (streams.is_opaque(), streams.orphans(), streams.kept_bytes());
        let mut watch = Watch { context, connection, tls: layer == 1, wall, exchanges, transactions };
        streams.data(direction, row.offset, row.payload, row.time_ns, &mut watch);
        let short = u64::from(row.len).saturating_sub(row.payload.len() as u64);
        if short > 0 {
            streams.missing(direction, short, cause_of(row.flags), row.time_ns, &mut watch);
        }
        let (opaque, orphans) = (streams.is_opaque(), streams.orphans() - orphans);
        let kept_now = streams.kept_bytes();
        let skip = skip_of(row, streams.next_offset(direction), streams.unwanted_until(direction), connection);
        connection.layers[layer] = Some(streams);
        *all_kept = *all_kept + kept_now - kept;
        self.skip.extend(skip);
        if orphans > 0 {
            self.context.ledger.orphan_responses.add(orphans);
        }
        if opaque && !was_opaque {
            self.give_up(row.conn, row.layer);
        }
        if !self.exchanges.is_empty() {
            let mut exchanges = std::mem::take(&mut self.exchanges);
            self.push_all(row.conn, layer, &mut exchanges);
            self.exchanges = exchanges;
        }
    }

    /// Nothing of this layer is of interest any more: its payload stays in the kernel.
    fn give_up(&mut self, conn: u64, layer: u8) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        if !connection.is_http() && connection.host.is_none() && connection.tls().is_none() && !connection.is_dns() {
            self.context.ledger.connections_not_http.add(1);
        }
        for direction in [0u8, 1] {
            connection.skips[usize::from(layer.min(1))][usize::from(direction)] = u64::MAX;
            let stream = Stream { conn, layer: u32::from(layer), direction: u32::from(direction) };
            self.skip.push((stream, u64::MAX));
        }
    }

    /// Ends what is over; now and then looks at all connections.
    fn tick(&mut self, now_ns: u64) {
        let mut over: Vec<u64> = Vec::new();
        let connections = &self.connections;
        self.closing.retain(|id| match connections.get(id) {
            Some(connection) if !connection.is_over(now_ns) => true,
            _ => {
                over.push(*id);
                false
            }
        });
        if now_ns.saturating_sub(self.ticked_ns) > TICK_NS {
            self.ticked_ns = now_ns;
            self.look_at_all(now_ns, &mut over);
        }
        for id in over {
            self.end(id, now_ns);
        }
    }

    /// Reports what is due, and finds what ended without a word.
    fn look_at_all(&mut self, now_ns: u64, over: &mut Vec<u64>) {
        let report = self.context.report_connections;
        // Crowds that came at once are not reported at once: the rest is due at the next look.
        let mut room = (self.connections.len() / REPORTED_SHARE).max(REPORTED_MIN);
        for (id, connection) in &mut self.connections {
            if connection.is_over(now_ns) {
                over.push(*id);
            } else if report
                && room > 0
                && connection.closed.is_none()
                && let Some(part) = connection.report_due(now_ns)
                && connection.is_wanted(self.context.wanted)
            {
                room -= 1;
                let report = report_of(&self.context, connection, part, false, self.wall);
                self.reports.push(&report.cells());
            }
        }
    }

    fn end(&mut self, id: u64, now_ns: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        self.kept -= connection.kept_bytes() + CONNECTION_BYTES;
        let layers = connection.finish(now_ns);
        for (layer, mut exchanges) in layers.into_iter().enumerate() {
            self.push_all(id, layer, &mut exchanges);
        }
        let Some(connection) = self.connections.remove(&id) else { return };
        if self.context.report_connections && connection.is_wanted(self.context.wanted) {
            let report = report_of(&self.context, &connection, connection.parts, true, self.wall);
            self.reports.push(&report.cells());
        }
        if connection.is_unreadable() && connection.is_wanted(self.context.wanted) {
            let exe = connection.process.as_deref().map_or("", |process| process.exe.as_str());
            let moved = connection.closed.map_or(connection.bytes, |(_, totals)| totals.socket);
            self.context.ledger.blind.add(Spot::Tls, exe, 1, moved[0].saturating_add(moved[1]));
        }
        self.ended.extend(connection.skipped_streams(id));
    }

    /// Bodies are cut a little before the budget is used up: heads and new connections still come.
    fn is_over_budget(&self) -> bool {
        let (budgets, memory) = (&self.context.budgets, &self.context.memory);
        self.kept > budgets.shard - budgets.shard / 8 || memory.kept() > memory.budget() - memory.budget() / 8
    }

    fn keep_to_budget(&mut self, now_ns: u64) {
        while self.kept > self.context.budgets.shard && !self.connections.is_empty() {
            self.evict(now_ns);
        }
        self.report_memory();
        if self.context.memory.kept() > self.context.memory.budget() && !self.connections.is_empty() {
            self.evict(now_ns);
            self.report_memory();
        }
    }

    fn report_memory(&mut self) {
        self.context.memory.changed(self.reported, self.kept);
        self.reported = self.kept;
    }

    /// Drops the connections that were silent longest.
    fn evict(&mut self, now_ns: u64) {
        let mut silent: Vec<(u64, u64)> = self.connections.iter().map(|(id, c)| (c.last_ns, *id)).collect();
        let evicted = EVICTED_AT_ONCE.min(silent.len().div_ceil(8));
        silent.select_nth_unstable(evicted - 1);
        for (_, id) in &silent[..evicted] {
            self.end(*id, now_ns);
        }
        self.context.ledger.connections_evicted.add(evicted as u64);
    }

    fn push_all(&mut self, conn: u64, layer: usize, exchanges: &mut Vec<Exchange>) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        if exchanges.is_empty() {
            return;
        }
        if connection.process.is_none() {
            // Its exec may have been told meanwhile.
            connection.process = self.context.processes.get(connection.tgid);
        }
        let (seen, mut filtered, mut damaged) = (exchanges.len() as u64, 0, 0);
        for mut exchange in exchanges.drain(..) {
            let tls = layer == 1;
            connection.note_host(&exchange);
            if !connection.is_wanted(self.context.wanted) {
                filtered += 1;
                continue;
            }
            damaged += u64::from(!exchange.damage.is_empty());
            let limit = self.context.budgets.body;
            let response = exchange.response.as_mut().map(|r| plain(&r.head, &mut r.body, limit));
            let request = &mut exchange.request;
            let bodies = [plain(&request.head, &mut request.body, limit), response.unwrap_or_default()];
            let phase = if exchange.reported.is_some() { Phase::Ended } else { Phase::Complete };
            let start = self.wall.wall_ns(exchange.times.request_start);
            let request_id = exchange.reported.take().unwrap_or_else(|| self.context.ids.next(start));
            let Context { hostname, tags, .. } = &*self.context;
            NewRow { connection, exchange: &exchange, tls, wall: self.wall, host: hostname, tags, request_id, phase }
                .push(&mut self.transactions, bodies);
        }
        let ledger = &self.context.ledger;
        ledger.exchanges_seen.add(seen);
        ledger.exchanges_delivered.add(seen - filtered);
        ledger.exchanges_filtered.add(filtered);
        ledger.exchanges_damaged.add(damaged);
    }
}

fn limits_of(context: &Context) -> Limits {
    Limits {
        body: context.budgets.body,
        connection: context.budgets.connection,
        bodies: context.interest.wants_bodies(),
        ..Limits::default()
    }
}

/// The record's connection; one that is new to us is made, with its process.
fn connection_of<'a>(
    connections: &'a mut Connections,
    context: &Context,
    row: &Row<'_>,
    wall: WallOffset,
    kept: &mut usize,
) -> &'a mut Connection {
    connections.entry(row.conn).or_insert_with(|| {
        *kept += CONNECTION_BYTES;
        let mut connection = Connection::new(context.ids.next(wall.wall_ns(row.time_ns)), row.tgid, row.time_ns);
        connection.process = context.processes.get(row.tgid);
        connection
    })
}

/// Takes what comes of a connection, and asks the plugins about large bodies.
struct Watch<'a> {
    context: &'a Context,
    connection: &'a mut Connection,
    tls: bool,
    wall: WallOffset,
    exchanges: &'a mut Vec<Exchange>,
    transactions: &'a mut TransactionsBuilder,
}

impl Watch<'_> {
    /// Adds the row of an exchange that is under way.
    fn push(&mut self, exchange: &Exchange, request_id: String, phase: Phase, to: &mut TransactionsBuilder) {
        let Self { context: Context { hostname: host, tags, .. }, connection, tls, wall, .. } = self;
        let (tls, wall) = (*tls, *wall);
        NewRow { connection, exchange, tls, wall, host, tags, request_id, phase }.push(to, <[Plain; 2]>::default());
    }
}

impl Observer for Watch<'_> {
    fn complete(&mut self, exchange: Exchange) {
        self.exchanges.push(exchange);
    }

    fn started(&mut self, exchange: &mut Exchange) {
        if self.connection.process.is_none() {
            self.connection.process = self.context.processes.get(self.connection.tgid);
        }
        self.connection.note_host(exchange);
        if !self.connection.is_wanted(self.context.wanted) {
            return;
        }
        let request_id = self.context.ids.next(self.wall.wall_ns(exchange.times.request_start));
        exchange.reported = Some(request_id.clone());
        let mut rows = std::mem::take(self.transactions);
        self.push(exchange, request_id, Phase::Started, &mut rows);
        *self.transactions = rows;
    }

    fn answered(&mut self, answer: Answer) {
        self.context.names.learn(&answer, self.connection.last_ns);
    }

    fn refuses_body(&mut self, exchange: &Exchange, _part: Part) -> Option<Cut> {
        if self.context.processes.spares_bodies(self.connection.tgid) {
            return Some(Cut::Governor);
        }
        // Whose request it is decides on many fields.
        self.connection.role?;
        self.connection.note_host(exchange);
        let mut row = TransactionsBuilder::default();
        self.push(exchange, String::new(), Phase::Complete, &mut row);
        let stage = if exchange.response.is_some() { Stage::Response } else { Stage::Request };
        let wanted = interest::ask(self.context.interest.as_ref(), &row.finish(), stage);
        (!wanted).then_some(Cut::Unwanted)
    }
}

/// What to tell the kernel of a stream, if it is worth it and not told yet.
fn skip_of(row: &Row<'_>, next: u64, until: Option<u64>, connection: &mut Connection) -> Option<(Stream, u64)> {
    let until = until.filter(|until| *until >= next.saturating_add(SKIP_MIN))?;
    let told = &mut connection.skips[usize::from(row.layer.min(1))][usize::from(row.direction & 1)];
    if *told >= until {
        return None;
    }
    *told = until;
    let stream = Stream { conn: row.conn, layer: u32::from(row.layer), direction: u32::from(row.direction) };
    Some((stream, until))
}

fn direction_of(row: &Row<'_>) -> Direction {
    if row.direction == 0 { Direction::Sent } else { Direction::Received }
}

fn cause_of(flags: u32) -> Cause {
    match flags {
        f if f & flag::SENDFILE != 0 => Cause::Sendfile,
        f if f & flag::SPLICED != 0 => Cause::Splice,
        f if f & flag::DISCARDED != 0 => Cause::Discarded,
        f if f & flag::REDACTED != 0 => Cause::Redacted,
        f if f & flag::FAULT != 0 => Cause::Fault,
        _ => Cause::Unseen,
    }
}

fn report_of<'a>(
    context: &'a Context,
    connection: &'a Connection,
    part: i64,
    finalized: bool,
    wall: WallOffset,
) -> ConnectionReport<'a> {
    ConnectionReport {
        connection_id: &connection.xid,
        endpoint_id: connection.endpoint_id(),
        part,
        finalized,
        direction: connection.direction(),
        l7_protocol: connection.l7_protocol(),
        library: connection.library,
        tls_version: connection.tls().and_then(|hello| hello.version),
        hostname: &context.hostname,
        tags: {
            let mut tags = connection.tags(&connection.endpoint_id(), connection.l7_protocol());
            tags.extend(context.tags.iter().cloned());
            tags.extend(connection.process.iter().flat_map(|p| p.tags.iter().cloned()));
            tags
        },
        datagrams: connection.datagrams,
        ends: connection.addresses().copied(),
        unix: connection.is_unix().then(|| connection.unix_address().unwrap_or_default()),
        server: connection.role() == Some(Role::Server),
        process: connection.process.as_deref(),
        tgid: connection.tgid,
        bytes: connection.closed.map_or(connection.bytes, |(_, totals)| totals.socket),
        created_ns: wall.wall_ns(connection.opened_ns),
        closed_ns: finalized.then(|| wall.wall_ns(connection.closed.map_or(connection.last_ns, |(at, _)| at))),
    }
}

#[cfg(test)]
mod tests;
