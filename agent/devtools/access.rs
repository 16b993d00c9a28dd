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
    local: bool,
}

/// Why somebody may not look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The token is missing or wrong.
    Token,
    /// The name by which the server was asked is not one of this machine: a page of somebody else may have made a browser
    /// ask.
    Host,
}

impl Access {
    /// For a server that listens there. Without a token one is made where it is needed, and kept in a file below `data_dir`
    /// that only the agent's user can read; the second value says where.
    ///
    /// # Errors
    ///
    /// The file cannot be written or read.
    pub fn new(address: SocketAddr, token: Option<&str>, data_dir: &Path) -> io::Result<(Self, Option<PathBuf>)> {
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
        Ok((Self { token: token.map(|token| digest(&token)), local }, file))
    }

    /// Whether this request may see what the agent has captured.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn check<B>(&self, request: &Request<B>) -> Result<(), Refusal> {
        if self.local && !is_local_name(request) {
            return Err(Refusal::Host);
        }
        let Some(token) = self.token else { return Ok(()) };
        let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = header.and_then(|value| value.strip_prefix("Bearer "));
        if given.is_some_and(|given| digest(given.trim()) == token) { Ok(()) } else { Err(Refusal::Token) }
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
fn is_local_name<B>(request: &Request<B>) -> bool {
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
    fn on_loopback_only_local_names_lead_here() {
        let folder = tempfile::tempdir().expect("a folder");
        let (access, made) = Access::new(([127, 0, 0, 1], 1).into(), None, folder.path()).expect("nothing to write");
        assert_eq!(made, None);
        for host in ["localhost:10001", "127.0.0.1", "[::1]:10001", "LOCALHOST"] {
            assert_eq!(access.check(&asked(&[("host", host)])), Ok(()), "{host}");
        }
        for host in ["rebound.example:10001", "127.0.0.1.example", "10.0.0.1", "local host"] {
            assert_eq!(access.check(&asked(&[("host", host)])), Err(Refusal::Host), "{host}");
        }
    }

    #[test]
    fn elsewhere_a_token_is_made_and_asked_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let address = ([0, 0, 0, 0], 1).into();
        let (access, file) = Access::new(address, None, folder.path()).expect("written");
        let file = file.expect("it was made");
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).expect("there").permissions());
        assert_eq!(mode & 0o777, 0o600);
        let token = fs::read_to_string(&file).expect("written");
        assert_eq!(access.check(&asked(&[("host", "gateway.example")])), Err(Refusal::Token));
        assert_eq!(access.check(&asked(&[("authorization", "Bearer wrong")])), Err(Refusal::Token));
        assert_eq!(access.check(&asked(&[("authorization", &format!("Bearer {}", token.trim()))])), Ok(()));
        let (again, _) = Access::new(address, None, folder.path()).expect("read");
        assert_eq!(again.token, access.token, "it stays");
        let (given, file) = Access::new(address, Some(" secret "), folder.path()).expect("nothing to write");
        assert_eq!((given.check(&asked(&[("authorization", "Bearer secret")])), file), (Ok(()), None));
    }
}
