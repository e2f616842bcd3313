//! A network that fails: nothing that was confirmed is lost, nobody waits for ever, and afterwards everything works.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::poll_fn,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use broker::{Broker, Consumer, Error, Publication, Ring, rabbit::Rabbit};
use bytes::Bytes;
use futures_util::future::join_all;
use model::{Lane, Queue};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{
    place::{DEADLINE, Place, start},
    proxy::Network,
};

const QUEUE: Queue = Queue::Receipts;

/// What a publish may take beyond its confirm timeout: dialling has its own patience.
const SLACK: Duration = Duration::from_secs(1);

fn numbered(number: u32) -> Vec<Publication> {
    vec![Publication { queue: QUEUE, body: Bytes::from(number.to_string()) }]
}

/// Publishes a number until it is confirmed.
async fn insist(broker: &Rabbit, number: u32) {
    let deadline = Instant::now() + DEADLINE;
    while let Err(error) = broker.publish(numbered(number)).await {
        assert!(Instant::now() < deadline, "{number} is never confirmed: {error}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Takes and acks until all of these were seen, and returns how often each was.
async fn take_all(mut consumer: Consumer, wanted: BTreeSet<u32>) -> BTreeMap<u32, u32> {
    let mut seen = BTreeMap::new();
    while !wanted.iter().all(|number| seen.contains_key(number)) {
        let batch = timeout(DEADLINE, consumer.next(100)).await.unwrap();
        for delivery in batch {
            let number = std::str::from_utf8(delivery.body()).unwrap().parse().unwrap();
            *seen.entry(number).or_default() += 1;
            delivery.ack();
        }
    }
    seen
}

/// Publishes numbers one by one from several tasks, each until it is confirmed.
fn publish_all(broker: &Arc<Rabbit>, each: u32) -> Vec<JoinHandle<()>> {
    let publish = |task: u32| {
        let broker = Arc::clone(broker);
        tokio::spawn(async move {
            for number in task * each..(task + 1) * each {
                insist(&broker, number).await;
            }
        })
    };
    (0..8).map(publish).collect()
}

async fn cut(place: &Place) {
    place.network(Network::Cut);
    sleep(Duration::from_millis(50)).await;
    place.network(Network::Open);
}

#[tokio::test]
async fn what_is_confirmed_survives_cuts_and_consumers_go_on() {
    let Some(mut place) = start().await else { return };
    let broker = place.connect().await;
    let consumer = broker.consume(QUEUE, 100).await.unwrap();
    let taken = tokio::spawn(take_all(consumer, (0..2_400).collect()));
    let published = publish_all(&broker, 300);
    for _ in 0..4 {
        sleep(Duration::from_millis(200)).await;
        cut(&place).await;
    }
    for publisher in published {
        publisher.await.unwrap();
    }
    let seen = taken.await.unwrap();
    assert_eq!(seen.len(), 2_400);
    broker.close().await;
}

#[tokio::test]
async fn a_publish_into_silence_fails_in_time_and_later_ones_pass() {
    let Some(mut place) = start().await else { return };
    place.config.confirm_timeout = Duration::from_millis(500);
    let broker = place.connect().await;
    broker.publish(numbered(1)).await.unwrap();
    place.network(Network::Silent);
    for _ in 0..3 {
        let began = Instant::now();
        let failed = broker.publish(numbered(2)).await.unwrap_err();
        assert!(matches!(failed, Error::Unavailable(_)), "{failed}");
        assert!(began.elapsed() < place.config.confirm_timeout + SLACK, "{:?}", began.elapsed());
    }
    place.network(Network::Cut);
    place.network(Network::Open);
    insist(&broker, 3).await;
    let consumer = broker.consume(QUEUE, 100).await.unwrap();
    take_all(consumer, BTreeSet::from([1, 3])).await;
}

#[tokio::test]
async fn when_one_node_is_silent_another_serves() {
    let Some(mut place) = start().await else { return };
    place.config.confirm_timeout = Duration::from_millis(500);
    let broker = place.connect_by(2).await;
    for silent in 0..2 {
        place.network(Network::Open);
        place.proxies[silent].set(Network::Silent);
        for number in 0..20 {
            insist(&broker, number).await;
        }
    }
}

#[tokio::test]
async fn what_was_out_when_the_connection_was_lost_is_handed_out_again() {
    let Some(mut place) = start().await else { return };
    let broker = place.connect().await;
    insist(&broker, 1).await;
    insist(&broker, 2).await;
    let mut consumer = broker.consume(QUEUE, 1).await.unwrap();
    let held = timeout(DEADLINE, consumer.next(1)).await.unwrap().remove(0);
    cut(&place).await;
    held.ack();
    for (number, attempt) in [("1", 2), ("2", 2)] {
        let delivery = timeout(DEADLINE, consumer.next(1)).await.unwrap().remove(0);
        assert_eq!((delivery.body(), delivery.attempt()), (&Bytes::from(number), attempt));
        delivery.ack();
    }
}

#[tokio::test]
async fn bells_are_heard_again_after_a_cut() {
    let Some(mut place) = start().await else { return };
    let broker = place.connect().await;
    let node = "one".parse().unwrap();
    let mut bells = broker.listen(&node, Lane::Unicast).await.unwrap();
    let gaps = bells.gaps();
    timeout(DEADLINE, gaps.next()).await.expect("listening begins with a gap");
    broker.ring(Lane::Unicast, &Ring::One(node.clone()), Bytes::from("before"));
    assert_eq!(timeout(DEADLINE, bells.heard()).await.unwrap().unwrap(), "before");
    assert_eq!(broker.bells_dropped(), 0);
    cut(&place).await;
    timeout(DEADLINE, gaps.next()).await.expect("who listens again may have missed some");
    let deadline = Instant::now() + DEADLINE;
    loop {
        broker.ring(Lane::Unicast, &Ring::One(node.clone()), Bytes::from("ring"));
        if let Ok(bell) = timeout(Duration::from_millis(100), bells.heard()).await {
            assert_eq!(bell.unwrap(), "ring");
            break;
        }
        assert!(Instant::now() < deadline, "no bell is heard");
    }
    assert!(broker.bells_dropped() > 0, "some may have been lost with the connection");
}

#[tokio::test]
async fn nobody_is_served_by_a_node_that_is_not_there() {
    let Some(mut place) = start().await else { return };
    let broker = place.connect().await;
    place.network(Network::Cut);
    let began = Instant::now();
    let deadline = Instant::now() + DEADLINE;
    while broker.publish(numbered(1)).await.is_ok() {
        assert!(Instant::now() < deadline, "publishing works without a network");
    }
    assert!(broker.publish(numbered(2)).await.is_err());
    assert!(began.elapsed() < place.config.confirm_timeout + SLACK);
    let gone = broker.depth(QUEUE).await.and(broker.consume(QUEUE, 1).await.map(drop));
    assert!(matches!(gone, Err(Error::Unavailable(_))));
}

#[tokio::test]
async fn all_who_publish_to_a_broker_that_is_away_hear_so_at_once() {
    let Some(mut place) = start().await else { return };
    let broker = place.connect().await;
    broker.publish(numbered(1)).await.unwrap();
    place.network(Network::Cut);
    // Every connection has ended.
    sleep(Duration::from_millis(50)).await;
    // As little is known of a queue that nobody has looked at as of one that was looked at long ago.
    let publish = |_| broker.publish(vec![Publication { queue: Queue::Uplink, body: Bytes::from("one") }]);
    let began = Instant::now();
    let outcomes = join_all((0..50).map(publish)).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(Error::Unavailable(_)))), "{outcomes:?}");
    assert!(began.elapsed() < SLACK, "{:?}", began.elapsed());
}

#[tokio::test]
async fn whoever_asks_for_dead_letters_and_goes_away_takes_none_along() {
    let Some(mut place) = start().await else { return };
    let broker = place.connect().await;
    insist(&broker, 1).await;
    let mut consumer = broker.consume(QUEUE, 1).await.unwrap();
    let delivery = timeout(DEADLINE, consumer.next(1)).await.unwrap().remove(0);
    delivery.dead_letter("why").await.unwrap();
    // Wherever it waits.
    for polls in 0..30 {
        let (mut list, mut polled) = (pin!(broker.dead_letters(10)), 0);
        poll_fn(|context| {
            polled += 1;
            if polled > polls { Poll::Ready(()) } else { list.as_mut().poll(context).map(drop) }
        })
        .await;
    }
    let deadline = Instant::now() + DEADLINE;
    while broker.dead_letters(10).await.unwrap().len() != 1 {
        assert!(Instant::now() < deadline, "somebody who has gone away still holds it");
        sleep(Duration::from_millis(20)).await;
    }
}
