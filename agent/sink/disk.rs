//! Objects in a folder: `<path>/<first two digits>/<digest>`, written aside and renamed, so that no reader sees half.
//!
//! tokio-uring writes where the kernel allows it; it needs a runtime of its own, which lives on its own thread.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::{SinkError, template::access_url};

/// Writes in flight at most.
const IN_FLIGHT: usize = 64;

/// A folder of objects.
#[derive(Debug)]
pub struct DiskStore {
    folder: PathBuf,
    access_url: String,
    writer: Option<mpsc::Sender<Write>>,
    temporary: AtomicU64,
}

#[derive(Debug)]
struct Write {
    temporary: PathBuf,
    path: PathBuf,
    data: Bytes,
    done: oneshot::Sender<io::Result<()>>,
}

impl DiskStore {
    /// Makes the folder; `uring` says whether `io_uring` may be used.
    ///
    /// # Errors
    ///
    /// The folder cannot be made.
    pub fn open(folder: PathBuf, access_url: String, uring: bool) -> Result<Self, SinkError> {
        make_folder(&folder).map_err(|error| SinkError::SetUp {
            store: "disk store",
            reason: format!("{}: {error}", folder.display()),
        })?;
        let writer = if uring { Some(start_uring()?) } else { None };
        Ok(Self { folder, access_url, writer, temporary: AtomicU64::new(0) })
    }

    /// Where an object lies.
    fn path(&self, digest: &str) -> PathBuf {
        self.folder.join(&digest[..2]).join(digest)
    }

    /// Stores an object under its digest; the answer is its url.
    ///
    /// # Errors
    ///
    /// The disk is full or failing.
    pub async fn put(&self, digest: &str, data: Bytes) -> Result<String, SinkError> {
        let path = self.path(digest);
        let folder = path.parent().unwrap_or(&self.folder);
        if !folder.is_dir() {
            make_folder(folder)?;
        }
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        let temporary = folder.join(format!(".{digest}.{}.{number}", std::process::id()));
        match &self.writer {
            Some(writer) => {
                let (done, answer) = oneshot::channel();
                let write = Write { temporary, path: path.clone(), data, done };
                writer.send(write).await.map_err(|_| gone())?;
                answer.await.map_err(|_| gone())??;
            }
            None => {
                let to = path.clone();
                tokio::task::spawn_blocking(move || write_plain(&temporary, &to, &data))
                    .await
                    .map_err(|_| gone())??;
            }
        }
        Ok(self.url(digest, &path))
    }

    fn url(&self, digest: &str, path: &Path) -> String {
        if self.access_url.is_empty() {
            return format!("file://{}", path.display());
        }
        access_url(&self.access_url, digest, "", "", "file")
    }
}

/// Objects hold credentials and bodies of all users: nobody else may read them.
fn make_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

const FILE_MODE: u32 = 0o600;

fn gone() -> io::Error {
    io::Error::other("the writer has stopped")
}

fn write_plain(temporary: &Path, path: &Path, data: &[u8]) -> io::Result<()> {
    let open = fs::OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(temporary);
    let written =
        open.and_then(|mut file| io::Write::write_all(&mut file, data)).and_then(|()| fs::rename(temporary, path));
    if written.is_err() {
        // The first error is the one to report; what was begun is of no use.
        let _ = fs::remove_file(temporary);
    }
    written
}

fn start_uring() -> io::Result<mpsc::Sender<Write>> {
    let (sender, writes) = mpsc::channel(IN_FLIGHT);
    std::thread::Builder::new().name("disk".into()).spawn(move || tokio_uring::start(serve(writes)))?;
    Ok(sender)
}

async fn serve(mut writes: mpsc::Receiver<Write>) {
    let slots = std::sync::Arc::new(tokio::sync::Semaphore::new(IN_FLIGHT));
    while let Some(write) = writes.recv().await {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        tokio_uring::spawn(async move {
            let result = write_uring(&write.temporary, &write.path, write.data).await;
            if result.is_err() {
                let _ = fs::remove_file(&write.temporary);
            }
            // Whoever waited may have given up.
            let _ = write.done.send(result);
            drop(slot);
        });
    }
    // All slots: every write has ended.
    let _ = slots.acquire_many(u32::try_from(IN_FLIGHT).unwrap_or(u32::MAX)).await;
}

async fn write_uring(temporary: &Path, path: &Path, data: Bytes) -> io::Result<()> {
    let options = tokio_uring::fs::OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).clone();
    let file = options.open(temporary).await?;
    // The buffer is the operation's until it completes; tokio-uring 0.5 takes `Vec<u8>`.
    let (written, _) = file.write_all_at(Vec::from(data), 0).await;
    let closed = file.close().await;
    written.and(closed)?;
    tokio_uring::fs::rename(temporary, path).await
}

/// Whether this kernel, and the sandbox around the agent, allow `io_uring`.
#[must_use]
pub fn uring_allowed() -> bool {
    ringtap_ring::wait::probe_io_uring().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime")
    }

    /// Both ways leave the same bytes at the same place and nothing besides.
    #[test]
    fn objects_lie_under_their_digest() {
        let uring_works = uring_allowed();
        for uring in [false, true] {
            if uring && !uring_works {
                continue;
            }
            let folder = tempfile::tempdir().expect("a folder");
            let store = DiskStore::open(folder.path().join("objects"), String::new(), uring).expect("opens");
            let digest = "0a4d55a8d778e5022fab701977c5d840bbc486d0";
            let url = runtime().block_on(store.put(digest, Bytes::from_static(b"Hello World"))).expect("stored");
            let path = folder.path().join("objects/0a").join(digest);
            assert_eq!(url, format!("file://{}", path.display()));
            assert_eq!(std::fs::read(&path).expect("there"), b"Hello World");
            let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).expect("there").permissions());
            assert_eq!(mode & 0o777, 0o600);
            assert_eq!(std::fs::read_dir(path.parent().expect("a folder")).expect("readable").count(), 1);
        }
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let error = DiskStore::open(PathBuf::from("/proc/none/objects"), String::new(), false).expect_err("no folder");
        assert!(error.to_string().contains("/proc/none/objects"), "{error}");
    }
}
