//! How far a log was acknowledged: two slots in a file, written in turns, so that one of them is always whole.

use std::{fs, path::Path};

/// Bytes of a slot: the row, and the CRC-32 of it.
pub const SLOT: usize = 12;

/// The row that a cursor's file names; the beginning if there is none.
pub fn read(path: &Path) -> u64 {
    let bytes = fs::read(path).unwrap_or_default();
    let slots = bytes.chunks_exact(SLOT).filter_map(|slot| {
        let row: [u8; 8] = *slot.first_chunk()?;
        (slot[8..] == crc32fast::hash(&row).to_le_bytes()).then(|| u64::from_le_bytes(row))
    });
    slots.max().unwrap_or(0)
}

/// A slot that names a row.
pub fn slot(row: u64) -> Vec<u8> {
    let row = row.to_le_bytes();
    [row.as_slice(), &crc32fast::hash(&row).to_le_bytes()].concat()
}
