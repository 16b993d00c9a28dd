//! Keeps probes where programs are: looks at each executable and library once, when a process first maps it.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use aya::programs::uprobe::UProbeLink;
use ringtap_batch::ring::{
    Reader,
    abi::{Kind, MappedFile},
    records::{Records, Row},
};

use super::{
    kernel::{CONTROL_BYTES, Kernel, KernelError, ProcessMaps},
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
    seen: HashMap<FileId, PathBuf>,
    links: Vec<UProbeLink>,
    rescanned: Instant,
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
        let (seen, links) = (HashMap::new(), Vec::new());
        let mut prober = Self { kernel, control, maps, processes, seen, links, rescanned: Instant::now() };
        prober.kernel.start()?;
        for lost in &prober.kernel.missing {
            tracing::warn!("this kernel lacks {lost}");
        }
        prober.scan_folders();
        prober.scan_processes();
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
            if self.rescanned.elapsed() > RESCAN_EVERY {
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
            Some(Kind::Exit) => self.processes.exited(row.tgid),
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
            self.maps.exclude(tgid, process.excluded);
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
            if entry.file_name().to_string_lossy().starts_with("libssl.so") {
                self.look_at(&entry.path());
            }
        }
    }

    fn scan_processes(&mut self) {
        self.rescanned = Instant::now();
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
        // Threads of the kernel have no executable.
        if fs::read_link(format!("/proc/{tgid}/exe")).is_ok() {
            self.learn(tgid, "");
        }
    }

    /// Puts probes into a file, once. False: it could not be looked at.
    fn look_at(&mut self, path: &Path) -> bool {
        let Ok(metadata) = fs::metadata(path) else { return false };
        let id = (metadata.dev(), metadata.ino());
        if !metadata.is_file() || self.seen.contains_key(&id) {
            return true;
        }
        self.seen.insert(id, path.to_owned());
        match tls::points(path) {
            Ok(Some(points)) => self.attach(path, &points),
            Ok(None) => {}
            Err(reason) => tracing::debug!(path = %path.display(), reason, "not looked into"),
        }
        true
    }

    fn attach(&mut self, path: &Path, points: &tls::Points) {
        let before = self.links.len();
        let mut refused = None;
        for point in &points.points {
            // The return of a function comes before its entry: without the one, the other is of no use.
            if refused == Some(point.offset) {
                continue;
            }
            match self.kernel.attach_probe(point.program, path, point.offset) {
                Ok(link) => self.links.push(link),
                Err(reason) => {
                    refused = Some(point.offset);
                    tracing::warn!(path = %path.display(), program = point.program, reason, "cannot attach a probe");
                }
            }
        }
        let functions: Vec<&str> = points.functions.iter().map(|(name, _)| *name).collect();
        let shown = fs::read_link(path).unwrap_or_else(|_| path.to_owned());
        tracing::info!(path = %shown.display(), ?functions, probes = self.links.len() - before, "probes attached");
    }

    /// Closes all links side by side.
    fn detach(self) {
        let Self { kernel, links, .. } = self;
        let share = links.len().div_ceil(DETACH_THREADS).max(1);
        let mut links = links.into_iter();
        std::thread::scope(|scope| {
            loop {
                let part: Vec<UProbeLink> = links.by_ref().take(share).collect();
                if part.is_empty() {
                    break;
                }
                scope.spawn(move || drop(part));
            }
            drop(kernel);
        });
    }
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
