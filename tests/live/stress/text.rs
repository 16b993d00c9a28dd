//! The code of a process in its memory, against the files that it comes from.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::PathBuf,
};

const CHUNK: usize = 1 << 20;

/// Code of a process that a file backs.
struct Mapping {
    start: u64,
    end: u64,
    offset: u64,
    /// The mapped file itself, whatever has become of its name.
    file: PathBuf,
}

fn mappings(pid: u32) -> io::Result<Vec<Mapping>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        let (range, rights, offset) = (words.next()?, words.next()?, words.next()?);
        let is_file = words.nth(2)?.starts_with('/');
        let hex = |text| u64::from_str_radix(text, 16).ok();
        let (start, end) = range.split_once('-').and_then(|(start, end)| Some((hex(start)?, hex(end)?)))?;
        let file = PathBuf::from(format!("/proc/{pid}/map_files/{start:x}-{end:x}"));
        (is_file && rights.contains('x')).then_some(Mapping { start, end, offset: hex(offset)?, file })
    };
    Ok(maps.lines().filter_map(parse).collect())
}

/// The files whose code a process has mapped, each once.
pub fn files(pid: u32) -> io::Result<Vec<PathBuf>> {
    let (mut known, mut files) = (BTreeSet::new(), Vec::new());
    for mapping in mappings(pid)? {
        let file = fs::metadata(&mapping.file)?;
        if known.insert((file.dev(), file.ino())) {
            files.push(mapping.file);
        }
    }
    Ok(files)
}

/// A byte of a process's code that is not that of its file.
#[derive(Debug)]
pub struct Change {
    #[expect(dead_code, reason = "to be printed")]
    pub file: PathBuf,
    #[expect(dead_code, reason = "to be printed")]
    pub offset: u64,
    #[expect(dead_code, reason = "to be printed")]
    pub from_to: (u8, u8),
}

/// What of a process's code is not that of its files.
pub fn changes(pid: u32) -> io::Result<Vec<Change>> {
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let (mut here, mut there, mut changes) = (vec![0; CHUNK], vec![0; CHUNK], Vec::new());
    for Mapping { start, end, offset, file } in mappings(pid)? {
        let (name, file) = (fs::read_link(&file)?, File::open(file)?);
        // The last page is longer than the file.
        let end = end.min(start + file.metadata()?.len().saturating_sub(offset));
        for at in (start..end).step_by(CHUNK) {
            let len = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            memory.read_exact_at(&mut here[..len], at)?;
            file.read_exact_at(&mut there[..len], offset + (at - start))?;
            let differ =
                (0_u64..).zip(there[..len].iter().zip(&here[..len])).filter(|(_, (there, here))| there != here);
            changes.extend(differ.map(|(n, (there, here))| Change {
                file: name.clone(),
                offset: offset + (at - start) + n,
                from_to: (*there, *here),
            }));
        }
    }
    Ok(changes)
}
