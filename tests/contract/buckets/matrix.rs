//! The same on every server.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use ringtap::config::checked::{Encryption, Keys, S3};
use sha1::{Digest as _, Sha1};

use super::{ACCESS, BUCKET, Client, SECRET, bucket, fetch, make_bucket, need_tool, open, rclone};
use crate::programs::{Server, certificate, free_port, serve};

/// What a server is known to do differently.
struct Knows {
    /// `If-None-Match: *` of an object that is there.
    conditions: bool,
    /// A bucket that is not there is an error; others make one.
    missing_bucket: bool,
    /// Encryption that is asked for is promised.
    encryption: bool,
}

fn everything(server: &Server, knows: &Knows) -> anyhow::Result<()> {
    let port = server.port;
    make_bucket(port)?;
    let config = bucket(port);
    objects_once(&config, port, knows).context("objects")?;
    signed_urls(&config, port).context("presigned urls")?;
    parts(&config, port, knows).context("parts")?;
    prefix(&config, port).context("a prefix")?;
    refusals(&config, knows).context("refusals")?;
    wishes(&config, port, knows).context("wishes")
}

fn objects_once(config: &S3, port: u16, knows: &Knows) -> anyhow::Result<()> {
    let client = Client::new(config.clone())?;
    let (digest, url) = client.put(b"{\"a\":1}")?;
    ensure!(url == format!("http://127.0.0.1:{port}/{BUCKET}/{digest}"), "{url}");
    ensure!(fetch(port, &digest)? == b"{\"a\":1}" && client.unchanged() == 0, "stored as it is");
    ensure!(client.put(b"{\"a\":1}")?.1 == url && client.unchanged() == 1, "it is known that it is there");
    // Another agent does not know that.
    let another = Client::new(config.clone())?;
    ensure!(another.put(b"{\"a\":1}")?.1 == url, "there is one already");
    ensure!(another.unchanged() == u64::from(knows.conditions), "{} unchanged", another.unchanged());
    ensure!(fetch(port, &digest)? == b"{\"a\":1}", "it is still there");
    ensure!(client.put(b"")?.0.starts_with("da39a3"), "an empty object");
    Ok(())
}

fn signed_urls(config: &S3, port: u16) -> anyhow::Result<()> {
    let signed = |seconds| S3 {
        access_url: "{{PRESIGNED}}".into(),
        presign_expiry: Duration::from_secs(seconds),
        ..config.clone()
    };
    let (_, url) = Client::new(signed(60))?.put(b"for whoever has the url")?;
    ensure!(url.starts_with(&format!("http://127.0.0.1:{port}/{BUCKET}/")), "{url}");
    ensure!(open(&url)?.as_deref() == Some(b"for whoever has the url"), "it opens: {url}");
    ensure!(open(url.split_once('?').context("a signature")?.0)?.is_none(), "not without the signature");
    ensure!(open(&url.replace("X-Amz-Expires=60", "X-Amz-Expires=6000"))?.is_none(), "not with another expiry");
    let (_, url) = Client::new(signed(1))?.put(b"for a second")?;
    std::thread::sleep(Duration::from_millis(2500));
    ensure!(open(&url)?.is_none(), "not any more: {url}");
    Ok(())
}

/// 40 MiB and a bit: six parts, the last one short.
fn parts(config: &S3, port: u16, knows: &Knows) -> anyhow::Result<()> {
    let large: Vec<u8> = (0..(40 << 20) + 17).map(|i: u32| (i ^ (i >> 11)).to_le_bytes()[0]).collect();
    let client = Client::new(config.clone())?;
    let (digest, _) = client.put(&large)?;
    let stored = fetch(port, &digest)?;
    ensure!(stored.len() == large.len() && format!("{:x}", Sha1::digest(&stored)) == digest, "{} bytes", stored.len());
    let another = Client::new(config.clone())?;
    another.put(&large)?;
    ensure!(another.unchanged() <= u64::from(knows.conditions), "{} unchanged", another.unchanged());
    ensure!(fetch(port, &digest)? == large, "it is still there");
    Ok(())
}

fn prefix(config: &S3, port: u16) -> anyhow::Result<()> {
    let client = Client::new(S3 { prefix: "team=a/raw/".into(), ..config.clone() })?;
    let (digest, url) = client.put(b"below a folder")?;
    ensure!(url.ends_with(&format!("/{BUCKET}/team=a/raw/{digest}")), "{url}");
    // curl 7.88 signs a path with `=` as no server reads it: whoever has the url may.
    let signed = S3 { prefix: "team=a/raw/".into(), access_url: "{{PRESIGNED}}".into(), ..config.clone() };
    let (_, url) = Client::new(signed)?.put(b"below a folder")?;
    ensure!(open(&url)?.as_deref() == Some(b"below a folder"), "{url}");
    let client = Client::new(S3 { prefix: "raw/".into(), ..config.clone() })?;
    let (digest, _) = client.put(b"below a folder")?;
    ensure!(fetch(port, &format!("raw/{digest}"))? == b"below a folder", "under its prefix");
    Ok(())
}

