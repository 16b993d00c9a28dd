//! What is appended comes out in order, once, whatever happens to the process and the disk between.

use std::{fs, sync::Arc};

use arrow_array::{BinaryViewArray, Int64Array, RecordBatch, cast::AsArray as _, types::Int64Type};
use proptest::prelude::*;

use super::*;

const DAY: Duration = Duration::from_hours(24);

fn limits(bytes_max: u64, drops_oldest: bool, age_max: Duration) -> Arc<Limits> {
    let (bytes, segment_max) = (AtomicU64::new(0), SEGMENT_MAX.min(bytes_max / SEGMENTS_MIN));
    Arc::new(Limits { bytes, bytes_max, segment_max, age_max, drops_oldest })
}

fn open(folder: &Path, limits: &Arc<Limits>) -> Log {
    limits.bytes.store(0, Ordering::Relaxed);
    let files = Files::start(false).expect("started");
    Log::open(folder.to_owned(), files, limits.clone()).expect("opened")
}

/// Numbers, and bytes beside them.
fn batch(numbers: std::ops::Range<i64>, size: usize) -> RecordBatch {
    let bytes = BinaryViewArray::from_iter_values(numbers.clone().map(|_| vec![7u8; size]));
    let numbers = Int64Array::from_iter_values(numbers);
    RecordBatch::try_from_iter([("n", Arc::new(numbers) as _), ("data", Arc::new(bytes) as _)]).expect("alike")
}

fn numbers(batch: &RecordBatch) -> Vec<i64> {
    batch.column(0).as_primitive::<Int64Type>().values().to_vec()
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(work)
}

async fn drain(log: &mut Log) -> Vec<i64> {
    let mut all = Vec::new();
    while let Some(taken) = log.next().await.expect("the disk works") {
        all.extend(numbers(&taken.batch));
        log.acknowledge(taken.ticket).await;
    }
    all
}

#[test]
fn what_was_not_acknowledged_comes_again_and_the_rest_does_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let limits = limits(8 << 20, true, DAY);
    run(async {
        let mut log = open(folder.path(), &limits);
        for n in 0..10 {
            log.append(&batch(n * 10..n * 10 + 10, 100)).await.expect("room");
        }
        assert_eq!(log.waiting(), 100);
        let first = log.next().await.expect("read").expect("there");
        let second = log.next().await.expect("read").expect("there");
        let third = log.next().await.expect("read").expect("there");
        assert_eq!((numbers(&first.batch)[0], numbers(&third.batch)[0]), (0, 20));
        // The second is given back, the third acknowledged before it, the first never: the process ends.
        log.acknowledge(third.ticket).await;
        log.give_back(second.ticket);
        assert_eq!(numbers(&log.next().await.expect("read").expect("there").batch)[0], 10);
        assert_eq!(log.waiting(), 90);
        drop(log);
        let mut log = open(folder.path(), &limits);
        let all = drain(&mut log).await;
        assert_eq!(all, (0..100).collect::<Vec<_>>(), "only what is behind the cursor is gone");
        drop(log);
        let mut log = open(folder.path(), &limits);
        assert_eq!((drain(&mut log).await.len(), log.waiting()), (0, 0));
        assert_eq!(segment_files(folder.path()), 0, "nothing is kept that is done");
        log.append(&batch(100..101, 1)).await.expect("room");
        assert_eq!(drain(&mut log).await, [100], "rows are numbered on");
    });
}

fn segment_files(folder: &Path) -> usize {
    log::segment_files(folder).expect("readable").len()
}

