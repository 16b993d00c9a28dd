//! Files, written and read away from the runtime's threads: by `io_uring` where the kernel allows it, else by calls that
//! block a thread of their own.
//!
//! tokio-uring needs a runtime of its own, which lives on its own thread.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Operations in flight at most.
const IN_FLIGHT: usize = 64;
/// Files hold credentials and bodies of all users: nobody else may read them.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// Whoever holds one writes files.
#[derive(Debug, Clone)]
pub struct Files(Option<mpsc::Sender<Job>>);

#[derive(Debug)]
struct Job {
    work: Work,
    done: oneshot::Sender<io::Result<Vec<u8>>>,
}

/// One operation. Files are opened for each: beside the data that they move that costs nothing.
#[derive(Debug)]
enum Work {
    /// Written aside and renamed, so that no reader sees half.
    Put {
        temporary: PathBuf,
        path: PathBuf,
        data: Bytes,
    },
    Write {
        path: PathBuf,
        at: u64,
        data: Vec<u8>,
    },
    Read {
        path: PathBuf,
        at: u64,
        len: usize,
    },
    Sync {
        path: PathBuf,
    },
}

impl Files {
    /// `uring` says whether `io_uring` may be used.
    ///
    /// # Errors
    ///
    /// No thread can be had.
    pub fn start(uring: bool) -> io::Result<Self> {
        if !uring {
            return Ok(Self(None));
        }
        let (sender, jobs) = mpsc::channel(IN_FLIGHT);
        std::thread::Builder::new().name("disk".into()).spawn(move || tokio_uring::start(serve(jobs)))?;
        Ok(Self(Some(sender)))
    }

    /// Writes `temporary` and renames it to `path`.
    ///
    /// # Errors
    ///
    /// The disk is full or failing; nothing is left behind.
    pub async fn put(&self, temporary: PathBuf, path: PathBuf, data: Bytes) -> io::Result<()> {
        self.work(Work::Put { temporary, path, data }).await.map(drop)
    }

    /// Writes at a place of a file, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// The disk is full or failing; part of it may have been written.
    pub async fn write(&self, path: PathBuf, at: u64, data: Vec<u8>) -> io::Result<()> {
        self.work(Work::Write { path, at, data }).await.map(drop)
    }

    /// Reads from a place of a file; fewer bytes than `len` if it ends before.
    ///
    /// # Errors
    ///
    /// The disk is failing.
    pub async fn read(&self, path: PathBuf, at: u64, len: usize) -> io::Result<Vec<u8>> {
        self.work(Work::Read { path, at, len }).await
    }

    /// Waits until the data of a file are on the disk.
    ///
    /// # Errors
    ///
    /// The disk is failing.
    pub async fn sync(&self, path: PathBuf) -> io::Result<()> {
        self.work(Work::Sync { path }).await.map(drop)
    }

