//! How much of each transaction is kept: the level and format that `http_capture` and its rules give to a row.
//!
//! What can be decided before an exchange is complete is decided then ([`Capture::can_still_reach`]): a field that can
//! still change has no value yet, and an answer that does not depend on such a field is final.

use std::time::Instant;

use arrow_buffer::BooleanBuffer;
use ringtap_rules::{Expression, RuleCounts};

use crate::{
    fields::{RowFields, is_body},
    transactions::Transactions,
};

/// What goes into an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    /// No object.
    #[default]
    None,
    /// Metadata, request line, status.
    Summary,
    /// Also header fields.
    Headers,
    /// Also bodies.
    Full,
}

impl Level {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Summary => "summary",
            Self::Headers => "headers",
            Self::Full => "full",
        }
    }
}

/// How an object is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `application/json`.
    #[default]
    Json,
    /// `text/plain`.
    Text,
}

/// A rule that gives something to the rows that it matches, and how often its evaluation came to what.
#[derive(Debug)]
pub struct Rule<T> {
    /// Name in the configuration.
    pub name: String,
    /// Checked expression.
    pub expression: Expression,
    /// What matching rows get.
    pub gives: T,
    /// Outcomes and time.
    pub counts: RuleCounts,
}

impl<T> Rule<T> {
    /// With all counts at zero.
    #[must_use]
    pub fn new(name: impl Into<String>, expression: Expression, gives: T) -> Self {
        let counts = RuleCounts::new(&expression);
        Self { name: name.into(), expression, gives, counts }
    }

    fn reads_bodies(&self) -> bool {
        self.expression.fields().iter().any(|field| is_body(field))
    }
}

/// Rules in the order of the configuration: the first that matches a row decides.
#[derive(Debug)]
pub struct RuleList<T>(pub Vec<Rule<T>>);

impl<T> Default for RuleList<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> RuleList<T> {
    /// For each row the rule that decides. A rule that has no answer for a row does not match it.
    #[must_use]
    pub fn decide(&self, t: &Transactions<'_>) -> Vec<Option<&Rule<T>>> {
        let mut decided = vec![None; t.rows()];
        let mut open = BooleanBuffer::new_set(t.rows());
        for rule in &self.0 {
            let begun = Instant::now();
            let outcomes = rule.expression.evaluate_columns(t);
            rule.counts.add(&outcomes, &open, begun.elapsed());
            let matching = &outcomes.matching() & &open;
            matching.set_indices().for_each(|row| decided[row] = Some(rule));
            open = &open & &!&matching;
            if open.count_set_bits() == 0 {
                break;
            }
        }
        decided
    }

    /// Whether bodies of any row can be of use, to what a rule gives or to a rule itself.
    pub fn wants_bodies(&self, wants: impl Fn(&T) -> bool) -> bool {
        self.0.iter().any(|rule| wants(&rule.gives) || rule.reads_bodies())
    }

    /// Whether the bodies of a row that is not complete can still be of use: the rule that decides can be one that
    /// wants them, or one that reads them; `otherwise` if none decides.
    pub fn can_want_bodies(&self, wants: impl Fn(&T) -> bool, otherwise: bool, row: &RowFields<'_>) -> bool {
        for rule in &self.0 {
            match rule.expression.evaluate_early(row) {
                Some(Ok(true)) => return wants(&rule.gives),
                None if wants(&rule.gives) || rule.reads_bodies() => return true,
                // It does not match, or wants nothing if it does; what comes behind it may.
                _ => {}
            }
        }
        otherwise
    }
}

/// What a rule of `http_capture` gives: a level, and a format if it says.
pub type Given = (Level, Option<Format>);

/// A configured `http_capture`.
#[derive(Debug, Default)]
pub struct Capture {
    /// Level of rows that no rule matches.
    pub level: Level,
    /// Format of rows that no rule matches.
    pub format: Format,
    /// The first that matches decides.
    pub rules: RuleList<Given>,
}

/// What was decided for a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// How much.
    pub level: Level,
    /// In which form.
    pub format: Format,
}

impl Capture {
    /// Whether the bodies of any row can be of use.
    #[must_use]
    pub fn wants_bodies(&self) -> bool {
        self.level == Level::Full || self.rules.wants_bodies(|(level, _)| *level == Level::Full)
    }

    /// Whether the bodies of a row that is not complete can still be of use.
    #[must_use]
    pub fn can_want_bodies(&self, row: &RowFields<'_>) -> bool {
        self.rules.can_want_bodies(|(level, _)| *level == Level::Full, self.level == Level::Full, row)
    }

    /// Decides for each row.
    #[must_use]
    pub fn decide(&self, t: &Transactions<'_>) -> Vec<Decision> {
        self.rules.decide(t).into_iter().map(|rule| self.decision(rule)).collect()
    }

    /// The same, and the name of the rule that decided.
    #[must_use]
    pub fn decide_named(&self, t: &Transactions<'_>) -> Vec<(Decision, Option<&str>)> {
        let rules = self.rules.decide(t).into_iter();
        rules.map(|rule| (self.decision(rule), rule.map(|rule| rule.name.as_str()))).collect()
    }

    fn decision(&self, rule: Option<&Rule<Given>>) -> Decision {
        match rule.map(|rule| rule.gives) {
            Some((level, format)) => Decision { level, format: format.unwrap_or(self.format) },
            None => Decision { level: self.level, format: self.format },
        }
    }
}
