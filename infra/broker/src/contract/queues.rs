//! Promises about queues: what is confirmed is kept, in order, within bounds.

use std::time::Duration;

use bytes::Bytes;
use model::{Lane, Queue};
use tokio::time::timeout;

use super::{DEADLINE, End, Fixture, eventually, number, numbers, queue, take};
use crate::{Depth, Error, Publication};

/// What was confirmed is there after a kill, in every queue, in order.
pub async fn a_confirmed_message_survives_a_kill(fixture: &mut impl Fixture) {
    let broker = fixture.open().await;
    let batch = Queue::all().flat_map(|queue| numbers(queue, 0..20)).collect();
    broker.publish(batch).await.unwrap();
    drop(broker);
    fixture.end(End::Killed).await;
    let broker = fixture.open().await;
    for queue in Queue::all() {
        assert_eq!(broker.depth(queue).await.unwrap().ready, 20);
        let mut consumer = broker.consume(queue, 20).await.unwrap();
        let taken = take(&mut consumer, 20).await;
        assert!(taken.iter().map(number).eq(0..20), "{queue} is not in order");
        assert!(taken.iter().all(|delivery| delivery.attempt() == 1));
        taken.into_iter().for_each(|delivery| delivery.ack());
    }
}

/// Messages come in the order of confirms, and within a batch in the order given, however many are waiting.
pub async fn a_queue_hands_out_in_the_order_of_confirms(fixture: &mut impl Fixture) {
    let broker = fixture.open().await;
    let queue = queue(Lane::Unicast);
    broker.publish(Vec::new()).await.unwrap();
    for start in (0..2_000).step_by(100) {
        broker.publish(numbers(queue, start..start + 100)).await.unwrap();
    }
    let mut consumer = broker.consume(queue, 64).await.unwrap();
    for expected in 0..1_000 {
        let delivery = take(&mut consumer, 1).await.remove(0);
        assert_eq!(number(&delivery), expected);
        delivery.ack();
    }
    broker.publish(numbers(queue, 2_000..3_000)).await.unwrap();
    for expected in 1_000..3_000 {
        let delivery = take(&mut consumer, 1).await.remove(0);
        assert_eq!(number(&delivery), expected);
        delivery.ack();
    }
}

/// What a consumer leaves behind goes to the next before anything later, where order is kept.
pub async fn what_is_left_behind_stays_in_order(fixture: &mut impl Fixture) {
    for queue in Queue::all().filter(|queue| queue.is_in_order()) {
        let broker = fixture.open().await;
        broker.publish(numbers(queue, 0..20)).await.unwrap();
        let mut consumer = broker.consume(queue, 8).await.unwrap();
        let mut held = take(&mut consumer, 8).await;
        drop(held.remove(5));
        held.drain(..3).for_each(|delivery| delivery.ack());
        drop((consumer, held, broker));
        fixture.end(End::Killed).await;
        // The next dies too, with one in its hands.
        let broker = fixture.open().await;
        let mut consumer = broker.consume(queue, 8).await.unwrap();
        drop((take(&mut consumer, 1).await, consumer, broker));
        fixture.end(End::Killed).await;
        let broker = fixture.open().await;
        let mut consumer = broker.consume(queue, 8).await.unwrap();
        let mut next = None;
        while next != Some(20) {
            let delivery = take(&mut consumer, 1).await.remove(0);
            let taken = number(&delivery);
            assert!(next.map_or(taken <= 3, |next| taken == next), "{taken} comes where {next:?} should");
            next = Some(taken + 1);
            delivery.ack();
        }
    }
}

/// A body is any bytes, from none to the largest message there is.
pub async fn any_bytes_come_back_unchanged(fixture: &mut impl Fixture) {
    let broker = fixture.open().await;
    let queue = queue(Lane::Unicast);
    let every: Vec<u8> = (0..=u8::MAX).collect();
    let bodies = [Bytes::new(), Bytes::from(every.clone()), Bytes::from(every.repeat(256))];
    broker.publish(bodies.iter().map(|body| Publication { queue, body: body.clone() }).collect()).await.unwrap();
    let mut consumer = broker.consume(queue, 10).await.unwrap();
    let taken = take(&mut consumer, bodies.len()).await;
    assert!(taken.iter().map(|delivery| delivery.body()).eq(&bodies));
    taken.into_iter().for_each(|delivery| delivery.ack());
}

