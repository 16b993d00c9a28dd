//! Objects in a folder: `<path>/<first two digits>/<digest>`, written aside and renamed, so that no reader sees half.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;

use super::{SinkError, template::access_url};
use crate::files::{Files, make_folder};

/// A folder of objects.
#[derive(Debug)]
pub struct DiskStore {
    folder: PathBuf,
    access_url: String,
    files: Files,
    temporary: AtomicU64,
}

impl DiskStore {
    /// Makes the folder.
    ///
    /// # Errors
    ///
    /// The folder cannot be made.
    pub fn open(folder: PathBuf, access_url: String, files: Files) -> Result<Self, SinkError> {
        make_folder(&folder).map_err(|error| SinkError::SetUp {
            store: "disk store",
            reason: format!("{}: {error}", folder.display()),
        })?;
        Ok(Self { folder, access_url, files, temporary: AtomicU64::new(0) })
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
        self.files.put(temporary, path.clone(), data).await?;
        Ok(self.url(digest, &path))
    }

    fn url(&self, digest: &str, path: &Path) -> String {
        if self.access_url.is_empty() {
            return format!("file://{}", path.display());
        }
        access_url(&self.access_url, digest, "", "", "file")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::files::uring_allowed;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime")
    }

    /// Both ways leave the same bytes at the same place and nothing besides.
    #[test]
    fn objects_lie_under_their_digest() {
        for uring in [false, true] {
            if uring && !uring_allowed() {
                continue;
            }
            let folder = tempfile::tempdir().expect("a folder");
            let files = Files::start(uring).expect("started");
            let store = DiskStore::open(folder.path().join("objects"), String::new(), files).expect("opens");
            let digest = "0a4d55a8d778e5022fab701977c5d840bbc486d0";
            let url = runtime().block_on(store.put(digest, Bytes::from_static(b"Hello World"))).expect("stored");
            let path = folder.path().join("objects/0a").join(digest);
            assert_eq!(url, format!("file://{}", path.display()));
            assert_eq!(fs::read(&path).expect("there"), b"Hello World");
            let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).expect("there").permissions());
            assert_eq!(mode & 0o777, 0o600);
            assert_eq!(fs::read_dir(path.parent().expect("a folder")).expect("readable").count(), 1);
        }
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let files = Files::start(false).expect("started");
        let error = DiskStore::open(PathBuf::from("/proc/none/objects"), String::new(), files).expect_err("no folder");
        assert!(error.to_string().contains("/proc/none/objects"), "{error}");
    }
}
