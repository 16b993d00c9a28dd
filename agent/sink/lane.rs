//! The way to one store: what comes is sent at once as long as the store takes it; what it does not take waits, on the
//! disk if there is a spool, and goes in order when it does.
//!
//! - At most a window of loads is on its way. After a failure there is one, by which the store is tried, until one
//!   arrives.
//! - What waits goes to the spool when the store fails, and when it is slow; while anything lies there, everything new goes
//!   there too, behind it.
//! - Without a spool, and while the spool has no room, it waits in the queue, which is bounded and counts what it drops.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    SinkError,
    backoff::Backoff,
    load::{Gatherer, Load},
    outbox::{Parcels, Queue},
    stores::{Landed, Store},
};
use crate::spool::{SharedLog, SpoolError};

/// A store is slow when loads wait longer than this for a place in the window.
const SLOW: Duration = Duration::from_secs(2);
/// Or when so many bytes wait.
const SLOW_BYTES: usize = 32 << 20;
/// Loads that wait in the lane when there is no spool; the rest waits in the queue.
const READY_MAX: usize = 64;
/// After the spool has refused something it is left alone for this long.
const STUCK: Duration = Duration::from_secs(1);
/// Bytes out of the spool that are in memory at most, but for one load.
const FROM_SPOOL: usize = 64 << 20;
/// Attempts after which a load is given up where nobody waits for a store to come back: in a replay, and for what a
/// configuration before has left without a spool.
pub const ATTEMPTS: usize = 7;
/// A store that fails, works and fails again is said to do so no more often.
const TOLD_AGAIN: Duration = Duration::from_secs(30);
/// How soon a lane looks again where something has just become possible, or stays impossible.
const AGAIN: Duration = Duration::from_millis(100);
/// How long nothing has to happen for a lane to look around.
const IDLE: Duration = Duration::from_mins(1);

/// What a lane is made of.
pub struct Lane<S> {
    store: Arc<S>,
    parcels: Parcels,
    queue: Arc<Queue>,
    spool: Option<SharedLog>,
    /// Attempts after which a load is given up; `None`: as long as the agent runs.
    attempts_max: Option<usize>,
    hurry: watch::Receiver<bool>,
    gatherer: Gatherer,
    ready: VecDeque<Load>,
    /// Sent in vain, in the order of their numbers; those from the spool first.
    stalled: VecDeque<Load>,
    flights: JoinSet<(Load, Landed)>,
    flying_from_spool: usize,
    down: Option<Backoff>,
    stuck: Option<Instant>,
    /// It was said that the store fails, and when.
    told: bool,
    told_at: Option<Instant>,
    /// When it was said that the spool is full.
    told_full: Option<Instant>,
    /// Longer nothing is tried.
    age_max: Duration,
    /// A load was given up, and none arrived since.
    given_up: bool,
    /// Nothing more will come.
    closed: bool,
}

impl<S: Store> Lane<S> {
    /// A lane that does not move yet.
    pub fn new(
        store: S,
        parcels: Parcels,
        queue: Arc<Queue>,
        spool: Option<SharedLog>,
        (attempts_max, age_max): (Option<usize>, Duration),
        hurry: watch::Receiver<bool>,
    ) -> Self {
        let gatherer = Gatherer::new(store.shape());
        Self {
            store: Arc::new(store),
            parcels,
            queue,
            spool,
            attempts_max,
            hurry,
            gatherer,
            ready: VecDeque::new(),
            stalled: VecDeque::new(),
            flights: JoinSet::new(),
            flying_from_spool: 0,
            down: None,
            stuck: None,
            told: false,
            told_at: None,
            told_full: None,
            age_max,
            given_up: false,
            closed: false,
        }
    }

    /// Delivers until nothing more comes and everything is settled; or, when there is no time left or the store fails at
    /// the end, until what is left lies in the spool.
    pub async fn run(mut self) {
        loop {
            self.spill().await;
            self.launch().await;
            if self.is_hurried() || (self.closed && self.down.is_some() && self.spool.is_some()) {
                return self.leave().await;
            }
            if self.closed && self.flights.is_empty() && self.stalled.is_empty() && self.ready.is_empty() {
                if self.has_spooled().await && self.down.is_none() {
                    continue;
                }
                return;
            }
            let (room, next) = (!self.closed && self.has_room(), self.next_time());
            tokio::select! {
                Some(landed) = self.flights.join_next(), if !self.flights.is_empty() => {
                    if let Ok((load, landed)) = landed {
                        self.land(load, landed).await;
                    }
                }
                parcel = self.parcels.recv(), if room => match parcel {
                    Some(parcel) => self.gatherer.take(parcel, &mut self.ready),
                    None => self.closed = true,
                },
                () = sleep_until(next) => {}
                // A sender that is gone means the same.
                _ = self.hurry.changed() => {}
            }
            self.gatherer.due(self.closed, &mut self.ready);
        }
    }

