//! What another configuration would do differently with recorded transactions (`validate --against`).

use std::{
    collections::HashMap,
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use arrow_array::RecordBatch;
use ringtap_batch::{
    capture::Format,
    fields::RowFields,
    redact::Redaction,
    ring::abi::{exclude, wanted},
    transactions::{Transactions, text},
};

use crate::{config::Config, replay, stack::Stack};

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
        let (before, after) = (outcomes(old, batch), outcomes(new, batch));
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
        for (capture, _) in &stack.captures {
            let rules = capture.rules.decide(&t);
            for (row, decision) in capture.decide(&t).into_iter().enumerate() {
                let by = rules[row].map_or_else(String::new, |rule| format!(" by `{}`", rule.name));
                let format = if decision.format == Format::Text { " as text" } else { "" };
                let level = format!("{:?}", decision.level).to_lowercase();
                add(&mut words, row, stack, format!("capture {level}{format}{by}"));
            }
        }
        for log in &stack.logs {
            for (row, rule) in log.rules.decide(&t).into_iter().enumerate() {
                let mode = format!("{:?}", rule.map_or(log.mode, |rule| rule.gives)).to_lowercase();
                let by = rule.map_or_else(String::new, |rule| format!(" by `{}`", rule.name));
                add(&mut words, row, stack, format!("log {mode}{by}"));
            }
        }
        for row in 0..t.rows() {
            let others = [
                (stack.usage.is_some(), "usage"),
                (!stack.detectors.is_empty(), "errors"),
                (!stack.scanners.is_empty(), "data loss"),
                (stack.llm.is_some(), "llm"),
                (stack.metrics, "metrics"),
            ];
            for (_, what) in others.iter().filter(|(acts, _)| *acts) {
                add(&mut words, row, stack, (*what).to_owned());
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
