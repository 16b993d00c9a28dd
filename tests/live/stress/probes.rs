//! Probes that come and go under programs at work: these never notice, and nothing stays behind.

use std::{
    collections::BTreeSet,
    fs,
    io::Read as _,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use aya::programs::links::LinkType;
use ringtap::probe::{
    files::{Files, Shared},
    kernel::{Kernel, Settings},
    signatures::Signatures,
    tls,
};
use ringtap_batch::ring::{Reader, WakeFlags};

use super::text;
use crate::{
    agent::{Agent, config},
    need_root,
    programs::{self, Process, Server, certificate, free_port, nginx, program, serve},
};

const RING_BYTES: u32 = 4 << 20;
/// Probes stay in place for so long before they are taken away again.
const IN_PLACE: Duration = Duration::from_millis(10);
/// The code of all programs is compared after so many rounds.
const COMPARE_EVERY: usize = 50;
/// What the kernel may take to forget what nobody holds any more.
const FORGOTTEN: Duration = Duration::from_secs(10);
/// Another agent on the machine may have its probes in the same files, and is waited for at the end.
const LEFT_ALONE: Duration = Duration::from_mins(2);
/// Probes of an agent that has ended are gone after this.
const SETTLED: Duration = Duration::from_secs(3);

/// Servers of every kind and their clients, busy with each other.
struct Work {
    nginx: Server,
    caddy: Server,
    node: Server,
    python: Server,
    client: Process,
    /// The client works as long as this is open.
    input: ChildStdin,
    /// All of their processes, and when each was started.
    started: Vec<(u32, String)>,
}

impl Work {
    fn start() -> anyhow::Result<Self> {
        let nginx = nginx(true, false)?;
        // A server and a client in Go.
        let (folder, python) = (tempfile::tempdir()?, programs::python_server(true)?);
        let (cert, key) = certificate(folder.path())?;
        let proxy = format!(
            "tls {} {}\nreverse_proxy https://127.0.0.1:{} {{\n transport http {{\n tls_insecure_skip_verify\n }}\n}}",
            cert.display(),
            key.display(),
            nginx.port
        );
        let (own, port) = (tempfile::tempdir()?, free_port()?);
        let (own_cert, own_key) = certificate(own.path())?;
        let mut command = Command::new("node");
        command.arg(program("server_node.js")).arg(port.to_string()).args([own_cert, own_key]);
        let node = serve(command, port, Some(own))?;
        let site = |port| format!("https://127.0.0.1:{port}");
        let caddy = programs::caddy(folder, "auto_https disable_redirects", site, &proxy)?;
        let mut command = Command::new("python3");
        command.arg(program("steady.py")).arg("2");
        for (server, posts) in [(&nginx, ""), (&caddy, ""), (&node, "+"), (&python, "+")] {
            command.arg(format!("https://127.0.0.1:{}{posts}", server.port));
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let input = child.stdin.take().context("it is a pipe")?;
        let mut work = Self { nginx, caddy, node, python, client: Process::of(child), input, started: Vec::new() };
        work.started = work.pids()?.into_iter().map(|pid| Ok((pid, started(pid)?))).collect::<anyhow::Result<_>>()?;
        Ok(work)
    }

    fn pids(&self) -> anyhow::Result<Vec<u32>> {
        let master = self.nginx.pid();
        let workers = fs::read_to_string(format!("/proc/{master}/task/{master}/children"))?;
        let mut all = vec![master, self.caddy.pid(), self.node.pid(), self.python.pid(), self.client.pid()];
        for worker in workers.split_whitespace() {
            all.push(worker.parse()?);
        }
        Ok(all)
    }

    /// The files with TLS functions that they use.
    fn files(&self) -> anyhow::Result<Vec<PathBuf>> {
        let (mut known, mut found) = (BTreeSet::new(), Vec::new());
        for (pid, _) in &self.started {
            for file in text::files(*pid)? {
                let metadata = fs::metadata(&file)?;
                if known.insert((metadata.dev(), metadata.ino()))
                    && tls::points(&file, &Signatures::default()).is_ok_and(|all| !all.is_empty())
                {
                    found.push(file);
                }
            }
        }
        Ok(found)
    }

    /// Every process has probes in its code now.
    fn is_probed(&self) -> anyhow::Result<()> {
        for (pid, _) in &self.started {
            ensure!(!text::changes(*pid)?.is_empty(), "there are no probes in process {pid}");
        }
        Ok(())
    }

    /// Every process is the one that it was, and its code is that of its files. False: another agent on the machine has
    /// its probes there, and was not waited for any longer.
    fn is_unchanged(&self, patience: Duration) -> anyhow::Result<bool> {
        for (pid, began) in &self.started {
            ensure!(started(*pid).ok().as_ref() == Some(began), "process {pid} has ended");
            let (begun, mut alone) = (Instant::now(), Instant::now());
            while !text::changes(*pid)?.is_empty() {
                if others_probe() {
                    alone = Instant::now();
                }
                ensure!(alone.elapsed() < SETTLED, "process {pid}: {:x?}", text::changes(*pid)?);
                if begun.elapsed() > patience + SETTLED {
                    return Ok(false);
                }
                sleep(Duration::from_millis(200));
            }
        }
        Ok(true)
    }

    /// Ends the client; every answer that it got was right. How many each server gave.
    fn finish(self) -> anyhow::Result<Vec<u64>> {
        drop(self.input);
        let output = self.client.finish()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout)?;
        Ok(text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?)
    }
}

/// When a process began, in ticks.
fn started(pid: u32) -> anyhow::Result<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let rest = stat.rsplit_once(')').context("a name")?.1;
    Ok(rest.split_whitespace().nth(19).context("a start")?.to_owned())
}

