//! A running agent, and what it left behind.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const START: Duration = Duration::from_secs(20);
const STOP: Duration = Duration::from_secs(20);

pub struct Agent {
    child: Child,
    folder: TempDir,
}

/// What an agent left when it ended.
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
    pub folder: TempDir,
}

impl Agent {
    /// Starts with a configuration, in which `FOLDER` stands for the agent's own folder, and waits until it captures.
    pub fn start(config: &str) -> anyhow::Result<Self> {
        Self::start_with(config, &[], Command::new(env!("CARGO_BIN_EXE_ringtap")))
    }

    pub fn start_with(config: &str, arguments: &[&str], command: Command) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let stdout = Stdio::from(File::create(folder.path().join("stdout"))?);
        Self::spawn(config, arguments, command, folder, stdout)
    }

    /// In a folder that the test has made.
    pub fn start_in(folder: TempDir, config: &str, command: Command) -> anyhow::Result<Self> {
        let stdout = Stdio::from(File::create(folder.path().join("stdout"))?);
        Self::spawn(config, &[], command, folder, stdout)
    }

    /// With a standard output that is a pipe which nobody reads.
    pub fn start_unread(config: &str, arguments: &[&str]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        File::create(folder.path().join("stdout"))?;
        Self::spawn(config, arguments, Command::new(env!("CARGO_BIN_EXE_ringtap")), folder, Stdio::piped())
    }

    /// The end of the pipe of one that was started unread.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Records into a file instead of capturing.
    pub fn start_recording(config: &str, file: &Path, flags: &[&str]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let stdout = Stdio::from(File::create(folder.path().join("stdout"))?);
        let file = file.display().to_string();
        let command = Command::new(env!("CARGO_BIN_EXE_ringtap"));
        let arguments = [&["--output", &file], flags].concat();
        Self::spawn_as(("record", "recording"), config, &arguments, command, folder, stdout)
    }

    fn spawn(
        config: &str,
        arguments: &[&str],
        command: Command,
        folder: TempDir,
        stdout: Stdio,
    ) -> anyhow::Result<Self> {
        Self::spawn_as(("run", "capturing"), config, arguments, command, folder, stdout)
    }

    /// Starts a command, and waits for the word by which it says that it has begun.
    fn spawn_as(
        (name, begins): (&str, &str),
        config: &str,
        arguments: &[&str],
        command: Command,
        folder: TempDir,
        stdout: Stdio,
    ) -> anyhow::Result<Self> {
        let path = folder.path().join("config.yaml");
        fs::write(&path, config.replace("FOLDER", &folder.path().display().to_string()))?;
        Self::launch((name, begins), &path, arguments, command, folder, stdout)
    }

    /// Starts with a file that is the test's own.
    pub fn start_at(path: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let stdout = Stdio::from(File::create(folder.path().join("stdout"))?);
        let command = Command::new(env!("CARGO_BIN_EXE_ringtap"));
        Self::launch(("run", "capturing"), path, arguments, command, folder, stdout)
    }

    fn launch(
        (name, begins): (&str, &str),
        path: &Path,
        arguments: &[&str],
        mut command: Command,
        folder: TempDir,
        stdout: Stdio,
    ) -> anyhow::Result<Self> {
        let child = command
            .arg(name)
            .arg("--config")
            .arg(path)
            .args(["--log-encoding", "console"])
            .env("DATA_DIR", folder.path().join("data"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(File::create(folder.path().join("stderr"))?)
            .spawn()
            .context("cannot start the agent")?;
        let mut agent = Self { child, folder };
        let begun = Instant::now();
        while !agent.read("stderr")?.contains(begins) {
            if begun.elapsed() > START || agent.child.try_wait()?.is_some() {
                bail!("the agent did not start: {}", agent.read("stderr")?);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(agent)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn read(&self, name: &str) -> anyhow::Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.folder.path().join(name))?).into_owned())
    }

    /// Waits until the disk store has so many objects.
    pub fn wait_for_objects(&self, expected: usize) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let there = self.object_files()?.len();
            if there >= expected {
                return Ok(());
            }
            ensure!(begun.elapsed() < Duration::from_mins(1), "{there} objects of {expected} after a minute");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// What lies in the disk store by now.
    pub fn object_files(&self) -> anyhow::Result<BTreeSet<PathBuf>> {
        let mut found = BTreeSet::new();
        for folder in fs::read_dir(self.folder.path().join("objects")).into_iter().flatten() {
            for file in fs::read_dir(folder?.path())? {
                let file = file?;
                // What is being written has a name that begins with a dot.
                if !file.file_name().to_string_lossy().starts_with('.') {
                    found.insert(file.path());
                }
            }
        }
        Ok(found)
    }

    /// Stops its threads until the value is dropped: the consumer of the rings sleeps while the programs write.
    pub fn pause(&self) -> anyhow::Result<Paused> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::STOP)?;
        Ok(Paused(pid))
    }

    /// Ends it as a fault would.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends it with SIGTERM.
    pub fn stop(mut self) -> anyhow::Result<Finished> {
        let pid = Pid::from_child(&self.child);
        let begun = Instant::now();
        kill_process(pid, Signal::TERM)?;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if begun.elapsed() > STOP {
                bail!("the agent did not stop: {}", self.read("stderr")?);
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let (stdout, stderr) = (self.read("stdout")?, self.read("stderr")?);
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir()?);
        Ok(Finished { status, stdout, stderr, took: begun.elapsed(), folder })
    }
}

/// An agent that is stopped.
pub struct Paused(Pid);

impl Drop for Paused {
    fn drop(&mut self) {
        // It can only fail if the agent is gone, which the test notices.
        let _ = kill_process(self.0, Signal::CONT);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Already ended in the good case.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Finished {
    /// It ended well, in time, and its books balance.
    pub fn check(&self) -> anyhow::Result<()> {
        if !self.status.success() || !self.stderr.contains("\n  balanced") {
            bail!("{}: {}", self.status, self.stderr);
        }
        if self.took > Duration::from_secs(6) {
            bail!("stopping took {:?}", self.took);
        }
        Ok(())
    }

    /// Files of the disk store.
    pub fn objects(&self) -> anyhow::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for folder in fs::read_dir(self.folder.path().join("objects"))? {
            for file in fs::read_dir(folder?.path())? {
                files.push(file?.path());
            }
        }
        Ok(files)
    }
}

/// The number behind a cause in a line of the ledger.
pub fn ledger(stderr: &str, line: &str, cause: &str) -> Option<u64> {
    let text = stderr.lines().find(|l| l.trim_start().starts_with(line))?;
    let mut words = text.split_whitespace().skip_while(|word| *word != cause);
    words.nth(1)?.parse().ok()
}

/// A configuration with the disk store and stdout events that captures everything in one direction, whatever that costs
/// the programs.
pub fn config(direction: &str, filters: &str) -> String {
    format!(
        "version: 2
services:
  event_stores:
    - type: stdout
  object_stores:
    - type: disk
      path: FOLDER/objects
stacks:
  s:
    plugins:
      - type: report_usage
      - type: http_capture
        config: {{level: full}}
tap:
  direction: {direction}
  ignore_loopback: false
  budgets: {{probes: 'off'}}
  http: {{stack: s}}
{filters}"
    )
}
