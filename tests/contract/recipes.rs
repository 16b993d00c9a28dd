//! The recipes of `images/recipes`: the files of the agent, of the collector and of Compose fit each other. That a
//! Collector takes its file and carries records by it is for `./dev recipes`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::traffic::project;

const BACKENDS: [&str; 5] = ["clickstack", "datadog", "elastic", "honeycomb", "loki"];

/// What names of secrets have in them, in any case.
const SECRET: [&str; 6] = ["key", "secret", "password", "token", "authorization", "team"];

/// One folder.
struct Recipe {
    folder: PathBuf,
    agent: Value,
    collector: Value,
    services: Value,
}

impl Recipe {
    fn read(name: &str) -> anyhow::Result<Self> {
        let folder = project("images/recipes").join(name);
        let read = |file: &str| yaml(&folder.join(file));
        let (agent, collector, mut compose) = (read("ringtap.yaml")?, read("collector.yaml")?, read("compose.yaml")?);
        Ok(Self { agent, collector, services: compose["services"].take(), folder })
    }

    /// Variables of a service: names and what they are set to.
    fn environment(&self, service: &str) -> BTreeMap<String, String> {
        let entries = self.services[service]["environment"].as_object().into_iter().flatten();
        entries.map(|(name, value)| (name.clone(), text(value))).collect()
    }
}

fn yaml(path: &Path) -> anyhow::Result<Value> {
    serde_yaml::from_str(&fs::read_to_string(path)?).with_context(|| path.display().to_string())
}

/// A scalar as it would be written.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The names behind each `start` up to what cannot be in a name, with the character that follows.
fn names_behind<'t>(written: &'t str, start: &'t str) -> impl Iterator<Item = (&'t str, Option<char>)> {
    written.split(start).skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        (&rest[..end], rest[end..].chars().next())
    })
}

/// All entries of maps, however deep.
fn entries<'v>(value: &'v Value, found: &mut Vec<(&'v str, &'v Value)>) {
    match value {
        Value::Object(map) => {
            for (name, inner) in map {
                found.push((name, inner));
                entries(inner, found);
            }
        }
        Value::Array(list) => list.iter().for_each(|inner| entries(inner, found)),
        _ => {}
    }
}

#[test]
fn every_backend_has_its_recipe() -> anyhow::Result<()> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(project("images/recipes"))? {
        let entry = entry?;
        // Dashboards and alerts have no backend of their own to start.
        if entry.path().join("compose.yaml").exists() {
            folders.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    folders.sort_unstable();
    ensure!(folders == BACKENDS, "{folders:?}");
    Ok(())
}

/// With no variables but those that Compose gives it.
#[test]
fn the_agent_takes_its_configuration() -> anyhow::Result<()> {
    for name in BACKENDS {
        let recipe = Recipe::read(name)?;
        let given = recipe.environment("ringtap");
        let file = recipe.folder.join("ringtap.yaml");
        let validate = |given: &BTreeMap<String, String>| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_ringtap"));
            command.args(["validate", "--strict"]).arg(&file).env_clear();
            command.envs(given.keys().map(|name| (name, "set"))).output()
        };
        let output = validate(&given)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && said.is_empty(), "{name}: {said}");
        for left_out in given.keys() {
            let mut fewer = given.clone();
            fewer.remove(left_out);
            ensure!(!validate(&fewer)?.status.success(), "{name}: {left_out} is not needed");
        }
    }
    Ok(())
}

