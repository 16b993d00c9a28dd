//! Whose socket is it? Programs that move ciphertext themselves, with a hundred connections on one pool of threads.

use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::{
    agent::{Agent, config},
    need_root,
    programs::{Server, certificate, client, free_port, nginx, program, serve},
    truth::{files, sources},
};

const CONNECTIONS: usize = 100;
/// What each asks for.
const REQUESTS: usize = 3;
const ALL: usize = CONNECTIONS * REQUESTS;

/// The clients' side, against an ordinary server.
fn check(mode: &str, known: usize) -> anyhow::Result<()> {
    need_root!();
    check_side("egress-internal", &nginx(true, false)?, mode, known)
}

/// Every request names the local port of its client's connection. An address that was told must be that one; none is no
/// error, and at least `known` must have one.
fn check_side(direction: &str, server: &Server, mode: &str, known: usize) -> anyhow::Result<()> {
    let agent = Agent::start(&config(direction, ""))?;
    client("client_pool.py", &[&server.port.to_string(), mode, &CONNECTIONS.to_string(), "1000", "20000"])?;
    let finished = agent.stop()?;
    finished.check()?;
    let sources = sources(&finished)?;
    let (mut seen, mut right) = (0, 0);
    for (_, bytes) in files(&finished.objects()?)? {
        let object: Value = serde_json::from_slice(&bytes)?;
        let meta = &object["metadata"];
        let url = object["request"]["url"].as_str().context("a url")?;
        // What else speaks on this machine is no concern of the test.
        let Some((_, port)) = url.split_once("port=") else { continue };
        let source = sources.get(meta["connection_id"].as_str().context("a connection")?);
        seen += 1;
        match (meta["socket"].as_str(), source) {
            (Some("unknown"), None) => (),
            (Some("inferred" | "verified"), Some(address)) => {
                ensure!(address.ends_with(&format!(":{port}")), "{url} was told to come from {address}");
                right += 1;
            }
            other => anyhow::bail!("{other:?}: {object:#}"),
        }
    }
    println!("{mode}: {seen} exchanges, {right} with an address");
    ensure!(seen == ALL && right >= known, "{seen}, {right}: {}", finished.stderr);
    Ok(())
}

#[test]
fn a_pool_whose_threads_receive_what_they_decrypt() -> anyhow::Result<()> {
    check("coupled", ALL)
}

#[test]
fn a_pool_whose_threads_decrypt_what_another_received() -> anyhow::Result<()> {
    check("handed", ALL)
}

#[test]
fn a_pool_whose_threads_receive_for_one_another() -> anyhow::Result<()> {
    check("scattered", ALL)
}

#[test]
fn one_thread_that_receives_for_all_and_then_decrypts_in_another_order() -> anyhow::Result<()> {
    check("batch", ALL)
}

/// A server receives before it sends, on one thread for all.
#[test]
fn a_server_that_moves_ciphertext_itself() -> anyhow::Result<()> {
    need_root!();
    let (folder, port) = (tempfile::tempdir()?, free_port()?);
    let (cert, key) = certificate(folder.path())?;
    let mut command = Command::new("node");
    command.arg(program("server_node.js")).arg(port.to_string()).args([cert, key]);
    check_side("ingress", &serve(command, port, Some(folder))?, "coupled", ALL)
}

/// Nothing is left to tell the sockets by: none may be told.
#[test]
fn a_pool_whose_threads_receive_and_send_for_one_another() -> anyhow::Result<()> {
    check("relayed", 0)
}
