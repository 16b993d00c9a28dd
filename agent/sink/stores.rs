//! The stores that a configuration names: how each is opened, and one attempt to hand it a load.

use std::{sync::Arc, time::Duration};

use arrow_array::{BooleanArray, RecordBatch};
use bytes::Bytes;
use ringtap_batch::{ledger::Ledger, objects::Objects};
use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    SinkError,
    axiom::AxiomStore,
    console::Console,
    disk::DiskStore,
    load::{Load, Shape},
    otlp::Otlp,
    outbox::Outbox,
    s3::S3Store,
    shown,
    stdout::{print_events, print_objects},
};
use crate::{
    config::checked::{EventStore, ObjectStore},
    files::Files,
};

/// Objects on their way at most.
const UPLOADS: usize = 32;
/// Requests with events on their way at most.
const REQUESTS: usize = 4;
/// Of one request with events.
const EVENTS: Shape = Shape { rows: 8192, bytes: 1 << 20, linger: Duration::from_millis(200) };
/// Standard output takes things as they come.
const LINES: Shape = Shape { rows: usize::MAX, bytes: usize::MAX, linger: Duration::ZERO };
/// Of what is in the hands of one task; objects go one by one all the same.
const OBJECTS: Shape = Shape { rows: 1024, bytes: 16 << 20, linger: Duration::ZERO };

/// How an attempt ended.
pub enum Landed {
    /// Everything is settled.
    Done,
    /// What is left can be sent later.
    Later {
        /// Why not now.
        reason: SinkError,
        /// How long the store wants to be left alone.
        after: Option<Duration>,
    },
}

/// Takes loads.
pub trait Store: Send + Sync + 'static {
    /// What it takes, for messages.
    const WHAT: &'static str;

    /// One attempt. What is settled is gone from the load.
    fn send(&self, load: &mut Load) -> impl Future<Output = Landed> + Send;

    /// How its loads are made.
    fn shape(&self) -> Shape;

    /// Loads on their way at most.
    fn window(&self) -> usize;

    /// A text that tells it from all other stores; `None`: nothing of it waits on the disk.
    fn identity(&self) -> Option<String>;
}

/// A store of events.
pub enum Events {
    /// Standard output.
    Stdout(Console),
    /// A collector.
    Otlp(Box<Otlp>, String),
    /// A dataset.
    Axiom(Box<AxiomStore>, String),
}

/// A store of objects, and where the records of what it took go.
pub struct ObjectsStore {
    to: Place,
    records: Option<Outbox>,
    slots: Arc<Semaphore>,
    identity: Option<String>,
}

enum Place {
    Stdout(Console),
    S3(Box<S3Store>),
    Otlp(Box<Otlp>),
    Disk(DiskStore),
}

impl Events {
    /// `None`: it takes nothing.
    ///
    /// # Errors
    ///
    /// It cannot be set up.
    pub fn open(store: &EventStore, console: &Console) -> Result<Option<Self>, SinkError> {
        Ok(Some(match store {
            EventStore::Disabled => return Ok(None),
            EventStore::Stdout => Self::Stdout(console.clone()),
            EventStore::Otel(otel) => Self::Otlp(
                Box::new(Otlp::new(otel, "qtap.eventstore", console)?),
                format!("otel {}", shown(&otel.endpoint)),
            ),
            EventStore::Axiom(axiom) => {
                Self::Axiom(Box::new(AxiomStore::new(axiom)?), format!("axiom {} {}", shown(&axiom.url), axiom.dataset))
            }
        }))
    }

    fn is_console(&self) -> bool {
        match self {
            Self::Stdout(_) => true,
            Self::Otlp(otlp, _) => otlp.is_console(),
            Self::Axiom(..) => false,
        }
    }

    /// The answer is how many of the events the store refused for good.
    async fn attempt(&self, batch: &RecordBatch) -> Result<u64, SinkError> {
        match self {
            Self::Stdout(console) => print_events(console, batch).map(|()| 0),
            Self::Otlp(otlp, _) => otlp.events(batch).await,
            Self::Axiom(axiom, _) => axiom.events(batch).await,
        }
    }
}

impl Store for Events {
    const WHAT: &'static str = "events";

    async fn send(&self, load: &mut Load) -> Landed {
        let rows = load.rows();
        let error = match self.attempt(&load.batch).await {
            Ok(refused) => {
                let refused = refused.min(rows);
                if refused > 0 {
                    tracing::warn!("a store refused {refused} of {rows} events; they are lost and counted");
                }
                load.settle(rows - refused, refused);
                return Landed::Done;
            }
            Err(error) => error,
        };
        match can_be_sent_later(error) {
            Ok(later) => later,
            Err(refused) => {
                tracing::error!(error = %refused, "{rows} events are refused for good; they are lost and counted");
                load.settle(0, rows);
                Landed::Done
            }
        }
    }

    fn shape(&self) -> Shape {
        if self.is_console() { LINES } else { EVENTS }
    }

    fn window(&self) -> usize {
        if self.is_console() { 1 } else { REQUESTS }
    }

    fn identity(&self) -> Option<String> {
        match self {
            _ if self.is_console() => None,
            Self::Stdout(_) => None,
            Self::Otlp(_, identity) | Self::Axiom(_, identity) => Some(identity.clone()),
        }
    }
}

