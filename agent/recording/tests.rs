//! Recordings come back as they were written, and damaged ones are refused with their place.

use std::{fs, path::Path, sync::Arc};

use ringtap_batch::{
    clock::WallOffset,
    ledger::Ledger,
    process::{Process, Processes},
    ring::{
        abi::{Kind, Record},
        records::{Records, RecordsBuilder},
    },
};
use zerocopy::FromZeros as _;

use super::*;
use crate::config::checked::ProcessRules;

struct OneProcess;

impl Processes for OneProcess {
    fn get(&self, tgid: u32) -> Option<Arc<Process>> {
        Some(Arc::new(Process { tgid, exe: "/usr/bin/curl".into(), uid: Some(7), ..Process::default() }))
    }
}

const WALL: WallOffset = WallOffset(1_700_000_000_000_000_000);

fn write(path: &Path) -> anyhow::Result<()> {
    let mut recorder = Recorder::create(path, "host-a", Arc::new(OneProcess), Arc::new(Ledger::default()))?;
    for round in 0..3u8 {
        let mut builder = RecordsBuilder::default();
        for size in [0, 5, 12, 13, 4000] {
            let mut head = Record::new_zeroed();
            (head.kind, head.conn, head.tgid, head.len, head.size) = (Kind::Payload as u8, 77, 42, size, size);
            builder.push_copied(&head, &vec![round; size as usize]);
        }
        recorder.write(&builder.finish(None), WALL)?;
    }
    recorder.finish()
}

/// Payloads, the offset to wall time, and the processes that were named.
type Read = (Vec<Vec<u8>>, WallOffset, Arc<RecordedProcesses>);

fn read(path: &Path) -> Result<Read, RecordingError> {
    let processes = Arc::new(RecordedProcesses::new(ProcessRules::default()));
    let mut recording = Recording::open(path)?;
    let mut payloads = Vec::new();
    while let Some(batch) = recording.read()? {
        processes.learn(&batch);
        let rows = Records::of(&batch).expect("its schema").rows();
        payloads.extend(rows.filter(|row| row.kind == Some(Kind::Payload)).map(|row| row.payload.to_vec()));
    }
    Ok((payloads, recording.wall(), processes))
}

#[test]
fn what_was_recorded_comes_back() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("x.rtap");
    write(&path)?;
    let (payloads, wall, processes) = read(&path)?;
    assert_eq!((payloads.len(), wall), (15, WALL));
    assert_eq!((payloads[4].len(), payloads[14][0]), (4000, 2));
    assert_eq!(processes.get(42).map(|p| (p.exe.clone(), p.uid)), Some(("/usr/bin/curl".into(), Some(7))));
    assert_eq!(fs::read_dir(folder.path())?.count(), 1, "no partial file is left");
    Ok(())
}

/// Cut anywhere, or with any byte changed: an error with a place, or rows as they were; never a panic.
#[test]
fn damaged_recordings_are_refused() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("x.rtap");
    write(&path)?;
    let whole = fs::read(&path)?;
    let broken = folder.path().join("broken.rtap");
    let mut unnoticed = Vec::new();
    for cut in (0..whole.len()).step_by(7) {
        fs::write(&broken, &whole[..cut])?;
        match read(&broken) {
            Err(RecordingError::Damaged { at, .. }) => assert!(at <= cut as u64),
            Err(RecordingError::Io(_) | RecordingError::OtherSchema) | Ok(_) => panic!("cut at {cut}"),
        }
    }
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&broken, &bytes)?;
        if read(&broken).is_ok() {
            unnoticed.push(at);
        }
    }
    // The mark of the stream's end is for other readers: its place is known from the checksums.
    assert!(unnoticed.len() <= 8, "changed bytes that nobody noticed: {unnoticed:?}");
    Ok(())
}

#[test]
fn other_arrow_streams_are_named() -> anyhow::Result<()> {
    use arrow_array::{Int64Array, RecordBatch};
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("other.arrows");
    let batch = RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![1])) as arrow_array::ArrayRef)])?;
    let mut writer = arrow_ipc::writer::StreamWriter::try_new(fs::File::create(&path)?, &batch.schema())?;
    writer.write(&batch)?;
    writer.finish()?;
    assert!(matches!(read(&path), Err(RecordingError::OtherSchema)));
    Ok(())
}
