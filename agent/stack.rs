//! Stacks of plugins: which one a transaction goes to, and what its plugins make of it.

use std::collections::HashMap;

use arrow_array::{BooleanArray, RecordBatch};
use arrow_select::filter::filter_record_batch;
use ringtap_batch::{
    capture::{Capture, Rule, RuleList},
    dlp::Scanner,
    errors::Detector,
    fields::RowFields,
    interest::Interest,
    llm, objects,
    redact::Redaction,
    rollups::{self, Outcome},
    rules::Counted,
    transactions::Transactions,
    usage,
};

use crate::{
    config::checked::Route,
    devtools::Feed,
    lines::AccessLog,
    metrics::Metrics,
    sink::{outbox::Outboxes, rollups::Rollup},
};

/// Label of a pod that chooses the stack of its processes.
const STACK_LABEL: &str = "pod.labels.tap.qpoint.io/stack";

/// All stacks, and how one is chosen: by a label of the pod, by domain, else the default.
#[derive(Debug, Default)]
pub struct Stacks {
    /// In the order of their names.
    pub stacks: Vec<Stack>,
    /// The stack for HTTP; `None`: it is not processed.
    pub default: Option<usize>,
    /// Other choices for some domains, in lower case.
    pub by_domain: HashMap<String, Option<usize>>,
    /// Whether everything is shown, with its bodies, besides what the plugins do.
    pub shown: bool,
}

/// A stack: its plugins, each of which sees every transaction.
#[derive(Debug)]
pub struct Stack {
    /// In the configuration.
    pub name: String,
    /// What is masked in everything that it makes.
    pub redaction: Redaction,
    /// `http_capture`, and where its objects go.
    pub captures: Vec<(Capture, Route)>,
    /// `access_logs` and `debug`.
    pub logs: Vec<AccessLog>,
    /// `report_usage`.
    pub usages: Vec<Usage>,
    /// `http_metrics`.
    pub metrics: bool,
    /// `detect_errors`.
    pub detectors: Vec<(Detector, Routes)>,
    /// `data_loss_protection`.
    pub scanners: Vec<(Scanner, Routes)>,
    /// `llm`, and where its objects go.
    pub llms: Vec<Route>,
}

/// A configured `report_usage`.
#[derive(Debug)]
pub struct Usage {
    /// Header fields to promote.
    pub headers: Vec<String>,
    /// Where its events go.
    pub events: Route,
}

/// Where a plugin's events and objects go.
#[derive(Debug, Clone, Copy)]
pub struct Routes {
    /// Events.
    pub events: Route,
    /// Objects.
    pub objects: Route,
}

/// Lines for standard output, in blocks.
pub type Lines<'a> = &'a dyn Fn(String);

/// Where a stack's events, objects and rows go.
#[derive(Clone, Copy)]
pub struct To<'a> {
    /// Events and objects.
    pub stores: &'a Outboxes,
    /// Rows.
    pub rollup: Option<&'a Rollup>,
    /// Whoever looks.
    pub feed: Option<&'a Feed>,
}

/// What a stack does with the rows of a phase.
type Take = fn(&Stack, &RecordBatch, To<'_>, &Metrics, Lines<'_>);