    async fn work(&self, work: Work) -> io::Result<Vec<u8>> {
        let Some(sender) = &self.0 else {
            return tokio::task::spawn_blocking(move || work.block()).await.map_err(|_| gone())?;
        };
        let (done, answer) = oneshot::channel();
        sender.send(Job { work, done }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// Makes a folder that nobody else can read.
///
/// # Errors
///
/// It cannot be made.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)
}

/// Whether this kernel, and the sandbox around the agent, allow `io_uring`.
#[must_use]
pub fn uring_allowed() -> bool {
    ringtap_ring::wait::probe_io_uring().is_ok()
}

fn gone() -> io::Error {
    io::Error::other("the writer has stopped")
}

impl Work {
    /// What has to be removed if it fails.
    fn begun(&self) -> Option<&Path> {
        match self {
            Self::Put { temporary, .. } => Some(temporary),
            _ => None,
        }
    }

    fn block(self) -> io::Result<Vec<u8>> {
        match &self {
            Self::Put { temporary, path, data } => {
                let open = fs::OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(temporary);
                let written = open.and_then(|mut file| io::Write::write_all(&mut file, data));
                let put = written.and_then(|()| fs::rename(temporary, path));
                put.inspect_err(|_| self.clear()).map(|()| Vec::new())
            }
            Self::Write { path, at, data } => {
                let open = fs::OpenOptions::new().write(true).create(true).truncate(false).mode(FILE_MODE).open(path);
                open.and_then(|file| file.write_all_at(data, *at)).map(|()| Vec::new())
            }
            Self::Read { path, at, len } => {
                let (file, mut data, mut filled) = (fs::File::open(path)?, vec![0; *len], 0);
                while filled < *len {
                    match file.read_at(&mut data[filled..], at + filled as u64)? {
                        0 => break,
                        n => filled += n,
                    }
                }
                data.truncate(filled);
                Ok(data)
            }
            Self::Sync { path } => fs::File::open(path)?.sync_data().map(|()| Vec::new()),
        }
    }

    /// The first error is the one to report; what was begun is of no use.
    fn clear(&self) {
        let _ = self.begun().map(fs::remove_file);
    }
}

async fn serve(mut jobs: mpsc::Receiver<Job>) {
    let slots = Arc::new(Semaphore::new(IN_FLIGHT));
    while let Some(Job { work, done }) = jobs.recv().await {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        tokio_uring::spawn(async move {
            // Whoever waited may have given up.
            let _ = done.send(submit(work).await);
            drop(slot);
        });
    }
    // All slots: every operation has ended.
    let _ = slots.acquire_many(u32::try_from(IN_FLIGHT).unwrap_or(u32::MAX)).await;
}

async fn submit(work: Work) -> io::Result<Vec<u8>> {
    match work {
        Work::Put { temporary, path, data } => {
            let put = submit_put(&temporary, &path, data).await;
            if put.is_err() {
                let _ = fs::remove_file(&temporary);
            }
            put.map(|()| Vec::new())
        }
        Work::Write { path, at, data } => {
            let options = tokio_uring::fs::OpenOptions::new().write(true).create(true).mode(FILE_MODE).clone();
            let file = options.open(path).await?;
            let (written, _) = file.write_all_at(data, at).await;
            let closed = file.close().await;
            written.and(closed).map(|()| Vec::new())
        }
        Work::Read { path, at, len } => submit_read(&path, at, len).await,
        Work::Sync { path } => {
            let file = tokio_uring::fs::File::open(path).await?;
            let synced = file.sync_data().await;
            let closed = file.close().await;
            synced.and(closed).map(|()| Vec::new())
        }
    }
}

async fn submit_put(temporary: &Path, path: &Path, data: Bytes) -> io::Result<()> {
    let options = tokio_uring::fs::OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).clone();
    let file = options.open(temporary).await?;
    // The buffer is the operation's until it completes; tokio-uring 0.5 takes `Vec<u8>`.
    let (written, _) = file.write_all_at(Vec::from(data), 0).await;
    let closed = file.close().await;
    written.and(closed)?;
    tokio_uring::fs::rename(temporary, path).await
}

async fn submit_read(path: &Path, at: u64, len: usize) -> io::Result<Vec<u8>> {
    let file = tokio_uring::fs::File::open(path).await?;
    let mut data = Vec::with_capacity(len);
    let read = loop {
        let (from, missing) = (at + data.len() as u64, len - data.len());
        if missing == 0 {
            break Ok(());
        }
        let (read, more) = file.read_at(Vec::with_capacity(missing), from).await;
        match read {
            Ok(0) => break Ok(()),
            Ok(_) => data.extend_from_slice(&more),
            Err(error) => break Err(error),
        }
    };
    let closed = file.close().await;
    read.and(closed).map(|()| data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_write_and_read_alike() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        for uring in [false, true] {
            if uring && !uring_allowed() {
                continue;
            }
            let folder = tempfile::tempdir().expect("a folder");
            let files = Files::start(uring).expect("started");
            let path = folder.path().join("file");
            runtime.block_on(async {
                files.write(path.clone(), 0, b"Hello ".to_vec()).await.expect("written");
                files.write(path.clone(), 6, b"World".to_vec()).await.expect("written");
                files.sync(path.clone()).await.expect("synced");
                assert_eq!(files.read(path.clone(), 3, 5).await.expect("read"), b"lo Wo");
                assert_eq!(files.read(path.clone(), 6, 100).await.expect("read"), b"World");
                assert_eq!(files.read(path.clone(), 100, 1).await.expect("read"), b"");
                let aside = folder.path().join("aside");
                let put = files.put(aside.clone(), folder.path().join("none/file"), Bytes::from_static(b"x")).await;
                assert!(put.is_err() && !aside.exists(), "nothing is left behind");
            });
        }
    }
}
