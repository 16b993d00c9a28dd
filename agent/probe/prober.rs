//! Keeps probes where programs are: looks at each executable and library once, when a process first maps it.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use ringtap_batch::{
    process::Processes as _,
    ring::{
        Reader,
        abi::{Kind, MappedFile, flag},
        records::{Records, Row},
    },
};

use super::{
    cost::Costs,
    files::{FileId, Files},
    governor::{self, Governor, Level, Step},
    hold::Guard,
    kernel::{CONTROL_BYTES, Kernel, KernelError, ProcessMaps},
    libraries::LIBRARIES,
    signatures::Signatures,
};
use crate::{
    coverage::{Coverage, process_ids},
    process::ProcessTable,
};

/// Behind the kernel's events stands a look at all processes, for the case that events were lost.
const RESCAN_EVERY: Duration = Duration::from_secs(30);
/// How old the counts of processes may be, for whoever asks.
const COPY_EVERY: Duration = Duration::from_millis(500);
const WAIT: Duration = Duration::from_millis(100);
/// Libraries here are probed before any process maps them.
const LIBRARY_FOLDERS: [&str; 6] =
    ["/lib64", "/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib", "/usr/local/lib"];

/// Programs here are looked at between events, before anybody runs them.
const PROGRAM_FOLDERS: [&str; 4] = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"];

