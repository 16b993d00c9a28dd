//! OTLP: what each answer of a collector comes to, what goes over the wire, and TLS.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use arrow_array::RecordBatch;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message;
use ringtap::{
    config::{
        checked::{Otel, Tls},
        written::{Compression, Protocol},
    },
    sink::{Patience, SinkError, console::Console, otlp::Otlp},
};
use ringtap_batch::events::{Cell, Column, EventSchema, EventsBuilder};

use crate::{
    golden,
    receiver::{Receiver, Say},
    tools::{program, skip, tool},
    traffic::{replay, run},
};

const SCHEMA: EventSchema = EventSchema { event_type: "test", columns: &[("n", Column::Int), ("text", Column::Text)] };

fn events(rows: i64, text: &str) -> RecordBatch {
    let mut events = EventsBuilder::new(&SCHEMA);
    (0..rows).for_each(|n| events.push(&[Cell::Int(n), Cell::Text(text)]));
    events.finish()
}

fn config(protocol: Protocol, port: u16) -> Otel {
    Otel {
        endpoint: format!("localhost:{port}"),
        protocol,
        headers: vec![("X-Key".into(), "secret".into())],
        service_name: "tap".into(),
        environment: "test".into(),
        tls: None,
        compression: Compression::None,
        timeout: Duration::from_secs(5),
        flat_attributes: false,
    }
}

/// Sends batches one after another; what came of each.
fn send(config: &Otel, batches: &[RecordBatch]) -> anyhow::Result<Vec<Result<u64, SinkError>>> {
    let (console, _thread) = Console::start(Patience::None)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let otlp = Otlp::new(config, "a scope", &console)?;
        let mut results = Vec::new();
        for batch in batches {
            results.push(otlp.events(batch).await);
        }
        Ok(results)
    })
}

fn send_one(config: &Otel, batch: RecordBatch) -> anyhow::Result<Result<u64, SinkError>> {
    send(config, &[batch])?.pop().context("a result")
}

/// One request of five records, which is answered so.
fn answered(protocol: Protocol, say: Say) -> anyhow::Result<Result<u64, SinkError>> {
    let receiver = Receiver::start(protocol == Protocol::Grpc, move |_| say.clone())?;
    let result = send_one(&config(protocol, receiver.port), events(5, "x"))?;
    let got = receiver.take();
    ensure!(got.len() == 1 && got[0].records.len() == 5, "one attempt, {} requests", got.len());
    Ok(result)
}

/// `google.rpc.Status` with its details.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Detail>,
}

#[derive(Clone, PartialEq, Message)]
struct Detail {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(message, optional, tag = "2")]
    value: Option<RetryInfo>,
}

#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    delay: Option<Delay>,
}

#[derive(Clone, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

fn retry_info(seconds: i64, nanos: i32) -> Vec<u8> {
    let value = RetryInfo { delay: Some(Delay { seconds, nanos }) };
    let details = vec![Detail { type_url: "type.googleapis.com/google.rpc.RetryInfo".into(), value: Some(value) }];
    Status { code: 8, message: "busy".into(), details }.encode_to_vec()
}

/// The answer is read as: refused, or to be sent again, after a time if one is told.
#[derive(Debug, PartialEq)]
enum Read {
    Refused,
    Later(Option<Duration>),
}

fn read(result: Result<u64, SinkError>, words: &str) -> anyhow::Result<Read> {
    let error = result.err().context("it is refused")?;
    ensure!(error.to_string().contains(words), "`{words}` is not in `{error}`");
    match error {
        SinkError::Refused { .. } => Ok(Read::Refused),
        SinkError::Unavailable { after, .. } => Ok(Read::Later(after)),
        other => bail!("{other}"),
    }
}

