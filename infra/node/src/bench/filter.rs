//! `fanfare bench filter`: how fast the index answers over a large generated population, SQLite and PostgreSQL beside it.
//!
//! Whoever wants the figures of one core runs it on one: `taskset -c 0 fanfare bench filter`.

use std::{
    process,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;
use filter::{Expr, Index, snapshot};
use lab::{
    Error, Latency, Usage,
    bench::{
        Asked,
        population::{NOW, QUESTIONS, Question, THREE, WIDE, device},
        postgres, sqlite,
    },
};
use model::{AppId, Device, Env};
use store::ChangeId;

/// How often each question is asked for its median.
const ROUNDS: usize = 21;

/// How long updates and questions run beside each other.
const BESIDE: Duration = Duration::from_secs(10);

/// Between two questions while there are updates.
const ASKED_EVERY: Duration = Duration::from_millis(20);

/// Updates a second that the index must take while it answers.
const UPDATES_PER_S: u32 = 50_000;

/// Updates between two looks at the clock.
const UPDATES_AT_ONCE: usize = 500;

/// Devices that are updated, all over the index.
const UPDATED: u32 = 20_000;

#[derive(Args, Clone, Copy)]
pub(super) struct Population {
    /// Generated devices, with 20 attributes and 5 tags each.
    #[arg(long, default_value_t = 10_000_000)]
    devices: u32,
    /// Devices in SQLite, in PostgreSQL, and in an index of the same size beside them; 0 to leave that out.
    #[arg(long, default_value_t = 1_000_000)]
    databases: u32,
}

pub(super) async fn run(population: Population) -> anyhow::Result<()> {
    let Population { devices, databases } = population;
    let mut asked = Vec::new();
    if databases > 0 {
        let dir = tempfile::tempdir()?;
        asked.push(("SQLite", sqlite::ask(dir.path(), databases, &QUESTIONS).await?));
        match postgres::ask(databases, &QUESTIONS).await {
            Ok(of_each) => asked.push(("PostgreSQL", of_each)),
            Err(Error::Unavailable(why)) => println!("PostgreSQL is left out: {}", why.body),
            Err(error) => return Err(error.into()),
        }
    }
    // What follows computes and waits for nobody.
    tokio::task::block_in_place(|| {
        if !asked.is_empty() {
            let index = filled(databases);
            asked.iter().try_for_each(|(name, asked)| compare(&index, databases, name, asked))?;
        }
        measure(devices)
    })
}

fn filled(devices: u32) -> Index {
    let index = Index::default();
    (0..devices).filter_map(|ordinal| device(ordinal, 0)).for_each(|device| index.put(&device));
    index
}

fn measure(devices: u32) -> anyhow::Result<()> {
    let before = memory()?;
    let begun = Instant::now();
    let index = filled(devices);
    let took = begun.elapsed().as_secs_f64();
    println!("filter     {devices} devices, generated and indexed in {took:.0} s");
    println!("  memory     {}; the index says {}", gib(memory()? - before), gib(index.bytes() as f64));
    println!("  {:<42}{:>10}{:>12}{:>12}{:>12}", "", "devices", "select p50", "select p99", "count p50");
    for question in QUESTIONS {
        let (count, selecting, counting) = ask(&index, question)?;
        let (p50, p99, counted) =
            (ms(selecting.quantile(0.5)), ms(selecting.quantile(0.99)), ms(counting.quantile(0.5)));
        println!("  {:<42}{count:>10}{p50:>12}{p99:>12}{counted:>12}", question.name);
    }
    update(&index, devices)?;
    restart(index)
}

fn ask(index: &Index, question: Question) -> anyhow::Result<(u64, Latency, Latency)> {
    let expr: Expr = question.filter.parse()?;
    let (mut count, mut selecting, mut counting) = (0, Latency::default(), Latency::default());
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        count = index.select(Env::Live, &expr, NOW).len();
        selecting.record(begun.elapsed());
        let begun = Instant::now();
        let counted = index.count(Env::Live, &expr, NOW);
        counting.record(begun.elapsed());
        anyhow::ensure!(counted == count, "{}: {counted} are counted, {count} selected", question.name);
    }
    Ok((count, selecting, counting))
}

