//! What another configuration would do differently with recorded transactions (`validate --against`).

use std::{
    collections::HashMap,
    hash::BuildHasher as _,
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use arrow_array::RecordBatch;
use ringtap_batch::{
    capture::{Format, Level},
    fields::RowFields,
    redact::Redaction,
    ring::abi::{exclude, wanted},
    transactions::{Transactions, text},
};

use crate::{
    config::{Config, checked::Route},
    replay,
    stack::Stack,
};

/// Transactions that are shown one by one.
const SHOWN_MAX: usize = 20;

/// What came of a comparison.
#[derive(Debug, Default)]
pub struct Changes {
    /// Transactions in the recording.
    pub transactions: usize,
    /// Those with another outcome.
    pub changed: usize,
    /// How often each pair of outcomes occurs.
    pub kinds: HashMap<(String, String), usize>,
    /// Some of them, as lines.
    pub examples: Vec<String>,
}

/// Sends a recording's transactions through both configurations. What either leaves alone is looked at as well.
///
/// # Errors
///
/// The recording cannot be read.
pub fn compare(old: &Config, new: &Config, file: &Path) -> anyhow::Result<Changes> {
    let changes = Arc::new(Mutex::new(Changes::default()));
    replay::transactions(file, old.wanted | new.wanted, &|batch: &RecordBatch| {
        let Some(t) = Transactions::of(batch) else { return };
        let (before, mut after) = (outcomes(old, batch), outcomes(new, batch));
        for (row, (old, new)) in masks(old, batch).into_iter().zip(masks(new, batch)).enumerate() {
            let shown = |said: &str| !said.starts_with("not ");
            if old != new && shown(&before[row]) && shown(&after[row]) {
                after[row] += ", masked otherwise";
            }
        }
        let mut changes = changes.lock().unwrap_or_else(PoisonError::into_inner);
        changes.transactions += t.rows();
        for (row, pair) in before.into_iter().zip(after).enumerate().filter(|(_, (before, after))| before != after) {
            changes.changed += 1;
            if changes.examples.len() < SHOWN_MAX {
                let url = Redaction::default().url_text(t.url.value(row));
                let what = format!("{} {url} ({})", t.method.value(row), t.status.value(row));
                let what: String = what.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
                changes.examples.push(format!("{what}: {} → {}", pair.0, pair.1));
            }
            *changes.kinds.entry(pair).or_default() += 1;
        }
    })?;
    let all = std::mem::take(&mut *changes.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(all)
}

/// What a configuration makes of each row, in words.
fn outcomes(config: &Config, batch: &RecordBatch) -> Vec<String> {
    let Some(t) = Transactions::of(batch) else { return Vec::new() };
    let places = (0..t.rows()).map(|row| config.stacks.of(&RowFields::new(&t, row)));
    let mut words: Vec<(Option<&Stack>, Vec<String>)> = places.map(|stack| (stack, Vec::new())).collect();
    for stack in &config.stacks.stacks {
        captured(config, stack, &t, &mut words);
        logged(stack, &t, &mut words);
        for row in 0..t.rows() {
            for word in detected(config, stack, &t, row) {
                add(&mut words, row, stack, word);
            }
        }
    }
    let said = words.into_iter().enumerate().map(|(row, (stack, words))| match (is_wanted(config, &t, row), stack) {
        (false, _) => "not captured".to_owned(),
        (true, None) => "not processed".to_owned(),
        (true, Some(_)) => words.join(", "),
    });
    said.collect()
}

/// What is shown of each row's texts, as one hash: another one means that something else is masked.
fn masks(config: &Config, batch: &RecordBatch) -> Vec<u64> {
    let rows = batch.num_rows();
    let mut hashes = vec![0; rows];
    for stack in &config.stacks.stacks {
        let masked = stack.redaction.apply(batch);
        let (Some(t), Some(raw)) = (Transactions::of(&masked), Transactions::of(batch)) else { continue };
        for (row, hash) in hashes.iter_mut().enumerate() {
            if config.stacks.of(&RowFields::new(&raw, row)).is_some_and(|own| std::ptr::eq(own, stack)) {
                let headers = [t.request_headers, t.response_headers].map(|column| format!("{:?}", column.value(row)));
                let texts = (t.url.value(row), t.request_body.value(row), t.response_body.value(row), headers);
                *hash = foldhash::quality::FixedState::default().hash_one(texts);
            }
        }
    }
    hashes
}

fn captured(config: &Config, stack: &Stack, t: &Transactions<'_>, words: &mut [(Option<&Stack>, Vec<String>)]) {
    for (capture, route) in &stack.captures {
        let rules = capture.rules.decide(t);
        for (row, decision) in capture.decide(t).into_iter().enumerate() {
            let by = rules[row].map_or_else(String::new, |rule| format!(" by `{}`", rule.name));
            let format = if decision.format == Format::Text { " as text" } else { "" };
            let level = format!("{:?}", decision.level).to_lowercase();
            let to = if decision.level == Level::None { String::new() } else { objects_to(config, *route) };
            add(words, row, stack, format!("capture {level}{format}{by}{to}"));
        }
    }
}

fn logged(stack: &Stack, t: &Transactions<'_>, words: &mut [(Option<&Stack>, Vec<String>)]) {
    for log in &stack.logs {
        for (row, rule) in log.rules.decide(t).into_iter().enumerate() {
            let mode = format!("{:?}", rule.map_or(log.mode, |rule| rule.gives)).to_lowercase();
            let by = rule.map_or_else(String::new, |rule| format!(" by `{}`", rule.name));
            add(words, row, stack, format!("log {mode}{by}"));
        }
    }
}

/// What the other plugins make of a row.
fn detected(config: &Config, stack: &Stack, t: &Transactions<'_>, row: usize) -> Vec<String> {
    let mut words = Vec::new();
    for usage in &stack.usages {
        let promoted = usage.headers.join("+");
        let promoted = if promoted.is_empty() { promoted } else { format!(" with {promoted}") };
        words.push(format!("usage{promoted}{}", events_to(config, usage.events)));
    }
    for (detector, routes) in &stack.detectors {
        let to = events_to(config, routes.events) + &objects_to(config, routes.objects);
        words.extend(detector.matching(t, row).into_iter().map(|name| format!("issue `{name}`{to}")));
    }
    for (scanner, routes) in &stack.scanners {
        let to = events_to(config, routes.events) + &objects_to(config, routes.objects);
        words.extend(scanner.matching(t, row).into_iter().map(|(label, n)| format!("{n} × `{label}` found{to}")));
    }
    words.extend(stack.llms.iter().map(|route| format!("llm{}", objects_to(config, *route))));
    words.extend(stack.metrics.then(|| "metrics".to_owned()));
    words
}

fn objects_to(config: &Config, route: Route) -> String {
    match route.and_then(|place| Some((place, config.stores.objects.get(place)?))) {
        None => ", stored nowhere".to_owned(),
        Some((place, (store, _))) => format!(" to object store {place} ({})", store.kind()),
    }
}

fn events_to(config: &Config, route: Route) -> String {
    match route.and_then(|place| Some((place, config.stores.events.get(place)?))) {
        None => ", told nobody".to_owned(),
        Some((place, store)) => format!(" to event store {place} ({})", store.kind()),
    }
}

/// Whether direction, address and process are wanted.
fn is_wanted(config: &Config, t: &Transactions<'_>, row: usize) -> bool {
    let ingress = t.direction.value(row) == "ingress";
    let bit = match t.direction.value(row) {
        "ingress" => wanted::INGRESS,
        "egress-internal" => wanted::EGRESS_INTERNAL,
        _ => wanted::EGRESS_EXTERNAL,
    };
    let remote = text(if ingress { t.src_ip } else { t.dst_ip }, row).and_then(|ip| ip.parse::<IpAddr>().ok());
    let loopback = remote.is_some_and(|ip| ip.is_loopback());
    let exe = text(t.process_exe, row).unwrap_or_default();
    let excluded = config.processes.filters.iter().filter(|f| f.matches(exe)).fold(0, |all, f| all | f.bits);
    let tls = if t.tls.value(row) { exclude::TLS } else { 0 };
    config.wanted & bit != 0
        && (!loopback || config.wanted & wanted::LOOPBACK != 0)
        && excluded & (exclude::DATA | exclude::HTTP | tls) == 0
}

fn add(words: &mut [(Option<&Stack>, Vec<String>)], row: usize, stack: &Stack, word: String) {
    if words[row].0.is_some_and(|own| std::ptr::eq(own, stack)) {
        words[row].1.push(word);
    }
}
