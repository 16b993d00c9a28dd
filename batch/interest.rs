//! Who wants the bodies of exchanges, asked while an exchange is under way.

use crate::{
    capture::Capture,
    fields::{RowFields, Stage},
    transactions::Transactions,
};

/// The plugins, as far as shards need to know them.
pub trait Interest: Send + Sync {
    /// Whether any body can be of use at all.
    fn wants_bodies(&self) -> bool;

    /// Whether the bodies of this row, which is not complete, can still be of use.
    fn can_want_bodies(&self, row: &RowFields<'_>) -> bool;
}

impl Interest for Capture {
    fn wants_bodies(&self) -> bool {
        Capture::wants_bodies(self)
    }

    fn can_want_bodies(&self, row: &RowFields<'_>) -> bool {
        Capture::can_want_bodies(self, row)
    }
}

/// Everything is of use.
#[derive(Debug)]
pub struct Everything;

impl Interest for Everything {
    fn wants_bodies(&self) -> bool {
        true
    }

    fn can_want_bodies(&self, _row: &RowFields<'_>) -> bool {
        true
    }
}

/// Of bodies nothing is.
#[derive(Debug)]
pub struct NoBodies;

impl Interest for NoBodies {
    fn wants_bodies(&self) -> bool {
        false
    }

    fn can_want_bodies(&self, _row: &RowFields<'_>) -> bool {
        false
    }
}

/// Asks about an exchange that makes the only row of a batch.
pub(crate) fn ask(interest: &dyn Interest, batch: &arrow_array::RecordBatch, stage: Stage) -> bool {
    Transactions::of(batch).is_none_or(|t| interest.can_want_bodies(&RowFields::early(&t, 0, stage)))
}
