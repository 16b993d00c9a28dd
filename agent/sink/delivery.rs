//! From the capture to the stores: bounded queues, retries, and the promise that an event never precedes its object.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arrow_array::RecordBatch;
use arrow_select::concat::concat_batches;
use bytes::Bytes;
use ringtap_batch::{
    budget::Memory,
    ledger::{Count, Ledger},
    objects::Objects,
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use super::{
    Patience, SinkError,
    axiom::AxiomStore,
    console::Console,
    disk::{DiskStore, uring_allowed},
    otlp::Otlp,
    s3::S3Store,
    stdout::{print_events, print_objects},
};
use crate::config::checked::{EventStore, ObjectStore, Route, Stores};

/// Bytes that may wait in each of the two queues.
const QUEUE_BYTES: usize = 256 << 20;
/// How long whoever waits for room sleeps between two looks.
const FULL_PAUSE: Duration = Duration::from_millis(1);
/// Objects on their way at most.
const UPLOADS: usize = 32;
/// Events of one request at most.
const EVENTS_AT_ONCE: usize = 512;
/// Pauses between attempts; then what was to be sent is counted as failed.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_millis(400), Duration::from_secs(1), Duration::from_secs(3)];

/// A store of events.
enum Events {
    Stdout(Console),
    Otlp(Box<Otlp>),
    Axiom(Box<AxiomStore>),
}

/// A store of objects.
enum ObjectsStore {
    Stdout(Console),
    S3(Box<S3Store>),
    Otlp(Box<Otlp>),
    Disk(DiskStore),
}

/// A batch on its way. What is dropped without having been settled was lost in the shutdown.
struct Parcel {
    batch: RecordBatch,
    unsettled: u64,
    bytes: usize,
    ledger: Arc<Ledger>,
    queue: Arc<Queue>,
}

struct Queue {
    bytes: AtomicUsize,
    patience: Patience,
    memory: Arc<Memory>,
    counts: fn(&Ledger) -> Counts<'_>,
}

/// Where a kind of thing is counted.
struct Counts<'a> {
    seen: &'a Count,
    delivered: &'a Count,
    failed: &'a Count,
    queue_full: &'a Count,
    shutdown: &'a Count,
}

fn event_counts(ledger: &Ledger) -> Counts<'_> {
    Counts {
        seen: &ledger.events_seen,
        delivered: &ledger.events_delivered,
        failed: &ledger.events_failed,
        queue_full: &ledger.events_queue_full,
        shutdown: &ledger.events_shutdown,
    }
}

fn object_counts(ledger: &Ledger) -> Counts<'_> {
    Counts {
        seen: &ledger.objects_seen,
        delivered: &ledger.objects_delivered,
        failed: &ledger.objects_failed,
        queue_full: &ledger.objects_queue_full,
        shutdown: &ledger.objects_shutdown,
    }
}

impl Parcel {
    fn settle(&mut self, delivered: u64, failed: u64) {
        let counts = (self.queue.counts)(&self.ledger);
        counts.delivered.add(delivered);
        counts.failed.add(failed);
        self.unsettled -= delivered + failed;
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        (self.queue.counts)(&self.ledger).shutdown.add(self.unsettled);
        self.queue.leave(self.bytes);
    }
}

impl Queue {
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
    fn enter_anyway(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.memory.changed(0, bytes);
    }

    /// Waits until there is room. Only this queue counts: what else the agent keeps may wait for us. An empty queue takes
    /// anything, however large.
    fn wait_to_enter(&self, bytes: usize) {
        while self.bytes.load(Ordering::Relaxed) > 0 && self.bytes.load(Ordering::Relaxed) + bytes > QUEUE_BYTES {
            std::thread::sleep(FULL_PAUSE);
        }
        self.enter_anyway(bytes);
    }

    fn leave(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.memory.changed(bytes, 0);
    }
}

/// The end of a queue at which the capture hands over.
#[derive(Clone)]
pub struct Outbox {
    sender: mpsc::UnboundedSender<Parcel>,
    queue: Arc<Queue>,
    ledger: Arc<Ledger>,
}

