//! Series of connections, of the events that tell of them.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use arrow_array::{
    Array as _, BooleanArray, Int64Array, RecordBatch, StringArray,
    cast::AsArray as _,
    types::{Int64Type, TimestampNanosecondType},
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use super::{bounded, other};

/// Bounds of durations, in milliseconds.
const MS: [f64; 13] = [1.0, 5.0, 1e1, 5e1, 1e2, 5e2, 1e3, 5e3, 1e4, 3e4, 6e4, 3e5, 1.8e6];

/// The other end of a connection. Of those that came to this machine the port is left out: each has its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
#[expect(clippy::struct_field_names, reason = "the names of the labels")]
struct Remote {
    remote_addr: String,
    remote_port: String,
    direction: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Spoken {
    remote_addr: String,
    remote_port: String,
    direction: String,
    protocol: String,
}

/// All series.
#[derive(Debug)]
pub(super) struct Connections {
    open: Family<Remote, Counter>,
    close: Family<Remote, Counter>,
    active: Family<Remote, Gauge>,
    sent: Family<Remote, Counter>,
    received: Family<Remote, Counter>,
    ms: Family<Remote, Histogram, fn() -> Histogram>,
    protocol: Family<Spoken, Counter>,
    known: Mutex<HashSet<Remote>>,
}

/// The columns that are read.
struct Reports<'a> {
    finalized: &'a BooleanArray,
    part: &'a Int64Array,
    direction: &'a StringArray,
    protocol: &'a StringArray,
    source: &'a StringArray,
    destination: &'a StringArray,
    sent: &'a Int64Array,
    received: &'a Int64Array,
    created_ns: &'a arrow_array::TimestampNanosecondArray,
    closed_ns: &'a arrow_array::TimestampNanosecondArray,
}

impl<'a> Reports<'a> {
    fn of(batch: &'a RecordBatch) -> Option<Self> {
        let text = |name| batch.column_by_name(name)?.as_string_opt::<i32>();
        let int = |name| batch.column_by_name(name)?.as_primitive_opt::<Int64Type>();
        let time = |name| batch.column_by_name(name)?.as_primitive_opt::<TimestampNanosecondType>();
        Some(Self {
            finalized: batch.column_by_name("finalized")?.as_boolean_opt()?,
            part: int("part")?,
            direction: text("direction")?,
            protocol: text("l7Protocol")?,
            source: text("source.address")?,
            destination: text("destination.address")?,
            sent: int("bytesSent")?,
            received: int("bytesReceived")?,
            created_ns: time("createdAt")?,
            closed_ns: time("closedAt")?,
        })
    }

    fn remote(&self, row: usize) -> Remote {
        let direction = self.direction.value(row);
        let ingress = direction == "ingress";
        let address = if ingress { self.source } else { self.destination };
        let address = if address.is_valid(row) { address.value(row) } else { "" };
        let (remote_addr, port) = match address.rsplit_once(':') {
            Some((ip, port)) => (ip.trim_matches(['[', ']']), port),
            None => (address, ""),
        };
        let remote_port = if ingress { "" } else { port };
        Remote {
            remote_addr: remote_addr.to_owned(),
            remote_port: remote_port.to_owned(),
            direction: direction.to_owned(),
        }
    }
}

impl Connections {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let ms = || Family::new_with_constructor((|| Histogram::new(MS)) as fn() -> Histogram);
        let all = Self {
            open: Family::default(),
            close: Family::default(),
            active: Family::default(),
            sent: Family::default(),
            received: Family::default(),
            ms: ms(),
            protocol: Family::default(),
            known: Mutex::default(),
        };
        let name = |what: &str| format!("qtap_connection_{what}");
        registry.register(name("open"), "Connections that were told of first", all.open.clone());
        registry.register(name("close"), "Connections that have ended", all.close.clone());
        registry.register(name("active_total"), "Connections that were told of and have not ended", all.active.clone());
        registry.register(name("bytes_sent"), "Bytes sent, of connections that have ended", all.sent.clone());
        registry.register(name("bytes_recv"), "Bytes received, of connections that have ended", all.received.clone());
        registry.register(name("duration_ms"), "Time from opening to end", all.ms.clone());
        registry.register(name("protocol"), "Connections that have ended, by what they spoke", all.protocol.clone());
        all
    }

    /// Counts each report of a connection.
    pub(super) fn observe(&self, batch: &RecordBatch) {
        let Some(reports) = Reports::of(batch) else { return };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for row in 0..batch.num_rows() {
            let rest = || Remote { remote_addr: other(), remote_port: other(), direction: other() };
            let remote = bounded(&mut known, reports.remote(row), rest);
            if reports.part.value(row) == 0 {
                self.open.get_or_create(&remote).inc();
                self.active.get_or_create(&remote).inc();
            }
            if !reports.finalized.value(row) {
                continue;
            }
            self.close.get_or_create(&remote).inc();
            self.active.get_or_create(&remote).dec();
            let count = |column: &Int64Array| u64::try_from(column.value(row)).unwrap_or(0);
            self.sent.get_or_create(&remote).inc_by(count(reports.sent));
            self.received.get_or_create(&remote).inc_by(count(reports.received));
            let lasted = (reports.closed_ns.value(row) - reports.created_ns.value(row)).max(0);
            #[expect(clippy::cast_precision_loss, reason = "histograms hold floating-point sums")]
            self.ms.get_or_create(&remote).observe(lasted as f64 / 1e6);
            let Remote { remote_addr, remote_port, direction } = remote;
            let protocol = reports.protocol.value(row).to_owned();
            self.protocol.get_or_create(&Spoken { remote_addr, remote_port, direction, protocol }).inc();
        }
    }
}
