//! Processes by the thousand, each alive for the time of one exchange: all are captured, and nothing of them is kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use aya::{
    Pod,
    maps::{HashMap, Map, MapData, MapInfo},
};
use ringtap_batch::ring::abi::Activity;
use serde_json::Value;

use crate::{
    agent::{Agent, config},
    need_root,
    programs::{Server, free_port, nginx},
};

/// At the same time.
const PARALLEL: usize = 4;
/// An exchange is stored within this time.
const STORED: Duration = Duration::from_secs(20);
/// What the agent holds is looked at so often.
const LOOKS: usize = 20;
/// Ended processes are remembered for half a minute: before, there are more of them with each look. Meanwhile the agent
/// has looked at all programs of the machine.
const WARM: Duration = Duration::from_secs(40);
/// With fewer looks after that nothing can be compared.
const WARM_LOOKS: usize = 4;
/// Descriptors and threads that may just be in use.
const SPARE: usize = 4;
/// In KiB: half a kilobyte kept of each of the processes between, of ten thousand in all, would be as much.
const GROWTH: u64 = 2048;
/// The same before the agent is warm: it looks at programs of a hundred megabytes.
const SHORT_GROWTH: u64 = 128 << 10;
/// After the last exit the agent removes what the programs kept of a process.
const FORGOTTEN: Duration = Duration::from_secs(5);

/// The exchanges that the agent has stored.
#[derive(Default)]
struct Stored {
    files: BTreeSet<PathBuf>,
    /// Of this test's own, how often each was.
    numbers: BTreeMap<usize, usize>,
}

impl Stored {
    /// Waits until all exchanges up to a number are there.
    fn wait(&mut self, agent: &Agent, server: &Server, count: usize) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            self.update(agent, server)?;
            if self.numbers.len() == count {
                return Ok(());
            }
            let missing: Vec<usize> = (0..count).filter(|number| !self.numbers.contains_key(number)).take(20).collect();
            ensure!(begun.elapsed() < STORED, "{} of {count} are stored, not {missing:?}…", self.numbers.len());
            sleep(Duration::from_millis(100));
        }
    }

    fn update(&mut self, agent: &Agent, server: &Server) -> anyhow::Result<()> {
        let now = agent.object_files()?;
        let own = format!("https://127.0.0.1:{}/size/1000?n=", server.port);
        for file in now.difference(&self.files) {
            let object: Value = serde_json::from_slice(&fs::read(file)?)?;
            let url = object["request"]["url"].as_str().context("a url")?;
            if let Some(number) = url.strip_prefix(&own) {
                ensure!(object["response"]["body_size"] == 1000 && object.get("damage").is_none(), "{object:#}");
                *self.numbers.entry(number.parse()?).or_default() += 1;
            }
        }
        self.files = now;
        Ok(())
    }
}

/// What an agent holds.
#[derive(Debug, Clone)]
struct Held {
    at: Duration,
    /// In KiB.
    rss: u64,
    /// Without those of probes: files with TLS functions can appear on the machine at any time.
    descriptors: usize,
    threads: usize,
}

fn held(pid: u32, begun: Instant) -> anyhow::Result<Held> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let number = |name: &str| {
        let rest = status.lines().find_map(|line| line.strip_prefix(name)).context("a field")?;
        anyhow::Ok(rest.split_whitespace().next().context("a number")?.parse::<u64>()?)
    };
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))?.flatten();
    let is_probe = |file: &Path| ["bpf_link", "perf_event"].iter().any(|kind| file.to_string_lossy().contains(kind));
    let descriptors = descriptors.filter(|entry| fs::read_link(entry.path()).is_ok_and(|file| !is_probe(&file)));
    let threads = fs::read_dir(format!("/proc/{pid}/task"))?.count();
    Ok(Held { at: begun.elapsed(), rss: number("VmRSS:")?, descriptors: descriptors.count(), threads })
}

/// One exchange; the next number comes with the next.
fn curl(server: &Server, number: usize) -> anyhow::Result<()> {
    let url = format!("https://127.0.0.1:{}/size/1000?n={number}", server.port);
    let output = Command::new("curl")
        .args(["-skf", "-o", "/dev/null", "-w", "%{size_download}", &url])
        .stdin(Stdio::null())
        .output()?;
    ensure!(output.status.success() && output.stdout == b"1000", "{number}: {output:?}");
    Ok(())
}

fn run(server: &Server, numbers: std::ops::Range<usize>) -> anyhow::Result<()> {
    let share = |worker: usize| numbers.clone().skip(worker).step_by(PARALLEL);
    thread::scope(|scope| {
        let work = |worker| move || share(worker).try_for_each(|number| curl(server, number));
        let workers: Vec<_> = (0..PARALLEL).map(|worker| scope.spawn(work(worker))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("it does not panic"))
    })
}

/// The keys of one of the agent's maps, found by its descriptors.
fn keys<K: Pod, V: Pod>(pid: u32, name: &str) -> anyhow::Result<Vec<K>> {
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        let Some(id) = text.lines().find_map(|line| line.strip_prefix("map_id:")?.trim().parse::<u32>().ok()) else {
            continue;
        };
        let info = MapInfo::from_id(id)?;
        if info.name_as_str() == Some(name) {
            let data = MapData::from_id(id)?;
            let map = if text.contains("map_type:\t1\n") { Map::HashMap(data) } else { Map::LruHashMap(data) };
            let map: HashMap<MapData, K, V> = map.try_into()?;
            return Ok(map.keys().flatten().collect());
        }
    }
    anyhow::bail!("the agent has no map `{name}`")
}

