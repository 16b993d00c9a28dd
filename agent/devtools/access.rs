//! Who may look: on loopback everybody on the machine unless there is a token, elsewhere whoever has it.

use std::{
    fs, io,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use hyper::{Request, header};
use sha2::{Digest as _, Sha256};

/// Name of the file with a token that was made, in the data directory.
const FILE: &str = "devtools-token";

/// Whom the page is shown.
#[derive(Debug)]
pub struct Access {
    /// Of the token. By digests the time that a comparison takes tells nothing.
    token: Option<[u8; 32]>,
    /// Where it lies, if it was made.
    pub(super) file: Option<PathBuf>,
}

impl Access {
    /// For a server that listens there. Without a token one is made where it is needed, and kept in a file below `data_dir`
    /// that only the agent's user can read.
    ///
    /// # Errors
    ///
    /// The file cannot be written or read.
    pub fn new(address: SocketAddr, token: Option<&str>, data_dir: &Path) -> io::Result<Self> {
        let local = address.ip().is_loopback();
        let given = token.map(str::trim).filter(|token| !token.is_empty());
        let (token, file) = match given {
            Some(token) => (Some(token.to_owned()), None),
            None if local => (None, None),
            None => {
                let file = data_dir.join(FILE);
                (Some(made(&file)?), Some(file))
            }
        };
        Ok(Self { token: token.map(|token| digest(&token)), file })
    }

    /// Whether this request has the token, if one is asked for.
    #[must_use]
    pub fn lets_in<B>(&self, request: &Request<B>) -> bool {
        let Some(token) = self.token else { return true };
        let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = header.and_then(|value| value.strip_prefix("Bearer "));
        given.is_some_and(|given| digest(given.trim()) == token)
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// The token in a file, or a new one.
fn made(file: &Path) -> io::Result<String> {
    if let Ok(token) = fs::read_to_string(file)
        && token.trim().len() >= 32
    {
        return Ok(token.trim().to_owned());
    }
    let mut random = [0u8; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    let token = format!("{:032x}", u128::from_be_bytes(random));
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    // What lies there could be readable by others.
    let _ = fs::remove_file(file);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    writeln!(file, "{token}")?;
    Ok(token)
}

/// Whether the request names this machine by a loopback address or `localhost`: a name that was made to lead here does not
/// count.
pub fn is_local_name<B>(request: &Request<B>) -> bool {
    let Some(host) = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()) else { return true };
    let Ok(authority) = host.parse::<hyper::http::uri::Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(headers: &[(&str, &str)]) -> Request<()> {
        let request = headers.iter().fold(Request::builder(), |request, (name, value)| request.header(*name, *value));
        request.body(()).expect("a request")
    }

    #[test]
    fn only_local_names_are_local() {
        for host in ["localhost:10001", "127.0.0.1", "[::1]:10001", "LOCALHOST"] {
            assert!(is_local_name(&asked(&[("host", host)])), "{host}");
        }
        for host in ["rebound.example:10001", "127.0.0.1.example", "10.0.0.1", "local host"] {
            assert!(!is_local_name(&asked(&[("host", host)])), "{host}");
        }
    }

    #[test]
    fn beyond_loopback_a_token_is_made_and_asked_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let local = Access::new(([127, 0, 0, 1], 1).into(), None, folder.path()).expect("nothing to write");
        assert!(local.lets_in(&asked(&[])) && local.file.is_none());
        let address = ([0, 0, 0, 0], 1).into();
        let access = Access::new(address, None, folder.path()).expect("written");
        let file = access.file.clone().expect("it was made");
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).expect("there").permissions());
        assert_eq!(mode & 0o777, 0o600);
        let token = fs::read_to_string(&file).expect("written");
        assert!(!access.lets_in(&asked(&[("host", "gateway.example")])));
        assert!(!access.lets_in(&asked(&[("authorization", "Bearer wrong")])));
        assert!(access.lets_in(&asked(&[("authorization", &format!("Bearer {}", token.trim()))])));
        let again = Access::new(address, None, folder.path()).expect("read");
        assert_eq!(again.token, access.token, "it stays");
        let given = Access::new(address, Some(" secret "), folder.path()).expect("nothing to write");
        assert!(given.lets_in(&asked(&[("authorization", "Bearer secret")])) && given.file.is_none());
    }
}
