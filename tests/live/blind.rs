//! What cannot be read is named and counted; and names come from name servers' answers.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::{
    agent::{Agent, config},
    need_root,
    programs::{Server, certificate, free_port, nginx_http2, program, tool},
    truth::events,
};

/// An agent with an admin server, and that server's address.
fn agent(direction: &str, filters: &str) -> anyhow::Result<(Agent, String)> {
    let admin = format!("127.0.0.1:{}", free_port()?);
    let command = Command::new(env!("CARGO_BIN_EXE_ringtap"));
    Ok((Agent::start_with(&config(direction, filters), &["--httpd-listen", &admin], command)?, admin))
}

/// The value of a metric of this program, when it is there.
fn metric(admin: &str, name: &str, exe: &str) -> anyhow::Result<Option<u64>> {
    let output = Command::new("curl").args(["-sS", &format!("http://{admin}/system/metrics")]).output()?;
    let text = String::from_utf8(output.stdout)?;
    let line = text.lines().find(|line| line.starts_with(name) && line.contains(&format!("exe=\"{exe}\"")));
    Ok(line.and_then(|line| line.rsplit(' ').next()?.parse().ok()))
}

/// Waits until a metric of this program is there.
fn wait_for(admin: &str, name: &str, exe: &str) -> anyhow::Result<u64> {
    let begun = Instant::now();
    loop {
        if let Some(value) = metric(admin, name, exe)? {
            return Ok(value);
        }
        ensure!(begun.elapsed() < Duration::from_secs(10), "there is no {name} of {exe}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// TLS of a library that no probe knows is counted, by program; TLS that is read is not.
#[test]
fn dark_tls_is_named() -> anyhow::Result<()> {
    need_root!();
    let python = tool("python3").context("./dev tools installs the programs")?;
    let server = nginx_http2(true)?;
    let (agent, admin) = agent("egress-internal", "")?;
    let port = server.port.to_string();
    let output = Command::new(&python).arg(program("dark.py")).args([&port, "3"]).stdin(Stdio::null()).output()?;
    ensure!(output.stdout == b"1000\n1000\n1000\n", "{output:?}");
    let status =
        Command::new("curl").args(["-sk", "-o", "/dev/null"]).arg(format!("https://localhost:{port}/")).status()?;
    ensure!(status.success(), "{status}");
    let exe = fs::canonicalize(&python)?.display().to_string();
    wait_for(&admin, "ringtap_blind_connections_total{kind=\"tls\"", &exe)?;
    agent.wait_for_objects(1)?;
    let finished = agent.stop()?;
    finished.check()?;
    let line = format!("not readable: 3 TLS connections of {exe}, ");
    ensure!(finished.stderr.contains(&line), "{}", finished.stderr);
    ensure!(finished.stderr.matches("not readable").count() == 1, "{}", finished.stderr);
    Ok(())
}

/// HTTP/3 is seen, named and counted as not decoded.
#[test]
fn http3_is_named() -> anyhow::Result<()> {
    need_root!();
    let (folder, python) = (tempfile::tempdir()?, tool("python3").context("./dev tools installs the programs")?);
    let (cert, key) = certificate(folder.path())?;
    let (agent, admin) = agent("all", "")?;
    // Past the port that others may hold at the usual address.
    let output = Command::new(&python)
        .arg(program("http3.py"))
        .arg("127.0.0.83")
        .args([&cert, &key])
        .arg("100000")
        .stdin(Stdio::null())
        .output()?;
    ensure!(output.stdout == b"100000\n", "{}", String::from_utf8_lossy(&output.stderr));
    let exe = fs::canonicalize(&python)?.display().to_string();
    // Both ends are in one process, and each datagram is counted where it leaves and where it arrives. Counts are copied once
    // a second: the first copy may have been made in the midst of it.
    let begun = Instant::now();
    let mut bytes = 0;
    while bytes < 200_000 && begun.elapsed() < Duration::from_secs(10) {
        bytes = wait_for(&admin, "ringtap_blind_bytes_total{kind=\"http3\"", &exe)?;
        std::thread::sleep(Duration::from_millis(100));
    }
    ensure!((200_000..400_000).contains(&bytes), "{bytes} bytes");
    let finished = agent.stop()?;
    finished.check()?;
    ensure!(finished.stderr.contains(&format!("not decoded: HTTP/3 of {exe}")), "{}", finished.stderr);
    Ok(())
}

/// A name server of the test's own, which knows one name.
fn name_server(address: &str, name: &str) -> anyhow::Result<Server> {
    let mut command = Command::new("dnsmasq");
    command.args([
        "--keep-in-foreground",
        "--no-resolv",
        "--no-hosts",
        "--bind-interfaces",
        "--user=root",
        "--pid-file=",
    ]);
    command.arg(format!("--listen-address={address}")).arg(format!("--address=/{name}/127.0.0.1"));
    crate::programs::serve_at(command, address, 53)
}

/// A client in a namespace where names are asked of `server`.
fn with_names_of(server: &str, folder: &Path, arguments: &[&str]) -> anyhow::Result<Command> {
    let file = folder.join("resolv.conf");
    fs::write(&file, format!("nameserver {server}\n"))?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\""]).arg(file);
    command.args(arguments);
    Ok(command)
}

/// A connection that says nothing of its name is named by what a name server answered; look-ups are told when asked for.
#[test]
fn names_come_from_name_servers() -> anyhow::Result<()> {
    need_root!();
    let (folder, server) = (tempfile::tempdir()?, "127.0.0.77");
    let _names = name_server(server, "db.ringtap.test")?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let answering = std::thread::spawn(move || -> std::io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.read_exact(&mut [0; 5])?;
        stream.write_all(b"pong\n")
    });
    let agent = Agent::start(&config("egress-internal", "  audit_include_dns: true"))?;
    let ask = format!(
        "import socket; s = socket.create_connection(('db.ringtap.test', {port})); s.sendall(b'ping\\n'); \
         assert s.recv(5) == b'pong\\n'"
    );
    let output = with_names_of(server, folder.path(), &["python3", "-c", &ask])?.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    answering.join().map_err(|_| anyhow::anyhow!("the server has panicked"))??;
    let finished = agent.stop()?;
    finished.check()?;
    let all = events(&finished, "*eventstore.Connection")?;
    let of = |address: String| all.iter().filter(move |c| c["destination"]["address"] == address.as_str());
    let named = of(format!("127.0.0.1:{port}")).next().with_context(|| format!("no connection in {all:#?}"))?;
    ensure!(named["meta"]["endpointId"] == "db.ringtap.test", "{named:#}");
    let is_lookup = |c: &&Value| c["l7Protocol"] == "dns" && c["socketProtocol"] == "udp" && c["finalized"] == true;
    let lookup = of(format!("{server}:53")).find(is_lookup).with_context(|| format!("no look-up in {all:#?}"))?;
    let moved = |key: &str| lookup[key].as_u64().is_some_and(|bytes| bytes > 30);
    ensure!(moved("bytesSent") && moved("bytesReceived"), "{lookup:#}");
    Ok(())
}
