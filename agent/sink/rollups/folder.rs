//! The folder of the rollups: partitions, names that nobody else gives, what a killed run has left, and what is too old.
//!
//! `dt=2026-01-02/hour=03/host=gate-1/20260102T030405-<writer>-000001.parquet`. While it is written a file has a dot before
//! its name and `.tmp` behind it, which every engine passes over. Each writer holds a lock on a note of its own,
//! `.<writer>.open`, in which it writes how many of its rows are not in a file yet: a note that nobody holds is from a run
//! that was killed.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    hash::{BuildHasher as _, RandomState},
    io,
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};

/// Rows tell of all users: nobody else may read them.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Of a machine without a name.
const NAMELESS: &str = "unknown";
const SECONDS: i64 = 3600;

/// An hour since 1970.
pub(super) type Hour = i64;

/// The hour of a time in microseconds.
pub(super) fn hour_of(time_us: i64) -> Hour {
    time_us.div_euclid(SECONDS * 1_000_000)
}

/// A folder, and this writer's place in it.
pub(super) struct Folder {
    root: PathBuf,
    /// As it stands in partitions.
    host: String,
    /// 16 hexadecimal digits that no other writer has.
    id: String,
    note: File,
    noted: u64,
    files: u64,
}

/// Where a new file is made, and where it goes.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) temporary: PathBuf,
    pub(super) path: PathBuf,
}

impl Folder {
    /// Opens it and clears away what killed runs have left; the second value is how many rows those had not written.
    pub(super) fn open(root: &Path, host: &str) -> io::Result<(Self, u64)> {
        make(root)?;
        let killed = clear(root)?;
        let id = format!("{:016x}", RandomState::new().hash_one((std::process::id(), Timestamp::now())));
        let path = note_path(root, &id);
        let note = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)?;
        flock(&note, FlockOperation::NonBlockingLockExclusive)?;
        let host = if host.is_empty() { NAMELESS.to_owned() } else { escaped(host) };
        Ok((Self { root: root.to_owned(), host, id, note, noted: 0, files: 0 }, killed))
    }

    /// Notes how many rows would be lost now. A note that cannot be written is no reason to stop.
    pub(super) fn note(&mut self, rows: u64) {
        if rows != self.noted && self.note.write_all_at(format!("{rows:020}\n").as_bytes(), 0).is_ok() {
            self.noted = rows;
        }
    }

    /// A place for the next file of an hour, of which `time_us` is the first moment.
    pub(super) fn next(&mut self, hour: Hour, time_us: i64) -> io::Result<Place> {
        self.files += 1;
        let of = |seconds: i64| Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH);
        let partition = of(hour * SECONDS).strftime("dt=%Y-%m-%d/hour=%H").to_string();
        let folder = self.root.join(partition).join(format!("host={}", self.host));
        make(&folder)?;
        let first = of(time_us.div_euclid(1_000_000)).strftime("%Y%m%dT%H%M%S").to_string();
        let name = format!("{first}-{}-{:06}.parquet", self.id, self.files);
        Ok(Place { temporary: folder.join(format!(".{name}.tmp")), path: folder.join(name) })
    }

    /// The part of a path below the folder.
    pub(super) fn below<'p>(&self, path: &'p Path) -> &'p Path {
        path.strip_prefix(&self.root).unwrap_or(path)
    }

    /// Whole files that no living writer has made: they wait for an object store since an earlier run.
    pub(super) fn orphans(&self) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for (_, folder) in hours(&self.root)? {
            for path in below(&folder)?.into_iter().filter(|path| path.is_dir()) {
                files.extend(below(&path)?.into_iter().filter(|file| {
                    let name = name_of(file);
                    let is_alive = |id: &str| id == self.id || is_held(&note_path(&self.root, id));
                    name.ends_with(".parquet") && !name.starts_with('.') && !writer_of(name).is_some_and(is_alive)
                }));
            }
        }
        files.sort_unstable();
        Ok(files)
    }

    /// Deletes the files of this host whose hour ended longer ago.
    pub(super) fn retain(&self, retention: Duration, now: Timestamp) -> io::Result<()> {
        let oldest = now.as_second() - i64::try_from(retention.as_secs()).unwrap_or(i64::MAX / 2);
        for (hour, folder) in hours(&self.root)? {
            let own = folder.join(format!("host={}", self.host));
            if (hour + 1) * SECONDS > oldest || !own.is_dir() {
                continue;
            }
            for file in below(&own)?.into_iter().filter(|file| name_of(file).ends_with(".parquet")) {
                fs::remove_file(file)?;
            }
            // They stay as long as something is in them.
            let _ = fs::remove_dir(&own).and_then(|()| fs::remove_dir(&folder));
            let _ = folder.parent().map(fs::remove_dir);
        }
        Ok(())
    }

    /// Ends without anything left to note.
    pub(super) fn close(&mut self) {
        let _ = fs::remove_file(note_path(&self.root, &self.id));
    }
}

/// A new temporary file.
pub(super) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)
}

