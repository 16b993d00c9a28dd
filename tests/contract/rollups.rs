//! Rollups: what stands in them, where they lie, that nobody sees half of one, and that engines read them.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use arrow_array::{
    Array as _, RecordBatch,
    cast::AsArray,
    types::{TimestampMicrosecondType, UInt16Type, UInt64Type},
};
use parquet::{
    arrow::arrow_reader::ParquetRecordBatchReaderBuilder,
    file::{
        properties::ReaderProperties,
        reader::FileReader as _,
        serialized_reader::{ReadOptionsBuilder, SerializedFileReader},
        statistics::Statistics,
    },
};
use ringtap::{
    config::checked::{self, Stores},
    sink::{Patience, rollups::Rollups},
};
use ringtap_batch::{budget::Memory, ledger::Ledger, ring::abi::Counters, rollups::COLUMNS};
use serde_json::json;

use crate::{
    common::day::{Day, rolled_up},
    golden,
    tools::{program, skip, tool},
    traffic::{project, replay},
};

/// All files below a folder, those with a dot before their name as well.
fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut all, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path => all.push(path),
            }
        }
    }
    all.sort_unstable();
    all
}

fn read(file: &Path) -> anyhow::Result<Vec<RecordBatch>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(file)?)?.build()?;
    Ok(reader.collect::<Result<_, _>>()?)
}

fn settings(path: &Path) -> checked::Rollups {
    checked::Rollups {
        is_default_path: false,
        path: path.to_owned(),
        store: None,
        prefix: String::new(),
        max_bytes: 256 << 20,
        max_age: Duration::from_mins(5),
        headers: false,
        compression_level: 1,
        retention: None,
        max_waiting: 1 << 30,
    }
}

/// Rollups of their own, with their ledger.
struct Own {
    runtime: tokio::runtime::Runtime,
    rollups: Rollups,
    ledger: Arc<Ledger>,
}

impl Own {
    fn start(config: &checked::Rollups) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (ledger, memory) = (Arc::new(Ledger::default()), Arc::new(Memory::new(1 << 30)));
        let rollups = {
            let _inside = runtime.enter();
            let counts = (&ledger, &memory);
            Rollups::start(Some(config), &Stores::default(), "gate-1", counts, Patience::UntilRoom)?
        };
        Ok(Self { runtime, rollups, ledger })
    }

    fn offer(&self, batch: RecordBatch) -> anyhow::Result<()> {
        self.rollups.to.as_ref().context("a writer")?.offer(batch);
        Ok(())
    }

    fn finish(self) -> anyhow::Result<Arc<Ledger>> {
        self.runtime.block_on(self.rollups.drain(Duration::from_mins(1)));
        self.ledger.balance(&Counters::default()).map_err(anyhow::Error::msg)?;
        Ok(self.ledger)
    }
}

fn day(exchanges: usize, headers: bool) -> impl Iterator<Item = RecordBatch> {
    let mut day = Day::new(exchanges);
    std::iter::from_fn(move || {
        let batch = day.next_batch()?;
        let outcome = day.outcome(&batch);
        Some(rolled_up(&batch, &outcome, headers))
    })
}

const CONFIG: &str = "
services:
  object_stores: [{type: disk, path: FOLDER/objects}]
  rollups: {path: FOLDER/rollups, level: headers}
stacks:
  shop:
    plugins:
      - type: http_capture
        config:
          level: summary
          rules:
            - {name: errors, expr: http.res.status >= 500, level: headers}
            - {name: nothing, expr: http.req.path == '/gone', level: none}
            - {name: whole, expr: http.req.path == '/cut', level: full}
tap: {http: {stack: shop}}
";

