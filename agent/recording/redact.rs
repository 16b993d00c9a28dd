//! Recordings without secrets (`record --redact`): what was understood is written anew, and nothing else.
//!
//! Each exchange that was understood becomes two heads and the lengths of its bodies. Of the request line the path is
//! kept and the values of query and parameters are masked; of header fields the values of [`PLAIN`] are kept and all others
//! masked.
//! So what is not known to be harmless is not written, and of what is not HTTP nothing is.

use std::{collections::HashMap, fmt::Write as _, net::SocketAddr, sync::Arc};

use arrow_array::{Array as _, RecordBatch, StringArray, cast::AsArray as _};
use ringtap_batch::{
    clock::WallOffset,
    events,
    ring::{
        abi::{Endpoints, Kind, LostEnd, Record, Totals, flag, shard_of},
        records::RecordsBuilder,
    },
    shard::{Context, Output, Shard},
    transactions::{Transactions, port, text},
};
use zerocopy::{FromZeros as _, IntoBytes as _};

use super::Recorder;

/// Header fields whose values are written. Content-Length and Transfer-Encoding are made anew.
const PLAIN: [&str; 23] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "cache-control",
    "connection",
    "content-encoding",
    "content-language",
    "content-range",
    "content-type",
    "date",
    "expect",
    "keep-alive",
    "last-modified",
    "range",
    "retry-after",
    "server",
    "te",
    "upgrade",
    "user-agent",
    "vary",
];
/// What stands for a value.
const MASK: &str = "*";
/// A row's length is a 32-bit number; no body is written as longer than so many rows: lengths can be made up.
const ROW_MAX: u64 = 1 << 30;
const ROWS_MAX: u64 = 1 << 10;
/// Connections that are followed at most.
const OPEN_MAX: usize = 131_072;

/// Parses, masks, and writes with a [`Recorder`].
pub struct Redactor {
    shards: Vec<Shard>,
    recorder: Recorder,
    rows: RecordsBuilder,
    /// The connections that are written, by their ids and layers: a tunnel holds the streams of both.
    open: HashMap<String, [Option<Written>; 2]>,
    connections: u64,
}

/// A connection as it is written: numbered anew, and with the lengths that the masked streams have.
#[derive(Clone, Copy)]
struct Written {
    conn: u64,
    layer: u8,
    /// What is said of how the connection was found.
    flags: u32,
    /// Direction of requests: 0 if the process is the client.
    requests: u8,
    tgid: u32,
    offsets: [u64; 2],
}

impl Redactor {
    /// `context` should have `NoBodies` for its interest, and report connections.
    #[must_use]
    pub fn new(context: &Arc<Context>, shards: u32, recorder: Recorder) -> Self {
        let shards = (0..shards).map(|index| Shard::one_of(context.clone(), index, shards)).collect();
        Self { shards, recorder, rows: RecordsBuilder::default(), open: HashMap::new(), connections: 0 }
    }

    /// Takes the batches of one round; what it returns is for the kernel.
    ///
    /// # Errors
    ///
    /// The disk refuses.
    pub fn process(
        &mut self,
        batches: &[Option<RecordBatch>],
        now_ns: u64,
        wall: WallOffset,
    ) -> anyhow::Result<Vec<Output>> {
        let each = self.shards.iter_mut().zip(batches);
        let outputs: Vec<Output> = each.map(|(shard, batch)| shard.process(batch.as_ref(), now_ns, wall)).collect();
        self.write(&outputs)?;
        Ok(outputs)
    }

    /// Ends a connection whose close record found a full ring.
    pub fn close(&mut self, conn: u64, end: LostEnd) {
        let shards = u32::try_from(self.shards.len()).expect("at most a few dozen");
        self.shards[shard_of(conn, shards) as usize].close(conn, end.time_ns, end.totals);
    }

