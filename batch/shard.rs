//! A shard: raw records in, transactions and connection reports out.

use std::{collections::HashMap, sync::Arc};

use arrow_array::RecordBatch;
use ringtap_exchange::{Cause, Direction, Exchange, Limits, Role};
use ringtap_ring::{
    abi::{Endpoints, Kind, Stream, Totals, flag},
    records::{Records, Row},
};

use crate::{
    clock::WallOffset,
    connections::{Connection, Socket},
    events::{ConnectionReport, EventsBuilder},
    ids::Ids,
    ledger::Ledger,
    process::Processes,
    transactions::{TransactionsBuilder, cut},
};

/// Connections of one shard at most; beyond, the ones that were silent longest go.
const CONNECTIONS_MAX: usize = 131_072;
/// Bytes of bodies that the open exchanges of one shard keep at most; beyond, bodies are cut, and say so.
const KEPT_BYTES_MAX: usize = 512 << 20;
/// How often all connections are looked at.
const TICK_NS: u64 = 100_000_000;
/// How many go at a time, so that finding them is paid for seldom.
const EVICTED_AT_ONCE: usize = 1024;

/// What shards share, and are told at the start.
pub struct Context {
    /// Looks processes up.
    pub processes: Arc<dyn Processes>,
    /// Makes identifiers.
    pub ids: Arc<Ids>,
    /// Counts.
    pub ledger: Arc<Ledger>,
    /// Bits of [`ringtap_ring::abi::wanted`].
    pub wanted: u32,
    /// What is kept of a connection.
    pub limits: Limits,
    /// Name of this host, for reports.
    pub hostname: String,
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
    /// Streams that have ended: what was said of them can be forgotten.
    pub ended: Vec<Stream>,
}

/// The connection table of one shard.
pub struct Shard {
    context: Arc<Context>,
    connections: HashMap<u64, Connection>,
    /// Connections that TCP has closed, and whose last bytes may still come.
    closing: Vec<u64>,
    ticked_ns: u64,
    kept_bytes: usize,
    exchanges: Vec<Exchange>,
    transactions: TransactionsBuilder,
    reports: EventsBuilder,
    skip: Vec<(Stream, u64)>,
    ended: Vec<Stream>,
    wall: WallOffset,
}

