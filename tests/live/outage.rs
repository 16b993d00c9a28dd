//! Stores that are gone, slow, or between faults, and agents that are killed: what arrives, what waits, and what is
//! counted.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    agent::{Agent, Finished, ledger},
    need_root,
    programs::{Server, SmallDisk, free_port, nginx, program, tool},
};

/// How long something may take to arrive.
const LIMIT: Duration = Duration::from_mins(1);

/// A program of the test, ended with it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A collector and a bucket, which come and go, behind proxies that stay.
struct Stores {
    folder: TempDir,
    python: PathBuf,
    rclone: PathBuf,
    /// What the agent is told.
    collector: u16,
    bucket: u16,
    /// Where the servers listen.
    behind: (u16, u16),
    running: Vec<Running>,
    _proxies: [Running; 2],
}

impl Stores {
    /// `share` of a hundred connections to them fail. `None`: the tools are not there.
    fn new(seed: u64, share: u32) -> anyhow::Result<Option<Self>> {
        let (Some(python), Some(rclone)) = (tool("python3"), tool("rclone")) else {
            let name = std::thread::current().name().unwrap_or_default().to_owned();
            crate::tools::skip(&name, "the test tools are not installed; ./dev test installs them");
            return Ok(None);
        };
        let folder = tempfile::tempdir()?;
        std::fs::create_dir_all(folder.path().join("s3/bucket"))?;
        let (collector, bucket, behind) = (free_port()?, free_port()?, (free_port()?, free_port()?));
        let proxy = |port: u16, target: u16, seed: u64| -> anyhow::Result<Running> {
            let mut command = Command::new(&python);
            command.arg(program("faulty.py")).args([port, target].map(|port| port.to_string()));
            command.args([seed.to_string(), share.to_string()]);
            let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn()?;
            wait_for(port)?;
            Ok(Running(child))
        };
        let proxies = [proxy(collector, behind.0, seed)?, proxy(bucket, behind.1, seed + 1)?];
        Ok(Some(Self { folder, python, rclone, collector, bucket, behind, running: Vec::new(), _proxies: proxies }))
    }

