//! The queue in front of a store: bounded in bytes, and every row that leaves it is counted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arrow_array::RecordBatch;
use ringtap_batch::{
    budget::Memory,
    ledger::{Count, Ledger},
};
use tokio::sync::mpsc;

use super::Patience;
use crate::{
    config::checked::Route,
    spool::{Held, Kind, Lost},
};

/// Bytes that may wait in memory for one store.
const QUEUE_BYTES: usize = 256 << 20;
/// How long whoever waits for room sleeps between two looks.
const FULL_PAUSE: Duration = Duration::from_millis(1);

/// A batch on its way. What is dropped without having been settled was lost in the shutdown.
pub struct Parcel {
    /// The rows.
    pub batch: RecordBatch,
    unsettled: u64,
    bytes: usize,
    queue: Arc<Queue>,
    /// A copy lies in the spool: what is not settled is there.
    spooled: bool,
}

/// What the parcels of a store share.
pub struct Queue {
    kind: Kind,
    bytes: AtomicUsize,
    patience: Patience,
    /// Nobody waits for room any more.
    hurried: AtomicBool,
    memory: Arc<Memory>,
    ledger: Arc<Ledger>,
    held: Held,
}

/// Where a kind of thing is counted.
struct Counts<'a> {
    seen: &'a Count,
    delivered: &'a Count,
    failed: &'a Count,
    queue_full: &'a Count,
    shutdown: &'a Count,
    spooled: &'a Count,
    unspooled: &'a Count,
    dropped: &'a Count,
    expired: &'a Count,
    corrupt: &'a Count,
}

impl Queue {
    fn counts(&self) -> Counts<'_> {
        let l = &self.ledger;
        match self.kind {
            Kind::Events => Counts {
                seen: &l.events_seen,
                delivered: &l.events_delivered,
                failed: &l.events_failed,
                queue_full: &l.events_queue_full,
                shutdown: &l.events_shutdown,
                spooled: &l.events_spooled,
                unspooled: &l.events_unspooled,
                dropped: &l.events_dropped,
                expired: &l.events_expired,
                corrupt: &l.events_corrupt,
            },
            Kind::Objects => Counts {
                seen: &l.objects_seen,
                delivered: &l.objects_delivered,
                failed: &l.objects_failed,
                queue_full: &l.objects_queue_full,
                shutdown: &l.objects_shutdown,
                spooled: &l.objects_spooled,
                unspooled: &l.objects_unspooled,
                dropped: &l.objects_dropped,
                expired: &l.objects_expired,
                corrupt: &l.objects_corrupt,
            },
        }
    }

    /// Bytes that wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// What was lost in the spool came out of it first.
    pub fn count_lost(&self, lost: Lost) {
        let counts = self.counts();
        counts.unspooled.add(lost.dropped + lost.expired + lost.corrupt);
        counts.dropped.add(lost.dropped);
        counts.expired.add(lost.expired);
        counts.corrupt.add(lost.corrupt);
    }

    /// A batch that came from the spool. It counts in the agent's memory, and not here: nothing new waits for it.
    #[must_use]
    pub fn from_spool(self: &Arc<Self>, batch: RecordBatch) -> Parcel {
        let (rows, bytes) = (batch.num_rows() as u64, batch.get_array_memory_size());
        self.counts().unspooled.add(rows);
        self.memory.changed(0, bytes);
        Parcel { batch, unsettled: rows, bytes, queue: self.clone(), spooled: true }
    }

    /// Makes room for `bytes`: in this queue, and in the memory of the whole agent. False: there is none.
    fn enter(&self, bytes: usize) -> bool {
        let waiting = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let room = waiting + bytes <= QUEUE_BYTES && self.memory.take(bytes);
        if !room {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        room
    }

    /// Takes `bytes` whether there is room or not.
    fn enter_anyway(&self, bytes: usize) -> bool {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.memory.changed(0, bytes);
        true
    }

    /// Waits until there is room. Only this queue counts: what else the agent keeps may wait for us. An empty queue takes
    /// anything, however large.
    fn wait_to_enter(&self, bytes: usize) -> bool {
        while self.bytes() > 0 && self.bytes() + bytes > QUEUE_BYTES {
            if self.hurried.load(Ordering::Relaxed) {
                return self.enter(bytes);
            }
            std::thread::sleep(FULL_PAUSE);
        }
        self.enter_anyway(bytes)
    }
}

impl Parcel {
    /// Rows that are neither delivered nor lost nor in the spool.
    #[must_use]
    pub fn unsettled(&self) -> u64 {
        self.unsettled
    }

    /// Bytes that it keeps in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// So many of its rows were delivered, so many refused for good.
    pub fn settle(&mut self, delivered: u64, failed: u64) {
        let counts = self.queue.counts();
        counts.delivered.add(delivered);
        counts.failed.add(failed);
        self.leave_memory(delivered + failed);
    }

