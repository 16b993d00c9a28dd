//! Planted secrets do not leave, whatever the way; and they do where the configuration says so.

use std::{fs, io::Write as _};

use anyhow::ensure;

use crate::traffic::{Traffic, message, replay};

/// Each stands once, in a place of its own.
const SECRETS: [&str; 23] = [
    "bearer-0a1b2c3d4e5f6071",
    "dXNlcjpiYXNpYy1zZWNyZXQtMTIz",
    "cookie-1a1b2c3d4e5f6071",
    "setcookie-2a1b2c3d4e5f60",
    "apikeyheader-3a1b2c3d4e5",
    "query-4a1b2c3d4e5f607182",
    "userinfo-5a1b2c3d4e5f607",
    "referer-6a1b2c3d4e5f6071",
    "json-7a1b2c3d4e5f6071829",
    "form-8a1b2c3d4e5f6071829",
    "AKIAIOSFODNN7SECRETS",
    "ghp_9a1b2c3d4e5f60718293a4b5c6d7e8f90a1b",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJzZWNyZXQifQ.c2VjcmV0LXNpZ25hdHVyZQ",
    "path-aa1b2c3d4e5f6071829",
    "pattern-4242424242424242",
    "location-ba1b2c3d4e5f607",
    "gzip-ca1b2c3d4e5f6071829",
    "zstd-da1b2c3d4e5f6071829",
    "multipart-ea1b2c3d4e5f60",
    "element-fa1b2c3d4e5f6071",
    "text-in-text-0b2c3d4e5f60",
    "fragment-1b2c3d4e5f607182",
    "image-2b2c3d4e5f60718293",
];

