//! What is measured, in which order, and what follows from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use serde::Serialize;

use super::{
    contenders::{Agent, Other},
    empty::EmptyPrograms,
    load::{CLIENTS, Measured, Server, load, median},
};
use crate::cli::{CapacityArgs, CapacityLevel, Transport};

/// How far the application's p99 may move.
const P99_MOVES: f64 = 1.10;
/// How much of the rate without the agent must be kept: the load waits for answers, so a slow one lowers the rate.
const RATE_KEPT: f64 = 0.95;
/// Requests that may fail since the end of the load cuts them off: one a connection.
const CUT_OFF: u64 = CLIENTS as u64;
/// Latencies below this are the clock's noise: a move within it is none.
const NOISE_US: u64 = 200;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Results {
    /// Kernel release.
    pub kernel: String,
    /// Model of the processors.
    pub processor: String,
    /// Their number.
    pub processors: usize,
    /// Bytes of one ring.
    pub ring_bytes: u32,
    /// Seconds that each step was measured.
    pub seconds: u32,
    /// Times that each was.
    pub rounds: u32,
    /// Processors of server and load, if they were held to some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_cpus: Option<String>,
    /// Processors of the agent, or of what ran in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_cpus: Option<String>,
    /// The command that ran in the agent's place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other: Option<String>,
    /// One for each combination.
    pub cells: Vec<Cell>,
}

/// A combination of transport, body and level.
#[derive(Debug, Serialize)]
pub struct Cell {
    /// `plain` or `tls`.
    pub transport: &'static str,
    /// Bytes of each response's body.
    pub body_bytes: u64,
    /// `summary`, `full`, or `configured`.
    pub level: &'static str,
    /// From little load to much.
    pub steps: Vec<Step>,
    /// Requests a second up to which nothing is lost and p99 stays where it is without the agent.
    pub carries_per_second: f64,
    /// What ended it; empty: the server itself was the limit.
    pub ended_by: String,
}

/// One rate of load.
#[derive(Debug, Serialize)]
pub struct Step {
    /// Requests a second that were asked for; `None`: as many as can be.
    pub asked_per_second: Option<u64>,
    /// What came of it.
    #[serde(flatten)]
    pub ways: Ways,
}

/// What a rate of load comes to in each way.
#[derive(Debug, Clone, Serialize)]
pub struct Ways {
    /// Without any probe.
    pub none: Measured,
    /// With programs that do nothing on the same probes.
    pub empty: Measured,
    /// With the agent.
    pub agent: WithAgent,
    /// With another program in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other: Option<Measured>,
}

impl Ways {
    /// As the load saw them, in the order of the fields.
    pub fn measured(&self) -> [Option<&Measured>; 4] {
        [Some(&self.none), Some(&self.empty), Some(&self.agent.measured), self.other.as_ref()]
    }
}