/// One row a transaction: the decision, its rule, the object's digest, and no secret.
#[test]
fn a_replay_leaves_a_row_for_each_transaction() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let printed = replay(folder.path(), golden::traffic(), CONFIG)?;
    let found = files(&folder.path().join("rollups"));
    ensure!(found.len() == 1, "{found:?}");
    let path = found[0].strip_prefix(folder.path())?.display().to_string();
    ensure!(path.starts_with("rollups/dt=2026-01-02/hour=03/host=unknown/20260102T0304"), "{path}");
    ensure!(path.ends_with("-000001.parquet"), "{path}");
    ensure!(printed.summary["ledger"]["rollup_rows_written"] == json!(6), "{}", printed.summary);
    let batches = read(&found[0])?;
    ensure!(batches.iter().map(RecordBatch::num_rows).sum::<usize>() == 6);
    let batch = &batches[0];
    let text = |name: &str| -> anyhow::Result<Vec<Option<String>>> {
        let column = batch.column_by_name(name).with_context(|| name.to_owned())?;
        Ok(column.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect())
    };
    let (hosts, rules, levels, digests) = (text("request_host")?, text("rule")?, text("level")?, text("digest")?);
    let objects: Vec<String> = files(&folder.path().join("objects"))
        .iter()
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .collect();
    ensure!(objects.len() == 5, "{objects:?}");
    let headers = batch.column_by_name("request_headers").context("headers")?.as_map();
    for row in 0..6 {
        let status = batch.column_by_name("status").context("status")?.as_primitive::<UInt16Type>().value(row);
        let path = text("path")?[row].clone().unwrap_or_default();
        let gone = path == "/gone";
        let expected = match status {
            _ if gone => ("none", Some("nothing")),
            // What is missing of a body that nobody wants is no damage.
            _ if path == "/cut" => ("full", Some("whole")),
            500.. => ("headers", Some("errors")),
            _ => ("summary", None),
        };
        ensure!((levels[row].as_deref(), rules[row].as_deref()) == (Some(expected.0), expected.1), "{:?}", hosts[row]);
        ensure!(headers.is_valid(row) == ["headers", "full"].contains(&expected.0), "{:?}", hosts[row]);
        ensure!(digests[row].as_ref().is_none_or(|digest| objects.contains(digest)), "{:?}", digests[row]);
        ensure!(digests[row].is_some() != gone);
    }
    ensure!(text("container_name")?[0].as_deref() == Some("relaxed_zhukovsky"));
    ensure!(text("stack")?[0].as_deref() == Some("shop"));
    let url = text("object_url")?.into_iter().flatten().next().context("a url")?;
    ensure!(url == format!("file://{}/objects/{{{{DIGEST:2}}}}/{{{{DIGEST}}}}", folder.path().display()), "{url}");
    let damaged = batch.column_by_name("missing_bytes").context("a column")?.as_primitive::<UInt64Type>();
    ensure!(damaged.values().iter().sum::<u64>() == 5, "{damaged:?}");
    // Masked before, so that not even the encoded bytes could hold it.
    let shown = format!("{batches:?}");
    ensure!(shown.contains("api_key=") && !shown.contains("0123456789abcdef") && !shown.contains("canary"), "{shown}");
    Ok(())
}

/// Hours are folders; a batch that reaches over one of their ends is parted, and every file is in order.
#[test]
fn rows_lie_in_the_hour_of_their_end() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let own = Own::start(&settings(folder.path()))?;
    let mut rows = 0;
    for batch in day(20_000, false) {
        rows += batch.num_rows() as u64;
        own.offer(batch)?;
    }
    let ledger = own.finish()?;
    ensure!(ledger.rollup_rows_written.get() == rows && rows == 20_000, "{rows}");
    let found = files(folder.path());
    ensure!(found.len() >= 24 && found.len() as u64 == ledger.rollup_files.get(), "{found:?}");
    let mut bytes = 0;
    for file in &found {
        bytes += fs::metadata(file)?.len();
        let partition = file.strip_prefix(folder.path())?.display().to_string();
        let mut last = 0;
        for batch in read(file)? {
            for time in batch.column(0).as_primitive::<TimestampMicrosecondType>().values() {
                let of = jiff::Timestamp::from_microsecond(*time)?.strftime("dt=%Y-%m-%d/hour=%H/host=gate-1/");
                ensure!(partition.starts_with(&of.to_string()) && last <= *time, "{time} in {partition} behind {last}");
                last = *time;
            }
        }
    }
    ensure!(bytes == ledger.rollup_bytes.get());
    Ok(())
}

/// Scenario: files roll as fast as they can, and somebody lists the folder and reads what is there, again and again.
/// Guarantee: whatever has the name of a rollup is one, whole.
#[test]
fn no_reader_sees_half_a_file() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let stop = Arc::new(AtomicBool::new(false));
    let (root, ended) = (folder.path().to_owned(), stop.clone());
    let reader = std::thread::spawn(move || -> anyhow::Result<usize> {
        let mut read_files = 0;
        while !ended.load(Ordering::Relaxed) {
            for file in files(&root).iter().filter(|file| file.extension().is_some_and(|end| end == "parquet")) {
                let rows: usize =
                    read(file).with_context(|| file.display().to_string())?.iter().map(RecordBatch::num_rows).sum();
                ensure!(rows > 0, "{} is empty", file.display());
                read_files += 1;
            }
        }
        Ok(read_files)
    });
    let own = Own::start(&checked::Rollups { max_age: Duration::from_millis(1), ..settings(folder.path()) })?;
    let begun = Instant::now();
    for batch in day(60_000, false) {
        own.offer(batch)?;
        std::thread::sleep(Duration::from_millis(120));
    }
    let ledger = own.finish()?;
    stop.store(true, Ordering::Relaxed);
    let read_files = reader.join().map_err(|_| anyhow::anyhow!("the reader has crashed"))??;
    ensure!(read_files > 20 && ledger.rollup_files.get() > 20, "{read_files} in {:?}", begun.elapsed());
    Ok(())
}