    /// So many of its rows were written to the spool.
    pub fn settle_spooled(&mut self, rows: u64) {
        self.queue.counts().spooled.add(rows);
        self.leave_memory(rows);
    }

    /// So many of its rows are older than they may be.
    pub fn settle_expired(&mut self, rows: u64) {
        self.queue.counts().expired.add(rows);
        self.leave_memory(rows);
    }

    fn leave_memory(&mut self, rows: u64) {
        self.unsettled -= rows;
        if !self.spooled {
            self.queue.held.sub(self.queue.kind, rows);
        }
    }

    /// The rows behind the first `rows`, as a parcel of their own.
    #[must_use]
    pub fn split_off(&mut self, rows: usize) -> Self {
        let behind = self.batch.num_rows() - rows;
        let share = self.bytes / self.batch.num_rows().max(1) * behind;
        let rest = Self {
            batch: self.batch.slice(rows, behind),
            unsettled: behind as u64,
            bytes: share,
            queue: self.queue.clone(),
            spooled: self.spooled,
        };
        self.batch = self.batch.slice(0, rows);
        self.unsettled -= behind as u64;
        self.bytes -= share;
        rest
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        let counts = self.queue.counts();
        if self.spooled {
            // It is still there.
            counts.spooled.add(self.unsettled);
        } else {
            counts.shutdown.add(self.unsettled);
            self.queue.held.sub(self.queue.kind, self.unsettled);
            self.queue.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        }
        self.queue.memory.changed(self.bytes, 0);
    }
}

/// The end of a queue at which the capture hands over.
#[derive(Clone)]
pub struct Outbox {
    sender: mpsc::UnboundedSender<Parcel>,
    queue: Arc<Queue>,
}

/// Where the parcels of a queue come out.
pub type Parcels = mpsc::UnboundedReceiver<Parcel>;

/// What all queues of an agent have in common.
#[derive(Clone)]
pub struct Common {
    /// Where things are counted.
    pub ledger: Arc<Ledger>,
    /// What the whole agent keeps.
    pub memory: Arc<Memory>,
    /// What happens when a queue is full.
    pub patience: Patience,
    /// A count of what is in memory that survives us.
    pub held: Held,
}

impl Outbox {
    /// A queue, and its other end.
    #[must_use]
    pub fn new(kind: Kind, common: &Common) -> (Self, Parcels) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let Common { ledger, memory, patience, held } = common.clone();
        let queue =
            Queue { kind, bytes: AtomicUsize::new(0), patience, hurried: AtomicBool::new(false), memory, ledger, held };
        (Self { sender, queue: Arc::new(queue) }, receiver)
    }

    /// What its parcels share.
    #[must_use]
    pub fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// Hands a batch over. A full queue is a counted loss, or makes whoever has patience wait.
    pub fn offer(&self, batch: RecordBatch) {
        self.hand_over(batch, Queue::wait_to_enter);
    }

    /// The same from a store's own task, which must not wait: whoever has patience gets room that is not there. There is
    /// an end to it, since the queue of objects has one.
    pub fn offer_from_task(&self, batch: RecordBatch) {
        self.hand_over(batch, Queue::enter_anyway);
    }

    fn hand_over(&self, batch: RecordBatch, with_patience: fn(&Queue, usize) -> bool) {
        let rows = batch.num_rows() as u64;
        let bytes = batch.get_array_memory_size();
        let counts = self.queue.counts();
        counts.seen.add(rows);
        let enter = if self.queue.patience == Patience::UntilRoom { with_patience } else { Queue::enter };
        if !enter(&self.queue, bytes) {
            counts.queue_full.add(rows);
            return;
        }
        self.queue.held.add(self.queue.kind, rows);
        let parcel = Parcel { batch, unsettled: rows, bytes, queue: self.queue.clone(), spooled: false };
        // A parcel that comes back is dropped, and counts itself.
        let _ = self.sender.send(parcel);
    }
}

/// The queues of all stores, in the order of the configuration; `None`: the store takes nothing.
#[derive(Clone, Default)]
pub struct Outboxes {
    pub(super) events: Vec<Option<Outbox>>,
    pub(super) objects: Vec<Option<Outbox>>,
}

impl Outboxes {
    /// The queue of an event store.
    #[must_use]
    pub fn events(&self, route: Route) -> Option<&Outbox> {
        self.events.get(route?)?.as_ref()
    }

    /// The queue of an object store.
    #[must_use]
    pub fn objects(&self, route: Route) -> Option<&Outbox> {
        self.objects.get(route?)?.as_ref()
    }

    /// From now on nobody waits for room: the agent stops.
    pub fn hurry(&self) {
        for outbox in self.events.iter().chain(&self.objects).flatten() {
            outbox.queue.hurried.store(true, Ordering::Relaxed);
        }
    }
}
