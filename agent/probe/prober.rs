//! Keeps probes where programs are: looks at each executable and library once, when a process first maps it.

use std::{
    collections::HashSet,
    fs, io,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use ringtap_batch::ring::{
    Reader,
    abi::{Kind, MappedFile},
    records::{Records, Row},
};

use super::{
    kernel::{CONTROL_BYTES, Kernel, KernelError, Probes, ProcessMaps},
    libraries::LIBRARIES,
    tls,
};
use crate::process::ProcessTable;

/// Behind the kernel's events stands a look at all processes, for the case that events were lost.
const RESCAN_EVERY: Duration = Duration::from_secs(30);
const WAIT: Duration = Duration::from_millis(100);
/// Links are closed by so many threads: the kernel waits for a grace period in each close.
const DETACH_THREADS: usize = 32;
/// Libraries here are probed before any process maps them.
const LIBRARY_FOLDERS: [&str; 6] =
    ["/lib64", "/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib", "/usr/local/lib"];

/// Device and inode.
type FileId = (u64, u64);

/// Owns the programs and the probes.
pub struct Prober {
    kernel: Kernel,
    control: Reader,
    maps: ProcessMaps,
    processes: Arc<ProcessTable>,
    seen: HashSet<FileId>,
    /// Processes that could not be looked at in the last scan.
    denied: usize,
    /// Why the last probe that could not be attached could not.
    refused: Option<String>,
    links: Vec<Probes>,
    rescanned: Instant,
    /// Processes that the kernel was told to leave alone, and by which configuration.
    excluded: HashSet<u32>,
    rules: u64,
}

impl Prober {
    /// Attaches the programs and puts probes into what runs already.
    ///
    /// # Errors
    ///
    /// The kernel refuses what nothing can replace.
    pub fn start(mut kernel: Kernel, processes: Arc<ProcessTable>) -> Result<Self, KernelError> {
        let (control, _) = Reader::open(vec![kernel.control_fd()?], CONTROL_BYTES, None)?;
        let maps = kernel.take_process_maps()?;
        let (seen, links, refused) = (HashSet::new(), Vec::new(), None);
        let mut prober = Self {
            kernel,
            control,
            maps,
            processes,
            seen,
            denied: 0,
            refused,
            links,
            rescanned: Instant::now(),
            excluded: HashSet::new(),
            rules: 0,
        };
        prober.kernel.start()?;
        for lost in &prober.kernel.missing {
            tracing::warn!("this kernel lacks {lost}");
        }
        prober.scan_folders();
        prober.scan_processes();
        match prober.refused.take() {
            Some(reason) if prober.links.is_empty() && is_refusal(&reason) => {
                return Err(KernelError::NotAllowed(reason));
            }
            _ => {}
        }
        if prober.denied > 0 {
            tracing::warn!(
                "{} processes may not be looked at (CAP_SYS_PTRACE): they stay without a name, and what they bring of \
                 TLS outside of the standard folders without probes",
                prober.denied
            );
        }
        Ok(prober)
    }

    /// Follows the kernel's events until `stop`, then takes all probes away.
    ///
    /// # Errors
    ///
    /// The kernel refuses to wait.
    pub fn run(mut self, stop: &AtomicBool) -> io::Result<()> {
        while !stop.load(Ordering::Relaxed) {
            self.control.wait(WAIT)?;
            for batch in self.control.scan().into_iter().flatten() {
                for row in Records::of(&batch).into_iter().flat_map(Records::rows) {
                    self.event(&row);
                }
            }
            let rules = self.processes.rules_changed();
            if self.rescanned.elapsed() > RESCAN_EVERY || rules != self.rules {
                self.rules = rules;
                self.scan_processes();
            }
        }
        self.detach();
        Ok(())
    }

    fn event(&mut self, row: &Row<'_>) {
        match row.kind {
            Some(Kind::Exec) => {
                self.learn(row.tgid, &String::from_utf8_lossy(row.payload));
                self.look_at(&PathBuf::from(format!("/proc/{}/exe", row.tgid)));
            }
            Some(Kind::Exit) => {
                self.excluded.remove(&row.tgid);
                self.processes.exited(row.tgid);
            }
            Some(Kind::Map) => {
                if let Some(file) = MappedFile::read(row.payload) {
                    self.mapped(row.tgid, &file);
                }
            }
            _ => {}
        }
    }

    fn learn(&mut self, tgid: u32, program: &str) {
        let process = self.processes.executed(tgid, program);
        if process.excluded != 0 {
            self.excluded.insert(tgid);
            self.maps.exclude(tgid, process.excluded);
        } else if self.excluded.remove(&tgid) {
            self.maps.exclude(tgid, 0);
        }
    }

    /// A process has mapped a file that was not seen before. If it is gone already, the file is reported anew.
    fn mapped(&mut self, tgid: u32, file: &MappedFile) {
        let name = String::from_utf8_lossy(file.name()).into_owned();
        let paths: Vec<PathBuf> = mapped_paths(tgid).into_iter().filter(|path| path.ends_with(&name)).collect();
        if !paths.iter().any(|path| self.look_at(path)) {
            self.kernel.report_again(file);
        }
    }

    fn scan_folders(&mut self) {
        for entry in LIBRARY_FOLDERS.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            if LIBRARIES.iter().flat_map(|library| library.files).any(|file| name.to_string_lossy().starts_with(file)) {
                self.look_at(&path);
            }
        }
    }

    fn scan_processes(&mut self) {
        (self.rescanned, self.denied) = (Instant::now(), 0);
        let ids = fs::read_dir("/proc").into_iter().flatten().flatten();
        for tgid in ids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
            self.learn_existing(tgid);
            self.look_at(&PathBuf::from(format!("/proc/{tgid}/exe")));
            for path in mapped_paths(tgid) {
                self.look_at(&path);
            }
        }
    }

    fn learn_existing(&mut self, tgid: u32) {
        match fs::read_link(format!("/proc/{tgid}/exe")) {
            Ok(_) => self.learn(tgid, ""),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => self.denied += 1,
            // Threads of the kernel have no executable.
            Err(_) => {}
        }
    }

    /// Puts probes into a file, once. False: it could not be looked at, and is to be tried again.
    ///
    /// The file is held open meanwhile: a process that ends does not take it away.
    fn look_at(&mut self, path: &Path) -> bool {
        let Ok(file) = fs::File::open(path) else { return false };
        let Ok(metadata) = file.metadata() else { return false };
        let id = (metadata.dev(), metadata.ino());
        if !metadata.is_file() || self.seen.contains(&id) {
            return true;
        }
        let held = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let shown = fs::read_link(&held).unwrap_or_else(|_| path.to_owned());
        let done = match tls::points(&held) {
            // Each library of the file, also if one could not be attached.
            Ok(all) => all.iter().map(|points| self.attach(&held, &shown, points)).fold(true, |done, one| done & one),
            Err(reason) => {
                tracing::debug!(path = %shown.display(), reason, "no probes");
                true
            }
        };
        if done {
            self.seen.insert(id);
        }
        done
    }

    /// False: it could not be attached; none of its probes stays.
    fn attach(&mut self, held: &Path, shown: &Path, points: &tls::Points) -> bool {
        let mut links = Vec::new();
        for (program, offsets) in &points.programs {
            match self.kernel.attach_probes(program, held, offsets) {
                Ok(more) => links.extend(more),
                Err(reason) => {
                    tracing::warn!(path = %shown.display(), program, reason, "cannot attach probes");
                    self.refused = Some(reason);
                    close(links);
                    return false;
                }
            }
        }
        let (library, functions, probes) = (points.library, &points.functions, points.count());
        tracing::info!(path = %shown.display(), library, ?functions, probes, "probes attached");
        self.links.extend(links);
        true
    }

    /// Takes all probes away.
    fn detach(self) {
        close(self.links);
    }
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

fn is_refusal(reason: &str) -> bool {
    reason.contains("Permission denied") || reason.contains("Operation not permitted")
}

/// Files that a process has mapped for execution, by a path that is valid here.
fn mapped_paths(tgid: u32) -> Vec<PathBuf> {
    let maps = fs::read_to_string(format!("/proc/{tgid}/maps")).unwrap_or_default();
    let mut paths: Vec<PathBuf> = maps
        .lines()
        .filter_map(|line| {
            let path = &line[line.find('/')?..];
            let executable = line.split(' ').nth(1)?.as_bytes().get(2) == Some(&b'x');
            (executable && !path.ends_with(" (deleted)")).then(|| PathBuf::from(format!("/proc/{tgid}/root{path}")))
        })
        .collect();
    paths.dedup();
    paths
}