#[test]
fn a_torn_end_is_cut_off_and_damage_is_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let limits = limits(8 << 20, true, DAY);
    run(async {
        let mut log = open(folder.path(), &limits);
        for n in 0..4 {
            log.append(&batch(n * 10..n * 10 + 10, 100)).await.expect("room");
        }
        drop(log);
        let (_, path) = log::segment_files(folder.path()).expect("readable").remove(0);
        let whole = fs::read(&path).expect("there");
        // Torn in the last record.
        for cut in [1, 20, 200] {
            fs::write(&path, &whole[..whole.len() - cut]).expect("written");
            let mut log = open(folder.path(), &limits);
            assert_eq!(log.waiting(), 30);
            log.append(&batch(30..40, 100)).await.expect("room");
            let first = log.next().await.expect("read").expect("there");
            assert_eq!(numbers(&first.batch)[0], 0);
        }
        // A byte of the second record's batch, and of the third one's head.
        let size = whole.len() / 4;
        for (at, lost) in [(size + 100, 10..20), (size * 2 + 9, 20..30)] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&path, &damaged).expect("written");
            fs::remove_file(folder.path().join("cursor")).ok();
            let mut log = open(folder.path(), &limits);
            assert_eq!(log.waiting(), 40);
            let all = drain(&mut log).await;
            assert_eq!(all, (0..40).filter(|n| !lost.contains(n)).collect::<Vec<_>>());
            assert_eq!(log.take_lost(), Lost { corrupt: 10, ..Lost::default() });
        }
    });
}

#[test]
fn a_full_spool_drops_the_oldest_or_refuses() {
    for drops_oldest in [true, false] {
        let folder = tempfile::tempdir().expect("a folder");
        let limits = limits(1 << 20, drops_oldest, DAY);
        run(async {
            let mut log = open(folder.path(), &limits);
            let mut appended = 0;
            for n in 0..200 {
                match log.append(&batch(n * 10..n * 10 + 10, 1000)).await {
                    Ok(()) => appended += 10,
                    Err(SpoolError::Full) => assert!(!drops_oldest),
                    Err(other) => panic!("{other}"),
                }
                assert!(limits.bytes.load(Ordering::Relaxed) <= 1 << 20);
            }
            let all = drain(&mut log).await;
            let lost = log.take_lost();
            assert_eq!(all.len() as u64 + lost.dropped, appended);
            assert!(all.is_sorted() && !all.is_empty());
            assert_eq!(drops_oldest, lost.dropped > 0);
            assert_eq!(all.contains(&1999), drops_oldest, "the newest are kept, or the oldest");
            assert_eq!(
                log.append(&batch(0..2000, 1000)).await.map_err(|e| e.to_string()),
                Err(SpoolError::TooLarge.to_string())
            );
        });
    }
}

#[test]
fn what_is_too_old_is_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    run(async {
        let mut log = open(folder.path(), &limits(1 << 20, true, Duration::from_millis(20)));
        log.append(&batch(0..5, 10)).await.expect("room");
        std::thread::sleep(Duration::from_millis(30));
        log.append(&batch(5..7, 10)).await.expect("room");
        assert_eq!(drain(&mut log).await, [5, 6]);
        assert_eq!(log.take_lost(), Lost { expired: 5, ..Lost::default() });
    });
}

#[test]
fn only_what_is_referred_to_is_written() {
    let large = batch(0..100, 10_000);
    let record = record::encode(&large.slice(3, 1), 0, 0).expect("written");
    assert!(record.len() < 20_000, "{} bytes for one row", record.len());
    let back = record::decode(&record[record::HEAD..]).expect("read");
    assert_eq!(back, large.slice(3, 1));
}

#[test]
fn two_agents_do_not_share_a_spool_and_a_kill_is_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = checked::Spool {
        path: Some(folder.path().join("spool")),
        bytes_max: 1 << 20,
        age_max: DAY,
        when_full: WhenFull::DropOldest,
    };
    let ledger = Ledger::default();
    let files = Files::start(false).expect("started");
    let open = || Spool::open(&config, Path::new("/none"), files.clone(), &ledger);
    let mode = || {
        std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(folder.path().join("spool")).expect("there").permissions(),
        )
    };
    fs::create_dir(folder.path().join("spool")).expect("made");
    assert_ne!(mode() & 0o077, 0, "others may look into it");
    let spool = open().expect("opened");
    assert_eq!(mode() & 0o077, 0, "they may not any more");
    assert!(open().expect_err("it is taken").to_string().contains("another agent"));
    spool.held().add(Kind::Events, 7);
    spool.held().sub(Kind::Events, 2);
    drop(spool);
    let spool = open().expect("opened again");
    assert_eq!((ledger.events_seen.get(), ledger.events_killed.get()), (5, 5));
    drop(spool);
    open().expect("opened again");
    assert_eq!(ledger.events_killed.get(), 5, "once");
}

