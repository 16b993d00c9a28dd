//! A day of traffic of one machine, from a fixed seed: clients in containers and on the host, that call a few services
//! often and many seldom, through the exchange engine to transactions.

use std::{cmp::Reverse, collections::BinaryHeap, fmt::Write as _, sync::Arc};

use arrow_array::{RecordBatch, StringArray};
use ringtap_batch::{
    budget::{Budgets, Memory},
    capture::Level,
    clock::WallOffset,
    ids::Ids,
    interest::NoBodies,
    ledger::Ledger,
    process::{Process, Processes},
    ring::{
        abi::{CHUNK_MAX, Endpoints, Kind, Record, flag},
        records::RecordsBuilder,
    },
    rollups::{Outcome, rows},
    shard::{Context, Shard},
    transactions::Transactions,
};

use super::Random;

/// 2026-01-02 00:00 UTC, in nanoseconds.
pub const BEGINS_NS: i64 = 1_767_312_000_000_000_000;
const DAY_NS: u64 = 86_400_000_000_000;
const HOSTS: u64 = 300;
const PROCESSES: u64 = 24;
const CONNECTIONS: usize = 600;
/// Exchanges of a round, and so rows of a batch, about.
const ROUND: usize = 4096;
/// An exchange begins no sooner than this after the one before on its connection has ended.
const THINK_NS: u64 = 1_000_000;

struct Known(Vec<Arc<Process>>);

impl Processes for Known {
    fn get(&self, tgid: u32) -> Option<Arc<Process>> {
        self.0.get(usize::try_from(tgid).ok()?.checked_sub(1000)?).cloned()
    }
}

