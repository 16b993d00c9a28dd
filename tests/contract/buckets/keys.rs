//! Where keys come from when the file has none: the whole agent, and a server that checks signatures.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, ensure};

use super::{ACCESS, BUCKET, Request, SECRET, Service, need_tool, rclone, without_keys};
use crate::{golden, programs::Server};

/// A replay into the bucket with this in its environment: what was said, and how many objects arrived.
struct Replayed {
    said: String,
    delivered: u64,
    events: String,
}

fn replay(
    server: &Server,
    keys: &str,
    home: &Path,
    set: impl FnOnce(&mut Command),
    wrap: &[&str],
) -> anyhow::Result<Replayed> {
    let (recording, file) = (home.join("traffic.rtap"), home.join("config.yaml"));
    golden::traffic().record(&recording)?;
    let endpoint = if wrap.is_empty() { "127.0.0.1" } else { "s3.test" };
    fs::write(
        &file,
        format!(
            "services:
  event_stores: [{{type: stdout}}]
  object_stores: [{{type: s3, endpoint: '{endpoint}:{}', insecure: true, bucket: {BUCKET}, {keys}}}]
stacks: {{s: {{plugins: [{{type: http_capture, config: {{level: full}}}}]}}}}
tap: {{http: {{stack: s}}}}
",
            server.port
        ),
    )?;
    let binary = env!("CARGO_BIN_EXE_ringtap");
    let words: Vec<&str> = wrap.iter().copied().chain([binary]).collect();
    let mut command = Command::new(words[0]);
    without_keys(&mut command, home);
    set(&mut command);
    command.args(&words[1..]).args(["replay", "--json", "--shards", "1", "--log-encoding", "console", "--config"]);
    let output = command.args([&file, &recording]).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let events = String::from_utf8_lossy(&output.stdout).into_owned();
    let summary = events.lines().last().context("a summary")?;
    let summary: serde_json::Value = serde_json::from_str(summary).with_context(|| said.clone())?;
    ensure!(summary["balanced"] == true, "{summary}");
    let delivered = summary["ledger"]["objects_delivered"].as_u64().context("a count")?;
    Ok(Replayed { said, delivered, events })
}

fn arrives(server: &Server, keys: &str, home: &Path, set: impl FnOnce(&mut Command)) -> anyhow::Result<()> {
    let replayed = replay(server, keys, home, set, &[])?;
    ensure!(replayed.delivered == 6, "{} objects: {}", replayed.delivered, replayed.said);
    ensure!(replayed.events.contains("ArtifactRecord"), "{}", replayed.events);
    Ok(())
}

#[test]
fn from_the_environment_or_a_profile() -> anyhow::Result<()> {
    let program = need_tool!("rclone", "./dev tools");
    let (server, _) = rclone(&program, &[])?;
    let home = tempfile::tempdir()?;
    arrives(&server, "region: us-east-1", home.path(), |command| {
        command.env("AWS_ACCESS_KEY_ID", ACCESS).env("AWS_SECRET_ACCESS_KEY", SECRET);
    })?;
    fs::create_dir(home.path().join(".aws"))?;
    let pair = |secret| format!("aws_access_key_id = {ACCESS}\naws_secret_access_key = {secret}\n");
    fs::write(
        home.path().join(".aws/credentials"),
        format!("[default]\n{}[capture]\n{}", pair("wrong"), pair(SECRET)),
    )?;
    arrives(&server, "profile: capture", home.path(), |_| {})?;
    arrives(&server, "prefix: p/", home.path(), |command| {
        command.env("AWS_PROFILE", "capture");
    })?;
    let replayed = replay(&server, "prefix: q/", home.path(), |_| {}, &[])?;
    ensure!(replayed.delivered == 0, "the default profile's secret is wrong");
    ensure!(replayed.said.contains("the secret key is not that of the access key"), "{}", replayed.said);
    Ok(())
}

/// What a token service, or a metadata service, hands out.
fn handed_out(token: &str) -> String {
    format!(
        r#"{{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"{ACCESS}","SecretAccessKey":"{SECRET}","Token":"{token}","Expiration":"2099-01-01T00:00:00Z","LastUpdated":"2026-01-01T00:00:00Z"}}"#
    )
}

fn json(body: String) -> (String, String) {
    ("200 OK\r\nContent-Type: application/json".into(), body)
}

