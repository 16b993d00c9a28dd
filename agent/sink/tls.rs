//! TLS towards stores: whom we trust, and how we show who we are.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    sign::CertifiedKey,
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, ServerName, UnixTime,
    pem::{self, PemObject as _},
};

use super::explain;
use crate::config::checked::Tls;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file does not hold what it should.
    #[error("{}: {reason}", path.display())]
    File {
        /// Under which key of `tls` it is named.
        key: &'static str,
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody is trusted by default.
    #[error("no certificates of authorities are found on this system ({0}); name a file as `tls.ca_file`")]
    NoRoots(String),
    /// The library does not work with what was given.
    #[error(transparent)]
    Library(#[from] Error),
}

/// What a client does, by the configuration. Files are read now.
///
/// # Errors
///
/// A file cannot be read or does not hold what it should, or the system trusts nobody.
pub fn client_config(tls: &Tls) -> Result<ClientConfig, TlsError> {
    let builder = builder()?;
    let provider = builder.crypto_provider().clone();
    let identity = identity(tls, &provider)?;
    let roots = if tls.insecure_skip_verify { None } else { Some(roots(tls.ca_file.as_deref())?) };
    let builder = match roots {
        Some(roots) => builder.with_root_certificates(roots),
        None => builder.dangerous().with_custom_certificate_verifier(Arc::new(Unchecked(provider))),
    };
    Ok(match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    })
}

/// Reads the files that are named, and no more.
///
/// # Errors
///
/// One of them cannot be read, or does not hold what it should.
pub fn check(tls: &Tls) -> Result<(), TlsError> {
    identity(tls, &Arc::new(ring::default_provider()))?;
    if let Some(path) = &tls.ca_file {
        roots(Some(path))?;
    }
    Ok(())
}

/// What a client has that speaks plain HTTP only: it trusts nobody.
///
/// # Panics
///
/// Never: the provider knows the versions that are asked of it.
#[must_use]
pub fn none() -> ClientConfig {
    let builder = builder().expect("the provider has both versions of TLS");
    builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, Error> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions()
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    match file {
        Some(path) => {
            for certificate in certificates("ca_file", path)? {
                roots.add(certificate).map_err(|error| wrong("ca_file", path, explain(&error)))?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                let errors: Vec<String> = found.errors.iter().map(|error| explain(error)).collect();
                return Err(TlsError::NoRoots(errors.join("; ")));
            }
        }
    }
    Ok(roots)
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Certificate and key, which must belong together.
fn identity(tls: &Tls, provider: &Arc<CryptoProvider>) -> Result<Option<Identity>, TlsError> {
    let Some((cert_file, key_file)) = &tls.identity else { return Ok(None) };
    let chain = certificates("cert_file", cert_file)?;
    let key = PrivateKeyDer::from_pem_file(key_file)
        .map_err(|error| wrong("key_file", key_file, unread(&error, "private key")))?;
    CertifiedKey::from_der(chain.clone(), key.clone_key(), provider).map_err(|error| match error {
        Error::InconsistentKeys(_) => {
            wrong("key_file", key_file, format!("it is not the key of the certificate in {}", cert_file.display()))
        }
        Error::InvalidCertificate(_) => wrong("cert_file", cert_file, explain(&error)),
        error => wrong("key_file", key_file, explain(&error)),
    })?;
    Ok(Some((chain, key)))
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    match found {
        Ok(found) if found.is_empty() => Err(wrong(key, path, unread(&pem::Error::NoItemsFound, "certificate"))),
        Ok(found) => Ok(found),
        Err(error) => Err(wrong(key, path, unread(&error, "certificate"))),
    }
}

fn unread(error: &pem::Error, what: &str) -> String {
    match error {
        pem::Error::NoItemsFound => format!("there is no {what} in it, in the form of PEM"),
        pem::Error::Io(error) => error.to_string(),
        error => format!("no {what} can be read from it: {error}"),
    }
}

fn wrong(key: &'static str, path: &Path, reason: String) -> TlsError {
    TlsError::File { key, path: path.to_owned(), reason }
}

/// Takes any certificate. That the other end has its key is still asked for.
#[derive(Debug)]
struct Unchecked(Arc<CryptoProvider>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
