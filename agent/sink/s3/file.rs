//! Files in a bucket: larger than objects, read from disk while they are sent, and there as a whole or not at all.

use std::{path::Path, time::Duration};

use aws_sdk_s3::{config::timeout::TimeoutConfig, primitives::ByteStream, types::StorageClass};

use super::{S3Store, SinkError, failure::Failure, upload::encryption};

/// A file of gigabytes takes its time; one that hangs does not hold up the others for ever.
const TIMEOUT: Duration = Duration::from_mins(10);

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
        let connection = self.connection().await?;
        let timeouts = TimeoutConfig::builder().operation_attempt_timeout(TIMEOUT).build();
        let (encryption, kms_key) = encryption(&self.config);
        let put = connection
            .client
            .put_object()
            .bucket(&self.config.bucket)
            .key(key)
            .content_type(content_type)
            .set_storage_class(self.config.storage_class.as_deref().map(StorageClass::from))
            .set_server_side_encryption(encryption)
            .set_ssekms_key_id(kms_key)
            .body(body);
        let sent = put.customize().config_override(aws_sdk_s3::Config::builder().timeout_config(timeouts)).send().await;
        match sent {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed(&connection, Failure::of(&error, &self.config)).await),
        }
    }
}