const VICTIM: &str = "RINGTAP_TEST_ROLLUP_VICTIM";

/// The process that the next test kills: it has taken rows and written none.
#[test]
#[ignore = "no test but a process: a_killed_run_leaves_nothing_and_is_counted starts and kills it, which ./dev test runs"]
fn victim() -> anyhow::Result<()> {
    let Some(folder) = std::env::var_os(VICTIM) else { return Ok(()) };
    // Made before, however long that takes: the files of an hour that is over are closed when nothing more comes.
    let batches: Vec<RecordBatch> = day(1_000_000, false).take(32).collect();
    let own = Own::start(&settings(Path::new(&folder)))?;
    batches.into_iter().try_for_each(|batch| own.offer(batch))?;
    std::thread::sleep(Duration::from_mins(5));
    Ok(())
}

/// Scenario: kill -9 in the midst of a file. Guarantee: the next start removes it, and counts its rows as lost.
#[test]
fn a_killed_run_leaves_nothing_and_is_counted() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--exact", "rollups::victim", "--ignored", "--nocapture"])
        .env(VICTIM, folder.path())
        .stdout(Stdio::null())
        .spawn()?;
    let note = |files: &[PathBuf]| files.iter().find(|file| file.extension().is_some_and(|end| end == "open")).cloned();
    let begun = Instant::now();
    let noted = loop {
        let noted = note(&files(folder.path())).and_then(|note| fs::read_to_string(note).ok());
        match noted.and_then(|text| text.trim().parse::<u64>().ok()) {
            Some(rows) if rows > 120_000 => break rows,
            _ if begun.elapsed() > Duration::from_mins(4) => bail!("no rows: {:?}", files(folder.path())),
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    std::thread::sleep(Duration::from_millis(800));
    let left = files(folder.path());
    ensure!(left.iter().any(|file| file.extension().is_some_and(|end| end == "tmp")), "{left:?}");
    child.kill()?;
    child.wait()?;
    let own = Own::start(&settings(folder.path()))?;
    let ledger = own.finish()?;
    ensure!(ledger.rollup_rows_killed.get() >= noted, "{noted}");
    ensure!(files(folder.path()).is_empty(), "{:?}", files(folder.path()));
    Ok(())
}

/// Scenario: a small disk that fills up, and is cleared. Guarantee: what was lost is counted, the half file is gone, and
/// rows are written again.
#[test]
fn a_full_disk_is_a_counted_loss() -> anyhow::Result<()> {
    struct Mounted(PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg(&self.0).status();
        }
    }
    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("disk");
    fs::create_dir(&disk)?;
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"]).arg(&disk).stderr(Stdio::null()).status();
    if !mounted.is_ok_and(|status| status.success()) {
        skip("rollups on a full disk", "a small disk cannot be mounted; that needs root");
        return Ok(());
    }
    let _mounted = Mounted(disk.clone());
    fs::write(disk.join("ballast"), vec![0; 2 << 20])?;
    // More than a megabyte in one row group, which fails after some seconds.
    let batches: Vec<RecordBatch> = day(4_000_000, false).take(31).collect();
    let mut batches = batches.into_iter();
    let own = Own::start(&checked::Rollups { max_age: Duration::from_secs(1), ..settings(&disk) })?;
    batches.by_ref().take(30).try_for_each(|batch| own.offer(batch))?;
    let begun = Instant::now();
    while own.ledger.rollup_rows_failed.get() == 0 {
        ensure!(begun.elapsed() < Duration::from_mins(2), "nothing failed");
        std::thread::sleep(Duration::from_millis(50));
    }
    fs::remove_file(disk.join("ballast"))?;
    batches.take(1).try_for_each(|batch| own.offer(batch))?;
    let ledger = own.finish()?;
    let (written, failed) = (ledger.rollup_rows_written.get(), ledger.rollup_rows_failed.get());
    ensure!(written > 0 && failed > 0, "{written} rows were written, {failed} failed");
    ensure!(files(&disk).iter().all(|file| file.extension().is_some_and(|end| end == "parquet")), "{:?}", files(&disk));
    Ok(())
}

