//! `ringtap show` out of a bucket.

use anyhow::ensure;

use super::{ACCESS, BUCKET, Client, SECRET, bucket, need_tool, rclone};
use crate::traffic::run;

#[test]
fn objects_are_shown_out_of_a_bucket() -> anyhow::Result<()> {
    let program = need_tool!("rclone", "./dev tools");
    let (server, files) = rclone(&program, &[])?;
    let mut s3 = bucket(server.port);
    s3.prefix = "captures/".into();
    let object = std::fs::read(crate::traffic::project("tests/golden/guide-object.json"))?;
    let (digest, _) = Client::new(s3)?.put(&object)?;
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("config.yaml");
    let text = format!(
        "services:\n  object_stores:\n    - {{type: s3, endpoint: '127.0.0.1:{}', bucket: BUCKET, insecure: true, \
         prefix: captures/, path_style: true, \
         access_key: {{type: text, value: {ACCESS}}}, secret_key: {{type: text, value: {SECRET}}}}}\ntap: {{direction: all}}\n",
        server.port
    );
    let shown = |bucket: &str, digest: &str| -> anyhow::Result<_> {
        std::fs::write(&config, text.replace("BUCKET", bucket))?;
        run(&["show", "--config", &config.display().to_string(), digest])
    };
    let (code, out, err) = shown(BUCKET, &digest)?;
    ensure!(code == Some(0) && out.starts_with("GET https://httpbin.org/status/500\n"), "{out}{err}");
    for (bucket, digest, told) in [
        (BUCKET, "0123456789012345678901234567890123456789", "no object 0123456789012345678901234567890123456789 in"),
        (BUCKET, &digest[..8], "by all 40 digits"),
        ("elsewhere", &*digest, "elsewhere"),
    ] {
        let (code, _, err) = shown(bucket, digest)?;
        ensure!(code == Some(1) && err.contains(told), "{code:?} {err}");
    }
    std::fs::write(files.join(BUCKET).join("captures").join(&digest), "{}")?;
    let (code, _, err) = shown(BUCKET, &digest)?;
    ensure!(
        code == Some(1) && (err.contains("was changed or is damaged") || err.contains("broke off")),
        "{code:?} {err}"
    );
    Ok(())
}
