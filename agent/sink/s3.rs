//! S3-compatible services.
//!
//! One request an object, or one a part where it is large; none where the store was told to have it lately. Nothing is
//! tried again here: whoever delivers does that, and decides how many objects are on their way at once.

mod connection;
mod failure;
mod file;
mod get;
mod seen;
mod upload;

use std::{sync::Arc, time::Duration};

use aws_sdk_s3::{config::SharedHttpClient, presigning::PresigningConfig};
use bytes::Bytes;
use ringtap_batch::ledger::Ledger;
use tokio::sync::RwLock;

use self::{connection::Connection, failure::Failure, seen::Seen, upload::Conditions};
use super::{SinkError, template::access_url};
use crate::config::checked::S3;

/// The store's name in errors.
const NAME: &str = "s3";
/// How long keys that were refused are kept before others are looked for.
const KEYS_KEPT: Duration = Duration::from_secs(30);

/// A bucket.
pub struct S3Store {
    config: S3,
    http: SharedHttpClient,
    authorities: Option<Vec<u8>>,
    /// Made when it is first needed: to look for keys and a region takes requests of its own.
    connection: RwLock<Option<Arc<Connection>>>,
    seen: Seen,
    conditions: Conditions,
    ledger: Arc<Ledger>,
}

impl S3Store {
    /// Sets up the store; nothing is sent yet. Objects that it has already are counted in the ledger.
    ///
    /// # Errors
    ///
    /// The file of authorities cannot be read.
    pub fn new(config: S3, ledger: Arc<Ledger>) -> Result<Self, SinkError> {
        let authorities = connection::authorities(&config)?;
        let http = connection::bucket_http(authorities.as_deref())?;
        let connection = RwLock::default();
        let (seen, conditions) = (Seen::new(), Conditions::default());
        Ok(Self { config, http, authorities, connection, seen, conditions, ledger })
    }

    /// Stores an object under its digest; the answer is its url. One attempt.
    ///
    /// # Errors
    ///
    /// [`SinkError::Refused`]: the service does not take these bytes. [`SinkError::Unavailable`]: it cannot be reached,
    /// has too much to do, or needs somebody who mends keys, bucket or clock.
    pub async fn put(&self, digest: &str, content_type: &str, data: Bytes) -> Result<String, SinkError> {
        let connection = self.connection().await?;
        if self.seen.has(digest) {
            self.ledger.objects_unchanged.add(1);
            return self.url(&connection, digest).await;
        }
        let object = upload::Object { key: self.key(digest), content_type, data };
        match upload::put(&connection.client, &self.config, &self.conditions, &object).await {
            Ok(is_new) => {
                self.ledger.objects_unchanged.add(u64::from(!is_new));
                self.seen.add(digest);
                self.url(&connection, digest).await
            }
            Err(failure) => Err(self.failed(&connection, failure).await),
        }
    }

    async fn connection(&self) -> Result<Arc<Connection>, SinkError> {
        if let Some(connection) = &*self.connection.read().await {
            return Ok(connection.clone());
        }
        let mut place = self.connection.write().await;
        if let Some(connection) = &*place {
            return Ok(connection.clone());
        }
        let made = connection::connect(&self.config, self.http.clone(), self.authorities.as_deref()).await?;
        Ok(place.insert(Arc::new(made)).clone())
    }

    /// Keys that were found somewhere, and do not do, are looked for again: files and roles change.
    async fn failed(&self, used: &Arc<Connection>, failure: Failure) -> SinkError {
        if self.config.keys.is_none() && failure.is_about_keys() && used.since.elapsed() > KEYS_KEPT {
            let mut place = self.connection.write().await;
            if place.as_ref().is_some_and(|now| Arc::ptr_eq(now, used)) {
                *place = None;
            }
        }
        failure.error
    }

    fn key(&self, digest: &str) -> String {
        format!("{}{digest}", self.config.prefix)
    }

    async fn url(&self, connection: &Connection, digest: &str) -> Result<String, SinkError> {
        let S3 { bucket, access_url: template, .. } = &self.config;
        let template = match (template.as_str(), self.config.path_style) {
            ("", true) => "{{SCHEME}}://{{ENDPOINT}}/{{BUCKET}}/{{KEY}}",
            ("", false) => "{{SCHEME}}://{{BUCKET}}.{{ENDPOINT}}/{{KEY}}",
            (template, _) => template,
        };
        let key = self.key(digest);
        let mut url = template.replace("{{KEY}}", &key);
        if url.contains("{{PRESIGNED}}") {
            url = url.replace("{{PRESIGNED}}", &self.presigned(connection, &key).await?);
        }
        Ok(access_url(&url, digest, bucket, &connection.host, scheme(&self.config)))
    }

    /// A url by which whoever has it may read the object, until it expires; with temporary keys, until they do. It is
    /// made here: nothing is sent.
    async fn presigned(&self, connection: &Connection, key: &str) -> Result<String, SinkError> {
        let expiry = PresigningConfig::expires_in(self.config.presign_expiry)
            .map_err(|error| SinkError::SetUp { store: NAME, reason: error.to_string() })?;
        let get = connection.client.get_object().bucket(&self.config.bucket).key(key);
        let request = get.presigned(expiry).await.map_err(|error| Failure::of(&error, &self.config).error)?;
        Ok(request.uri().to_owned())
    }
}

fn scheme(config: &S3) -> &'static str {
    if config.insecure { "http" } else { "https" }
}