/// Three attributes of devices change all over the index while questions are asked.
fn update(index: &Index, devices: u32) -> anyhow::Result<()> {
    let questions: Vec<Expr> =
        [THREE, WIDE].iter().map(|question| question.filter.parse()).collect::<Result<_, _>>()?;
    // Made up before, as that is not the index's work: the same devices in two rounds, so that each time they differ.
    let chosen = |round: u32| (0..UPDATED).filter_map(move |n| device(n.wrapping_mul(2_654_435_761) % devices, round));
    let changed: Vec<Device> = (1..=2).flat_map(chosen).collect();
    let done = AtomicBool::new(false);
    let mut answered = Latency::default();
    let updated = thread::scope(|scope| {
        let updating = scope.spawn(|| {
            let updated = change(index, &changed);
            done.store(true, Ordering::Release);
            updated
        });
        for question in questions.iter().cycle() {
            if done.load(Ordering::Acquire) {
                break;
            }
            let begun = Instant::now();
            index.count(Env::Live, question, NOW);
            answered.record(begun.elapsed());
            thread::sleep(ASKED_EVERY.saturating_sub(begun.elapsed()));
        }
        updating.join().ok()
    });
    let (updates, busy) = updated.context("the updates ended in a panic")?;
    let per_s = f64::from(updates) / BESIDE.as_secs_f64();
    let each = busy.as_secs_f64() * 1e6 / f64::from(updates.max(1));
    println!("  updates    {per_s:.0}/s of {UPDATES_PER_S}/s wanted, {each:.1} us each; counts beside them {answered}");
    Ok(())
}

/// Applies updates at the rate that is wanted; how many, and how much of the time that took.
fn change(index: &Index, changed: &[Device]) -> (u32, Duration) {
    let begun = Instant::now();
    let (mut updates, mut busy) = (0_u32, Duration::ZERO);
    let mut batches = changed.chunks(UPDATES_AT_ONCE).cycle();
    while begun.elapsed() < BESIDE {
        let wanted = begun.elapsed().as_secs_f64() * f64::from(UPDATES_PER_S);
        if f64::from(updates) > wanted {
            thread::sleep(Duration::from_millis(1));
            continue;
        }
        let (at, batch) = (Instant::now(), batches.next().unwrap_or_default());
        batch.iter().for_each(|device| index.put(device));
        busy += at.elapsed();
        updates += batch.len() as u32;
    }
    (updates, busy)
}

fn restart(index: Index) -> anyhow::Result<()> {
    let dir = tempfile::tempdir().context("cannot make a folder for the snapshot")?;
    let (app, upto): (AppId, _) = ("bench".parse()?, ChangeId(7));
    let begun = Instant::now();
    snapshot::write(dir.path(), &app, &index, upto)?;
    let wrote = begun.elapsed();
    let devices = index.len();
    drop(index);
    let before = memory()?;
    let begun = Instant::now();
    let (index, found) = snapshot::read(dir.path(), &app)?.context("the snapshot is gone")?;
    let read = begun.elapsed();
    anyhow::ensure!((index.len(), found) == (devices, upto), "the snapshot is another one");
    let files = dir.path().read_dir()?.map(|file| Ok(file?.metadata()?.len()));
    let bytes = files.sum::<std::io::Result<u64>>()?;
    let [wrote, read] = [wrote, read].map(|took| took.as_secs_f64());
    println!("  snapshot   {} written durably in {wrote:.1} s, read back in {read:.1} s", gib(bytes as f64));
    println!(
        "  memory     {} more after the restart; the index says {}",
        gib(memory()? - before),
        gib(index.bytes() as f64)
    );
    Ok(())
}

fn compare(index: &Index, devices: u32, name: &str, asked: &[Asked]) -> anyhow::Result<()> {
    println!("{name:<10} {devices} devices in memory, each column with an index, beside an index of as many");
    println!("  {:<42}{:>10}{name:>12}{:>12}{:>8}", "", "devices", "fanfare", "ratio");
    for (question, asked) in QUESTIONS.into_iter().zip(asked) {
        let (count, selecting, counting) = ask(index, question)?;
        anyhow::ensure!(count == asked.count, "{}: {count} here, {} there", question.name, asked.count);
        for (what, theirs, ours) in [("select", asked.selecting, selecting), ("count", asked.counting, counting)] {
            let ours = ours.quantile(0.5);
            let ratio = theirs.as_secs_f64() / ours.as_secs_f64();
            println!(
                "  {:<42}{count:>10}{:>12}{:>12}{ratio:>8.0}",
                format!("{what}: {}", question.name),
                ms(theirs),
                ms(ours)
            );
        }
    }
    Ok(())
}

/// What this process holds.
fn memory() -> anyhow::Result<f64> {
    Ok(Usage::of(process::id())?.rss_bytes as f64)
}

fn ms(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

fn gib(bytes: f64) -> String {
    format!("{:.2} GiB", bytes / f64::from(1 << 30))
}