#[test]
fn codes_of_grpc_are_read_by_the_rules() -> anyhow::Result<()> {
    let after = |ms| Read::Later(Some(Duration::from_millis(ms)));
    for (code, details, expected) in [
        (1, None, Read::Later(None)),
        (2, None, Read::Refused),
        (3, None, Read::Refused),
        (4, None, Read::Later(None)),
        (5, None, Read::Refused),
        (6, None, Read::Refused),
        (7, None, Read::Refused),
        (8, None, Read::Refused),
        (8, Some(retry_info(2, 500_000_000)), after(2500)),
        (8, Some(retry_info(-1, -1)), after(0)),
        (8, Some(b"\xff\xff".to_vec()), Read::Refused),
        (9, None, Read::Refused),
        (10, None, Read::Later(None)),
        (11, None, Read::Later(None)),
        (12, None, Read::Refused),
        (13, None, Read::Refused),
        (14, None, Read::Later(None)),
        (14, Some(retry_info(7, 0)), after(7000)),
        (15, None, Read::Later(None)),
        (16, Some(retry_info(7, 0)), Read::Refused),
    ] {
        let result = answered(Protocol::Grpc, Say::Code(code, "so it is", details))?;
        let found = read(result, "so it is")?;
        ensure!(found == expected, "{code}: {found:?}, expected {expected:?}");
    }
    for (status, expected) in [(401, Read::Refused), (404, Read::Refused), (503, Read::Later(None))] {
        let result = answered(Protocol::Grpc, Say::Status(status, Vec::new(), Vec::new()))?;
        let found = read(result, &status.to_string())?;
        ensure!(found == expected, "{status}: {found:?}");
    }
    Ok(())
}

#[test]
fn statuses_of_http_are_read_by_the_rules() -> anyhow::Result<()> {
    let told = Status { code: 3, message: "so it is".into(), details: Vec::new() }.encode_to_vec();
    let protobuf = vec![("content-type", "application/x-protobuf".to_owned())];
    for (status, expected) in [
        (400, Read::Refused),
        (401, Read::Refused),
        (404, Read::Refused),
        (301, Read::Refused),
        (429, Read::Later(None)),
        (500, Read::Refused),
        (501, Read::Refused),
        (502, Read::Later(None)),
        (503, Read::Later(None)),
        (504, Read::Later(None)),
    ] {
        for say in
            [Say::Status(status, protobuf.clone(), told.clone()), Say::Status(status, Vec::new(), b"so it is".to_vec())]
        {
            let found = read(answered(Protocol::Http, say)?, "so it is")?;
            ensure!(found == expected, "{status}: {found:?}, expected {expected:?}");
        }
    }
    let mut after = Vec::new();
    for text in ["7", "Fri, 31 Dec 2399 23:59:59 GMT", "Sun, 06 Nov 1994 08:49:37 GMT", "soon"] {
        let say = Say::Status(503, vec![("retry-after", text.to_owned())], Vec::new());
        after.push(read(answered(Protocol::Http, say)?, "503")?);
    }
    let expected = [Some(7), Some(3600), Some(0), None].map(|s| Read::Later(s.map(Duration::from_secs)));
    ensure!(after == expected, "{after:?}");
    Ok(())
}

#[test]
fn partial_success_is_counted() -> anyhow::Result<()> {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        for (said, counted) in [(0, 0), (3, 3), (99, 5), (-1, 0)] {
            let result = answered(protocol, Say::Taken(said, "too old"))?;
            ensure!(matches!(result, Ok(n) if n == counted), "{protocol:?} {said}: {result:?}");
        }
        // Some answer with nothing at all.
        if protocol == Protocol::Http {
            let result = answered(protocol, Say::Status(202, Vec::new(), b"OK".to_vec()))?;
            ensure!(matches!(result, Ok(0)), "{result:?}");
        }
    }
    Ok(())
}

#[test]
fn who_does_not_answer_can_be_asked_again() -> anyhow::Result<()> {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let gone = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        ensure!(read(send_one(&config(protocol, gone), events(1, "x"))?, "refused")? == Read::Later(None));
        let receiver = Receiver::start(protocol == Protocol::Grpc, |_| Say::Nothing)?;
        let config = Otel { timeout: Duration::from_millis(200), ..config(protocol, receiver.port) };
        let begun = Instant::now();
        ensure!(read(send_one(&config, events(1, "x"))?, "no answer within 200ms")? == Read::Later(None));
        ensure!(begun.elapsed() < Duration::from_secs(3));
    }
    Ok(())
}