impl Outbox {
    fn new(
        ledger: &Arc<Ledger>,
        memory: &Arc<Memory>,
        patience: Patience,
        counts: fn(&Ledger) -> Counts<'_>,
    ) -> (Self, mpsc::UnboundedReceiver<Parcel>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let queue = Arc::new(Queue { bytes: AtomicUsize::new(0), patience, memory: memory.clone(), counts });
        (Self { sender, queue, ledger: ledger.clone() }, receiver)
    }

    /// Hands a batch over. A full queue is a counted loss, or makes whoever has patience wait.
    pub fn offer(&self, batch: RecordBatch) {
        self.hand_over(batch, Queue::wait_to_enter);
    }

    /// The same from a store's own task, which must not wait: whoever has patience gets room that is not there. There is
    /// an end to it, since the queue of objects has one.
    fn offer_from_task(&self, batch: RecordBatch) {
        self.hand_over(batch, Queue::enter_anyway);
    }

    fn hand_over(&self, batch: RecordBatch, with_patience: fn(&Queue, usize)) {
        let rows = batch.num_rows() as u64;
        let bytes = batch.get_array_memory_size();
        let counts = (self.queue.counts)(&self.ledger);
        counts.seen.add(rows);
        if self.queue.patience == Patience::UntilRoom {
            with_patience(&self.queue, bytes);
        } else if !self.queue.enter(bytes) {
            counts.queue_full.add(rows);
            return;
        }
        let parcel = Parcel { batch, unsettled: rows, bytes, ledger: self.ledger.clone(), queue: self.queue.clone() };
        // A parcel that comes back is dropped, and counts itself.
        let _ = self.sender.send(parcel);
    }
}

/// The queues of all stores, in the order of the configuration; `None`: the store takes nothing.
#[derive(Clone, Default)]
pub struct Outboxes {
    events: Vec<Option<Outbox>>,
    objects: Vec<Option<Outbox>>,
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
}

/// The queues and the tasks behind them.
pub struct Delivery {
    /// The ends at which the capture hands over.
    pub to: Outboxes,
    tasks: JoinSet<()>,
}

impl Delivery {
    /// Opens the stores and starts the tasks. Must be called inside of a runtime.
    ///
    /// # Errors
    ///
    /// A store cannot be set up.
    pub fn start(
        stores: &Stores,
        console: &Console,
        ledger: &Arc<Ledger>,
        memory: &Arc<Memory>,
        patience: Patience,
    ) -> Result<Self, SinkError> {
        let mut tasks = JoinSet::new();
        let mut to = Outboxes::default();
        for store in &stores.events {
            let outbox = Events::open(store, console)?.map(|store| {
                let (outbox, parcels) = Outbox::new(ledger, memory, patience, event_counts);
                tasks.spawn(deliver_events(store, parcels));
                outbox
            });
            to.events.push(outbox);
        }
        for (store, records) in &stores.objects {
            let outbox = ObjectsStore::open(store, console, ledger)?.map(|store| {
                let (outbox, parcels) = Outbox::new(ledger, memory, patience, object_counts);
                tasks.spawn(deliver_objects(Arc::new(store), parcels, to.events(*records).cloned()));
                outbox
            });
            to.objects.push(outbox);
        }
        Ok(Self { to, tasks })
    }

    /// Waits until both queues are empty, at most until the deadline; what is left then is counted.
    pub async fn drain(self, deadline: Duration) {
        let Self { to, mut tasks } = self;
        drop(to);
        let all = async {
            while let Some(ended) = tasks.join_next().await {
                if let Err(error) = ended {
                    tracing::error!(%error, "a delivery task has crashed; what it held is counted as lost");
                }
            }
        };
        if tokio::time::timeout(deadline, all).await.is_err() {
            tracing::warn!("the stores did not take everything in time; what is left is counted as lost");
            tasks.shutdown().await;
        }
    }
}

/// Tries a few times with growing pauses.
async fn persist<T, F: Future<Output = Result<T, SinkError>>>(attempt: impl Fn() -> F) -> Result<T, SinkError> {
    for pause in PAUSES {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) => tracing::debug!(%error, "delivery is tried again"),
        }
        tokio::time::sleep(pause).await;
    }
    attempt().await
}

