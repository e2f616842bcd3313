//! The broker refuses for a while, the store takes some cursors and not others: what is told all the same.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use broker::{SharedBroker, contract::Flaky, embedded::Embedded};
use engine::Engine;
use model::{Clock as _, Position, Seq, SystemClock};
use prometheus_client::registry::Registry as Measured;
use store::{
    SharedStore,
    contract::private::Private,
    redis::{self, Durability, Redis},
};

use super::*;

/// Everything is told and saved by then.
const PATIENCE: Duration = Duration::from_secs(10);

/// An outbox whose cursors go to a Redis of its own.
struct Bench {
    outbox: Outbox,
    deps: Deps,
    registry: Registry,
    done: CancellationToken,
    _dir: tempfile::TempDir,
}

impl Bench {
    async fn start(server: &Private) -> Self {
        let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::new(SystemClock));
        let engine = Engine::open(dir.path()).unwrap();
        let broker = Embedded::open(engine, clock.clone(), broker::embedded::Limits::default()).unwrap();
        let config = redis::Config { durability: Durability::Trusted, ..redis::Config::new(server.url()) };
        let store: SharedStore = Redis::connect(config).await.unwrap();
        Self {
            outbox: Outbox::new(Metrics::new(&mut Measured::default())),
            deps: Deps { broker, store, clock },
            registry: Registry::default(),
            done: CancellationToken::new(),
            _dir: dir,
        }
    }

    /// Reports as long as `told` lasts, and what is left then.
    async fn run(&self, told: impl Future<Output = ()>) {
        let told = async {
            told.await;
            self.done.cancel();
        };
        tokio::join!(self.outbox.run(&self.deps, &self.registry, self.done.clone()), told);
    }

    async fn saved(&self, app: &AppId, device: Ordinal) {
        time::timeout(PATIENCE, self.outbox.kept(app, device)).await.expect("its cursor still waits");
    }

    async fn cursor(&self, app: &AppId, device: Ordinal) -> Cursor {
        self.deps.store.cursor(app, device).await.unwrap()
    }
}

fn app(name: &str) -> AppId {
    name.parse().unwrap()
}

fn write(app: &AppId, device: Ordinal, epoch: u64, seq: u64) -> CursorWrite {
    let cursor = Cursor::at(Position { inbox: Seq(seq), timeline: Seq(seq) });
    CursorWrite { app: app.clone(), device, epoch: Epoch(epoch), cursor }
}

/// Has the server do something, said as in `redis-cli`.
fn order(server: &Private, line: &str) {
    let mut redis = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    redis.write_all(format!("{line}\r\n").as_bytes()).unwrap();
    let mut answer = [0; 5];
    redis.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+OK\r\n");
}

#[tokio::test]
async fn what_is_told_while_a_report_leaves_is_told_before_the_end() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::new(SystemClock));
    let engine = Engine::open(dir.path()).unwrap();
    let broker: SharedBroker =
        Embedded::open(engine.clone(), clock.clone(), broker::embedded::Limits::default()).unwrap();
    // The second report fails at first.
    let broker = Arc::new(Flaky::new(broker, 2));
    let deps = Deps { broker, store: store::embedded::Embedded::open(engine).unwrap(), clock };
    let outbox = Outbox::new(Metrics::new(&mut Measured::default()));
    let (registry, done, app) = (Registry::default(), CancellationToken::new(), "demo".parse().unwrap());
    let tell = |n| outbox.tell(&app, &[(Ordinal(1), MessageId::new(SystemClock.now(), n), Fact::Acked)]);
    let mut reports = outbox.reports.subscribe();
    let told = async {
        tell(1);
        reports.changed().await.unwrap();
        tell(2);
        // Long enough to be seen here: the second report is tried again.
        while outbox.state.lock().leaving.facts == 0 {
            time::sleep(Duration::from_millis(1)).await;
        }
        tell(3);
        done.cancel();
    };
    tokio::join!(outbox.run(&deps, &registry, done.clone()), told);
    assert_eq!(outbox.state.lock().gathering.facts, 0);
}

