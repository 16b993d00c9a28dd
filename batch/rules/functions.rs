//! The functions that expressions can call, besides macros.

use std::{borrow::Cow, net::IpAddr};

use crate::value::Value;

/// A function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    /// `starts_with(value, prefix)`: both printed.
    StartsWith,
    /// `zone(domain)`: the registrable domain by the public suffix list; a name without one is its own zone.
    Zone,
    /// `in_zone(domain, zone)`: the domain is the zone, or lies under it.
    InZone,
}

/// Every function, as its calls are written.
pub(crate) const FUNCTIONS: [(&str, Function, &str); 3] = [
    ("starts_with", Function::StartsWith, "starts_with(value, prefix)"),
    ("zone", Function::Zone, "zone(domain)"),
    ("in_zone", Function::InZone, "in_zone(domain, zone)"),
];

impl Function {
    pub(crate) fn named(name: &str) -> Option<(Self, &'static str)> {
        FUNCTIONS.iter().find(|(known, ..)| *known == name).map(|(_, function, call)| (*function, *call))
    }

    pub(crate) fn arguments(self) -> usize {
        match self {
            Self::Zone => 1,
            Self::StartsWith | Self::InZone => 2,
        }
    }

    /// What a call comes to. There are as many arguments as [`Function::arguments`] says.
    pub(crate) fn call(self, arguments: &[Cow<'_, Value<'_>>]) -> Value<'static> {
        let text = |at: usize| arguments[at].print();
        match self {
            Self::StartsWith => Value::Bool(text(0).starts_with(&text(1))),
            Self::Zone => Value::Text(Cow::Owned(zone(&text(0)))),
            Self::InZone => Value::Bool(in_zone(&text(0), &text(1))),
        }
    }
}

/// Lower case, without a port and the root's dot.
fn normal(domain: &str) -> String {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let domain = match domain.split_once(':') {
        Some((domain, port)) if is_port(port) => domain,
        _ => domain,
    };
    domain.strip_suffix('.').unwrap_or(domain).to_ascii_lowercase()
}

fn zone(domain: &str) -> String {
    let domain = normal(domain);
    if domain.parse::<IpAddr>().is_ok() {
        return domain;
    }
    psl::domain_str(&domain).map(str::to_owned).unwrap_or(domain)
}

fn in_zone(domain: &str, zone: &str) -> bool {
    let (domain, zone) = (normal(domain), normal(zone));
    let under = |outer: &str| outer.is_empty() || outer.ends_with('.');
    !zone.is_empty() && domain.strip_suffix(zone.as_str()).is_some_and(under)
}
