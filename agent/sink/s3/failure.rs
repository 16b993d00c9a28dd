//! Why a request failed, in words that say what to mend; and whether the same bytes can ever succeed.

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};

use super::NAME;
use crate::{
    config::checked::S3,
    sink::{SinkError, explain, retry_after},
};

/// A request that failed.
#[derive(Debug)]
pub(super) struct Failure {
    /// Of the answer; 0: there was none.
    status: u16,
    /// The service's own name of the error; empty: it told none.
    code: String,
    /// Whether it was the begin of an upload in parts.
    begins_parts: bool,
    /// For whoever retries.
    pub error: SinkError,
}

impl Failure {
    pub(super) fn of<E>(error: &SdkError<E, HttpResponse>, config: &S3) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let unavailable = |reason| SinkError::unavailable(NAME, reason);
        let none = |error| Self { status: 0, code: String::new(), begins_parts: false, error };
        if let Some(credentials) = credentials_error(error) {
            return none(unavailable(no_credentials(credentials, config)));
        }
        let endpoint = &config.endpoint;
        match error {
            SdkError::ServiceError(_) | SdkError::ResponseError(_) => Self::answered(error, config),
            SdkError::TimeoutError(_) => none(unavailable(format!("{endpoint} did not answer in time"))),
            SdkError::DispatchFailure(_) => {
                none(unavailable(format!("cannot reach {endpoint}: {}", one_line(&explain(error)))))
            }
            // What the client itself does not send: a name that cannot be one, a header that is not text.
            _ => none(unavailable(format!("cannot make a request: {}", one_line(&explain(error))))),
        }
    }

    fn answered<E>(error: &SdkError<E, HttpResponse>, config: &S3) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let endpoint = &config.endpoint;
        let known = error.as_service_error();
        let code = known.and_then(ProvideErrorMetadata::code).unwrap_or_default().to_owned();
        let message = known.and_then(ProvideErrorMetadata::message).unwrap_or_default();
        let header = |name| error.raw_response().and_then(|raw| raw.headers().get(name));
        let status = error.raw_response().map_or(0, |raw| raw.status().as_u16());
        let mut reason = words(status, &code, config, header).unwrap_or_default();
        let told = [code.as_str(), message].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
        let told = if (200..300).contains(&status) {
            format!("status {status}, {}", one_line(&explain(error)))
        } else if told.is_empty() {
            format!("status {status}")
        } else {
            format!("status {status}, {told}")
        };
        reason = if reason.is_empty() { told } else { format!("{reason} ({told})") };
        let after = header("retry-after").and_then(retry_after::parse);
        let asks_for_more = config.storage_class.is_some() || config.encryption.is_some();
        let may_be_that = asks_for_more && ["InvalidArgument", "InvalidRequest"].contains(&code.as_str());
        if may_be_that {
            reason =
                format!("perhaps {endpoint} cannot do what storage_class or server_side_encryption ask for: {reason}");
        }
        let error = match is_about_the_bytes(status, &code) && !may_be_that {
            true => SinkError::Refused { store: NAME, reason },
            false => SinkError::Unavailable { store: NAME, reason, after },
        };
        Self { status, code, begins_parts: false, error }
    }

    /// It was the begin of an upload in parts.
    pub(super) fn in_parts(self) -> Self {
        Self { begins_parts: true, ..self }
    }

    /// The service has no uploads in parts, answers to them in a way of its own, as rclone does, or loses parts.
    pub(super) fn is_about_parts(&self) -> bool {
        (self.begins_parts && matches!(self.status, 200..300 | 405 | 501))
            || ["InvalidPart", "InvalidPartOrder", "NoSuchUpload"].contains(&self.code.as_str())
    }

    /// Our condition does not hold: there is such an object.
    pub(super) fn is_there(&self) -> bool {
        self.status == 412
    }

    /// The condition itself may be what the service does not want.
    pub(super) fn may_be_the_condition(&self) -> bool {
        let of_words = ["", "NotImplemented", "InvalidArgument", "InvalidRequest"].contains(&self.code.as_str());
        matches!(self.status, 400 | 405 | 501) && of_words && !self.is_about_keys() && !self.is_about_parts()
    }

    /// The bucket is there, and has no such object.
    pub(super) fn is_no_such_object(&self) -> bool {
        self.status == 404 && self.code != "NoSuchBucket"
    }

    /// The same for whoever wanted to read.
    pub(super) fn of_reading(self, bucket: &str) -> SinkError {
        if self.status == 403 && matches!(self.code.as_str(), "" | "AccessDenied") {
            // Without the right to list, a bucket does not say what it lacks.
            let reason = format!("the bucket `{bucket}` has no such object, or it may not be read with these keys");
            return SinkError::Refused { store: NAME, reason };
        }
        self.error
    }

    /// The keys, not the object: others may be there by now.
    pub(super) fn is_about_keys(&self) -> bool {
        const KEYS: [&str; 6] = [
            "ExpiredToken",
            "InvalidToken",
            "TokenRefreshRequired",
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "AccessDenied",
        ];
        (self.status == 0 && self.error.to_string().contains(NO_CREDENTIALS)) || KEYS.contains(&self.code.as_str())
    }
}