impl ObjectsStore {
    /// `records`: where the records of stored objects go. `None`: it takes nothing.
    ///
    /// # Errors
    ///
    /// It cannot be set up.
    pub fn open(
        store: &ObjectStore,
        records: Option<Outbox>,
        console: &Console,
        files: &Files,
        ledger: &Arc<Ledger>,
    ) -> Result<Option<Self>, SinkError> {
        let (to, identity) = match store {
            ObjectStore::Disabled => return Ok(None),
            ObjectStore::Stdout => (Place::Stdout(console.clone()), None),
            ObjectStore::S3(s3) => (
                Place::S3(Box::new(S3Store::new(s3.clone(), ledger.clone())?)),
                Some(format!("s3 {} {}/{}", s3.endpoint, s3.bucket, s3.prefix)),
            ),
            ObjectStore::Otel(otel) => {
                let otlp = Otlp::new(otel, "qtap.objectstore", console)?;
                let identity = (!otlp.is_console()).then(|| format!("otel {}", shown(&otel.endpoint)));
                (Place::Otlp(Box::new(otlp)), identity)
            }
            ObjectStore::Disk { path, access_url } => {
                let disk = DiskStore::open(path.clone(), access_url.clone(), files.clone())?;
                (Place::Disk(disk), Some(format!("disk {}", path.display())))
            }
        };
        Ok(Some(Self { to, records, slots: Arc::new(Semaphore::new(UPLOADS)), identity }))
    }

    /// Standard output takes everything at once: nothing is won side by side.
    fn print(&self, console: &Console, load: &mut Load) -> Landed {
        let rows = load.rows();
        let urls = match print_objects(console, &load.batch) {
            Ok(()) => vec![Some(String::new()); load.batch.num_rows()],
            Err(_) => vec![None; load.batch.num_rows()],
        };
        if urls.first().is_some_and(Option::is_some) {
            load.settle(rows, 0);
        } else {
            load.settle(0, rows);
        }
        self.tell(&load.batch, &urls);
        Landed::Done
    }

    /// Hands the records of stored objects on; not before.
    fn tell(&self, batch: &RecordBatch, urls: &[Option<String>]) {
        let Some((events, objects)) = self.records.as_ref().zip(Objects::of(batch)) else { return };
        let records = objects.records(urls);
        if records.num_rows() > 0 {
            events.offer_from_task(records);
        }
    }
}

impl Store for Arc<ObjectsStore> {
    const WHAT: &'static str = "objects";

    async fn send(&self, load: &mut Load) -> Landed {
        if let Place::Stdout(console) = &self.to {
            return self.print(console, load);
        }
        let rows = load.batch.num_rows();
        let mut uploads = JoinSet::new();
        for row in 0..rows {
            let Ok(slot) = self.slots.clone().acquire_owned().await else { break };
            let (store, batch) = (self.clone(), load.batch.clone());
            uploads.spawn(async move {
                let result = store.to.put(&batch, row).await;
                drop(slot);
                (row, result)
            });
        }
        let (mut urls, mut left, mut landed) = (vec![None; rows], vec![true; rows], Landed::Done);
        let mut failed = 0;
        while let Some(done) = uploads.join_next().await {
            // One that crashed is sent again.
            let Ok((row, result)) = done else { continue };
            left[row] = false;
            match result {
                Ok(url) => urls[row] = Some(url),
                Err(error) => match can_be_sent_later(error) {
                    Ok(later) => (left[row], landed) = (true, later),
                    Err(refused) => {
                        tracing::error!(error = %refused, "an object is refused for good; it is lost and counted");
                        failed += 1;
                    }
                },
            }
        }
        // At once, and behind the last wait: whoever breaks off sends everything again.
        load.settle(urls.iter().flatten().count() as u64, failed);
        self.tell(&load.batch, &urls);
        load.keep(&BooleanArray::from(left));
        if load.rows() > 0 && matches!(landed, Landed::Done) {
            let reason = SinkError::unavailable("objects", "an upload has crashed".to_owned());
            landed = Landed::Later { reason, after: None };
        }
        landed
    }

    fn shape(&self) -> Shape {
        if matches!(self.to, Place::Stdout(_)) { LINES } else { OBJECTS }
    }

    fn window(&self) -> usize {
        // As many loads as uploads: none waits for another one's slow object.
        if matches!(self.to, Place::Stdout(_)) { 1 } else { UPLOADS }
    }

    fn identity(&self) -> Option<String> {
        self.identity.clone()
    }
}

impl Place {
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

/// The bytes of an object, shared with the batch.
fn bytes_of(objects: &Objects<'_>, row: usize) -> Bytes {
    Bytes::from_owner(objects.bytes(row))
}

/// What may go well another time; the error itself if it will not.
fn can_be_sent_later(error: SinkError) -> Result<Landed, SinkError> {
    match error {
        SinkError::Unavailable { after, .. } => Ok(Landed::Later { reason: error, after }),
        SinkError::Disk(_) => Ok(Landed::Later { reason: error, after: None }),
        SinkError::Refused { .. } | SinkError::SetUp { .. } | SinkError::Console => Err(error),
    }
}
