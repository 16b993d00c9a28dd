//! One agent on a machine: two would capture everything twice, and their probes would cost twice.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener},
    },
};

/// Name of a socket that exists as long as an agent does: the kernel removes it however the agent ends. It is known in the
/// machine's network namespace, which agents in containers share when they capture the machine.
const NAME: &str = "ringtap-agent";

/// Another agent captures on this machine.
#[derive(Debug, thiserror::Error)]
#[error(
    "another agent captures on this machine already (`ringtap status` shows it); stop it, or give --beside to let both \
     capture everything"
)]
pub struct NotAlone;

/// Says that an agent is here, as long as the value lives.
///
/// # Errors
///
/// There is one already.
pub fn claim() -> Result<Option<UnixListener>, NotAlone> {
    let listener = SocketAddr::from_abstract_name(NAME).and_then(|name| UnixListener::bind_addr(&name));
    match listener {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(NotAlone),
        Err(error) => {
            tracing::warn!(%error, "whether another agent runs on this machine cannot be told");
            Ok(None)
        }
    }
}
