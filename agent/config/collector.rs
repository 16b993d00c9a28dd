//! The keys of a collector, which event stores and object stores have alike, and what the environment says where the file
//! leaves them open: the variables that OpenTelemetry's exporters have in common. `OTEL_EXPORTER_OTLP_LOGS_…` wins over
//! `OTEL_EXPORTER_OTLP_…`, and the file over both.

use std::{collections::BTreeMap, path::PathBuf};

use super::{
    effective,
    written::{self, Compression, Protocol, Tls, ValueSource, ValueSourceKind},
};

const LOGS: &str = "OTEL_EXPORTER_OTLP_LOGS_";
const ALL: &str = "OTEL_EXPORTER_OTLP_";

/// How long a collector's answer may take.
const TIMEOUT: &str = "10s";

/// The keys of a collector, in an event store or an object store.
pub(super) struct Collector<'a> {
    /// Name of the key of `endpoint`.
    pub(super) endpoint_key: &'static str,
    pub(super) endpoint: &'a mut Option<String>,
    pub(super) protocol: &'a mut Option<Protocol>,
    pub(super) headers: &'a mut BTreeMap<String, ValueSource>,
    pub(super) compression: &'a mut Option<Compression>,
    pub(super) timeout: &'a mut Option<String>,
    pub(super) service_name: &'a mut Option<String>,
    pub(super) environment: &'a mut Option<String>,
    pub(super) tls: &'a mut Tls,
}

/// What the environment said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Filled {
    /// Keys, and the variables that they come from.
    pub(super) from: Vec<(&'static str, String)>,
    /// Keys, and what is wrong with the variable.
    pub(super) faults: Vec<(&'static str, String)>,
}

impl written::EventStore {
    pub(super) fn collector(&mut self) -> Collector<'_> {
        Collector {
            endpoint_key: "endpoint",
            endpoint: &mut self.endpoint,
            protocol: &mut self.protocol,
            headers: &mut self.headers,
            compression: &mut self.compression,
            timeout: &mut self.timeout,
            service_name: &mut self.service_name,
            environment: &mut self.environment,
            tls: &mut self.tls,
        }
    }
}

impl written::ObjectStore {
    pub(super) fn collector(&mut self) -> Collector<'_> {
        Collector {
            endpoint_key: "otel_endpoint",
            endpoint: &mut self.otel_endpoint,
            protocol: &mut self.protocol,
            headers: &mut self.headers,
            compression: &mut self.compression,
            timeout: &mut self.timeout,
            service_name: &mut self.service_name,
            environment: &mut self.environment,
            tls: &mut self.tls,
        }
    }
}