/// Owns the programs and the probes.
pub struct Prober {
    kernel: Kernel,
    control: Reader,
    maps: ProcessMaps,
    processes: Arc<ProcessTable>,
    /// For those who tell of it.
    coverage: Arc<Coverage>,
    /// When the processes' counts were copied there last.
    copied: Instant,
    /// Keeps the probes within their budgets; from the first look on.
    governor: Option<Governor>,
    governed: Instant,
    files: Files,
    /// Programs that are still to be looked at.
    ahead: Vec<PathBuf>,
    /// Lets go whoever is stopped, should this process not.
    guard: Option<Guard>,
    /// Processes that could not be looked at in the last scan.
    denied: usize,
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
    pub fn start(
        mut kernel: Kernel,
        coverage: Arc<Coverage>,
        signatures: Arc<Signatures>,
        hold_new: bool,
    ) -> Result<Self, KernelError> {
        let (control, _) = Reader::open(vec![kernel.control_fd()?], CONTROL_BYTES, None)?;
        let maps = kernel.take_process_maps()?;
        let guard = hold_new.then(|| Guard::start(maps.held_fd()?)).transpose()?;
        let mut prober = Self {
            kernel,
            control,
            maps,
            files: Files::new(coverage.found.clone(), signatures),
            processes: coverage.processes.clone(),
            coverage,
            copied: Instant::now(),
            governor: None,
            governed: Instant::now(),
            ahead: programs(),
            guard,
            denied: 0,
            rescanned: Instant::now(),
            excluded: HashSet::new(),
            rules: 0,
        };
        prober.kernel.start()?;
        for lost in &prober.kernel.missing {
            tracing::warn!("this kernel lacks {lost}");
        }
        prober.coverage.lacks(&prober.kernel.missing);
        prober.scan_folders();
        prober.scan_processes();
        if prober.guard.is_some() {
            // Not before: who was stopped while all others were looked at would wait for long.
            prober.maps.hold();
        }
        match prober.files.refused.take() {
            Some(reason) if !prober.files.has_probes() && is_refusal(&reason) => {
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
            match self.ahead.pop() {
                Some(path) => {
                    self.files.look_at(&mut self.kernel, &path, None, true);
                }
                None => self.control.wait(WAIT)?,
            }
            for batch in self.control.scan().into_iter().flatten() {
                for row in Records::of(&batch).into_iter().flat_map(Records::rows) {
                    self.event(&row);
                }
            }
            if self.copied.elapsed() > COPY_EVERY {
                self.copied = Instant::now();
                *self.coverage.activity.lock().unwrap_or_else(PoisonError::into_inner) = self.maps.activity();
            }
            if self.governed.elapsed() > governor::LOOK_EVERY {
                self.govern();
            }
            let rules = self.processes.rules_changed();
            if self.rescanned.elapsed() > RESCAN_EVERY || rules != self.rules {
                self.rules = rules;
                self.scan_processes();
            }
        }
        self.maps.hold_no_more();
        self.detach();
        Ok(())
    }

    fn event(&mut self, row: &Row<'_>) {
        match row.kind {
            Some(Kind::Exec) => {
                self.forget(row.tgid);
                if let Some(id) = exe_of(row.tgid) {
                    self.files.take_back(id);
                }
                self.learn(row.tgid, &String::from_utf8_lossy(row.payload));
                self.look_at(&PathBuf::from(format!("/proc/{}/exe", row.tgid)), Some(row.time_ns));
            }
            Some(Kind::Exit) => {
                self.forget(row.tgid);
                self.excluded.remove(&row.tgid);
                self.processes.exited(row.tgid);
                self.maps.forget(row.tgid);
            }
            Some(Kind::Map) => {
                if let Some(file) = MappedFile::read(row.payload) {
                    self.mapped(row.tgid, &file, row.time_ns);
                }
            }
            _ => {}
        }
        if row.flags & flag::HELD != 0 {
            self.maps.let_go(row.tgid);
        }
    }

    fn learn(&mut self, tgid: u32, program: &str) {
        let process = self.processes.executed(tgid, program);
        self.exclude(tgid, process.excluded);
    }

    /// Tells the programs what is left alone of a process, by the configuration and by the governor.
    fn exclude(&mut self, tgid: u32, configured: u32) {
        let bits = configured | self.processes.governed().level(tgid).bits();
        if bits != 0 {
            self.excluded.insert(tgid);
            self.maps.exclude(tgid, bits);
        } else if self.excluded.remove(&tgid) {
            self.maps.exclude(tgid, 0);
        }
    }

    /// Compares what probes cost with what they may.
    fn govern(&mut self) {
        let now = Instant::now();
        self.governed = now;
        let Self { governor, kernel, coverage, processes, .. } = self;
        let steps = match (processes.governed().budget(), governor) {
            (None, None) => return,
            (None, Some(governor)) => governor.release(),
            (Some(budget), governor) => {
                let governor = governor.get_or_insert_with(|| Governor::new(Costs::measure(kernel)));
                let activity = coverage.activity.lock().unwrap_or_else(PoisonError::into_inner).clone();
                governor.look(now, budget, &activity, &**coverage)
            }
        };
        steps.into_iter().for_each(|step| self.step(step));
    }

    fn step(&mut self, step: Step) {
        let Step { tgid, from, to, share } = step;
        self.processes.governed().step(step);
        let process = self.processes.get(tgid);
        let (exe, excluded) = process.as_deref().map_or(("", 0), |process| (process.exe.as_str(), process.excluded));
        let (from, to, percent) = (from.as_str(), to.as_str(), format!("{:.1} %", share * 100.0));
        if step.to > step.from {
            tracing::warn!(tgid, exe, from, to, percent, "its probes cost a process too much: less of it is captured");
        } else {
            tracing::info!(tgid, exe, from, to, "more of a process is captured again");
        }
        self.exclude(tgid, excluded);
        let Some(id) = exe_of(tgid) else { return };
        if step.to == Level::Off && self.is_alone(tgid, id) {
            self.files.put_aside(id);
        } else if step.from == Level::Off {
            self.files.take_back(id);
            self.look_at(&PathBuf::from(format!("/proc/{tgid}/exe")), None);
        }
    }

    /// Whether nobody else runs a program who is to be captured. Of libraries that can be had from any file it is not
    /// asked: who maps one later is not told of, if it was known before.
    fn is_alone(&self, tgid: u32, exe: FileId) -> bool {
        let governed = self.processes.governed();
        let mut others = process_ids().filter(|other| *other != tgid && exe_of(*other) == Some(exe));
        others.all(|other| governed.level(other) == Level::Off)
    }

    /// A process is another one now, or gone.
    fn forget(&mut self, tgid: u32) {
        self.processes.governed().forget(tgid);
        if let Some(governor) = &mut self.governor {
            governor.forget(tgid);
        }
    }

    /// A process has mapped a file that was not seen before. If it is gone already, the file is reported anew.
    fn mapped(&mut self, tgid: u32, file: &MappedFile, time_ns: u64) {
        let name = String::from_utf8_lossy(file.name()).into_owned();
        let paths: Vec<PathBuf> = mapped_paths(tgid).into_iter().filter(|path| path.ends_with(&name)).collect();
        if !paths.iter().any(|path| self.look_at(path, Some(time_ns))) {
            self.maps.report_again(file);
        }
    }

    fn scan_folders(&mut self) {
        for entry in LIBRARY_FOLDERS.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            if LIBRARIES.iter().flat_map(|library| library.files).any(|file| name.to_string_lossy().starts_with(file)) {
                self.files.look_at(&mut self.kernel, &path, None, true);
            }
        }
    }

