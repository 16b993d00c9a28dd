//! From the capture to the stores: a queue and a lane for each, and the promise that an event never precedes its object.

use std::{sync::Arc, time::Duration};

use ringtap_batch::{budget::Memory, ledger::Ledger};
use tokio::{sync::watch, task::JoinSet};

use super::{
    Patience, SinkError,
    console::Console,
    lane::{ATTEMPTS, Lane},
    outbox::{Common, Outbox, Outboxes, Parcels},
    stores::{Events, ObjectsStore, Store},
};
use crate::{
    config::checked::{Stores, WhenFull},
    files::Files,
    spool::{Held, Kind, SharedLog, Spool},
};

/// Of the time until a deadline, what is kept for leaving things in the spool.
const LEAVE: Duration = Duration::from_secs(1);
/// Of the rest, the part that objects have; events end after them.
const OBJECTS_PART: f64 = 0.7;

/// What outlives a configuration.
#[derive(Clone)]
pub struct Ground {
    /// Standard output.
    pub console: Console,
    /// Where things are counted.
    pub ledger: Arc<Ledger>,
    /// What the whole agent keeps.
    pub memory: Arc<Memory>,
    /// What happens when a queue is full.
    pub patience: Patience,
    /// Writes files.
    pub files: Files,
    /// Where waits what stores do not take; `None`: in memory alone.
    pub spool: Option<Arc<Spool>>,
    /// Becomes true when the agent stops: deliveries of configurations before hurry as well.
    pub stops: watch::Sender<bool>,
}

/// The queues and the tasks behind them.
pub struct Delivery {
    /// The ends at which the capture hands over.
    pub to: Outboxes,
    objects: Lanes,
    events: Lanes,
    stops: watch::Receiver<bool>,
}

/// Lanes that end together.
struct Lanes {
    tasks: JoinSet<()>,
    hurry: watch::Sender<bool>,
}

impl Delivery {
    /// Opens the stores and starts the tasks. Must be called inside of a runtime.
    ///
    /// # Errors
    ///
    /// A store, or its log in the spool, cannot be set up.
    pub fn start(stores: &Stores, ground: &Ground) -> Result<Self, SinkError> {
        let blocks = stores.spool.as_ref().is_some_and(|spool| spool.when_full == WhenFull::Block);
        let common = Common {
            ledger: ground.ledger.clone(),
            memory: ground.memory.clone(),
            patience: if blocks && ground.spool.is_some() { Patience::UntilRoom } else { ground.patience },
            held: ground.spool.as_ref().map_or_else(Held::default, |spool| spool.held().clone()),
        };
        let (mut to, mut objects, mut events) = (Outboxes::default(), Lanes::new(), Lanes::new());
        let mut names = Names::default();
        for (at, store) in stores.events.iter().enumerate() {
            let outbox = match Events::open(store, &ground.console)? {
                Some(store) => {
                    let (outbox, parcels) = Outbox::new(Kind::Events, &common);
                    let log = names.log_of(&store, stores.event_ids.get(at), ground)?;
                    events.start(store, &outbox, parcels, log, ground);
                    Some(outbox)
                }
                None => None,
            };
            to.events.push(outbox);
        }
        for (at, (store, records)) in stores.objects.iter().enumerate() {
            let records = to.events(*records).cloned();
            let outbox = match ObjectsStore::open(store, records, &ground.console, &ground.files, &ground.ledger)? {
                Some(store) => {
                    let (outbox, parcels) = Outbox::new(Kind::Objects, &common);
                    let store = Arc::new(store);
                    let log = names.log_of(&store, stores.object_ids.get(at), ground)?;
                    objects.start(store, &outbox, parcels, log, ground);
                    Some(outbox)
                }
                None => None,
            };
            to.objects.push(outbox);
        }
        Ok(Self { to, objects, events, stops: ground.stops.subscribe() })
    }

    /// Waits until everything is delivered, at most until the deadline; what is left then waits in the spool for the next
    /// agent, or is counted as lost.
    pub async fn drain(self, deadline: Duration) {
        let Self { to, objects, events, .. } = self;
        drop(to);
        let begun = std::time::Instant::now();
        let part = deadline.saturating_sub(LEAVE).mul_f64(OBJECTS_PART);
        objects.end(tokio::time::sleep(part)).await;
        // They have told of everything that they stored.
        let rest = deadline.saturating_sub(begun.elapsed()).saturating_sub(LEAVE);
        events.end(tokio::time::sleep(rest)).await;
    }

    /// The same where there is time until the agent stops: for a configuration that does not act any more, and for a
    /// replay, which does not stop.
    pub async fn drain_until_stop(self) {
        let Self { to, objects, events, stops } = self;
        drop(to);
        objects.end(stopped(stops.clone())).await;
        events.end(stopped(stops)).await;
    }
}

/// Ends when the agent stops.
async fn stopped(mut stops: watch::Receiver<bool>) {
    if stops.wait_for(|stops| *stops).await.is_err() {
        // Nobody is left who could stop it.
        std::future::pending::<()>().await;
    }
}

impl Lanes {
    fn new() -> Self {
        Self { tasks: JoinSet::new(), hurry: watch::Sender::new(false) }
    }

    fn start<S: Store>(
        &mut self,
        store: S,
        outbox: &Outbox,
        parcels: Parcels,
        log: Option<SharedLog>,
        ground: &Ground,
    ) {
        let attempts = (ground.patience == Patience::UntilRoom).then_some(ATTEMPTS);
        let age_max = ground.spool.as_ref().map_or(Duration::MAX, |spool| spool.age_max());
        let (queue, patience) = (outbox.queue().clone(), (attempts, age_max));
        let lane = Lane::new(store, parcels, queue, log, patience, self.hurry.subscribe());
        self.tasks.spawn(lane.run());
    }

    /// Waits for the lanes, at most until `deadline` comes.
    async fn end(self, deadline: impl Future<Output = ()>) {
        let Self { mut tasks, hurry } = self;
        tokio::select! {
            () = joined(&mut tasks) => return,
            () = deadline => {}
        }
        tracing::warn!("the stores did not take everything in time");
        // A lane that is gone needs not hurry.
        let _ = hurry.send(true);
        if tokio::time::timeout(LEAVE, joined(&mut tasks)).await.is_err() {
            tasks.shutdown().await;
        }
    }
}

/// Names of logs that are given away: each store has one of its own.
#[derive(Default)]
struct Names(Vec<String>);

impl Names {
    /// The store's log in the spool, if it has one. What tells stores with one address apart is the `id` that they have, or
    /// else their order.
    fn log_of<S: Store>(
        &mut self,
        store: &S,
        id: Option<&Option<String>>,
        ground: &Ground,
    ) -> Result<Option<SharedLog>, SinkError> {
        let Some((spool, identity)) = ground.spool.as_ref().zip(store.identity()) else { return Ok(None) };
        let mut name = match id.and_then(Option::as_deref) {
            Some(id) => format!("{} {identity} id {id}", S::WHAT),
            None => format!("{} {identity}", S::WHAT),
        };
        while self.0.contains(&name) {
            name.push_str(" again");
        }
        let log = spool.log(S::WHAT, &name);
        self.0.push(name);
        log.map(Some).map_err(|error| SinkError::SetUp { store: "the spool", reason: error.to_string() })
    }
}

async fn joined(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a delivery task has crashed; what it held is counted as lost");
        }
    }
}
