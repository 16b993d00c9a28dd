//! Programs with a TLS library inside and no symbols, known by their build.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use object::{Object as _, ObjectSymbol as _};
use ringtap::probe::{
    signatures::Signatures,
    tls::{self, Points},
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    agent::{Agent, config},
    need_root,
    programs::{Process, nginx_http2, program},
    truth::files,
};

const PATHS: [&str; 3] = ["/size/255?stripped", "/size/1000?stripped", "/size/20000?stripped"];

/// A program with OpenSSL inside, with its symbols and without.
struct Built {
    folder: TempDir,
    whole: PathBuf,
    stripped: PathBuf,
}

fn run(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

impl Built {
    fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (whole, stripped) = (folder.path().join("whole"), folder.path().join("stripped"));
        let libraries = ["-l:libssl.a", "-l:libcrypto.a", "-ldl", "-lpthread", "-Wl,--build-id"];
        run(Command::new("cc").arg("-O2").arg(program("static_client.c")).arg("-o").arg(&whole).args(libraries))?;
        run(Command::new("strip").arg("-o").arg(&stripped).arg(&whole))?;
        Ok(Self { folder, whole, stripped })
    }

    /// The file of signatures that the finder makes of the stripped program.
    fn signatures(&self) -> anyhow::Result<PathBuf> {
        let file = self.folder.path().join("signatures.yaml");
        fs::write(&file, signature(&self.stripped)?)?;
        Ok(file)
    }
}

fn signature(file: &Path) -> anyhow::Result<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringtap"));
    Ok(String::from_utf8(run(command.args(["signature", "--program", "client"]).arg(file))?)?)
}

/// The functions of an entry, by name.
fn functions(entry: &str) -> anyhow::Result<BTreeMap<String, u64>> {
    let entries: serde_yaml::Value = serde_yaml::from_str(entry)?;
    let functions = entries[0]["functions"].as_mapping().context("no functions")?;
    let function = |(name, function): (&serde_yaml::Value, &serde_yaml::Value)| {
        Some((name.as_str()?.to_owned(), function["at"].as_u64()?))
    };
    functions.iter().map(|pair| function(pair).context("not a function")).collect()
}

fn points(file: &Path, signatures: &Signatures) -> Result<Vec<Points>, String> {
    tls::points(file, signatures)
}

/// What is found by code alone is what the symbols say; probes go to the same places, unless the code is another one.
#[test]
fn functions_are_found_without_symbols() -> anyhow::Result<()> {
    let built = Built::new()?;
    let found = functions(&signature(&built.stripped)?)?;
    ensure!(found == functions(&signature(&built.whole)?)?, "{found:?}");
    ensure!(["SSL_read", "SSL_write", "SSL_do_handshake"].iter().all(|name| found.contains_key(*name)), "{found:?}");
    let data = fs::read(&built.whole)?;
    let elf = object::File::parse(&*data)?;
    for (name, address) in &found {
        let symbol = elf.symbols().find(|symbol| symbol.name() == Ok(name)).context("no symbol")?;
        ensure!(symbol.address() == *address, "{name}: {address:#x} is not {:#x}", symbol.address());
    }

    let none = Signatures::default();
    ensure!(points(&built.stripped, &none) == Ok(Vec::new()), "without symbols it has no functions");
    let signatures = Signatures::with(Some(&built.signatures()?)).map_err(anyhow::Error::msg)?;
    let [by_code] = points(&built.stripped, &signatures).map_err(anyhow::Error::msg)?.try_into().expect("one library");
    let [by_symbols] = points(&built.whole, &none).map_err(anyhow::Error::msg)?.try_into().expect("one library");
    ensure!((by_code.how, by_symbols.how) == ("signature", "symbols"), "{by_code:?}");
    let offsets = |points: &Points, program: &str| -> Vec<u64> {
        points.programs.iter().filter(|(name, _)| *name == program).flat_map(|(_, at)| at.clone()).collect()
    };
    // The finder knows no second function that writes, so that for writing the cheaper one inside is not looked for.
    for program in ["handle_read", "handle_read_ex", "handle_handshake"] {
        let (code, symbols) = (offsets(&by_code, program), offsets(&by_symbols, program));
        ensure!(code == symbols, "{program}: {code:x?} {symbols:x?}");
    }
    ensure!(offsets(&by_code, "handle_write").len() == 1, "{by_code:?}");
    Ok(())
}

/// One byte that is not as written, and nothing of the file is believed.
#[test]
fn another_code_is_refused() -> anyhow::Result<()> {
    let built = Built::new()?;
    let signatures = Signatures::with(Some(&built.signatures()?)).map_err(anyhow::Error::msg)?;
    let found = points(&built.stripped, &signatures).map_err(anyhow::Error::msg)?;
    let write = found[0].programs.iter().find(|(name, _)| *name == "handle_write").context("no program")?.1[0];
    let mut data = fs::read(&built.stripped)?;
    data[usize::try_from(write)? + 15] ^= 1;
    let changed = built.folder.path().join("changed");
    fs::write(&changed, data)?;
    let refused = points(&changed, &signatures).expect_err("the code is another one");
    ensure!(refused.contains("client") && refused.contains("SSL_write at 0x"), "{refused}");
    Ok(())
}

/// What the doctor, without an agent, says of a process.
fn doctor(pid: u32, signatures: &Path) -> anyhow::Result<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringtap"));
    command.args(["doctor", "--json", "--agent", "off", "--signatures"]).arg(signatures);
    let report: Value = serde_json::from_slice(&command.output()?.stdout)?;
    let rows = report["told"]["processes"].as_array().context("no processes")?;
    rows.iter().find(|row| row["pid"] == pid).cloned().context("the process is not there")
}

