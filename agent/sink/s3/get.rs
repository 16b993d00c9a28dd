//! An object out of the bucket.

use std::time::Duration;

use super::{NAME, S3Store, SinkError, failure::Failure};

/// How long the bytes may take that follow an answer.
const TIMEOUT: Duration = Duration::from_mins(5);

impl S3Store {
    /// The object of a digest; `None`: the bucket has none. Whether its bytes have that digest is not looked at.
    ///
    /// # Errors
    ///
    /// The service cannot be reached or does not give it, or it is larger than `max` bytes.
    pub async fn get(&self, digest: &str, max: u64) -> Result<Option<Vec<u8>>, SinkError> {
        let connection = self.connection().await?;
        let key = self.key(digest);
        let got = connection.client.get_object().bucket(&self.config.bucket).key(&key).send().await;
        let object = match got {
            Ok(object) => object,
            Err(error) => {
                let failure = Failure::of(&error, &self.config);
                if failure.is_no_such_object() {
                    return Ok(None);
                }
                return Err(failure.of_reading(&self.config.bucket));
            }
        };
        let refused = |reason| SinkError::Refused { store: NAME, reason };
        if object.content_length().is_some_and(|len| u64::try_from(len).is_ok_and(|len| len > max)) {
            return Err(refused(format!("{key} is larger than any object")));
        }
        match tokio::time::timeout(TIMEOUT, object.body.collect()).await {
            Ok(Ok(bytes)) => Ok(Some(bytes.to_vec())),
            Ok(Err(error)) => Err(SinkError::unavailable(NAME, format!("{key} broke off: {error}"))),
            Err(_) => Err(SinkError::unavailable(NAME, format!("{key} did not come in time"))),
        }
    }
}
