//! S3-compatible services.

use aws_credential_types::Credentials;
use aws_sdk_s3::{
    Client,
    config::{BehaviorVersion, Region, RequestChecksumCalculation, retry::RetryConfig, timeout::TimeoutConfig},
    error::DisplayErrorContext,
    primitives::ByteStream,
};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};
use bytes::Bytes;

use super::{SinkError, template::access_url};
use crate::config::checked::S3;

const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// A bucket.
pub struct S3Store {
    pub(super) client: Client,
    pub(super) config: S3,
}

impl S3Store {
    /// Sets up the client; nothing is sent yet.
    #[must_use]
    pub fn new(config: S3) -> Self {
        let scheme = scheme(&config);
        let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
        let settings = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(config.region.clone()))
            .endpoint_url(format!("{scheme}://{}", config.endpoint))
            .credentials_provider(Credentials::new(&config.keys.0, &config.keys.1, None, None, "configuration"))
            .http_client(http)
            // Paths work with every server; names of buckets in host names need DNS that few private ones have.
            .force_path_style(true)
            // Digests of the SDK's own choice are refused by older servers; the key is a digest already.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .timeout_config(
                TimeoutConfig::builder().operation_attempt_timeout(TIMEOUT).connect_timeout(TIMEOUT).build(),
            )
            .retry_config(RetryConfig::standard().with_max_attempts(1))
            .build();
        Self { client: Client::from_conf(settings), config }
    }

    /// Stores an object under its digest; the answer is its url.
    ///
    /// # Errors
    ///
    /// The service refuses, or cannot be reached.
    pub async fn put(&self, digest: &str, content_type: &str, data: Bytes) -> Result<String, SinkError> {
        let put = self.client.put_object().bucket(&self.config.bucket).key(digest).content_type(content_type);
        put.body(ByteStream::from(data))
            .send()
            .await
            .map_err(|error| SinkError::unavailable("s3", DisplayErrorContext(error).to_string()))?;
        Ok(self.url(digest))
    }

    fn url(&self, digest: &str) -> String {
        let (config, scheme) = (&self.config, scheme(&self.config));
        let template = if config.access_url.is_empty() {
            "{{SCHEME}}://{{ENDPOINT}}/{{BUCKET}}/{{DIGEST}}"
        } else {
            &config.access_url
        };
        access_url(template, digest, &config.bucket, &config.endpoint, scheme)
    }
}

fn scheme(config: &S3) -> &'static str {
    if config.insecure { "http" } else { "https" }
}
