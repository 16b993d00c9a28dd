//! Programs of every common TLS library and runtime: each is captured, or dark and named so by the doctor.
//!
//! The rows lie in `tests/matrix/rows.yaml`. The short form runs those whose programs the other tests need anyway; the
//! whole matrix is `./dev matrix`, which installs the rest and writes `docs/coverage.md`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    agent::{Agent, config},
    need_root,
    programs::{Server, certificate, free_port, serve},
    truth::files,
};

/// The agent writes an object within this time of the exchange's end.
const WRITTEN: Duration = Duration::from_secs(3);
/// A client that takes longer is ended.
const RUN: Duration = Duration::from_mins(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Client,
    Server,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expect {
    #[default]
    Captured,
    Dark,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    kind: Kind,
    library: String,
    #[serde(default)]
    short: bool,
    #[serde(default)]
    expect: Expect,
    command: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    files: BTreeMap<String, String>,
    #[serde(default)]
    settle: f32,
    requests: usize,
    r#match: String,
}

/// What came of a row.
#[derive(Debug)]
struct Outcome {
    /// Exchanges captured in the first run, and in a second one if that was not all.
    captured: Vec<usize>,
    /// What the records say of the socket.
    sockets: BTreeSet<String>,
    /// The executable that the doctor names as unread.
    dark: Option<String>,
}

/// What all rows share.
struct Bench {
    agent: Agent,
    admin: String,
    origin: Server,
    folder: TempDir,
    cert: PathBuf,
    key: PathBuf,
}

fn programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/matrix")
}

fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/matrix")
}

fn rows() -> anyhow::Result<Vec<Row>> {
    Ok(serde_yaml::from_slice(&fs::read(programs().join("rows.yaml"))?)?)
}

fn fill(text: &str, values: &[(&str, String)]) -> String {
    values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
}

/// A folder that servers may enter under another user.
fn open_folder() -> anyhow::Result<TempDir> {
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}

