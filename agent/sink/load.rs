//! Loads: what goes to a store in one piece. Small batches are gathered for a moment, large ones are cut.

use std::{collections::VecDeque, time::Duration};

use arrow_array::{BooleanArray, RecordBatch};
use arrow_schema::SchemaRef;
use arrow_select::{concat::concat_batches, filter::filter_record_batch};
use tokio::time::Instant;

use super::outbox::Parcel;

/// Rows with one schema, and the parcels that they are of.
pub struct Load {
    /// What is to be sent still.
    pub batch: RecordBatch,
    /// Whose rows they are, in order.
    parcels: Vec<Parcel>,
    /// In which order loads were made.
    pub number: u64,
    /// Since when it waits.
    pub since: Instant,
    /// By which the spool knows it, if it has it.
    pub ticket: Option<u64>,
    /// How often it was sent in vain.
    pub attempts: usize,
    /// Rows that were sent with the last attempt.
    pub sent: u64,
}

impl Load {
    /// A load out of the spool.
    #[must_use]
    pub fn spooled(parcel: Parcel, ticket: u64) -> Self {
        Self {
            batch: parcel.batch.clone(),
            parcels: vec![parcel],
            number: 0,
            since: Instant::now(),
            ticket: Some(ticket),
            attempts: 0,
            sent: 0,
        }
    }

    /// Rows that are to be sent still.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.batch.num_rows() as u64
    }

    /// Bytes that it keeps in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.parcels.iter().map(Parcel::bytes).sum()
    }

    /// So many of the rows were delivered, so many refused for good.
    pub fn settle(&mut self, delivered: u64, failed: u64) {
        let (mut delivered, mut failed) = (delivered, failed);
        for parcel in &mut self.parcels {
            let well = delivered.min(parcel.unsettled());
            let ill = failed.min(parcel.unsettled() - well);
            parcel.settle(well, ill);
            (delivered, failed) = (delivered - well, failed - ill);
        }
    }

    /// The first rows were written to the spool, and are gone from the load.
    pub fn leave_in_spool(&mut self, rows: usize) {
        self.settle_first(rows as u64, Parcel::settle_spooled);
        self.batch = self.batch.slice(rows, self.batch.num_rows() - rows);
    }

    /// The first rows cannot be kept, and are gone from the load.
    pub fn fail_first(&mut self, rows: usize) {
        self.settle_first(rows as u64, |parcel, rows| parcel.settle(0, rows));
        self.batch = self.batch.slice(rows, self.batch.num_rows() - rows);
    }

    /// All rows are older than they may be.
    pub fn expire(&mut self) {
        self.settle_first(self.rows(), Parcel::settle_expired);
    }

    fn settle_first(&mut self, mut rows: u64, settle: fn(&mut Parcel, u64)) {
        for parcel in &mut self.parcels {
            let own = rows.min(parcel.unsettled());
            settle(parcel, own);
            rows -= own;
        }
    }

    /// Goes on with these rows alone; the others were settled.
    ///
    /// # Panics
    ///
    /// There are not as many answers as rows: a mistake of the caller.
    pub fn keep(&mut self, rows: &BooleanArray) {
        self.batch = filter_record_batch(&self.batch, rows).expect("an answer for each row");
    }
}

/// How loads are made.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Rows at most.
    pub rows: usize,
    /// Bytes from which on it is sent.
    pub bytes: usize,
    /// How long the first row waits for others.
    pub linger: Duration,
}

/// Gathers parcels of one schema.
pub struct Gatherer {
    shape: Shape,
    /// In the order in which their first parcels came.
    open: VecDeque<Open>,
    loads: u64,
}

struct Open {
    schema: SchemaRef,
    parcels: Vec<Parcel>,
    rows: usize,
    bytes: usize,
    due: Instant,
}

impl Gatherer {
    /// An empty one.
    #[must_use]
    pub fn new(shape: Shape) -> Self {
        Self { shape, open: VecDeque::new(), loads: 0 }
    }

    /// Takes a parcel; what is full comes out.
    pub fn take(&mut self, mut parcel: Parcel, full: &mut VecDeque<Load>) {
        loop {
            let at = self.place_of(&parcel);
            let room = self.shape.rows - self.open[at].rows;
            let rest = (parcel.batch.num_rows() > room).then(|| parcel.split_off(room));
            let open = &mut self.open[at];
            open.rows += parcel.batch.num_rows();
            open.bytes += parcel.bytes();
            open.parcels.push(parcel);
            if open.rows >= self.shape.rows || open.bytes >= self.shape.bytes || self.shape.linger.is_zero() {
                full.extend(self.open.remove(at).and_then(|open| self.load(open)));
            }
            let Some(rest) = rest else { return };
            parcel = rest;
        }
    }

    fn place_of(&mut self, parcel: &Parcel) -> usize {
        let schema = parcel.batch.schema();
        self.open.iter().position(|open| open.schema == schema).unwrap_or_else(|| {
            let due = Instant::now() + self.shape.linger;
            self.open.push_back(Open { schema, parcels: Vec::new(), rows: 0, bytes: 0, due });
            self.open.len() - 1
        })
    }

    /// What has waited long enough, or everything.
    pub fn due(&mut self, everything: bool, due: &mut VecDeque<Load>) {
        let now = Instant::now();
        while self.open.front().is_some_and(|open| everything || open.due <= now) {
            due.extend(self.open.pop_front().and_then(|open| self.load(open)));
        }
    }

    /// When the next load is due.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.open.front().map(|open| open.due)
    }

    fn load(&mut self, open: Open) -> Option<Load> {
        let Open { schema, mut parcels, .. } = open;
        let joined = match parcels.as_slice() {
            [only] => Ok(only.batch.clone()),
            _ => concat_batches(&schema, parcels.iter().map(|parcel| &parcel.batch)),
        };
        let batch = match joined {
            Ok(batch) => batch,
            Err(error) => {
                tracing::error!(%error, "batches cannot be joined; they are lost and counted");
                parcels.iter_mut().for_each(|parcel| parcel.settle(0, parcel.unsettled()));
                return None;
            }
        };
        self.loads += 1;
        let load =
            Load { batch, parcels, number: self.loads, since: Instant::now(), ticket: None, attempts: 0, sent: 0 };
        Some(load)
    }
}