    /// Writes what has gathered.
    ///
    /// # Errors
    ///
    /// The disk refuses.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        self.recorder.flush()
    }

    /// Ends all connections, and the recording.
    ///
    /// # Errors
    ///
    /// The disk refuses.
    pub fn finish(&mut self, now_ns: u64, wall: WallOffset) -> anyhow::Result<()> {
        let outputs: Vec<Output> = self.shards.iter_mut().map(|shard| shard.finish(now_ns, wall)).collect();
        self.write(&outputs)?;
        self.recorder.finish()
    }

    fn write(&mut self, outputs: &[Output]) -> anyhow::Result<()> {
        for output in outputs {
            if let Some(t) = output.transactions.as_ref().and_then(Transactions::of) {
                (0..t.rows()).for_each(|row| self.exchange(&t, row));
            }
            if let Some(reports) = &output.connections {
                self.end_reported(reports);
            }
        }
        if self.rows.rows() > 0 {
            let rows = std::mem::take(&mut self.rows).finish(None);
            // Times are wall time already.
            self.recorder.write(&rows, WallOffset(0))?;
        }
        Ok(())
    }

    fn exchange(&mut self, t: &Transactions<'_>, row: usize) {
        let (id, layer) = (t.connection_id.value(row), usize::from(t.tls.value(row)));
        let mut to = match self.open.get(id).and_then(|layers| layers[layer]) {
            Some(written) => written,
            None => self.begin(t, row),
        };
        let [start, end] = [t.start_ns, t.end_ns].map(|column| nanoseconds(column.value(row)));
        let (request, response) = (Half::request(t, row), Half::response(t, row));
        let requests = to.requests;
        self.half(&mut to, requests, [start, start], &request);
        if let Some((first, response)) = &response {
            self.half(&mut to, 1 - requests, [*first, end], response);
        } else if let (_, lost @ 1..) = missing(t, row, "response") {
            self.gap(&mut to, 1 - requests, end, (flag::UNCAPTURED, lost));
        }
        // What comes behind something incomplete, or into a tunnel, must not be taken for a part of it.
        let whole = request.complete && response.as_ref().is_some_and(|(_, response)| response.complete);
        let whole = whole && t.damage(row).next().is_none();
        let status = t.status.value(row);
        let tunnel = status == 101 || t.method.value(row).eq_ignore_ascii_case("CONNECT");
        if whole && !tunnel {
            self.keep(id, layer, to, end);
            return;
        }
        if let Some(layers) = self.open.get_mut(id) {
            layers[layer] = None;
        }
        // Without an answer only 499 says that the connection has ended.
        if response.is_some() || status == 499 {
            self.end(&to, end);
        }
    }

    fn keep(&mut self, id: &str, layer: usize, to: Written, now_ns: u64) {
        if let Some(layers) = self.open.get_mut(id) {
            layers[layer] = Some(to);
            return;
        }
        if self.open.len() >= OPEN_MAX {
            // Each goes on as another one.
            for written in std::mem::take(&mut self.open).into_values().flatten().flatten() {
                self.end(&written, now_ns);
            }
        }
        let mut layers = [None; 2];
        layers[layer] = Some(to);
        self.open.insert(id.to_owned(), layers);
    }

    fn begin(&mut self, t: &Transactions<'_>, row: usize) -> Written {
        self.connections += 1;
        let server = t.direction.value(row) == "ingress";
        let written = Written {
            conn: self.connections,
            layer: u8::from(t.tls.value(row)),
            flags: match t.socket.value(row) {
                "inferred" => flag::INFERRED,
                "verified" => flag::INFERRED | flag::VERIFIED,
                "unknown" => flag::UNATTRIBUTED,
                _ => 0,
            },
            requests: u8::from(server),
            tgid: t.process_id.value(row),
            offsets: [0; 2],
        };
        let address =
            |ip: &StringArray, number| Some(SocketAddr::new(text(ip, row)?.parse().ok()?, port(number, row)?));
        if let (Some(client), Some(other)) = (address(t.src_ip, t.src_port), address(t.dst_ip, t.dst_port)) {
            let (role, local, remote) = if server { (2, other, client) } else { (1, client, other) };
            let ends = Endpoints::new(role, local, remote);
            let head = written.head(Kind::Open, nanoseconds(t.start_ns.value(row)), ends.as_bytes().len());
            self.rows.push_copied(&head, ends.as_bytes());
        }
        written
    }

    fn end(&mut self, written: &Written, time_ns: u64) {
        let mut totals = Totals { socket: written.offsets, tls: [0; 2] };
        if written.layer == 1 {
            totals.tls = written.offsets;
        }
        let head = written.head(Kind::Close, time_ns, totals.as_bytes().len());
        self.rows.push_copied(&head, totals.as_bytes());
    }

    /// Ends the connections of which a last report was made.
    fn end_reported(&mut self, reports: &RecordBatch) {
        let Some(ids) = reports.column_by_name("meta.connectionId").and_then(|column| column.as_string_opt::<i32>())
        else {
            return;
        };
        for row in 0..reports.num_rows() {
            let closed = events::row(reports, row).find(|(path, _)| *path == "closedAt");
            if let Some((_, events::Present::Time(at))) = closed
                && let Some(layers) = self.open.remove(ids.value(row))
            {
                for written in layers.iter().flatten() {
                    self.end(written, nanoseconds(at));
                }
            }
        }
    }

    /// A head and the length of a body: `times` are the head's and the last byte's.
    fn half(&mut self, to: &mut Written, direction: u8, times: [u64; 2], half: &Half<'_>) {
        let bytes = half.head();
        let mut head = to.head(Kind::Payload, times[0], bytes.len());
        (head.offset, head.len, head.direction) = (to.offsets[usize::from(direction)], head.size, direction);
        self.rows.push_copied(&head, bytes.as_bytes());
        to.offsets[usize::from(direction)] += bytes.len() as u64;
        let (cause, lost) = half.missing;
        let lost = lost.min(half.size);
        self.gap(to, direction, times[1], (cause, lost));
        self.gap(to, direction, times[1], (flag::REDACTED, half.size - lost));
    }

    /// Bytes that are not written, and why.
    fn gap(&mut self, to: &mut Written, direction: u8, time_ns: u64, (cause, mut left): (u32, u64)) {
        let offset = usize::from(direction);
        while left > 0 {
            let len = left.min(ROW_MAX);
            let mut head = to.head(Kind::Payload, time_ns, 0);
            (head.offset, head.direction) = (to.offsets[offset], direction);
            head.len = u32::try_from(len).expect("at most a row's");
            head.flags |= cause;
            self.rows.push_copied(&head, &[]);
            to.offsets[offset] += len;
            left -= len;
        }
    }
}

