//! From what is written to what the agent runs with: what cannot be acted on is a problem with its place, what need not
//! be is a warning.

use ringtap_batch::{
    fields,
    rules::{Expression, Rules},
};
use serde::de::DeserializeOwned;

use super::{
    checked::{Config, ProcessRules, Stores},
    document::{Document, Problem, nearest},
    written::{self, ValueSource, ValueSourceKind, Written},
};

mod collector;
mod plugins;
mod rollups;
mod s3;
mod spool;
mod stores;
mod tap;

/// Checks what was written.
///
/// # Errors
///
/// All problems that keep the agent from starting.
pub fn check(document: &Document, written: &Written, warnings: &mut Vec<Problem>) -> Result<Config, Vec<Problem>> {
    let mut checker = Checker { document, warnings, problems: Vec::new() };
    let events = checker.event_stores(&written.services.event_stores);
    let objects = checker.object_stores(&written.services);
    let rollups = checker.rollups(&written.services, &objects);
    let spool = checker.spool(&written.services.spool);
    let stores = {
        let services = &written.services;
        let event_ids = services.event_stores.iter().map(|store| store.id.clone()).collect();
        let object_ids = services.object_stores.iter().map(|store| store.id.clone()).collect();
        Stores { events, objects, event_ids, object_ids, spool }
    };
    let rules = checker.macros(&written.rulekit.macros);
    checker.warn_unused(written, &rules);
    let stacks = checker.stacks(written, &rules);
    let tags = checker.tags(&written.tags);
    let mut variables: Vec<String> =
        stacks.fields().filter_map(|field| Some(field.split_once("process.env.")?.1.to_owned())).collect();
    let is_read = |detail: &str| stacks.fields().any(|field| field.ends_with(detail));
    let (arguments, cgroup) = (is_read(".process.args"), is_read(".process.cgroup"));
    variables.extend(tags.iter().filter_map(|(_, detail)| Some(detail.strip_prefix("process.env.")?.to_owned())));
    variables.sort_unstable();
    variables.dedup();
    let filters = checker.filters(&written.tap.filters);
    let budgets = checker.budgets(&written.tap.budgets);
    let probes = checker.probes(written.tap.budgets.probes.as_deref());
    if checker.problems.is_empty() {
        let processes = ProcessRules { filters, tags, variables, arguments, cgroup };
        Ok(Config { stores, rollups, stacks, wanted: tap::wanted_bits(&written.tap), processes, budgets, probes })
    } else {
        Err(checker.problems)
    }
}

struct Checker<'a> {
    document: &'a Document,
    warnings: &'a mut Vec<Problem>,
    problems: Vec<Problem>,
}

impl Checker<'_> {
    fn warn(&mut self, path: &str, message: impl Into<String>) {
        self.warnings.push(self.document.problem(path, message));
    }

    fn refuse(&mut self, path: &str, message: impl Into<String>) {
        self.problems.push(self.document.problem(path, message));
    }

    fn warn_unused(&mut self, written: &Written, rules: &Rules) {
        const NOT_HTTP: &str = "this section does not act: only HTTP is captured";
        let tap = &written.tap;
        for (name, stack) in
            [("redis", &tap.redis), ("mysql", &tap.mysql), ("kafka", &tap.kafka), ("postgres", &tap.postgres)]
        {
            if stack.is_some() {
                self.warn(&format!("tap.{name}"), NOT_HTTP);
            }
        }
        if !written.services.qscan.is_null() {
            self.warn("services.qscan", "this section does not act: it needs a service of its vendor");
        }
        if let Some(control) = &written.control {
            self.control(control, rules);
        }
    }

    fn control(&mut self, control: &written::Control, rules: &Rules) {
        if let Some(default) = control.default.as_deref().filter(|default| !default.eq_ignore_ascii_case("allow")) {
            self.refuse("control.default", format!("found `{default}`; only `allow` can be acted on"));
        }
        let mut denies = false;
        for (i, rule) in control.rules.iter().enumerate() {
            self.rule(&format!("control.rules[{i}].expr"), &rule.expr, rules);
            for action in &rule.actions {
                match action.to_ascii_lowercase().as_str() {
                    "allow" => {}
                    "deny" => denies = true,
                    _ => self.refuse(
                        &format!("control.rules[{i}].actions"),
                        format!("found `{action}`; expected `allow` or `deny`"),
                    ),
                }
            }
        }
        if denies {
            self.warn("control", "nothing is denied: that needs a proxy in the path, which ringtap is not");
        }
    }

    fn value(&mut self, path: &str, source: &ValueSource) -> Option<String> {
        match source.kind {
            ValueSourceKind::Text => Some(source.value.clone()),
            ValueSourceKind::Env => match std::env::var(&source.value) {
                Ok(value) if !value.is_empty() => Some(value),
                _ => {
                    self.refuse(path, format!("the environment variable `{}` is not set or empty", source.value));
                    None
                }
            },
            ValueSourceKind::File => match std::fs::read_to_string(&source.value) {
                Ok(value) if !value.trim_end().is_empty() => Some(value.trim_end().to_owned()),
                Ok(_) => {
                    self.refuse(path, format!("the file {} is empty", source.value));
                    None
                }
                Err(error) => {
                    self.refuse(path, format!("cannot read {}: {error}", source.value));
                    None
                }
            },
        }
    }

    fn macros(&mut self, macros: &[written::Macro]) -> Rules {
        match Rules::new(macros.iter().map(|m| (m.name.as_str(), m.expr.as_str()))) {
            Ok(rules) => {
                for (i, one) in macros.iter().enumerate() {
                    self.rule(&format!("rulekit.macros[{i}].expr"), &one.expr, &rules);
                }
                rules
            }
            Err((name, error)) => {
                let index = macros.iter().position(|m| m.name == name).unwrap_or_default();
                self.refuse(&format!("rulekit.macros[{index}].expr"), error.to_string());
                Rules::default()
            }
        }
    }

    /// What can be read, and yet is hardly what was meant.
    fn warn_unmeant(&mut self, path: &str, expression: &Expression) {
        for name in expression.fields().iter().filter(|name| !fields::is_known(name)) {
            let hint = nearest(name, fields::FIELDS.iter().copied());
            let hint = hint.map_or_else(String::new, |known| format!("; did you mean `{known}`?"));
            let message = format!("no transaction has the field `{name}`, so what reads it has no value{hint}");
            self.warn(path, message);
        }
        for word in expression.hexadecimal_words() {
            self.warn(path, format!("`{word}` is a hexadecimal literal here; put quotes around a text"));
        }
    }

    fn part<T: DeserializeOwned + Default>(&mut self, path: &str, value: &serde_yaml::Value) -> Option<T> {
        match self.document.decode_part(path, value.clone(), self.warnings) {
            Ok(part) => Some(part),
            Err(problem) => {
                self.problems.push(problem);
                None
            }
        }
    }

    /// A rule that does not parse refuses the start: a capture that silently lacks a rule keeps too little or too much.
    fn rule(&mut self, path: &str, text: &str, rules: &Rules) -> Option<Expression> {
        match rules.compile(text) {
            Ok(expression) => {
                if let Some(grouping) = expression.grouping() {
                    let message =
                        "`and` and `or` are mixed without parentheses, and `or` binds tighter here; this is read as";
                    self.warn(path, format!("{message} `{grouping}`"));
                }
                self.warn_unmeant(path, &expression);
                Some(expression)
            }
            Err(error) => {
                self.refuse(path, error.to_string());
                None
            }
        }
    }
}