const NO_CREDENTIALS: &str = "no credentials";

fn credentials_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a CredentialsError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn no_credentials(error: &CredentialsError, config: &S3) -> String {
    let profile = config.profile.clone().or_else(|| std::env::var("AWS_PROFILE").ok());
    let profile = profile.unwrap_or_else(|| "default".into());
    format!(
        "{NO_CREDENTIALS}: the file has no access_key; looked in AWS_ACCESS_KEY_ID, the profile `{profile}`, \
         AWS_WEB_IDENTITY_TOKEN_FILE, and the metadata services of the container and the machine: {}",
        one_line(&explain(error))
    )
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

/// What an operator would ask next; `None`: the service's own words are all there is.
fn words<'a>(status: u16, code: &str, config: &S3, header: impl Fn(&'static str) -> Option<&'a str>) -> Option<String> {
    let S3 { bucket, endpoint, .. } = config;
    Some(match code {
        "NoSuchBucket" => format!("{endpoint} has no bucket `{bucket}`"),
        "SignatureDoesNotMatch" => format!("{endpoint} says that the secret key is not that of the access key"),
        "InvalidAccessKeyId" => format!("{endpoint} does not know the access key"),
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => "the session token is not valid any more".into(),
        "RequestTimeTooSkewed" => {
            let date = header("date").unwrap_or("something else");
            format!("the clock of this machine is wrong, or that of {endpoint}, which says {date}")
        }
        "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException" => {
            let region = header("x-amz-bucket-region").unwrap_or("another one");
            format!("the bucket `{bucket}` is not in the region that was named, but in {region}")
        }
        "SlowDown" | "ServiceUnavailable" | "TooManyRequests" => format!("{endpoint} has too much to do"),
        _ if code.starts_with("KMS.") => "the key of server_side_encryption cannot be used".into(),
        _ => match status {
            301 | 307 | 308 => {
                let region = header("x-amz-bucket-region").unwrap_or("another region");
                format!("{endpoint} is not where the bucket `{bucket}` is: {region}")
            }
            403 => format!("not allowed to write into the bucket `{bucket}`"),
            404 => format!("{endpoint} has no bucket `{bucket}`, or is no S3 service"),
            413 => "the object is larger than the service takes".into(),
            429 | 503 => format!("{endpoint} has too much to do"),
            501 => format!("{endpoint} cannot do what storage_class or server_side_encryption ask for"),
            _ => return None,
        },
    })
}

/// Whether the same bytes under the same name would be refused by whatever the service becomes: everything that an
/// operator can mend is not, nor what happens on the way.
fn is_about_the_bytes(status: u16, code: &str) -> bool {
    const TO_MEND: [&str; 23] = [
        "AuthorizationHeaderMalformed",
        "AuthorizationQueryParametersError",
        "BadDigest",
        "ExpiredToken",
        "IllegalLocationConstraintException",
        "IncompleteBody",
        "InvalidBucketName",
        "InvalidEncryptionAlgorithmError",
        "InvalidPart",
        "InvalidPartOrder",
        "InvalidRegion",
        "InvalidSecurity",
        "InvalidStorageClass",
        "InvalidToken",
        "MissingSecurityHeader",
        "NoSuchBucket",
        "NoSuchUpload",
        "NotImplemented",
        "RequestTimeout",
        "RequestTimeTooSkewed",
        "ServerSideEncryptionConfigurationNotFoundError",
        "TokenRefreshRequired",
        "XAmzContentSHA256Mismatch",
    ];
    matches!(status, 400 | 405 | 411 | 413 | 414 | 415 | 422) && !TO_MEND.contains(&code) && !code.starts_with("KMS.")
}