impl Stacks {
    /// Names of the fields that any rule reads.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        let captures = self.stacks.iter().flat_map(|stack| &stack.captures).flat_map(|(capture, _)| &capture.rules.0);
        let logs = self.stacks.iter().flat_map(|stack| &stack.logs).flat_map(|log| &log.rules.0);
        let read = captures.map(|rule| rule.expression.fields()).chain(logs.map(|rule| rule.expression.fields()));
        read.flatten().map(String::as_str)
    }

    /// Stack, plugin, rule and counts of every rule that is evaluated.
    #[must_use]
    pub fn rules(&self) -> Vec<(&str, &'static str, &str, Counted<'_>)> {
        fn of<T>(list: &RuleList<T>) -> impl Iterator<Item = (&str, Counted<'_>)> {
            list.0.iter().map(|rule: &Rule<T>| (rule.name.as_str(), rule.counts.read(&rule.expression)))
        }
        let mut all = Vec::new();
        for stack in &self.stacks {
            let name = stack.name.as_str();
            let captures = stack.captures.iter().flat_map(|(capture, _)| of(&capture.rules));
            all.extend(captures.map(|(rule, counted)| (name, "http_capture", rule, counted)));
            let logs = stack.logs.iter().flat_map(|log| of(&log.rules));
            all.extend(logs.map(|(rule, counted)| (name, "access_logs", rule, counted)));
        }
        all
    }

    /// Whether the plugin `http_metrics` is in any of them.
    #[must_use]
    pub fn has_metrics(&self) -> bool {
        self.stacks.iter().any(|stack| stack.metrics)
    }

    /// The stack of a row.
    #[must_use]
    pub fn of(&self, row: &RowFields<'_>) -> Option<&Stack> {
        self.place_of(row).map(|place| &self.stacks[place])
    }

    fn place_of(&self, row: &RowFields<'_>) -> Option<usize> {
        if let Some(place) = row.detail(STACK_LABEL).and_then(|name| self.place_named(name)) {
            return place;
        }
        if self.by_domain.is_empty() {
            return self.default;
        }
        let chosen = row.domains().into_iter().find_map(|domain| self.by_domain.get(&domain.to_ascii_lowercase()));
        chosen.copied().unwrap_or(self.default)
    }

    /// The stack that a label names; the empty name and `none` stand for none. What no stack is called says nothing: pods
    /// are labelled by others than those who write the configuration.
    #[expect(clippy::option_option, reason = "nothing was said, and no stack was chosen, are two things")]
    fn place_named(&self, name: &str) -> Option<Option<usize>> {
        match name {
            "" | "none" => Some(None),
            name => self.stacks.iter().position(|stack| stack.name == name).map(Some),
        }
    }

    /// Hands each row of a transactions batch to its stack.
    pub fn take(&self, batch: &RecordBatch, out: To<'_>, metrics: &Metrics, lines: Lines<'_>) {
        let Some(t) = Transactions::of(batch) else { return };
        let started: BooleanArray = (0..t.rows()).map(|row| Some(t.has_only_started(row))).collect();
        if started.true_count() > 0 {
            let part = |rows: &BooleanArray| filter_record_batch(batch, rows).expect("an answer for each row");
            self.take_phase(&part(&started), Stack::take_started, out, metrics, lines);
            let whole: BooleanArray = started.iter().map(|started| started.map(|started| !started)).collect();
            return self.take_phase(&part(&whole), Stack::take, out, metrics, lines);
        }
        self.take_phase(batch, Stack::take, out, metrics, lines);
    }

    fn take_phase(&self, batch: &RecordBatch, take: Take, out: To<'_>, metrics: &Metrics, lines: Lines<'_>) {
        let Some(t) = Transactions::of(batch).filter(|t| t.rows() > 0) else { return };
        if self.by_domain.is_empty() && !t.has_details() {
            if let Some(place) = self.default {
                take(&self.stacks[place], batch, out, metrics, lines);
            }
            return;
        }
        let places: Vec<Option<usize>> = (0..t.rows()).map(|row| self.place_of(&RowFields::new(&t, row))).collect();
        for (place, stack) in self.stacks.iter().enumerate() {
            let own: BooleanArray = places.iter().map(|one| Some(*one == Some(place))).collect();
            match own.true_count() {
                0 => {}
                n if n == t.rows() => take(stack, batch, out, metrics, lines),
                _ => {
                    let part = filter_record_batch(batch, &own).expect("an answer for each row");
                    take(stack, &part, out, metrics, lines);
                }
            }
        }
    }
}

impl Stack {
    /// Without plugins.
    #[must_use]
    pub fn new(name: &str, redaction: Redaction) -> Self {
        Self {
            name: name.to_owned(),
            redaction,
            captures: Vec::new(),
            logs: Vec::new(),
            usages: Vec::new(),
            metrics: false,
            detectors: Vec::new(),
            scanners: Vec::new(),
            llms: Vec::new(),
        }
    }

    /// Exchanges that have begun and will last: they are told of now, and everything else waits for their end.
    fn take_started(&self, batch: &RecordBatch, out: To<'_>, _: &Metrics, lines: Lines<'_>) {
        let masked = self.redaction.apply(batch);
        let (Some(raw), Some(shown)) = (Transactions::of(batch), Transactions::of(&masked)) else { return };
        for log in &self.logs {
            log.write(&shown, &raw, lines);
        }
        out.feed.iter().for_each(|feed| feed.offer(&masked));
        self.report_usage(&shown, &raw, out.stores);
    }