/// The doctor says how functions were found, and why nothing is believed of a build that is not what it seems.
#[test]
fn the_doctor_tells_of_signatures() -> anyhow::Result<()> {
    need_root!();
    let built = Built::new()?;
    let (right, wrong) = (built.signatures()?, built.folder.path().join("wrong.yaml"));
    let text = fs::read_to_string(&right)?;
    let at = text.find("code: \"").context("no code")? + 10;
    fs::write(&wrong, format!("{}{}{}", &text[..at], if &text[at..=at] == "0" { "1" } else { "0" }, &text[at + 1..]))?;
    // It waits for an answer that does not come.
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let client = Command::new(&built.stripped).arg(silent.local_addr()?.port().to_string()).spawn()?;
    let pid = client.id();
    let _client = Process::of(client);
    let _connection = silent.accept()?;
    let row = doctor(pid, &right)?;
    let stack = &row["stacks"][0];
    ensure!(stack["how"] == "signature" && stack["probes"].as_u64() > Some(4), "{row}");
    let row = doctor(pid, &wrong)?;
    let why = row["why"].as_str().unwrap_or_default();
    ensure!(row["stacks"][0]["probes"] == 0 && why.contains("by its build id it is client"), "{row}");
    Ok(())
}

/// The objects of what the client asked for, by path.
fn captured(agent: &Agent) -> anyhow::Result<BTreeMap<&'static str, Vec<Value>>> {
    let mut found = BTreeMap::new();
    let paths: Vec<PathBuf> = agent.object_files()?.into_iter().collect();
    for (_, bytes) in files(&paths)? {
        let object: Value = serde_json::from_slice(&bytes)?;
        let url = object["request"]["url"].as_str().unwrap_or_default();
        if let Some(path) = PATHS.iter().find(|path| url.ends_with(*path)) {
            found.entry(*path).or_insert_with(Vec::new).push(object);
        }
    }
    Ok(found)
}

fn wait_until(what: &str, holds: impl Fn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !holds()? {
        ensure!(begun.elapsed() < Duration::from_secs(20), "{what}");
        sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// An agent that knows the build captures what it exchanges.
#[test]
fn a_known_build_is_captured() -> anyhow::Result<()> {
    need_root!();
    let built = Built::new()?;
    let server = nginx_http2(true)?;
    let file = built.signatures()?.display().to_string();
    let command = Command::new(env!("CARGO_BIN_EXE_ringtap"));
    let agent = Agent::start_with(&config("egress-internal", ""), &["--signatures", &file], command)?;
    let port = server.port.to_string();
    let client = |paths: &[&str]| run(Command::new(&built.stripped).arg(&port).args(paths));
    // Nobody looks into the folder before the program first runs, and it can be gone before anybody did.
    let stripped = built.stripped.display().to_string();
    wait_until("no probes", || {
        client(&["/size/0"])?;
        Ok(agent.read("stderr")?.contains(&stripped))
    })?;
    client(&PATHS)?;
    wait_until("not captured", || Ok(captured(&agent)?.len() == PATHS.len()))?;
    for (path, objects) in captured(&agent)? {
        let exact = objects[0]["metadata"].get("socket").is_none() && objects[0].get("damage").is_none();
        ensure!(objects.len() == 1 && exact, "{path}: {objects:#?}");
    }
    agent.stop()?.check()
}

/// A file of signatures that is wrong keeps the agent from starting, and says where.
#[test]
fn a_wrong_file_is_named_with_its_line() -> anyhow::Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), "\n- program: x\n  build_id: \"00\"\n  library: openssl\n  functions: {}\n")?;
    for command in [&["run"][..], &["doctor", "--agent", "off"]] {
        let output =
            Command::new(env!("CARGO_BIN_EXE_ringtap")).args(command).arg("--signatures").arg(file.path()).output()?;
        let said = String::from_utf8([output.stdout, output.stderr].concat())?;
        let place = format!("{}:2:", file.path().display());
        ensure!(!output.status.success() && said.contains(&place) && said.contains("SSL_read is missing"), "{said}");
    }
    Ok(())
}

/// `BoringSSL`, by other compilers than ours: where the file has symbols, what they say; else what was written down.
#[test]
#[ignore = "needs what ./dev matrix installs"]
fn boringssl_is_found_without_symbols() -> anyhow::Result<()> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/matrix");
    let python = fs::read_dir(tools.join("venv/lib"))?.next().context("no Python")??.path().join("site-packages");

    let whole = python.join("curl_cffi/_wrapper.abi3.so");
    let data = fs::read(&whole)?;
    let elf = object::File::parse(&*data)?;
    let found = functions(&signature(&whole)?)?;
    ensure!(found.len() == 4, "{found:?}");
    for (name, address) in &found {
        let symbol = elf.symbols().find(|symbol| symbol.name() == Ok(name)).context("no symbol")?;
        ensure!(symbol.address() == *address, "{name}: {address:#x} is not {:#x}", symbol.address());
    }

    let known = include_str!("../../agent/probe/signatures.yaml");
    let mut files = vec![tools.join("npm/node_modules/.bin/bun")];
    let module = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "so");
    files
        .extend(fs::read_dir(python.join("grpc/_cython"))?.filter_map(|entry| Some(entry.ok()?.path())).filter(module));
    ensure!(files.len() == 2, "{files:?}");
    for file in files {
        let made = signature(&file)?;
        let (_, behind_name) = made.split_once('\n').context("an entry")?;
        ensure!(known.contains(behind_name), "{}: {made}", file.display());
    }
    Ok(())
}