impl Shard {
    /// An empty shard.
    #[must_use]
    pub fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            connections: HashMap::new(),
            closing: Vec::new(),
            ticked_ns: 0,
            kept_bytes: 0,
            exchanges: Vec::new(),
            transactions: TransactionsBuilder::default(),
            reports: EventsBuilder::new(&ConnectionReport::SCHEMA),
            skip: Vec::new(),
            ended: Vec::new(),
            wall: WallOffset::default(),
        }
    }

    /// Connections that are known.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Takes a raw records batch, if there is one, and the time; hands out what is complete.
    pub fn process(&mut self, batch: Option<&RecordBatch>, now_ns: u64, wall: WallOffset) -> Output {
        self.wall = wall;
        for row in batch.and_then(Records::of).into_iter().flat_map(Records::rows) {
            self.context.ledger.records_read.add(1);
            self.record(&row);
        }
        self.tick(now_ns);
        self.take_output()
    }

    /// Ends all connections: the agent stops.
    pub fn finish(&mut self, now_ns: u64, wall: WallOffset) -> Output {
        self.wall = wall;
        let ids: Vec<u64> = self.connections.keys().copied().collect();
        for id in ids {
            self.end(id, now_ns);
        }
        self.take_output()
    }

    fn take_output(&mut self) -> Output {
        let transactions = std::mem::take(&mut self.transactions);
        let reports = std::mem::replace(&mut self.reports, EventsBuilder::new(&ConnectionReport::SCHEMA));
        Output {
            transactions: (transactions.rows() > 0).then(|| transactions.finish()),
            connections: (reports.rows() > 0).then(|| reports.finish()),
            skip: std::mem::take(&mut self.skip),
            ended: std::mem::take(&mut self.ended),
        }
    }

    fn record(&mut self, row: &Row<'_>) {
        match row.kind {
            Some(Kind::Payload) => self.payload(row),
            Some(Kind::Open) => match Endpoints::read(row.payload) {
                Some(ends) => self.connection(row).open(ends, row.flags & flag::LATE != 0),
                None => self.context.ledger.records_malformed.add(1),
            },
            Some(Kind::Close) => match (self.connections.get_mut(&row.conn), Totals::read(row.payload)) {
                (Some(connection), Some(totals)) => {
                    connection.closed = Some((row.time_ns, totals));
                    self.closing.push(row.conn);
                }
                (None, Some(_)) => {}
                (_, None) => self.context.ledger.records_malformed.add(1),
            },
            _ => self.context.ledger.records_malformed.add(1),
        }
    }

    /// The record's connection; one that is new to us is made, with its process.
    fn connection(&mut self, row: &Row<'_>) -> &mut Connection {
        if !self.connections.contains_key(&row.conn) && self.connections.len() >= CONNECTIONS_MAX {
            self.evict(row.time_ns);
        }
        let context = &self.context;
        let wall = self.wall;
        self.connections.entry(row.conn).or_insert_with(|| {
            let mut connection = Connection::new(context.ids.next(wall.wall_ns(row.time_ns)), row.tgid, row.time_ns);
            connection.process = context.processes.get(row.tgid);
            connection
        })
    }

    fn payload(&mut self, row: &Row<'_>) {
        self.context.ledger.bytes_read.add(row.payload.len() as u64);
        let (mut limits, late) = (self.context.limits, row.flags & flag::LATE != 0);
        if self.kept_bytes > KEPT_BYTES_MAX {
            limits.body = 0;
        }
        let mut exchanges = std::mem::take(&mut self.exchanges);
        let connection = self.connection(row);
        connection.last_ns = row.time_ns;
        if row.flags & flag::UNATTRIBUTED != 0 {
            connection.socket = Socket::Unknown;
        } else if row.flags & flag::INFERRED != 0 {
            connection.socket = Socket::Inferred;
        }
        let (direction, layer) = (direction_of(row), usize::from(row.layer.min(1)));
        connection.bytes[usize::from(row.direction & 1)] += u64::from(row.len);
        let streams = connection.streams(layer, limits, late);
        streams.set_body_limit(limits.body);
        let (was_opaque, orphans, kept) = (streams.is_opaque(), streams.orphans(), streams.kept_bytes());
        streams.data(direction, row.offset, row.payload, row.time_ns, &mut exchanges);
        let short = u64::from(row.len).saturating_sub(row.payload.len() as u64);
        if short > 0 {
            streams.missing(direction, short, cause_of(row.flags), row.time_ns, &mut exchanges);
        }
        let (opaque, orphans) = (streams.is_opaque(), streams.orphans() - orphans);
        let kept_now = streams.kept_bytes();
        self.kept_bytes = self.kept_bytes.saturating_sub(kept) + kept_now;
        if orphans > 0 {
            self.context.ledger.orphan_responses.add(orphans);
        }
        if opaque && !was_opaque {
            self.give_up(row.conn, row.layer);
        }
        self.push_all(row.conn, layer, &mut exchanges);
        self.exchanges = exchanges;
    }

    /// Nothing of this layer is of interest any more: its payload stays in the kernel.
    fn give_up(&mut self, conn: u64, layer: u8) {
        if self.connections.get(&conn).is_some_and(|c| !c.is_http() && c.host.is_none()) {
            self.context.ledger.connections_not_http1.add(1);
        }
        let stream = |direction| Stream { conn, layer: u32::from(layer), direction };
        self.skip.extend([0, 1].map(|direction| (stream(direction), u64::MAX)));
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
        for (id, connection) in &mut self.connections {
            if connection.is_over(now_ns) {
                over.push(*id);
            } else if report
                && connection.closed.is_none()
                && let Some(part) = connection.report_due(now_ns)
                && connection.is_wanted(self.context.wanted)
            {
                let report = report_of(&self.context, connection, part, false, self.wall);
                self.reports.push(&report.cells());
            }
        }
    }

    fn end(&mut self, id: u64, now_ns: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        self.kept_bytes = self.kept_bytes.saturating_sub(connection.kept_bytes());
        let layers = connection.finish(now_ns);
        for (layer, mut exchanges) in layers.into_iter().enumerate() {
            self.push_all(id, layer, &mut exchanges);
        }
        let Some(connection) = self.connections.remove(&id) else { return };
        if self.context.report_connections && connection.is_wanted(self.context.wanted) {
            let report = report_of(&self.context, &connection, connection.parts, true, self.wall);
            self.reports.push(&report.cells());
        }
        for (layer, direction) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            self.ended.push(Stream { conn: id, layer, direction });
        }
    }

    /// Drops the connections that were silent longest.
    fn evict(&mut self, now_ns: u64) {
        let mut silent: Vec<(u64, u64)> = self.connections.iter().map(|(id, c)| (c.last_ns, *id)).collect();
        silent.select_nth_unstable(EVICTED_AT_ONCE);
        for (_, id) in &silent[..EVICTED_AT_ONCE] {
            self.end(*id, now_ns);
        }
        self.context.ledger.connections_evicted.add(EVICTED_AT_ONCE as u64);
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
        let ledger = &self.context.ledger;
        for exchange in exchanges.drain(..) {
            ledger.exchanges_seen.add(1);
            let tls = layer == 1;
            let host = exchange.request.head.headers.get("host").map(without_port);
            if let Some(host) = host.filter(|host| !host.is_empty()) {
                connection.host = Some(host.to_owned());
            }
            if !connection.is_wanted(self.context.wanted) {
                ledger.exchanges_filtered.add(1);
                continue;
            }
            ledger.exchanges_delivered.add(1);
            ledger.exchanges_damaged.add(u64::from(!exchange.damage.is_empty()));
            let row = NewRow { connection, exchange: &exchange, tls, wall: self.wall, ids: &self.context.ids };
            row.push(&mut self.transactions);
        }
    }
}

