//! A bit of the disk flips. What was confirmed is there, or somebody is told; it is never passed over in silence.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use broker::{
    Broker as _, Publication,
    embedded::{Embedded, Limits},
};
use bytes::Bytes;
use engine::Engine;
use model::{Queue, SystemClock};

const QUEUE: Queue = Queue::Receipts;

/// Messages, of a kilobyte that does not compress: enough for the engine to have moved some from journal to tables.
const MESSAGES: usize = 20_000;

fn body(number: usize) -> Bytes {
    let mut state = number as u64;
    let words = (0..128).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()
    });
    words.collect::<Vec<_>>().concat().into()
}

async fn fill(dir: &Path) {
    let broker = Embedded::open(Engine::open(dir).unwrap(), Arc::new(SystemClock), Limits::default()).unwrap();
    for start in (0..MESSAGES).step_by(1_000) {
        let batch = (start..start + 1_000).map(|number| Publication { queue: QUEUE, body: body(number) });
        broker.publish(batch.collect()).await.unwrap();
    }
    broker.close().await.unwrap();
    drop(broker);
    // Until the engine has let go of its files.
    while Engine::open(dir).is_err() {
        tokio::task::yield_now().await;
    }
}

/// Reads the queue to its end, or until somebody says that it is damaged. A message that is not what was published,
/// or not there although nobody said anything, fails the test.
async fn read(dir: &Path, what: &str) -> Result<(), String> {
    let engine = Engine::open(dir).map_err(|error| error.to_string())?;
    let broker = Embedded::open(engine, Arc::new(SystemClock), Limits::default()).map_err(|error| error.to_string())?;
    let mut consumer = broker.consume(QUEUE, 1_000).await.map_err(|error| error.to_string())?;
    let mut next = 0;
    while next < MESSAGES {
        let batch = tokio::time::timeout(Duration::from_secs(20), consumer.next(1_000)).await;
        let batch = batch.unwrap_or_else(|_| panic!("{what}: message {next} never came"));
        if batch.is_empty() {
            return Err(broker.depth(QUEUE).await.unwrap_err().to_string());
        }
        for delivery in batch {
            assert!(*delivery.body() == body(next), "{what}: message {next} is not what was published");
            delivery.ack();
            next += 1;
        }
    }
    Ok(())
}

/// Every file below `dir`.
fn files(dir: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// A copy of the database in `from` with one bit of `file` flipped.
fn damaged(from: &Path, file: &Path, at: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for source in files(from) {
        let target = dir.path().join(source.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        let mut bytes = fs::read(&source).unwrap();
        if source == file {
            bytes[at] ^= 0x10;
        }
        fs::write(target, bytes).unwrap();
    }
    dir
}

#[tokio::test]
async fn a_flipped_bit_is_never_passed_over_in_silence() {
    let original = tempfile::tempdir().unwrap();
    fill(original.path()).await;
    assert_eq!(read(damaged(original.path(), Path::new("none"), 0).path(), "undamaged").await, Ok(()));
    let mut flips = 0;
    for file in files(original.path()) {
        let bytes = fs::read(&file).unwrap();
        let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let name = file.strip_prefix(original.path()).unwrap().display().to_string();
        let is_journal = name.ends_with(".jnl");
        // What is small is the engine's own record of its tables: read once, when it opens.
        if written < 1_000_000 {
            continue;
        }
        for at in [0, written / 5, written / 3, written / 2, written * 4 / 5] {
            let what = format!("{name} at {at} of {written}");
            let verdict = read(damaged(original.path(), &file, at).path(), &what).await;
            assert!(!is_journal || verdict.is_err(), "{what} went unnoticed");
            flips += 1;
        }
    }
    assert!(flips >= 10, "there must be a table and a journal, both large");
}