/// Bytes are the same under every coding, and the head says what OTLP wants there.
#[test]
fn requests_are_compressed_and_framed() -> anyhow::Result<()> {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let grpc = protocol == Protocol::Grpc;
        let receiver = Receiver::start(grpc, |_| Say::Taken(0, ""))?;
        let mut lens = Vec::new();
        for (compression, name) in
            [(Compression::None, None), (Compression::Gzip, Some("gzip")), (Compression::Zstd, Some("zstd"))]
        {
            let config = Otel { compression, ..config(protocol, receiver.port) };
            let results = send(&config, &[events(100, "always the same"), events(1, "")])?;
            ensure!(results.iter().all(|result| matches!(result, Ok(0))), "{results:?}");
            let got = receiver.take();
            ensure!(got.len() == 2 && got[0].records.len() == 100 && got[1].records.len() == 1);
            lens.push(got[0].len);
            let header = |name: &str| got[0].headers.get(name).and_then(|value| value.to_str().ok());
            ensure!(header("x-key") == Some("secret"));
            let coding = if grpc { "grpc-encoding" } else { "content-encoding" };
            ensure!(header(coding) == name, "{coding}: {:?}", header(coding));
            let (path, kind) = match grpc {
                true => ("/opentelemetry.proto.collector.logs.v1.LogsService/Export", "application/grpc"),
                false => ("/v1/logs", "application/x-protobuf"),
            };
            ensure!(got[0].path == path && header("content-type") == Some(kind), "{}", got[0].path);
            ensure!(!grpc || (header("te") == Some("trailers") && header("grpc-timeout") == Some("5000m")));
            for (n, record) in (0..).zip(&got[0].records) {
                let Some(Value::KvlistValue(event)) = record.attributes[1].value.clone().and_then(|v| v.value) else {
                    bail!("{record:?}")
                };
                ensure!(event.values[0].value.clone().and_then(|v| v.value) == Some(Value::IntValue(n)));
            }
        }
        ensure!(lens[1] * 4 < lens[0] && lens[2] * 4 < lens[0], "{lens:?}");
    }
    Ok(())
}

/// A collector that takes less than it should gets less: nothing is lost but the record that is too large by itself.
#[test]
fn what_is_too_large_is_cut_in_halves() -> anyhow::Result<()> {
    const MAX: usize = 40_000;
    let words = "grpc: received message larger than max (55555 vs. 40000)";
    for (protocol, too_large) in [
        (Protocol::Http, Say::Status(413, Vec::new(), Vec::new())),
        (Protocol::Grpc, Say::Code(8, words, None)),
        (Protocol::Grpc, Say::Code(11, "Error, decoded message length too large: found 55555 bytes", None)),
    ] {
        let receiver = Receiver::start(protocol == Protocol::Grpc, move |got| {
            if got.len > MAX { too_large.clone() } else { Say::Taken(0, "") }
        })?;
        let mut rows = EventsBuilder::new(&SCHEMA);
        for n in 0..40 {
            rows.push(&[Cell::Int(n), Cell::Owned("y".repeat(if n == 17 { MAX } else { 4000 }))]);
        }
        let results = send(&config(protocol, receiver.port), &[rows.finish(), events(40, &"z".repeat(2000))])?;
        ensure!(matches!(results[..], [Ok(1), Ok(0)]), "{results:?}");
        let got = receiver.take();
        let taken: usize = got.iter().filter(|got| got.len <= MAX).map(|got| got.records.len()).sum();
        let refused = got.iter().filter(|got| got.len > MAX).count();
        ensure!(taken == 79, "{taken}");
        ensure!(refused < 12, "it is learnt what is too large: {refused} refused");
        // Alone, it is refused.
        let result = send_one(&config(protocol, receiver.port), events(1, &"z".repeat(MAX)))?;
        ensure!(read(result, "")? == Read::Refused);
    }
    Ok(())
}

/// The collector of the tests, over TLS or without.
struct Collector {
    child: Child,
    port: u16,
    output: PathBuf,
}

impl Drop for Collector {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn wait_for(child: &mut Child, port: u16) -> anyhow::Result<()> {
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        ensure!(child.try_wait()?.is_none(), "it has ended");
        ensure!(begun.elapsed() < Duration::from_secs(30), "nothing listens on {port}");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

impl Collector {
    fn start(python: &Path, folder: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let port = free_port()?;
        let output = folder.join(format!("received-{port}"));
        let mut child = Command::new(python)
            .arg(program("collector.py"))
            .arg(port.to_string())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(fs::File::create(&output)?)
            .stderr(Stdio::null())
            .spawn()?;
        wait_for(&mut child, port)?;
        Ok(Self { child, port, output })
    }

