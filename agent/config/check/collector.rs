//! Checks the keys of a collector.

use std::time::Duration;

use jiff::SignedDuration;
use tonic::codegen::http::{HeaderName, HeaderValue};

use super::Checker;
use crate::{
    config::{
        checked::{Otel, Tls},
        collector::{Collector, environment},
        written,
    },
    sink::tls::{self, TlsError},
};

/// No answer is waited for longer.
const TIMEOUT_MAX: Duration = Duration::from_hours(1);

impl Checker<'_> {
    pub(super) fn otel(&mut self, path: &str, mut collector: Collector<'_>) -> Otel {
        let filled = collector.fill(&environment);
        for (key, message) in filled.faults {
            self.refuse(&format!("{path}.{key}"), message);
        }
        let endpoint_path = format!("{path}.{}", collector.endpoint_key);
        let endpoint = self.filled(&endpoint_path, collector.endpoint.as_deref().unwrap_or_default());
        self.check_address(&endpoint_path, &endpoint);
        let path_of = |url: &str| Some(url.split_once("://")?.1.split_once('/')?.1.is_empty());
        if *collector.protocol == Some(written::Protocol::Http)
            && endpoint.contains("://")
            && path_of(&endpoint).unwrap_or(true)
        {
            let message = "requests go to `/`, as it is written; collectors take logs at `/v1/logs`";
            self.warn(&endpoint_path, message);
        }
        let mut headers = Vec::new();
        for (name, source) in &*collector.headers {
            let path = format!("{path}.headers.{name}");
            let Some(value) = self.value(&path, source) else { continue };
            if HeaderName::try_from(name).is_err() || HeaderValue::try_from(&value).is_err() {
                self.refuse(&path, "name or value cannot stand in a header field: a character is not allowed there");
            }
            headers.push((name.clone(), value));
        }
        Otel {
            headers,
            protocol: collector.protocol.unwrap_or_default(),
            service_name: collector.service_name.clone().unwrap_or_default(),
            environment: collector.environment.clone().unwrap_or_default(),
            tls: self.tls(&format!("{path}.tls"), &endpoint, collector.tls),
            compression: collector.compression.unwrap_or_default(),
            timeout: self.timeout(&format!("{path}.timeout"), collector.timeout.as_deref().unwrap_or_default()),
            endpoint,
            flat_attributes: false,
        }
    }

    fn timeout(&mut self, path: &str, text: &str) -> Duration {
        let parsed = text.parse::<SignedDuration>().ok().and_then(|duration| Duration::try_from(duration).ok());
        parsed.filter(|duration| !duration.is_zero() && *duration <= TIMEOUT_MAX).unwrap_or_else(|| {
            self.refuse(path, format!("found `{text}`; expected a duration such as 500ms or 10s, up to 1h"));
            TIMEOUT_MAX
        })
    }

    /// What is done of TLS; `None`: nothing.
    fn tls(&mut self, path: &str, endpoint: &str, tls: &written::Tls) -> Option<Tls> {
        let enabled = tls.enabled.unwrap_or_default();
        let secure = match endpoint.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase()) {
            None => enabled,
            Some(scheme) if scheme == "https" => true,
            Some(scheme) if scheme == "http" => {
                if enabled {
                    let message = "the endpoint begins with http://, which is without TLS; remove one of the two";
                    self.refuse(&format!("{path}.enabled"), message);
                }
                false
            }
            Some(scheme) => {
                self.refuse(path, format!("the endpoint begins with `{scheme}://`; expected http:// or https://"));
                false
            }
        };
        let identity = match (&tls.cert_file, &tls.key_file) {
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            (None, None) => None,
            _ => {
                self.refuse(path, "`cert_file` and `key_file` belong together: one of them is missing");
                None
            }
        };
        let checked = Tls { ca_file: tls.ca_file.clone(), identity, insecure_skip_verify: tls.insecure_skip_verify };
        if !secure {
            if checked != Tls::default() {
                self.warn(path, "TLS is not used, so these keys say nothing; set `enabled: true`");
            }
            return None;
        }
        if checked.insecure_skip_verify {
            let message = "certificates go unchecked: whoever answers at the address gets the data";
            self.warn(&format!("{path}.insecure_skip_verify"), message);
        }
        match tls::check(&checked) {
            Ok(()) => {}
            Err(error @ TlsError::File { key, .. }) => self.refuse(&format!("{path}.{key}"), error.to_string()),
            Err(error) => self.refuse(path, error.to_string()),
        }
        Some(checked)
    }
}
