//! OTLP: events and objects as log records, over gRPC or HTTP, or as JSON lines on standard output.
//!
//! Records are written straight from the columns of a batch as the bytes of requests ([`records`], [`wire`]). A request
//! has at most [`REQUEST_MAX`] bytes: a batch that comes to more makes several, and one that a collector still calls too
//! large is cut in halves, and so are those after it.

mod answer;
mod pack;
mod records;
mod text;
mod trace;
mod transport;
mod wire;

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use arrow_array::RecordBatch;
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceRequest};
use prost::Message as _;
use ringtap_batch::objects::Objects;

use self::{
    answer::Answer,
    records::{Encoder, Request},
    transport::Collector,
};
use super::{SinkError, console::Console, explain, shown};
use crate::config::{checked::Otel, written::Protocol};

/// Bytes of a request, before compression. Receivers of gRPC take 4 MiB unless they are told otherwise.
const REQUEST_MAX: usize = 7 << 19;
/// A collector that calls a request of several records too large gets none larger than this, and its halves.
const REQUEST_MIN: usize = 16 << 10;
/// Between two repetitions of a collector's words.
const WORDS_PAUSE: Duration = Duration::from_mins(1);

/// A collector, or standard output.
pub struct Otlp {
    encoder: Encoder,
    to: To,
    endpoint: String,
    /// What requests are kept under: less than at first once a collector has called one too large.
    request_max: AtomicUsize,
    /// When the collector's words were last repeated.
    said: Mutex<Option<Instant>>,
}

enum To {
    Collector(Box<Collector>),
    Stdout(Console),
}

impl Otlp {
    /// Sets up; nothing is sent yet. `scope` is the name under which records go.
    ///
    /// # Errors
    ///
    /// The endpoint or a header field is malformed, or TLS cannot be set up.
    pub fn new(config: &Otel, scope: &'static str, console: &Console) -> Result<Self, SinkError> {
        let to = match config.protocol {
            Protocol::Stdout => To::Stdout(console.clone()),
            Protocol::Grpc | Protocol::Http => To::Collector(Box::new(Collector::new(config)?)),
        };
        Ok(Self {
            encoder: Encoder::new(config, scope),
            to,
            endpoint: shown(&config.endpoint),
            request_max: AtomicUsize::new(REQUEST_MAX),
            said: Mutex::default(),
        })
    }

    /// Whether it is standard output.
    #[must_use]
    pub fn is_console(&self) -> bool {
        matches!(self.to, To::Stdout(_))
    }

    /// Sends a batch of events, once. The answer is how many of them the collector refused for good.
    ///
    /// # Errors
    ///
    /// The collector refuses all of it; or it cannot be reached or wants to be left alone. If it had taken a part of a
    /// batch by then that needs several requests, that part is there twice when the batch is sent again.
    pub async fn events(&self, batch: &RecordBatch) -> Result<u64, SinkError> {
        let encode = |rows| self.encoder.events(batch, rows, self.request_max.load(Ordering::Relaxed));
        let mut waiting = encode(0..batch.num_rows());
        let (mut refused, mut refusal) = (0, None);
        while let Some(request) = waiting.pop() {
            let (rows, bytes) = (request.rows.clone(), request.frame.len());
            match self.send(request).await? {
                Answer::Taken(partial) => refused += self.rejected(&partial, rows.len() as u64),
                Answer::TooLarge(_) if rows.len() > 1 => {
                    self.request_max.fetch_min((bytes / 2).max(REQUEST_MIN), Ordering::Relaxed);
                    let middle = rows.start + rows.len() / 2;
                    waiting.extend(encode(middle..rows.end));
                    waiting.extend(encode(rows.start..middle));
                }
                Answer::TooLarge(reason) | Answer::Refused(reason) => {
                    refused += rows.len() as u64;
                    refusal = Some(reason);
                }
                Answer::Later(reason, after) => return Err(SinkError::Unavailable { store: "otel", reason, after }),
            }
        }
        match refusal {
            Some(reason) if refused == batch.num_rows() as u64 => Err(SinkError::Refused { store: "otel", reason }),
            Some(reason) => {
                self.say(&reason);
                Ok(refused)
            }
            None => Ok(refused),
        }
    }

    /// Sends an object, once; the answer is its url.
    ///
    /// # Errors
    ///
    /// The collector refuses it, cannot be reached, or wants to be left alone.
    pub async fn object(&self, objects: &Objects<'_>, row: usize, batch: &RecordBatch) -> Result<String, SinkError> {
        match self.send(self.encoder.object(objects, row, batch)).await? {
            Answer::Taken(partial) if self.rejected(&partial, 1) == 0 => {
                Ok(format!("otel://{}/{}", self.endpoint, objects.digest.value(row)))
            }
            Answer::Taken(ExportLogsPartialSuccess { error_message: reason, .. })
            | Answer::TooLarge(reason)
            | Answer::Refused(reason) => Err(SinkError::Refused { store: "otel", reason }),
            Answer::Later(reason, after) => Err(SinkError::Unavailable { store: "otel", reason, after }),
        }
    }

    /// The messages that a batch of events makes, each an `ExportLogsServiceRequest`.
    #[must_use]
    pub fn messages(&self, batch: &RecordBatch) -> Vec<Bytes> {
        let last_first = self.encoder.events(batch, 0..batch.num_rows(), self.request_max.load(Ordering::Relaxed));
        last_first.iter().rev().map(Request::message).collect()
    }

    /// The message that an object makes.
    #[must_use]
    pub fn object_message(&self, objects: &Objects<'_>, row: usize, batch: &RecordBatch) -> Bytes {
        self.encoder.object(objects, row, batch).message()
    }

    async fn send(&self, request: Request) -> Result<Answer, SinkError> {
        match &self.to {
            To::Collector(collector) => Ok(collector.send(request.frame).await),
            To::Stdout(console) => {
                let failed = |error: &dyn std::error::Error| SinkError::unavailable("otel", explain(error));
                let decoded = ExportLogsServiceRequest::decode(request.message()).map_err(|error| failed(&error))?;
                console.line(serde_json::to_string(&decoded).map_err(|error| failed(&error))?)?;
                Ok(Answer::Taken(ExportLogsPartialSuccess::default()))
            }
        }
    }

    /// How many of `rows` records were not taken.
    fn rejected(&self, partial: &ExportLogsPartialSuccess, rows: u64) -> u64 {
        if !partial.error_message.is_empty() {
            self.say(&partial.error_message);
        }
        u64::try_from(partial.rejected_log_records).unwrap_or_default().min(rows)
    }

    /// Repeats what a collector says of what it took, or of a part that it did not; not each time.
    fn say(&self, words: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_none_or(|at| at.elapsed() > WORDS_PAUSE) {
            *said = Some(Instant::now());
            let words: String = words.chars().take(300).collect();
            tracing::warn!(endpoint = self.endpoint, "the collector says: {words}");
        }
    }
}
