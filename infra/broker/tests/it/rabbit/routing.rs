//! Where messages go on the server: packed when many, refused when nowhere, set aside when not ours.

use std::time::Duration;

use broker::{Broker, Publication};
use bytes::Bytes;
use futures_util::future::join_all;
use lapin::{
    BasicProperties,
    options::{BasicPublishOptions, QueueDeleteOptions},
};
use model::{Lane, Queue, Shard};
use tokio::time::{Instant, sleep, timeout};

use super::{
    place::{DEADLINE, look, start},
    proxy::Network,
};

fn push() -> Queue {
    Queue::Push(Lane::Unicast, Shard::all().next().unwrap())
}

fn one(queue: Queue) -> Vec<Publication> {
    vec![Publication { queue, body: Bytes::from("one") }]
}

#[tokio::test]
async fn what_no_queue_takes_is_an_error_and_the_queue_comes_back() {
    let Some(mut place) = start().await else { return };
    let broker = place.connect().await;
    broker.publish(one(push())).await.unwrap();
    let (_admin, channel) = place.admin().await;
    channel.queue_delete(place.names.queue(push()).into(), QueueDeleteOptions::default()).await.unwrap();
    let failed = broker.publish(one(push())).await;
    assert!(failed.is_err(), "it was confirmed, and is nowhere");
    let deadline = Instant::now() + DEADLINE;
    while broker.publish(one(push())).await.is_err() {
        assert!(Instant::now() < deadline, "the queue does not come back");
        sleep(Duration::from_millis(20)).await;
    }
    assert!(broker.depth(push()).await.unwrap().ready >= 1);
}

#[tokio::test]
async fn what_gathers_travels_together() {
    let Some(mut place) = start().await else { return };
    let broker = place.connect().await;
    broker.publish(one(push())).await.unwrap();
    let all = join_all((0..500).map(|_| broker.publish(one(push())))).await;
    assert!(all.iter().all(Result::is_ok));
    let (_admin, channel) = place.admin().await;
    let (parcels, _) = look(&channel, &place.names.queue(push())).await;
    assert!(parcels < 100, "501 messages are {parcels} AMQP messages");
    let mut consumer = broker.consume(push(), 1_000).await.unwrap();
    let mut taken = 0;
    while taken < 501 {
        let batch = timeout(DEADLINE, consumer.next(1_000)).await.unwrap();
        taken += batch.len();
        batch.into_iter().for_each(|delivery| delivery.ack());
    }
}

#[tokio::test]
async fn what_is_not_ours_is_set_aside() {
    let Some(mut place) = start().await else { return };
    let broker = place.connect().await;
    let (_admin, channel) = place.admin().await;
    let (name, options) = (place.names.queue(push()), BasicPublishOptions::default());
    channel.basic_publish("".into(), name.into(), options, b"{}", BasicProperties::default()).await.unwrap();
    broker.publish(one(push())).await.unwrap();
    let mut consumer = broker.consume(push(), 10).await.unwrap();
    timeout(DEADLINE, consumer.next(10)).await.unwrap().remove(0).ack();
    let dead = broker.dead_letters(10).await.unwrap();
    assert_eq!(dead.iter().map(|letter| &letter.body[..]).collect::<Vec<_>>(), [b"{}"]);
}

#[tokio::test]
async fn a_queue_that_keeps_order_waits_for_what_its_last_consumer_held() {
    let Some(mut place) = start().await else { return };
    let [first, second] = [place.connect().await, place.connect().await];
    // More than a process takes in beyond what its consumers hold.
    let batch = (0..30).map(|n: u8| Publication { queue: Queue::Reports, body: vec![n].into() });
    first.publish(batch.collect()).await.unwrap();
    let mut held = first.consume(Queue::Reports, 4).await.unwrap();
    let mut taken = Vec::new();
    while taken.len() < 4 {
        taken.extend(timeout(DEADLINE, held.next(4)).await.unwrap());
    }
    let mut next = second.consume(Queue::Reports, 8).await.unwrap();
    assert!(timeout(Duration::from_millis(300), next.next(8)).await.is_err(), "what is later goes first");
    place.proxies[0].set(Network::Cut);
    for expected in 0..30 {
        let delivery = timeout(DEADLINE, next.next(1)).await.unwrap().remove(0);
        assert_eq!(delivery.body()[..], [expected]);
        delivery.ack();
    }
}

#[tokio::test]
async fn suspects_are_handed_out_one_at_a_time_in_all_the_cluster() {
    let Some(mut place) = start().await else { return };
    let first = place.connect().await;
    let batch = (0..100).map(|n: u32| Publication { queue: push(), body: Bytes::from(n.to_string()) });
    first.publish(batch.collect()).await.unwrap();
    let mut consumer = first.consume(push(), 100).await.unwrap();
    let held = timeout(DEADLINE, consumer.next(50)).await.unwrap();
    drop((consumer, held));
    let second = place.connect().await;
    let mut consumers = [first.consume(push(), 100).await.unwrap(), second.consume(push(), 100).await.unwrap()];
    for _ in 0..20 {
        let [one, other] = &mut consumers;
        let (taken, idle) = tokio::select! {
            taken = one.next(100) => (taken, other),
            taken = other.next(100) => (taken, one),
        };
        assert_eq!(taken.len(), 1, "more than one suspect is out");
        assert!(taken[0].attempt() > 1);
        let more = timeout(Duration::from_millis(20), idle.next(100)).await;
        assert!(more.is_err(), "another suspect is out elsewhere");
        taken.into_iter().for_each(|delivery| delivery.ack());
    }
}
