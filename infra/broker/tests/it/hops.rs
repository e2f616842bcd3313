//! What the broker adds to its client library, or saves: messages over two queues, one behind the other, with plain
//! lapin and with ours in one run. By hand, with a server:
//! `cargo test --release -p broker --test it -- --ignored --nocapture hops`

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use broker::{
    Publication, SharedBroker,
    rabbit::{Config, Rabbit},
};
use bytes::Bytes;
use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, Consumer,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
        QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};
use model::{Lane, Queue, Shard, SystemClock};
use tokio::{task::JoinSet, time::sleep};

/// Publishers, each of which waits for its confirm before the next.
const PUBLISHERS: usize = 64;
/// How long they publish.
const LASTS: Duration = Duration::from_secs(6);
/// Bytes of a message.
const BODY_BYTES: usize = 200;
/// Unacked messages of a consumer at most.
const PREFETCH: u16 = 1_000;
/// How long the last message may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// `delivery_mode` of what survives a restart.
const PERSISTENT: u8 = 2;

/// Lets all publish, waits until the last message has been acked, and gives messages a second.
async fn drive<F>(name: &str, acked: &AtomicUsize, publish: impl Fn(Bytes) -> F) -> f64
where
    F: Future<Output = ()> + Send + 'static,
{
    let begin = Instant::now();
    let body = Bytes::from(vec![b'x'; BODY_BYTES]);
    let mut published = 0;
    let mut publishers: JoinSet<()> = (0..PUBLISHERS).map(|_| publish(body.clone())).collect();
    while publishers.join_next().await.is_some() {
        published += 1;
        if begin.elapsed() < LASTS {
            publishers.spawn(publish(body.clone()));
        }
    }
    let confirmed = published as f64 / begin.elapsed().as_secs_f64();
    while acked.load(Relaxed) < published {
        assert!(begin.elapsed() < LASTS + PATIENCE, "{} of {published}", acked.load(Relaxed));
        sleep(Duration::from_millis(1)).await;
    }
    let through = published as f64 / begin.elapsed().as_secs_f64();
    println!("{name}: {confirmed:.0} messages/s confirmed, {through:.0} messages/s over both queues");
    through
}

/// Publishes and waits for the confirm.
async fn confirmed(channel: &Channel, queue: &str, body: &[u8]) {
    let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
    let options = BasicPublishOptions::default();
    let confirm = channel.basic_publish("".into(), queue.into(), options, body, properties).await.unwrap();
    assert!(confirm.await.unwrap().is_ack());
}

async fn publishing(connection: &Connection) -> Channel {
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    channel
}

/// Declares a quorum queue and consumes from it.
async fn consuming(connection: &Connection, queue: &str) -> Consumer {
    let channel = connection.create_channel().await.unwrap();
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    channel.queue_declare(queue.into(), options, arguments).await.unwrap();
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.unwrap();
    let options = BasicConsumeOptions::default();
    channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await.unwrap()
}

/// Two hops with plain lapin; publishing and consuming have connections of their own.
async fn bare(url: &str) -> f64 {
    let connect = || Connection::connect(url, ConnectionProperties::default());
    let (first_link, second_link, consumers) =
        (connect().await.unwrap(), connect().await.unwrap(), connect().await.unwrap());
    let run: u64 = rand::random();
    let [first, second] = ["one", "two"].map(|hop| format!("hops-{run:x}.{hop}"));
    let (at_first, mut at_second) = (consuming(&consumers, &first).await, consuming(&consumers, &second).await);
    let (channel, onward) = (publishing(&first_link).await, publishing(&second_link).await);
    let acked = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    let to = second.clone();
    tasks.spawn(at_first.for_each_concurrent(usize::from(PREFETCH), move |delivery| {
        let (onward, to) = (onward.clone(), to.clone());
        async move {
            let delivery = delivery.unwrap();
            confirmed(&onward, &to, &delivery.data).await;
            delivery.ack(BasicAckOptions::default()).await.unwrap();
        }
    }));
    let counted = acked.clone();
    tasks.spawn(async move {
        while let Some(delivery) = at_second.next().await {
            delivery.unwrap().ack(BasicAckOptions::default()).await.unwrap();
            counted.fetch_add(1, Relaxed);
        }
    });
    let through = drive("plain lapin", &acked, |body| {
        let (channel, first) = (channel.clone(), first.clone());
        async move { confirmed(&channel, &first, &body).await }
    })
    .await;
    tasks.shutdown().await;
    let channel = consumers.create_channel().await.unwrap();
    for queue in [first, second] {
        channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    }
    through
}

/// Two hops with our broker.
async fn ours(url: &str) -> f64 {
    let mut config = Config::new(url, Arc::new(SystemClock)).unwrap();
    config.namespace = "throughput.".into();
    let rabbit = Rabbit::connect(config).await.unwrap();
    let broker: SharedBroker = rabbit.clone();
    let shard = Shard::all().next().unwrap();
    let [first, second] = [Lane::Unicast, Lane::Multicast].map(|lane| Queue::Push(lane, shard));
    let mut at_first = broker.consume(first, PREFETCH.into()).await.unwrap();
    let mut at_second = broker.consume(second, PREFETCH.into()).await.unwrap();
    let acked = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    let onward = broker.clone();
    tasks.spawn(async move {
        let mut under_way = JoinSet::new();
        loop {
            let taken = at_first.next(PREFETCH.into()).await;
            while under_way.try_join_next().is_some() {}
            let onward = onward.clone();
            under_way.spawn(async move {
                let batch = taken.iter().map(|delivery| Publication { queue: second, body: delivery.body().clone() });
                onward.publish(batch.collect()).await.unwrap();
                taken.into_iter().for_each(|delivery| delivery.ack());
            });
        }
    });
    let counted = acked.clone();
    tasks.spawn(async move {
        loop {
            let taken = at_second.next(PREFETCH.into()).await;
            counted.fetch_add(taken.len(), Relaxed);
            taken.into_iter().for_each(|delivery| delivery.ack());
        }
    });
    let through = drive("our broker", &acked, |body| {
        let broker = broker.clone();
        async move { broker.publish(vec![Publication { queue: first, body }]).await.unwrap() }
    })
    .await;
    tasks.shutdown().await;
    rabbit.close().await;
    through
}

/// Leaves the queues of our broker on the server, which is for tests alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, to be run alone and optimised"]
async fn two_hops_beside_plain_lapin() {
    let Some(url) = crate::rabbit::place::server() else { return };
    let bare = bare(&url).await;
    let ours = ours(&url).await;
    println!("ratio: {:.2}", ours / bare);
}