async fn deliver_events(store: Events, mut parcels: mpsc::UnboundedReceiver<Parcel>) {
    let mut failing = false;
    let mut waiting = VecDeque::new();
    loop {
        if waiting.is_empty() {
            match parcels.recv().await {
                Some(parcel) => waiting.push_back(parcel),
                None => return,
            }
        }
        let mut rows: usize = waiting.iter().map(|parcel: &Parcel| parcel.batch.num_rows()).sum();
        while rows < EVENTS_AT_ONCE
            && let Ok(next) = parcels.try_recv()
        {
            rows += next.batch.num_rows();
            waiting.push_back(next);
        }
        deliver_together(&store, &mut waiting, &mut failing).await;
    }
}

/// Sends the parcels at the front that hold events of one type, in pieces of bounded size.
async fn deliver_together(store: &Events, waiting: &mut VecDeque<Parcel>, failing: &mut bool) {
    let Some(schema) = waiting.front().map(|parcel| parcel.batch.schema()) else { return };
    let alike = waiting.iter().take_while(|parcel| parcel.batch.schema_ref() == &schema).count();
    let mut together: Vec<Parcel> = waiting.drain(..alike).collect();
    let joined = match concat_batches(&schema, together.iter().map(|parcel| &parcel.batch)) {
        Ok(joined) => joined,
        Err(error) => {
            tracing::error!(%error, "events cannot be joined");
            for parcel in &mut together {
                parcel.settle(0, parcel.unsettled);
            }
            return;
        }
    };
    let mut at = 0;
    while at < joined.num_rows() {
        let piece = joined.slice(at, EVENTS_AT_ONCE.min(joined.num_rows() - at));
        at += piece.num_rows();
        let rows = piece.num_rows() as u64;
        let result = store.send(&piece).await;
        let refused = *result.as_ref().unwrap_or(&rows);
        if refused > 0 && result.is_ok() {
            tracing::warn!("a store refused {refused} of {rows} events; they are lost and counted");
        }
        settle(&mut together, rows - refused, true);
        settle(&mut together, refused, false);
        report(failing, result.err().as_ref(), "events");
    }
}

/// Settles the first rows of several parcels that are not settled yet.
fn settle(parcels: &mut [Parcel], mut rows: u64, delivered: bool) {
    for parcel in parcels {
        let n = rows.min(parcel.unsettled);
        if delivered {
            parcel.settle(n, 0);
        } else {
            parcel.settle(0, n);
        }
        rows -= n;
    }
}

/// A store that begins to fail, or works again, is said once.
fn report(failing: &mut bool, error: Option<&SinkError>, what: &str) {
    match (error, *failing) {
        (Some(error), false) => tracing::error!(%error, "{what} are lost and counted until the store works again"),
        (None, true) => tracing::info!("{what} are delivered again"),
        _ => {}
    }
    *failing = error.is_some();
}

async fn deliver_objects(
    store: Arc<ObjectsStore>,
    mut parcels: mpsc::UnboundedReceiver<Parcel>,
    events: Option<Outbox>,
) {
    let slots = Arc::new(Semaphore::new(UPLOADS));
    let mut batches = JoinSet::new();
    let failing = Arc::new(std::sync::atomic::AtomicBool::new(false));
    while let Some(parcel) = parcels.recv().await {
        // As many batches as uploads: none waits for another one's slow object.
        while batches.len() >= UPLOADS {
            batches.join_next().await;
        }
        batches.spawn(deliver_batch(store.clone(), parcel, slots.clone(), events.clone(), failing.clone()));
    }
    while batches.join_next().await.is_some() {}
}

