//! A process that publishes and consumes is killed again and again, while another keeps the record of what it was
//! told. The checker knows nothing of how the broker works.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use broker::{
    Delivery, Publication, SharedBroker,
    embedded::{Embedded, Limits},
};
use bytes::Bytes;
use engine::Engine;
use model::{Queue, SystemClock};

/// How often the process is killed.
const LIVES: usize = 10;

/// Numbers that one life may use: messages are numbered through all lives.
const LIFE: usize = 1_000_000;

fn open(dir: &Path) -> SharedBroker {
    Embedded::open(Engine::open(dir).unwrap(), Arc::new(SystemClock), Limits::default()).unwrap()
}

fn queues() -> Vec<Queue> {
    Queue::all().step_by(4).collect()
}

/// The process that is killed. It is told on its standard input where to work and with which number to begin, and says
/// on its output what it has seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the test below, in a process of its own"]
async fn child() {
    let mut order = String::new();
    std::io::stdin().read_line(&mut order).unwrap();
    let (dir, begin) = order.trim().split_once('\t').unwrap();
    let broker = open(Path::new(dir));
    let mut work = tokio::task::JoinSet::new();
    for (place, queue) in queues().into_iter().enumerate() {
        work.spawn(publish(Arc::clone(&broker), queue, place, begin.parse().unwrap()));
        work.spawn(consume(Arc::clone(&broker), queue, place));
    }
    while let Some(done) = work.join_next().await {
        done.unwrap();
    }
}

async fn publish(broker: SharedBroker, queue: Queue, place: usize, begin: usize) {
    let mut next = begin;
    for size in (1..=20).cycle() {
        let batch = (next..next + size).map(|n| Publication { queue, body: Bytes::from(n.to_string()) });
        broker.publish(batch.collect()).await.unwrap();
        say(&format!("confirmed {place} {next} {size}"));
        next += size;
    }
}

/// Acks two of three, and the third when it comes again.
async fn consume(broker: SharedBroker, queue: Queue, place: usize) {
    let mut consumer = broker.consume(queue, 30).await.unwrap();
    loop {
        for delivery in consumer.next(10).await {
            say(&format!("taken {place} {} {}", number(&delivery), delivery.attempt()));
            if delivery.attempt() > 1 || !number(&delivery).is_multiple_of(3) {
                delivery.ack();
            }
        }
    }
}

fn number(delivery: &Delivery) -> usize {
    std::str::from_utf8(delivery.body()).unwrap().parse().unwrap()
}

/// One whole line, at once.
fn say(line: &str) {
    std::io::stdout().write_all(format!("\n@{line}\n").as_bytes()).unwrap();
}

/// What is known of one queue from outside.
#[derive(Default)]
struct Record {
    confirmed: BTreeSet<usize>,
    /// The attempts at which each was taken.
    taken: BTreeMap<usize, Vec<u32>>,
    /// In the order in which they were first taken.
    order: Vec<usize>,
}

impl Record {
    fn take(&mut self, number: usize, attempt: u32) {
        let attempts = self.taken.entry(number).or_default();
        if attempts.is_empty() {
            self.order.push(number);
        }
        attempts.push(attempt);
    }

    fn hear(&mut self, what: &str, numbers: &[usize]) {
        match (what, numbers) {
            ("confirmed", &[first, size]) => self.confirmed.extend(first..first + size),
            ("taken", &[number, attempt]) => self.take(number, attempt.try_into().unwrap()),
            _ => panic!("{what} {numbers:?}"),
        }
    }

    fn verdict(&self) -> Result<(), String> {
        let lost: Vec<_> = self.confirmed.iter().filter(|number| !self.taken.contains_key(number)).collect();
        if !lost.is_empty() {
            return Err(format!("{} of {} confirmed are lost: {lost:?}", lost.len(), self.confirmed.len()));
        }
        if let Some(pair) = self.order.windows(2).find(|pair| pair[0] > pair[1]) {
            return Err(format!("{} came before {}", pair[0], pair[1]));
        }
        let twice = |attempts: &Vec<u32>| !attempts.is_sorted_by(|one, two| one < two);
        match self.taken.iter().find(|(_, attempts)| twice(attempts)) {
            Some((number, attempts)) => Err(format!("{number} came as attempts {attempts:?}")),
            None => Ok(()),
        }
    }
}

#[test]
fn the_checker_finds_what_is_lost_out_of_order_or_twice() {
    let verdict = |confirmed, taken: &[(usize, u32)]| {
        let mut record = Record::default();
        record.hear("confirmed", &[0, confirmed]);
        taken.iter().for_each(|&(number, attempt)| record.take(number, attempt));
        record.verdict()
    };
    assert!(verdict(3, &[(0, 1), (1, 1), (0, 2), (2, 1)]).is_ok());
    assert!(verdict(3, &[(0, 1), (2, 1)]).is_err());
    assert!(verdict(3, &[(0, 1), (2, 1), (1, 1)]).is_err());
    assert!(verdict(3, &[(0, 1), (1, 1), (2, 1), (0, 1)]).is_err());
}

/// Runs the child until it has said `lines` lines, kills it, and hears what it had still said.
fn live_and_die(dir: &Path, begin: usize, lines: usize, records: &mut [Record]) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill_nine::child", "--ignored", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{}\t{begin}", dir.display()).unwrap();
    let mut said = 0;
    let output = BufReader::new(child.stdout.take().unwrap());
    for line in output.lines().map_while(Result::ok) {
        // The test harness of the child has something to say, too.
        let Some(line) = line.strip_prefix('@') else { continue };
        let mut words = line.split(' ');
        let what = words.next().unwrap().to_owned();
        let numbers: Vec<usize> = words.map(|word| word.parse().unwrap()).collect();
        records[numbers[0]].hear(&what, &numbers[1..]);
        said += 1;
        if said == lines {
            child.kill().unwrap();
        }
    }
    assert!(!child.wait().unwrap().success());
    assert!(said >= lines, "the child died by itself after {said} lines");
}

#[tokio::test]
async fn what_was_confirmed_survives_every_kill_in_order_and_once_an_attempt() {
    let dir = tempfile::tempdir().unwrap();
    let mut records: Vec<Record> = queues().iter().map(|_| Record::default()).collect();
    for life in 0..LIVES {
        live_and_die(dir.path(), life * LIFE, 500 + 397 * life, &mut records);
    }
    let broker = open(dir.path());
    for (queue, record) in queues().into_iter().zip(&mut records) {
        let mut consumer = broker.consume(queue, 100).await.unwrap();
        while broker.depth(queue).await.unwrap() != broker::Depth::default() {
            let batch = tokio::time::timeout(Duration::from_millis(50), consumer.next(100)).await;
            for delivery in batch.unwrap_or_default() {
                record.take(number(&delivery), delivery.attempt());
                delivery.ack();
            }
        }
        assert_eq!(record.verdict(), Ok(()), "in {queue}");
    }
    assert!(records.iter().map(|record| record.confirmed.len()).sum::<usize>() > LIVES * 100);
}
