//! `ringtap show`: what replays have stored, for people, as an archive that a schema of HAR accepts, and as curl commands
//! that are run against a server.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};

use crate::{
    golden,
    traffic::{Traffic, message, project, replay, run},
};

const CONFIG: &str = "
services: {object_stores: [{type: disk, path: FOLDER/objects}]}
stacks: {s: {plugins: [PLUGINS]}}
tap: {direction: egress, http: {stack: s}}
";
const FULL: &str = "{type: http_capture, config: {level: full}}";

/// What came of a command.
struct Shown {
    code: Option<i32>,
    out: String,
    err: String,
}

/// `ringtap show` in a folder's objects.
fn show(folder: &Path, arguments: &[&str]) -> anyhow::Result<Shown> {
    let objects = folder.join("objects").display().to_string();
    let (code, out, err) = run(&[&["show", "--from", &objects], arguments].concat())?;
    Ok(Shown { code, out, err })
}

/// `ringtap show -` of an object that nobody stored.
fn show_given(object: &[u8], arguments: &[&str]) -> anyhow::Result<Shown> {
    let mut program = Command::new(env!("CARGO_BIN_EXE_ringtap"))
        .args(["show", "-"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    program.stdin.take().context("a pipe")?.write_all(object)?;
    let output = program.wait_with_output()?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ok(Shown { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) })
}

/// Stores traffic, and returns the transactions' digests by their time.
fn stored(folder: &Path, traffic: Traffic, plugins: &str) -> anyhow::Result<Vec<String>> {
    replay(folder, traffic, &CONFIG.replace("PLUGINS", plugins))?;
    let mut objects = Vec::new();
    for outer in fs::read_dir(folder.join("objects"))? {
        for file in fs::read_dir(outer?.path())? {
            let path = file?.path();
            let object: Value = serde_json::from_slice(&fs::read(&path)?).unwrap_or(Value::Null);
            let time = object["transaction_time"].as_str().unwrap_or_default().to_owned();
            objects.push((time, path.file_name().unwrap_or_default().to_string_lossy().into_owned()));
        }
    }
    objects.sort_unstable();
    Ok(objects.into_iter().filter(|(time, _)| !time.is_empty()).map(|(_, digest)| digest).collect())
}

/// Beside the exchanges of every form, one that is hostile, and bodies of several kinds.
fn traffic() -> Traffic {
    let hostile = "GET /hostile HTTP/1.1\r\nHost: evil.example\r\nX-Note: a\u{9b}31mb\u{202e}c\r\n\r\n";
    let events = b"event: delta\ndata: {\"a\":[1,2.50]}\n\ndata: [DONE]\n\n";
    let lines = b"{\"n\":1}\n{\"n\":2}\n";
    let binary: Vec<u8> = (0..600u32).map(|n| (n * 7).to_le_bytes()[0]).collect();
    golden::traffic()
        .exchange("10.0.0.9:80", false, hostile.as_bytes(), &message("HTTP/1.1 200 OK", "", b"\x1b[31mred\x1b[0m\n"))
        .exchange(
            "10.0.0.9:80",
            false,
            b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n",
            &message("HTTP/1.1 200 OK", "Content-Type: text/event-stream\r\n", events),
        )
        .exchange(
            "10.0.0.9:80",
            false,
            &message("PUT /lines HTTP/1.1", "Host: a\r\nContent-Type: application/x-ndjson\r\n", lines),
            &message("HTTP/1.1 200 OK", "Content-Type: image/png\r\n", &binary),
        )
        .exchange(
            "10.0.0.9:80",
            false,
            b"GET /zipped HTTP/1.1\r\nHost: a\r\n\r\n",
            &message(
                "HTTP/1.1 200 OK",
                "Content-Type: application/json\r\nContent-Encoding: gzip\r\n",
                &gzip(b"{\"zipped\":true}"),
            ),
        )
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut coder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    coder.write_all(bytes).expect("memory");
    coder.finish().expect("memory")
}

#[test]
fn transactions_are_shown_to_people() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let digests = stored(folder.path(), traffic(), FULL)?;
    ensure!(digests.len() == 10, "{digests:?}");
    let arguments: Vec<&str> = digests.iter().map(String::as_str).collect();
    let shown = show(folder.path(), &arguments)?;
    ensure!(shown.code == Some(0) && shown.err.is_empty(), "{}", shown.err);
    golden::compare("show.txt", &shown.out)?;
    // Colours change nothing else.
    let coloured = show(folder.path(), &[&arguments[..], &["--color", "always"]].concat())?;
    ensure!(coloured.out.contains("\x1b[1;32m200 OK\x1b[0m"));
    let colours = regex::Regex::new("\x1b\\[[0-9;]*m")?;
    ensure!(colours.replace_all(&coloured.out, "") == shown.out);
    // The last ones are some of the same; of a prefix, the one.
    let last = show(folder.path(), &["--last", "3"])?;
    ensure!(last.out.matches("\n  object ").count() == 3, "{}", last.out);
    let short = show(folder.path(), &[&digests[0][..12]])?;
    ensure!(!short.out.is_empty() && shown.out.starts_with(&short.out), "{}", short.out);
    Ok(())
}

