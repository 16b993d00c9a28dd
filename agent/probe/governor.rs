//! Keeps the probes of a process within its budget: a share of its own processor time.
//!
//! Once a second it is estimated what the probes have cost each process. One for which that was too much several times in
//! a row is stepped down: large bodies stay in the kernel, then only one connection in eight is captured, then none. When
//! it was well within its budget for long enough it is stepped up again; each time that this was too early it has to wait
//! twice as long. Nothing is lost silently by it: what is left out is counted, each step is an event, a metric and a line
//! of the log, and the doctor shows where each process stands.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use ringtap_bpf::abi::{Activity, exclude};
use serde::{Deserialize, Serialize};

use super::cost::{Costs, Stop};

/// How often it is looked.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looks in a row that were too dear before a step down: a burst is no reason.
const DEAR_LOOKS: u32 = 3;
/// What probes may cost in any case, as a share of one processor: to leave out traffic for less would gain nobody anything.
const NEGLIGIBLE: f64 = 0.01;
/// A process is stepped up when it is below this share of its budget.
const CHEAP: f64 = 0.5;
/// For so long at first.
const PATIENCE: Duration = Duration::from_secs(30);
/// And at most.
const PATIENCE_MAX: Duration = Duration::from_hours(1);
/// A step up that is taken back this soon was too early.
const TOO_EARLY: Duration = Duration::from_mins(1);

/// How much of a process is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// What the configuration asks for.
    #[default]
    Full,
    /// Without large bodies.
    Headers,
    /// One connection in eight, without large bodies.
    Sampled,
    /// Nothing.
    Off,
}

impl Level {
    /// All of them, from the dearest to the cheapest.
    pub const ALL: [Self; 4] = [Self::Full, Self::Headers, Self::Sampled, Self::Off];

    /// As it is printed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Headers => "headers",
            Self::Sampled => "sampled",
            Self::Off => "off",
        }
    }

    /// What the programs are told of a process, in bits of [`exclude`].
    #[must_use]
    pub fn bits(self) -> u32 {
        match self {
            Self::Full | Self::Headers => 0,
            Self::Sampled => exclude::SAMPLED,
            Self::Off => exclude::OFF,
        }
    }

    fn down(self) -> Self {
        match self {
            Self::Full => Self::Headers,
            Self::Headers => Self::Sampled,
            Self::Sampled | Self::Off => Self::Off,
        }
    }

    fn up(self) -> Self {
        match self {
            Self::Off => Self::Sampled,
            Self::Sampled => Self::Headers,
            Self::Headers | Self::Full => Self::Full,
        }
    }
}

/// A process goes from one level to another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// The process.
    pub tgid: u32,
    /// Where it was.
    pub from: Level,
    /// Where it is.
    pub to: Level,
    /// What its probes cost, as a share of its processor time.
    pub share: f64,
}

/// What the governor needs to know of a process.
pub trait Machine {
    /// Processor time that it has used, `None` if it is gone.
    fn used(&self, tgid: u32) -> Option<Duration>;

    /// How its TLS calls are stopped, by the libraries that handed out plaintext.
    fn stop(&self, tgid: u32, libraries: u64) -> Stop;
}

struct Watched {
    activity: Activity,
    used: Duration,
    at: Instant,
    level: Level,
    dear: u32,
    cheap_since: Instant,
    went_up: Option<Instant>,
    patience: Duration,
}

/// All processes that have probes which are hit.
pub struct Governor {
    costs: Costs,
    watched: HashMap<u32, Watched>,
}

impl Governor {
    /// Nobody is governed yet.
    #[must_use]
    pub fn new(costs: Costs) -> Self {
        Self { costs, watched: HashMap::new() }
    }

    /// What a stop at a probe costs.
    #[must_use]
    pub fn costs(&self) -> Costs {
        self.costs
    }

    /// The process has ended, or runs another program.
    pub fn forget(&mut self, tgid: u32) {
        self.watched.remove(&tgid);
    }