impl Step {
    /// What several rounds come to: the median of each figure, the sum of what was lost.
    fn of_rounds(asked_per_second: Option<u64>, rounds: &[&Ways]) -> Self {
        let all = |of: fn(&Ways) -> Option<Measured>| {
            let measured: Vec<Measured> = rounds.iter().filter_map(|ways| of(ways)).collect();
            (!measured.is_empty()).then(|| Measured::of_rounds(&measured))
        };
        let figure = |of: fn(&WithAgent) -> f64| median(rounds.iter().map(|ways| of(&ways.agent)));
        let mut ledger = BTreeMap::new();
        for (name, n) in rounds.iter().flat_map(|ways| &ways.agent.ledger) {
            *ledger.entry(name.clone()).or_insert(0) += n;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes of memory")]
        let agent = WithAgent {
            measured: all(|ways| Some(ways.agent.measured)).unwrap_or_default(),
            agent_cpu: figure(|agent| agent.agent_cpu),
            agent_resident_bytes: figure(|agent| agent.agent_resident_bytes as f64) as u64,
            ledger,
        };
        let (none, empty) = (all(|ways| Some(ways.none)), all(|ways| Some(ways.empty)));
        let ways = Ways {
            none: none.unwrap_or_default(),
            empty: empty.unwrap_or_default(),
            agent,
            other: all(|ways| ways.other),
        };
        Self { asked_per_second, ways }
    }
}

/// A step with the agent.
#[derive(Debug, Clone, Serialize)]
pub struct WithAgent {
    /// As the load saw it.
    #[serde(flatten)]
    pub measured: Measured,
    /// Processors that the agent kept busy.
    pub agent_cpu: f64,
    /// Resident memory of the agent at the end of the step.
    pub agent_resident_bytes: u64,
    /// What the ledger counted in this step, in all rounds.
    pub ledger: BTreeMap<String, u64>,
}

impl WithAgent {
    /// Bytes, records, objects and events that did not come through.
    pub fn lost(&self) -> u64 {
        let of = |name: &str| self.ledger.get(name).copied().unwrap_or(0);
        [
            "kernel_ring_full_records",
            "kernel_fault_bytes",
            "kernel_call_limit_bytes",
            "kernel_ends_lost",
            "connections_evicted",
            "objects_failed",
            "objects_queue_full",
            "events_failed",
            "events_queue_full",
        ]
        .map(of)
        .iter()
        .sum()
    }
}

/// Measures all cells.
pub fn measure(arguments: &CapacityArgs) -> anyhow::Result<Results> {
    let server = Server::start(&arguments.bodies, arguments.server_cpus.as_deref())?;
    let mut cells = Vec::new();
    for transport in &arguments.transports {
        for body in &arguments.bodies {
            let levels = if arguments.config.is_some() { &arguments.levels[..1] } else { &arguments.levels[..] };
            for level in levels {
                let cell = measure_cell(arguments, &server, *transport, *body, *level)?;
                eprintln!("{}", cell.line());
                cells.push(cell);
            }
        }
    }
    let uname = rustix::system::uname();
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    Ok(Results {
        kernel: uname.release().to_string_lossy().into_owned(),
        processor: model.map_or_else(String::new, |(_, name)| name.to_owned()),
        processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        ring_bytes: arguments.ring_size,
        seconds: arguments.seconds,
        rounds: arguments.rounds,
        server_cpus: arguments.server_cpus.clone(),
        agent_cpus: arguments.agent_cpus.clone(),
        other: arguments.other.clone(),
        cells,
    })
}

fn measure_cell(
    arguments: &CapacityArgs,
    server: &Server,
    transport: Transport,
    body: u64,
    level: CapacityLevel,
) -> anyhow::Result<Cell> {
    let url = server.url(transport, body);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "requests a second are few")]
    let most = load(server, &url, None, arguments.seconds)?.per_second as u64;
    let shares: BTreeSet<u32> = arguments.steps.iter().copied().collect();
    let rate = |share: u32| (share < 100).then_some((most * u64::from(share) / 100).max(1));
    let rates: Vec<Option<u64>> = shares.into_iter().map(rate).collect();
    let rounds = (0..arguments.rounds)
        .map(|_| measure_round(arguments, server, &url, level, &rates))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut cell = Cell {
        transport: if transport == Transport::Tls { "tls" } else { "plain" },
        body_bytes: body,
        level: match (&arguments.config, level) {
            (Some(_), _) => "configured",
            (None, CapacityLevel::Summary) => "summary",
            (None, CapacityLevel::Full) => "full",
        },
        steps: Vec::new(),
        carries_per_second: 0.0,
        ended_by: String::new(),
    };
    for (at, rate) in rates.into_iter().enumerate() {
        let step = Step::of_rounds(rate, &rounds.iter().map(|round| &round[at]).collect::<Vec<_>>());
        if cell.ended_by.is_empty() {
            cell.ended_by = ends(&step.ways.none, &step.ways.agent);
            if cell.ended_by.is_empty() {
                cell.carries_per_second = step.ways.agent.measured.per_second;
            }
        }
        cell.steps.push(step);
    }
    Ok(cell)
}

/// All rates with each of the ways.
fn measure_round(
    arguments: &CapacityArgs,
    server: &Server,
    url: &str,
    level: CapacityLevel,
    rates: &[Option<u64>],
) -> anyhow::Result<Vec<Ways>> {
    let each = || rates.iter().map(|rate| load(server, url, *rate, arguments.seconds)).collect::<Result<Vec<_>, _>>();
    let none = each()?;
    let empty = {
        let libraries = server.libraries();
        let _attached = EmptyPrograms::attach(libraries.iter().map(PathBuf::as_path))?;
        each()?
    };
    let agent = {
        let agent = Agent::start(arguments, level)?;
        let step = |rate: &Option<u64>| agent.step(server, url, *rate, arguments);
        let steps = rates.iter().map(step).collect::<Result<Vec<_>, _>>()?;
        agent.stop()?;
        steps
    };
    let other = match &arguments.other {
        None => vec![None; rates.len()],
        Some(command) => {
            let _running = Other::start(command, arguments.agent_cpus.as_deref())?;
            each()?.into_iter().map(Some).collect()
        }
    };
    let ways = none.into_iter().zip(empty).zip(agent).zip(other);
    Ok(ways.map(|(((none, empty), agent), other)| Ways { none, empty, agent, other }).collect())
}