    fn start(&mut self) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(self.folder.path().join("events"))?;
        let mut receiver = Command::new(&self.python);
        receiver.arg(program("receiver.py")).arg(self.behind.0.to_string()).arg(self.bucket_folder());
        self.running.push(Running(receiver.stdin(Stdio::null()).stdout(log).spawn()?));
        let mut bucket = Command::new(&self.rclone);
        bucket.args(["serve", "s3", "--auth-key", "AKTEST,s3cret", "--addr", &format!("127.0.0.1:{}", self.behind.1)]);
        bucket.arg(self.folder.path().join("s3")).stdin(Stdio::null()).stderr(Stdio::null());
        self.running.push(Running(bucket.spawn()?));
        wait_for(self.behind.0)?;
        wait_for(self.behind.1)
    }

    fn stop(&mut self) {
        self.running.clear();
    }

    fn bucket_folder(&self) -> PathBuf {
        self.folder.path().join("s3/bucket")
    }

    /// The events that arrived, in their order.
    fn events(&self) -> Vec<Value> {
        let Ok(file) = File::open(self.folder.path().join("events")) else { return Vec::new() };
        let lines = BufReader::new(file).lines().map_while(Result::ok).filter(|line| !line.is_empty());
        // A receiver that was killed can leave half a line.
        lines.filter_map(|line| serde_json::from_str(&line).ok()).collect()
    }

    /// Waits until the requests of all these paths, and the records of their objects, have arrived.
    fn wait(&self, paths: &BTreeSet<String>) -> anyhow::Result<Vec<Value>> {
        let begun = Instant::now();
        loop {
            let events = self.events();
            let missing = missing(&events, paths);
            if missing.is_empty() {
                return Ok(events);
            }
            // Thousands take their time.
            if begun.elapsed() > LIMIT + Duration::from_millis(10) * u32::try_from(paths.len())? {
                bail!("{} of {} did not arrive, such as {:?}", missing.len(), paths.len(), missing.first());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn config(&self, spool: &str) -> String {
        format!(
            "services:
  spool: {{{spool}}}
  event_stores:
    - {{type: otel, protocol: http, endpoint: 127.0.0.1:{}}}
  object_stores:
    - type: s3
      endpoint: 127.0.0.1:{}
      bucket: bucket
      insecure: true
      access_key: {{type: text, value: AKTEST}}
      secret_key: {{type: text, value: s3cret}}
stacks:
  s: {{plugins: [{{type: report_usage}}, {{type: http_capture, config: {{level: full}}}}]}}
tap:
  direction: ingress
  ignore_loopback: false
  budgets: {{probes: 'off'}}
  http: {{stack: s}}
  filters: {{custom: [{{exe: /python, strategy: contains}}, {{exe: rclone, strategy: contains}}]}}
",
            self.collector, self.bucket
        )
    }
}

/// Paths of which the request or the object's record is not there.
fn missing(events: &[Value], paths: &BTreeSet<String>) -> Vec<String> {
    let of = |kind: &'static str| events.iter().filter(move |event| event["type"] == kind);
    let told: BTreeSet<&str> = of("artifact_record").filter_map(|event| event["id"].as_str()).collect();
    let there: BTreeSet<&str> = of("request")
        .filter(|event| event["id"].as_str().is_some_and(|id| told.contains(id)))
        .filter_map(|event| Some(event["url"].as_str()?.rsplit_once('/')?.1))
        .collect();
    paths.iter().filter(|path| !there.contains(path.as_str())).cloned().collect()
}

fn wait_for(port: u16) -> anyhow::Result<()> {
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        ensure!(begun.elapsed() < Duration::from_secs(20), "nothing listens on {port}");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Asks for so many paths that nobody else asks for, over one connection.
fn ask(server: &Server, name: &str, count: usize) -> anyhow::Result<BTreeSet<String>> {
    let url = format!("http://127.0.0.1:{}/size/1000/{name}-[1-{count}]", server.port);
    let output = Command::new("curl").args(["-s", "-o", "/dev/null", "-w", "%{http_code}\n", &url]).output()?;
    let answers = String::from_utf8(output.stdout)?.lines().count();
    ensure!(answers == count, "{answers} of {count} were answered");
    Ok((1..=count).map(|n| format!("{name}-{n}")).collect())
}

/// Whether every event that speaks of an object came when the object was there; how often something came twice.
fn check_order(events: &[Value]) -> anyhow::Result<usize> {
    let mut seen = BTreeSet::new();
    let mut twice = 0;
    for event in events {
        ensure!(event["type"] != "artifact_record" || event["there"] == true, "came before its object: {event}");
        // Connections are told of as they go on; requests and objects once.
        if event["type"] != "connection" && !seen.insert(event.to_string()) {
            twice += 1;
        }
    }
    Ok(twice)
}

fn of(finished: &Finished, kind: &str, cause: &str) -> u64 {
    ledger(&finished.stderr, kind, cause).unwrap_or(0)
}

/// Both stores are gone before, and again in between, for as many seconds as `RINGTAP_OUTAGE` says: everything arrives, in
/// order, once.
#[test]
fn an_outage_loses_nothing() -> anyhow::Result<()> {
    need_root!();
    let outage = match std::env::var("RINGTAP_OUTAGE") {
        Ok(seconds) => Duration::from_secs(seconds.parse().context("RINGTAP_OUTAGE is a number of seconds")?),
        Err(_) => Duration::from_secs(1),
    };
    let Some(mut stores) = Stores::new(1, 0)? else { return Ok(()) };
    let server = nginx(false, false)?;
    let agent = Agent::start(&stores.config(""))?;
    let mut paths = ask(&server, "before", 200)?;
    std::thread::sleep(Duration::from_millis(1500));
    ensure!(stores.events().is_empty(), "nothing can have arrived");
    stores.start()?;
    stores.wait(&paths)?;
    stores.stop();
    let begun = Instant::now();
    let mut round = 0;
    while round == 0 || begun.elapsed() < outage {
        paths.extend(ask(&server, &format!("between{round}"), 200)?);
        std::thread::sleep(Duration::from_millis(1500));
        round += 1;
    }
    stores.start()?;
    paths.extend(ask(&server, "after", 200)?);
    let events = stores.wait(&paths)?;
    let finished = agent.stop()?;
    finished.check()?;
    ensure!(check_order(&events)? == 0, "something came twice though nothing was cut off in between");
    for kind in ["events", "objects"] {
        let (seen, delivered) = (of(&finished, kind, "seen"), of(&finished, kind, "delivered"));
        ensure!(seen == delivered && of(&finished, kind, "spooled") > 0, "{kind}: {}", finished.stderr);
        println!("{kind}: {seen} seen, {delivered} delivered, {} of them waited", of(&finished, kind, "spooled"));
    }
    Ok(())
}

/// The agent ends while the stores are gone; the next one delivers what it left.
#[test]
fn the_next_agent_delivers_what_waits() -> anyhow::Result<()> {
    need_root!();
    let Some(mut stores) = Stores::new(2, 0)? else { return Ok(()) };
    let (server, spool) = (nginx(false, false)?, tempfile::tempdir()?);
    let config = stores.config(&format!("path: {}", spool.path().join("spool").display()));
    let agent = Agent::start(&config)?;
    let paths = ask(&server, "left", 300)?;
    let left = agent.stop()?;
    left.check()?;
    for kind in ["events", "objects"] {
        let waits = of(&left, kind, "spooled") - of(&left, kind, "spool");
        ensure!(waits == of(&left, kind, "seen"), "{kind} wait on the disk: {}", left.stderr);
    }
    stores.start()?;
    let agent = Agent::start(&config)?;
    let events = stores.wait(&paths)?;
    let finished = agent.stop()?;
    finished.check()?;
    ensure!(check_order(&events)? == 0, "once is enough");
    ensure!(of(&finished, "objects", "delivered") >= of(&left, "objects", "seen"), "{}", finished.stderr);
    Ok(())
}

/// Resets, cut requests and answers, 429 and 503, delays: everything arrives, some of it twice.
#[test]
fn faults_on_the_way_lose_nothing() -> anyhow::Result<()> {
    need_root!();
    let Some(mut stores) = Stores::new(3, 50)? else { return Ok(()) };
    let server = nginx(false, false)?;
    stores.start()?;
    let agent = Agent::start(&stores.config(""))?;
    let mut paths = BTreeSet::new();
    for round in 0..5 {
        paths.extend(ask(&server, &format!("fault{round}"), 100)?);
    }
    let events = match stores.wait(&paths) {
        Ok(events) => events,
        Err(error) => bail!("{error}: {}", agent.stop()?.stderr),
    };
    let finished = agent.stop()?;
    finished.check()?;
    let twice = check_order(&events)?;
    ensure!(twice < events.len() / 2, "{twice} of {} came twice", events.len());
    ensure!(finished.stderr.contains("cannot be delivered"), "no fault was met: {}", finished.stderr);
    Ok(())
}

/// A spool on a disk that is full: what has no room is dropped oldest first, and counted; what is left arrives.
#[test]
fn a_full_disk_is_counted() -> anyhow::Result<()> {
    need_root!();
    let Some(disk) = SmallDisk::mount("3m")? else {
        crate::tools::skip("a_full_disk_is_counted", "no file system can be mounted here");
        return Ok(());
    };
    let Some(mut stores) = Stores::new(4, 0)? else { return Ok(()) };
    let server = nginx(false, false)?;
    // The spool itself may have more than the disk has: the disk says no.
    let config = stores.config(&format!("path: {}, max_bytes: 8mb", disk.path().join("spool").display()));
    let agent = Agent::start(&config)?;
    for round in 0..8 {
        ask(&server, &format!("full{round}"), 200)?;
        std::thread::sleep(Duration::from_millis(300));
    }
    let last = ask(&server, "last", 1)?;
    stores.start()?;
    stores.wait(&last)?;
    let finished = agent.stop()?;
    finished.check()?;
    let dropped = of(&finished, "objects", "spool_full") + of(&finished, "events", "spool_full");
    ensure!(dropped > 0, "the disk was not full: {}", finished.stderr);
    check_order(&stores.events())?;
    Ok(())
}

/// A count of the agent's, while it runs.
fn metric(port: u16, name: &str) -> anyhow::Result<u64> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    write!(stream, "GET /system/metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.with_context(|| format!("{name} is not told"))?.trim().parse()?)
}

/// Agents are killed at any moment, with stores that are there or not: every event that speaks of an object finds it,
/// what was in memory is counted by the next agent to the unit, and the last one's books balance.
#[test]
fn killed_agents_are_accounted_for() -> anyhow::Result<()> {
    need_root!();
    let kills: u64 = match std::env::var("RINGTAP_KILLS") {
        Ok(number) => number.parse().context("RINGTAP_KILLS is a number of kills")?,
        Err(_) => 6,
    };
    let Some(mut stores) = Stores::new(5, 10)? else { return Ok(()) };
    let (server, spool) = (nginx(false, false)?, tempfile::tempdir()?);
    let config = stores.config(&format!("path: {}", spool.path().join("spool").display()));
    stores.start()?;
    let mut before: Option<[u64; 2]> = None;
    for n in 0..kills {
        match n % 4 {
            1 => stores.stop(),
            3 => stores.start()?,
            _ => {}
        }
        let port = free_port()?;
        let command = Command::new(env!("CARGO_BIN_EXE_ringtap"));
        let listen = format!("127.0.0.1:{port}");
        let mut agent = Agent::start_with(&config, &["--httpd-listen", &listen], command)?;
        if let Some(held) = before {
            let killed = [metric(port, "ringtap_events_killed_total")?, metric(port, "ringtap_objects_killed_total")?];
            ensure!(killed == held, "kill {n}: {killed:?} are counted, {held:?} were held");
        }
        before = std::thread::scope(|scope| -> anyhow::Result<_> {
            let load = scope.spawn(|| ask(&server, &format!("kill{n}"), 150));
            // Up to a second, differently each time: in the midst of the load, and some time after it.
            std::thread::sleep(Duration::from_millis(n * 7919 % 997));
            // One that is stopped holds what it holds.
            let paused = agent.pause()?;
            // Its threads stop one after another.
            std::thread::sleep(Duration::from_millis(50));
            let held = std::fs::read(spool.path().join("spool/held"))?;
            agent.kill()?;
            drop(paused);
            load.join().expect("it does not panic")?;
            let count =
                |at: usize| held.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
            Ok(count(0).zip(count(8)).map(|(events, objects)| [events, objects]))
        })?;
    }
    stores.stop();
    stores.start()?;
    let agent = Agent::start(&config)?;
    let last = ask(&server, "survivor", 20)?;
    stores.wait(&last)?;
    let finished = agent.stop()?;
    finished.check()?;
    let events = stores.events();
    let twice = check_order(&events)?;
    let requests = events.iter().filter(|event| event["type"] == "request").count();
    println!("{kills} kills: {requests} requests told, {twice} events came twice");
    ensure!(requests > 20, "what the killed ones had spooled arrives");
    Ok(())
}
