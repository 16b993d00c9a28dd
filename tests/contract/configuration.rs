//! `validate`, `schema`, and what they say of every sample.

use std::fs;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::{
    golden,
    traffic::{project, run},
};

const RULES: &str = "
services: {object_stores: [{type: disk, path: /tmp/none}]}
stacks: {s: {plugins: [{type: http_capture, config: {level: summary, rules: [{name: errors, expr: http.res.status >= 500, level: full}]}}]}}
tap: {http: {stack: s}}
";

#[test]
fn the_schema_takes_every_sample_and_no_mistake() -> anyhow::Result<()> {
    let (_, printed, _) = run(&["schema"])?;
    let schema: Value = serde_json::from_str(&printed)?;
    let validator = jsonschema::validator_for(&schema).map_err(|error| anyhow::anyhow!("{error}"))?;
    let read = |text: &str| serde_yaml::from_str::<Value>(text).context("YAML");
    let mut samples = vec![project("agent/config/default.yaml")];
    samples.extend(
        fs::read_dir(project("tests/configs"))?.map(|file| Ok(file?.path())).collect::<anyhow::Result<Vec<_>>>()?,
    );
    ensure!(samples.len() > 6);
    for sample in samples {
        let value = read(&fs::read_to_string(&sample)?)?;
        let faults: Vec<String> =
            validator.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect();
        ensure!(faults.is_empty(), "{}: {faults:?}", sample.display());
    }
    for mistake in [
        "tap: {directoin: egress}",
        "tap: {direction: sideways}",
        "services: {event_stores: [{type: kafka}]}",
        "services: {event_stores: [{endpoint: a}]}",
        "stacks: {s: {plugins: [{type: http_capture, config: {level: loud}}]}}",
        "stacks: {s: {plugins: [{type: access_logs, config: {levle: full}}]}}",
        "tags: [{key: a, source: nowhere, location: b}]",
        "redaction: {enabled: 7}",
    ] {
        ensure!(!validator.is_valid(&read(mistake)?), "{mistake} is taken");
    }
    Ok(())
}

/// What is printed as effective is a configuration with the same effect, and has no secret in it.
#[test]
fn the_effective_configuration_reads_the_same() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("c.yaml");
    fs::write(
        &file,
        "services:\n  event_stores:\n    - {type: otel, protocol: http, headers: {x-key: {type: text, value: topsecret}}}\n  object_stores: [{type: s3, bucket: b, access_key: {type: text, value: keyid}, secret_key: {type: env, value: PATH}}]\nstacks: {s: {plugins: [{type: http_capture, config: {rules: [{expr: 'http.res.status == 500', level: details}]}}]}}\ntap: {http: {stack: s}}\n",
    )?;
    let path = file.display().to_string();
    let (code, effective, said) = run(&["validate", "--effective", &path])?;
    ensure!(code == Some(0), "{said}");
    for part in [
        "endpoint: localhost:4318",
        "service_name: qtap",
        "environment: production",
        "region: us-east-1",
        "endpoint: s3.amazonaws.com",
        "direction: all",
        "format: json",
        "level: headers",
        "enabled: true",
        "value: PATH",
    ] {
        ensure!(effective.contains(part), "{part} is not in {effective}");
    }
    ensure!(!effective.contains("topsecret") && !effective.contains("keyid"), "{effective}");
    fs::write(&file, &effective)?;
    let (code, again, said) = run(&["validate", "--effective", "--strict", &path])?;
    ensure!(code == Some(0) && again == effective, "{said}");
    Ok(())
}

#[test]
fn strict_fails_on_warnings() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("c.yaml");
    fs::write(&file, format!("{RULES}colour: blue\n"))?;
    let path = file.display().to_string();
    let (code, out, said) = run(&["validate", &path])?;
    ensure!(code == Some(0) && out == "Config is valid.\n" && said.contains("unknown key `colour`"), "{out}{said}");
    let (code, _, said) = run(&["validate", "--strict", &path])?;
    ensure!(code == Some(1) && said.contains("--strict allows none"), "{said}");
    Ok(())
}

#[test]
fn a_new_configuration_is_compared_on_a_recording() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name).display().to_string();
    golden::traffic().record(&folder.path().join("t.rtap"))?;
    fs::write(at("old.yaml"), RULES)?;
    fs::write(at("new.yaml"), RULES.replace(">= 500", ">= 503").replace("level: summary", "level: headers"))?;
    let (code, out, said) = run(&["validate", &at("new.yaml"), "--against", &at("t.rtap"), "--than", &at("old.yaml")])?;
    ensure!(code == Some(0), "{said}");
    // All but the one that stays `full`.
    ensure!(out.starts_with("5 of 6 recorded transactions would have another outcome."), "{out}");
    let change = "capture full by `errors` to object store 0 (disk) → capture headers to object store 0 (disk)";
    ensure!(out.contains(&format!("1  {change}")), "{out}");
    ensure!(out.contains(&format!("GET https://httpbin.org/status/500 (500): {change}")), "{out}");
    // Other plugins, and what is masked.
    let issues = "plugins: [{type: detect_errors, config: {rules: [{name: bad, trigger_status_codes: [500]}]}}, ";
    fs::write(at("new.yaml"), RULES.replace("plugins: [", issues) + "redaction: {headers: [Host]}\n")?;
    let (_, out, _) = run(&["validate", &at("new.yaml"), "--against", &at("t.rtap"), "--than", &at("old.yaml")])?;
    ensure!(out.contains("issue `bad`, told nobody to object store 0 (disk), masked otherwise"), "{out}");
    let (_, out, _) = run(&["validate", &at("old.yaml"), "--against", &at("t.rtap"), "--than", &at("old.yaml")])?;
    ensure!(out.starts_with("0 of 6 recorded"), "{out}");
    let (code, _, _) = run(&["validate", &at("old.yaml"), "--against", &at("none.rtap")])?;
    ensure!(code == Some(2));
    Ok(())
}