fn processes() -> Known {
    const PROGRAMS: [&str; 8] = [
        "/usr/bin/python3.11",
        "/usr/bin/node",
        "/usr/local/bin/checkout",
        "/usr/bin/curl",
        "/opt/java/bin/java",
        "/usr/sbin/nginx",
        "/app/server",
        "/usr/bin/php",
    ];
    let one = |n: u64| {
        let at = usize::try_from(n).expect("few");
        let details = [
            ("container.id", format!("{:012x}", (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16)),
            ("container.name", format!("app-{n}")),
            ("container.image", format!("registry.example/shop/app-{}:{}.2", n % 9, n % 4)),
            ("container.labels.team", ["web", "data", "pay"][at % 3].to_owned()),
            ("pod.name", format!("app-{n}-6d9f-{n:05}")),
            ("pod.namespace", ["prod", "batch"][at % 2].to_owned()),
            ("pod.labels.app", format!("app-{n}")),
        ];
        // A quarter runs on the host itself.
        let details = details.into_iter().filter(|_| !n.is_multiple_of(4)).map(|(k, v)| (k.to_owned(), v)).collect();
        Arc::new(Process {
            tgid: 1000 + u32::try_from(n).expect("few"),
            exe: PROGRAMS[at % PROGRAMS.len()].to_owned(),
            uid: Some(1000 + u32::try_from(n % 5).expect("few")),
            user: Some(["root", "www-data", "app", "batch", "ann"][at % 5].to_owned()),
            details,
            tags: vec![format!("team:{}", ["web", "data", "pay"][at % 3])],
            ..Process::default()
        })
    };
    Known((0..PROCESSES).map(one).collect())
}

/// A record that waits for its time: when, in which order, on which connection, direction and bytes.
type Waiting = Reverse<(u64, u64, usize, u8, Vec<u8>, u32)>;

struct Connection {
    id: u64,
    free_ns: u64,
    host: u64,
    process: u64,
    left: u64,
    offsets: [u64; 2],
}

/// Makes a day's transactions, batch by batch.
pub struct Day {
    random: Random,
    shard: Shard,
    connections: Vec<Connection>,
    waiting: BinaryHeap<Waiting>,
    pushed: u64,
    opened: u64,
    now_ns: u64,
    step_ns: u64,
    left: usize,
}

impl Day {
    /// So many exchanges, evenly over a day.
    pub fn new(exchanges: usize) -> Self {
        let context = Context {
            names: Arc::default(),
            processes: Arc::new(processes()),
            ids: Arc::new(Ids::new([1, 2, 3], 4, 5)),
            ledger: Arc::new(Ledger::default()),
            wanted: 15,
            budgets: Budgets::default(),
            memory: Arc::new(Memory::new(Budgets::default().agent)),
            interest: Arc::new(NoBodies),
            hostname: "gate-1".into(),
            tags: Vec::new(),
            report_connections: false,
        };
        Self {
            random: Random::new(),
            shard: Shard::new(Arc::new(context)),
            connections: Vec::new(),
            waiting: BinaryHeap::new(),
            pushed: 0,
            opened: 0,
            now_ns: 0,
            step_ns: DAY_NS / exchanges as u64,
            left: exchanges,
        }
    }

    /// Of `n` things the first ones often, the last ones seldom.
    fn seldom(&mut self, n: u64) -> u64 {
        let (a, b) = (self.random.below(n), self.random.below(n));
        a * b / n
    }

    /// The next transactions; `None` after the last.
    pub fn next_batch(&mut self) -> Option<RecordBatch> {
        if self.left == 0 {
            return None;
        }
        let mut records = RecordsBuilder::default();
        for _ in 0..ROUND.min(self.left) {
            self.left -= 1;
            self.now_ns += self.step_ns;
            self.begin(&mut records);
            self.push_until(self.now_ns, &mut records);
        }
        if self.left == 0 {
            self.push_until(u64::MAX, &mut records);
        }
        let output = self.shard.process(Some(&records.finish(None)), self.now_ns, WallOffset(BEGINS_NS));
        output.transactions.or_else(|| self.next_batch())
    }

    fn push_until(&mut self, now_ns: u64, to: &mut RecordsBuilder) {
        while self.waiting.peek().is_some_and(|Reverse((at, ..))| *at <= now_ns) {
            let Some(Reverse((at, _, place, direction, bytes, lost))) = self.waiting.pop() else { return };
            let connection = &mut self.connections[place];
            let mut head = Record::default();
            (head.conn, head.tgid) = (connection.id, 1000 + u32::try_from(connection.process).expect("few"));
            (head.kind, head.direction, head.layer) =
                (Kind::Payload as u8, direction, u8::from(!connection.host.is_multiple_of(3)));
            head.time_ns = at;
            let offset = &mut connection.offsets[usize::from(direction)];
            for chunk in bytes.chunks(CHUNK_MAX) {
                head.offset = *offset;
                head.size = u32::try_from(chunk.len()).expect("a chunk");
                head.len = head.size;
                to.push_copied(&head, chunk);
                *offset += chunk.len() as u64;
            }
            if lost > 0 {
                (head.offset, head.size, head.len, head.flags) = (*offset, 0, lost, flag::FAULT);
                to.push_copied(&head, b"");
                *offset += u64::from(lost);
            }
        }
    }

    /// The place of a connection that is free; an old one makes room for a new one.
    fn connection(&mut self, to: &mut RecordsBuilder) -> usize {
        let now = self.now_ns;
        let at = usize::try_from(self.random.below(CONNECTIONS as u64)).expect("few");
        let free = |c: &Connection| c.free_ns + THINK_NS < now;
        let places = (at..self.connections.len()).chain(0..at.min(self.connections.len()));
        let found = places.clone().find(|place| free(&self.connections[*place]));
        let (host, process) = (self.seldom(HOSTS), self.random.below(PROCESSES));
        let left = 20 + self.random.below(400);
        let new = Connection { id: self.opened + 1, free_ns: 0, host, process, left, offsets: [0; 2] };
        match found {
            Some(place) if self.connections.len() == CONNECTIONS && self.connections[place].left > 0 => return place,
            Some(place) if self.connections.len() == CONNECTIONS => self.connections[place] = new,
            _ => self.connections.push(new),
        }
        self.opened += 1;
        let place =
            found.filter(|place| self.connections[*place].id == self.opened).unwrap_or(self.connections.len() - 1);
        let Connection { id, host, process, .. } = self.connections[place];
        let [a, b] = [host, process].map(|n| u8::try_from(n % 250).expect("a byte"));
        let port = 30_000 + u16::try_from(self.opened % 30_000).expect("a port");
        let internal = host.is_multiple_of(2);
        let remote = std::net::Ipv4Addr::from(if internal { [10, 1, 0, a] } else { [203, 0, 113, a] });
        let service = if host % 3 > 0 { 443 } else { 8080 };
        let ends = Endpoints::new(1, ([10, 0, 0, b], port).into(), (remote, service).into());
        let mut head = Record::default();
        (head.time_ns, head.conn, head.kind) = (now, id, Kind::Open as u8);
        head.tgid = 1000 + u32::try_from(process).expect("few");
        let bytes = zerocopy::IntoBytes::as_bytes(&ends);
        head.size = u32::try_from(bytes.len()).expect("few");
        head.len = head.size;
        to.push_copied(&head, bytes);
        place
    }

    fn begin(&mut self, to: &mut RecordsBuilder) {
        let place = self.connection(to);
        let (host, process) = (self.connections[place].host, self.connections[place].process);
        let request = self.request(host, process);
        let (response, lost, tail) = self.response();
        let latency = self.latency_ns(host);
        let connection = &mut self.connections[place];
        connection.left = connection.left.saturating_sub(1);
        connection.free_ns = self.now_ns + latency;
        let ends = connection.free_ns;
        for (at, direction, bytes, lost) in
            [(self.now_ns, 0, request, 0), (ends, 1, response, lost), (ends, 1, tail, 0)]
        {
            if !bytes.is_empty() {
                self.pushed += 1;
                self.waiting.push(Reverse((at, self.pushed, place, direction, bytes, lost)));
            }
        }
    }

    /// From a millisecond to seconds, most at the lower end; some services are slow.
    fn latency_ns(&mut self, host: u64) -> u64 {
        let doubled = self.random.below(9).min(self.random.below(9)).min(self.random.below(12));
        ((1 << doubled) * 1_000_000 + self.random.below(1_000_000)) * if host.is_multiple_of(17) { 8 } else { 1 }
    }

    fn request(&mut self, host: u64, process: u64) -> Vec<u8> {
        const METHODS: [&str; 8] = ["GET", "GET", "GET", "GET", "GET", "POST", "POST", "PUT"];
        const PARTS: [&str; 12] = [
            "users", "orders", "items", "cart", "search", "health", "login", "events", "prices", "stock", "media",
            "jobs",
        ];
        let method = METHODS[usize::try_from(self.random.below(8)).expect("small")];
        let part = PARTS[usize::try_from(self.seldom(12)).expect("small")];
        let mut text = format!("{method} /api/v{}/{part}", 1 + host % 3);
        if self.random.below(5) < 2 {
            let _ = write!(text, "/{}", self.random.below(2_000_000));
        }
        if self.random.below(4) == 0 {
            let _ = write!(text, "?page={}&limit=50&sort=created", self.random.below(100));
        }
        let zone = if host.is_multiple_of(2) { "svc.cluster.local" } else { "example.com" };
        let body = if method == "GET" { 0 } else { 20 + self.random.below(600) };
        let _ = write!(
            text,
            " HTTP/1.1\r\nHost: service-{host}.{zone}\r\nUser-Agent: client-{}/{}.1\r\nAccept: application/json\r\n\
             Accept-Encoding: gzip\r\nAuthorization: Bearer 0123456789abcdef{:016x}\r\ntraceparent: 00-{:016x}{:016x}-{:016x}-01\r\n",
            process % 7,
            process % 3,
            self.random.next(),
            self.random.next(),
            self.random.next(),
            self.random.next(),
        );
        if body > 0 {
            let _ = write!(text, "Content-Type: application/json\r\nContent-Length: {body}\r\n");
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.resize(bytes.len() + usize::try_from(body).expect("small"), b'x');
        bytes
    }

    /// The response up to what is lost of it, how much that is, and the rest.
    fn response(&mut self) -> (Vec<u8>, u32, Vec<u8>) {
        let (status, reason) = match self.random.below(100) {
            0..86 => (200, "OK"),
            86..88 => (201, "Created"),
            88..91 => (304, "Not Modified"),
            91..96 => (404, "Not Found"),
            96 => (401, "Unauthorized"),
            97..99 => (500, "Internal Server Error"),
            _ => (503, "Service Unavailable"),
        };
        let size = match self.random.below(100) {
            _ if status == 304 => 0,
            0..60 => self.random.below(200),
            60..90 => self.random.below(2000),
            90..99 => self.random.below(8000),
            _ => self.random.below(60_000),
        };
        let kind = ["application/json", "application/json", "text/html; charset=utf-8", "image/png"]
            [usize::try_from(self.random.below(4)).expect("small")];
        let head = format!(
            "HTTP/1.1 {status} {reason}\r\nServer: envoy\r\nDate: Fri, 02 Jan 2026 03:04:05 GMT\r\nContent-Type: {kind}\r\n\
             Cache-Control: no-store\r\nx-request-id: {:016x}\r\nContent-Length: {size}\r\n\r\n",
            self.random.next()
        );
        let mut bytes = head.into_bytes();
        let size = usize::try_from(size).expect("small");
        if size > 100 && self.random.below(2000) == 0 {
            let lost = size / 4;
            bytes.resize(bytes.len() + size / 2, b'y');
            return (bytes, u32::try_from(lost).expect("small"), vec![b'y'; size - size / 2 - lost]);
        }
        bytes.resize(bytes.len() + size, b'y');
        (bytes, 0, Vec::new())
    }

    /// What a stack would say of a batch: every row has an object, and errors have a rule.
    pub fn outcome(&mut self, batch: &RecordBatch) -> Outcome<'static> {
        let t = Transactions::of(batch).expect("its schema");
        let errors = (0..t.rows()).map(|row| (t.status.value(row) >= 500).then_some("errors"));
        let mut digest =
            || format!("{:016x}{:016x}{:08x}", self.random.next(), self.random.next(), self.random.below(1 << 32));
        Outcome {
            stack: "default",
            levels: vec![Level::Summary; t.rows()],
            rules: errors.collect(),
            digests: Some((0..t.rows()).map(|_| Some(digest())).collect::<StringArray>()),
            object_url: Some("https://s3.example.com/objects/{{DIGEST}}".into()),
        }
    }
}

/// The rows of a batch.
pub fn rolled_up(batch: &RecordBatch, outcome: &Outcome<'_>, headers: bool) -> RecordBatch {
    rows(&Transactions::of(batch).expect("its schema"), outcome, headers)
}