    fn report_usage(&self, shown: &Transactions<'_>, raw: &Transactions<'_>, out: &Outboxes) {
        for Usage { headers, events } in &self.usages {
            if let Some(to) = out.events(*events) {
                usage::requests(shown, raw, headers).into_iter().for_each(|events| to.offer(events));
            }
        }
    }

    /// Rules see transactions as they were; whatever leaves is made of the masked ones.
    fn take(&self, batch: &RecordBatch, out: To<'_>, metrics: &Metrics, lines: Lines<'_>) {
        let To { stores: out, rollup, feed } = out;
        let tagged = if self.llms.is_empty() { None } else { llm::tagged(batch) };
        let batch = tagged.as_ref().unwrap_or(batch);
        let masked = self.redaction.apply(batch);
        let (Some(raw), Some(shown)) = (Transactions::of(batch), Transactions::of(&masked)) else { return };
        if self.metrics {
            metrics.observe(&raw);
        }
        for log in &self.logs {
            log.write(&shown, &raw, lines);
        }
        feed.iter().for_each(|feed| feed.offer(&masked));
        self.report_usage(&shown, &raw, out);
        let mut outcome = Outcome { stack: &self.name, ..Outcome::default() };
        for (place, (capture, route)) in self.captures.iter().enumerate() {
            // Decided even if nothing takes the objects: the counts of rules are asked for.
            let (decisions, rules): (Vec<_>, Vec<_>) = capture.decide_named(&raw).into_iter().unzip();
            let to = out.objects(*route);
            let made = to.and_then(|to| Some((to, objects::objects(&shown, &decisions)?)));
            // Of several captures the first is told of in rows.
            if let Some(rollup) = rollup.filter(|_| place == 0) {
                outcome.levels = decisions.iter().map(|decision| decision.level).collect();
                outcome.rules = rules;
                made.iter().for_each(|(_, made)| outcome.note_objects(made, rollup.object_url(*route)));
            }
            made.into_iter().for_each(|(to, made)| to.offer(made));
        }
        if let Some(rollup) = rollup {
            rollup.offer(rollups::rows(&shown, &outcome, rollup.keeps_headers()));
        }
        let detected = self.detectors.iter().map(|(detector, routes)| (detector.detect(&shown, &raw), routes));
        let scanned = self.scanners.iter().map(|(scanner, routes)| (scanner.scan(&shown, &raw), routes));
        for ((events, objects), routes) in detected.chain(scanned) {
            events.zip(out.events(routes.events)).into_iter().for_each(|(events, to)| to.offer(events));
            objects.zip(out.objects(routes.objects)).into_iter().for_each(|(objects, to)| to.offer(objects));
        }
        for to in self.llms.iter().filter_map(|route| out.objects(*route)) {
            llm::conversations(&shown, &self.redaction).into_iter().for_each(|objects| to.offer(objects));
        }
    }
}

impl Interest for Stack {
    fn wants_bodies(&self) -> bool {
        !self.scanners.is_empty()
            || !self.llms.is_empty()
            || self.captures.iter().any(|(capture, _)| capture.wants_bodies())
            || self.logs.iter().any(Interest::wants_bodies)
            || self.detectors.iter().any(|(detector, _)| detector.wants_bodies())
    }

    fn can_want_bodies(&self, row: &RowFields<'_>) -> bool {
        !self.scanners.is_empty()
            || (!self.llms.is_empty() && llm::can_want_bodies(row))
            || self.captures.iter().any(|(capture, _)| capture.can_want_bodies(row))
            || self.logs.iter().any(|log| log.can_want_bodies(row))
            || self.detectors.iter().any(|(detector, _)| detector.wants_bodies())
    }
}

impl Interest for Stacks {
    fn wants_bodies(&self) -> bool {
        // Any of them: a pod's label can choose it.
        self.shown || self.stacks.iter().any(Interest::wants_bodies)
    }

    fn can_want_bodies(&self, row: &RowFields<'_>) -> bool {
        self.of(row).is_some_and(|stack| self.shown || stack.can_want_bodies(row))
    }
}