fn refusals(config: &S3, knows: &Knows) -> anyhow::Result<()> {
    let with = |access: &str, secret: &str| S3 {
        keys: Some(Keys { access: access.into(), secret: secret.into(), token: None }),
        ..config.clone()
    };
    let (later, reason, _) = Client::new(with(ACCESS, "wrong"))?.refusal(b"x")?;
    ensure!(later && reason.contains("the secret key is not that of the access key"), "{reason}");
    let (later, reason, _) = Client::new(with("NOBODY", SECRET))?.refusal(b"x")?;
    ensure!(later && (reason.contains("does not know the access key") || reason.contains("not allowed")), "{reason}");
    let missing = Client::new(S3 { bucket: "no-such-bucket".into(), ..config.clone() })?;
    if knows.missing_bucket {
        let (later, reason, _) = missing.refusal(b"x")?;
        ensure!(later && reason.contains("has no bucket `no-such-bucket`"), "{reason}");
    } else {
        missing.put(b"x")?;
    }
    Ok(())
}

/// What is asked for is done, or said to be impossible; the object is not lost by it.
fn wishes(config: &S3, port: u16, knows: &Knows) -> anyhow::Result<()> {
    let encrypted = Client::new(S3 { encryption: Some(Encryption::Aes256), ..config.clone() })?;
    match encrypted.put(b"encrypted") {
        Ok((digest, _)) => {
            let mut head = super::curl(port, "HEAD", &format!("{BUCKET}/{digest}"));
            let output = head.arg("--head").output()?;
            let fields = String::from_utf8_lossy(&output.stdout).to_lowercase();
            let promised = fields.contains("x-amz-server-side-encryption: aes256");
            ensure!(promised == knows.encryption, "promised: {promised}: {fields}");
        }
        Err(error) => {
            ensure!(!knows.encryption && matches!(error, ringtap::sink::SinkError::Unavailable { .. }), "{error}");
        }
    }
    let cold = Client::new(S3 { storage_class: Some("STANDARD_IA".into()), ..config.clone() })?;
    if let Err(error) = cold.put(b"cold") {
        ensure!(matches!(error, ringtap::sink::SinkError::Unavailable { .. }), "{error}");
    }
    Ok(())
}

#[test]
fn seaweedfs() -> anyhow::Result<()> {
    let weed = need_tool!("weed", "./dev tools");
    everything(&seaweedfs_server(&weed)?, &Knows { conditions: true, missing_bucket: false, encryption: false })
}