/// What engines prune by: order, minima and maxima of row groups and pages, Bloom filters.
#[test]
fn files_say_what_can_be_passed_over() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    // Two row groups in one hour.
    let batches: Vec<RecordBatch> = day(6_000_000, false).take(61).collect();
    let own = Own::start(&settings(folder.path()))?;
    batches.into_iter().try_for_each(|batch| own.offer(batch))?;
    own.finish()?;
    let found = files(folder.path());
    ensure!(found.len() == 1, "{found:?}");
    let options = ReadOptionsBuilder::new()
        .with_reader_properties(ReaderProperties::builder().set_read_bloom_filter(true).build())
        .build();
    let reader = SerializedFileReader::new_with_options(File::open(&found[0])?, options)?;
    let metadata = reader.metadata();
    ensure!(metadata.num_row_groups() >= 2);
    ensure!(metadata.file_metadata().created_by().is_some_and(|by| by.starts_with("ringtap ")));
    let place = |name: &str| COLUMNS.iter().position(|column| column.name == name).context("a column");
    let schema = metadata.file_metadata().schema_descr();
    let leaf = |name: &str| schema.columns().iter().position(|c| c.path().string() == name).context("a leaf");
    let mut last = i64::MIN;
    for at in 0..metadata.num_row_groups() {
        let group = metadata.row_group(at);
        ensure!(group.sorting_columns().is_some_and(|columns| columns[0].column_idx == 0 && !columns[0].descending));
        let Some(Statistics::Int64(times)) = group.column(place("time")?).statistics() else { bail!("no statistics") };
        let (min, max) = (*times.min_opt().context("a minimum")?, *times.max_opt().context("a maximum")?);
        // Requests of different length overlap where one group ends and the next begins, by no more than their length.
        ensure!(min > last.saturating_sub(10_000_000) && max > min, "group {at} begins at {min} behind {last}");
        last = max;
        ensure!(group.column(0).column_index_offset().is_some(), "pages have statistics");
        let groups = reader.get_row_group(at)?;
        for (name, there, not_there) in [
            ("request_host", "service-0.svc.cluster.local", "nobody.example"),
            ("digest", "", "0000000000000000000000000000000000000000"),
        ] {
            let filter = groups.get_column_bloom_filter(leaf(name)?).with_context(|| format!("a filter of {name}"))?;
            ensure!(there.is_empty() || filter.check(there), "{there} is there");
            ensure!(!filter.check(not_there), "{not_there} is not");
        }
        for name in ["request_id", "connection_id"] {
            ensure!(groups.get_column_bloom_filter(leaf(name)?).is_some(), "{name}");
        }
    }
    Ok(())
}

/// The table of columns is the schema.
#[test]
fn the_documented_columns_are_the_schema() -> anyhow::Result<()> {
    let mut table = String::from("| column | type | meaning |\n|---|---|---|\n");
    for column in &COLUMNS {
        let kind = column.kind.sql();
        let null = if column.nullable { ", or null" } else { "" };
        let line = format!("| `{}` | {kind}{null} | {} |\n", column.name, column.meaning);
        table.push_str(&line);
    }
    let path = project("docs/query.md");
    let text = fs::read_to_string(&path)?;
    let (before, rest) = text.split_once("<!-- columns -->\n").context("a mark before the table")?;
    let (found, after) = rest.split_once("<!-- end -->").context("a mark behind it")?;
    if std::env::var_os("RINGTAP_GOLDEN_UPDATE").is_some() {
        fs::write(&path, format!("{before}<!-- columns -->\n{table}<!-- end -->{after}"))?;
        return Ok(());
    }
    ensure!(found == table, "docs/query.md has other columns; RINGTAP_GOLDEN_UPDATE=1 writes them");
    Ok(())
}

/// A folder of rollups as the documents' queries have them: 100,000 transactions of a day.
fn documented_day() -> anyhow::Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    let own = Own::start(&checked::Rollups { headers: true, ..settings(folder.path()) })?;
    day(100_000, true).try_for_each(|batch| own.offer(batch))?;
    ensure!(own.finish()?.rollup_rows_written.get() == 100_000);
    Ok(folder)
}