    fn scan_processes(&mut self) {
        (self.rescanned, self.denied) = (Instant::now(), 0);
        let mut used = HashSet::new();
        for tgid in process_ids() {
            self.learn_existing(tgid);
            // A child of one that is off: only now it is known.
            if let Some(id) = exe_of(tgid).filter(|_| self.processes.governed().level(tgid) != Level::Off) {
                self.files.take_back(id);
            }
            for path in mapped_paths(tgid).into_iter().chain([PathBuf::from(format!("/proc/{tgid}/exe"))]) {
                if let Ok(file) = fs::metadata(&path)
                    && used.insert((file.dev(), file.ino()))
                {
                    self.look_at(&path, None);
                }
            }
        }
        for inode in self.files.forget_unused(&used) {
            self.maps.report_inode_again(inode);
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

    fn look_at(&mut self, path: &Path, used_since: Option<u64>) -> bool {
        self.files.look_at(&mut self.kernel, path, used_since, false)
    }

    /// Takes all probes away.
    fn detach(self) {
        self.files.detach();
    }
}

/// The programs of the standard folders.
fn programs() -> Vec<PathBuf> {
    let entries = PROGRAM_FOLDERS.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// The file that a process runs.
fn exe_of(tgid: u32) -> Option<FileId> {
    fs::metadata(format!("/proc/{tgid}/exe")).ok().map(|file| (file.dev(), file.ino()))
}

fn is_refusal(reason: &str) -> bool {
    reason.contains("Permission denied") || reason.contains("Operation not permitted")
}

/// Files that a process has mapped for execution, by a path that is valid here.
pub(crate) fn mapped_paths(tgid: u32) -> Vec<PathBuf> {
    let maps = fs::read_to_string(format!("/proc/{tgid}/maps")).unwrap_or_default();
    let mut paths: Vec<PathBuf> = maps.lines().filter_map(|line| mapped_path(tgid, line)).collect();
    paths.dedup();
    paths
}

/// The file of a line of a process's maps. In a container it stands there as the container sees it; of a process that has
/// only changed its root, as we do.
fn mapped_path(tgid: u32, line: &str) -> Option<PathBuf> {
    let path = &line[line.find('/')?..];
    let mut words = line.split_ascii_whitespace();
    let executable = words.nth(1)?.as_bytes().get(2) == Some(&b'x');
    if !executable || path.ends_with(" (deleted)") {
        return None;
    }
    let inside = PathBuf::from(format!("/proc/{tgid}/root{path}"));
    if fs::symlink_metadata(&inside).is_ok() {
        return Some(inside);
    }
    let inode: u64 = words.nth(2)?.parse().ok()?;
    let here = fs::metadata(path).is_ok_and(|file| file.ino() == inode);
    Some(if here { PathBuf::from(path) } else { inside })
}