/// A segment that was dropped behind one that is on its way leaves a hole, which the next agent does not fall into.
#[test]
fn what_was_dropped_in_the_midst_is_not_missed() {
    let folder = tempfile::tempdir().expect("a folder");
    let limits = limits(1 << 20, true, DAY);
    run(async {
        let mut log = open(folder.path(), &limits);
        log.append(&batch(0..10, 5000)).await.expect("room");
        let first = log.next().await.expect("read").expect("there");
        for n in 1..60 {
            log.append(&batch(n * 10..n * 10 + 10, 5000)).await.expect("room");
        }
        let dropped = log.take_lost().dropped;
        assert!(dropped > 0 && limits.bytes.load(Ordering::Relaxed) <= 1 << 20);
        log.give_back(first.ticket);
        drop(log);
        let mut log = open(folder.path(), &limits);
        let all = drain(&mut log).await;
        assert_eq!((all.len() as u64 + dropped, all[0], all.last()), (600, 0, Some(&599)));
        assert_eq!((log.take_lost(), log.waiting()), (Lost::default(), 0));
        assert_eq!((segment_files(folder.path()), limits.bytes.load(Ordering::Relaxed)), (0, 0));
        drop(log);
        assert_eq!(drain(&mut open(folder.path(), &limits)).await, [0i64; 0], "nothing comes twice");
    });
}

/// Somebody deletes a segment, while the log is open and while it is not: its rows are counted, and the others come.
#[test]
fn a_segment_that_is_gone_is_counted() {
    for while_open in [true, false] {
        let folder = tempfile::tempdir().expect("a folder");
        let limits = limits(8 << 20, true, DAY);
        run(async {
            let mut log = open(folder.path(), &limits);
            for n in 0..100 {
                log.append(&batch(n * 10..n * 10 + 10, 5000)).await.expect("room");
            }
            let files = log::segment_files(folder.path()).expect("readable");
            assert!(files.len() > 3);
            fs::remove_file(&files[1].1).expect("deleted");
            if !while_open {
                drop(log);
                log = open(folder.path(), &limits);
            }
            let all = drain(&mut log).await;
            let (from, to) = (i64::try_from(files[1].0).expect("few"), i64::try_from(files[2].0).expect("few"));
            assert_eq!(all, (0..1000).filter(|n| !(from..to).contains(n)).collect::<Vec<_>>());
            let corrupt = u64::try_from(to - from).expect("positive");
            assert_eq!((log.take_lost(), log.waiting()), (Lost { corrupt, ..Lost::default() }, 0));
            assert_eq!(segment_files(folder.path()), 0);
        });
    }
}

/// Without its cursor a log begins where its files do, and ends.
#[test]
fn a_lost_cursor_holds_nothing_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let limits = limits(8 << 20, true, DAY);
    run(async {
        let mut log = open(folder.path(), &limits);
        for n in 0..100 {
            log.append(&batch(n * 10..n * 10 + 10, 5000)).await.expect("room");
        }
        for _ in 0..60 {
            let taken = log.next().await.expect("read").expect("there");
            log.acknowledge(taken.ticket).await;
        }
        drop(log);
        fs::remove_file(folder.path().join("cursor")).expect("it was written");
        let mut log = open(folder.path(), &limits);
        let all = drain(&mut log).await;
        assert!(all.len() >= 400 && all.ends_with(&(600..1000).collect::<Vec<_>>()));
        assert_eq!((log.take_lost(), log.waiting(), segment_files(folder.path())), (Lost::default(), 0, 0));
    });
}

