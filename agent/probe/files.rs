//! The files that were looked at, and the probes in them: each file once, as long as somebody uses it.

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    cost::Stop,
    kernel::{Kernel, NO_COOKIES, Probes},
    signatures::Signatures,
    tls,
};
use crate::live::boot_ns;

/// Links are closed by so many threads: the kernel waits for a grace period in each close.
const DETACH_THREADS: usize = 32;
/// A file with probes that was not in use at so many looks in a row loses them.
const UNUSED_MAX: u8 = 4;
/// Files without TLS are kept in mind, up to so many; they cost little.
const KEPT_IN_MIND: usize = 16_384;

/// Device and inode.
pub type FileId = (u64, u64);

/// What was found in a file, for whoever asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// A path by which it was reached.
    pub path: PathBuf,
    /// Its TLS libraries.
    pub libraries: Vec<FoundLibrary>,
    /// Why it could not be read, or its TLS not be found.
    pub fault: Option<String>,
    /// Boot time in nanoseconds from which on its probes are in place.
    pub since_ns: u64,
}

/// A TLS library in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundLibrary {
    /// Its name.
    pub name: &'static str,
    /// How its functions were found.
    pub how: &'static str,
    /// Probes in it.
    pub probes: usize,
    /// How its calls are stopped.
    pub stop: Stop,
    /// Why they could not be attached.
    pub refused: Option<String>,
}

/// Files with TLS, and how long it took to put probes into them.
#[derive(Debug, Default)]
pub struct FoundFiles {
    /// Those with TLS libraries, or with faults.
    pub files: HashMap<FileId, Found>,
    /// Files that got probes after a process had begun to use them.
    pub late: u64,
    /// The time between, in nanoseconds, of all of them and the longest.
    pub late_ns: u64,
    /// See `late_ns`.
    pub longest_ns: u64,
    /// Probes in place.
    pub probes: usize,
}

/// What is shared with those who tell of it.
pub type Shared = Arc<Mutex<FoundFiles>>;

struct Known {
    /// When the file's entry was last written: the number of a file that is gone is given to another.
    changed: (i64, i64),
    links: Vec<Probes>,
    unused: u8,
    /// In a folder of libraries: probed before anybody uses it.
    standing: bool,
}

/// All files that were looked at.
pub struct Files {
    known: HashMap<FileId, Known>,
    /// Without their probes, since these cost too much: they are not looked at.
    aside: HashSet<FileId>,
    /// Why the last probe that could not be attached could not.
    pub refused: Option<String>,
    found: Shared,
    signatures: Arc<Signatures>,
}

impl Files {
    /// None yet; what will be found is told there.
    #[must_use]
    pub fn new(found: Shared, signatures: Arc<Signatures>) -> Self {
        Self { known: HashMap::new(), aside: HashSet::new(), refused: None, found, signatures }
    }

    /// Puts probes into a file, once. False: it could not be looked at, and is to be tried again.
    ///
    /// `used_since`: boot time in nanoseconds from which on a process uses it. The file is held open meanwhile: a process
    /// that ends does not take it away.
    pub fn look_at(&mut self, kernel: &mut Kernel, path: &Path, used_since: Option<u64>, standing: bool) -> bool {
        let Ok(file) = fs::File::open(path) else { return false };
        let Ok(metadata) = file.metadata() else { return false };
        let (id, changed) = ((metadata.dev(), metadata.ino()), (metadata.ctime(), metadata.ctime_nsec()));
        if !metadata.is_file() || self.aside.contains(&id) || self.is_known(id, changed) {
            return true;
        }
        let held = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let shown = fs::read_link(&held).unwrap_or_else(|_| path.to_owned());
        let mut found = Found { path: shown, libraries: Vec::new(), fault: None, since_ns: 0 };
        let mut links = Vec::new();
        match look(&held, &self.signatures) {
            // Each library of the file, also if one could not be attached.
            Ok(all) => {
                for points in all {
                    let (more, library) = self.attach(kernel, &held, &found.path, &points);
                    links.extend(more);
                    found.libraries.push(library);
                }
            }
            Err(reason) => {
                tracing::debug!(path = %found.path.display(), reason, "no probes");
                found.fault = Some(reason);
            }
        }
        found.since_ns = boot_ns();
        // What this kernel lacks it will lack the next time.
        let done = found.libraries.iter().all(|library| library.refused.as_deref().is_none_or(|why| why == NO_COOKIES));
        self.note(id, found, used_since);
        if done {
            self.known.insert(id, Known { changed, links, unused: 0, standing });
        } else {
            close(links);
        }
        done
    }

    fn is_known(&mut self, id: FileId, changed: (i64, i64)) -> bool {
        match self.known.get(&id) {
            None => false,
            // Its probes hold the file: the number is still its own, whatever was done to its entry.
            Some(known) if known.changed == changed || !known.links.is_empty() => true,
            Some(_) => {
                self.known.remove(&id);
                false
            }
        }
    }