#[test]
fn other_objects_are_shown_as_they_are() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let plugins = "{type: http_capture, config: {level: headers, format: text}}, {type: llm}";
    ensure!(stored(folder.path(), golden::traffic(), plugins)?.is_empty());
    let shown = show(folder.path(), &["--last", "100"])?;
    ensure!(shown.out.contains("HTTP Transaction\n================\n"), "{}", shown.out);
    ensure!(shown.out.contains("{\n  \"id\": \"c-1\",\n  \"provider\": \"openai\",\n"), "{}", shown.out);
    let none = show(folder.path(), &["--last", "100", "--har"])?;
    let archive: Value = serde_json::from_str(&none.out)?;
    ensure!(
        archive["log"]["entries"] == json!([]) && none.err.contains("7 of 7 objects are no transactions"),
        "{}",
        none.err
    );
    Ok(())
}

#[test]
fn errors_say_what_to_do() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let put = |name: &str, bytes: &[u8]| -> anyhow::Result<()> {
        let outer = folder.path().join("objects").join(&name[..2]);
        fs::create_dir_all(&outer)?;
        Ok(fs::write(outer.join(name), bytes)?)
    };
    let alike = ["abcd00000000000000000000000000000000000a", "abcd00000000000000000000000000000000000b"];
    for name in alike {
        put(name, b"x")?;
    }
    for (arguments, code, told) in [
        (&["abc"][..], 2, "`abc` is not a digest"),
        (&["xyz0"], 2, "`xyz0` is not a digest"),
        (&["--last", "0"], 2, "--last"),
        (&["--har", "--curl", "abcd"], 2, "cannot be used with"),
        (&[], 2, "required"),
        (&["abcd"], 1, alike[1]),
        (&[alike[0]], 1, "was changed or is damaged"),
        (&["abce"], 1, "no object abce in "),
        (&["/nowhere/x"], 1, "cannot read /nowhere/x"),
    ] {
        let shown = show(folder.path(), arguments)?;
        ensure!(shown.code == Some(code) && shown.err.contains(told), "{arguments:?}: {:?} {}", shown.code, shown.err);
        ensure!(shown.out.is_empty(), "{}", shown.out);
    }
    let config = folder.path().join("config.yaml");
    for (stores, last, told) in [
        ("[{type: stdout}]", false, "no object store that can be read"),
        ("[{type: s3, endpoint: 'a:1', bucket: b, insecure: true}]", true, "a bucket does not tell its newest objects"),
    ] {
        fs::write(&config, format!("services: {{object_stores: {stores}}}\ntap: {{direction: all}}\n"))?;
        let arguments: &[&str] = if last { &["--last", "1"] } else { &["abcd"] };
        let (code, _, err) = run(&[&["show", "--config", &config.display().to_string()], arguments].concat())?;
        ensure!(code == Some(2) && err.contains(told), "{code:?} {err}");
    }
    let unfit = show_given(b"HTTP Transaction\n", &["--curl"])?;
    ensure!(unfit.code == Some(1) && unfit.err.contains("a transaction in text"), "{}", unfit.err);
    Ok(())
}

