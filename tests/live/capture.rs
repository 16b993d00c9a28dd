//! Every client over every server, plain and over TLS: each request once, byte for byte.

use anyhow::ensure;

use crate::{
    agent::{Agent, config},
    need_root,
    programs::{Server, client, nginx, python_server},
    truth::{captured, compare, files},
};

/// What records may say of a socket that was found by the call that a TLS library made,
const EXACT: &[&str] = &["exact"];
/// and of one that the program itself moved ciphertext on: where no record came alone and whole, none verifies it.
const INFERRED: &[&str] = &["inferred", "verified"];

/// Runs a client and compares; `socket` is what records must say.
///
/// An executable that brings its own TLS functions, such as Node, is probed when it is first seen. Its very first
/// requests can be faster than that, so the first run is not compared: the second one must be complete.
fn check(name: &str, server: &Server, tls: bool, posts: bool, socket: &[&str]) -> anyhow::Result<()> {
    let agent = Agent::start(&config("egress-internal", ""))?;
    let url = format!("{}://127.0.0.1:{}", if tls { "https" } else { "http" }, server.port);
    if name.contains("node") {
        // Gone before it can be looked at: what comes after it must not stay dark for that.
        std::process::Command::new("node").args(["-e", "1"]).status()?;
    }
    let mut sent = Vec::new();
    for run in ["first", "second"] {
        let lines = client(name, &[&url, run, if posts { "posts" } else { "gets" }])?;
        if run == "second" || !name.contains("node") {
            sent.push((run, lines));
        }
    }
    let finished = agent.stop()?;
    finished.check()?;
    let objects = files(&finished.objects()?)?;
    for (run, lines) in &sent {
        let found = captured(objects.clone(), run)?;
        let count = compare(lines, &found)?;
        ensure!(count >= 7, "only {count} requests were made");
        for object in found.values().flatten() {
            let how = object["metadata"]["socket"].as_str().unwrap_or("exact");
            ensure!(socket.contains(&how), "{object:#}");
            ensure!(object["request"]["scheme"] == if tls { "https" } else { "http" });
            ensure!(object["direction"] == "egress-internal", "{}", object["direction"]);
        }
    }
    Ok(())
}

macro_rules! matrix {
    ($($name:ident: $client:literal, $server:expr, $tls:literal, $posts:literal, $socket:expr;)*) => {
        $(
            #[test]
            fn $name() -> anyhow::Result<()> {
                need_root!();
                check($client, &$server?, $tls, $posts, $socket)
            }
        )*
    };
}

matrix! {
    curl_python_plain: "client_curl.py", python_server(false), false, true, EXACT;
    curl_python_tls: "client_curl.py", python_server(true), true, true, EXACT;
    curl_nginx_tls: "client_curl.py", nginx(true, true), true, false, EXACT;
    every_system_call: "client_calls.py", python_server(false), false, true, EXACT;
    urllib_python_plain: "client_urllib.py", python_server(false), false, true, EXACT;
    urllib_python_tls: "client_urllib.py", python_server(true), true, true, EXACT;
    urllib_nginx_tls: "client_urllib.py", nginx(true, true), true, false, EXACT;
    asyncio_python_plain: "client_asyncio.py", python_server(false), false, true, EXACT;
    asyncio_python_tls: "client_asyncio.py", python_server(true), true, true, INFERRED;
    asyncio_nginx_tls: "client_asyncio.py", nginx(true, true), true, false, INFERRED;
    node_python_plain: "client_node.js", python_server(false), false, true, EXACT;
    node_python_tls: "client_node.js", python_server(true), true, true, INFERRED;
    node_nginx_tls: "client_node.js", nginx(true, true), true, false, INFERRED;
}

/// The servers' side of the same traffic.
fn check_ingress(server: &Server, tls: bool, posts: bool, exe: &str) -> anyhow::Result<()> {
    let agent = Agent::start(&config("ingress", ""))?;
    let url = format!("{}://127.0.0.1:{}", if tls { "https" } else { "http" }, server.port);
    let lines = client("client_urllib.py", &[&url, "in", if posts { "posts" } else { "gets" }])?;
    let finished = agent.stop()?;
    finished.check()?;
    let found = captured(files(&finished.objects()?)?, "in")?;
    compare(&lines, &found)?;
    for object in found.values().flatten() {
        ensure!(object["direction"] == "ingress", "{object:#}");
        ensure!(object["metadata"]["process_exe"].as_str().is_some_and(|e| e.contains(exe)), "{object:#}");
    }
    Ok(())
}

#[test]
fn ingress_python_plain() -> anyhow::Result<()> {
    need_root!();
    check_ingress(&python_server(false)?, false, true, "python")
}

#[test]
fn ingress_python_tls() -> anyhow::Result<()> {
    need_root!();
    check_ingress(&python_server(true)?, true, true, "python")
}

#[test]
fn ingress_nginx_plain() -> anyhow::Result<()> {
    need_root!();
    check_ingress(&nginx(false, false)?, false, false, "nginx")
}

#[test]
fn ingress_nginx_tls() -> anyhow::Result<()> {
    need_root!();
    check_ingress(&nginx(true, false)?, true, false, "nginx")
}

/// With `sendfile` the bodies never pass user space: their length is known and the record says why they are missing.
#[test]
fn sendfile_bodies_are_counted() -> anyhow::Result<()> {
    need_root!();
    let server = nginx(false, true)?;
    let agent = Agent::start(&config("ingress", ""))?;
    client("client_urllib.py", &[&format!("http://127.0.0.1:{}", server.port), "in", "gets"])?;
    let finished = agent.stop()?;
    finished.check()?;
    let found = captured(files(&finished.objects()?)?, "in")?;
    let largest = found.values().flatten().find(|o| o["request"]["path"] == "/size/300000");
    let object = largest.expect("it was requested");
    ensure!(object["response"]["body_size"] == 300_000 && object["response"]["truncated"] == "damage", "{object:#}");
    let causes: Vec<&str> =
        object["damage"].as_array().into_iter().flatten().filter_map(|d| d["cause"].as_str()).collect();
    ensure!(causes.iter().all(|cause| *cause == "sendfile") && !causes.is_empty(), "{causes:?}");
    ensure!(finished.stderr.contains("sendfile"), "{}", finished.stderr);
    Ok(())
}

/// 10,000 requests on 50 keep-alive connections through nginx over TLS, at the default ring size.
#[test]
fn ten_thousand_requests() -> anyhow::Result<()> {
    need_root!();
    let server = nginx(true, true)?;
    let agent = Agent::start(&config("egress", ""))?;
    let printed = client("load.py", &[&format!("https://127.0.0.1:{}", server.port), "load", "50", "200"])?;
    ensure!(printed.trim() == "10000", "{printed}");
    let finished = agent.stop()?;
    finished.check()?;
    ensure!(!finished.stderr.contains("ring_full"), "{}", finished.stderr);
    let found = captured(files(&finished.objects()?)?, "load")?;
    ensure!(found.len() == 10_000 && found.values().all(|o| o.len() == 1), "{} captured", found.len());
    for (number, object) in found.iter().map(|(n, objects)| (n, &objects[0])) {
        ensure!(object["request"]["url"].as_str().is_some_and(|u| u.ends_with(&format!("?n={number}"))), "{object:#}");
        ensure!(object["response"]["body_size"] == 1000 && object["response"]["status"] == 200, "{object:#}");
    }
    Ok(())
}
