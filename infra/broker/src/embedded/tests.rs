//! The contract on a temporary directory, and what only this implementation promises.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use engine::Engine;
use model::{Queue, SystemClock, Timestamp};

use super::{
    Embedded, Limits,
    dead::{DeadLetters, KEPT_MAX},
    key, window,
};
use crate::{
    Broker as _, DeadLetter, Error, Publication, SharedBroker,
    contract::{End, Fixture},
};

/// A broker in a directory of its own.
pub(super) struct Place {
    dir: tempfile::TempDir,
    broker: Option<Arc<Embedded>>,
}

const LIMITS: Limits = Limits { messages_max: 5_000, bytes_max: 64 * 1024 * 1024 };

async fn start() -> Place {
    Place { dir: tempfile::tempdir().unwrap(), broker: None }
}

impl Place {
    /// Opens the engine, once the one before has let go of its directory.
    async fn engine(&self) -> Arc<Engine> {
        for _ in 0..1_000 {
            match Engine::open(self.dir.path()) {
                Err(engine::Error::Locked(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
                opened => return opened.unwrap(),
            }
        }
        panic!("the engine before this one is still there")
    }
}

#[async_trait]
impl Fixture for Place {
    async fn open(&mut self) -> SharedBroker {
        let broker = Embedded::open(self.engine().await, Arc::new(SystemClock), LIMITS).unwrap();
        self.broker = Some(Arc::clone(&broker));
        broker
    }

    async fn end(&mut self, how: End) {
        let broker = self.broker.take().unwrap();
        assert_eq!(Arc::strong_count(&broker), 1, "somebody still has a handle of the broker");
        if how == End::Closed {
            broker.close().await.unwrap();
        }
    }

    fn messages_max(&self) -> u64 {
        LIMITS.messages_max
    }
}

crate::contract_suite!(start);

/// A queue, a broker that has just been opened, and numbers published to it in batches of 1,000.
async fn filled(place: &mut Place, messages: usize, limits: Limits) -> (Queue, Arc<Embedded>) {
    let broker = Embedded::open(place.engine().await, Arc::new(SystemClock), limits).unwrap();
    let queue = Queue::Receipts;
    for start in (0..messages).step_by(1_000) {
        let numbers = (start..start + 1_000).map(|n| Publication { queue, body: Bytes::from(n.to_string()) });
        broker.publish(numbers.collect()).await.unwrap();
    }
    (queue, broker)
}

#[tokio::test]
async fn a_long_queue_costs_bounded_memory_and_comes_in_order() {
    let mut place = start().await;
    let (queue, broker) = filled(&mut place, 200_000, Limits::default()).await;
    assert_eq!(broker.depth(queue).await.unwrap().ready, 200_000);
    let mut consumer = broker.consume(queue, 1_000).await.unwrap();
    let mut next = 0;
    while next < 200_000 {
        let (messages, bytes) = broker.queues[&queue].state.lock().supply.window().size();
        assert!(messages <= window::MESSAGES_MAX && bytes <= window::BYTES_MAX);
        for delivery in consumer.next(1_000).await {
            assert_eq!(delivery.body(), &Bytes::from(next.to_string()));
            delivery.ack();
            next += 1;
        }
    }
}

#[tokio::test]
async fn bytes_are_limited_too_and_acks_make_room() {
    let mut place = start().await;
    let limits = Limits { bytes_max: 1_000, ..Limits::default() };
    let (queue, broker) = filled(&mut place, 0, limits).await;
    let publish = |bytes: usize| broker.publish(vec![Publication { queue, body: Bytes::from(vec![0; bytes]) }]);
    publish(600).await.unwrap();
    assert!(matches!(publish(401).await, Err(Error::Full(_))));
    publish(400).await.unwrap();
    let mut consumer = broker.consume(queue, 1).await.unwrap();
    consumer.next(1).await.remove(0).ack();
    while publish(600).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_publish_that_nobody_waits_for_is_whole_or_not_at_all() {
    let mut place = start().await;
    let (queue, broker) = filled(&mut place, 0, LIMITS).await;
    let batch = (0..10).map(|_| Publication { queue, body: Bytes::from_static(b"unheard") }).collect();
    tokio::select! {
        biased;
        _ = broker.publish(batch) => {}
        () = std::future::ready(()) => {}
    }
    broker.publish(vec![Publication { queue, body: Bytes::from_static(b"heard") }]).await.unwrap();
    let mut consumer = broker.consume(queue, 20).await.unwrap();
    let mut taken = Vec::new();
    while taken.last() != Some(&Bytes::from_static(b"heard")) {
        taken.extend(consumer.next(20).await.into_iter().map(|delivery| delivery.body().clone()));
    }
    assert_eq!(taken.len(), 11);
}

#[tokio::test]
async fn closing_in_good_order_leaves_no_suspect_that_was_not_out() {
    let mut place = start().await;
    let (queue, broker) = filled(&mut place, 1_000, LIMITS).await;
    let mut consumer = broker.consume(queue, 10).await.unwrap();
    let taken = consumer.next(5).await;
    broker.close().await.unwrap();
    assert!(matches!(broker.publish(Vec::new()).await, Ok(())));
    let publication = Publication { queue, body: Bytes::new() };
    assert!(matches!(broker.publish(vec![publication]).await, Err(Error::Unavailable(_))));
    assert!(matches!(broker.consume(queue, 1).await, Err(Error::Unavailable(_))));
    drop(broker);
    let (_, broker) = filled(&mut place, 0, LIMITS).await;
    drop((taken, consumer));
    let mut consumer = broker.consume(queue, 100).await.unwrap();
    let mut attempts = Vec::new();
    while attempts.len() < 1_000 {
        for delivery in consumer.next(100).await {
            attempts.push(delivery.attempt());
            delivery.ack();
        }
    }
    assert_eq!(attempts.iter().filter(|attempt| **attempt == 2).count(), 10);
}

#[tokio::test]
async fn the_newest_dead_letters_are_kept_and_the_dropped_are_counted() {
    let place = start().await;
    let engine = place.engine().await;
    let dead = DeadLetters::open(engine.keyspace("dead").unwrap()).unwrap();
    let dead = engine
        .write(move |tx| {
            for number in 0..KEPT_MAX + 5 {
                let at = Timestamp::from_millis(number);
                dead.insert(tx, &DeadLetter { queue: Queue::Uplink, body: Bytes::new(), reason: "any".into(), at });
            }
            dead
        })
        .await
        .unwrap();
    let kept = dead.list(usize::MAX).unwrap();
    assert_eq!((kept.len() as u64, dead.dropped()), (KEPT_MAX, 5));
    assert_eq!((kept[0].at, dead.list(1).unwrap().len()), (Timestamp::from_millis(5), 1));
    let again = DeadLetters::open(engine.keyspace("dead").unwrap()).unwrap();
    assert_eq!(again.list(usize::MAX).unwrap(), kept);
}

#[tokio::test]
async fn a_message_that_is_missing_stops_its_queue_instead_of_being_passed_over() {
    let mut place = start().await;
    let (queue, broker) = filled(&mut place, 1_000, LIMITS).await;
    let messages = broker.shared.spaces.messages.clone();
    // The first message has seq 1.
    broker.engine.write(move |tx| tx.remove(&messages, key::message(queue, 501))).await.unwrap();
    drop(broker);
    let (_, broker) = filled(&mut place, 0, LIMITS).await;
    let mut consumer = broker.consume(queue, 1_000).await.unwrap();
    let mut taken = Vec::new();
    loop {
        let batch = consumer.next(100).await;
        if batch.is_empty() {
            break;
        }
        taken.extend(batch);
    }
    assert!(taken.iter().map(|delivery| delivery.body().clone()).eq((0..500).map(|n| Bytes::from(n.to_string()))));
    assert!(matches!(broker.depth(queue).await, Err(Error::Corrupt(_))));
    assert!(matches!(broker.consume(queue, 1).await, Err(Error::Corrupt(_))));
}

#[tokio::test]
async fn a_suspect_that_is_missing_is_noticed_at_once() {
    let mut place = start().await;
    let (queue, broker) = filled(&mut place, 1_000, LIMITS).await;
    let mut consumer = broker.consume(queue, 10).await.unwrap();
    let _held = consumer.next(10).await;
    let messages = broker.shared.spaces.messages.clone();
    broker.engine.write(move |tx| tx.remove(&messages, key::message(queue, 5))).await.unwrap();
    drop(broker);
    let opened = Embedded::open(place.engine().await, Arc::new(SystemClock), LIMITS);
    assert!(matches!(opened, Err(Error::Corrupt(_))));
}