/// Whether anybody on the machine has probes in place, by links for many places.
fn others_probe() -> bool {
    aya::programs::loaded_links().flatten().any(|link| matches!(link.link_type(), Ok(LinkType::UProbeMulti)))
}

/// Programs that a process holds, by the kernel's numbers.
fn held(pid: u32) -> anyhow::Result<BTreeSet<u32>> {
    let mut ids = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // A descriptor can be closed meanwhile.
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        ids.extend(text.lines().filter_map(|line| line.strip_prefix("prog_id:")?.trim().parse::<u32>().ok()));
    }
    Ok(ids)
}

/// None of the programs is in the kernel any more; a link would hold its program.
fn are_gone(programs: &BTreeSet<u32>) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let there: BTreeSet<u32> = aya::programs::loaded_programs().flatten().map(|program| program.id()).collect();
        if programs.is_disjoint(&there) {
            return Ok(());
        }
        ensure!(begun.elapsed() < FORGOTTEN, "still in the kernel: {:?}", programs.intersection(&there));
        sleep(Duration::from_millis(100));
    }
}

fn kernel() -> anyhow::Result<Kernel> {
    Ok(Kernel::load(Settings { wanted: u32::MAX, shards: 1, ring_bytes: RING_BYTES })?)
}

/// Reads what the programs write, so that they do all of their work. How many records there were.
fn consume(mut reader: Reader, stop: &AtomicBool) -> anyhow::Result<usize> {
    let mut records = 0;
    while !stop.load(Ordering::Relaxed) {
        reader.wait(Duration::from_millis(100))?;
        records += reader.scan().iter().flatten().map(arrow_array::RecordBatch::num_rows).sum::<usize>();
    }
    Ok(records)
}

/// Puts probes into all of the files and takes them away, again and again; how many, and the longest times of both.
fn come_and_go(
    kernel: &mut Kernel,
    work: &Work,
    files: &[PathBuf],
    rounds: usize,
) -> anyhow::Result<(usize, Duration, Duration)> {
    let (mut probes, mut attach, mut detach) = (0, Duration::ZERO, Duration::ZERO);
    for round in 0..rounds {
        let shared = Shared::default();
        let (mut all, begun) = (Files::new(shared.clone(), Arc::default()), Instant::now());
        for file in files {
            ensure!(all.look_at(kernel, file, None, false), "{}: {:?}", file.display(), all.refused);
        }
        attach = attach.max(begun.elapsed());
        probes += shared.lock().expect("whole").probes;
        if round % COMPARE_EVERY == 0 {
            work.is_probed()?;
        }
        sleep(IN_PLACE);
        let begun = Instant::now();
        all.detach();
        detach = detach.max(begun.elapsed());
        if round % COMPARE_EVERY == 0 {
            work.is_unchanged(Duration::ZERO)?;
        }
    }
    Ok((probes, attach, detach))
}

