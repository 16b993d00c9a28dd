//! Files in a bucket: larger than objects, read from disk while they are sent, and there as a whole or not at all.

use std::{path::Path, time::Duration};

use aws_sdk_s3::{config::timeout::TimeoutConfig, error::DisplayErrorContext, primitives::ByteStream};

use super::{SinkError, s3::S3Store};

/// A file of gigabytes takes its time; one that hangs does not hold up the others for ever.
const TIMEOUT: Duration = Duration::from_secs(600);

impl S3Store {
    /// Stores a file under a key.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or the service refuses it or cannot be reached.
    pub async fn put_file(&self, key: &str, content_type: &str, file: &Path) -> Result<(), SinkError> {
        let body = ByteStream::from_path(file)
            .await
            .map_err(|error| SinkError::Refused { store: "s3", reason: format!("{}: {error}", file.display()) })?;
        let timeouts = TimeoutConfig::builder().operation_attempt_timeout(TIMEOUT).build();
        let put = self.client.put_object().bucket(&self.config.bucket).key(key).content_type(content_type).body(body);
        put.customize()
            .config_override(aws_sdk_s3::config::Builder::new().timeout_config(timeouts))
            .send()
            .await
            .map_err(|error| SinkError::unavailable("s3", DisplayErrorContext(error).to_string()))?;
        Ok(())
    }
}
