//! HTTP/2, gRPC, WebSocket and server-sent events, by programs that speak them.

use std::{
    collections::BTreeMap,
    fs,
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::{
    agent::{Agent, Finished, config},
    need_root,
    programs::{self, Server, certificate, free_port, nginx_http2, program, serve, tool},
    truth::{body, captured, compare, events, files, sha1},
};

/// Runs a program of the tests, with the Python that has what it needs.
fn run(name: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let python = tool("python3").context("./dev tools installs what the test programs need")?;
    let interpreter = if name.rsplit('.').next() == Some("js") { "node".into() } else { python };
    let output = Command::new(interpreter).arg(program(name)).args(arguments).stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// The Node server, over TLS or plain.
fn node_server(tls: bool) -> anyhow::Result<Server> {
    let (folder, port) = (tempfile::tempdir()?, free_port()?);
    let mut command = Command::new("node");
    command.arg(program("server_http2.js")).arg(port.to_string());
    if tls {
        let (cert, key) = certificate(folder.path())?;
        command.arg(cert).arg(key);
    }
    serve(command, port, Some(folder))
}

/// All objects, as they lie in the store.
fn objects(finished: &Finished) -> anyhow::Result<Vec<Value>> {
    let read = |(name, bytes): (String, Vec<u8>)| {
        ensure!(sha1(&bytes) == name, "{} bytes of {name}: {}", bytes.len(), finished.stderr);
        Ok(serde_json::from_slice(&bytes)?)
    };
    files(&finished.objects()?)?.into_iter().map(read).collect()
}

/// Each request of the client is in the store once, byte for byte, and came in HTTP/2.
fn check(name: &str, server: &Server, tls: bool, posts: bool, warm: bool) -> anyhow::Result<()> {
    let agent = Agent::start(&config("egress-internal", ""))?;
    let url = format!("{}://127.0.0.1:{}", if tls { "https" } else { "http" }, server.port);
    let kind = if posts { "posts" } else { "gets" };
    if warm {
        // An executable that brings its own TLS functions is probed when it is first seen.
        run(name, &[&url, "warm", kind])?;
    }
    let lines = run(name, &[&url, "run", kind])?;
    let finished = agent.stop()?;
    finished.check()?;
    let found = captured(files(&finished.objects()?)?, "run")?;
    let count = compare(&lines, &found)?;
    ensure!(count >= 7, "only {count} requests were made");
    for object in found.values().flatten() {
        ensure!(object["request"]["protocol"] == "http2", "{object:#}");
        ensure!(object["request"]["scheme"] == if tls { "https" } else { "http" }, "{object:#}");
        ensure!(object["request"]["authority"] == format!("127.0.0.1:{}", server.port), "{object:#}");
    }
    Ok(())
}

macro_rules! matrix {
    ($($name:ident: $client:literal, $server:expr, $tls:literal, $posts:literal, $warm:literal;)*) => {
        $(
            #[test]
            fn $name() -> anyhow::Result<()> {
                need_root!();
                check($client, &$server?, $tls, $posts, $warm)
            }
        )*
    };
}

matrix! {
    httpx_nginx_tls: "client_httpx.py", nginx_http2(true), true, false, false;
    httpx_nginx_plain: "client_httpx.py", nginx_http2(false), false, false, false;
    httpx_node_tls: "client_httpx.py", node_server(true), true, true, false;
    httpx_node_plain: "client_httpx.py", node_server(false), false, true, false;
    node_node_plain: "client_http2.js", node_server(false), false, true, false;
    node_node_tls: "client_http2.js", node_server(true), true, true, true;
}

/// 10,000 requests with 100 streams on each of four connections, at the default sizes: each once, with its own answer.
fn ten_thousand(server: &Server) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let list = folder.path().join("urls");
    let url = |n: usize| format!("http://127.0.0.1:{}/size/{}?n={n}\n", server.port, [0, 1, 255, 1000][n % 4]);
    // Each connection takes the list from its start.
    fs::write(&list, (0..2500).map(url).collect::<String>())?;
    let agent = Agent::start(&config("egress-internal", ""))?;
    let mut command = Command::new("h2load");
    command.args(["-n", "10000", "-c", "4", "-m", "100", "-t", "1", "-i"]).arg(&list);
    let output = command.output().context("h2load is not installed")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(said.contains("10000 succeeded"), "{said}");
    agent.wait_for_objects(10_000)?;
    let finished = agent.stop()?;
    finished.check()?;
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for object in objects(&finished)?.iter().filter(|object| object["request"]["protocol"] == "http2") {
        let url = object["request"]["url"].as_str().context("a url")?.to_owned();
        let size: u64 = url.split(['/', '?']).nth(4).context("a size")?.parse()?;
        ensure!(object["response"]["status"] == 200 && object.get("damage").is_none(), "{object:#}");
        ensure!(body(object, "response")?.len() as u64 == size, "{url}: {object:#}");
        *seen.entry(url).or_default() += 1;
    }
    ensure!(seen.len() == 2500, "{} different requests were captured", seen.len());
    ensure!(seen.values().all(|count| *count == 4), "some more or less than once a connection");
    Ok(())
}

#[test]
fn ten_thousand_of_nghttpd() -> anyhow::Result<()> {
    need_root!();
    let (folder, port) = (tempfile::tempdir()?, free_port()?);
    fill(folder.path())?;
    let mut command = Command::new("nghttpd");
    command.args(["--no-tls", "-a", "127.0.0.1", "-d"]).arg(folder.path()).arg(port.to_string());
    ten_thousand(&serve(command, port, Some(folder))?)
}

#[test]
fn ten_thousand_of_caddy() -> anyhow::Result<()> {
    need_root!();
    ten_thousand(&caddy()?)
}

/// The HTTP/2 of Go's standard library, without TLS.
fn caddy() -> anyhow::Result<Server> {
    let folder = tempfile::tempdir()?;
    fill(folder.path())?;
    programs::caddy(folder, "servers {\n protocols h1 h2c\n }", |port| format!("http://127.0.0.1:{port}"), "")
}

fn fill(folder: &std::path::Path) -> anyhow::Result<()> {
    fs::create_dir(folder.join("size"))?;
    for size in [0, 1, 255, 1000] {
        fs::write(folder.join("size").join(size.to_string()), vec![b'x'; size])?;
    }
    Ok(())
}

/// curl asks for HTTP/2 in each of the ways there are: in TLS, knowing it, and by an upgrade.
#[test]
fn every_way_into_http2() -> anyhow::Result<()> {
    need_root!();
    let (tls, plain) = (nginx_http2(true)?, caddy()?);
    let agent = Agent::start(&config("egress-internal", ""))?;
    let (secure, known) = (format!("https://localhost:{}", tls.port), format!("http://127.0.0.1:{}", plain.port));
    for (flag, url, way) in
        [("--http2", &secure, "tls"), ("--http2-prior-knowledge", &known, "known"), ("--http2", &known, "upgrade")]
    {
        let url = format!("{url}/size/1000?way={way}");
        let output =
            Command::new("curl").args(["-sk", "-w", "%{http_version}", "-o", "/dev/null", flag, &url]).output()?;
        ensure!(output.stdout == b"2", "{way}: {}", String::from_utf8_lossy(&output.stdout));
    }
    let finished = agent.stop()?;
    finished.check()?;
    let found = objects(&finished)?;
    for way in ["tls", "known", "upgrade"] {
        let of = |object: &&Value| object["request"]["url"].as_str().is_some_and(|url| url.ends_with(way));
        let all: Vec<&Value> = found.iter().filter(of).collect();
        ensure!(all.len() == 1, "{way}: {} times", all.len());
        ensure!(all[0]["response"]["status"] == 200 && all[0]["response"]["body_size"] == 1000, "{:#}", all[0]);
    }
    // The name that TLS asked for, and what both ends agreed on.
    let connections = events(&finished, "*eventstore.Connection")?;
    let named = connections.iter().any(|c| {
        c["tlsVersion"].as_str().is_some_and(|version| version.starts_with("TLS 1."))
            && c["meta"]["endpointId"] == "localhost"
    });
    ensure!(named, "{connections:#?}");
    Ok(())
}

#[test]
fn grpc_calls_are_told_with_their_messages() -> anyhow::Result<()> {
    need_root!();
    let agent = Agent::start(&config("egress-internal", ""))?;
    run("grpc_calls.py", &[])?;
    let finished = agent.stop()?;
    finished.check()?;
    let calls = events(&finished, "*eventstore.GRPCRequest")?;
    let told = |name: &str| {
        let of = |call: &&Value| call["grpcMethod"] == name;
        calls.iter().filter(of).map(|c| (c["grpcStatus"].clone(), c["messages"].clone())).collect::<Vec<_>>()
    };
    let messages = |request: u64, response: u64, found: &Value| {
        found["dialect"] == "grpc" && found["request"] == request && found["response"] == response
    };
    ensure!(calls.iter().all(|call| call["grpcService"] == "test.v1.Things"), "{calls:#?}");
    let echo = told("Echo");
    ensure!(echo.len() == 2 && echo.iter().any(|(status, _)| *status == 5), "{echo:?}");
    for (name, request, response) in [("Numbers", 1, 7), ("Total", 2, 1), ("Mirror", 5, 5)] {
        let found = told(name);
        ensure!(found.len() == 1 && messages(request, response, &found[0].1), "{name}: {found:?}");
    }
    let failed = calls.iter().find(|call| call["grpcStatus"] == 5).context("the call that failed")?;
    ensure!(failed["grpcMessage"] == "no such thing: é" && failed["status"] == 404, "{failed:#}");
    let stored = objects(&finished)?;
    let numbers = stored.iter().find(|object| object["method"] == "Numbers").context("an object")?;
    ensure!(numbers["response"]["messages"]["list"].as_array().map(Vec::len) == Some(7), "{numbers:#}");
    ensure!(numbers["response"]["messages"]["list"][0]["compressed"] == true, "{numbers:#}");
    Ok(())
}

#[test]
fn exchanges_that_last_are_told_of_at_both_ends() -> anyhow::Result<()> {
    need_root!();
    let agent = Agent::start(&config("egress-internal", ""))?;
    run("streams.py", &[])?;
    let finished = agent.stop()?;
    finished.check()?;
    let told = events(&finished, "*eventstore.Request")?;
    for (path, dialect, request, response) in [("/chat", "websocket", 5, 5), ("/events", "sse", 0, 5)] {
        let of: Vec<&Value> = told.iter().filter(|event| event["path"] == path).collect();
        let phases: Vec<&str> = of.iter().filter_map(|event| event["phase"].as_str()).collect();
        ensure!(phases == ["started", "ended"], "{of:#?}");
        ensure!(of[0]["requestId"] == of[1]["requestId"], "{of:#?}");
        let messages = &of[1]["messages"];
        ensure!(messages["dialect"] == dialect && messages["response"] == response, "{messages:#}");
        ensure!(request == 0 || messages["request"] == request, "{messages:#}");
        ensure!(messages["firstMs"].as_u64().is_some_and(|ms| ms >= 1), "{messages:#}");
    }
    let stored = objects(&finished)?;
    let find = |path: &str| stored.iter().find(|object| object["request"]["path"] == path);
    let chat = find("/chat").context("an object of the WebSocket")?;
    ensure!(chat["response"]["status"] == 101, "{chat:#}");
    let said = body(chat, "request")?;
    let text = [&b"hello"[..], "hello again ".repeat(100).as_bytes(), b"\0\x01\x02"].concat();
    ensure!(said.starts_with(&text), "{:?}", said.escape_ascii().to_string());
    ensure!(chat["request"]["messages"]["list"][1]["compressed"] == true, "{chat:#}");
    let stream = find("/events").context("an object of the events")?;
    ensure!(body(stream, "response")?.starts_with(b"id: 0\ndata: tick 0\n\n"), "{stream:#}");
    Ok(())
}