impl Bench {
    fn new() -> anyhow::Result<Self> {
        let folder = open_folder()?;
        let (cert, key) = certificate(folder.path())?;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644))?;
        let (port, root) = (free_port()?, folder.path().display().to_string());
        let text = fill(
            &fs::read_to_string(programs().join("origin.conf"))?,
            &[
                ("dir", root.clone()),
                ("port", port.to_string()),
                ("cert", cert.display().to_string()),
                ("key", key.display().to_string()),
                // A message of gRPC: a flag, a length, field 1 with "pong".
                ("grpc", "\0\0\0\0\u{6}\u{a}\u{4}pong".to_owned()),
            ],
        );
        let file = folder.path().join("origin.conf");
        fs::write(&file, text)?;
        let mut command = Command::new("nginx");
        command.args(["-e", &format!("{root}/origin.err"), "-p", &root, "-c"]).arg(&file);
        let origin = serve(command, port, None)?;
        let admin = format!("127.0.0.1:{}", free_port()?);
        let command = Command::new(env!("CARGO_BIN_EXE_ringtap"));
        let agent = Agent::start_with(&config("all", ""), &["--httpd-listen", &admin], command)?;
        Ok(Self { agent, admin, origin, folder, cert, key })
    }

    fn run(&self, row: &Row) -> anyhow::Result<Outcome> {
        let mut outcome = Outcome { captured: Vec::new(), sockets: BTreeSet::new(), dark: None };
        let before = self.unread()?;
        // A file that nobody knew before can be faster than its probes: the second run must be whole.
        for _ in 0..2 {
            let known = self.agent.object_files()?;
            self.once(row).with_context(|| format!("{} itself failed", row.name))?;
            let captured = self.captured(row, &known, &mut outcome)?;
            outcome.captured.push(captured);
            if row.expect == Expect::Dark || outcome.captured.last() == Some(&row.requests) {
                break;
            }
        }
        if row.expect == Expect::Dark {
            let begun = Instant::now();
            while outcome.dark.is_none() && begun.elapsed() < Duration::from_secs(10) {
                let now = self.unread()?;
                outcome.dark = now.into_iter().find(|(exe, bytes)| before.get(exe) < Some(bytes)).map(|(exe, _)| exe);
                sleep(Duration::from_millis(200));
            }
        }
        Ok(outcome)
    }

    /// Exchanges of the row that were stored since, each once.
    fn captured(&self, row: &Row, known: &BTreeSet<PathBuf>, outcome: &mut Outcome) -> anyhow::Result<usize> {
        let begun = Instant::now();
        let patience = if row.expect == Expect::Dark { WRITTEN / 3 } else { WRITTEN };
        let mut ids;
        loop {
            ids = BTreeSet::new();
            let fresh: Vec<PathBuf> = self.agent.object_files()?.difference(known).cloned().collect();
            for (_, bytes) in files(&fresh)? {
                let object: Value = serde_json::from_slice(&bytes)?;
                if !is_of(row, &object) {
                    continue;
                }
                outcome.sockets.insert(object["metadata"]["socket"].as_str().unwrap_or("exact").to_owned());
                ids.insert(object["metadata"]["request_id"].as_str().context("an id")?.to_owned());
            }
            if ids.len() >= row.requests || begun.elapsed() > patience {
                break;
            }
            sleep(Duration::from_millis(50));
        }
        ensure!(ids.len() <= row.requests, "{} of {} exchanges were captured", ids.len(), row.requests);
        Ok(ids.len())
    }

    /// Bytes of TLS that were not read, by executable, as the doctor tells them.
    fn unread(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let output = Command::new(env!("CARGO_BIN_EXE_ringtap"))
            .args(["doctor", "--json", "--agent", &self.admin])
            .stdin(Stdio::null())
            .output()?;
        let report: Value = serde_json::from_slice(&output.stdout)?;
        let blind = report["told"]["blind"].as_array().context("the agent does not answer the doctor")?;
        let tls = blind.iter().filter(|unread| unread["kind"] == "tls");
        Ok(tls.filter_map(|unread| Some((unread["exe"].as_str()?.to_owned(), unread["bytes"].as_u64()?))).collect())
    }

    /// Runs the program, and for a server curl, and makes sure that they did what they should.
    fn once(&self, row: &Row) -> anyhow::Result<()> {
        let folder = open_folder()?;
        let port = if row.kind == Kind::Server { free_port()? } else { self.origin.port };
        let path = |path: &Path| path.display().to_string();
        let url = format!("https://127.0.0.1:{port}/{}", row.name);
        let values = [
            ("name", row.name.clone()),
            ("port", port.to_string()),
            ("url", url.clone()),
            ("cert", path(&self.cert)),
            ("ca", path(&self.cert)),
            ("key", path(&self.key)),
            ("dir", path(folder.path())),
            ("programs", path(&programs())),
            ("tools", path(&tools())),
        ];
        for (name, text) in &row.files {
            fs::write(folder.path().join(fill(name, &values)), fill(text, &values))?;
        }
        let argv: Vec<String> = row.command.iter().map(|word| fill(word, &values)).collect();
        let told = folder.path().join(".told");
        let out = fs::File::create(&told)?;
        let mut command = Command::new(&argv[0]);
        command.args(&argv[1..]).envs(row.env.iter().map(|(name, value)| (name, fill(value, &values))));
        command.current_dir(folder.path()).process_group(0);
        command.stdin(Stdio::null()).stderr(out.try_clone()?).stdout(out);
        let wanted = fill(&row.r#match, &values);
        let process = Group(command.spawn().with_context(|| format!("cannot start {argv:?}"))?);
        match row.kind {
            Kind::Server => ask(row, process, port, &url, &wanted, &told),
            Kind::Client => finish(process, &wanted, &told),
        }
    }
}

/// Whether an object is of the row's program, not of the other end.
fn is_of(row: &Row, object: &Value) -> bool {
    let ingress = object["direction"] == "ingress";
    let path = object["request"]["path"].as_str().unwrap_or_default();
    let own = path.strip_prefix('/').and_then(|path| path.strip_prefix(row.name.as_str()));
    own.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        && ingress == (row.kind == Kind::Server)
        && object["request"]["scheme"] == "https"
        && (200..400).contains(&object["response"]["status"].as_u64().unwrap_or_default())
}

fn finish(mut process: Group, wanted: &str, told: &Path) -> anyhow::Result<()> {
    let begun = Instant::now();
    while process.0.try_wait()?.is_none() {
        ensure!(begun.elapsed() < RUN, "still running: {}", said(told));
        sleep(Duration::from_millis(20));
    }
    ensure!(said(told).contains(wanted), "{}", said(told));
    Ok(())
}

fn ask(row: &Row, mut process: Group, port: u16, url: &str, wanted: &str, told: &Path) -> anyhow::Result<()> {
    let begun = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        if begun.elapsed() > RUN / 2 || process.0.try_wait()?.is_some() {
            bail!("it does not listen: {}", said(told));
        }
        sleep(Duration::from_millis(50));
    }
    sleep(Duration::from_secs_f32(row.settle));
    let urls = vec![url; row.requests];
    let output = Command::new("curl").args(["-sk", "--max-time", "20", "--rate", "3/s"]).args(&urls).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(text.matches(wanted).count() == row.requests, "{text}{}", said(told));
    Ok(())
}