impl Written {
    fn head(&self, kind: Kind, time_ns: u64, size: usize) -> Record {
        let mut head = Record::new_zeroed();
        (head.kind, head.conn, head.time_ns) = (kind as u8, self.conn, time_ns);
        (head.tgid, head.tid, head.layer) = (self.tgid, self.tgid, self.layer);
        head.size = u32::try_from(size).expect("a head is far below 4 GiB");
        head.flags = self.flags;
        head
    }
}

/// What is written of a request or a response.
struct Half<'a> {
    line: String,
    headers: Vec<(&'a str, &'a str)>,
    /// What stands for a Host field's value.
    host: &'a str,
    size: u64,
    complete: bool,
    /// Whatever its head says, no body follows.
    bodiless: bool,
    /// How much of the body was lost, and the flag that says why.
    missing: (u32, u64),
}

impl<'a> Half<'a> {
    fn request(t: &Transactions<'a>, row: usize) -> Self {
        Self {
            line: request_line(t, row),
            headers: Transactions::headers(t.request_headers, row).collect(),
            host: host(t.authority.value(row)),
            size: t.request_body_size.value(row).min(ROW_MAX * ROWS_MAX),
            complete: text(t.request_cut, row) != Some("incomplete"),
            bodiless: false,
            missing: missing(t, row, "request"),
        }
    }

    /// The time of the first byte, and what came; `None`: no answer was seen.
    fn response(t: &Transactions<'a>, row: usize) -> Option<(u64, Self)> {
        let first = t.first_byte_ns.is_valid(row).then(|| nanoseconds(t.first_byte_ns.value(row)))?;
        let status = t.status.value(row);
        let response = Self {
            line: format!("HTTP/1.1 {status} {MASK}"),
            headers: Transactions::headers(t.response_headers, row).collect(),
            host: "",
            size: t.response_body_size.value(row).min(ROW_MAX * ROWS_MAX),
            complete: text(t.response_cut, row) != Some("incomplete"),
            bodiless: t.method.value(row).eq_ignore_ascii_case("HEAD") || matches!(status, 204 | 304),
            missing: missing(t, row, "response"),
        };
        Some((first, response))
    }

