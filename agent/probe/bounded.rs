//! A file of which no more is read than a program has use for: what it says of its own parts is not believed. Whoever can
//! run a program can run one that claims to have a table of a terabyte, which costs nothing on a disk that has holes.

use std::{cell::Cell, fs::File, ops::Range};

use object::{ReadRef, read::ReadCache};

/// Bytes of one part. Names of all symbols, or a table of functions, of the largest programs that are known are a third.
const PART_MAX: u64 = 192 << 20;
/// Bytes of a file in all, parts that are asked for again included.
const FILE_MAX: u64 = 512 << 20;

/// A file, read where it is asked for.
pub struct Bounded {
    cache: ReadCache<File>,
    left: Cell<u64>,
}

impl Bounded {
    /// Nothing is read yet.
    pub fn new(file: File) -> Self {
        Self { cache: ReadCache::new(file), left: Cell::new(FILE_MAX) }
    }

    fn take(&self, size: u64) -> Result<(), ()> {
        let left = self.left.get().checked_sub(size).filter(|_| size <= PART_MAX).ok_or(())?;
        self.left.set(left);
        Ok(())
    }
}

impl<'a> ReadRef<'a> for &'a Bounded {
    fn len(self) -> Result<u64, ()> {
        (&self.cache).len()
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'a [u8], ()> {
        self.take(size)?;
        (&self.cache).read_bytes_at(offset, size)
    }

    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> Result<&'a [u8], ()> {
        // Bounded there, to a few kilobytes.
        (&self.cache).read_bytes_at_until(range, delimiter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_claims_is_not_read_beyond_use() {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(1 << 40).expect("it may have holes");
        let bounded = Bounded::new(file);
        assert!((&bounded).read_bytes_at(0, 1 << 39).is_err(), "a part");
        let all = (0..1000).find(|n| (&bounded).read_bytes_at(n << 24, 16 << 20).is_err());
        assert_eq!(all, Some(32), "parts of sixteen megabytes");
    }
}