    fn is_hurried(&self) -> bool {
        *self.hurry.borrow() || self.hurry.has_changed().is_err()
    }

    fn has_room(&self) -> bool {
        self.ready.len() < READY_MAX || (self.spool.is_some() && self.stuck.is_none())
    }

    async fn has_spooled(&self) -> bool {
        match &self.spool {
            Some(log) => log.lock().await.has_unread(),
            None => false,
        }
    }

    fn next_time(&self) -> Instant {
        let now = Instant::now();
        let slow = self.ready.front().map(|load| load.since + SLOW);
        // What has passed was acted on, but for a pause that ended in this moment.
        let later = |time: Instant| if time > now { time } else { now + AGAIN };
        let times = [self.down.map(|down| later(down.until)), self.stuck.map(later), slow.map(later)];
        times.into_iter().chain([self.gatherer.next()]).flatten().min().unwrap_or(now + IDLE)
    }

    /// Writes to the spool what has to wait.
    async fn spill(&mut self) {
        if self.stuck.is_some_and(|until| until <= Instant::now()) {
            self.stuck = None;
        }
        let Some(log) = self.spool.clone().filter(|_| self.stuck.is_none()) else { return };
        let mut log = log.lock().await;
        if self.down.is_some() && self.flights.is_empty() && !log.has_unread() {
            // These are older than anything else.
            while let Some(at) = self.stalled.iter().position(|load| load.ticket.is_none()) {
                let Some(load) = self.stalled.remove(at) else { break };
                if let Err(load) = self.append(&mut log, load).await {
                    return self.stalled.insert(at, load);
                }
            }
        }
        let waits: usize = self.ready.iter().map(Load::bytes).sum();
        let slow = waits > SLOW_BYTES || self.ready.front().is_some_and(|load| load.since.elapsed() > SLOW);
        let fails = self.down.is_some() && self.flights.is_empty();
        if !(log.has_unread() || slow || fails) {
            return;
        }
        while let Some(load) = self.ready.pop_front() {
            if let Err(load) = self.append(&mut log, load).await {
                return self.ready.push_front(load);
            }
        }
    }

    /// Writes a load to the spool, in pieces if it is too large for it; what has no room comes back.
    async fn append(&mut self, log: &mut crate::spool::Log, mut load: Load) -> Result<(), Load> {
        let mut piece = load.batch.num_rows();
        while load.rows() > 0 {
            piece = piece.min(load.batch.num_rows());
            let appended = log.append(&load.batch.slice(0, piece)).await;
            self.queue.count_lost(log.take_lost());
            match appended {
                Ok(()) => load.leave_in_spool(piece),
                Err(SpoolError::TooLarge) if piece > 1 => piece = piece.div_ceil(2),
                Err(error @ (SpoolError::Form(_) | SpoolError::TooLarge)) => {
                    tracing::error!(%error, "{piece} {} are lost and counted", S::WHAT);
                    load.fail_first(piece);
                }
                Err(error) => {
                    self.stuck = Some(Instant::now() + STUCK);
                    if self.told_full.is_none_or(|at| at.elapsed() > TOLD_AGAIN) {
                        self.told_full = Some(Instant::now());
                        tracing::error!(%error, "{} wait in memory, and are lost and counted when that is full", S::WHAT);
                    }
                    return Err(load);
                }
            }
        }
        Ok(())
    }

    /// Sends what can be sent.
    async fn launch(&mut self) {
        loop {
            let window = match self.down {
                None => self.store.window(),
                Some(down) => usize::from(down.until <= Instant::now()),
            };
            if self.flights.len() >= window || self.is_hurried() {
                return;
            }
            let Some(mut load) = self.next_load().await else { return };
            if load.ticket.is_some() {
                self.flying_from_spool += load.bytes();
            }
            load.sent = load.rows();
            let (store, mut hurry) = (self.store.clone(), self.hurry.clone());
            self.flights.spawn(async move {
                let landed = tokio::select! {
                    landed = store.send(&mut load) => landed,
                    _ = hurry.wait_for(|hurry| *hurry) => {
                        let reason = SinkError::unavailable("store", "the agent stops".to_owned());
                        Landed::Later { reason, after: None }
                    }
                };
                (load, landed)
            });
        }
    }

