//! One agent on a machine: two would capture everything twice, and their probes would cost twice.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener, UnixStream},
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
    let claimed = SocketAddr::from_abstract_name(NAME).and_then(|name| match UnixListener::bind_addr(&name) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(Err(name)),
        other => other.map(Ok),
    });
    match claimed {
        Ok(Ok(listener)) => Ok(Some(listener)),
        Ok(Err(name)) if is_an_agents(&name) => Err(NotAlone),
        Ok(Err(_)) => {
            tracing::warn!(
                "somebody who is neither root nor this agent's user says to be an agent; that is passed over"
            );
            Ok(None)
        }
        Err(error) => {
            tracing::warn!(%error, "whether another agent runs on this machine cannot be told");
            Ok(None)
        }
    }
}

/// Everybody can take the name: only root, and whoever runs as we do, is believed.
fn is_an_agents(name: &SocketAddr) -> bool {
    let Ok(stream) = UnixStream::connect_addr(name) else { return true };
    let peer = rustix::net::sockopt::socket_peercred(&stream);
    peer.is_ok_and(|peer| peer.uid.is_root() || peer.uid == rustix::process::geteuid())
}