/// A body can hold what looks like a head: it is believed only where a head can be.
#[test]
fn heads_in_bodies_are_not_believed() {
    let folder = tempfile::tempdir().expect("a folder");
    let limits = limits(8 << 20, true, DAY);
    run(async {
        let mut log = open(folder.path(), &limits);
        log.append(&batch(0..10, 100)).await.expect("room");
        log.append(&batch(10..20, 100)).await.expect("room");
        drop(log);
        let (_, path) = log::segment_files(folder.path()).expect("readable").remove(0);
        let mut bytes = fs::read(&path).expect("there");
        // Behind a damaged first head: one that claims rows far ahead and more bytes than there are.
        let forged = record::encode(&batch(0..5000, 100), 1 << 40, 0).expect("written");
        bytes[8] ^= 1;
        bytes[record::HEAD..2 * record::HEAD].copy_from_slice(&forged[..record::HEAD]);
        fs::write(&path, &bytes).expect("written");
        let mut log = open(folder.path(), &limits);
        assert_eq!(drain(&mut log).await, (10..20).collect::<Vec<_>>());
        assert_eq!((log.take_lost().corrupt, log.waiting()), (10, 0));
    });
}

#[derive(Debug, Clone)]
enum Step {
    Append(u8),
    Take,
    Acknowledge(u8),
    GiveBack(u8),
    Reopen,
    Cut(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<u8>().prop_map(Step::Append),
        4 => Just(Step::Take),
        3 => any::<u8>().prop_map(Step::Acknowledge),
        1 => any::<u8>().prop_map(Step::GiveBack),
        1 => Just(Step::Reopen),
        1 => any::<u8>().prop_map(Step::Cut),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever the order: every row is acknowledged, lost and counted, or comes at the end.
    #[test]
    fn rows_are_neither_lost_nor_invented(steps in proptest::collection::vec(step(), 1..60)) {
        let folder = tempfile::tempdir().expect("a folder");
        let limits = limits(1 << 20, true, DAY);
        run(async {
            let mut log = open(folder.path(), &limits);
            let (mut next, mut flying, mut settled, mut lost) = (0i64, Vec::<Taken>::new(), Vec::new(), 0);
            let mut reopened = false;
            for step in steps {
                match step {
                    Step::Append(n) => {
                        let rows = i64::from(n % 7) + 1;
                        log.append(&batch(next..next + rows, usize::from(n) * 100)).await.expect("room");
                        next += rows;
                    }
                    Step::Take => flying.extend(log.next().await.expect("read")),
                    Step::Acknowledge(at) if !flying.is_empty() => {
                        let taken = flying.remove(usize::from(at) % flying.len());
                        settled.extend(numbers(&taken.batch));
                        log.acknowledge(taken.ticket).await;
                    }
                    Step::GiveBack(at) if !flying.is_empty() => {
                        log.give_back(flying.remove(usize::from(at) % flying.len()).ticket);
                    }
                    Step::Reopen | Step::Cut(_) => {
                        lost += log.take_lost().dropped;
                        flying.clear();
                        reopened = true;
                        drop(log);
                        if let (Step::Cut(n), Some((_, path))) =
                            (&step, log::segment_files(folder.path()).expect("readable").pop())
                        {
                            // As if a write had been torn: bytes behind the last record.
                            let mut bytes = fs::read(&path).expect("there");
                            bytes.extend(std::iter::repeat_n(*n, usize::from(*n)));
                            fs::write(&path, bytes).expect("written");
                        }
                        log = open(folder.path(), &limits);
                    }
                    _ => {}
                }
            }
            for taken in flying {
                log.give_back(taken.ticket);
            }
            settled.extend(drain(&mut log).await);
            let now = log.take_lost();
            assert_eq!((now.corrupt, now.expired, log.waiting()), (0, 0, 0));
            lost += now.dropped;
            let counted = i64::try_from(settled.len()).expect("few") + i64::try_from(lost).expect("few");
            settled.sort_unstable();
            settled.dedup();
            let once = i64::try_from(settled.len()).expect("few");
            // What was acknowledged out of order comes again after the end of the process, and can be dropped then.
            assert!(once <= next && next <= counted, "{once} of {next} arrived, {lost} were lost");
            assert!(reopened || counted == next, "{once} of {next} arrived once, {counted} are counted");
        });
    }
}
