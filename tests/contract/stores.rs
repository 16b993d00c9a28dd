//! Several stores, and which of them gets what; Axiom's interface.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::mpsc,
};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::{
    golden,
    traffic::{Traffic, message, replay},
};

fn digests(folder: &std::path::Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for outer in fs::read_dir(folder)? {
        for file in fs::read_dir(outer?.path())? {
            names.push(file?.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

#[test]
fn plugins_and_stores_choose_by_id() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let config = "
services:
  event_stores:
    - {type: stdout}
    - {id: second, type: otel, protocol: stdout, service_name: second}
  object_stores:
    - {type: disk, path: FOLDER/first}
    - {id: b, type: disk, path: FOLDER/b, event_store: {id: second}}
    - {id: c, type: disk, path: FOLDER/c, event_store: {disabled: true}}
stacks:
  s:
    plugins:
      - {type: http_capture, config: {level: summary}}
      - {type: http_capture, config: {level: headers, object_store: {id: b}}}
      - {type: http_capture, config: {level: full, object_store: {id: c}}}
      - {type: http_capture, config: {level: full, object_store: {disabled: true}}}
      - {type: report_usage, config: {event_store: {id: second}}}
tap: {http: {stack: s}}
";
    let printed = replay(folder.path(), golden::traffic(), config)?;
    let [first, b, c] = ["first", "b", "c"].map(|name| digests(&folder.path().join(name)));
    let (first, b, c) = (first?, b?, c?);
    ensure!((first.len(), b.len(), c.len()) == (6, 6, 6), "{first:?} {b:?} {c:?}");
    let records = printed.events.iter().filter(|(kind, _)| kind.ends_with("ArtifactRecord"));
    let mut told: Vec<String> =
        records.map(|(_, event)| event["digest"].as_str().unwrap_or_default().to_owned()).collect();
    told.sort_unstable();
    ensure!(told == first, "the first event store hears of the first object store: {told:?}");
    ensure!(printed.events.iter().any(|(kind, _)| kind.ends_with("Connection")), "connections go to the first store");
    ensure!(!printed.events.iter().any(|(kind, _)| kind.ends_with("Request")), "requests go to the second one");
    let second: String = printed.otlp.iter().map(ToString::to_string).collect();
    for digest in &b {
        ensure!(second.contains(digest.as_str()), "{digest} of b is told to the second store");
    }
    ensure!(second.contains("HTTP POST (503)"), "requests go to the second store");
    // Without bodies the objects of both levels are the same.
    let only_c = c.iter().find(|digest| !b.contains(digest)).context("an object with a body")?;
    ensure!(!second.contains(only_c.as_str()) && !told.contains(only_c), "{only_c} of c is told to nobody");
    Ok(())
}

#[test]
fn domains_choose_their_stack() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let config = "
services: {event_stores: [{type: stdout}], object_stores: [{type: disk, path: FOLDER/objects}]}
stacks:
  quiet: {plugins: [{type: report_usage}]}
  loud: {plugins: [{type: report_usage}, {type: http_capture, config: {level: summary}}]}
tap:
  http: {stack: quiet}
  endpoints:
    - {domain: HTTPBIN.org, http: {stack: loud}}
    - {domain: api.openai.com, http: {stack: none}}
";
    let printed = replay(folder.path(), golden::traffic(), config)?;
    let of = |kind: &str| -> Vec<&str> {
        let own = printed.events.iter().filter(|(known, _)| known.ends_with(kind));
        own.filter_map(|(_, event)| event["endpointId"].as_str()).collect()
    };
    ensure!(of("ArtifactRecord") == ["httpbin.org"], "{:?}", of("ArtifactRecord"));
    ensure!(
        !of("Request").contains(&"api.openai.com") && of("Request").contains(&"pay.internal"),
        "{:?}",
        of("Request")
    );
    Ok(())
}

#[test]
fn a_label_of_the_pod_chooses_the_stack_before_domains() -> anyhow::Result<()> {
    let config = "
services: {event_stores: [{type: stdout}], object_stores: [{type: disk, path: FOLDER/objects}]}
stacks:
  quiet: {plugins: [{type: report_usage}]}
  loud: {plugins: [{type: http_capture, config: {level: summary}}]}
tap:
  http: {stack: quiet}
  endpoints: [{domain: httpbin.org, http: {stack: quiet}}]
";
    // The name of no stack says nothing.
    for (label, requests, objects) in [("loud", false, true), ("none", false, false), ("unheard-of", true, false)] {
        let folder = tempfile::tempdir()?;
        let traffic = golden::traffic().detail("pod.labels.tap.qpoint.io/stack", label);
        let printed = replay(folder.path(), traffic, config)?;
        let any = |kind: &str| printed.events.iter().any(|(known, _)| known.ends_with(kind));
        ensure!((any("Request"), any("ArtifactRecord")) == (requests, objects), "{label}: {:?}", printed.events);
    }
    Ok(())
}

/// One request a connection; answers with what it is told.
fn interface(answers: Vec<&'static str>) -> anyhow::Result<(u16, mpsc::Receiver<(String, Value)>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let (sender, requests) = mpsc::channel();
    std::thread::spawn(move || -> anyhow::Result<()> {
        for answer in answers {
            let (mut stream, _) = listener.accept()?;
            let mut bytes = Vec::new();
            let mut block = [0; 4096];
            let (head, body) = loop {
                let n = stream.read(&mut block)?;
                bytes.extend_from_slice(&block[..n]);
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let length = head
                    .lines()
                    .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned));
                if body.len() >= length.context("a length")?.trim().parse::<usize>()? {
                    break (head.to_owned(), body.to_owned());
                }
            };
            sender.send((head, serde_json::from_str(&body)?))?;
            let (status, text) = answer.split_once(' ').context("a status and a body")?;
            write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len())?;
        }
        Ok(())
    });
    Ok((port, requests))
}