/// Attached and detached a thousand times under load, with the programs loaded once: nobody ends, every body is right,
/// and the code in memory is that of the files again.
#[test]
fn probes_come_and_go_under_load() -> anyhow::Result<()> {
    need_root!();
    let rounds = super::processes()?.div_ceil(10);
    let work = Work::start()?;
    let files = work.files()?;
    let mut kernel = kernel()?;
    let (fds, wake) = kernel.ring_fds()?;
    let wake = WakeFlags::map(wake.as_fd(), fds.len())?;
    let (reader, _) = Reader::open(fds, RING_BYTES, Some(wake))?;
    kernel.start()?;
    let (own, stop, begun) = (held(std::process::id())?, AtomicBool::new(false), Instant::now());
    let (gone, records) = thread::scope(|scope| {
        let reader = scope.spawn(|| consume(reader, &stop));
        let gone = come_and_go(&mut kernel, &work, &files, rounds);
        stop.store(true, Ordering::Relaxed);
        (gone, reader.join().expect("the reader does not panic"))
    });
    let ((probes, attach, detach), took) = (gone?, begun.elapsed());
    drop(kernel);
    ensure!(!own.is_empty(), "the programs are held by this process");
    are_gone(&own)?;
    ensure!(work.is_unchanged(LEFT_ALONE)?, "another agent does not end");
    let (records, answers) = (records?, work.finish()?);
    println!(
        "{rounds} times in {took:.1?}, {probes} probes in {} files: at most {attach:.0?} to attach all, {detach:.0?} to \
         detach; {records} records; right answers of nginx, caddy, node, python: {answers:?}",
        files.len()
    );
    ensure!(answers.iter().all(|answers| *answers > 10) && records > 10, "{answers:?}, {records} records");
    Ok(())
}

/// Whole agents that are killed and stopped in turns under the same load.
#[test]
fn agents_come_and_go_under_load() -> anyhow::Result<()> {
    need_root!();
    let (rounds, work) = (super::processes()?.div_ceil(200).max(3), Work::start()?);
    for round in 0..rounds {
        let mut agent = Agent::start(&config("all", ""))?;
        if round == 0 {
            work.is_probed()?;
        }
        let own = held(agent.pid())?;
        ensure!(own.len() > 10, "only {} programs are held", own.len());
        if round % 2 == 0 {
            agent.kill()?;
        } else {
            agent.stop()?.check()?;
        }
        are_gone(&own)?;
        work.is_unchanged(Duration::ZERO)?;
    }
    ensure!(work.is_unchanged(LEFT_ALONE)?, "another agent does not end");
    let answers = work.finish()?;
    println!("{rounds} agents; right answers of nginx, caddy, node, python: {answers:?}");
    ensure!(answers.iter().all(|answers| *answers > 10), "{answers:?}");
    Ok(())
}

/// Copies of libssl, in use by one process.
fn libraries(folder: &Path, count: usize) -> anyhow::Result<(Vec<PathBuf>, Process)> {
    let library = ["/usr/lib/x86_64-linux-gnu/libssl.so.3", "/usr/lib/aarch64-linux-gnu/libssl.so.3"];
    let library = library.iter().find(|path| Path::new(path).exists()).context("no libssl.so.3")?;
    let copy = |n: usize| {
        let path = folder.join(format!("{n}.so"));
        fs::copy(library, &path).map(|_| path)
    };
    let copies: Vec<PathBuf> = (0..count).map(copy).collect::<Result<_, _>>()?;
    let script = "import ctypes, sys\nall = [ctypes.CDLL(path) for path in sys.argv[1:]]\nprint('x', flush=True)\nsys.stdin.read()";
    let mut child: Child = Command::new("python3")
        .args(["-c", script])
        .args(&copies)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let ready = child.stdout.as_mut().context("it is a pipe")?.read_exact(&mut [0; 1]);
    let user = Process::of(child);
    ready.context("the libraries cannot be loaded")?;
    Ok((copies, user))
}

/// Two hundred places in files that a process uses: all probes are there in a second, and gone in two.
#[test]
fn two_hundred_probes_come_and_go_in_time() -> anyhow::Result<()> {
    need_root!();
    let folder = tempfile::tempdir()?;
    let (copies, _user) = libraries(folder.path(), 40)?;
    let mut kernel = kernel()?;
    let mut best = (Duration::MAX, Duration::MAX);
    // The machine may be busy with something else once.
    for _ in 0..3 {
        let shared = Shared::default();
        let (mut files, begun) = (Files::new(shared.clone(), Arc::default()), Instant::now());
        for copy in &copies {
            ensure!(files.look_at(&mut kernel, copy, None, false), "{:?}", files.refused);
        }
        let (attach, begun) = (begun.elapsed(), Instant::now());
        let probes = shared.lock().expect("whole").probes;
        files.detach();
        let detach = begun.elapsed();
        println!("{probes} probes in {} files: attached in {attach:.1?}, detached in {detach:.1?}", copies.len());
        ensure!(probes >= 200, "only {probes} probes");
        best = (best.0.min(attach), best.1.min(detach));
    }
    ensure!(best.0 < Duration::from_secs(1) && best.1 < Duration::from_secs(2), "{best:?}");
    Ok(())
}
