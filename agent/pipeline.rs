//! From raw record batches to the stores: what a live capture and a replay have in common.

use std::sync::Arc;

use arrow_array::RecordBatch;
use rayon::prelude::*;
use ringtap_batch::{
    clock::WallOffset,
    governed::Governed,
    ring::abi::{LostEnd, shard_of},
    shard::{Context, Output, Shard},
};

use crate::{
    devtools::Feed,
    metrics::Metrics,
    sink::{console::Console, outbox::Outboxes, rollups::Rollup},
    stack::{Stacks, To},
};

/// The shards, and what they hand their output to.
pub struct Pipeline {
    shards: Vec<Shard>,
    out: Out,
}

/// What transactions are handed to.
#[derive(Clone)]
pub struct Out {
    /// What is made of them.
    pub stacks: Arc<Stacks>,
    /// Where events and objects go.
    pub to: Outboxes,
    /// Where rows go.
    pub rollup: Option<Rollup>,
    /// Where lines go.
    pub console: Console,
    /// What is counted of the traffic.
    pub metrics: Arc<Metrics>,
    /// What is shown of it.
    pub feed: Option<Arc<Feed>>,
}

/// Rounds of fewer rows are not worth waking other threads for.
const PARALLEL_ROWS: usize = 128;
/// The batches of one round.
#[derive(Clone, Copy)]
pub enum Round<'a> {
    /// One for each shard that has one.
    Sharded(&'a [Option<RecordBatch>]),
    /// One in which each shard finds its own rows.
    Mixed(&'a RecordBatch),
}

impl Pipeline {
    /// `shards` empty shards, a power of two.
    #[must_use]
    pub fn new(context: &Arc<Context>, shards: u32, out: Out) -> Self {
        let shards = (0..shards).map(|index| Shard::one_of(context.clone(), index, shards)).collect();
        Self { shards, out }
    }

    /// Goes on with another configuration; what is under way stays.
    pub fn reconfigure(&mut self, context: &Arc<Context>, out: Out) {
        self.shards.iter_mut().for_each(|shard| shard.reconfigure(context.clone()));
        self.out = out;
    }

    /// Lets the shards work side by side, up to the queues of the stores; returns what each says of its streams.
    pub fn process(&mut self, round: Round<'_>, now_ns: u64, wall: WallOffset) -> Vec<Output> {
        let out = &self.out;
        let one = |(index, shard): (usize, &mut Shard)| {
            let batch = match round {
                Round::Sharded(batches) => batches.get(index).and_then(Option::as_ref),
                Round::Mixed(batch) => Some(batch),
            };
            out.take(shard.process(batch, now_ns, wall))
        };
        let rows = match round {
            Round::Sharded(batches) => batches.iter().flatten().map(RecordBatch::num_rows).sum(),
            Round::Mixed(batch) => batch.num_rows(),
        };
        if self.shards.len() > 1 && rows >= PARALLEL_ROWS {
            self.shards.par_iter_mut().enumerate().map(one).collect()
        } else {
            self.shards.iter_mut().enumerate().map(one).collect()
        }
    }

    /// Ends all connections.
    pub fn finish(&mut self, now_ns: u64, wall: WallOffset) {
        let out = &self.out;
        self.shards.par_iter_mut().for_each(|shard| {
            out.take(shard.finish(now_ns, wall));
        });
    }

    /// Tells the first event store of a step of the governor.
    pub fn tell(&self, step: &Governed<'_>) {
        if let Some(events) = self.out.to.events(Some(0)) {
            events.offer(step.event());
        }
    }

    /// Ends a connection whose close record found a full ring.
    pub fn close(&mut self, conn: u64, end: LostEnd) {
        let shards = u32::try_from(self.shards.len()).expect("at most a few dozen");
        self.shards[shard_of(conn, shards) as usize].close(conn, end.time_ns, end.totals);
    }
}

impl Out {
    /// Hands on the batches of an output; what is left of it is for the kernel.
    fn take(&self, mut output: Output) -> Output {
        if let Some(connections) = output.connections.take() {
            if self.stacks.has_metrics() {
                self.metrics.observe_connections(&connections);
            }
            self.to.events(Some(0)).into_iter().for_each(|events| events.offer(connections.clone()));
        }
        if let Some(transactions) = output.transactions.take() {
            let to = To { stores: &self.to, rollup: self.rollup.as_ref(), feed: self.feed.as_deref() };
            self.stacks.take(&transactions, to, &self.metrics, &|block| {
                if self.console.line(block).is_err() {
                    tracing::debug!("lines were dropped: standard output is slow or closed");
                }
            });
        }
        output
    }
}
