//! Another configuration for a running agent: read, checked and set up beside the old one, then put in its place between
//! two rounds of the capture. What the old one had taken is delivered by the old one; a file that is not valid changes
//! nothing.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use ringtap_batch::shard::Context;
use tokio::{sync::oneshot, task::JoinSet};

use crate::{
    admin::Health,
    config::{self, Config, exposed},
    devtools::Feed,
    metrics::Metrics,
    pipeline::Out,
    process::ProcessTable,
    sink::{
        delivery::{Delivery, Ground},
        rollups::Rollups,
    },
    stack::Stacks,
};

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the capture thread is to go on with.
pub struct Next {
    /// For the shards.
    pub context: Arc<Context>,
    /// For what they make.
    pub out: Out,
    /// For the programs in the kernel.
    pub wanted: u32,
    /// Told when it has been taken over.
    pub taken: oneshot::Sender<()>,
}

/// Where the next configuration waits for the capture thread.
#[derive(Clone, Default)]
pub struct Slot(Arc<Mutex<Option<Next>>>);

impl Slot {
    /// What waits, once.
    pub fn take(&self) -> Option<Next> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, next: Next) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(next);
    }
}

/// The stacks that act now, for whoever tells of their rules.
pub type ActingStacks = Arc<RwLock<Arc<Stacks>>>;

/// Reads the file again and puts what it says in place.
pub struct Reloader {
    /// The file; `None`: there is none, and nothing to reload.
    pub file: Option<PathBuf>,
    /// What `{{DATA_DIR}}` stands for in it.
    pub data_dir: PathBuf,
    /// The body limit of the command line.
    pub body: Option<usize>,
    /// What the shards go on with, but for what the configuration decides.
    pub context: Arc<Context>,
    /// What outlives configurations.
    pub ground: Ground,
    /// The spool's part of the configuration at the start.
    pub spool: Option<crate::config::checked::Spool>,
    /// Of `http_metrics`.
    pub metrics: Arc<Metrics>,
    /// What is shown.
    pub feed: Option<Arc<Feed>>,
    /// Where a file that does not act is told of.
    pub health: Arc<Health>,
    /// Who is behind connections.
    pub processes: Arc<ProcessTable>,
    /// Towards the capture thread.
    pub slot: Slot,
    /// Acting now.
    pub stacks: ActingStacks,
    /// The stores that take what the capture makes now.
    pub delivery: Delivery,
    /// The rollups that take its rows.
    pub rollups: Rollups,
    /// Stores of configurations before, which still deliver.
    pub before: JoinSet<()>,
}

/// Changes whenever the file, or what its name leads to, does.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