/// A variable of this process.
pub(super) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl Collector<'_> {
    /// Fills in what the file leaves open: from the variables that `lookup` knows, and then the defaults.
    pub(super) fn fill(&mut self, lookup: &dyn Fn(&str) -> Option<String>) -> Filled {
        let mut filled = Filled::default();
        if self.protocol.is_none() {
            self.fill_protocol(lookup, &mut filled);
        }
        let protocol = *self.protocol.get_or_insert_default();
        if protocol != Protocol::Stdout {
            self.fill_endpoint(protocol, lookup, &mut filled);
            self.fill_headers(lookup, &mut filled);
            self.fill_rest(protocol, lookup, &mut filled);
        }
        self.endpoint.get_or_insert_with(|| effective::endpoint(protocol).to_owned());
        self.service_name.get_or_insert_with(|| effective::SERVICE_NAME.to_owned());
        self.environment.get_or_insert_with(|| effective::ENVIRONMENT.to_owned());
        self.compression.get_or_insert_default();
        self.timeout.get_or_insert_with(|| TIMEOUT.to_owned());
        self.tls.enabled.get_or_insert_default();
        filled
    }

    fn fill_protocol(&mut self, lookup: &dyn Fn(&str) -> Option<String>, filled: &mut Filled) {
        let Some((name, value)) = variable("PROTOCOL", lookup) else { return };
        match value.as_str() {
            "grpc" => *self.protocol = Some(Protocol::Grpc),
            "http/protobuf" => *self.protocol = Some(Protocol::Http),
            _ => return filled.fault("protocol", &name, &value, "`grpc` or `http/protobuf`"),
        }
        filled.from.push(("protocol", name));
    }

    fn fill_endpoint(&mut self, protocol: Protocol, lookup: &dyn Fn(&str) -> Option<String>, filled: &mut Filled) {
        if self.endpoint.is_some() {
            return;
        }
        let Some((name, value)) = variable("ENDPOINT", lookup) else { return };
        let is_base = protocol == Protocol::Http && value.contains("://") && !name.starts_with(LOGS);
        *self.endpoint = Some(if is_base { format!("{}/v1/logs", value.trim_end_matches('/')) } else { value });
        filled.from.push((self.endpoint_key, name));
    }

    /// Fields of the file are not mixed with those of the environment, which may be meant for another collector.
    fn fill_headers(&mut self, lookup: &dyn Fn(&str) -> Option<String>, filled: &mut Filled) {
        if !self.headers.is_empty() {
            return;
        }
        let Some((name, value)) = variable("HEADERS", lookup) else { return };
        for pair in value.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let decoded = pair.split_once('=').and_then(|(key, value)| {
                Some((percent_decoded(key.trim())?, percent_decoded(value.trim())?)).filter(|(key, _)| !key.is_empty())
            });
            // The text may hold a secret: it is not repeated.
            let Some((key, value)) = decoded else {
                let message = format!("the environment variable `{name}` is not of the form `name=value,name=value`");
                filled.faults.push(("headers", message));
                return;
            };
            self.headers.insert(key, ValueSource { kind: ValueSourceKind::Text, value });
        }
        filled.from.push(("headers", name));
    }

    fn fill_rest(&mut self, protocol: Protocol, lookup: &dyn Fn(&str) -> Option<String>, filled: &mut Filled) {
        if let (None, Some((name, value))) = (&self.compression, variable("COMPRESSION", lookup)) {
            match value.as_str() {
                "none" => *self.compression = Some(Compression::None),
                "gzip" => *self.compression = Some(Compression::Gzip),
                "zstd" => *self.compression = Some(Compression::Zstd),
                _ => filled.fault("compression", &name, &value, "`none`, `gzip` or `zstd`"),
            }
            filled.from.push(("compression", name));
        }
        if let (None, Some((name, value))) = (&self.timeout, variable("TIMEOUT", lookup)) {
            match value.parse::<u32>() {
                Ok(ms) => *self.timeout = Some(format!("{ms}ms")),
                Err(_) => filled.fault("timeout", &name, &value, "milliseconds"),
            }
            filled.from.push(("timeout", name));
        }
        // Of HTTP the URL says it.
        let insecure = if protocol == Protocol::Grpc { variable("INSECURE", lookup) } else { None };
        if let (None, Some((name, value))) = (self.tls.enabled, insecure) {
            match value.to_ascii_lowercase().as_str() {
                "true" => self.tls.enabled = Some(false),
                "false" => self.tls.enabled = Some(true),
                _ => filled.fault("tls.enabled", &name, &value, "`true` or `false`"),
            }
            filled.from.push(("tls.enabled", name));
        }
        if let (None, Some((name, value))) = (&self.tls.ca_file, variable("CERTIFICATE", lookup)) {
            self.tls.ca_file = Some(PathBuf::from(value));
            filled.from.push(("tls.ca_file", name));
        }
        if self.tls.cert_file.is_none() && self.tls.key_file.is_none() {
            for (key, what, file) in [
                ("tls.cert_file", "CLIENT_CERTIFICATE", &mut self.tls.cert_file),
                ("tls.key_file", "CLIENT_KEY", &mut self.tls.key_file),
            ] {
                if let Some((name, value)) = variable(what, lookup) {
                    *file = Some(PathBuf::from(value));
                    filled.from.push((key, name));
                }
            }
        }
    }
}

impl Filled {
    fn fault(&mut self, key: &'static str, name: &str, found: &str, expected: &str) {
        self.faults.push((key, format!("the environment variable `{name}` is `{found}`; expected {expected}")));
    }
}

