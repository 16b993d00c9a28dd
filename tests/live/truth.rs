//! What was sent against what was captured.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use sha1::{Digest as _, Sha1};

use crate::agent::Finished;

pub fn sha1(bytes: &[u8]) -> String {
    Sha1::digest(bytes).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

/// The captured transactions of a run, by request number.
pub type Captured = BTreeMap<u64, Vec<Value>>;

/// Reads objects, checks that each one's name is the digest of its bytes, and keeps those of the run.
pub fn captured(objects: impl IntoIterator<Item = (String, Vec<u8>)>, run: &str) -> anyhow::Result<Captured> {
    let mut found = Captured::new();
    for (name, bytes) in objects {
        ensure!(sha1(&bytes) == name, "the object {name} has another digest");
        let object: Value = serde_json::from_slice(&bytes)?;
        if header(&object, "X-Run") != Some(run) {
            continue;
        }
        let number = header(&object, "X-Number").context("a numbered request")?.parse()?;
        found.entry(number).or_default().push(object);
    }
    Ok(found)
}

/// Objects of the disk store.
pub fn files(paths: &[std::path::PathBuf]) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    paths.iter().map(|path| Ok((name(path), fs::read(path)?))).collect()
}

fn header<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object["request"]["headers"][name].as_str()
}

/// The decoded body of a half.
pub fn body(object: &Value, half: &str) -> anyhow::Result<Vec<u8>> {
    object[half]["body"].as_str().map_or(Ok(Vec::new()), |text| Ok(STANDARD.decode(text)?))
}

/// Every line of the client is in the capture once, with the same method, status and bytes, and nothing else is.
pub fn compare(client: &str, captured: &Captured) -> anyhow::Result<usize> {
    let mut count = 0;
    for line in client.lines() {
        let sent: Value = serde_json::from_str(line)?;
        let number: u64 = sent["id"].as_str().context("an id")?.parse()?;
        let objects = captured.get(&number).with_context(|| format!("request {sent} was not captured"))?;
        ensure!(objects.len() == 1, "request {number} was captured {} times", objects.len());
        let object = &objects[0];
        ensure!(object["request"]["method"] == sent["method"], "{number}: {object:#}");
        ensure!(object["response"]["status"] == sent["status"], "{number}: {object:#}");
        let path = sent["path"].as_str().context("a path")?;
        let url = object["request"]["url"].as_str().context("a url")?;
        ensure!(url.ends_with(path), "{url} does not end with {path}");
        ensure!(sha1(&body(object, "request")?) == sent["sent"], "the request body of {sent} differs: {object:#}");
        ensure!(
            sha1(&body(object, "response")?) == sent["received"],
            "the response body of {sent} differs: {object:#}"
        );
        ensure!(object.get("damage").is_none(), "{number} is damaged: {}", object["damage"]);
        count += 1;
    }
    ensure!(captured.len() == count, "{} requests captured, {count} sent", captured.len());
    Ok(count)
}

/// The events of a type that the agent printed.
pub fn events(finished: &Finished, kind: &str) -> anyhow::Result<Vec<Value>> {
    let lines = finished.stdout.lines().filter(|line| line.starts_with('{'));
    let all = lines.map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    Ok(all.into_iter().filter(|line| line["type"] == kind).map(|line| line["item"].clone()).collect())
}

/// The source address of each connection that was told, by its id.
pub fn sources(finished: &Finished) -> anyhow::Result<BTreeMap<String, String>> {
    let pair = |event: &Value| {
        let (id, source) = (&event["meta"]["connectionId"], &event["source"]["address"]);
        Some((id.as_str()?.to_owned(), source.as_str().filter(|address| address.contains(':'))?.to_owned()))
    };
    Ok(events(finished, "*eventstore.Connection")?.iter().filter_map(pair).collect())
}