fn direction_of(row: &Row<'_>) -> Direction {
    if row.direction == 0 { Direction::Sent } else { Direction::Received }
}

fn cause_of(flags: u32) -> Cause {
    match flags {
        f if f & flag::SENDFILE != 0 => Cause::Sendfile,
        f if f & flag::DISCARDED != 0 => Cause::Discarded,
        _ => Cause::Fault,
    }
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
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
        tls: connection.layers[1].is_some(),
        hostname: &context.hostname,
        ends: connection.ends,
        server: connection.role() == Some(Role::Server),
        process: connection.process.as_deref(),
        tgid: connection.tgid,
        bytes: connection.closed.map_or(connection.bytes, |(_, totals)| totals.socket),
        created_ns: wall.wall_ns(connection.opened_ns),
        closed_ns: finalized.then(|| wall.wall_ns(connection.closed.map_or(connection.last_ns, |(at, _)| at))),
    }
}

/// Everything that a row is made of.
struct NewRow<'a> {
    connection: &'a Connection,
    exchange: &'a Exchange,
    tls: bool,
    wall: WallOffset,
    ids: &'a Ids,
}

impl NewRow<'_> {
    fn push(&self, to: &mut TransactionsBuilder) {
        self.push_identity(to);
        self.push_ends(to);
        self.push_request(to);
        self.push_response(to);
        to.damage(&self.exchange.damage);
    }

    fn push_identity(&self, to: &mut TransactionsBuilder) {
        let (c, times) = (self.connection, &self.exchange.times);
        let start = self.wall.wall_ns(times.request_start);
        to.request_id.append_value(self.ids.next(start));
        to.connection_id.append_value(&c.xid);
        to.start_ns.append_value(start);
        to.end_ns.append_value(self.wall.wall_ns(times.end.max(times.request_end)));
        to.first_byte_ns.append_option(times.response_start.map(|at| self.wall.wall_ns(at)));
        to.direction.append_value(c.direction());
        to.protocol.append_value("http1");
        to.socket.append_value(c.socket.as_str());
        to.tls.append_value(self.tls);
        let process = c.process.as_deref();
        to.process_id.append_value(c.tgid);
        to.process_exe.append_option(process.map(|p| p.exe.as_str()));
        to.process_user.append_option(process.and_then(|p| p.user.as_deref()));
        to.process_uid.append_option(process.and_then(|p| p.uid));
        to.endpoint_id.append_value(c.endpoint_id());
    }

    fn push_ends(&self, to: &mut TransactionsBuilder) {
        let ends = self.connection.ends.as_ref();
        let local = ends.map(|e| (e.local().to_string(), e.local_port));
        let remote = ends.map(|e| (e.remote().to_string(), e.remote_port));
        let server = self.connection.role() == Some(Role::Server);
        let (src, dst) = if server { (remote, local) } else { (local, remote) };
        to.src_port.append_option(src.as_ref().map(|(_, port)| *port));
        to.src_ip.append_option(src.map(|(ip, _)| ip));
        to.dst_port.append_option(dst.as_ref().map(|(_, port)| *port));
        to.dst_ip.append_option(dst.map(|(ip, _)| ip));
    }

    fn push_request(&self, to: &mut TransactionsBuilder) {
        let request = &self.exchange.request;
        let target = Target::of(self.exchange, self.tls, self.connection);
        to.method.append_value(&request.method);
        to.url.append_value(target.url());
        to.path.append_value(target.path);
        to.scheme.append_value(target.scheme);
        to.authority.append_value(&target.authority);
        TransactionsBuilder::headers(&mut to.request_headers, Some(&request.head));
        to.request_body.append_value(&request.body.bytes);
        to.request_body_size.append_value(request.body.size);
        to.request_cut.append_option(cut(&request.body));
        to.request_bytes.append_value(request.head.bytes + request.body.size);
    }

    fn push_response(&self, to: &mut TransactionsBuilder) {
        let response = self.exchange.response.as_ref();
        let missing = if self.exchange.closed_early && self.exchange.damage.is_empty() { 499 } else { 422 };
        TransactionsBuilder::headers(&mut to.response_headers, response.map(|r| &r.head));
        to.status.append_value(response.map_or(missing, |r| r.status));
        to.response_body.append_value(response.map_or(&[][..], |r| &r.body.bytes));
        to.response_body_size.append_value(response.map_or(0, |r| r.body.size));
        to.response_cut.append_option(response.and_then(|r| cut(&r.body)));
        to.response_bytes.append_value(response.map_or(0, |r| r.head.bytes + r.body.size));
    }
}

