//! HTTPS by rustls: a client and a server, each on blocking sockets and on tokio.
//!
//! Each request names the local port of its own connection.
//!
//! - `client blocking|tokio PORT CONNECTIONS REQUESTS SIZE…`
//! - `server blocking|tokio PORT CERTIFICATE KEY FOLDER`
#![forbid(unsafe_code)]

mod asynchronous;
mod blocking;
mod trust;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// What a client does.
#[derive(Clone)]
struct Load {
    port: u16,
    connections: usize,
    requests: usize,
    sizes: Vec<usize>,
    tls: Arc<ClientConfig>,
}

/// What a server does.
#[derive(Clone)]
struct Site {
    port: u16,
    folder: PathBuf,
    tls: Arc<ServerConfig>,
}

impl Load {
    /// The path of a request, and the size of its answer.
    fn path(&self, connection: usize, request: usize, local: u16) -> (String, usize) {
        let size = self.sizes[(connection + request) % self.sizes.len()];
        (format!("/size/{size}?port={local}&n={request}"), size)
    }
}

impl Site {
    /// The file behind a path.
    fn read(&self, path: &str) -> Option<Vec<u8>> {
        let path = Path::new(path.split('?').next()?.trim_start_matches('/'));
        fs::read(self.folder.join(path)).ok()
    }
}

fn load(arguments: &[&str]) -> Outcome<Load> {
    let [port, connections, requests, sizes @ ..] = arguments else { return Err("client: arguments".into()) };
    let mut tls = ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    tls.dangerous().set_certificate_verifier(Arc::new(trust::Anybody));
    Ok(Load {
        port: port.parse()?,
        connections: connections.parse()?,
        requests: requests.parse()?,
        sizes: sizes.iter().map(|size| size.parse()).collect::<Result<_, _>>()?,
        tls: Arc::new(tls),
    })
}

fn site(arguments: &[&str], alpn: &[&str]) -> Outcome<Site> {
    let [port, certificate, key, folder] = arguments else { return Err("server: arguments".into()) };
    let certificate = CertificateDer::from_pem_file(certificate)?;
    let key = PrivateKeyDer::from_pem_file(key)?;
    let mut tls = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key)?;
    tls.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(Site { port: port.parse()?, folder: folder.into(), tls: Arc::new(tls) })
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["client", "blocking", rest @ ..] => blocking::client(&load(rest)?),
        ["client", "tokio", rest @ ..] => asynchronous::client(load(rest)?),
        ["server", "blocking", rest @ ..] => blocking::server(&site(rest, &["http/1.1"])?),
        ["server", "tokio", rest @ ..] => asynchronous::server(site(rest, &["h2", "http/1.1"])?),
        _ => Err("client or server, blocking or tokio".into()),
    }
}
