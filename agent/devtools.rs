//! What `/devtools` shows: the last transactions, in memory, and those that come, for whoever looks.
//!
//! Everything here is masked: it is made of the batch that leaves the machine, not of the one that rules see.

pub mod access;
mod api;
mod stream;
mod summary;

use std::{
    collections::{HashSet, VecDeque},
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
use tokio::sync::watch;

pub use self::api::{Body, Devtools, answer, is_page};

/// Transactions that are kept for whoever opens the page.
const ROWS_MAX: usize = 10_000;
/// Bytes that they come to.
const BYTES_MAX: usize = 64 << 20;
/// Transactions of a second that are shown; those beyond are counted. Nobody reads more, and each has to be written out.
const RATE_MAX: usize = 5_000;
/// Bytes of their bodies in a second, for the same reason: this is done where records are read.
const RATE_BYTES_MAX: usize = 16 << 20;

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
    /// Number of the next row, for viewers that wait for it. They take rows from what is kept: one that does not read holds
    /// nothing back.
    next: watch::Sender<u64>,
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
    second: Second,
}

/// What was shown in a second.
#[derive(Debug)]
struct Second {
    since: Instant,
    rows: usize,
    bytes: usize,
}

/// What comes next for a viewer.
enum Next {
    /// A group, and the number of rows before it that are not kept any more.
    Group(Arc<Group>, u64),
    /// It has seen everything.
    Nothing,
}

impl Feed {
    /// An empty one. `own` is the port of the server that shows it.
    #[must_use]
    pub fn new(own: Option<u16>) -> Self {
        let kept = Kept {
            groups: VecDeque::new(),
            rows: 0,
            bytes: 0,
            next: 0,
            passed_over: 0,
            second: Second { since: Instant::now(), rows: 0, bytes: 0 },
        };
        Self { own, kept: Mutex::new(kept), next: watch::Sender::new(0) }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes masked transactions in.
    pub fn offer(&self, batch: &RecordBatch) {
        let batch = &self.without_own(batch);
        let Some(t) = Transactions::of(batch).filter(|t| t.rows() > 0) else { return };
        let bodies = |row| t.request_body.value(row).len() + t.response_body.value(row).len();
        if !self.kept().admits(t.rows(), (0..t.rows()).map(bodies).sum()) {
            return;
        }
        let detail = |row| Bytes::from(render(&t, row, Level::Full, Format::Json).0);
        let details: Vec<Bytes> = (0..t.rows()).map(detail).collect();
        let bytes = details.iter().map(Bytes::len).sum::<usize>();
        let batch = without_bodies(batch);
        let bytes = bytes + batch.get_array_memory_size();
        let mut kept = self.kept();
        let group = Arc::new(Group { first: kept.next, batch, details });
        kept.push(group, bytes);
        self.next.send_replace(kept.next);
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

    /// The group behind the rows that a viewer has seen, by their number.
    fn after(&self, seen: u64) -> Next {
        let kept = self.kept();
        let at = kept.groups.partition_point(|group| group.first < seen);
        match kept.groups.get(at) {
            None => Next::Nothing,
            Some(group) => Next::Group(group.clone(), group.first - seen),
        }
    }

    /// Number of the first row that is kept.
    fn first(&self) -> u64 {
        let kept = self.kept();
        kept.groups.front().map_or(kept.next, |group| group.first)
    }

    /// Rows that were not shown, since there were too many in a second.
    #[must_use]
    pub fn passed_over(&self) -> u64 {
        self.kept().passed_over
    }

    /// A transaction as an object, by the id of its request; of one that lasts what was told last.
    #[must_use]
    pub fn detail(&self, id: &str) -> Option<Bytes> {
        self.details(&HashSet::from([id])).pop()
    }

    /// The same of many, oldest first; of one that lasts what was told last.
    #[must_use]
    pub fn details(&self, ids: &HashSet<&str>) -> Vec<Bytes> {
        let groups: Vec<Arc<Group>> = self.kept().groups.iter().rev().cloned().collect();
        let (mut found, mut seen) = (Vec::new(), HashSet::new());
        for group in &groups {
            let Some(t) = Transactions::of(&group.batch) else { continue };
            for row in (0..t.rows()).rev() {
                let id = t.request_id.value(row);
                if ids.contains(id) && seen.insert(id.to_owned()) {
                    found.extend(group.details.get(row).cloned());
                }
            }
        }
        found.reverse();
        found
    }
}

impl Kept {
    /// Whether so many rows more, with bodies of so many bytes, are shown in this second.
    fn admits(&mut self, rows: usize, bytes: usize) -> bool {
        let now = Instant::now();
        if now.duration_since(self.second.since) >= Duration::from_secs(1) {
            self.second = Second { since: now, rows: 0, bytes: 0 };
        }
        let second = &mut self.second;
        // What is more than all of a second may hold is shown where nothing was before it.
        let fits = second.rows + rows <= RATE_MAX && second.bytes + bytes <= RATE_BYTES_MAX;
        let admits = fits || second.rows == 0;
        if admits {
            second.rows += rows;
            second.bytes += bytes;
        } else {
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
