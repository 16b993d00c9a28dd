//! `docs/configuration.md`, made from the schema that the agent prints: every key with its values, default and meaning.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path, process::Command};

use anyhow::{Context as _, ensure};
use serde_json::Value;

const HEAD: &str = "# Configuration

Every key of a configuration file, made from `ringtap schema`. [`compatibility.md`](compatibility.md) says what differs from
Qtap; `ringtap validate --effective FILE` prints a file with every default filled in. A file without anything in it is valid;
without a file, [the embedded one](../agent/config/default.yaml) acts.

";

/// The name at the end of a reference.
fn referred(schema: &Value) -> Option<&str> {
    let direct = schema["$ref"].as_str();
    let one_of = schema["anyOf"].as_array().and_then(|all| all.iter().find_map(|one| one["$ref"].as_str()));
    direct.or(one_of)?.rsplit('/').next()
}

/// What can be written, for people.
fn kind(schema: &Value, defs: &Value) -> String {
    if let Some(name) = referred(schema) {
        let words = words(&defs[name]);
        return if words.is_empty() {
            format!("[{name}](#{})", name.to_lowercase())
        } else {
            words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
        };
    }
    if let Some(items) = schema.get("items") {
        return format!("list of {}", kind(items, defs));
    }
    if let Some(value) = schema.get("additionalProperties").filter(|value| value.is_object()) {
        return format!("names with {}", kind(value, defs));
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(all) => all.iter().filter_map(Value::as_str).filter(|one| *one != "null").collect(),
        _ => Vec::new(),
    };
    match types.join(" or ").as_str() {
        "" => "anything".into(),
        "string" => "text".into(),
        "boolean" => "`true`, `false`".into(),
        other => other.into(),
    }
}

/// The words that a definition allows, if it is a list of such.
fn words(definition: &Value) -> Vec<&str> {
    let variants = definition["oneOf"].as_array().into_iter().flatten();
    let constants = variants.filter(|one| one["deprecated"] != true).filter_map(|one| one["const"].as_str());
    let listed = definition["enum"].as_array().into_iter().flatten().filter_map(Value::as_str);
    constants.chain(listed).collect()
}

fn default(schema: &Value) -> String {
    match schema.get("default") {
        None | Some(Value::Null | Value::Object(_)) => String::new(),
        Some(Value::Array(all)) if all.is_empty() => String::new(),
        Some(Value::String(text)) if text.is_empty() => String::new(),
        Some(value) => format!("`{}`", value.to_string().trim_matches('"')),
    }
}

fn line(text: &Value) -> String {
    text.as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|")
}

fn table(out: &mut String, schema: &Value, defs: &Value) {
    let _ = writeln!(out, "| key | values | default | meaning |\n|---|---|---|---|");
    for (name, key) in schema["properties"].as_object().into_iter().flatten() {
        let _ = writeln!(out, "| `{name}` | {} | {} | {} |", kind(key, defs), default(key), line(&key["description"]));
    }
}

/// All definitions that a schema leads to, in the order in which they are met.
fn follow<'a>(schema: &'a Value, defs: &'a Value, met: &mut Vec<&'a str>) {
    match schema {
        Value::Object(fields) => {
            if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next())
                && !met.contains(&name)
            {
                met.push(name);
                follow(&defs[name], defs, met);
            }
            fields.iter().filter(|(name, _)| *name != "$defs").for_each(|(_, value)| follow(value, defs, met));
        }
        Value::Array(all) => all.iter().for_each(|value| follow(value, defs, met)),
        _ => {}
    }
}

fn page(schema: &Value) -> String {
    let defs = &schema["$defs"];
    let mut out = HEAD.to_owned();
    out.push_str("## The file\n\n");
    table(&mut out, schema, defs);
    let mut met = Vec::new();
    follow(schema, defs, &mut met);
    for name in met {
        let definition = &defs[name];
        if definition["properties"].is_object() {
            let _ = writeln!(out, "\n## {name}\n\n{}\n", line(&definition["description"]));
            table(&mut out, definition, defs);
        } else if definition["oneOf"].as_array().is_some_and(|all| all.iter().any(|one| one["description"].is_string()))
        {
            let _ =
                writeln!(out, "\n## {name}\n\n{}\n\n| value | meaning |\n|---|---|", line(&definition["description"]));
            for one in definition["oneOf"].as_array().into_iter().flatten() {
                let value = one["const"].as_str().map_or_else(|| kind(one, defs), |word| format!("`{word}`"));
                let old = if one["deprecated"] == true { "An old spelling." } else { "" };
                let _ = writeln!(out, "| {value} | {}{old} |", line(&one["description"]));
            }
        }
    }
    out
}

#[test]
fn every_key_is_in_the_reference() -> anyhow::Result<()> {
    let printed = Command::new(env!("CARGO_BIN_EXE_ringtap")).arg("schema").output()?;
    let schema: Value = serde_json::from_slice(&printed.stdout).context("the schema is JSON")?;
    let made = page(&schema);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    if std::env::var_os("RINGTAP_REFERENCE_UPDATE").is_some() {
        fs::write(&path, &made)?;
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    ensure!(
        there == made,
        "docs/configuration.md is not what the schema says: RINGTAP_REFERENCE_UPDATE=1 writes it anew"
    );
    let missing: BTreeSet<&str> =
        made.lines().filter(|line| line.starts_with("| `") && line.ends_with("|  |")).collect();
    ensure!(missing.is_empty(), "keys without a meaning: {missing:?}");
    Ok(())
}