/// As its documentation says: a POST of an array to the dataset, a bearer's token, and an answer that counts.
#[test]
fn axiom_gets_events_and_its_refusals_count() -> anyhow::Result<()> {
    let run = |answers: Vec<&'static str>| -> anyhow::Result<_> {
        let (port, requests) = interface(answers)?;
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("token"), "xaat-secret\n")?;
        let config = format!(
            "services: {{event_stores: [{{type: axiom, url: 'http://127.0.0.1:{port}', dataset: {{type: text, value: my set}}, token: {{type: file, value: FOLDER/token}}}}]}}
stacks: {{s: {{plugins: [{{type: report_usage}}]}}}}
tap: {{http: {{stack: s}}}}
"
        );
        let traffic = Traffic::default().exchange(
            "10.0.0.9:80",
            false,
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            &message("HTTP/1.1 200 OK", "", b""),
        );
        let printed = replay(folder.path(), traffic, &config)?;
        Ok((requests.try_iter().collect::<Vec<_>>(), printed))
    };
    let (requests, printed) = run(vec![r#"200 {"ingested":1,"failed":0}"#; 2])?;
    ensure!(requests.len() == 2, "requests and connections: {requests:?}");
    let (head, body) =
        requests.iter().find(|(_, body)| body[0]["event_type"] == "*eventstore.Request").context("a request")?;
    ensure!(
        head.starts_with("POST /v1/datasets/my+set/ingest HTTP/1.1")
            || head.starts_with("POST /v1/datasets/my%20set/ingest HTTP/1.1"),
        "{head}"
    );
    ensure!(head.to_lowercase().contains("authorization: bearer xaat-secret"), "{head}");
    ensure!(body[0]["method"] == "GET" && body[0]["_time"] == body[0]["timestamp"], "{body}");
    ensure!(printed.summary["ledger"]["events_delivered"] == json!(2), "{}", printed.summary);
    // What is refused for good is not sent again: the rest would be there twice.
    let (requests, printed) = run(vec![r#"200 {"ingested":0,"failed":1}"#; 3])?;
    ensure!(requests.len() == 2, "{requests:?}");
    ensure!(printed.summary["ledger"]["events_failed"] == json!(2), "{}", printed.summary);
    Ok(())
}