    /// What came, once it holds each of `marks`.
    fn wait(&self, marks: &[&str]) -> anyhow::Result<String> {
        let begun = Instant::now();
        loop {
            let text = fs::read_to_string(&self.output)?;
            let missing: Vec<_> = marks.iter().filter(|mark| !text.contains(**mark)).collect();
            if missing.is_empty() {
                return Ok(text);
            }
            ensure!(begun.elapsed() < Duration::from_secs(20), "{missing:?} did not come: {text:.2000}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn openssl(folder: &Path, arguments: &str) -> anyhow::Result<()> {
    let output = Command::new("openssl").current_dir(folder).args(arguments.split_whitespace()).output()?;
    ensure!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Two authorities, `ca` and `other`; a server and a client with certificates of the first.
fn certificates(folder: &Path) -> anyhow::Result<()> {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for name in ["ca", "other"] {
        openssl(folder, &format!("req -x509 {key} -keyout {name}.key -out {name}.pem -subj /CN={name} -days 2"))?;
    }
    for (name, names) in [("server", "DNS:localhost"), ("client", "DNS:client")] {
        fs::write(folder.join("extensions"), format!("subjectAltName={names}\n"))?;
        openssl(folder, &format!("req -new {key} -keyout {name}.key -out {name}.csr -subj /CN={name}"))?;
        let sign = "-CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions";
        openssl(folder, &format!("x509 -req -in {name}.csr -out {name}.pem {sign}"))?;
    }
    Ok(())
}

fn python(test: &str) -> Option<PathBuf> {
    let python = tool("python3");
    if python.is_none() {
        skip(test, "the tools of the tests are missing: ./dev tools");
    }
    python
}

#[test]
fn tls_trusts_whom_it_is_told_to() -> anyhow::Result<()> {
    let Some(python) = python("tls_trusts_whom_it_is_told_to") else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    certificates(folder.path())?;
    let at = |name: &str| folder.path().join(name);
    let text = |name: &str| at(name).display().to_string();
    let (cert, key, ca) = (text("server.pem"), text("server.key"), text("ca.pem"));
    let own_ca = Tls { ca_file: Some(at("ca.pem")), ..Tls::default() };
    let identity = Some((at("client.pem"), at("client.key")));
    for (protocol, flag) in [(Protocol::Grpc, &["--grpc"][..]), (Protocol::Http, &[])] {
        let plain = Collector::start(&python, folder.path(), &[flag, &["--cert", &cert, "--key", &key]].concat())?;
        let asking = Collector::start(
            &python,
            folder.path(),
            &[flag, &["--cert", &cert, "--key", &key, "--client-ca", &ca]].concat(),
        )?;
        let try_it = |port: u16, host: &str, tls: &Tls| {
            let endpoint = format!("{host}:{port}");
            send_one(&Otel { endpoint, tls: Some(tls.clone()), ..config(protocol, port) }, events(2, "over TLS"))
        };
        let result = try_it(plain.port, "localhost", &own_ca)?;
        ensure!(matches!(result, Ok(0)), "{protocol:?}, own authority: {result:?}");
        plain.wait(&["over TLS"])?;
        // Wrong authority, the system's, wrong name.
        let other = Tls { ca_file: Some(at("other.pem")), ..Tls::default() };
        ensure!(read(try_it(plain.port, "localhost", &other)?, "invalid peer certificate")? == Read::Later(None));
        let result = try_it(plain.port, "localhost", &Tls::default());
        // A system without authorities says so at once.
        ensure!(
            result
                .map_or_else(|e| Ok(e.to_string().contains("ca_file")), |r| read(r, "UnknownIssuer").map(|_| true))?
        );
        read(try_it(plain.port, "127.0.0.1", &own_ca)?, "not valid for name")?;
        // Unchecked.
        let unchecked = Tls { insecure_skip_verify: true, ..Tls::default() };
        let result = try_it(plain.port, "127.0.0.1", &unchecked)?;
        ensure!(matches!(result, Ok(0)), "{protocol:?}, unchecked: {result:?}");
        // Who asks for a certificate gets it, or there is no talk.
        let shown = Tls { identity: identity.clone(), ..own_ca.clone() };
        let result = try_it(asking.port, "localhost", &shown)?;
        ensure!(matches!(result, Ok(0)), "{protocol:?}, with a certificate: {result:?}");
        ensure!(read(try_it(asking.port, "localhost", &own_ca)?, "")? == Read::Later(None));
    }
    Ok(())
}

#[test]
fn files_of_tls_are_checked_at_the_start() -> anyhow::Result<()> {
    const STACK: &str = "stacks: {s: {plugins: [{type: report_usage}]}}\ntap: {http: {stack: s}}\n";
    let folder = tempfile::tempdir()?;
    certificates(folder.path())?;
    fs::write(folder.path().join("empty.pem"), "nothing\n")?;
    fs::write(folder.path().join("broken.pem"), "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n")?;
    let file = folder.path().join("c.yaml");
    let path = file.display().to_string();
    let validate = |tls: &str, more: &str| -> anyhow::Result<(Option<i32>, String)> {
        let tls = tls.replace("F/", &format!("{}/", folder.path().display()));
        fs::write(&file, format!("services:\n  event_stores:\n    - type: otel\n      tls: {{{tls}}}\n{more}{STACK}"))?;
        let (code, _, said) = run(&["validate", &path])?;
        Ok((code, said))
    };
    for (tls, key, says) in [
        ("enabled: true, ca_file: F/none.pem", "tls.ca_file: ", "No such file"),
        ("enabled: true, ca_file: F/empty.pem", "tls.ca_file: ", "there is no certificate in it"),
        ("enabled: true, ca_file: F/broken.pem", "tls.ca_file: ", "no certificate can be read from it"),
        ("enabled: true, ca_file: F/ca.key", "tls.ca_file: ", "there is no certificate in it"),
        ("enabled: true, cert_file: F/client.pem", "tls: ", "belong together"),
        ("enabled: true, cert_file: F/client.pem, key_file: F/client.pem", "tls.key_file: ", "no private key in it"),
        ("enabled: true, cert_file: F/client.pem, key_file: F/server.key", "tls.key_file: ", "not the key of"),
    ] {
        let (code, said) = validate(tls, "")?;
        ensure!(code == Some(2) || code == Some(1), "{tls}: {code:?} {said}");
        ensure!(said.contains(&format!("services.event_stores[0].{key}")) && said.contains(says), "{tls}: {said}");
    }
    for (tls, more, says) in [
        ("enabled: true", "      endpoint: http://a:1\n", "remove one of the two"),
        ("enabled: true", "      endpoint: grpc://a:1\n", "expected http:// or https://"),
        ("enabled: false", "      timeout: soon\n", "expected a duration"),
        ("enabled: false", "      compression: lz4\n", "`zstd`"),
        ("enabled: false", "      headers: {'a b': {type: text, value: c}}\n", "cannot stand in a header field"),
    ] {
        let (code, said) = validate(tls, more)?;
        ensure!(code != Some(0) && said.contains(says), "{more}: {said}");
    }
    let (code, said) = validate("enabled: true, insecure_skip_verify: true", "")?;
    ensure!(code == Some(0) && said.contains("certificates go unchecked"), "{said}");
    let (code, said) = validate("ca_file: F/ca.pem", "")?;
    ensure!(code == Some(0) && said.contains("set `enabled: true`"), "{said}");
    let pair = "enabled: true, ca_file: F/ca.pem, cert_file: F/client.pem, key_file: F/client.key";
    let (code, said) = validate(pair, "")?;
    ensure!(code == Some(0) && !said.contains("warning"), "{said}");
    Ok(())
}

/// The whole way, with everything but the certificate's files from the environment.
#[test]
fn the_environment_fills_what_the_file_leaves_open() -> anyhow::Result<()> {
    let Some(python) = python("the_environment_fills_what_the_file_leaves_open") else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    certificates(folder.path())?;
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (cert, key, ca) = (at("server.pem"), at("server.key"), at("ca.pem"));
    let arguments = ["--cert", &cert, "--key", &key, "--client-ca", &ca, "--want-header", "x-token=top secret"];
    let collector = Collector::start(&python, folder.path(), &arguments)?;
    let config = "services: {event_stores: [{type: otel, service_name: mine}], object_stores: [{type: otel}]}
stacks: {s: {plugins: [{type: report_usage}, {type: http_capture, config: {level: full}}]}}
tap: {http: {stack: s}}
";
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("https://localhost:{}", collector.port)),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf".to_owned()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-token=top%20secret".to_owned()),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip".to_owned()),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "7000".to_owned()),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", ca.clone()),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", at("client.pem")),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", at("client.key")),
    ];
    let (recording, file) = (at("t.rtap"), at("c.yaml"));
    golden::traffic().record(Path::new(&recording))?;
    fs::write(&file, config)?;
    let ringtap = |arguments: &[&str]| -> anyhow::Result<(String, String)> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringtap"));
        let output = command.args(arguments).envs(variables.iter().map(|(n, v)| (n, v))).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{said}");
        Ok((String::from_utf8(output.stdout)?, said))
    };
    let (effective, _) = ringtap(&["validate", "--effective", "--strict", &file])?;
    for part in [
        &format!("endpoint: https://localhost:{}/v1/logs", collector.port),
        "# services.event_stores[0].endpoint: from OTEL_EXPORTER_OTLP_ENDPOINT",
        "# services.object_stores[0].otel_endpoint: from OTEL_EXPORTER_OTLP_ENDPOINT",
        "# services.event_stores[0].headers: from OTEL_EXPORTER_OTLP_HEADERS",
        "protocol: http",
        "compression: gzip",
        "timeout: 7000ms",
        "service_name: mine",
        "x-token",
        &ca,
    ] {
        ensure!(effective.contains(part), "{part} is not in {effective}");
    }
    ensure!(!effective.contains("top secret") && !effective.contains("top%20secret"), "{effective}");
    let (out, said) = ringtap(&["replay", "--json", "--shards", "1", "--config", &file, &recording])?;
    let summary: serde_json::Value = serde_json::from_str(out.lines().last().context("a summary")?)?;
    ensure!(summary["balanced"] == true && summary["ledger"]["events_failed"] == 0, "{summary} {said}");
    ensure!(summary["ledger"]["objects_failed"] == 0, "{summary} {said}");
    collector.wait(&["HTTP POST (503)", "Artifact stored: http_transaction", "Artifact: http_transaction", "mine"])?;
    Ok(())
}