/// A batch that meets a full queue is refused, in all its queues; what was confirmed stays, and room that is made is
/// room again.
pub async fn a_full_queue_refuses_the_whole_batch_and_loses_nothing(fixture: &mut impl Fixture) {
    let broker = fixture.open().await;
    let (full, other) = (queue(Lane::Broadcast), queue(Lane::Unicast));
    let mut confirmed = 0;
    let refused = loop {
        match broker.publish(numbers(full, confirmed..confirmed + 500)).await {
            Ok(()) => confirmed += 500,
            Err(error) => break error,
        }
        assert!(confirmed as u64 <= fixture.messages_max());
    };
    assert!(matches!(refused, Error::Full(queue) if queue == full), "{refused}");
    let mut batch = numbers(other, 0..1);
    batch.extend(numbers(full, confirmed..confirmed + 500));
    assert!(matches!(broker.publish(batch).await, Err(Error::Full(_))));
    assert_eq!(broker.depth(other).await.unwrap(), Depth::default());
    broker.publish(numbers(other, 0..1)).await.unwrap();

    let mut consumer = broker.consume(full, 500).await.unwrap();
    for expected in 0..confirmed {
        let delivery = take(&mut consumer, 1).await.remove(0);
        assert_eq!(number(&delivery), expected);
        delivery.ack();
    }
    eventually("room", || async { broker.publish(numbers(full, 0..500)).await.is_ok() }).await;
    assert!(take(&mut consumer, 500).await.iter().map(number).eq(0..500));
}

/// A queue whose consumers are stuck, with a backlog, holds up no other.
pub async fn queues_do_not_block_each_other(fixture: &mut impl Fixture) {
    let broker = fixture.open().await;
    let (stuck, flowing) = (queue(Lane::Broadcast), queue(Lane::Unicast));
    broker.publish(numbers(stuck, 0..5_000)).await.unwrap();
    let mut idle = broker.consume(stuck, 10).await.unwrap();
    let _held = take(&mut idle, 10).await;
    let mut consumer = broker.consume(flowing, 10).await.unwrap();
    for expected in 0..100 {
        broker.publish(numbers(flowing, expected..expected + 1)).await.unwrap();
        let delivery = take(&mut consumer, 1).await.remove(0);
        assert_eq!(number(&delivery), expected);
        delivery.ack();
    }
}

/// Depth tells what waits, what is out, and how long the oldest of both has been there.
pub async fn depth_counts_what_waits_and_what_is_out(fixture: &mut impl Fixture) {
    let broker = fixture.open().await;
    let queue = queue(Lane::Multicast);
    assert_eq!(broker.depth(queue).await.unwrap(), Depth::default());
    broker.publish(numbers(queue, 0..5)).await.unwrap();
    let depth = broker.depth(queue).await.unwrap();
    assert_eq!((depth.ready, depth.unacked), (5, 0));
    let mut consumer = broker.consume(queue, 2).await.unwrap();
    let taken = take(&mut consumer, 2).await;
    let depth = broker.depth(queue).await.unwrap();
    assert_eq!((depth.ready, depth.unacked), (3, 2));
    let aged = || async { broker.depth(queue).await.unwrap().oldest_age >= Duration::from_millis(20) };
    eventually("age", aged).await;
    taken.into_iter().for_each(|delivery| delivery.ack());
    take(&mut consumer, 2).await.into_iter().for_each(|delivery| delivery.ack());
    take(&mut consumer, 1).await.into_iter().for_each(|delivery| delivery.ack());
    eventually("emptiness", || async { broker.depth(queue).await.unwrap() == Depth::default() }).await;
}

/// Consumers and listeners of a broker that is gone hear so.
pub async fn the_end_of_the_broker_ends_its_consumers(fixture: &mut impl Fixture) {
    let broker = fixture.open().await;
    let mut consumer = broker.consume(queue(Lane::Unicast), 10).await.unwrap();
    let mut bells = broker.listen(&"one".parse().unwrap(), Lane::Unicast).await.unwrap();
    drop(broker);
    fixture.end(End::Closed).await;
    let batch = timeout(DEADLINE, consumer.next(10)).await.expect("the consumer must hear of the end");
    assert!(batch.is_empty());
    let bell = timeout(DEADLINE, bells.heard()).await.expect("the listener must hear of the end");
    assert_eq!(bell, None);
}