#[test]
fn by_a_web_identity() -> anyhow::Result<()> {
    let program = need_tool!("rclone", "./dev tools");
    let (server, _) = rclone(&program, &[])?;
    let tokens = Service::start(|_| {
        let body = format!(
            "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleWithWebIdentityResult>\
             <Credentials><AccessKeyId>{ACCESS}</AccessKeyId><SecretAccessKey>{SECRET}</SecretAccessKey><SessionToken>session</SessionToken>\
             <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        );
        ("200 OK\r\nContent-Type: text/xml".into(), body)
    })?;
    let home = tempfile::tempdir()?;
    let file = home.path().join("token");
    fs::write(&file, "a.jwt.token")?;
    arrives(&server, "region: eu-west-1", home.path(), |command| {
        command.env("AWS_WEB_IDENTITY_TOKEN_FILE", &file).env("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/r");
        command.env("AWS_ENDPOINT_URL_STS", format!("http://127.0.0.1:{}", tokens.port));
    })?;
    let asked = tokens.requests();
    ensure!(asked.len() == 1, "keys are kept until they expire: {asked:?}");
    ensure!(asked[0].body.contains("WebIdentityToken=a.jwt.token"), "{asked:?}");
    Ok(())
}

#[test]
fn of_the_machine_and_of_the_container() -> anyhow::Result<()> {
    let program = need_tool!("rclone", "./dev tools");
    let (server, _) = rclone(&program, &[])?;
    let home = tempfile::tempdir()?;
    let role = "/latest/meta-data/iam/security-credentials/";
    let machine = Service::start(move |Request { head, .. }| match head.split(' ').nth(1).unwrap_or_default() {
        "/latest/api/token" => ("200 OK\r\nX-Aws-Ec2-Metadata-Token-Ttl-Seconds: 21600".into(), "t".into()),
        path if path == role => ("200 OK".into(), "capture".into()),
        path if path == format!("{role}capture") => json(handed_out("session")),
        _ => ("404 Not Found".into(), String::new()),
    })?;
    arrives(&server, "prefix: m/", home.path(), |command| {
        command.env_remove("AWS_EC2_METADATA_DISABLED");
        command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", format!("http://127.0.0.1:{}", machine.port));
    })?;
    let container = Service::start(|_| json(handed_out("session")))?;
    arrives(&server, "prefix: c/", home.path(), |command| {
        let uri = format!("http://127.0.0.1:{}/credentials", container.port);
        command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri).env("AWS_CONTAINER_AUTHORIZATION_TOKEN", "letmein");
    })?;
    let asked = container.requests();
    ensure!(asked.iter().all(|request| request.header("authorization") == Some("letmein")), "{asked:?}");
    Ok(())
}

#[test]
fn nowhere() -> anyhow::Result<()> {
    let home = tempfile::tempdir()?;
    let server = Service::start(|_| ("200 OK".into(), String::new()))?;
    // Never asked: nothing can be signed.
    let mut command = Command::new("sleep");
    command.arg("60");
    let idle = crate::programs::serve(command, server.port, None)?;
    let replayed = replay(&idle, "profile: capture", home.path(), |_| {}, &[])?;
    ensure!(replayed.delivered == 0, "{}", replayed.said);
    for part in ["no credentials", "AWS_ACCESS_KEY_ID", "the profile `capture`", "AWS_WEB_IDENTITY_TOKEN_FILE", "Ec2"] {
        ensure!(replayed.said.contains(part), "{part} is not in {}", replayed.said);
    }
    Ok(())
}

/// The bucket in the name of the host, which has to be found: by a table of hosts that only this agent sees.
#[test]
fn a_bucket_in_the_name_of_the_host() -> anyhow::Result<()> {
    let program = need_tool!("rclone", "./dev tools");
    let home = tempfile::tempdir()?;
    let hosts = home.path().join("hosts");
    fs::write(&hosts, format!("127.0.0.1 localhost {BUCKET}.s3.test\n"))?;
    let mount = format!("mount --bind {} /etc/hosts && exec \"$@\"", hosts.display());
    let wrap = ["unshare", "--map-root-user", "--mount", "sh", "-c", &mount, "sh"];
    if !Command::new(wrap[0]).args(&wrap[1..]).arg("true").output().is_ok_and(|output| output.status.success()) {
        crate::tools::skip("a_bucket_in_the_name_of_the_host", "no namespace can be made");
        return Ok(());
    }
    let (server, _) = rclone(&program, &["--force-path-style=false"])?;
    let keys = format!(
        "path_style: false, access_key: {{type: text, value: {ACCESS}}}, secret_key: {{type: text, value: {SECRET}}}"
    );
    let replayed = replay(&server, &keys, home.path(), |_| {}, &wrap)?;
    ensure!(replayed.delivered == 6, "{} objects: {}", replayed.delivered, replayed.said);
    let url = format!("http://{BUCKET}.s3.test:{}/", server.port);
    ensure!(replayed.events.contains(&url), "{url} is not in {}", replayed.events);
    Ok(())
}