/// Why a step is one too many; empty if it is not.
fn ends(none: &Measured, with: &WithAgent) -> String {
    if with.measured.failed > none.failed + CUT_OFF {
        return format!("{} requests failed", with.measured.failed);
    }
    if with.measured.per_second < none.per_second * RATE_KEPT {
        return format!("{:.0} instead of {:.0} requests/s", with.measured.per_second, none.per_second);
    }
    let (before, now) = (none.p99_us, with.measured.p99_us);
    if with.lost() > 0 {
        return format!("{} lost, by the ledger", with.lost());
    }
    if now > before + NOISE_US && now as f64 > before as f64 * P99_MOVES {
        return format!("p99 went from {before} to {now} us");
    }
    String::new()
}

impl Cell {
    /// What came of the cell, in a line.
    pub fn line(&self) -> String {
        let ended = if self.ended_by.is_empty() { "the server's own limit" } else { &self.ended_by };
        let (transport, body, level) = (self.transport, self.body_bytes, self.level);
        format!("{transport:<6} {body:>8} B  {level:<8} {:>8.0} requests/s  ({ended})", self.carries_per_second)
    }

    /// Bytes a second that went into rings at the highest step without loss.
    fn ring_bytes_per_second(&self, seconds: u32, rounds: u32) -> f64 {
        let carried = self.steps.iter().map(|step| &step.ways.agent).filter(|agent| agent.lost() == 0);
        let bytes = |agent: &WithAgent| agent.ledger.get("kernel_captured_bytes").copied().unwrap_or(0) as f64;
        carried.map(bytes).fold(0.0, f64::max) / f64::from((seconds + 1) * rounds)
    }
}

impl Results {
    /// On which processors what ran.
    pub fn places(&self) -> String {
        if self.server_cpus.is_none() && self.agent_cpus.is_none() {
            return "Server, load and agent share the processors.".into();
        }
        let of = |cpus: &Option<String>| cpus.clone().unwrap_or_else(|| "all".into());
        let (server, agent) = (of(&self.server_cpus), of(&self.agent_cpus));
        format!("Processors of server and load: {server}; of the agent: {agent}.")
    }

    /// One sentence: what this host carries, and which ring size to set.
    pub fn verdict(&self) -> String {
        let slowest = self.cells.iter().min_by(|a, b| a.carries_per_second.total_cmp(&b.carries_per_second));
        let fastest = self.cells.iter().max_by(|a, b| a.carries_per_second.total_cmp(&b.carries_per_second));
        let (Some(slowest), Some(fastest)) = (slowest, fastest) else { return "Nothing was measured.".into() };
        let name = |cell: &Cell| format!("{} with bodies of {} B at {}", cell.transport, cell.body_bytes, cell.level);
        let lost = self.cells.iter().any(|cell| cell.ended_by.contains("lost, by the ledger"));
        // A ring that holds a quarter of a second rides out what a busy machine does to its reader.
        let busiest =
            self.cells.iter().map(|cell| cell.ring_bytes_per_second(self.seconds, self.rounds)).fold(0.0, f64::max);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes of a quarter of a second")]
        let wanted = ((busiest / 4.0) as u64).next_power_of_two().clamp(8 << 20, 1 << 30);
        let wanted = if lost { wanted.max(u64::from(self.ring_bytes) * 2).min(1 << 30) } else { wanted };
        format!(
            "This host ({} processors) carries from {:.0} requests/s ({}) to {:.0} requests/s ({}) without loss and \
             without moving p99 by more than 10 %; set --ring-size {}mb.",
            self.processors,
            slowest.carries_per_second,
            name(slowest),
            fastest.carries_per_second,
            name(fastest),
            wanted >> 20,
        )
    }
}