/// Name and value of the variable that says something of logs. An empty one says nothing.
fn variable(what: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Option<(String, String)> {
    [LOGS, ALL].into_iter().find_map(|prefix| {
        let name = format!("{prefix}{what}");
        let value = lookup(&name)?.trim().to_owned();
        (!value.is_empty()).then_some((name, value))
    })
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use opentelemetry_otlp as otlp;

    use super::*;

    fn store(text: &str) -> written::EventStore {
        serde_yaml::from_str(&format!("{{type: otel, {text}}}")).expect("a store")
    }

    fn fill(text: &str, variables: &[(&str, &str)]) -> (written::EventStore, Filled) {
        let variables: HashMap<&str, &str> = variables.iter().copied().collect();
        let mut store = store(text);
        let filled = store.collector().fill(&|name| variables.get(name).map(|value| (*value).to_owned()));
        (store, filled)
    }

    #[test]
    fn names_are_those_of_the_sdk() {
        for (prefix, what, theirs) in [
            (ALL, "ENDPOINT", otlp::OTEL_EXPORTER_OTLP_ENDPOINT),
            (ALL, "HEADERS", otlp::OTEL_EXPORTER_OTLP_HEADERS),
            (ALL, "PROTOCOL", otlp::OTEL_EXPORTER_OTLP_PROTOCOL),
            (ALL, "COMPRESSION", otlp::OTEL_EXPORTER_OTLP_COMPRESSION),
            (ALL, "TIMEOUT", otlp::OTEL_EXPORTER_OTLP_TIMEOUT),
            (ALL, "INSECURE", otlp::OTEL_EXPORTER_OTLP_INSECURE),
            (LOGS, "ENDPOINT", otlp::OTEL_EXPORTER_OTLP_LOGS_ENDPOINT),
            (LOGS, "HEADERS", otlp::OTEL_EXPORTER_OTLP_LOGS_HEADERS),
            (LOGS, "PROTOCOL", otlp::OTEL_EXPORTER_OTLP_LOGS_PROTOCOL),
            (LOGS, "COMPRESSION", otlp::OTEL_EXPORTER_OTLP_LOGS_COMPRESSION),
            (LOGS, "TIMEOUT", otlp::OTEL_EXPORTER_OTLP_LOGS_TIMEOUT),
            (LOGS, "INSECURE", otlp::OTEL_EXPORTER_OTLP_LOGS_INSECURE),
        ] {
            assert_eq!(format!("{prefix}{what}"), theirs);
        }
    }

    #[test]
    fn the_more_special_variable_wins_and_the_file_over_both() {
        let both = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318/"),
            ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "https://logs/take"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=1, b = x%2Cy%20z "),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ];
        let (one, filled) = fill("", &both);
        assert_eq!(filled.faults, []);
        assert_eq!(one.endpoint.as_deref(), Some("https://logs/take"));
        assert_eq!((one.protocol, one.compression), (Some(Protocol::Http), Some(Compression::Gzip)));
        assert_eq!(one.timeout.as_deref(), Some("2500ms"));
        assert_eq!(one.headers["b"].value, "x,y z");
        assert!(filled.from.contains(&("endpoint", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT".into())), "{filled:?}");
        let (one, _) = fill("", &both[..1]);
        assert_eq!(one.endpoint.as_deref(), Some("http://all:4318/"), "gRPC takes it as it is");
        let (one, _) = fill("protocol: http", &both[..1]);
        assert_eq!(one.endpoint.as_deref(), Some("http://all:4318/v1/logs"));
        let text =
            "endpoint: mine:1, protocol: grpc, headers: {c: {type: text, value: d}}, timeout: 1s, compression: none";
        let (one, filled) = fill(text, &both);
        assert_eq!(filled, Filled::default());
        assert_eq!((one.endpoint.as_deref(), one.headers.len()), (Some("mine:1"), 1));
        let (one, filled) = fill("protocol: stdout", &both);
        assert_eq!((one.endpoint.as_deref(), filled), (Some("localhost:4317"), Filled::default()));
    }

    #[test]
    fn tls_of_the_environment() {
        let variables = [
            ("OTEL_EXPORTER_OTLP_INSECURE", "false"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/all.pem"),
            ("OTEL_EXPORTER_OTLP_LOGS_CLIENT_CERTIFICATE", "/logs.pem"),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key.pem"),
        ];
        let (one, _) = fill("", &variables);
        assert_eq!(one.tls.enabled, Some(true));
        assert_eq!((one.tls.ca_file, one.tls.cert_file), (Some("/ca.pem".into()), Some("/logs.pem".into())));
        // A certificate of the file goes with its own key.
        let (one, _) = fill("tls: {enabled: false, cert_file: /mine.pem}", &variables);
        assert_eq!((one.tls.enabled, one.tls.key_file), (Some(false), None));
    }

    #[test]
    fn what_cannot_be_read_is_told_without_secrets() {
        for (name, value, says) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "`grpc` or `http/protobuf`"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "lz4", "`zstd`"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "milliseconds"),
            ("OTEL_EXPORTER_OTLP_INSECURE", "perhaps", "`true` or `false`"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "topsecret", "name=value"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=topsecret%2", "name=value"),
        ] {
            let (_, filled) = fill("", &[(name, value)]);
            let [(_, message)] = &filled.faults[..] else { panic!("{filled:?}") };
            assert!(message.contains(name) && message.contains(says) && !message.contains("topsecret"), "{message}");
        }
    }
}