/// An object in which every text drives terminals, and what is printed of it.
#[test]
fn no_terminal_is_driven_by_traffic() -> anyhow::Result<()> {
    let bad = "\u{1b}[2J\u{1b}]52;c;eA==\u{7}\u{9b}31m\u{202e}\u{2066}\r\u{8}\u{200b}\u{e0041}";
    let body = base64::engine::general_purpose::STANDARD.encode(format!("{{\"{bad}\": 1"));
    let object = json!({
        "metadata": {"process_exe": bad, "process_id": bad, "container_name": bad, "pod_name": bad, "tags": [bad],
            "connection_id": bad, "request_id": bad, "endpoint_id": bad, "socket": bad},
        "request": {"method": "GET", "url": format!("http://a/{bad}"), "path": bad, "protocol": bad,
            "headers": {(bad): bad, "X": bad, "Accept": "a"}, "body": body, "truncated": bad, "body_decoded": bad},
        "response": {"status": 200, "headers": {"X": bad}, "body": body, "content_type": bad,
            "messages": {"dialect": bad, "count": 1, "list": []}},
        "service": bad, "grpc_status": 1, "grpc_status_name": bad, "grpc_message": bad,
        "transaction_time": bad, "duration_ms": 1, "direction": bad,
        "damage": [{"cause": bad, "part": bad, "start": 1, "end": 2}],
    });
    let odd = |c: char| (c.is_control() && c != '\n') || "\u{202e}\u{2066}\u{200b}\u{e0041}".contains(c);
    let object = serde_json::to_vec(&object)?;
    let colours = regex::Regex::new("\x1b\\[[0-9;]*m")?;
    for arguments in [&[][..], &["--har"], &["--curl"], &["--color", "always"]] {
        let mut shown = show_given(&object, arguments)?;
        ensure!(shown.code == Some(0), "{}", shown.err);
        if arguments.contains(&"always") {
            shown.out = colours.replace_all(&shown.out, "").into_owned();
        }
        for printed in [&shown.out, &shown.err] {
            let at = printed.find(odd).map(|at| printed[..at].lines().last().unwrap_or_default().to_owned());
            ensure!(at.is_none(), "{arguments:?}: {at:?}");
        }
    }
    // Also in what is no transaction.
    for other in [format!("{{\"a\":\"\u{202e}\u{9b}{}\"}}", "b"), format!("text {bad}")] {
        let shown = show_given(other.as_bytes(), &[])?;
        ensure!(!shown.out.is_empty() && !shown.out.contains(odd), "{:?}", shown.out);
    }
    Ok(())
}

/// The schema of HAR 1.2 with its parts in one document.
fn har_schema() -> anyhow::Result<jsonschema::Validator> {
    fn inside(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.remove("$id");
                if let Some(Value::String(to)) = fields.get_mut("$ref") {
                    *to = format!("#/definitions/{}", to.trim_end_matches(".json#"));
                }
                fields.values_mut().for_each(inside);
            }
            Value::Array(items) => items.iter_mut().for_each(inside),
            _ => {}
        }
    }
    let mut definitions = serde_json::Map::new();
    for file in fs::read_dir(project(".cache/tools/npm/node_modules/har-schema/lib"))? {
        let path = file?.path();
        if let Some(name) = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".json"))
        {
            let mut part: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
            inside(&mut part);
            definitions.insert(name.to_owned(), part);
        }
    }
    let whole = json!({"$schema": "http://json-schema.org/draft-06/schema#", "$ref": "#/definitions/har", "definitions": definitions});
    let options = jsonschema::options().should_validate_formats(true);
    options.build(&whole).map_err(|error| anyhow::anyhow!("{error}"))
}

