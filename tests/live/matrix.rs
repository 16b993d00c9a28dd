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
use ringtap::probe::{signatures::Signatures, tls::points};
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
const WRITTEN: Duration = Duration::from_secs(5);
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
    /// Captured if the build of its file is known, else dark: programs that move on with the system that brings them.
    Known,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    kind: Kind,
    #[serde(default)]
    library: String,
    #[serde(default)]
    variants: BTreeMap<String, String>,
    #[serde(default)]
    short: bool,
    #[serde(default)]
    expect: Expect,
    /// The file whose build counts.
    #[serde(default)]
    file: PathBuf,
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
#[derive(Debug, Default)]
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
    let mut rows: Vec<Row> = serde_yaml::from_slice(&fs::read(programs().join("rows.yaml"))?)?;
    for row in rows.iter_mut().filter(|row| row.expect == Expect::Known) {
        let is_known =
            row.file.exists() && !points(&row.file, &Signatures::default()).map_err(anyhow::Error::msg)?.is_empty();
        row.expect = if is_known { Expect::Captured } else { Expect::Dark };
    }
    Ok(rows.into_iter().flat_map(Row::variants).collect())
}

impl Row {
    /// The rows that it stands for.
    fn variants(self) -> Vec<Self> {
        if self.variants.is_empty() {
            return vec![self];
        }
        let variant = |(name, library): (&String, &String)| {
            let fill = |text: &String| text.replace("{variant}", name);
            Self {
                name: fill(&self.name),
                library: library.clone(),
                variants: BTreeMap::new(),
                command: self.command.iter().map(fill).collect(),
                files: self.files.iter().map(|(file, text)| (file.clone(), fill(text))).collect(),
                ..self.clone()
            }
        };
        self.variants.iter().map(variant).collect()
    }
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
        let bench = Self { agent, admin, origin, folder, cert, key };
        bench.settle()?;
        Ok(bench)
    }

    /// Waits until the agent has looked through the folders of programs: the files of a row would wait for their turn.
    fn settle(&self) -> anyhow::Result<()> {
        let mut before = None;
        loop {
            let probes = self.told()?["probes"].as_u64();
            if probes == before {
                return Ok(());
            }
            before = probes;
            sleep(Duration::from_secs(2));
        }
    }

    fn run(&self, row: &Row) -> anyhow::Result<Outcome> {
        let mut outcome = Outcome::default();
        let before = self.unread()?;
        // A file that nobody knew before can be faster than its probes: the second run must be whole.
        for _ in 0..2 {
            let known = self.agent.object_files()?;
            let port = self.once(row).with_context(|| format!("{} itself failed", row.name))?;
            let captured = self.captured(row, port, &known, &mut outcome)?;
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
    fn captured(
        &self,
        row: &Row,
        port: u16,
        known: &BTreeSet<PathBuf>,
        outcome: &mut Outcome,
    ) -> anyhow::Result<usize> {
        let begun = Instant::now();
        let patience = if row.expect == Expect::Dark { WRITTEN / 3 } else { WRITTEN };
        let mut ids;
        loop {
            ids = BTreeSet::new();
            let fresh: Vec<PathBuf> = self.agent.object_files()?.difference(known).cloned().collect();
            for (_, bytes) in files(&fresh)? {
                let object: Value = serde_json::from_slice(&bytes)?;
                if !is_of(row, port, &object) {
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

    /// What the agent tells the doctor.
    fn told(&self) -> anyhow::Result<Value> {
        let output = Command::new(env!("CARGO_BIN_EXE_ringtap"))
            .args(["doctor", "--json", "--agent", &self.admin])
            .stdin(Stdio::null())
            .output()?;
        let mut report: Value = serde_json::from_slice(&output.stdout)?;
        Ok(report["told"].take())
    }

    /// Bytes of TLS that were not read, by executable.
    fn unread(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let told = self.told()?;
        let blind = told["blind"].as_array().context("the agent does not answer the doctor")?;
        let tls = blind.iter().filter(|unread| unread["kind"] == "tls");
        Ok(tls.filter_map(|unread| Some((unread["exe"].as_str()?.to_owned(), unread["bytes"].as_u64()?))).collect())
    }

    /// Runs the program, and for a server curl, and makes sure that they did what they should; the server's port.
    fn once(&self, row: &Row) -> anyhow::Result<u16> {
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
            Kind::Server => ask(row, process, port, &url, &wanted, &told)?,
            Kind::Client => finish(process, &wanted, &told)?,
        }
        Ok(port)
    }
}

/// Whether an object is of the row's program at this port, not of the other end. Records of gRPC have no path of their own.
fn is_of(row: &Row, port: u16, object: &Value) -> bool {
    let field = |part: &str, name: &str| object[part]["headers"][name].as_str().unwrap_or_default();
    let ingress = object["direction"] == "ingress";
    let path = field("request", ":path");
    let own = path.strip_prefix('/').and_then(|path| path.strip_prefix(row.name.as_str()));
    own.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        && ingress == (row.kind == Kind::Server)
        && field("request", ":authority").ends_with(&format!(":{port}"))
        && field("request", ":scheme") == "https"
        && matches!(field("response", ":status").parse(), Ok(200..400))
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

/// What came of the rows, and of each what went wrong.
struct Report {
    outcomes: Vec<Outcome>,
    faults: Vec<Option<String>>,
    summary: String,
}

impl Report {
    fn check(&self) -> anyhow::Result<()> {
        let faults: Vec<&str> = self.faults.iter().flatten().map(String::as_str).collect();
        ensure!(faults.is_empty(), "{}\n{}", faults.join("\n"), self.summary);
        Ok(())
    }
}

fn fault(row: &Row, outcome: &Outcome) -> Option<String> {
    let whole = outcome.captured.last() == Some(&row.requests);
    let what = match row.expect {
        Expect::Captured if !whole => "not captured",
        Expect::Dark if outcome.dark.is_none() => "dark and not named",
        Expect::Dark if whole => "expected to be dark",
        _ => return None,
    };
    Some(format!("{} is {what}: {outcome:?}", row.name))
}

fn run(rows: &[Row]) -> anyhow::Result<Report> {
    let bench = Bench::new()?;
    let (mut outcomes, mut faults) = (Vec::new(), Vec::new());
    for row in rows {
        let (outcome, fault) = match bench.run(row) {
            Ok(outcome) => (outcome, None),
            Err(error) => (Outcome::default(), Some(format!("{error:#}"))),
        };
        println!("{}: {outcome:?}", row.name);
        faults.push(fault.or_else(|| self::fault(row, &outcome)));
        outcomes.push(outcome);
    }
    let Bench { agent, folder, .. } = bench;
    let finished = agent.stop()?;
    finished.check()?;
    drop(folder);
    let well = |expect| rows.iter().zip(&faults).filter(|(row, fault)| fault.is_none() && row.expect == expect).count();
    let (captured, dark) = (well(Expect::Captured), well(Expect::Dark));
    let failed = rows.len() - captured - dark;
    let summary = format!("{} programs: {captured} captured, {dark} dark and named, {failed} failed", rows.len());
    println!("{summary}");
    Ok(Report { outcomes, faults, summary })
}

/// The table for `docs/coverage.md`.
fn table(rows: &[Row], report: &Report) -> String {
    let mut text = format!(
        "# Coverage\n\n{}. Written by `./dev matrix`, which runs every program below while the agent captures. *First run*: \
         the file with the TLS\nfunctions was not known to the agent before, unless it lies in a folder that the agent \
         looks through at its start.\n*Again*: the same once more, where the first run was not whole. *Socket*: what \
         the records say of how it was found.\n*Dark* programs are named by `ringtap doctor`, with what passed.\n\n",
        report.summary
    );
    for (kind, title) in [(Kind::Client, "Clients"), (Kind::Server, "Servers")] {
        let _ = writeln!(text, "## {title}\n\n| program | TLS | first run | again | socket |\n|---|---|---|---|---|");
        for (row, outcome) in rows.iter().zip(&report.outcomes).filter(|(row, _)| row.kind == kind) {
            let share = |run: usize| {
                outcome.captured.get(run).map_or(String::new(), |captured| format!("{captured} of {}", row.requests))
            };
            let (first, socket) = match &outcome.dark {
                Some(_) => ("dark".to_owned(), String::new()),
                None if outcome.captured.is_empty() => ("did not run".to_owned(), String::new()),
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
    run(&rows)?.check()
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
    let report = run(&rows)?;
    if wanted.is_empty() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/coverage.md");
        fs::write(file, table(&rows, &report).trim_end().to_owned() + "\n")?;
    }
    report.check()
}
