//! Checks the stacks and their plugins.

use jiff::SignedDuration;
use regex::bytes::{Regex, RegexBuilder};
use ringtap_batch::{
    capture::{Capture, Format, Level, Rule, RuleList},
    dlp::{DlpRule, Scanner},
    errors::{Detector, ErrorRule, Recorded},
    redact::Redaction,
    rules::Rules,
};

use super::Checker;
use crate::{
    config::written::{self, NumberOrText, Written},
    lines::AccessLog,
    stack::{Routes, Stack, Stacks, Usage},
};

/// A pattern's compiled size at most.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// Plugins that are accepted and do not act, with the reason.
const NOT_ACTING: [(&str, &str); 3] = [
    ("qscan", "needs a service of its vendor"),
    ("logger", "is for the development of its vendor's agent"),
    ("devtools", "is for its vendor's page"),
];

impl Checker<'_> {
    pub(super) fn stacks(&mut self, written: &Written, rules: &Rules) -> Stacks {
        let redaction = self.redaction(&written.redaction);
        let mut stacks = Stacks::default();
        let mut places = Vec::new();
        for (name, stack) in &written.stacks {
            places.push(name.as_str());
            stacks.stacks.push(self.stack(name, stack, &redaction, rules, written));
        }
        let tap = &written.tap;
        stacks.default = self.stack_named("tap.http.stack", &tap.http.stack, &places);
        if stacks.default.is_none() && tap.endpoints.is_empty() {
            self.warn("tap.http", "no stack is named, so HTTP is not processed");
        }
        for (i, endpoint) in tap.endpoints.iter().enumerate() {
            let path = format!("tap.endpoints[{i}]");
            let name = |c: char| c.is_alphanumeric() || "-._".contains(c);
            if endpoint.domain.is_empty() || !endpoint.domain.chars().all(name) {
                self.refuse(&format!("{path}.domain"), format!("found `{}`; expected a host name", endpoint.domain));
            }
            let place = self.stack_named(&format!("{path}.http.stack"), &endpoint.http.stack, &places);
            stacks.by_domain.insert(endpoint.domain.to_ascii_lowercase(), place);
        }
        stacks
    }

    fn stack_named(&mut self, path: &str, name: &str, known: &[&str]) -> Option<usize> {
        let place = known.iter().position(|one| *one == name);
        if place.is_none() && !matches!(name, "" | "none") {
            self.refuse(path, format!("found `{name}`; the stacks are: {}", known.join(", ")));
        }
        place
    }

    fn redaction(&mut self, written: &written::Redaction) -> Redaction {
        let mut paths = Vec::new();
        for (i, text) in written.json_paths.iter().enumerate() {
            match text.parse() {
                Ok(path) => paths.push(path),
                Err(error) => self.refuse(&format!("redaction.json_paths[{i}]"), format!("{error}")),
            }
        }
        let mut patterns = Vec::new();
        for (i, text) in written.patterns.iter().enumerate() {
            patterns.extend(self.pattern(&format!("redaction.patterns[{i}]"), text));
        }
        if !written.enabled {
            self.warn("redaction.enabled", "credentials are not masked: they leave this machine in clear");
        }
        let base = if written.enabled { Redaction::default() } else { Redaction::off() };
        base.with_names(&written.headers, &written.query).with_paths(paths).with_patterns(patterns)
    }

    fn pattern(&mut self, path: &str, text: &str) -> Option<Regex> {
        match RegexBuilder::new(text).size_limit(PATTERN_BYTES_MAX).build() {
            // It would mask nothing, or find something at every place.
            Ok(pattern) if pattern.is_match(b"") => {
                self.refuse(path, format!("`{text}` matches the empty text, and so everything"));
                None
            }
            Ok(pattern) => Some(pattern),
            Err(error) => {
                self.refuse(path, format!("this regular expression cannot be used: {error}"));
                None
            }
        }
    }

    fn stack(
        &mut self,
        name: &str,
        stack: &written::Stack,
        redaction: &Redaction,
        rules: &Rules,
        all: &Written,
    ) -> Stack {
        let mut checked = Stack::new(name, redaction.clone());
        for (i, plugin) in stack.plugins.iter().enumerate() {
            self.plugin(&format!("stacks.{name}.plugins[{i}]"), plugin, rules, all, &mut checked);
        }
        checked
    }

    fn plugin(&mut self, path: &str, plugin: &written::Plugin, rules: &Rules, all: &Written, to: &mut Stack) {
        let config = format!("{path}.config");
        match plugin.kind.as_str() {
            "http_capture" => {
                let Some(written) = self.part::<written::HttpCapture>(&config, &plugin.config) else { return };
                let objects = self.objects(&config, &written.object_store, all);
                let capture = self.capture(&config, &written, rules);
                // Rollups have the level and the rule of rows that nobody wants as objects.
                if objects.is_some() || all.services.rollups.is_some() {
                    to.captures.push((capture, objects));
                }
            }
            kind @ ("access_logs" | "debug") => {
                let Some(written) = self.part::<written::AccessLogs>(&config, &plugin.config) else { return };
                let default = if kind == "debug" { written::LogFormat::Console } else { written::LogFormat::Json };
                let mut list = RuleList::default();
                for (i, rule) in written.rules.iter().enumerate() {
                    let compiled = self.rule(&format!("{config}.rules[{i}].expr"), &rule.expr, rules);
                    list.0.extend(compiled.map(|expression| Rule::new(&rule.name, expression, rule.mode)));
                }
                to.logs.push(AccessLog { mode: written.mode, format: written.format.unwrap_or(default), rules: list });
            }
            "report_usage" => {
                let Some(written) = self.part::<written::ReportUsage>(&config, &plugin.config) else { return };
                let events = self.events(&config, &written.event_store, all);
                to.usages.push(Usage { headers: written.headers, events });
            }
            "http_metrics" => to.metrics |= self.part::<written::HttpMetrics>(&config, &plugin.config).is_some(),
            "detect_errors" => {
                let Some(written) = self.part::<written::DetectErrors>(&config, &plugin.config) else { return };
                let routes = self.routes(&config, &written.event_store, &written.object_store, all);
                let rules = written.rules.iter().enumerate();
                let rules = rules.map(|(i, rule)| self.error_rule(&format!("{config}.rules[{i}]"), rule)).collect();
                to.detectors.push((Detector { rules }, routes));
            }
            "data_loss_protection" => {
                let Some(written) = self.part::<written::DataLossProtection>(&config, &plugin.config) else { return };
                let routes = self.routes(&config, &written.event_store, &written.object_store, all);
                self.data_loss(&config, &written, routes, to);
            }
            "llm" => {
                let Some(written) = self.part::<written::Llm>(&config, &plugin.config) else { return };
                to.llms.push(self.objects(&config, &written.object_store, all));
            }
            other => {
                let known = NOT_ACTING.iter().find(|(name, _)| *name == other);
                let why = known.map_or("is not known", |(_, why)| why);
                self.warn(&format!("{path}.type"), format!("the plugin `{other}` does not act: it {why}"));
            }
        }
    }

    fn events(&mut self, path: &str, to: &written::StoreRef, all: &Written) -> Option<usize> {
        self.event_route(&format!("{path}.event_store"), to, &all.services.event_stores)
    }

    fn objects(&mut self, path: &str, to: &written::StoreRef, all: &Written) -> Option<usize> {
        self.object_route(&format!("{path}.object_store"), to, &all.services.object_stores)
    }

    fn routes(&mut self, path: &str, events: &written::StoreRef, objects: &written::StoreRef, all: &Written) -> Routes {
        Routes { events: self.events(path, events, all), objects: self.objects(path, objects, all) }
    }

    fn capture(&mut self, path: &str, written: &written::HttpCapture, rules: &Rules) -> Capture {
        let mut list = RuleList::default();
        for (i, rule) in written.rules.iter().enumerate() {
            let expression = self.rule(&format!("{path}.rules[{i}].expr"), &rule.expr, rules);
            let gives = (level(rule.level), rule.format.map(format));
            list.0.extend(expression.map(|expression| Rule::new(&rule.name, expression, gives)));
        }
        Capture { level: level(written.level), format: format(written.format), rules: list }
    }

    fn error_rule(&mut self, path: &str, written: &written::ErrorRule) -> ErrorRule {
        let mut statuses = Vec::new();
        for code in &written.trigger_status_codes {
            let text = match code {
                NumberOrText::Number(n) => n.to_string(),
                NumberOrText::Text(text) => text.clone(),
            };
            match text.parse() {
                Ok(pattern) => statuses.push(pattern),
                Err(message) => self.refuse(&format!("{path}.trigger_status_codes"), message),
            }
        }
        let slow_ms = match &written.trigger_duration {
            None => None,
            Some(NumberOrText::Number(n)) if *n >= 0.0 && *n < 1e12 => {
                #[expect(clippy::cast_possible_truncation, reason = "milliseconds, checked to be small")]
                let ms = n.ceil() as i64;
                Some(ms)
            }
            Some(NumberOrText::Text(text)) if text.parse::<SignedDuration>().is_ok_and(|d| !d.is_negative()) => {
                text.parse::<SignedDuration>().ok().and_then(|d| i64::try_from(d.as_millis()).ok())
            }
            Some(_) => {
                self.refuse(
                    &format!("{path}.trigger_duration"),
                    "expected milliseconds, or a duration such as 1.5s or 2m",
                );
                None
            }
        };
        let rule = ErrorRule {
            name: written.name.clone(),
            statuses,
            empty_body: written.trigger_empty_body,
            slow_ms,
            contains: written.trigger_contains.clone(),
            categories: written.only_categories.iter().map(|one| one.as_str().to_owned()).collect(),
            urls: written.only_urls.clone(),
            other_urls: written.exclude_urls.clone(),
            tags: written.with_tags.clone(),
            report: written.report_as_issue,
            record: Recorded {
                request_headers: written.record_req_headers,
                request_body: written.record_req_body,
                response_headers: written.record_res_headers,
                response_body: written.record_res_body,
            },
        };
        if !rule.has_condition() {
            self.warn(path, "this rule has no condition and never matches");
        }
        rule
    }

    fn data_loss(&mut self, path: &str, written: &written::DataLossProtection, routes: Routes, to: &mut Stack) {
        let mut scanner = Scanner { headers: written.scan_headers, rules: Vec::new() };
        let mut scrubbed = Vec::new();
        for (i, rule) in written.rules.iter().enumerate() {
            let path = format!("{path}.rules[{i}]");
            if rule.fail_on_detect {
                let message =
                    "data_loss_protection cannot block: ringtap stands beside the traffic, not in it; remove the key";
                self.refuse(&format!("{path}.fail_on_detect"), message);
            }
            let Some(pattern) = self.pattern(&format!("{path}.expression"), &rule.expression) else { continue };
            if rule.scrub {
                scrubbed.push(pattern.clone());
            }
            scanner.rules.push(DlpRule {
                label: rule.label.clone(),
                pattern,
                report: rule.report,
                record: rule.record,
            });
        }
        to.redaction = to.redaction.clone().with_patterns(scrubbed);
        to.scanners.push((scanner, routes));
    }
}

fn level(level: written::Level) -> Level {
    match level {
        written::Level::None => Level::None,
        written::Level::Summary => Level::Summary,
        written::Level::Headers => Level::Headers,
        written::Level::Full => Level::Full,
    }
}

fn format(format: written::Format) -> Format {
    match format {
        written::Format::Json => Format::Json,
        written::Format::Text => Format::Text,
    }
}