#[tokio::test]
async fn an_app_whose_cursors_are_not_taken_holds_up_no_other() {
    let Some(server) = Private::start(&[]) else { return };
    let bench = Bench::start(&server).await;
    let (refused, other, device) = (app("demo"), app("other"), Ordinal(1));
    let mut receipts = bench.deps.broker.consume(Queue::Receipts, 10).await.unwrap();
    order(&server, "ACL SETUSER default resetkeys ~ff{other}*");
    bench.outbox.keep(vec![write(&refused, device, 1, 10), write(&other, device, 1, 10)]);
    let told = async {
        for n in 0..3 {
            bench.outbox.tell(&refused, &[(device, MessageId::new(SystemClock.now(), n), Fact::Acked)]);
            let published = time::timeout(PATIENCE, receipts.next(1)).await.expect("receipts wait for cursors");
            published.into_iter().for_each(broker::Delivery::ack);
        }
        bench.saved(&other, device).await;
        assert_eq!(bench.cursor(&other, device).await, write(&other, device, 1, 10).cursor);
        assert!(bench.outbox.cursor(&refused, device).is_some(), "it is not forgotten");
        order(&server, "ACL SETUSER default allkeys");
        bench.saved(&refused, device).await;
    };
    bench.run(told).await;
    assert_eq!(bench.cursor(&refused, device).await, write(&refused, device, 1, 10).cursor);
}

#[tokio::test]
async fn a_damaged_cursor_is_given_up_and_those_beside_it_are_saved() {
    let Some(server) = Private::start(&[]) else { return };
    let bench = Bench::start(&server).await;
    let (app, damaged, short, sound) = (app("demo"), Ordinal(1), Ordinal(35), Ordinal(40));
    // Where the cursors of the first 32 devices should be, and one of the next.
    order(&server, r#"SET "ff{demo}p\x00\x00\x00\x00" damage"#);
    order(&server, r#"HMSET "ff{demo}p\x00\x00\x00\x01" c3 damage"#);
    bench.outbox.keep([damaged, short, sound].map(|device| write(&app, device, 1, 10)).into());
    bench
        .run(async {
            for device in [damaged, short, sound] {
                bench.saved(&app, device).await;
            }
        })
        .await;
    assert_eq!(bench.cursor(&app, sound).await, write(&app, sound, 1, 10).cursor);
    assert_eq!(bench.outbox.metrics.cursors_lost.get(), 2);
}

#[test]
fn a_cursor_that_comes_back_gives_way_to_a_newer_one() {
    let (app, device) = (app("demo"), Ordinal(1));
    let outbox = Outbox::new(Metrics::new(&mut Measured::default()));
    for (gathered, back, stays) in [((2, 20), (2, 10), 20), ((2, 20), (1, 30), 20), ((1, 30), (2, 20), 20)] {
        drop(outbox.take());
        outbox.keep(vec![write(&app, device, gathered.0, gathered.1)]);
        outbox.conclude(vec![write(&app, device, back.0, back.1)]);
        assert_eq!(outbox.cursor(&app, device), Some(write(&app, device, 0, stays).cursor));
    }
}

#[test]
fn facts_count_by_what_is_held_of_them() {
    let outbox = Outbox::new(Metrics::new(&mut Measured::default()));
    let message = MessageId::new(SystemClock.now(), 1);
    for fact in [Fact::Sent, Fact::Acked, Fact::Acked] {
        let facts: Vec<_> = (0..600_000).map(|device| (Ordinal(device), message, fact)).collect();
        outbox.tell(&app("demo"), &facts);
    }
    assert!(!outbox.is_full(), "it is two bitmaps");
    assert_eq!(outbox.state.lock().gathering.facts, 1_200_000, "what is told again is held once");
}

#[test]
fn receipts_travel_in_batches_that_a_broker_takes() {
    let outbox = Outbox::new(Metrics::new(&mut Measured::default()));
    for n in 0..100 {
        let message = MessageId::new(SystemClock.now(), n);
        let facts: Vec<_> = (0..5_000).map(|device| (Ordinal(device), message, Fact::Acked)).collect();
        outbox.tell(&app("demo"), &facts);
    }
    let publications = outbox.take().publications();
    assert!(publications.iter().all(|batch| batch.body.len() <= BATCH_MAX_BYTES));
    let batches = publications.iter().map(|batch| ReceiptBatch::decode(&batch.body).unwrap().receipts.len());
    assert_eq!(batches.sum::<usize>(), 100);
}