    /// Where a process stands.
    #[must_use]
    pub fn level(&self, tgid: u32) -> Level {
        self.watched.get(&tgid).map_or(Level::Full, |watched| watched.level)
    }

    /// Nobody is governed any more.
    pub fn release(&mut self) -> Vec<Step> {
        let watched = std::mem::take(&mut self.watched);
        let left = watched.into_iter().filter(|(_, watched)| watched.level != Level::Full);
        left.map(|(tgid, watched)| Step { tgid, from: watched.level, to: Level::Full, share: 0.0 }).collect()
    }

    /// Looks at what all processes have done since the last look. `budget`: the share of a process's processor time that
    /// its probes may cost.
    pub fn look(
        &mut self,
        now: Instant,
        budget: f64,
        activity: &HashMap<u32, Activity>,
        machine: &dyn Machine,
    ) -> Vec<Step> {
        // Whoever was pushed out of the programs' table and comes back begins anew.
        self.watched.retain(|tgid, watched| watched.level != Level::Full || activity.contains_key(tgid));
        let mut steps = Vec::new();
        for (tgid, activity) in activity {
            steps.extend(self.look_at(now, budget, *tgid, *activity, machine));
        }
        steps
    }

    fn look_at(
        &mut self,
        now: Instant,
        budget: f64,
        tgid: u32,
        activity: Activity,
        machine: &dyn Machine,
    ) -> Option<Step> {
        let Self { costs, watched } = self;
        let Some(known) = watched.get_mut(&tgid) else {
            let used = machine.used(tgid)?;
            watched.insert(tgid, Watched::new(now, activity, used));
            return None;
        };
        let done = since(&activity, &known.activity);
        if done == Activity::default() && known.level == Level::Full {
            // Most processes: not worth asking for their processor time.
            (known.at, known.dear) = (now, 0);
            known.used = Duration::MAX;
            return None;
        }
        let used = machine.used(tgid)?;
        let before = std::mem::replace(&mut known.used, used);
        let passed = now.duration_since(std::mem::replace(&mut known.at, now));
        known.activity = activity;
        // Not asked for at the last look.
        let own = used.checked_sub(before)?;
        let of = |stop| Duration::from_nanos(costs.of(&done, stop)).as_secs_f64();
        // How it is stopped takes a while to find out, and is of no interest if even the dearest way is cheap.
        let (dearest, negligible) = (of(Stop::SteppedTwice), NEGLIGIBLE * CHEAP * passed.as_secs_f64());
        let cost = if dearest < negligible { dearest } else { of(machine.stop(tgid, activity.libraries)) };
        let share = cost / own.max(Duration::from_millis(10)).as_secs_f64();
        let is_dear = share > budget && cost > NEGLIGIBLE * passed.as_secs_f64();
        let from = known.level;
        known.judge(now, is_dear, share < budget * CHEAP || cost < negligible);
        (known.level != from).then_some(Step { tgid, from, to: known.level, share })
    }
}

impl Watched {
    fn new(now: Instant, activity: Activity, used: Duration) -> Self {
        Self {
            activity,
            used,
            at: now,
            level: Level::Full,
            dear: 0,
            cheap_since: now,
            went_up: None,
            patience: PATIENCE,
        }
    }

    fn judge(&mut self, now: Instant, is_dear: bool, is_cheap: bool) {
        self.dear = if is_dear { self.dear + 1 } else { 0 };
        // Of what is off it is not known what it would cost: it is tried again.
        let waits = is_cheap || self.level == Level::Off;
        if !waits {
            self.cheap_since = now;
        }
        if self.dear >= DEAR_LOOKS && self.level != Level::Off {
            let too_early = |at| now.duration_since(at) < TOO_EARLY;
            if self.went_up.take().is_some_and(too_early) {
                self.patience = (self.patience * 2).min(PATIENCE_MAX);
            }
            self.step(now, self.level.down());
        } else if waits && self.level != Level::Full && now.duration_since(self.cheap_since) >= self.patience {
            self.step(now, self.level.up());
            self.went_up = Some(now);
        }
    }

