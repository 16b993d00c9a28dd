//! Each TLS library by a program that uses it, on both sides.

use std::{fs, process::Command};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    agent::{Agent, Finished, config},
    need_root,
    programs::{self, Server, certificate, free_port, rustls_server, rustls_traffic, serve},
    truth::{body, events, files, sources},
};

/// Sizes of the files that are asked for; the last is many records long.
const SIZES: [usize; 4] = [0, 10, 5000, 300_000];

/// Text that says where it stands, so that no two places look alike.
fn content(size: usize) -> Vec<u8> {
    (0..).flat_map(|n: usize| format!("{n}\n").into_bytes()).take(size).collect()
}

/// The files, for a server.
fn folder() -> anyhow::Result<TempDir> {
    let folder = tempfile::tempdir()?;
    fs::create_dir(folder.path().join("size"))?;
    for size in SIZES {
        fs::write(folder.path().join("size").join(size.to_string()), content(size))?;
    }
    Ok(folder)
}

/// lighttpd with one of its TLS modules.
fn lighttpd(library: &str) -> anyhow::Result<Server> {
    let (folder, port) = (folder()?, free_port()?);
    let (cert, key) = certificate(folder.path())?;
    let (file, root) = (folder.path().join("lighttpd.conf"), folder.path().display());
    let text = format!(
        "server.document-root = \"{root}\"\nserver.bind = \"127.0.0.1\"\nserver.port = {port}\n\
         server.modules = (\"mod_{library}\")\nssl.engine = \"enable\"\nssl.pemfile = \"{}\"\nssl.privkey = \"{}\"\n",
        cert.display(),
        key.display()
    );
    fs::write(&file, text)?;
    let mut command = Command::new("lighttpd");
    command.arg("-D").arg("-f").arg(&file);
    serve(command, port, Some(folder))
}

fn caddy() -> anyhow::Result<Server> {
    let folder = folder()?;
    let (cert, key) = certificate(folder.path())?;
    let tls = format!("tls {} {}", cert.display(), key.display());
    programs::caddy(folder, "auto_https disable_redirects", |port| format!("https://localhost:{port}"), &tls)
}

/// Every response of the run is in the store once, byte for byte; its event names the library and its socket is exact.
fn check(finished: &Finished, library: &str, paths: &[String]) -> anyhow::Result<()> {
    finished.check()?;
    let stored: Vec<Value> = files(&finished.objects()?)?
        .into_iter()
        .map(|(_, bytes)| Ok(serde_json::from_slice(&bytes)?))
        .collect::<anyhow::Result<_>>()?;
    let told = events(finished, "*eventstore.Request")?;
    for path in paths {
        let is = |url: &Value| url.as_str().is_some_and(|url| url.ends_with(path.as_str()));
        let of: Vec<&Value> = stored.iter().filter(|object| is(&object["request"]["url"])).collect();
        ensure!(of.len() == 1, "{path}: {} times: {}", of.len(), finished.stderr);
        ensure!(of[0].get("damage").is_none() && of[0]["metadata"].get("socket").is_none(), "{:#}", of[0]);
        let size = path.split(['/', '?']).nth(2).context("a size")?.parse()?;
        ensure!(body(of[0], "response")? == content(size), "{path}: {:#}", of[0]);
        let event = told.iter().find(|event| is(&event["url"])).with_context(|| format!("no event of {path}"))?;
        ensure!(event["tlsProbeTypesDetected"] == serde_json::json!([library]), "{event:#}");
    }
    Ok(())
}

fn paths(run: &str) -> Vec<String> {
    SIZES.iter().map(|size| format!("/size/{size}?run={run}")).collect()
}

fn server(library: &str, server: &Server) -> anyhow::Result<()> {
    let agent = Agent::start(&config("ingress", ""))?;
    let mut all = Vec::new();
    for version in ["--http1.1", "--http2"] {
        let paths = paths(version.trim_start_matches('-'));
        let urls = paths.iter().map(|path| format!("https://localhost:{}{path}", server.port));
        // All on one connection.
        let output = Command::new("curl").args(["-skf", version]).args(urls).output()?;
        let sizes: usize = SIZES.iter().sum();
        ensure!(output.status.success() && output.stdout.len() == sizes, "{}", output.stdout.len());
        all.extend(paths);
    }
    check(&agent.stop()?, library, &all)
}

macro_rules! servers {
    ($($name:ident: $library:literal, $server:expr;)*) => {
        $(
            #[test]
            fn $name() -> anyhow::Result<()> {
                need_root!();
                server($library, &$server?)
            }
        )*
    };
}

servers! {
    a_server_with_openssl: "openssl", lighttpd("openssl");
    a_server_with_gnutls: "gnutls", lighttpd("gnutls");
    a_server_with_mbedtls: "mbedtls", lighttpd("mbedtls");
    a_server_with_nss: "nss", lighttpd("nss");
    a_server_with_wolfssl: "wolfssl", lighttpd("wolfssl");
    a_server_in_go: "gotls", caddy();
    a_server_with_rustls: "rustls", rustls_server("tokio", folder()?);
    a_server_with_rustls_on_blocking_sockets: "rustls", rustls_server("blocking", folder()?);
}

#[test]
fn wget_with_gnutls() -> anyhow::Result<()> {
    need_root!();
    let server = lighttpd("openssl")?;
    let agent = Agent::start(&config("egress-internal", ""))?;
    let paths = paths("wget");
    for path in &paths {
        let url = format!("https://localhost:{}{path}", server.port);
        let status = Command::new("wget").args(["-q", "--no-check-certificate", "-O", "/dev/null", &url]).status()?;
        ensure!(status.success(), "{url}: {status}");
    }
    check(&agent.stop()?, "gnutls", &paths)
}

/// Connections that a client with rustls has at once, and what it asks for on each.
const CONNECTIONS: usize = 16;
const REQUESTS: usize = 6;

/// Each request names the local port of its connection, and is told to come from it.
fn client_with_rustls(mode: &str) -> anyhow::Result<()> {
    need_root!();
    let (program, server) = (rustls_traffic()?, lighttpd("openssl")?);
    // Runs before the agent does: the program has its probes when the client begins.
    let _known = rustls_server("blocking", folder()?)?;
    let agent = Agent::start(&config("egress-internal", ""))?;
    let numbers = [usize::from(server.port), CONNECTIONS, REQUESTS].into_iter().chain(SIZES);
    let output =
        Command::new(program).args(["client", mode]).args(numbers.map(|number| number.to_string())).output()?;
    ensure!(output.status.success(), "{output:?}");
    let paths: Vec<String> = String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect();
    ensure!(paths.len() == CONNECTIONS * REQUESTS, "{paths:?}");
    let finished = agent.stop()?;
    check(&finished, "rustls", &paths)?;
    let sources = sources(&finished)?;
    for (_, bytes) in files(&finished.objects()?)? {
        let object: Value = serde_json::from_slice(&bytes)?;
        let Some((_, port)) = object["request"]["url"].as_str().and_then(|url| url.split_once("port=")) else {
            continue;
        };
        let port = port.split('&').next().context("a port")?;
        let connection = object["metadata"]["connection_id"].as_str().context("a connection")?;
        let source = sources.get(connection).with_context(|| format!("{object:#} has no address"))?;
        ensure!(source.ends_with(&format!(":{port}")), "{object:#} was told to come from {source}");
    }
    Ok(())
}

#[test]
fn a_client_with_rustls() -> anyhow::Result<()> {
    client_with_rustls("tokio")
}

#[test]
fn a_client_with_rustls_on_blocking_sockets() -> anyhow::Result<()> {
    client_with_rustls("blocking")
}