/// A collector that others made takes what is sent, in every coding that it reads, which zstd is not.
#[test]
fn rotel_takes_it() -> anyhow::Result<()> {
    let (Some(rotel), Some(python)) = (tool("rotel-agent"), tool("python3")) else {
        skip("rotel_takes_it", "the tools of the tests are missing: ./dev tools");
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let behind = Collector::start(&python, folder.path(), &[])?;
    let (grpc, http) = (free_port()?, free_port()?);
    let mut child = Command::new(rotel)
        .args(["start", "--exporter", "otlp", "--otlp-exporter-protocol", "http"])
        .args(["--otlp-grpc-endpoint", &format!("127.0.0.1:{grpc}")])
        .args(["--otlp-http-endpoint", &format!("127.0.0.1:{http}")])
        .args(["--otlp-exporter-endpoint", &format!("http://127.0.0.1:{}", behind.port)])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let ready = wait_for(&mut child, grpc).and_then(|()| wait_for(&mut child, http));
    let _rotel = Collector { child, port: grpc, output: PathBuf::new() };
    ready?;
    for (protocol, port, compression) in
        [("grpc", grpc, "none"), ("grpc", grpc, "gzip"), ("http", http, "none"), ("http", http, "gzip")]
    {
        let folder = tempfile::tempdir()?;
        let name = format!("by-{protocol}-{compression}");
        let keys = format!("protocol: {protocol}, compression: {compression}, service_name: {name}");
        let config = format!(
            "services: {{event_stores: [{{type: otel, endpoint: '127.0.0.1:{port}', {keys}}}], object_stores: [{{type: otel, otel_endpoint: '127.0.0.1:{port}', {keys}}}]}}
stacks: {{s: {{plugins: [{{type: report_usage}}, {{type: http_capture, config: {{level: full}}}}]}}}}
tap: {{http: {{stack: s}}}}
"
        );
        let printed = replay(folder.path(), golden::traffic(), &config)?;
        ensure!(printed.summary["ledger"]["events_failed"] == 0, "{name}: {} {}", printed.summary, printed.said);
        ensure!(printed.summary["ledger"]["objects_failed"] == 0, "{name}: {} {}", printed.summary, printed.said);
        behind.wait(&[&name])?;
    }
    let all = behind.wait(&["HTTP POST (503)", "Artifact stored: http_transaction", "Artifact: http_transaction"])?;
    ensure!(all.contains("qtap.eventstore") && all.contains("qtap.objectstore"));
    Ok(())
}