fn said(file: &Path) -> String {
    String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned()
}

/// A process and all that it started; ends with the value.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        let group = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        for (signal, wait) in [(Signal::TERM, 30), (Signal::KILL, 30)] {
            // It may have ended by itself.
            let _ = group.map(|group| kill_process_group(group, signal));
            for _ in 0..wait {
                if matches!(self.0.try_wait(), Ok(Some(_))) {
                    break;
                }
                sleep(Duration::from_millis(100));
            }
        }
    }
}

/// Runs the rows; what went wrong, by row, comes back beside the outcomes.
fn run(rows: &[Row]) -> anyhow::Result<(Vec<Outcome>, Vec<String>)> {
    let bench = Bench::new()?;
    let (mut outcomes, mut faults) = (Vec::new(), Vec::new());
    for row in rows {
        let outcome = match bench.run(row) {
            Ok(outcome) => outcome,
            Err(error) => {
                faults.push(format!("{error:#}"));
                Outcome { captured: Vec::new(), sockets: BTreeSet::new(), dark: None }
            }
        };
        println!("{}: {outcome:?}", row.name);
        let whole = outcome.captured.last() == Some(&row.requests);
        match row.expect {
            Expect::Captured if !whole => faults.push(format!("{} is not captured: {outcome:?}", row.name)),
            Expect::Dark if outcome.dark.is_none() => {
                faults.push(format!("{} is dark and not named: {outcome:?}", row.name));
            }
            Expect::Dark if whole => faults.push(format!("{} is expected to be dark: {outcome:?}", row.name)),
            _ => (),
        }
        outcomes.push(outcome);
    }
    let Bench { agent, folder, .. } = bench;
    let finished = agent.stop()?;
    finished.check()?;
    drop(folder);
    Ok((outcomes, faults))
}

/// The table for `docs/coverage.md`.
fn table(rows: &[Row], outcomes: &[Outcome]) -> String {
    let mut text = String::from(
        "# Coverage\n\nWritten by `./dev matrix`, which runs every program below while the agent captures. *First run*: \
         the file with the TLS\nfunctions was not known to the agent before, unless it lies in a folder that the agent \
         looks through at its start.\n*Again*: the same once more, where the first run was not whole. *Socket*: what \
         the records say of how it was found.\n*Dark* programs are named by `ringtap doctor`, with what passed.\n\n",
    );
    for (kind, title) in [(Kind::Client, "Clients"), (Kind::Server, "Servers")] {
        let _ = writeln!(text, "## {title}\n\n| program | TLS | first run | again | socket |\n|---|---|---|---|---|");
        for (row, outcome) in rows.iter().zip(outcomes).filter(|(row, _)| row.kind == kind) {
            let share = |run: usize| {
                outcome.captured.get(run).map_or(String::new(), |captured| format!("{captured} of {}", row.requests))
            };
            let (first, socket) = match &outcome.dark {
                Some(_) => ("dark".to_owned(), String::new()),
                None => (share(0), outcome.sockets.iter().cloned().collect::<Vec<_>>().join(", ")),
            };
            let again = if outcome.dark.is_some() { String::new() } else { share(1) };
            let _ = writeln!(text, "| {} | {} | {first} | {again} | {socket} |", row.name, row.library);
        }
        text.push('\n');
    }
    text
}

#[test]
fn common_programs_are_captured() -> anyhow::Result<()> {
    need_root!();
    let rows: Vec<Row> = rows()?.into_iter().filter(|row| row.short).collect();
    let (_, faults) = run(&rows)?;
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

/// `./dev matrix` runs it: it needs what that installs. `RINGTAP_MATRIX` names the rows that are wanted, instead of all.
#[test]
#[ignore = "needs what ./dev matrix installs"]
fn every_program_is_captured_or_named() -> anyhow::Result<()> {
    need_root!();
    let wanted = std::env::var("RINGTAP_MATRIX").unwrap_or_default();
    let wanted: Vec<&str> = wanted.split_whitespace().collect();
    let rows = rows()?.into_iter().filter(|row| wanted.is_empty() || wanted.contains(&row.name.as_str()));
    let rows: Vec<Row> = rows.collect();
    ensure!(!rows.is_empty(), "no such row");
    let (outcomes, faults) = run(&rows)?;
    if wanted.is_empty() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/coverage.md");
        fs::write(file, table(&rows, &outcomes).trim_end().to_owned() + "\n")?;
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}
