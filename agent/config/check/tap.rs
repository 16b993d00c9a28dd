//! Checks what is captured: directions, budgets, process filters, tags.

use regex::Regex;
use ringtap_batch::{
    budget::Budgets,
    ring::abi::{exclude, wanted},
};

use super::Checker;
use crate::config::{
    checked::{Pattern, ProcessFilter, parse_size},
    written::{self, TagSource},
};

/// Executables of the groups. `qpoint` is the agent itself, which is always left alone.
const GROUPS: [(&str, &[&str]); 6] = [
    ("container", &["/usr/bin/containerd", "/usr/bin/dockerd", "/usr/bin/runc"]),
    ("container-runtimes", &["/usr/bin/containerd", "/usr/bin/dockerd", "/usr/bin/runc"]),
    (
        "eks",
        &[
            "/app/aws-k8s-agent",
            "/usr/bin/amazon-ssm-agent",
            "/usr/bin/ssm-agent-worker",
            "/usr/bin/ssm-document-worker",
        ],
    ),
    (
        "gke",
        &[
            "/home/kubernetes/bin/gcfsd",
            "/event-exporter",
            "/fluent-bit-gke-exporter",
            "/home/kubernetes/bin/node-problem-detector",
        ],
    ),
    (
        "kubernetes",
        &[
            "/home/kubernetes/bin/kubelet",
            "/home/kubernetes/bin/kube-proxy",
            "/proxy-agent",
            "/cluster-proportional-autoscaler",
            "/csi-node-driver-registrar",
        ],
    ),
    ("qpoint", &[]),
];

/// What probes may cost if nothing is said, in thousandths.
const PROBES: u32 = 50;

/// A share in percent as thousandths; `off` is 0.
fn parse_share(text: &str) -> Option<u32> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("off") {
        return Some(0);
    }
    let percent: f64 = text.strip_suffix('%').unwrap_or(text).trim_end().parse().ok()?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the range, to a tenth")]
    (0.1..=100.0).contains(&percent).then(|| (percent * 10.0).round() as u32)
}

pub(super) fn wanted_bits(tap: &written::Tap) -> u32 {
    use written::Direction::{All, Egress, EgressExternal, EgressInternal, Ingress};
    let egress = wanted::EGRESS_INTERNAL | wanted::EGRESS_EXTERNAL;
    let direction = match tap.direction {
        All => wanted::INGRESS | egress,
        Ingress => wanted::INGRESS,
        Egress => egress,
        EgressInternal => wanted::EGRESS_INTERNAL,
        EgressExternal => wanted::EGRESS_EXTERNAL,
    };
    let loopback = if tap.ignore_loopback { 0 } else { wanted::LOOPBACK };
    direction | loopback | if tap.audit_include_dns { wanted::DNS } else { 0 }
}

impl Checker<'_> {
    pub(super) fn budgets(&mut self, written: &written::Budgets) -> Budgets {
        let default = Budgets::default();
        let mut budget = |name: &str, text: Option<&str>, default: usize| {
            let Some(text) = text else { return default };
            parse_size(text).unwrap_or_else(|reason| {
                self.refuse(&format!("tap.budgets.{name}"), reason);
                default
            })
        };
        let budgets = Budgets {
            body: budget("body", written.body.as_deref(), default.body),
            connection: budget("connection", written.connection.as_deref(), default.connection),
            shard: budget("shard", written.shard.as_deref(), default.shard),
            agent: budget("agent", written.agent.as_deref(), default.agent),
        };
        if budgets.shard < 1 << 20 || budgets.agent < 1 << 20 {
            self.refuse("tap.budgets", "a shard and the agent need at least 1mb each");
        }
        budgets
    }

    /// What probes may cost, in thousandths of a process's processor time; 0: as much as they do.
    pub(super) fn probes(&mut self, written: Option<&str>) -> u32 {
        let Some(text) = written else { return PROBES };
        parse_share(text).unwrap_or_else(|| {
            let message = format!("found `{text}`; expected a share such as 5% or 0.5%, from 0.1% to 100%, or `off`");
            self.refuse("tap.budgets.probes", message);
            PROBES
        })
    }

    pub(super) fn filters(&mut self, filters: &written::Filters) -> Vec<ProcessFilter> {
        let mut checked = Vec::new();
        for (i, group) in filters.groups.iter().enumerate() {
            match GROUPS.iter().find(|(name, _)| name == group) {
                Some((_, executables)) => checked.extend(
                    executables
                        .iter()
                        .map(|exe| ProcessFilter { pattern: Pattern::Exact((*exe).to_owned()), bits: exclude::ALL }),
                ),
                None => {
                    let known: Vec<&str> = GROUPS.iter().map(|(name, _)| *name).collect();
                    let message =
                        format!("the group `{group}` is not known and ignored; there are {}", known.join(", "));
                    self.warn(&format!("tap.filters.groups[{i}]"), message);
                }
            }
        }
        for (i, filter) in filters.custom.iter().enumerate() {
            checked.extend(self.custom_filter(&format!("tap.filters.custom[{i}]"), filter));
        }
        checked
    }

    fn custom_filter(&mut self, path: &str, filter: &written::CustomFilter) -> Option<ProcessFilter> {
        if filter.exe.is_empty() {
            self.refuse(&format!("{path}.exe"), "found an empty text; expected a path or a pattern");
            return None;
        }
        let pattern = match filter.strategy {
            written::Strategy::Exact => Pattern::Exact(filter.exe.clone()),
            written::Strategy::Prefix => Pattern::Prefix(filter.exe.clone()),
            written::Strategy::Suffix => Pattern::Suffix(filter.exe.clone()),
            written::Strategy::Contains => Pattern::Contains(filter.exe.clone()),
            written::Strategy::Regex => match Regex::new(&filter.exe) {
                Ok(regex) => Pattern::Regex(regex),
                Err(error) => {
                    self.refuse(&format!("{path}.exe"), format!("not a regular expression: {error}"));
                    return None;
                }
            },
        };
        let bit = |only: &written::Only| match only {
            written::Only::Data => exclude::DATA,
            written::Only::Dns => exclude::DNS,
            written::Only::Tls => exclude::TLS,
            written::Only::Http => exclude::HTTP,
        };
        let bits = filter.only.iter().map(bit).fold(0, |all, bit| all | bit);
        Some(ProcessFilter { pattern, bits: if bits == 0 { exclude::ALL } else { bits } })
    }

    /// Keys, and the details of processes that are their values.
    pub(super) fn tags(&mut self, tags: &[written::Tag]) -> Vec<(String, String)> {
        let mut checked = Vec::new();
        for (i, tag) in tags.iter().enumerate() {
            let kind = match tag.source {
                TagSource::Env => "process.env",
                TagSource::PodLabel => "pod.labels",
                TagSource::PodAnnotation => "pod.annotations",
                TagSource::ContainerLabel => "container.labels",
            };
            if tag.key.is_empty() || tag.location.is_empty() {
                self.refuse(&format!("tags[{i}]"), "a tag needs a `key` and a `location`");
            }
            checked.push((tag.key.clone(), format!("{kind}.{}", tag.location)));
        }
        checked
    }
}