/// Every query of docs/query.md runs, and says what stands there.
#[test]
fn documented_queries_say_what_is_documented() -> anyhow::Result<()> {
    let Some(python) = tool("python").filter(|python| has(python, "duckdb")) else {
        skip("queries of docs/query.md", "DuckDB is not installed; ./dev test installs it");
        return Ok(());
    };
    let folder = documented_day()?;
    let how = if std::env::var_os("RINGTAP_GOLDEN_UPDATE").is_some() { "update" } else { "check" };
    let output = Command::new(python)
        .arg(program("query_docs.py"))
        .args([how.as_ref(), project("docs/query.md").as_os_str(), folder.path().as_os_str()])
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn has(python: &Path, module: &str) -> bool {
    let status = Command::new(python).args(["-c", &format!("import {module}")]).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Engines come to the same results, each by its own reader. `./dev readers` installs those that take longer.
#[test]
fn engines_read_the_same() -> anyhow::Result<()> {
    let python = std::env::var_os("RINGTAP_READERS").map(PathBuf::from).or_else(|| tool("python"));
    let Some(python) = python.filter(|python| has(python, "duckdb, pyarrow")) else {
        skip("rollups in DuckDB and pyarrow", "they are not installed; ./dev test installs them");
        return Ok(());
    };
    let folder = documented_day()?;
    let output = Command::new(python).arg(program("readers.py")).arg(folder.path()).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table = String::from_utf8(output.stdout)?;
    println!("{table}");
    ensure!(table.contains("DuckDB") && table.contains("pyarrow"), "{table}");
    Ok(())
}

/// Scenario: the object store does not answer, and then it does. Guarantee: whole files wait on disk, the next start brings
/// them, and nothing is counted twice.
#[test]
fn files_wait_for_the_object_store() -> anyhow::Result<()> {
    let Some(rclone) = tool("rclone") else {
        skip("rollups in a bucket", "rclone is not installed; ./dev test installs it");
        return Ok(());
    };
    let (folder, bucket) = (tempfile::tempdir()?, tempfile::tempdir()?);
    fs::create_dir(bucket.path().join("qpoint"))?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let config = "
services:
  object_stores:
    - {id: b, type: s3, endpoint: '127.0.0.1:PORT', insecure: true, bucket: qpoint, access_key: {type: text, value: AKTEST}, secret_key: {type: text, value: s3cret}}
  rollups: {path: FOLDER/rollups, object_store: {id: b}, prefix: a/rollups}
stacks: {s: {plugins: [{type: report_usage}]}}
tap: {http: {stack: s}}
"
    .replace("PORT", &port.to_string());
    let printed = replay(folder.path(), golden::traffic(), &config)?;
    let counts = |printed: &crate::traffic::Printed| -> BTreeMap<String, u64> {
        let ledger = printed.summary["ledger"].as_object().into_iter().flatten();
        ledger.filter_map(|(name, n)| Some((name.strip_prefix("rollup_rows_")?.to_owned(), n.as_u64()?))).collect()
    };
    let first = counts(&printed);
    ensure!((first["seen"], first["written"], first["kept"]) == (6, 0, 6), "{first:?}");
    ensure!(files(&folder.path().join("rollups")).len() == 1);
    let mut server = Command::new(rclone)
        .args(["serve", "s3", "--auth-key", "AKTEST,s3cret", "--addr", &format!("127.0.0.1:{port}")])
        .arg(bucket.path())
        .stderr(Stdio::null())
        .spawn()?;
    let begun = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() && begun.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(50));
    }
    let again = replay(folder.path(), golden::traffic(), &config);
    let stored = files(bucket.path());
    server.kill()?;
    server.wait()?;
    let second = counts(&again?);
    ensure!((second["seen"], second["written"], second["kept"]) == (12, 12, 0), "{second:?}");
    ensure!(files(&folder.path().join("rollups")).is_empty(), "{:?}", files(&folder.path().join("rollups")));
    let stored: Vec<&PathBuf> =
        stored.iter().filter(|file| file.extension().is_some_and(|end| end == "parquet")).collect();
    ensure!(stored.len() == 2, "{stored:?}");
    for file in stored {
        let key = file.strip_prefix(bucket.path().join("qpoint"))?.display().to_string();
        ensure!(key.starts_with("a/rollups/dt=2026-01-02/hour=03/host=unknown/"), "{key}");
        ensure!(read(file)?.iter().map(RecordBatch::num_rows).sum::<usize>() == 6);
    }
    Ok(())
}