/// A request target in its parts.
struct Target<'a> {
    scheme: &'a str,
    authority: String,
    path: &'a str,
    query: &'a str,
}

impl<'a> Target<'a> {
    fn of(exchange: &'a Exchange, tls: bool, connection: &Connection) -> Self {
        let request = &exchange.request;
        let scheme = if tls { "https" } else { "http" };
        let (scheme, absolute, rest) = match request.target.split_once("://") {
            Some((scheme, rest)) if !request.target.starts_with('/') => {
                let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
                (scheme, Some(authority), path)
            }
            _ if request.method.eq_ignore_ascii_case("CONNECT") => (scheme, Some(request.target.as_str()), ""),
            _ => (scheme, None, request.target.as_str()),
        };
        let authority = absolute.or_else(|| request.head.headers.get("host")).map(str::to_owned);
        let server = connection.role() == Some(Role::Server);
        let address = || {
            let ends = connection.ends?;
            let (ip, port) = if server { (ends.local(), ends.local_port) } else { (ends.remote(), ends.remote_port) };
            Some(std::net::SocketAddr::new(ip, port).to_string())
        };
        let (path, query) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
        Self { scheme, authority: authority.or_else(address).unwrap_or_default(), path, query }
    }

    fn url(&self) -> String {
        let slash = if self.path.starts_with('/') || self.path.is_empty() { "" } else { "/" };
        format!("{}://{}{slash}{}{}", self.scheme, self.authority, self.path, self.query)
    }
}

#[cfg(test)]
mod tests;
