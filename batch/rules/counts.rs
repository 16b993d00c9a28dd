//! How often a rule came to what, and what that cost.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use arrow_array::Array as _;
use arrow_buffer::BooleanBuffer;

use crate::{columns::Outcomes, expression::Expression};

/// Counts of one rule.
#[derive(Debug)]
pub struct RuleCounts {
    matches: AtomicU64,
    others: AtomicU64,
    /// One for each field of the expression.
    errors: Vec<AtomicU64>,
    nanoseconds: AtomicU64,
}

/// What was counted so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted<'a> {
    /// Rows that it matched.
    pub matches: u64,
    /// Rows that it did not match.
    pub others: u64,
    /// Rows for which it has no answer, by the field that they lack.
    pub errors: Vec<(&'a str, u64)>,
    /// Time that its evaluations took.
    pub time: Duration,
}

impl RuleCounts {
    /// All zero.
    #[must_use]
    pub fn new(expression: &Expression) -> Self {
        let errors = expression.fields().iter().map(|_| AtomicU64::new(0)).collect();
        Self { matches: AtomicU64::new(0), others: AtomicU64::new(0), errors, nanoseconds: AtomicU64::new(0) }
    }

    /// Adds the outcomes of the rows that are `asked`.
    pub fn add(&self, outcomes: &Outcomes, asked: &BooleanBuffer, took: Duration) {
        let matches = (&outcomes.matching() & asked).count_set_bits();
        let mut errors = 0;
        if let Some(causes) = &outcomes.errors {
            for row in asked.set_indices().filter(|row| causes.is_valid(*row)) {
                errors += 1;
                self.errors[usize::from(causes.value(row))].fetch_add(1, Ordering::Relaxed);
            }
        }
        let others = asked.count_set_bits() - matches - errors;
        self.matches.fetch_add(matches as u64, Ordering::Relaxed);
        self.others.fetch_add(others as u64, Ordering::Relaxed);
        self.nanoseconds.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// What was counted; `expression` is the rule's own.
    #[must_use]
    pub fn read<'a>(&self, expression: &'a Expression) -> Counted<'a> {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let errors = expression.fields().iter().zip(&self.errors).map(|(field, n)| (field.as_str(), get(n)));
        Counted {
            matches: get(&self.matches),
            others: get(&self.others),
            errors: errors.filter(|(_, n)| *n > 0).collect(),
            time: Duration::from_nanos(get(&self.nanoseconds)),
        }
    }
}
