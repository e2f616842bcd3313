//! How many messages go through, from confirm to ack, and how long a confirm takes. Run by hand:
//! `cargo test --release -p broker --test it -- --ignored --nocapture throughput`

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use broker::{
    Limits, Publication, SharedBroker,
    embedded::Embedded,
    rabbit::{Config, Rabbit},
};
use bytes::Bytes;
use engine::Engine;
use model::{Lane, Queue, Shard, SystemClock};
use tokio::task::JoinSet;

const PUBLISHERS: usize = 64;
const LASTS: Duration = Duration::from_secs(5);
const BODY_BYTES: usize = 200;

fn queue(place: usize) -> Queue {
    let shards: Vec<Shard> = Shard::all().collect();
    Queue::Push(Lane::Unicast, shards[place % shards.len()])
}

/// Publishes one batch after the other, and returns how long each confirm took.
async fn publish(broker: SharedBroker, queue: Queue, batch: usize) -> Vec<Duration> {
    let (body, begin) = (Bytes::from(vec![b'x'; BODY_BYTES]), Instant::now());
    let mut took = Vec::new();
    while begin.elapsed() < LASTS {
        let start = Instant::now();
        broker.publish(vec![Publication { queue, body: body.clone() }; batch]).await.unwrap();
        took.push(start.elapsed());
    }
    took
}

/// Acks all that comes, and returns how much that was and how long it took.
async fn consume(broker: SharedBroker, queue: Queue) -> usize {
    let mut consumer = broker.consume(queue, 1_000).await.unwrap();
    let mut acked = 0;
    loop {
        match tokio::time::timeout(Duration::from_secs(1), consumer.next(1_000)).await {
            Err(_) => return acked,
            Ok(batch) => {
                acked += batch.len();
                batch.into_iter().for_each(|delivery| delivery.ack());
            }
        }
    }
}

/// Publishes by many to four queues while four consumers take, and tells how that went.
async fn measure(name: &str, broker: &SharedBroker, batch: usize) {
    let consumers: JoinSet<usize> = (0..4).map(|place| consume(broker.clone(), queue(place))).collect();
    let publishers: JoinSet<_> = (0..PUBLISHERS).map(|place| publish(broker.clone(), queue(place), batch)).collect();
    let mut took = publishers.join_all().await.concat();
    took.sort_unstable();
    let acked: usize = consumers.join_all().await.into_iter().sum();
    assert_eq!(acked, took.len() * batch);
    let rate = acked as f64 / LASTS.as_secs_f64();
    let at = |per_mille: usize| took[took.len() * per_mille / 1_000];
    println!(
        "{name}: {rate:.0} messages/s published, taken and acked by {PUBLISHERS} publishers in batches of {batch}"
    );
    println!("{name}: confirm p50 {:?}, p99 {:?}, p99.9 {:?}", at(500), at(990), at(999));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, to be run alone and optimised"]
async fn throughput() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let engine = Engine::open(dir.path()).unwrap();
    let embedded = Embedded::open(engine, Arc::new(SystemClock), Limits::default()).unwrap();
    let broker: SharedBroker = embedded.clone();
    measure("embedded", &broker, 1).await;
    embedded.close().await.unwrap();
}

/// Leaves its queues on the server, which is for tests alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, to be run alone and optimised"]
async fn throughput_of_rabbit() {
    let Some(url) = crate::rabbit::place::server() else { return };
    let mut config = Config::new(&url, Arc::new(SystemClock)).unwrap();
    config.namespace = "throughput.".into();
    let rabbit = Rabbit::connect(config).await.unwrap();
    let broker: SharedBroker = rabbit.clone();
    for batch in [1, 100] {
        measure("rabbit", &broker, batch).await;
    }
    rabbit.close().await;
}
