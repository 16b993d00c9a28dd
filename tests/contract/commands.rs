//! Every command that a document shows is run, as it stands there: in a folder with the files that the documents speak of,
//! with the binary of this build.
//!
//! Those that change the machine, or need one of another kind, are not run here; each is listed with where it is.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::tools::skip;

/// Commands that are tested elsewhere, by how they begin.
const ELSEWHERE: [(&str, &str); 14] = [
    ("./dev", "CI runs ./dev test; the others are listed by ./dev, and run by hand before a release"),
    ("nix ", "tests/nix/check"),
    ("podman ", "tests/images/check"),
    ("kubectl ", "tests/charts/check.py validates the manifests; there is no cluster here"),
    ("helm ", "tests/charts/check.py renders the chart; there is no cluster here"),
    ("sudo apt-get", "by hand, with the package of ./dev deb"),
    ("sudo systemctl", "there is no systemd here; ./dev packages has systemd-analyze verify the unit"),
    ("journalctl", "there is no systemd here"),
    ("duckdb ", "contract::rollups runs every query by DuckDB's library"),
    ("sudo ringtap bench", "live::pipeline runs it"),
    ("ringtap bench", "live::pipeline runs it"),
    ("readelf ", "no file is named"),
    ("ringtap signature", "live::signatures runs it"),
    ("curl -s https://objects", "a bucket of yours"),
];
/// Those that go on until they are stopped.
const LASTING: [&str; 3] = ["ringtap run", "ringtap --config", "ringtap record"];
const LIMIT: Duration = Duration::from_secs(20);

/// Commands in `sh` blocks of a document, with comments taken off.
fn commands(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        match line {
            "```sh" => inside = true,
            line if line.starts_with("```") => inside = false,
            line if inside => {
                let command = line.split("  #").next().unwrap_or_default().trim();
                if !command.is_empty() && !command.starts_with('#') {
                    found.push(command.to_owned());
                }
            }
            _ => {}
        }
    }
    found
}

fn documents() -> anyhow::Result<Vec<PathBuf>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = vec![root.join("README.md")];
    for entry in fs::read_dir(root.join("docs"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "md") {
            all.push(path);
        }
    }
    all.sort();
    Ok(all)
}

/// What the documents speak of.
fn ground(folder: &Path) -> anyhow::Result<()> {
    let config = format!(
        "version: 2\nservices:\n  object_stores:\n    - {{type: disk, path: {}/objects}}\nstacks:\n  s:\n    plugins:\n      \
         - {{type: http_capture, config: {{level: full}}}}\ntap:\n  direction: egress\n  http: {{stack: s}}\n",
        folder.display()
    );
    for name in ["config.yaml", "new.yaml", "old.yaml"] {
        fs::write(folder.join(name), &config)?;
    }
    fs::write(folder.join("own.yaml"), "")?;
    // Objects by the digests that the documents have: what they say is made up, how they are found is not.
    let object = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/guide-object.json"))?;
    let digest = ringtap_batch::objects::digest(&object);
    for store in ["objects", "copied", "data/objects"] {
        let place = folder.join(store).join(&digest[..2]);
        fs::create_dir_all(&place)?;
        fs::write(place.join(&digest), &object)?;
    }
    // A capture file in which nothing was caught: a header alone, of version 2.4, for Ethernet.
    let fields: [u32; 6] = [0xa1b2_c3d4, 2 | 4 << 16, 0, 0, 65_535, 1];
    fs::write(folder.join("x.pcap"), fields.map(u32::to_le_bytes).concat())?;
    Ok(())
}

/// Runs a line; one that lasts is stopped as a user would once it has begun.
fn run(line: &str, folder: &Path) -> anyhow::Result<()> {
    let binary = Path::new(env!("CARGO_BIN_EXE_ringtap")).parent().context("it lies in a folder")?;
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap_or_default());
    let lasts = LASTING.iter().any(|begin| line.starts_with(begin));
    let errors = folder.join("stderr");
    let mut child = Command::new("bash")
        .args(["-c", line])
        .current_dir(folder)
        .env("PATH", path)
        .env("DATA_DIR", folder.join("data"))
        .env("HTTPD_LISTEN", "off")
        .stdin(Stdio::null())
        .stdout(fs::File::create(folder.join("stdout"))?)
        .stderr(fs::File::create(&errors)?)
        .process_group(0)
        .spawn()?;
    let begun = Instant::now();
    let mut stopped = false;
    loop {
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "{line}: {status}: {}", fs::read_to_string(&errors)?);
            return Ok(());
        }
        let said = fs::read_to_string(&errors)?;
        if lasts && !stopped && (said.contains("capturing") || said.contains("recording")) {
            kill_process_group(Pid::from_child(&child), Signal::INT)?;
            stopped = true;
        }
        if begun.elapsed() > LIMIT {
            let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
            bail!("{line} does not end: {said}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn every_command_of_the_documents_works() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    ground(folder.path())?;
    let object = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/guide-object.json"))?;
    let digest = ringtap_batch::objects::digest(&object);
    let root = rustix::process::geteuid().is_root();
    let (mut ran, mut faults) = (0, Vec::new());
    let mut all: Vec<String> = Vec::new();
    for document in documents()? {
        let text = fs::read_to_string(&document)?;
        all.extend(commands(&text).into_iter().map(|line| line.replace("sudo ringtap", "ringtap")));
    }
    // Recordings are made before they are replayed.
    all.sort_by_key(|line| !line.starts_with("ringtap record"));
    all.dedup();
    for line in all {
        if ELSEWHERE.iter().any(|(begin, _)| line.starts_with(begin)) {
            continue;
        }
        let needs_agent = ["ringtap top", "ringtap status", "ringtap reload-config", "ringtap doctor"];
        if needs_agent.iter().any(|begin| line.starts_with(begin)) {
            // live::page and live::reload ask agents; here only the line itself is looked at.
            <ringtap::cli::Cli as clap::Parser>::try_parse_from(line.split_whitespace())
                .map_err(|error| anyhow::anyhow!("{line}: {error}"))?;
            continue;
        }
        let lasts = LASTING.iter().any(|begin| line.starts_with(begin));
        if lasts && !root {
            skip(&format!("commands: {line}"), "needs root");
            continue;
        }
        // The digests of the documents stand for ones that are there.
        let there =
            line.replace("1f6ca33ad7190588564966a4ef415583f3aad7e8", &format!("copied/{}/{digest}", &digest[..2]));
        let there = there.replace("1f6ca33a", &digest[..8]).replace("1f6c", &digest[..4]);
        match run(&there, folder.path()) {
            Ok(()) => ran += 1,
            Err(fault) => faults.push(fault.to_string()),
        }
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    ensure!(ran > 15, "only {ran} commands were run");
    Ok(())
}