pub fn seaweedfs_server(weed: &Path) -> anyhow::Result<Server> {
    let (folder, port) = (tempfile::tempdir()?, free_port()?);
    let identities = folder.path().join("identities.json");
    let actions = r#"["Admin","Read","Write","List"]"#;
    let keys = format!(r#"[{{"accessKey":"{ACCESS}","secretKey":"{SECRET}"}}]"#);
    fs::write(&identities, format!(r#"{{"identities":[{{"name":"t","credentials":{keys},"actions":{actions}}}]}}"#))?;
    let mut command = Command::new(weed);
    command.arg("server");
    // gRPC ports lie 10,000 above by default and would leave the range: each gets its own free one.
    for flag in ["master", "volume", "filer"] {
        command.arg(format!("-{flag}.port={}", free_port()?)).arg(format!("-{flag}.port.grpc={}", free_port()?));
    }
    command
        .args(["-s3", "-filer", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"])
        .arg(format!("-dir={}", folder.path().display()))
        .args(["-volume.max=100", "-master.volumeSizeLimitMB=64"])
        .arg(format!("-s3.port={port}"))
        .arg(format!("-s3.port.grpc={}", free_port()?))
        .arg(format!("-s3.config={}", identities.display()));
    serve(command, port, Some(folder))
}

/// It also hands back every field that it was sent, whatever that says.
#[test]
fn rclone_which_knows_no_conditions() -> anyhow::Result<()> {
    let program = need_tool!("rclone", "./dev tools");
    let (server, _) = rclone(&program, &[])?;
    everything(&server, &Knows { conditions: false, missing_bucket: true, encryption: true })
}

/// A program of `./dev stores`.
fn of_stores(name: &str) -> anyhow::Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/stores").join(name);
    ensure!(path.exists(), "{} is not there; ./dev stores installs it", path.display());
    Ok(path)
}

#[test]
#[ignore = "its server takes minutes to install: ./dev stores does, and runs it"]
fn s3s_fs() -> anyhow::Result<()> {
    let server = s3s_fs_server("/tmp")?;
    everything(&server, &Knows { conditions: true, missing_bucket: false, encryption: false })
}

/// In a folder below this one.
pub fn s3s_fs_server(below: &str) -> anyhow::Result<Server> {
    let program = of_stores("bin/s3s-fs")?;
    let (folder, port) = (tempfile::tempdir_in(below)?, free_port()?);
    let mut command = Command::new(program);
    command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
    command.args(["--access-key", ACCESS, "--secret-key", SECRET]).arg(folder.path());
    serve(command, port, Some(folder))
}

#[test]
#[ignore = "its server takes minutes to install: ./dev stores does, and runs it"]
fn ceph() -> anyhow::Result<()> {
    let suite = of_stores("suites/trixie")?;
    let (folder, port) = (tempfile::tempdir()?, free_port()?);
    let here = folder.path().display();
    let config = folder.path().join("ceph.conf");
    fs::write(
        &config,
        format!(
            "[global]\nfsid = 8a7b1c2d-0000-4000-8000-000000000001\nadmin_socket =\nrun_dir = {here}\nlog_file = {here}/log\n\
             [client.rgw]\nrgw_backend_store = dbstore\nrgw_config_store = dbstore\nrgw_data = {here}\n\
             dbstore_db_dir = {here}\ndbstore_config_uri = file:{here}/config.db\nrgw_frontends = beast endpoint=127.0.0.1:{port}\nkeyring = {here}/keyring\n"
        ),
    )?;
    let libraries = [suite.join("usr/lib/x86_64-linux-gnu"), suite.join("usr/lib/x86_64-linux-gnu/ceph")];
    let libraries = libraries.map(|path| path.display().to_string()).join(":");
    let program = |name: &str| {
        // By the loader of its suite: it is newer than this system's.
        let mut command = Command::new(suite.join("lib64/ld-linux-x86-64.so.2"));
        command.args(["--library-path", &libraries]).arg(suite.join("usr/bin").join(name));
        command.args(["-c", &config.display().to_string(), "-n", "client.rgw", "--no-mon-config"]);
        command
    };
    let mut user = program("radosgw-admin");
    user.args(["user", "create", "--uid=t", "--display-name=t", &format!("--access-key={ACCESS}")]);
    let output = user.arg(format!("--secret-key={SECRET}")).output()?;
    ensure!(output.status.success(), "no user: {}", String::from_utf8_lossy(&output.stderr));
    let mut command = program("radosgw");
    command.arg("-f");
    let server = serve(command, port, Some(folder))?;
    everything(&server, &Knows { conditions: false, missing_bucket: true, encryption: false })
}

/// An authority, and a certificate by it with its key: one that is both is not taken.
fn authority(folder: &Path) -> anyhow::Result<(PathBuf, PathBuf, PathBuf)> {
    let (authority, by) = certificate(folder)?;
    let (cert, key) = (folder.join("leaf.pem"), folder.join("leaf.key"));
    let status = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=leaf", "-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=CA:FALSE"])
        .arg("-CA")
        .arg(&authority)
        .arg("-CAkey")
        .arg(by)
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .status()?;
    ensure!(status.success(), "openssl made no certificate");
    Ok((authority, cert, key))
}

#[test]
fn an_authority_of_ones_own() -> anyhow::Result<()> {
    let program = need_tool!("rclone", "./dev tools");
    let folder = tempfile::tempdir()?;
    let (authority, cert, key) = authority(folder.path())?;
    let files = [cert.display().to_string(), key.display().to_string()];
    let (server, _) = rclone(&program, &["--cert", &files[0], "--key", &files[1]])?;
    let https = S3 { insecure: false, endpoint: format!("localhost:{}", server.port), ..bucket(server.port) };
    let (digest, url) = Client::new(S3 { ca_file: Some(authority), ..https.clone() })?.put(b"over TLS")?;
    ensure!(url == format!("https://localhost:{}/{BUCKET}/{digest}", server.port), "{url}");
    // The system's authorities know nothing of it.
    let (later, reason, _) = Client::new(https.clone())?.refusal(b"x")?;
    ensure!(later && reason.contains("cannot reach localhost") && reason.contains("certificate"), "{reason}");
    // What is no authority is found at the start.
    for (path, expected) in [(key, "there is no certificate in it"), ("/no/such/file".into(), "No such file")] {
        let Err(error) = Client::new(S3 { ca_file: Some(path), ..https.clone() }) else {
            anyhow::bail!("that is no authority")
        };
        ensure!(error.to_string().contains(expected), "{error}");
    }
    Ok(())
}
