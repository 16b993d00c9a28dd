//! Writes a recording.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::BufWriter,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use arrow_array::RecordBatch;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::Schema;
use ringtap_batch::{
    clock::WallOffset,
    ledger::Ledger,
    process::{Process, Processes},
    ring::{
        abi::{Kind, LostEnd, Record},
        records::{Records, RecordsBuilder, SCHEMA},
    },
};
use zerocopy::{FromZeros as _, IntoBytes as _};

use super::{HOST, ProcessRow, VERSION, seal::Sealing};

/// Writes batches as they come, under another name until the recording is complete.
pub struct Recorder {
    writer: StreamWriter<Sealing<BufWriter<File>>>,
    target: PathBuf,
    partial: PathBuf,
    processes: Arc<dyn Processes>,
    ledger: Arc<Ledger>,
    /// What was said of each process.
    named: HashMap<u32, Arc<Process>>,
    wall: Option<WallOffset>,
    /// Rows of our own, and the kernel's, that are not written yet.
    own: RecordsBuilder,
    pending: RecordsBuilder,
}

/// Payload of one message: so much stays in the caches of whoever replays it.
const MESSAGE_BYTES: usize = 1 << 20;
const MESSAGE_ROWS: usize = 8192;
/// Wall time may drift so far before a row says so.
const DRIFT_NS: u64 = 1_000_000;

impl Recorder {
    /// Begins a recording that becomes `target` when it is finished; until then it has `.partial` behind its name.
    ///
    /// # Errors
    ///
    /// The file cannot be made.
    pub fn create(
        target: &Path,
        host: &str,
        processes: Arc<dyn Processes>,
        ledger: Arc<Ledger>,
    ) -> anyhow::Result<Self> {
        let mut name = target.as_os_str().to_owned();
        name.push(".partial");
        let partial = PathBuf::from(name);
        // It holds what others have sent: nobody else is to read it.
        let mut options = File::options();
        let file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&partial)
            .with_context(|| format!("cannot write {}", partial.display()))?;
        let metadata = HashMap::from(
            [(HOST, host), (VERSION, env!("CARGO_PKG_VERSION"))].map(|(k, v)| (k.to_owned(), v.to_owned())),
        );
        let schema = Schema::new_with_metadata(SCHEMA.fields().clone(), metadata);
        let mut writer = StreamWriter::try_new(Sealing::new(BufWriter::with_capacity(1 << 20, file)), &schema)
            .with_context(|| format!("cannot write {}", partial.display()))?;
        writer.get_mut().end_message();
        Ok(Self {
            writer,
            target: target.to_owned(),
            partial,
            processes,
            ledger,
            named: HashMap::new(),
            wall: None,
            own: RecordsBuilder::default(),
            pending: RecordsBuilder::default(),
        })
    }

    /// Adds a batch, and before it what is new of clock and processes.
    ///
    /// # Errors
    ///
    /// The disk refuses it.
    pub fn write(&mut self, batch: &RecordBatch, wall: WallOffset) -> anyhow::Result<()> {
        let Some(records) = Records::of(batch) else { return Ok(()) };
        if self.wall.is_none_or(|last| last.0.abs_diff(wall.0) > DRIFT_NS) {
            self.wall = Some(wall);
            self.own.push_copied(&own_head(Kind::Clock, 0, 8), &wall.0.to_le_bytes());
        }
        let (mut rows, mut bytes) = (0, 0);
        for row in records.rows() {
            rows += 1;
            if row.kind == Some(Kind::Payload) {
                bytes += row.payload.len() as u64;
            }
            self.name(row.tgid, row.kind == Some(Kind::Open))?;
            self.pending.push_copied(&row.head(), row.payload);
            if self.pending.copied_bytes() >= MESSAGE_BYTES || self.pending.rows() >= MESSAGE_ROWS {
                self.flush()?;
            }
        }
        self.ledger.records_read.add(rows);
        self.ledger.bytes_read.add(bytes);
        Ok(())
    }

    /// Describes a process once, and anew where a connection finds it running another program.
    fn name(&mut self, tgid: u32, look_again: bool) -> anyhow::Result<()> {
        if !look_again && self.named.contains_key(&tgid) {
            return Ok(());
        }
        let Some(process) = self.processes.get(tgid) else { return Ok(()) };
        if self.named.get(&tgid) == Some(&process) {
            return Ok(());
        }
        if self.named.insert(tgid, process.clone()).is_some() {
            // Rows so far are of the program before.
            self.flush()?;
        }
        let Process { exe, uid, user, details, tags, .. } = (*process).clone();
        let said = ProcessRow { exe, uid, user, details, tags };
        let json = serde_json::to_vec(&said).context("a process cannot be described")?;
        self.own.push_copied(&own_head(Kind::Process, tgid, json.len()), &json);
        Ok(())
    }

    /// Adds the end of a connection that the ring had no room for.
    ///
    /// # Errors
    ///
    /// The disk refuses it.
    pub fn close(&mut self, conn: u64, end: LostEnd) -> anyhow::Result<()> {
        let totals = end.totals.as_bytes();
        let mut head = own_head(Kind::Close, 0, totals.len());
        (head.conn, head.time_ns) = (conn, end.time_ns);
        self.pending.push_copied(&head, totals);
        self.flush()
    }

    /// Writes what has gathered, the rows of our own first.
    ///
    /// # Errors
    ///
    /// The disk refuses it.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        for builder in [&mut self.own, &mut self.pending] {
            if builder.rows() == 0 {
                continue;
            }
            let next = RecordsBuilder::with_capacity(builder.copied_bytes());
            let batch = std::mem::replace(builder, next).finish(None);
            self.writer.write(&batch).with_context(|| format!("cannot write {}", self.partial.display()))?;
            self.writer.get_mut().end_message();
        }
        Ok(())
    }

    /// Ends the recording and gives it its name.
    ///
    /// # Errors
    ///
    /// The disk refuses the last bytes, or the name.
    pub fn finish(&mut self) -> anyhow::Result<()> {
        self.flush()?;
        let fault = || format!("cannot write {}", self.target.display());
        self.writer.finish().with_context(fault)?;
        let file = self.writer.get_mut().seal().with_context(fault)?;
        file.get_ref().sync_all().with_context(fault)?;
        fs::rename(&self.partial, &self.target).with_context(fault)
    }
}

fn own_head(kind: Kind, tgid: u32, size: usize) -> Record {
    let mut head = Record::new_zeroed();
    (head.kind, head.tgid) = (kind as u8, tgid);
    head.size = u32::try_from(size).unwrap_or(u32::MAX);
    head
}