/// How many entries the programs keep of threads and processes that have ended, and how many connections there are.
fn left_over(pid: u32) -> anyhow::Result<(usize, usize, usize)> {
    let is_gone = |id: u32| !Path::new(&format!("/proc/{id}")).exists();
    let activity = keys::<u32, [u64; size_of::<Activity>() / 8]>(pid, "activity")?;
    let calls = keys::<u64, [u64; 6]>(pid, "tls_calls")?;
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is the thread")]
    let threads = calls.into_iter().filter(|thread| is_gone(*thread as u32)).count();
    let connections = keys::<u64, [u64; 15]>(pid, "connections")?.len();
    Ok((activity.into_iter().filter(|process| is_gone(*process)).count(), threads, connections))
}

/// The files with code of curl, which the agent has looked at before its first exchange.
fn files_of_curl() -> anyhow::Result<BTreeSet<String>> {
    let output = Command::new("sh").args(["-c", "command -v curl; ldd \"$(command -v curl)\""]).output()?;
    let text = String::from_utf8(output.stdout)?;
    let paths = text.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(paths.filter_map(|path| Some(fs::canonicalize(path).ok()?.display().to_string())).collect())
}

/// Files of curl that got their probes only after the agent had said that it captures.
fn late(log: &str, files: &BTreeSet<String>) -> Vec<String> {
    let after = log.split_once("capturing").map_or("", |(_, after)| after);
    let attached = after.lines().filter(|line| line.contains("probes attached"));
    let of_curl = attached.filter(|line| {
        let path = line.split_whitespace().find_map(|word| word.strip_prefix("path="));
        path.is_some_and(|path| files.contains(path))
    });
    of_curl.map(str::to_owned).collect()
}

/// What the agent tells the doctor of itself.
fn told(admin: &str) -> anyhow::Result<(u64, u64)> {
    let output = Command::new(env!("CARGO_BIN_EXE_ringtap"))
        .args(["doctor", "--json", "--agent", admin])
        .stdin(Stdio::null())
        .output()?;
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let number = |name: &str| report["told"][name].as_u64().context("the agent does not answer the doctor");
    Ok((number("late_files")?, number("longest_blind_us")?))
}

/// Descriptors and threads are as many as at the beginning. Memory is flat if, once the agent is warm, it comes down in
/// the second half of the looks to where it came down in the first, give or take [`GROWTH`]; a short run only shows that
/// it is bounded.
fn is_flat(looks: &[Held]) -> anyhow::Result<()> {
    let (first, last) = (&looks[0], &looks[LOOKS - 1]);
    ensure!(last.descriptors <= first.descriptors + SPARE && last.threads <= first.threads + SPARE, "{looks:#?}");
    let warm: Vec<u64> = looks.iter().filter(|held| held.at > WARM).map(|held| held.rss).collect();
    if warm.len() < WARM_LOOKS {
        println!("memory: too short to say more than that it is bounded");
        ensure!(last.rss < first.rss + SHORT_GROWTH, "{looks:#?}");
        return Ok(());
    }
    let (early, late) = warm.split_at(warm.len() / 2);
    let lowest = |rss: &[u64]| rss.iter().copied().min().context("no looks");
    let (early, late) = (lowest(early)?, lowest(late)?);
    println!("memory: {early} KiB, then {late} KiB");
    ensure!(late < early + GROWTH, "memory has grown from {early} to {late} KiB: {looks:#?}");
    Ok(())
}

#[test]
fn short_lived_processes_leave_nothing_behind() -> anyhow::Result<()> {
    need_root!();
    let (processes, server) = (super::processes()?, nginx(true, false)?);
    let admin = format!("127.0.0.1:{}", free_port()?);
    let command = Command::new(env!("CARGO_BIN_EXE_ringtap"));
    let agent = Agent::start_with(&config("egress-internal", ""), &["--httpd-listen", &admin], command)?;
    let (begun, mut looks, mut stored) = (Instant::now(), Vec::new(), Stored::default());
    for look in 0..LOOKS {
        run(&server, processes * look / LOOKS..processes * (look + 1) / LOOKS)?;
        stored.wait(&agent, &server, processes * (look + 1) / LOOKS)?;
        looks.push(held(agent.pid(), begun)?);
    }
    println!("{processes} processes in {:.1?}", begun.elapsed());
    for held in &looks {
        println!("{held:?}");
    }
    let begun = Instant::now();
    let (mut of_processes, mut of_threads, mut connections) = left_over(agent.pid())?;
    while of_processes + of_threads > 0 && begun.elapsed() < FORGOTTEN {
        sleep(Duration::from_millis(200));
        (of_processes, of_threads, connections) = left_over(agent.pid())?;
    }
    let ((late_files, longest), log) = (told(&admin)?, agent.read("stderr")?);
    println!(
        "left over of ended processes: {of_processes}, of threads: {of_threads}; connections: {connections}; late files: \
         {late_files}, at most {longest} µs"
    );
    ensure!(of_processes + of_threads == 0, "{of_processes} processes, {of_threads} threads");
    ensure!(connections < processes.div_ceil(10) + 100, "{connections} connections");
    let late = late(&log, &files_of_curl()?);
    ensure!(late.is_empty(), "{late:#?}");
    is_flat(&looks)?;
    ensure!(stored.numbers.values().all(|times| *times == 1), "an exchange was captured twice");
    agent.stop()?.check()
}
