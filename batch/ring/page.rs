//! Counts in a file's page, which outlive the process: what the page holds is the kernel's as soon as it is stored.

use std::{fs::File, io, os::fd::AsFd as _, sync::atomic::AtomicU64};

use rustix::{mm::ProtFlags, param::page_size};

use crate::map::Pages;

/// A page of 64-bit counts, backed by a file. A process that is killed leaves them as they were; only a machine that
/// goes down can lose the last changes.
#[derive(Debug)]
pub struct CountPage(Pages);

impl CountPage {
    /// Maps the first page of a file that was opened for reading and writing. Nobody may cut it short while it is mapped.
    ///
    /// # Errors
    ///
    /// The disk has no room for a page, or the file cannot be mapped.
    pub fn map(file: &File) -> io::Result<Self> {
        let len = page_size();
        let missing = len.saturating_sub(usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX));
        if missing > 0 {
            // Written, not only reserved: a page that the disk has no room for would end us when it is touched.
            let at = u64::try_from(len - missing).unwrap_or(0);
            std::os::unix::fs::FileExt::write_all_at(file, &vec![0; missing], at)?;
        }
        Ok(Self(Pages::map(file.as_fd(), ProtFlags::READ | ProtFlags::WRITE, 0, len)?))
    }

    /// One of the counts.
    ///
    /// # Panics
    ///
    /// The page has no such place: a mistake of the caller.
    #[must_use]
    pub fn count(&self, place: usize) -> &AtomicU64 {
        self.0.word(place * size_of::<u64>())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn counts_outlive_their_page() {
        let file = tempfile::tempfile().expect("a file");
        let page = CountPage::map(&file).expect("mapped");
        assert_eq!(page.count(0).fetch_add(7, Ordering::Relaxed), 0);
        page.count(511).fetch_add(9, Ordering::Relaxed);
        drop(page);
        let page = CountPage::map(&file).expect("mapped again");
        assert_eq!((page.count(0).load(Ordering::Relaxed), page.count(511).load(Ordering::Relaxed)), (7, 9));
    }
}
