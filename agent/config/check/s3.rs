//! Checks stores of type `s3`.

use std::{net::IpAddr, time::Duration};

use super::Checker;
use crate::config::{
    checked::{Encryption, Keys, S3, parse_span},
    effective,
    written::{self, ServerSideEncryption},
};

/// What signatures allow.
const PRESIGN_MAX: Duration = Duration::from_hours(7 * 24);
/// Keys of objects have 1024 bytes; the rest is for the digest.
const PREFIX_MAX: usize = 512;

impl Checker<'_> {
    pub(super) fn s3(&mut self, path: &str, store: &written::ObjectStore) -> Option<S3> {
        let keys = self.keys(path, store);
        let Some(bucket) = store.bucket.clone().filter(|bucket| !bucket.is_empty()) else {
            self.refuse(path, "an s3 store needs a `bucket`");
            return None;
        };
        let written = store.endpoint.as_deref().unwrap_or(effective::S3_ENDPOINT);
        let endpoint = self.filled(&format!("{path}.endpoint"), written);
        if endpoint.contains("://") {
            self.refuse(
                &format!("{path}.endpoint"),
                format!("found `{endpoint}`; expected host and port without a scheme (`insecure: true` means HTTP)"),
            );
        }
        if !store.path_style {
            self.check_host_style(&format!("{path}.path_style"), &bucket, &endpoint);
        }
        self.check_tls(path, store);
        let access_url = store.access_url.clone().unwrap_or_default();
        self.check_template(path, &access_url);
        // With keys in the file the region is there as well, or the default: as ever.
        let region = store.region.clone().or_else(|| keys.is_some().then(|| effective::S3_REGION.into()));
        Some(S3 {
            prefix: self.prefix(path, store),
            encryption: self.encryption(path, store),
            presign_expiry: self.presign_expiry(path, store),
            endpoint,
            bucket,
            region,
            access_url,
            insecure: store.insecure,
            ca_file: store.tls.ca_file.clone(),
            keys,
            profile: store.profile.clone(),
            path_style: store.path_style,
            storage_class: store.storage_class.clone(),
        })
    }

    /// The keys of the file; without both, they are looked for elsewhere.
    fn keys(&mut self, path: &str, store: &written::ObjectStore) -> Option<Keys> {
        let (access, secret) = match (&store.access_key, &store.secret_key) {
            (Some(access), Some(secret)) => (access, secret),
            (None, None) => {
                if store.session_token.is_some() {
                    self.refuse(path, "`session_token` goes with `access_key` and `secret_key`, which are missing");
                }
                return None;
            }
            _ => {
                self.refuse(path, "`access_key` and `secret_key` belong together: one of them is missing");
                return None;
            }
        };
        if store.profile.is_some() {
            self.warn(&format!("{path}.profile"), "does not act: the keys of the file are used");
        }
        let access = self.value(&format!("{path}.access_key"), access);
        let secret = self.value(&format!("{path}.secret_key"), secret);
        let token = store.session_token.as_ref().map(|token| self.value(&format!("{path}.session_token"), token));
        Some(Keys { access: access?, secret: secret?, token: token.flatten() })
    }

    /// A name of a host can be made of the bucket's only where names have parts, and certificates cover one of them.
    fn check_host_style(&mut self, path: &str, bucket: &str, endpoint: &str) {
        let host = endpoint
            .rsplit_once(':')
            .map_or(endpoint, |(host, port)| if port.bytes().all(|b| b.is_ascii_digit()) { host } else { endpoint });
        if host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
            self.refuse(path, format!("`false` needs a name: no bucket can stand before the address `{host}`"));
        }
        let is_label = (3..=63).contains(&bucket.len())
            && bucket.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !bucket.starts_with('-')
            && !bucket.ends_with('-');
        if !is_label {
            let message = "`false` needs a bucket of 3 to 63 lower case letters, digits and hyphens";
            self.refuse(path, format!("{message}; `{bucket}` cannot be a part of a host's name"));
        }
    }

    /// What the client of this store cannot do is refused, so that nobody relies on it.
    fn check_tls(&mut self, path: &str, store: &written::ObjectStore) {
        let tls = &store.tls;
        if tls.insecure_skip_verify {
            let message = "an s3 store always checks certificates; name the authority by `tls.ca_file`";
            self.refuse(&format!("{path}.tls.insecure_skip_verify"), message);
        }
        if tls.cert_file.is_some() || tls.key_file.is_some() {
            self.refuse(&format!("{path}.tls"), "an s3 store shows no certificate of its own: its keys say who it is");
        }
        if store.insecure && tls.ca_file.is_some() {
            self.warn(&format!("{path}.tls.ca_file"), "does not act: `insecure: true` means HTTP");
        }
    }

    /// Only what stands in urls as it is: the key in events must be the one in the bucket.
    fn prefix(&mut self, path: &str, store: &written::ObjectStore) -> String {
        let prefix = store.prefix.clone().unwrap_or_default();
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"/-_.=".contains(&b);
        let has_dots = prefix.split('/').any(|part| part == "." || part == "..");
        let bad = prefix.starts_with('/') || prefix.contains("//") || has_dots || prefix.len() > PREFIX_MAX;
        if bad || !prefix.bytes().all(fits) {
            let message = "expected letters, digits and `-_.=`, in parts between single slashes, none at the beginning";
            self.refuse(&format!("{path}.prefix"), format!("found `{prefix}`; {message}"));
        }
        prefix
    }

    fn encryption(&mut self, path: &str, store: &written::ObjectStore) -> Option<Encryption> {
        if store.kms_key_id.is_some() && store.server_side_encryption != Some(ServerSideEncryption::Kms) {
            self.refuse(&format!("{path}.kms_key_id"), "goes with `server_side_encryption: aws:kms`");
        }
        Some(match store.server_side_encryption? {
            ServerSideEncryption::Aes256 => Encryption::Aes256,
            ServerSideEncryption::Kms => Encryption::Kms(store.kms_key_id.clone()),
        })
    }

    fn presign_expiry(&mut self, path: &str, store: &written::ObjectStore) -> Duration {
        let text = store.presign_expiry.as_deref().unwrap_or(effective::PRESIGN_EXPIRY);
        match parse_span(text) {
            Ok(span) if (Duration::from_secs(1)..=PRESIGN_MAX).contains(&span) => return span,
            Ok(_) => self.refuse(&format!("{path}.presign_expiry"), format!("found `{text}`; expected 1s to 7d")),
            Err(message) => self.refuse(&format!("{path}.presign_expiry"), message),
        }
        PRESIGN_MAX
    }
}