/// Puts a whole file in its place: on disk before it has its name, and the name on disk before anybody is told.
pub(super) fn commit(file: &File, place: &Place) -> io::Result<()> {
    file.sync_all()?;
    fs::rename(&place.temporary, &place.path)?;
    let folder = place.path.parent().unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Removes the temporaries of runs that were killed, and returns how many rows those had not written.
fn clear(root: &Path) -> io::Result<u64> {
    let (mut rows, mut dead) = (0, Vec::new());
    for path in below(root)? {
        let Some(id) = name_of(&path).strip_prefix('.').and_then(|name| name.strip_suffix(".open")) else { continue };
        if is_held(&path) {
            continue;
        }
        // A run that was killed before its first note had nothing.
        rows += fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
        dead.push((id.to_owned(), path));
    }
    if dead.is_empty() {
        return Ok(0);
    }
    for (_, hour) in hours(root)? {
        for folder in below(&hour)?.into_iter().filter(|path| path.is_dir()) {
            for file in below(&folder)? {
                let name = name_of(&file);
                let is_dead = |id: &str| dead.iter().any(|(known, _)| known == id);
                if name.starts_with('.') && name.strip_suffix(".tmp").is_some() && writer_of(name).is_some_and(is_dead)
                {
                    fs::remove_file(&file)?;
                }
            }
        }
    }
    for (_, note) in dead {
        fs::remove_file(note)?;
    }
    Ok(rows)
}

/// Whether a living writer holds a note.
fn is_held(note: &Path) -> bool {
    File::open(note).is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_err())
}

fn note_path(root: &Path, id: &str) -> PathBuf {
    root.join(format!(".{id}.open"))
}

/// The writer in a file's name.
fn writer_of(name: &str) -> Option<&str> {
    name.split('-').nth(1)
}

fn name_of(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// All folders of hours.
fn hours(root: &Path) -> io::Result<Vec<(Hour, PathBuf)>> {
    let mut all = Vec::new();
    for day in below(root)? {
        let Some(date) = name_of(&day).strip_prefix("dt=").map(str::to_owned) else { continue };
        for folder in below(&day)? {
            let Some(hour) = name_of(&folder).strip_prefix("hour=") else { continue };
            let begins: Result<Timestamp, _> = format!("{date}T{hour}:00:00Z").parse();
            all.extend(begins.ok().map(|time| (time.as_second().div_euclid(SECONDS), folder)));
        }
    }
    Ok(all)
}

/// What lies in a folder; nothing in one that is gone, since another agent may clear away as well.
fn below(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn make(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)
}

/// What stands in a folder's name as it does in names of partitions: other bytes as `%` and two digits.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let one = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(root: &Path) -> Vec<String> {
        let mut all = Vec::new();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for path in below(&folder).expect("readable") {
                if path.is_dir() {
                    folders.push(path);
                } else {
                    all.push(path.strip_prefix(root).expect("below").display().to_string());
                }
            }
        }
        all.sort_unstable();
        all
    }

    /// Scenario: one run was killed, another one lives. Guarantee: what the first had not finished goes and is told, what
    /// it had finished and all of the second's stays.
    #[test]
    fn only_what_the_dead_have_left_is_cleared() {
        let root = tempfile::tempdir().expect("a folder");
        let open = || Folder::open(root.path(), "gate 1").expect("opens");
        let (mut dead, _) = open();
        let (mut alive, _) = open();
        for folder in [&mut dead, &mut alive] {
            folder.note(7);
            let (whole, half) = (folder.next(490_000, 0).expect("made"), folder.next(490_000, 0).expect("made"));
            commit(&create(&whole.temporary).expect("made"), &whole).expect("committed");
            create(&half.temporary).expect("made");
        }
        assert_eq!(files(root.path()).len(), 6);
        let id = dead.id.clone();
        drop(dead);
        let (third, killed) = open();
        assert_eq!(killed, 7);
        let left = files(root.path());
        assert_eq!(left.iter().filter(|name| name.contains(&alive.id)).count(), 3, "{left:?}");
        let of_dead: Vec<&String> = left.iter().filter(|name| name.contains(&id)).collect();
        assert_eq!(of_dead.len(), 1, "{left:?}");
        assert!(of_dead[0].starts_with("dt=2025-11-24/hour=16/host=gate%201/19700101T000000-"), "{of_dead:?}");
        assert_eq!(third.orphans().expect("readable").len(), 1);
    }

    #[test]
    fn what_is_too_old_goes_with_its_folders() {
        let root = tempfile::tempdir().expect("a folder");
        let (mut folder, _) = Folder::open(root.path(), "a").expect("opens");
        for hour in [490_000, 490_030] {
            let place = folder.next(hour, 0).expect("made");
            commit(&create(&place.temporary).expect("made"), &place).expect("committed");
        }
        let now = Timestamp::from_second(490_031 * SECONDS).expect("a time");
        folder.retain(Duration::from_hours(24), now).expect("deleted");
        let left = files(root.path());
        assert!(left.len() == 2 && left[1].starts_with("dt=2025-11-25/hour=22/"), "{left:?}");
        assert!(!root.path().join("dt=2025-11-24").exists());
    }
}