#[test]
fn archives_are_har() -> anyhow::Result<()> {
    let schema = har_schema()?;
    ensure!(!schema.is_valid(&json!({"log": {"version": "1.2", "creator": {"name": "a", "version": "1"}}})));
    let folder = tempfile::tempdir()?;
    let digests = stored(folder.path(), traffic(), FULL)?;
    let shown = show(folder.path(), &["--last", "100", "--har"])?;
    ensure!(shown.code == Some(0) && shown.err.is_empty(), "{}", shown.err);
    let archive: Value = serde_json::from_str(&shown.out)?;
    let faults: Vec<String> =
        schema.iter_errors(&archive).map(|error| format!("{}: {error}", error.instance_path())).collect();
    ensure!(faults.is_empty(), "{faults:#?}");
    let entries = archive["log"]["entries"].as_array().context("entries")?;
    let by_time: Vec<&str> = entries.iter().filter_map(|entry| entry["_ringtap"]["digest"].as_str()).collect();
    ensure!(by_time == digests, "{by_time:?}");
    let find = |url: &str| entries.iter().find(|entry| entry["request"]["url"] == url).context("an entry");
    let pay = find("http://pay.internal:8080/pay?order=7&api_key=****cdef")?;
    for (pointer, expected) in [
        ("/request/postData/text", json!(r#"{"card":"4111111111111111","password":"****tery"}"#)),
        ("/request/queryString/0", json!({"name": "order", "value": "7"})),
        ("/response/statusText", json!("Service Unavailable")),
        ("/response/content/text", json!("try later")),
        ("/response/cookies/1/name", json!("theme")),
        ("/timings/wait", pay["time"].clone()),
        ("/serverIPAddress", json!("10.0.0.9")),
        ("/_ringtap/process/exe", json!("/usr/bin/curl")),
    ] {
        ensure!(pay.pointer(pointer) == Some(&expected), "{pointer}: {pay:#}");
    }
    let accepts =
        pay["request"]["headers"].as_array().context("fields")?.iter().filter(|field| field["name"] == "Accept");
    ensure!(accepts.count() == 2, "{pay:#}");
    let cut = find("http://a/cut")?;
    ensure!(
        cut["_ringtap"]["damage"][0]["cause"] == "fault" && cut["_ringtap"]["response"]["truncated"] == "damage",
        "{cut:#}"
    );
    let image = &find("http://a/lines")?["response"]["content"];
    ensure!(image["encoding"] == "base64" && image["size"] == 600, "{image:#}");
    let zipped = &find("http://a/zipped")?["response"];
    ensure!(
        zipped["content"]["text"] == "{\"zipped\":true}" && zipped["bodySize"] != zipped["content"]["size"],
        "{zipped:#}"
    );
    Ok(())
}

/// A request as a server gets it.
#[derive(Debug, PartialEq, Eq, Clone)]
struct Arrived {
    line: String,
    fields: Vec<String>,
    body: Vec<u8>,
}

impl Arrived {
    /// With the fields that are about the message, not the hop.
    fn of(head: &str, body: Vec<u8>) -> Self {
        let mut lines = head.lines();
        let line = lines.next().unwrap_or_default().to_owned();
        let hop = ["content-length", "connection", "transfer-encoding"];
        let field = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        let fields = lines.filter_map(field).filter(|(name, _)| !hop.contains(&name.as_str()));
        let mut fields: Vec<String> = fields.map(|(name, value)| format!("{name}: {value}")).collect();
        fields.sort_unstable();
        Self { line, fields, body }
    }

    fn read(stream: &mut TcpStream) -> anyhow::Result<Self> {
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let (mut bytes, mut block) = (Vec::new(), [0; 8192]);
        loop {
            let head = bytes.windows(4).position(|end| end == b"\r\n\r\n");
            if let Some(end) = head {
                let head = String::from_utf8(bytes[..end].to_vec())?;
                let length = head
                    .lines()
                    .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
                if bytes.len() >= end + 4 + length.unwrap_or(0) {
                    return Ok(Self::of(&head, bytes[end + 4..].to_vec()));
                }
            }
            let read = stream.read(&mut block)?;
            ensure!(read > 0, "the request broke off");
            bytes.extend_from_slice(&block[..read]);
        }
    }
}

fn by_shell(folder: &Path, script: &str) -> anyhow::Result<()> {
    // Not as an argument: those have a length that no body keeps to.
    let file = folder.join("script");
    fs::write(&file, script)?;
    let output = Command::new("sh").arg(&file).env("HOME", folder).env("LC_ALL", "C").output()?;
    ensure!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
fn curl_sends_the_same_again() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let host = listener.local_addr()?.to_string();
    let (arrived, requests) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let answer = stream.map_err(anyhow::Error::from).and_then(|mut stream| {
                let request = Arrived::read(&mut stream)?;
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
                Ok(request)
            });
            if arrived.send(answer).is_err() {
                break;
            }
        }
    });
    let binary: Vec<u8> = (0..=255).cycle().take(5000).collect();
    let long = "a line with 'quotes' and $signs\n".repeat(7000);
    let json = b"{\n  \"it's\": \"$(id) `id` \\\\ !\"\n}\n";
    let sent: Vec<(&str, String, &[u8])> = vec![
        (
            "GET /items/%20a/../b?q='x'&y=$(id)&z=[1]{2}&w=a\"b&*",
            "Accept: */*\r\nUser-Agent: it's \"$HOME\" `id` \\ !\r\nX-Two: 1\r\nX-Two: 2\r\nX-Empty:\r\n".into(),
            b"",
        ),
        ("POST /json", "Content-Type: application/json\r\n".into(), json),
        ("POST /at", "Accept: a\r\n".into(), b"@/etc/passwd"),
        ("POST /binary", "Content-Type: application/octet-stream\r\nAccept-Encoding: gzip, br\r\n".into(), &binary),
        ("PUT /long", "Content-Type: text/plain\r\n".into(), long.as_bytes()),
        ("POST /empty", "Accept: a\r\n".into(), b""),
        ("DELETE /one", "Accept: a\r\nConnection: x-hop\r\nX-Hop: 1\r\n".into(), b""),
        ("HEAD /head", "Accept: a\r\n".into(), b""),
        ("PATCH /odd", "X-Odd: a\u{202e}b\u{a0}ü\r\n".into(), "\u{1b}[31m\u{202e}red".as_bytes()),
    ];
    let mut traffic = Traffic::default();
    let mut expected = Vec::new();
    for (line, fields, body) in &sent {
        let head = format!("{line} HTTP/1.1");
        let fields = format!("Host: {host}\r\n{fields}");
        let bodiless = ["GET", "HEAD", "DELETE"].iter().any(|method| line.starts_with(method));
        let request =
            if bodiless { format!("{head}\r\n{fields}\r\n").into_bytes() } else { message(&head, &fields, body) };
        traffic = traffic.exchange("10.0.0.9:80", false, &request, &message("HTTP/1.1 204 None", "", b""));
        let kept: String =
            fields.lines().filter(|line| !line.starts_with("X-Hop")).flat_map(|line| [line, "\n"]).collect();
        expected.push(Arrived::of(&format!("{head}\n{kept}"), body.to_vec()));
    }
    let folder = tempfile::tempdir()?;
    let digests = stored(folder.path(), traffic, FULL)?;
    ensure!(digests.len() == sent.len(), "{digests:?}");
    for (digest, expected) in digests.iter().zip(expected) {
        let shown = show(folder.path(), &[digest, "--curl"])?;
        ensure!(shown.code == Some(0) && shown.err.is_empty(), "{}", shown.err);
        by_shell(folder.path(), &shown.out)?;
        let found = requests.recv_timeout(Duration::from_secs(10))??;
        ensure!(
            found == expected,
            "{}\nfound {found:#?}\nexpected {expected:#?}",
            &shown.out[..shown.out.len().min(2000)]
        );
    }
    // What was coded goes in clear, and that is told.
    let coded =
        message("POST /coded HTTP/1.1", &format!("Host: {host}\r\nContent-Encoding: gzip\r\n"), &gzip(b"in clear"));
    let traffic = Traffic::default().exchange("10.0.0.9:80", false, &coded, &message("HTTP/1.1 204 None", "", b""));
    let folder = tempfile::tempdir()?;
    stored(folder.path(), traffic, FULL)?;
    let shown = show(folder.path(), &["--last", "1", "--curl"])?;
    ensure!(shown.err.contains("without its content coding (gzip)"), "{}", shown.err);
    by_shell(folder.path(), &shown.out)?;
    let found = requests.recv_timeout(Duration::from_secs(10))??;
    ensure!(found.body == b"in clear" && !found.fields.iter().any(|field| field.contains("gzip")), "{found:?}");
    Ok(())
}