impl Reloader {
    /// Reloads whenever the file has changed and is at rest, and when `hangup` says so.
    pub async fn watch(&mut self, hangup: &mut tokio::signal::unix::Signal) {
        let mut acted_on = self.stamp();
        let mut seen = acted_on;
        let mut looks = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                _ = hangup.recv() => {
                    acted_on = self.stamp();
                    self.reload().await;
                }
                _ = looks.tick() => {
                    let now = self.stamp();
                    // Somebody may still be writing it; one that is gone may be about to be replaced.
                    let at_rest = now.is_some() && now == seen;
                    seen = now;
                    if at_rest && now != acted_on {
                        acted_on = now;
                        self.reload().await;
                    }
                }
            }
            while self.before.try_join_next().is_some() {}
        }
    }

    fn stamp(&self) -> Stamp {
        let m = fs::metadata(self.file.as_deref()?).ok()?;
        Some((m.dev(), m.ino(), m.size(), m.mtime(), m.mtime_nsec()))
    }

    async fn reload(&mut self) {
        let Some(file) = self.file.clone() else {
            tracing::warn!("there is no configuration file to reload");
            return;
        };
        let name = file.display().to_string();
        let fault = match read(&name, &self.data_dir) {
            Ok(config) => match self.replace(config).await {
                Ok(()) => {
                    tracing::info!(file = name, "reloaded; the new configuration acts");
                    None
                }
                Err(reason) => {
                    tracing::error!(file = name, reason, "not reloaded; the old configuration goes on");
                    Some(reason)
                }
            },
            Err(problems) => {
                for problem in &problems {
                    tracing::error!("{problem}");
                }
                tracing::error!(file = name, "not reloaded; the old configuration goes on");
                Some(problems.join("; "))
            }
        };
        self.health.reloaded(fault);
    }

    async fn replace(&mut self, config: Config) -> Result<(), String> {
        let memory = self.context.memory.clone();
        if config.stores.spool != self.spool {
            tracing::warn!("services.spool has changed; that acts from the next start on");
        }
        let delivery = Delivery::start(&config.stores, &self.ground).map_err(|error| error.to_string())?;
        let (host, ground) = (&self.context.hostname, &self.ground);
        let counts = (&ground.ledger, &ground.memory);
        let rollups = Rollups::start(config.rollups.as_ref(), &config.stores, host, counts, ground.patience)
            .map_err(|error| error.to_string())?;
        let mut budgets = config.budgets;
        budgets.body = self.body.unwrap_or(budgets.body);
        let stacks = Arc::new(Stacks { shown: self.feed.is_some(), ..config.stacks });
        let context = Arc::new(Context {
            names: self.context.names.clone(),
            wanted: config.wanted,
            budgets,
            interest: stacks.clone(),
            report_connections: delivery.to.events(Some(0)).is_some() || stacks.has_metrics(),
            processes: self.context.processes.clone(),
            ids: self.context.ids.clone(),
            ledger: self.ground.ledger.clone(),
            memory: memory.clone(),
            hostname: self.context.hostname.clone(),
            tags: self.context.tags.clone(),
        });
        let out = Out {
            stacks: stacks.clone(),
            to: delivery.to.clone(),
            rollup: rollups.to.clone(),
            console: self.ground.console.clone(),
            metrics: self.metrics.clone(),
            feed: self.feed.clone(),
        };
        let (taken, is_taken) = oneshot::channel();
        self.slot.put(Next { context: context.clone(), out, wanted: config.wanted, taken });
        // A capture that waits for room would never take it.
        self.delivery.to.hurry();
        is_taken.await.map_err(|_| "the capture has ended".to_owned())?;
        memory.set_budget(budgets.agent);
        self.processes.governed().set_budget(config.probes);
        self.processes.reconfigure(config.processes);
        *self.stacks.write().unwrap_or_else(PoisonError::into_inner) = stacks;
        self.context = context;
        let old = std::mem::replace(&mut self.delivery, delivery);
        self.before.spawn(old.drain_until_stop());
        let old = std::mem::replace(&mut self.rollups, rollups);
        self.before.spawn(old.drain(Duration::MAX));
        Ok(())
    }

    /// Waits until everything is delivered, also what configurations before have taken, at most until the deadline.
    pub async fn drain(mut self, deadline: Duration) {
        self.ground.stops.send_replace(true);
        let before = &mut self.before;
        let before = async {
            let rest = async { while before.join_next().await.is_some() {} };
            if tokio::time::timeout(deadline, rest).await.is_err() {
                tracing::warn!("the stores of the configuration before did not take everything in time");
                before.shutdown().await;
            }
        };
        tokio::join!(self.delivery.drain(deadline), self.rollups.drain(deadline), before);
    }
}

/// The checked configuration, or lines that say why there is none.
fn read(name: &str, data_dir: &Path) -> Result<Config, Vec<String>> {
    let text = fs::read_to_string(name).map_err(|error| vec![format!("cannot read {name}: {error}")])?;
    let read = config::read(name, &config::with_data_dir(&text, data_dir));
    let (mut config, warnings) = read.map_err(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    config.keep_below(data_dir);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    for warning in exposed::warnings(Path::new(name), &text) {
        tracing::warn!("{warning}");
    }
    Ok(config)
}