    fn step(&mut self, now: Instant, to: Level) {
        (self.level, self.dear, self.cheap_since) = (to, 0, now);
    }
}

/// What was done between two looks; an entry that began anew counts from nothing.
fn since(now: &Activity, before: &Activity) -> Activity {
    let part = |field: fn(&Activity) -> u64| field(now).checked_sub(field(before)).unwrap_or(field(now));
    Activity {
        clear_bytes: part(|a| a.clear_bytes),
        socket_bytes: part(|a| a.socket_bytes),
        calls: part(|a| a.calls),
        io_calls: part(|a| a.io_calls),
        ..Activity::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with one process, whose calls cost a tenth of its time.
    struct One {
        used: Duration,
    }

    impl Machine for One {
        fn used(&self, _tgid: u32) -> Option<Duration> {
            Some(self.used)
        }

        fn stop(&self, _tgid: u32, _libraries: u64) -> Stop {
            Stop::Emulated
        }
    }

    /// The levels that a process is at when each of its seconds has so many calls, half a second of processor time each.
    struct Run {
        governor: Governor,
        now: Instant,
        activity: Activity,
        used: Duration,
        levels: Vec<(u64, Level)>,
        second: u64,
    }

    impl Run {
        fn new() -> Self {
            let costs = Costs { emulated_ns: 9000, stepped_ns: 90_000 };
            let (governor, now) = (Governor::new(costs), Instant::now());
            Self { governor, now, activity: Activity::default(), used: Duration::ZERO, levels: Vec::new(), second: 0 }
        }

        fn seconds(&mut self, n: u64, calls: u64) -> &mut Self {
            for _ in 0..n {
                self.second += 1;
                self.now += LOOK_EVERY;
                self.activity.calls += calls;
                self.used += Duration::from_millis(500);
                let machine = One { used: self.used };
                let all = HashMap::from([(7, self.activity)]);
                let steps = self.governor.look(self.now, 0.05, &all, &machine);
                self.levels.extend(steps.iter().map(|step| (self.second, step.to)));
            }
            self
        }
    }

    #[test]
    fn a_process_whose_probes_cost_too_much_is_stepped_down_and_up_again() {
        let mut run = Run::new();
        // 5000 calls of 10 us are 50 ms of 500.
        run.seconds(11, 5000);
        assert_eq!(run.levels, [(4, Level::Headers), (7, Level::Sampled), (10, Level::Off)]);
        run.levels.clear();
        run.seconds(100, 0);
        assert_eq!(run.levels, [(40, Level::Sampled), (70, Level::Headers), (100, Level::Full)]);
    }

    #[test]
    fn who_steps_up_too_early_waits_longer() {
        let mut run = Run::new();
        run.seconds(100, 5000);
        let downs: Vec<u64> = run.levels.iter().filter(|(_, to)| *to == Level::Off).map(|(at, _)| *at).collect();
        assert_eq!(downs, [10, 43], "off, tried after 30 seconds, off again");
        assert_eq!(run.levels.last(), Some(&(43, Level::Off)), "and not tried before 60 more: {:?}", run.levels);
    }

    #[test]
    fn bursts_and_small_costs_are_no_reason() {
        let mut run = Run::new();
        for _ in 0..20 {
            run.seconds(2, 50_000).seconds(1, 0);
        }
        assert_eq!(run.levels, []);
        // A third of a process that hardly does anything: 9 ms a second.
        let mut run = Run::new();
        for _ in 0..20 {
            run.seconds(1, 900);
            run.used -= Duration::from_millis(473);
        }
        assert_eq!(run.levels, []);
    }

    #[test]
    fn what_is_not_governed_any_more_is_free() {
        let mut run = Run::new();
        run.seconds(8, 5000);
        assert_eq!(run.governor.level(7), Level::Sampled);
        let steps = run.governor.release();
        assert_eq!(
            steps.iter().map(|step| (step.tgid, step.from, step.to)).collect::<Vec<_>>(),
            [(7, Level::Sampled, Level::Full)]
        );
        assert_eq!(run.governor.level(7), Level::Full);
    }
}