    fn head(&self) -> String {
        let mut head = format!("{}\r\n", self.line);
        for (name, value) in &self.headers {
            let lower = name.to_ascii_lowercase();
            match lower.as_str() {
                "content-length" | "transfer-encoding" => {}
                "host" => write!(head, "{name}: {}\r\n", self.host).expect("memory takes it"),
                plain if PLAIN.contains(&plain) => write!(head, "{name}: {value}\r\n").expect("memory takes it"),
                _ => write!(head, "{name}: {MASK}\r\n").expect("memory takes it"),
            }
        }
        if let Some(length) = self.announced() {
            write!(head, "content-length: {length}\r\n").expect("memory takes it");
        }
        head + "\r\n"
    }

    /// The length that makes the rows behind it be read as they were.
    fn announced(&self) -> Option<u64> {
        let said = self.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let said = said.and_then(|(_, length)| length.parse::<u64>().ok());
        match (self.bodiless, self.complete) {
            (true, _) => said,
            // A request without a body says nothing of one.
            (false, true) if self.size == 0 && self.line.ends_with("HTTP/1.1") => said.filter(|length| *length == 0),
            (false, true) => Some(self.size),
            (false, false) => Some(said.filter(|length| *length > self.size).unwrap_or(self.size.saturating_add(1))),
        }
    }
}

/// The target's path, and its query without values.
fn request_line(t: &Transactions<'_>, row: usize) -> String {
    let (method, path) = (t.method.value(row), t.path.value(row));
    if method.eq_ignore_ascii_case("CONNECT") {
        return format!("{method} {} HTTP/1.1", host(t.authority.value(row)));
    }
    let url = t.url.value(row);
    let url = url.split_once('#').map_or(url, |(url, _)| url);
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let masked: Vec<String> = query.split('&').map(mask_pair).collect();
    let query = if query.is_empty() { String::new() } else { format!("?{}", masked.join("&")) };
    format!("{method} {}{query} HTTP/1.1", target_path(path))
}

/// A path without fragment, and without the values of its parameters.
fn target_path(path: &str) -> String {
    let path = path.split_once('#').map_or(path, |(path, _)| path);
    match path {
        "" => "/".into(),
        "*" => "*".into(),
        _ if !path.starts_with('/') => format!("/{MASK}"),
        _ => path.split('/').map(mask_parameters).collect::<Vec<_>>().join("/"),
    }
}

fn mask_parameters(segment: &str) -> String {
    let mut parts = segment.split(';');
    let name = parts.next().unwrap_or_default().to_owned();
    parts.fold(name, |all, parameter| format!("{all};{}", mask_pair(parameter)))
}

fn mask_pair(pair: &str) -> String {
    match pair.split_once('=') {
        // Padding, not a value: what stands before it is one.
        Some((name, value)) if !value.trim_matches('=').is_empty() => format!("{name}={MASK}"),
        // A name alone can be a value.
        _ => MASK.into(),
    }
}

/// An authority without whom it names and without what is behind it.
fn host(authority: &str) -> &str {
    let host = authority.split(['/', '?', '#']).next().unwrap_or_default();
    host.rsplit_once('@').map_or(host, |(_, host)| host)
}

/// How many bytes of a half were lost, and the flag of the last cause that rows can have.
fn missing(t: &Transactions<'_>, row: usize, part: &str) -> (u32, u64) {
    t.damage(row).filter(|damage| damage.part == part).fold((0, 0), |(flags, lost), damage| {
        let cause = match damage.cause {
            "sendfile" => flag::SENDFILE,
            "discarded" => flag::DISCARDED,
            "fault" => flag::FAULT,
            "unseen" => flag::UNCAPTURED,
            _ => return (flags, lost),
        };
        (cause, (lost + damage.end.saturating_sub(damage.start)).min(ROW_MAX * ROWS_MAX))
    })
}

fn nanoseconds(wall_ns: i64) -> u64 {
    u64::try_from(wall_ns).unwrap_or(0)
}

#[cfg(test)]
mod tests;