#[test]
fn the_collector_listens_where_the_agent_sends() -> anyhow::Result<()> {
    for name in BACKENDS {
        let Recipe { agent, collector, services, .. } = Recipe::read(name)?;
        let protocols = &collector["receivers"]["otlp"]["protocols"];
        let [grpc, http] =
            [("grpc", "0.0.0.0:4317"), ("http", "0.0.0.0:4318")].map(|(name, at)| protocols[name]["endpoint"] == at);
        ensure!(grpc && http, "{name}: {protocols}");
        let pipeline = &collector["service"]["pipelines"]["logs"];
        ensure!(pipeline["receivers"] == serde_json::json!(["otlp"]), "{name}: {pipeline}");
        ensure!(pipeline["processors"][0] == "memory_limiter", "{name}: {pipeline}");
        for processor in pipeline["processors"].as_array().context("processors")? {
            ensure!(collector["processors"].get(text(processor)).is_some(), "{name}: {processor} is not there");
        }
        let exporters = pipeline["exporters"].as_array().context("exporters")?;
        let defined = collector["exporters"].as_object().context("exporters")?;
        ensure!(exporters.len() == 1 && defined.len() == 1 && defined.contains_key(&text(&exporters[0])), "{name}");

        let stores = &agent["services"];
        let event = &stores["event_stores"][0];
        let object = &stores["object_stores"][0];
        for (store, key) in [(event, "endpoint"), (object, "otel_endpoint")] {
            if store["type"] == "otel" {
                let endpoint = text(&store[key]);
                let (host, port) = endpoint.split_once(':').context(key)?;
                ensure!(services.get(host).is_some(), "{name}: {host} is not a service");
                ensure!(store["protocol"] == "grpc" && port == "4317", "{name}: {store}");
            }
        }
        ensure!(event["type"] == "otel", "{name}: {event}");
        ensure!(object["type"] == if name == "clickstack" { "otel" } else { "s3" }, "{name}: {object}");
        // What carries the events away would make new ones.
        let filters = &agent["tap"]["filters"];
        ensure!(filters["groups"] == serde_json::json!(["qpoint"]), "{name}: {filters}");
        let collector_is_out = serde_json::json!({"exe": "/otelcol", "strategy": "suffix"});
        ensure!(filters["custom"].as_array().is_some_and(|all| all.contains(&collector_is_out)), "{name}: {filters}");
    }
    Ok(())
}

#[test]
fn no_secret_is_written_down() -> anyhow::Result<()> {
    for name in BACKENDS {
        let recipe = Recipe::read(name)?;
        let mut found = Vec::new();
        for part in [&recipe.collector["exporters"], &recipe.services] {
            entries(part, &mut found);
        }
        for (key, value) in found {
            let lower = key.to_ascii_lowercase();
            if value.is_string() && SECRET.iter().any(|word| lower.contains(word)) {
                ensure!(text(value).contains("${"), "{name}: {key}: {value}");
            }
        }
        for key in ["access_key", "secret_key"] {
            let value = &recipe.agent["services"]["object_stores"][0][key];
            ensure!(value.is_null() || value["type"] == "env", "{name}: {key}: {value}");
        }
    }
    Ok(())
}

#[test]
fn what_starts_is_pinned_complete_and_documented() -> anyhow::Result<()> {
    let documented = fs::read_to_string(project("images/recipes/README.md"))?;
    let agent = yaml(&project("images/recipes/agent.yaml"))?;
    let image = &agent["services"]["ringtap"]["image"];
    ensure!(image == concat!("ringtap:", env!("CARGO_PKG_VERSION")), "{image} is another version");
    for name in BACKENDS {
        let recipe = Recipe::read(name)?;
        for (service, what) in recipe.services.as_object().context("services")? {
            if service == "ringtap" {
                ensure!(
                    what["extends"] == serde_json::json!({"file": "../agent.yaml", "service": "ringtap"}),
                    "{name}"
                );
                continue;
            }
            let image = text(&what["image"]);
            let tag = image.rsplit_once(':').context("no tag")?.1;
            let release = tag.strip_prefix("RELEASE.").unwrap_or(tag);
            ensure!(release.starts_with(|c: char| c.is_ascii_digit()), "{name}: {image}");
            for port in what["ports"].as_array().into_iter().flatten() {
                ensure!(text(port).starts_with("127.0.0.1:"), "{name}: {service} is open to others: {port}");
            }
        }
        let compose = fs::read_to_string(recipe.folder.join("compose.yaml"))?;
        for (variable, _) in names_behind(&compose, "${") {
            ensure!(documented.contains(&format!("`{variable}`")), "{name}: {variable} is not in the README");
        }
        // What the collector asks for without a default, Compose gives it.
        let given = recipe.environment("otel-collector");
        let collector = fs::read_to_string(recipe.folder.join("collector.yaml"))?;
        for (variable, next) in names_behind(&collector, "${env:") {
            ensure!(next == Some(':') || given.contains_key(variable), "{name}: {variable} is not in compose.yaml");
        }
    }
    Ok(())
}
