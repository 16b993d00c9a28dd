//! The client of a bucket: where it is, whom it trusts, and by whose keys it signs.

use std::time::{Duration, Instant};

use aws_config::{
    default_provider::credentials::DefaultCredentialsChain,
    environment::EnvironmentVariableRegionProvider,
    imds::{self, region::ImdsRegionProvider},
    meta::region::RegionProviderChain,
    profile::region,
    provider_config::ProviderConfig,
};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_sdk_s3::{
    Client,
    config::{
        BehaviorVersion, Region, RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient,
        StalledStreamProtectionConfig, retry::RetryConfig, timeout::TimeoutConfig,
    },
};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

use super::NAME;
use crate::{
    config::checked::{Keys, S3},
    sink::SinkError,
};

/// Region where nothing names one.
const REGION: &str = "us-east-1";
/// The service that has a host in each region.
const AWS: &str = "s3.amazonaws.com";
/// How long a request takes at most that carries little.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes a second that a link has at least: what carries more may take longer.
const SLOWEST: usize = 128 << 10;
/// The services that have keys are near; each is asked once, the next attempt is the next object's.
const KEYS_TIMEOUT: Duration = Duration::from_secs(5);
const METADATA_TIMEOUT: Duration = Duration::from_secs(1);

/// A client, and the host that it speaks to.
pub(super) struct Connection {
    pub client: Client,
    pub host: String,
    pub since: Instant,
}

/// How long a request may take that carries so many bytes.
pub(super) fn timeout(bytes: usize) -> TimeoutConfig {
    let more = Duration::from_secs((bytes / SLOWEST) as u64);
    TimeoutConfig::builder().operation_attempt_timeout(TIMEOUT + more).connect_timeout(TIMEOUT).build()
}

/// Authorities of a file instead of the system's; `None`: the system's.
///
/// # Errors
///
/// It cannot be read, or holds no certificate.
pub(super) fn authorities(config: &S3) -> Result<Option<Vec<u8>>, SinkError> {
    let Some(path) = &config.ca_file else { return Ok(None) };
    let failed = |reason: String| SinkError::SetUp { store: NAME, reason: format!("{}: {reason}", path.display()) };
    let pem = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    let mut roots = rustls::RootCertStore::empty();
    // The client takes for granted what is checked here.
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(failed("there is no certificate in it".into()));
    }
    Ok(Some(pem))
}

/// A client of HTTP and HTTPS that trusts what the store names.
fn http(trust: TrustStore) -> Result<SharedHttpClient, SinkError> {
    let set_up = |error: &dyn std::fmt::Display| SinkError::SetUp { store: NAME, reason: error.to_string() };
    let tls = TlsContext::builder().with_trust_store(trust).build().map_err(|error| set_up(&error))?;
    Ok(Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(tls).build_https())
}

/// The client of the bucket itself.
pub(super) fn bucket_http(authorities: Option<&[u8]>) -> Result<SharedHttpClient, SinkError> {
    http(match authorities {
        Some(pem) => TrustStore::empty().with_pem_certificate(pem),
        None => TrustStore::default(),
    })
}

/// Finds the keys' source and the region, and sets up the client; the bucket itself is not asked for anything.
pub(super) async fn connect(
    config: &S3,
    bucket: SharedHttpClient,
    authorities: Option<&[u8]>,
) -> Result<Connection, SinkError> {
    let (keys, region) = match &config.keys {
        Some(Keys { access, secret, token }) => {
            let keys = Credentials::new(access, secret, token.clone(), None, "configuration");
            (SharedCredentialsProvider::new(keys), config.region.clone().map(Region::new))
        }
        None => chain(config, authorities).await?,
    };
    let region = region.unwrap_or_else(|| Region::from_static(REGION));
    let host = host(&config.endpoint, region.as_ref());
    let settings = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(region)
        .endpoint_url(format!("{}://{host}", super::scheme(config)))
        .credentials_provider(keys)
        .http_client(bucket)
        .force_path_style(config.path_style)
        // Digests of the SDK's own choice are refused by older servers; the key is a digest already.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        // Attempts end by their own time, which goes by the size of what they carry.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .timeout_config(timeout(0))
        .retry_config(RetryConfig::disabled())
        .build();
    Ok(Connection { client: Client::from_conf(settings), host, since: Instant::now() })
}

/// Where AWS's own programs look: environment, profile, web identity, and the services of container and machine.
async fn chain(
    config: &S3,
    authorities: Option<&[u8]>,
) -> Result<(SharedCredentialsProvider, Option<Region>), SinkError> {
    // A token service of one's own has the bucket's authority, AWS's has a public one.
    let mut trust = TrustStore::default();
    if let Some(pem) = authorities {
        trust.add_pem_certificate(pem);
    }
    let times = TimeoutConfig::builder().connect_timeout(KEYS_TIMEOUT).operation_timeout(KEYS_TIMEOUT).build();
    let settings = ProviderConfig::without_region()
        .with_behavior_version(Some(BehaviorVersion::latest()))
        .with_http_client(http(trust)?)
        .with_retry_config(RetryConfig::disabled())
        .with_timeout_config(times);
    let metadata = imds::Client::builder()
        .configure(&settings)
        .connect_timeout(METADATA_TIMEOUT)
        .read_timeout(METADATA_TIMEOUT)
        .max_attempts(1)
        .build();
    let region = match &config.region {
        Some(region) => Some(Region::new(region.clone())),
        None => find_region(config, &settings, &metadata).await,
    };
    let for_keys = region.clone().unwrap_or_else(|| Region::from_static(REGION));
    let mut chain = DefaultCredentialsChain::builder().configure(settings).imds_client(metadata).region(for_keys);
    if let Some(profile) = &config.profile {
        chain = chain.profile_name(profile);
    }
    Ok((SharedCredentialsProvider::new(chain.build().await), region))
}

async fn find_region(config: &S3, settings: &ProviderConfig, metadata: &imds::Client) -> Option<Region> {
    let mut profile = region::Builder::default().configure(settings);
    if let Some(name) = &config.profile {
        profile = profile.profile_name(name);
    }
    let named = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new()).or_else(profile.build());
    // Where a machine of AWS is says nothing of a bucket that is elsewhere.
    if !config.endpoint.contains(".amazonaws.com") {
        return named.region().await;
    }
    named
        .or_else(ImdsRegionProvider::builder().configure(settings).imds_client(metadata.clone()).build())
        .region()
        .await
}

/// AWS has the name without a region in one region only.
fn host(endpoint: &str, region: &str) -> String {
    match (endpoint, region) {
        (AWS, REGION) => AWS.to_owned(),
        (AWS, _) if region.starts_with("cn-") => format!("s3.{region}.amazonaws.com.cn"),
        (AWS, _) => format!("s3.{region}.amazonaws.com"),
        _ => endpoint.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_aws_have_their_region() {
        assert_eq!(host(AWS, "us-east-1"), AWS);
        assert_eq!(host(AWS, "eu-central-1"), "s3.eu-central-1.amazonaws.com");
        assert_eq!(host(AWS, "cn-north-1"), "s3.cn-north-1.amazonaws.com.cn");
        assert_eq!(host("minio.internal:9000", "eu-central-1"), "minio.internal:9000");
    }
}