/// Over HTTP/2 as it was, with what a call of gRPC needs.
#[test]
fn curl_speaks_http2_again() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (arrived, requests) = mpsc::channel();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
    let host = listener.local_addr()?.to_string();
    runtime.spawn(async move {
        let (stream, _) = listener.accept().await?;
        let mut connection = h2::server::handshake(stream).await?;
        while let Some(request) = connection.accept().await {
            let (request, mut respond) = request?;
            let (head, mut body) = request.into_parts();
            let arrived = arrived.clone();
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                while let Some(Ok(data)) = body.data().await {
                    bytes.extend_from_slice(&data);
                    let _ = body.flow_control().release_capacity(data.len());
                }
                let _ = respond.send_response(hyper::Response::new(()), true);
                let _ = arrived.send((head, bytes));
            });
        }
        anyhow::Ok(())
    });
    let frame = b"\0\0\0\0\x03\x08\x96\x01";
    let object = json!({
        "metadata": {"tags": ["protocol:http2"]},
        "service": "s.S", "method": "M",
        "request": {
            "headers": {":authority": host, ":scheme": "http", ":path": "/s.S/M", ":method": "POST",
                "Content-Type": "application/grpc", "Te": "trailers"},
            "body": base64::engine::general_purpose::STANDARD.encode(frame), "body_encoding": "base64",
        },
        "response": {"headers": {":status": "200"}},
    });
    let shown = show_given(&serde_json::to_vec(&object)?, &["--curl"])?;
    ensure!(shown.code == Some(0) && shown.err.is_empty(), "{}", shown.err);
    let folder = tempfile::tempdir()?;
    by_shell(folder.path(), &shown.out)?;
    let (head, body) = requests.recv_timeout(Duration::from_secs(10))?;
    ensure!(head.version == hyper::Version::HTTP_2 && head.method == "POST" && head.uri.path() == "/s.S/M", "{head:?}");
    ensure!(head.headers["te"] == "trailers" && head.headers["content-type"] == "application/grpc", "{head:?}");
    ensure!(!head.headers.contains_key("user-agent") && body == frame, "{head:?} {body:?}");
    Ok(())
}

#[test]
fn masks_are_told() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    stored(folder.path(), golden::traffic(), FULL)?;
    let shown = show(folder.path(), &["--last", "100", "--curl"])?;
    ensure!(shown.out.contains("-H 'Authorization: Bearer ****cdef'"), "{}", shown.out);
    ensure!(shown.err.contains("credentials are masked by **** in the url, Authorization, the body"), "{}", shown.err);
    Ok(())
}

/// The digest of standard input is that of its bytes.
#[test]
fn standard_input_is_an_object() -> anyhow::Result<()> {
    let object = fs::read(project("tests/golden/guide-object.json"))?;
    let shown = show_given(&object, &[])?;
    ensure!(
        shown.out.starts_with("GET https://httpbin.org/status/500\n500 Internal Server Error in 767 ms"),
        "{}",
        shown.out
    );
    ensure!(shown.out.contains(&format!("{:x}", Sha1::digest(&object))), "{}", shown.out);
    Ok(())
}
