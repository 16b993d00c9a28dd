//! Every form of event, object and line, compared with what stands in `tests/golden`. `RINGTAP_GOLDEN_UPDATE=1` writes
//! what came out there: read the difference before you keep it.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::traffic::{Printed, Traffic, message, project, replay};

const CONFIG: &str = r#"
version: 2
services:
  event_stores: [{type: STORE, protocol: stdout, flat_attributes: FLAT}]
  object_stores: [{type: STORE, protocol: stdout, otel_endpoint: "collector:4317"}]
rulekit:
  macros:
    - {name: is_error, expr: http.res.status >= 400 && http.res.status < 600}
stacks:
  s:
    plugins:
      - {type: report_usage, config: {headers: [Content-Type]}}
      - {type: http_capture, config: {level: summary, rules: [{name: errors, expr: is_error(), level: full}]}}
      - {type: http_capture, config: {level: headers, format: text}}
      - {type: http_capture, config: {level: full}}
      - type: detect_errors
        config:
          rules:
            - {name: server error, trigger_status_codes: [5xx], trigger_duration: 1ms, report_as_issue: true,
               record_req_headers: true, record_req_body: true, record_res_headers: true, record_res_body: true}
      - type: data_loss_protection
        config: {rules: [{label: card, expression: '4\d{15}', report: true, record: true, scrub: true}]}
      - {type: llm}
LOGS
tap: {direction: egress, http: {stack: s}}
"#;

const LOGS: &str = "      - {type: access_logs, config: {mode: full}}
      - {type: access_logs, config: {mode: summary}}
      - {type: debug, config: {mode: details}}
      - {type: debug}";

/// The exchange of the guide, and one of every other kind.
pub fn traffic() -> Traffic {
    let grpc = "POST /shop.v1.Cart/Add HTTP/1.1\r\nHost: cart.internal\r\nContent-Type: application/grpc+proto\r\nTE: trailers\r\nContent-Length: 5\r\n\r\n\0\0\0\0\0";
    let grpc_answer = "HTTP/1.1 200 OK\r\nContent-Type: application/grpc+proto\r\nTransfer-Encoding: chunked\r\nTrailer: grpc-status\r\n\r\n5\r\n\0\0\0\0\0\r\n0\r\ngrpc-status: 5\r\ngrpc-message: no%20cart\r\n\r\n";
    let ask = br#"{"model":"m-1","messages":[{"role":"user","content":"hi"}]}"#;
    let told = br#"{"id":"c-1","model":"m-1","choices":[{"message":{"role":"assistant","content":"hello"}}]}"#;
    Traffic::default()
        .exchange(
            "203.0.113.7:443",
            true,
            b"GET /status/500 HTTP/1.1\r\nHost: httpbin.org\r\nUser-Agent: curl/8.18.0\r\nAccept: */*\r\n\r\n",
            &message("HTTP/1.1 500 INTERNAL SERVER ERROR", "Content-Type: text/html; charset=utf-8\r\nServer: gunicorn/19.9.0\r\n", b""),
        )
        .exchange(
            "10.0.0.9:8080",
            false,
            &message(
                "POST /pay?order=7&api_key=0123456789abcdef HTTP/1.1",
                "Host: pay.internal:8080\r\nAuthorization: Bearer 0123456789abcdef\r\nContent-Type: application/json\r\n\
                 traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nAccept: a\r\nAccept: b\r\n",
                br#"{"card":"4111111111111111","password":"correct horse battery"}"#,
            ),
            &message("HTTP/1.1 503 Busy", "Content-Type: text/plain\r\nSet-Cookie: sid=0123456789abcdef; Path=/\r\nSet-Cookie: theme=dark\r\n", b"try later"),
        )
        .exchange("10.0.0.9:50051", false, grpc.as_bytes(), grpc_answer.as_bytes())
        .exchange(
            "203.0.113.8:443",
            true,
            &message("POST /v1/chat/completions HTTP/1.1", "Host: api.openai.com\r\nContent-Type: application/json\r\n", ask),
            &message("HTTP/1.1 200 OK", "Content-Type: application/json\r\n", told),
        )
        .exchange("10.0.0.9:80", false, b"GET /gone HTTP/1.1\r\nHost: a\r\n\r\n", b"")
        .damaged("10.0.0.9:80", b"GET /cut HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\nabcd", 5)
}

fn printed(store: &str, flat: bool, logs: &str) -> anyhow::Result<Printed> {
    let folder = tempfile::tempdir()?;
    let config = CONFIG.replace("STORE", store).replace("FLAT", &flat.to_string()).replace("LOGS", logs);
    replay(folder.path(), traffic(), &config)
}

/// Compares with the file, or writes it.
pub fn compare(name: &str, found: &str) -> anyhow::Result<()> {
    let path = project("tests/golden").join(name);
    if std::env::var_os("RINGTAP_GOLDEN_UPDATE").is_some() {
        std::fs::write(&path, found)?;
    }
    let expected = std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
    let differs = found.lines().zip(expected.lines()).position(|(a, b)| a != b);
    let line = differs.unwrap_or_else(|| found.lines().count().min(expected.lines().count()));
    let at = |text: &str| text.lines().nth(line).unwrap_or("the end").to_owned();
    ensure!(found == expected, "{name}:{}: found\n{}\nexpected\n{}", line + 1, at(found), at(&expected));
    Ok(())
}

