//! Where events and objects go: queues with a bound, stores behind them, and a count for everything that does not
//! arrive.

pub mod axiom;
pub mod backoff;
pub mod console;
pub mod delivery;
pub mod disk;
pub mod lane;
pub mod load;
pub mod otlp;
pub mod outbox;
pub mod retry_after;
pub mod rollups;
pub mod s3;
pub mod stdout;
pub mod stores;
pub mod template;
pub mod tls;

use std::time::Duration;

/// What happens when a queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// What has no room is lost, and counted: the kernel does not wait.
    None,
    /// Whoever hands over waits: a file does.
    UntilRoom,
}

/// Why a store did not take something.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// Cannot be set up as configured.
    #[error("{store} cannot be set up: {reason}")]
    SetUp {
        /// Which.
        store: &'static str,
        /// Why not.
        reason: String,
    },
    /// It is there and does not want this: to send the same again changes nothing.
    #[error("{store}: {reason}")]
    Refused {
        /// Which.
        store: &'static str,
        /// Its words.
        reason: String,
    },
    /// Unreachable or overloaded: what was to be sent can be sent later.
    #[error("{store}: {reason}")]
    Unavailable {
        /// Which.
        store: &'static str,
        /// Its words.
        reason: String,
        /// How long it wants to be left alone, if it said so.
        after: Option<Duration>,
    },
    /// The disk failed.
    #[error("disk store: {0}")]
    Disk(#[from] std::io::Error),
    /// The writer of standard output is gone.
    #[error("standard output is closed")]
    Console,
}

impl SinkError {
    /// Unreachable or overloaded, without a word of when that ends.
    #[must_use]
    pub fn unavailable(store: &'static str, reason: String) -> Self {
        Self::Unavailable { store, reason, after: None }
    }
}

/// An address as it may be shown: without a password or the keys in its query.
pub(crate) fn shown(url: &str) -> String {
    ringtap_batch::redact::Redaction::default().url_text(url)
}

/// An error with its causes in one line.
pub(crate) fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