    /// The probes of one library; none, if one could not be attached.
    fn attach(
        &mut self,
        kernel: &mut Kernel,
        held: &Path,
        shown: &Path,
        points: &tls::Points,
    ) -> (Vec<Probes>, FoundLibrary) {
        let (library, functions, probes) = (points.library, &points.functions, points.count());
        let mut found = FoundLibrary { name: library, how: points.how, probes, stop: points.stop, refused: None };
        let mut links = Vec::new();
        for (program, offsets) in &points.programs {
            match kernel.attach_probes(program, held, offsets, points.cookie) {
                Ok(more) => links.extend(more),
                Err(reason) => {
                    tracing::warn!(path = %shown.display(), program, reason, "cannot attach probes");
                    self.refused = Some(reason.clone());
                    close(links);
                    (found.probes, found.refused) = (0, Some(reason));
                    return (Vec::new(), found);
                }
            }
        }
        tracing::info!(path = %shown.display(), library, ?functions, probes, "probes attached");
        (links, found)
    }

    fn note(&mut self, id: FileId, found: Found, used_since: Option<u64>) {
        let mut all = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let probes: usize = found.libraries.iter().map(|library| library.probes).sum();
        if let Some(since) = used_since.filter(|_| probes > 0) {
            let late = found.since_ns.saturating_sub(since);
            all.late += 1;
            all.late_ns += late;
            all.longest_ns = all.longest_ns.max(late);
        }
        all.probes += probes;
        if !found.libraries.is_empty() || found.fault.as_deref().is_some_and(is_of_elf) {
            all.files.insert(id, found);
        }
    }

    /// Takes the probes out of a file until they are taken back: the governor's last step.
    pub fn put_aside(&mut self, id: FileId) {
        let Some(known) = self.known.remove(&id) else { return };
        self.aside.insert(id);
        close(known.links);
        let mut all = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let FoundFiles { files, probes, .. } = &mut *all;
        for library in files.get_mut(&id).into_iter().flat_map(|found| &mut found.libraries) {
            *probes -= std::mem::take(&mut library.probes);
            library.refused = Some("the probes were taken away: they cost the process too much".to_owned());
        }
    }

    /// Lets a file be looked at again, whose probes were taken away.
    pub fn take_back(&mut self, id: FileId) {
        self.aside.remove(&id);
    }

    /// Takes the probes out of files that nobody has used for a while; returns the numbers of all that were forgotten.
    pub fn forget_unused(&mut self, used: &HashSet<FileId>) -> Vec<u64> {
        let mut all = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        for id in self.aside.extract_if(|id| !used.contains(id)) {
            all.files.remove(&id);
        }
        drop(all);
        let crowded = self.known.len() > KEPT_IN_MIND;
        let mut gone: Vec<FileId> = Vec::new();
        for (id, known) in &mut self.known {
            known.unused = if used.contains(id) || known.standing { 0 } else { known.unused.saturating_add(1) };
            if known.unused >= UNUSED_MAX && (crowded || !known.links.is_empty()) {
                gone.push(*id);
            }
        }
        let links = gone.iter().filter_map(|id| self.known.remove(id)).flat_map(|known| known.links).collect();
        close(links);
        let mut all = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        for id in &gone {
            if let Some(found) = all.files.remove(id) {
                all.probes -= found.libraries.iter().map(|library| library.probes).sum::<usize>();
            }
        }
        gone.into_iter().map(|(_, inode)| inode).collect()
    }

    /// Whether any file has probes.
    #[must_use]
    pub fn has_probes(&self) -> bool {
        self.known.values().any(|known| !known.links.is_empty())
    }

    /// Takes all probes away.
    pub fn detach(self) {
        close(self.known.into_values().flat_map(|known| known.links).collect());
    }
}

/// Whatever is wrong with a file must cost that file alone: anybody can run one.
fn look(path: &Path, signatures: &Signatures) -> Result<Vec<tls::Points>, String> {
    let looked = std::panic::catch_unwind(|| tls::points(path, signatures));
    looked.unwrap_or_else(|_| Err("to look into it has crashed; please report it".to_owned()))
}

/// How the reader says that a file is something else.
const NOT_ELF: &str = "Unknown file magic";

/// Whether a fault is one of a file that may have had TLS.
pub fn is_of_elf(fault: &str) -> bool {
    !fault.contains(NOT_ELF)
}

/// Closes links side by side.
fn close(links: Vec<Probes>) {
    let share = links.len().div_ceil(DETACH_THREADS).max(1);
    let mut links = links.into_iter();
    std::thread::scope(|scope| {
        loop {
            let part: Vec<Probes> = links.by_ref().take(share).collect();
            if part.is_empty() {
                break;
            }
            scope.spawn(move || drop(part));
        }
    });
}