#[test]
fn events_and_objects_have_their_forms() -> anyhow::Result<()> {
    let printed = printed("stdout", false, "")?;
    // Stores take batches side by side: what came in which order is not part of the form.
    let mut events = Vec::new();
    for (kind, event) in &printed.events {
        events.push(format!("{kind} {}\n", serde_json::to_string_pretty(event)?));
    }
    events.sort_unstable();
    compare("events.txt", &events.concat())?;
    let mut objects = Vec::new();
    for (content_type, bytes) in &printed.objects {
        let text = match serde_json::from_slice::<Value>(bytes) {
            Ok(value) => serde_json::to_string_pretty(&value)?,
            Err(_) => String::from_utf8(bytes.clone())?,
        };
        objects.push(format!("--- {content_type}\n{text}\n"));
    }
    objects.sort_unstable();
    let objects = objects.concat();
    compare("objects.txt", &objects)
}

#[test]
fn lines_have_their_forms() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let config = format!("stacks:\n  s:\n    plugins:\n{LOGS}\ntap: {{http: {{stack: s}}}}\n");
    let printed = replay(folder.path(), traffic(), &config)?;
    compare("lines.txt", &(printed.lines.join("\n") + "\n"))
}

/// Attributes stand in any order, and the time of observation is that of the test.
fn stable(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("observedTimeUnixNano");
            fields.values_mut().for_each(stable);
        }
        Value::Array(items) => {
            items.iter_mut().for_each(stable);
            if items.iter().all(|item| item.get("key").is_some()) {
                items.sort_by_key(|item| item["key"].to_string());
            }
        }
        _ => {}
    }
}

fn is_kind(line: &str) -> bool {
    line.contains("\"event.type\"") || line.contains("\"artifact.type\"")
}

#[test]
fn log_records_have_their_form() -> anyhow::Result<()> {
    for (name, flat) in [("otlp.txt", false), ("otlp-flat.txt", true)] {
        let requests = printed("otel", flat, "")?.otlp;
        let mut records = Vec::new();
        for mut request in requests {
            stable(&mut request);
            for outer in request["resourceLogs"].as_array().into_iter().flatten() {
                for inner in outer["scopeLogs"].as_array().into_iter().flatten() {
                    for record in inner["logRecords"].as_array().into_iter().flatten() {
                        let record = json!({"resource": outer["resource"], "scope": inner["scope"], "record": record});
                        records.push(serde_json::to_string_pretty(&record)? + "\n");
                    }
                }
            }
        }
        records.sort_unstable();
        // One of each kind shows its form.
        let mut kinds = Vec::new();
        records.retain(|record| {
            let kind = record.lines().skip_while(|line| !is_kind(line)).nth(2).map(str::to_owned);
            let new = !kinds.contains(&kind) && (!flat || record.contains("HTTP POST (503)"));
            kinds.extend(new.then_some(kind));
            new
        });
        let text = records.concat().replace(&format!("\"{}\"", env!("CARGO_PKG_VERSION")), "\"VERSION\"");
        compare(name, &text)?;
    }
    Ok(())
}

/// The samples of the guide: each member is there with its value, except for those that name a moment, and HTTP/2.
#[test]
fn the_guides_samples_are_reproduced() -> anyhow::Result<()> {
    fn members(value: &Value, path: &str, to: &mut Vec<(String, Value)>) {
        match value {
            Value::Object(fields) => {
                fields.iter().for_each(|(name, value)| members(value, &format!("{path}/{name}"), to));
            }
            leaf => to.push((path.to_owned(), leaf.clone())),
        }
    }
    let sample = |name: &str| -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&std::fs::read_to_string(project("tests/golden").join(name))?)?)
    };
    let printed = printed("stdout", false, "")?;
    let records = printed.events.iter().filter(|(kind, _)| kind.ends_with("ArtifactRecord")).map(|(_, event)| event);
    let record =
        records.into_iter().find(|r| r["summary"]["request_host"] == "httpbin.org" && r["type"] == "http_transaction");
    let objects = printed.objects.iter().filter_map(|(_, bytes)| serde_json::from_slice::<Value>(bytes).ok());
    let object =
        objects.into_iter().find(|o| o["request"]["authority"] == "httpbin.org" && o["request"]["headers"].is_object());
    let (record, object) = (record.context("a record")?, object.context("an object")?);
    let other = [
        "/digest",
        "/url",
        "/summary/duration_ms",
        "/metadata/bytes_sent",
        "/metadata/bytes_received",
        "/metadata/connection_id",
        "/duration_ms",
        "/request/protocol",
    ];
    for (sample, found) in [(sample("guide-artifact-record.json")?, record), (sample("guide-object.json")?, &object)] {
        let mut expected = Vec::new();
        members(&sample, "", &mut expected);
        for (path, value) in expected {
            let ours = found.pointer(&path).with_context(|| format!("{path} is not in {found:#}"))?;
            let alike =
                if other.contains(&path.as_str()) { ours.is_string() == value.is_string() } else { *ours == value };
            ensure!(alike, "{path}: found {ours}, expected {value}");
        }
    }
    Ok(())
}
