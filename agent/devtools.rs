//! What `/devtools` shows: the last transactions, in memory, and those that come, for whoever looks.
//!
//! Everything here is masked: it is made of the batch that leaves the machine, not of the one that rules see.

pub mod access;
mod api;
mod stream;
mod summary;

use std::{
    collections::VecDeque,
    fmt::Write as _,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use arrow_array::{ArrayRef, BinaryViewArray, BooleanArray, RecordBatch};
use arrow_buffer::BooleanBuffer;
use arrow_select::filter::filter_record_batch;
use bytes::Bytes;
use ringtap_batch::{
    capture::{Format, Level},
    fields::{is_body, is_known},
    render::render,
    transactions::{Transactions, port},
};
use ringtap_rules::{Expression, Rules};
use tokio::sync::broadcast;

pub use self::api::{Body, Devtools, answer, is_page};

/// Transactions that are kept for whoever opens the page.
const ROWS_MAX: usize = 10_000;
/// Bytes that they come to.
const BYTES_MAX: usize = 64 << 20;
/// Transactions of a second that are shown; those beyond are counted. Nobody reads more, and each has to be written out.
const RATE_MAX: usize = 5_000;
/// Groups that a viewer may be behind.
const BEHIND_MAX: usize = 1_024;

/// Rows that came together.
#[derive(Debug)]
pub struct Group {
    /// Number of the first of them.
    first: u64,
    /// What the rows say, without their bodies.
    batch: RecordBatch,
    /// Each row as an object, with its bodies.
    details: Vec<Bytes>,
}

/// The last transactions, and those that come.
#[derive(Debug)]
pub struct Feed {
    /// Of the server that shows it: who looks is not shown, or each look would make the next thing to look at.
    own: Option<u16>,
    kept: Mutex<Kept>,
    live: broadcast::Sender<Arc<Group>>,
}

#[derive(Debug)]
struct Kept {
    groups: VecDeque<Arc<Group>>,
    rows: usize,
    bytes: usize,
    /// Number of the next row.
    next: u64,
    /// Rows that were not shown, since there were too many in a second.
    passed_over: u64,
    second: (Instant, usize),
}

/// What a viewer begins with: the groups that are kept, what was passed over, and the ones to come.
pub struct View {
    /// Oldest first.
    kept: Vec<Arc<Group>>,
    passed_over: u64,
    live: broadcast::Receiver<Arc<Group>>,
}

impl Feed {
    /// An empty one. `own` is the port of the server that shows it.
    #[must_use]
    pub fn new(own: Option<u16>) -> Self {
        let kept =
            Kept { groups: VecDeque::new(), rows: 0, bytes: 0, next: 0, passed_over: 0, second: (Instant::now(), 0) };
        Self { own, kept: Mutex::new(kept), live: broadcast::Sender::new(BEHIND_MAX) }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes masked transactions in.
    pub fn offer(&self, batch: &RecordBatch) {
        let batch = &self.without_own(batch);
        let Some(t) = Transactions::of(batch).filter(|t| t.rows() > 0) else { return };
        if !self.kept().admits(t.rows()) {
            return;
        }
        let detail = |row| Bytes::from(render(&t, row, Level::Full, Format::Json).0);
        let details: Vec<Bytes> = (0..t.rows()).map(detail).collect();
        let bytes = details.iter().map(Bytes::len).sum::<usize>();
        let batch = without_bodies(batch);
        let bytes = bytes + batch.get_array_memory_size();
        let mut kept = self.kept();
        let group = Arc::new(Group { first: kept.next, batch, details });
        kept.push(group.clone(), bytes);
        // Under the lock, so that a viewer that begins now gets it once. Without viewers there is nobody to tell.
        let _ = self.live.send(group);
    }

    fn without_own(&self, batch: &RecordBatch) -> RecordBatch {
        let (Some(own), Some(t)) = (self.own, Transactions::of(batch)) else { return batch.clone() };
        let looks = |row| port(t.dst_port, row) == Some(own) && is_page(t.path.value(row));
        let others: BooleanArray = (0..t.rows()).map(|row| Some(!looks(row))).collect();
        if others.false_count() == 0 {
            return batch.clone();
        }
        filter_record_batch(batch, &others).expect("an answer for each row")
    }

    /// What is there, and what comes.
    #[must_use]
    pub fn view(&self) -> View {
        let kept = self.kept();
        View { kept: kept.groups.iter().cloned().collect(), passed_over: kept.passed_over, live: self.live.subscribe() }
    }

    /// Rows that were not shown, since there were too many in a second.
    #[must_use]
    pub fn passed_over(&self) -> u64 {
        self.kept().passed_over
    }

    /// A transaction as an object, by the id of its request; of one that lasts what was told last.
    #[must_use]
    pub fn detail(&self, id: &str) -> Option<Bytes> {
        let groups: Vec<Arc<Group>> = self.kept().groups.iter().rev().cloned().collect();
        groups.iter().find_map(|group| {
            let t = Transactions::of(&group.batch)?;
            let row = (0..t.rows()).rev().find(|row| t.request_id.value(*row) == id)?;
            group.details.get(row).cloned()
        })
    }
}

impl Kept {
    /// Whether so many rows more are shown in this second.
    fn admits(&mut self, rows: usize) -> bool {
        let now = Instant::now();
        if now.duration_since(self.second.0) >= Duration::from_secs(1) {
            self.second = (now, 0);
        }
        let admits = self.second.1 < RATE_MAX;
        self.second.1 += rows;
        if !admits {
            self.passed_over += rows as u64;
        }
        admits
    }

    fn push(&mut self, group: Arc<Group>, bytes: usize) {
        self.next += group.details.len() as u64;
        self.rows += group.details.len();
        self.bytes += bytes;
        self.groups.push_back(group);
        while self.groups.len() > 1 && (self.rows > ROWS_MAX || self.bytes > BYTES_MAX) {
            let Some(old) = self.groups.pop_front() else { return };
            self.rows -= old.details.len();
            self.bytes -= old.details.iter().map(Bytes::len).sum::<usize>() + old.batch.get_array_memory_size();
        }
    }
}

/// Bodies are parts of blocks that the capture wants back.
fn without_bodies(batch: &RecordBatch) -> RecordBatch {
    static NONE: LazyLock<BinaryViewArray> = LazyLock::new(|| BinaryViewArray::from_iter_values([b""]));
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| -> ArrayRef {
        match field.name().as_str() {
            "request_body" | "response_body" => {
                let empty = std::iter::repeat_n(NONE.value(0), batch.num_rows());
                Arc::new(BinaryViewArray::from_iter_values(empty))
            }
            _ => column.clone(),
        }
    });
    RecordBatch::try_new(schema.clone(), columns.collect()).expect("columns of the same kinds and lengths")
}

/// Which transactions a viewer wants.
#[derive(Debug)]
pub struct Filter(Option<Expression>);

impl Filter {
    /// By an expression of Rulekit; an empty one wants all.
    ///
    /// # Errors
    ///
    /// What is wrong with it, for people.
    pub fn new(expression: &str) -> Result<Self, String> {
        if expression.trim().is_empty() {
            return Ok(Self(None));
        }
        let rules = Rules::new([]).map_err(|(_, error)| error.to_string())?;
        let compiled = rules.compile(expression).map_err(|error| error.to_string())?;
        let mut faults = String::new();
        for field in compiled.fields() {
            if is_body(field) {
                let _ = writeln!(faults, "`{field}`: bodies cannot be filtered by here");
            } else if !is_known(field) {
                let _ = writeln!(faults, "`{field}` is not a field");
            }
        }
        if faults.is_empty() { Ok(Self(Some(compiled))) } else { Err(faults.trim_end().to_owned()) }
    }

    /// The rows of a batch that it wants.
    fn of(&self, t: &Transactions<'_>) -> BooleanBuffer {
        match &self.0 {
            None => BooleanBuffer::new_set(t.rows()),
            Some(expression) => expression.evaluate_columns(t).matching(),
        }
    }
}