    /// The oldest load: sent in vain, spooled, new.
    async fn next_load(&mut self) -> Option<Load> {
        if let Some(load) = self.stalled.pop_front() {
            return Some(load);
        }
        if let Some(log) = self.spool.clone() {
            let mut log = log.lock().await;
            if log.has_unread() {
                if self.flying_from_spool > FROM_SPOOL {
                    return None;
                }
                let taken = log.next().await;
                self.queue.count_lost(log.take_lost());
                match taken {
                    Ok(Some(taken)) => return Some(Load::spooled(self.queue.from_spool(taken.batch), taken.ticket)),
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!(%error, "the spool cannot be read; it is tried again");
                        self.down = Some(Backoff::next(self.down, Some(STUCK)));
                        return None;
                    }
                }
            }
        }
        self.ready.pop_front()
    }

    async fn land(&mut self, mut load: Load, landed: Landed) {
        if load.ticket.is_some() {
            self.flying_from_spool = self.flying_from_spool.saturating_sub(load.bytes());
        }
        match landed {
            Landed::Done => {
                self.given_up = false;
                self.down = None;
                if std::mem::take(&mut self.told) {
                    tracing::info!("{} are delivered again", S::WHAT);
                }
                self.forget(&load).await;
            }
            Landed::Later { reason, after } => {
                load.attempts += 1;
                self.tell(&reason);
                // Those that were on their way together fail together. A store that takes part of a load is not gone.
                if self.down.is_none_or(|down| down.until <= Instant::now()) {
                    let before = self.down.filter(|_| load.rows() == load.sent);
                    self.down = Some(Backoff::next(before, after));
                }
                if load.since.elapsed() > self.age_max {
                    tracing::error!(error = %reason, "{} {} are older than they may be", load.rows(), S::WHAT);
                    load.expire();
                    self.forget(&load).await;
                } else if self.is_given_up(&load) {
                    let rows = load.rows();
                    if !self.given_up {
                        tracing::error!(error = %reason, "{} are given up, lost and counted", S::WHAT);
                    }
                    load.settle(0, rows);
                    // Those behind it have one attempt each.
                    (self.given_up, self.down) = (true, None);
                } else {
                    self.stall(load);
                }
            }
        }
    }

    /// The spool needs not keep it any longer.
    async fn forget(&self, load: &Load) {
        if let (Some(ticket), Some(log)) = (load.ticket, &self.spool) {
            log.lock().await.acknowledge(ticket).await;
        }
    }

    /// Says once that the store fails, and not each time if it only flickers.
    fn tell(&mut self, reason: &SinkError) {
        let lately = self.told_at.is_some_and(|at| at.elapsed() < TOLD_AGAIN);
        if self.told || lately || self.given_up || self.is_hurried() {
            return;
        }
        (self.told, self.told_at) = (true, Some(Instant::now()));
        let wait = if self.spool.is_some() { "the spool" } else { "memory" };
        tracing::error!(error = %reason, "{} cannot be delivered; they wait in {wait}", S::WHAT);
    }

    fn is_given_up(&self, load: &Load) -> bool {
        let nobody_waits = self.closed && self.spool.is_none() && !self.is_hurried();
        let max = self.attempts_max.or(nobody_waits.then_some(ATTEMPTS));
        max.is_some_and(|max| self.given_up || load.attempts >= max)
    }

    fn stall(&mut self, load: Load) {
        // From the spool: their tickets are in order; the others came before anything was spooled, or had to wait for it.
        let key = |load: &Load| (load.ticket.is_none(), load.ticket.unwrap_or(load.number));
        let at = self.stalled.partition_point(|other| key(other) < key(&load));
        self.stalled.insert(at, load);
    }

    /// Leaves everything in the spool. Without one, and if it has no room, what is left is counted as lost in the
    /// shutdown.
    async fn leave(mut self) {
        while let Some(landed) = self.flights.join_next().await {
            if let Ok((load, landed)) = landed {
                self.land(load, landed).await;
            }
        }
        self.parcels.close();
        while let Ok(parcel) = self.parcels.try_recv() {
            self.gatherer.take(parcel, &mut self.ready);
        }
        self.gatherer.due(true, &mut self.ready);
        let Some(log) = self.spool.clone() else { return };
        let mut log = log.lock().await;
        let left: Vec<Load> = self.stalled.drain(..).chain(self.ready.drain(..)).collect();
        for load in left {
            match load.ticket {
                Some(ticket) => log.give_back(ticket),
                None => {
                    // What has no room is dropped, and counts itself.
                    let _ = self.append(&mut log, load).await;
                }
            }
        }
    }
}