/// Stores the objects of a batch; then, and not before, their records go to the event store.
async fn deliver_batch(
    store: Arc<ObjectsStore>,
    mut parcel: Parcel,
    slots: Arc<Semaphore>,
    events: Option<Outbox>,
    failing: Arc<std::sync::atomic::AtomicBool>,
) {
    let batch = parcel.batch.clone();
    let rows = batch.num_rows();
    let mut urls = vec![None; rows];
    let mut apart = 0..rows;
    // Standard output takes everything at once: nothing is won side by side.
    if let ObjectsStore::Stdout(console) = &*store {
        apart = 0..0;
        match print_objects(console, &batch) {
            Ok(()) => {
                parcel.settle(rows as u64, 0);
                urls.fill(Some(String::new()));
            }
            Err(_) => parcel.settle(0, rows as u64),
        }
    }
    let mut uploads = JoinSet::new();
    for row in apart {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let (store, batch) = (store.clone(), batch.clone());
        uploads.spawn(async move {
            let result = persist(|| store.put(&batch, row)).await;
            drop(slot);
            (row, result)
        });
    }
    while let Some(done) = uploads.join_next().await {
        let Ok((row, result)) = done else { continue };
        let mut was_failing = failing.load(Ordering::Relaxed);
        report(&mut was_failing, result.as_ref().err(), "objects");
        failing.store(was_failing, Ordering::Relaxed);
        match result {
            Ok(url) => {
                parcel.settle(1, 0);
                urls[row] = Some(url);
            }
            Err(_) => parcel.settle(0, 1),
        }
    }
    if let (Some(events), Some(objects)) = (events, Objects::of(&batch)) {
        let records = objects.records(&urls);
        if records.num_rows() > 0 {
            events.offer_from_task(records);
        }
    }
}

/// The bytes of an object, shared with the batch.
fn bytes_of(objects: &Objects<'_>, row: usize) -> Bytes {
    Bytes::from_owner(objects.bytes(row))
}

impl Events {
    fn open(store: &EventStore, console: &Console) -> Result<Option<Self>, SinkError> {
        Ok(Some(match store {
            EventStore::Disabled => return Ok(None),
            EventStore::Stdout => Self::Stdout(console.clone()),
            EventStore::Otel(otel) => Self::Otlp(Box::new(Otlp::new(otel, "qtap.eventstore", console)?)),
            EventStore::Axiom(axiom) => Self::Axiom(Box::new(AxiomStore::new(axiom)?)),
        }))
    }

    /// Sends a batch; the answer is how many of its events the store refused for good.
    async fn send(&self, batch: &RecordBatch) -> Result<u64, SinkError> {
        match self {
            Self::Stdout(console) => print_events(console, batch).map(|()| 0),
            Self::Otlp(otlp) => persist(|| otlp.events(batch)).await.map(|()| 0),
            Self::Axiom(axiom) => persist(|| axiom.events(batch)).await,
        }
    }
}

impl ObjectsStore {
    fn open(store: &ObjectStore, console: &Console, ledger: &Arc<Ledger>) -> Result<Option<Self>, SinkError> {
        Ok(Some(match store {
            ObjectStore::Disabled => return Ok(None),
            ObjectStore::Stdout => Self::Stdout(console.clone()),
            ObjectStore::S3(s3) => Self::S3(Box::new(S3Store::new(s3.clone(), ledger.clone())?)),
            ObjectStore::Otel(otel) => Self::Otlp(Box::new(Otlp::new(otel, "qtap.objectstore", console)?)),
            ObjectStore::Disk { path, access_url } => {
                Self::Disk(DiskStore::open(path.clone(), access_url.clone(), uring_allowed())?)
            }
        }))
    }

    async fn put(&self, batch: &RecordBatch, row: usize) -> Result<String, SinkError> {
        let objects = Objects::of(batch)
            .ok_or(SinkError::Refused { store: "objects", reason: "the batch has another schema".into() })?;
        let digest = objects.digest.value(row);
        match self {
            Self::S3(s3) => s3.put(digest, objects.content_type.value(row), bytes_of(&objects, row)).await,
            Self::Disk(disk) => disk.put(digest, bytes_of(&objects, row)).await,
            Self::Otlp(otlp) => otlp.object(&objects, row, batch).await,
            Self::Stdout(console) => print_objects(console, &batch.slice(row, 1)).map(|()| String::new()),
        }
    }
}