fn traffic() -> Traffic {
    let [
        bearer,
        basic,
        cookie,
        set_cookie,
        key,
        query,
        user,
        referer,
        json,
        form,
        aws,
        github,
        jwt,
        path,
        pattern,
        location,
        gzip,
        zstd,
        multipart,
        element,
        nested,
        fragment,
        image,
    ] = SECRETS;
    let request = message(
        &format!("POST /a?access_token={query}&page=2 HTTP/1.1"),
        &format!(
            "Host: a.example\r\nAuthorization: Bearer {bearer}\r\nProxy-Authorization: Basic {basic}\r\nCookie: sid={cookie}; a=b\r\n\
             X-Api-Key: {key}\r\nReferer: https://me:{user}@b.example/?token={referer}\r\nContent-Type: application/json\r\n"
        ),
        format!(r#"{{"a":{{"password":"{json}","deep":[{{"ssn":"{path}"}}]}},"note":"{aws} {jwt} {pattern}"}}"#)
            .as_bytes(),
    );
    let response = message(
        "HTTP/1.1 500 Oops",
        &format!(
            "Content-Type: text/plain\r\nSet-Cookie: sid={set_cookie}; Path=/\r\nLocation: /next?sig={location}\r\n"
        ),
        format!("the token is {github}").as_bytes(),
    );
    let posted = message(
        "POST /login HTTP/1.1",
        "Host: a.example\r\nContent-Type: application/x-www-form-urlencoded\r\n",
        format!("user=ann&password={form}").as_bytes(),
    );
    let empty = message("HTTP/1.1 204 No Content", "", b"");
    let mut traffic = Traffic::default().exchange("203.0.113.7:443", true, &request, &response).exchange(
        "203.0.113.7:80",
        false,
        &posted,
        &empty,
    );
    let form = format!("--b\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\n{multipart}\r\n--b--\r\n");
    let bodies = [
        ("gzip", "application/json", coded_with_gzip(&format!(r#"{{"client_secret":"{gzip}"}}"#))),
        ("zstd", "text/plain", coded_with_zstd(&format!("https://a.example/?api_key={zstd}"))),
        ("identity", "multipart/form-data; boundary=b", form.into_bytes()),
        ("identity", "text/xml", format!("<a><s:password>{element}</s:password></a>").into_bytes()),
        ("identity", "text/plain", format!(r#"{{"event":"{{\"token\":\"{nested}\"}}"}}"#).into_bytes()),
        ("identity", "text/html", format!("<a href='/cb#access_token={fragment}'>").into_bytes()),
        // What the sender calls it takes nothing away.
        ("identity", "image/png", format!(r#"{{"password":"{image}"}}"#).into_bytes()),
    ];
    for (coding, kind, body) in bodies {
        let headers = format!("Host: a.example\r\nContent-Type: {kind}\r\nContent-Encoding: {coding}\r\n");
        let posted = message("POST /coded HTTP/1.1", &headers, &body);
        traffic = traffic.exchange("203.0.113.7:80", false, &posted, &empty);
    }
    traffic
}

fn coded_with_gzip(text: &str) -> Vec<u8> {
    let mut coder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    coder.write_all(text.as_bytes()).and_then(|()| coder.finish()).expect("memory")
}

fn coded_with_zstd(text: &str) -> Vec<u8> {
    zstd::encode_all(text.as_bytes(), 3).expect("memory")
}

const PLUGINS: &str = "
stacks:
  s:
    plugins:
      - {type: report_usage, config: {headers: [Authorization, Cookie, Set-Cookie]}}
      - {type: access_logs, config: {mode: full}}
      - {type: debug, config: {mode: full}}
      - {type: http_capture, config: {level: full}}
      - {type: http_capture, config: {level: full, format: text}}
      - {type: http_capture, config: {level: full, object_store: {id: otlp}}}
      - {type: http_capture, config: {level: full, object_store: {id: disk}}}
      - {type: data_loss_protection, config: {scan_headers: true, rules: [{label: all, expression: '[a-z]+-[0-9a-f]{10,}', report: true, record: true}]}}
      - {type: llm}
      - type: detect_errors
        config: {rules: [{name: e, trigger_status_codes: [5xx], report_as_issue: true, record_req_headers: true, record_req_body: true, record_res_headers: true, record_res_body: true}]}
tap: {http: {stack: s}}
";

const STORES: &str = "
services:
  event_stores: [{type: stdout}]
  object_stores:
    - {type: stdout}
    - {id: otlp, type: otel, protocol: stdout}
    - {id: disk, type: disk, path: FOLDER/objects}
";

/// Everything that left, as one text: lines, objects decoded, files, bodies decoded.
fn everything(config: &str) -> anyhow::Result<String> {
    use base64::Engine as _;
    let folder = tempfile::tempdir()?;
    let printed = replay(folder.path(), traffic(), config)?;
    let mut all = printed.text.clone() + &printed.said;
    let mut pieces: Vec<Vec<u8>> = printed.objects.into_iter().map(|(_, bytes)| bytes).collect();
    for outer in fs::read_dir(folder.path().join("objects"))? {
        for file in fs::read_dir(outer?.path())? {
            pieces.push(fs::read(file?.path())?);
        }
    }
    for piece in pieces {
        let text = String::from_utf8_lossy(&piece).into_owned();
        // Bodies stand in objects as base64.
        for word in text.split('"') {
            let decoded = base64::engine::general_purpose::STANDARD.decode(word).unwrap_or_default();
            all += &String::from_utf8_lossy(&decoded);
        }
        all += &text;
    }
    Ok(all)
}

#[test]
fn secrets_do_not_leave() -> anyhow::Result<()> {
    let redaction = "redaction: {json_paths: ['$..ssn'], patterns: ['pattern-\\d+']}\n";
    let all = everything(&format!("{STORES}{PLUGINS}{redaction}"))?;
    for secret in SECRETS {
        // The mask shows the last four characters.
        let hidden = &secret[..secret.len() - 4];
        let around = all.find(hidden).map(|at| all[at.saturating_sub(200)..(at + 100).min(all.len())].to_owned());
        ensure!(around.is_none(), "{secret} has left: {}", around.unwrap_or_default());
    }
    for kept in
        ["page=2", "user=ann", "Bearer ****6071", "sid=****6071; a=****", "password", "****0a1b", "the token is"]
    {
        ensure!(all.contains(kept), "{kept} is gone");
    }
    Ok(())
}

#[test]
fn redaction_is_off_only_by_its_key() -> anyhow::Result<()> {
    let all = everything(&format!("{STORES}{PLUGINS}redaction: {{enabled: false}}\n"))?;
    ensure!(all.contains("credentials are not masked"), "nobody was warned");
    for secret in SECRETS {
        ensure!(all.contains(secret), "{secret} is masked");
    }
    Ok(())
}

/// Whoever gets it could undo a coding that the agent does not know.
#[test]
fn what_cannot_be_looked_into_is_withheld() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let headers = "Host: a.example\r\nContent-Type: application/json\r\nContent-Encoding: compress\r\n";
    let posted = message("POST /coded HTTP/1.1", headers, b"\x1f\x9d\x90{\"password\":\"hunter2hunter2\"}");
    let traffic = Traffic::default().exchange("203.0.113.7:80", false, &posted, &message("HTTP/1.1 204 X", "", b""));
    let printed = replay(folder.path(), traffic, &format!("{STORES}{PLUGINS}"))?;
    ensure!(!printed.text.contains("hunter2"), "{}", printed.text);
    ensure!(printed.text.contains("redacted"), "nobody was told: {}", printed.text);
    Ok(())
}
