//! The event `process_governed`: probes cost a process too much, so less of it is captured; or they do not any more.

use arrow_array::RecordBatch;

use crate::{
    events::{Cell, Column, EventSchema, EventsBuilder},
    process::Process,
};

/// Columns of the event.
pub const GOVERNED_SCHEMA: EventSchema = EventSchema {
    event_type: "process_governed",
    columns: &[
        ("timestamp", Column::Time),
        ("hostname", Column::Text),
        ("from", Column::Text),
        ("to", Column::Text),
        ("share", Column::Float),
        ("budget", Column::Float),
        ("process.exe", Column::Text),
        ("process.pid", Column::Int),
        ("process.containerName", Column::Text),
        ("process.containerImage", Column::Text),
        ("process.podName", Column::Text),
        ("process.podNamespace", Column::Text),
    ],
};

/// A process that goes from one level of capture to another.
#[derive(Debug)]
pub struct Governed<'a> {
    /// When, in nanoseconds since 1970.
    pub wall_ns: i64,
    /// Name of this host.
    pub hostname: &'a str,
    /// The level before: `full`, `headers`, `sampled`, `off`.
    pub from: &'a str,
    /// The level now.
    pub to: &'a str,
    /// What its probes cost, as a share of its processor time.
    pub share: f64,
    /// What they may cost.
    pub budget: f64,
    /// Process id.
    pub tgid: u32,
    /// What is known of it.
    pub process: Option<&'a Process>,
}

impl Governed<'_> {
    /// The event, as a batch of one row.
    #[must_use]
    pub fn event(&self) -> RecordBatch {
        let Self { wall_ns, hostname, from, to, share, budget, tgid, process } = self;
        let detail = |name| Cell::from(process.and_then(|process| process.detail(name)));
        let mut events = EventsBuilder::new(&GOVERNED_SCHEMA);
        events.push(&[
            Cell::Time(*wall_ns),
            Cell::Text(hostname),
            Cell::Text(from),
            Cell::Text(to),
            Cell::Float(*share),
            Cell::Float(*budget),
            process.map(|process| process.exe.as_str()).into(),
            Cell::Int(i64::from(*tgid)),
            detail("container.name"),
            detail("container.image"),
            detail("pod.name"),
            detail("pod.namespace"),
        ]);
        events.finish()
    }
}
