//! Promises about messages that are out: who may hold how many, and what becomes of those that are not acked.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use model::Lane;
use tokio::time::timeout;

use super::{DEADLINE, End, Fixture, Flaky, eventually, nothing_more, number, numbers, queue, take};
use crate::{Broker, Consumer, Delivery, Depth, SharedBroker};

/// Messages after one that was handled which a kill may count as handled too, since first deliveries are counted in
/// blocks.
const BLOCK_MAX: usize = 1_024;

/// No consumer holds more than its prefetch; each that is settled makes room for one.
pub async fn prefetch_bounds_what_is_out(fixture: &mut impl Fixture) {
    let broker = fixture.open().await;
    let queue = queue(Lane::Unicast);
    broker.publish(numbers(queue, 0..100)).await.unwrap();
    let mut consumer = broker.consume(queue, 10).await.unwrap();
    let mut held = take(&mut consumer, 10).await;
    nothing_more(&mut consumer).await;
    held.drain(..3).for_each(|delivery| delivery.ack());
    held.extend(take(&mut consumer, 3).await);
    nothing_more(&mut consumer).await;
    assert!(held.iter().map(number).eq(3..13));
}

/// Each message goes to one consumer of its queue.
pub async fn consumers_share_a_queue(fixture: &mut impl Fixture) {
    let broker = fixture.open().await;
    let queue = queue(Lane::Unicast);
    let mut one = broker.consume(queue, 5).await.unwrap();
    let mut two = broker.consume(queue, 5).await.unwrap();
    broker.publish(numbers(queue, 0..10)).await.unwrap();
    let taken = [take(&mut one, 5).await, take(&mut two, 5).await];
    let all: BTreeSet<usize> = taken.iter().flatten().map(number).collect();
    assert_eq!(all, (0..10).collect());
}

/// An acked message is gone for good once the broker was closed in good order.
pub async fn what_was_acked_is_not_handed_out_again(fixture: &mut impl Fixture) {
    let broker = fixture.open().await;
    let queue = queue(Lane::Unicast);
    broker.publish(numbers(queue, 0..10)).await.unwrap();
    let mut consumer = broker.consume(queue, 10).await.unwrap();
    let taken = take(&mut consumer, 10).await;
    taken.into_iter().filter(|delivery| number(delivery).is_multiple_of(2)).for_each(|delivery| delivery.ack());
    drop((consumer, broker));
    fixture.end(End::Closed).await;
    let broker = fixture.open().await;
    let mut consumer = broker.consume(queue, 10).await.unwrap();
    for expected in [1, 3, 5, 7, 9] {
        let delivery = take(&mut consumer, 1).await.remove(0);
        assert_eq!(number(&delivery), expected);
        assert!(delivery.attempt() > 1);
        delivery.ack();
    }
    nothing_more(&mut consumer).await;
}

/// A delivery that is dropped comes again, each time with a higher attempt.
pub async fn a_dropped_delivery_is_handed_out_again_with_a_higher_attempt(fixture: &mut impl Fixture) {
    let broker = fixture.open().await;
    let queue = queue(Lane::Unicast);
    broker.publish(numbers(queue, 0..3)).await.unwrap();
    let mut consumer = broker.consume(queue, 1).await.unwrap();
    for attempt in 1..=4 {
        let delivery = take(&mut consumer, 1).await.remove(0);
        assert_eq!((number(&delivery), delivery.attempt()), (0, attempt));
        drop(delivery);
    }
    take(&mut consumer, 1).await.remove(0).ack();
    for expected in 1..3 {
        let delivery = take(&mut consumer, 1).await.remove(0);
        assert_eq!((number(&delivery), delivery.attempt()), (expected, 1));
        delivery.ack();
    }
    nothing_more(&mut consumer).await;
}

/// What a consumer held when it was dropped goes to another, in order; what its deliveries say later is void.
pub async fn a_dropped_consumer_gives_back_what_it_held(fixture: &mut impl Fixture) {
    let broker = fixture.open().await;
    let queue = queue(Lane::Unicast);
    broker.publish(numbers(queue, 0..10)).await.unwrap();
    let mut first = broker.consume(queue, 10).await.unwrap();
    let held = take(&mut first, 5).await;
    drop(first);
    let mut second = broker.consume(queue, 1).await.unwrap();
    let delivery = take(&mut second, 1).await.remove(0);
    assert_eq!((number(&delivery), delivery.attempt()), (0, 2));
    drop(held);
    delivery.ack();
    for expected in 1..10 {
        let delivery = take(&mut second, 1).await.remove(0);
        assert_eq!((number(&delivery), delivery.attempt()), (expected, 2));
        delivery.ack();
    }
    eventually("emptiness", || async { broker.depth(queue).await.unwrap() == Depth::default() }).await;
}

/// After a kill, what was out comes again with a higher attempt, one at a time, and before all else. What was never
/// handed out, past a block, comes as if nothing had happened.
pub async fn a_kill_raises_the_attempt_of_what_was_out(fixture: &mut impl Fixture) {
    let mut broker = fixture.open().await;
    let queue = queue(Lane::Unicast);
    let total = BLOCK_MAX + 500;
    broker.publish(numbers(queue, 0..total)).await.unwrap();
    for attempt in 1..=3 {
        let mut consumer = broker.consume(queue, 5).await.unwrap();
        let held = take(&mut consumer, if attempt == 1 { 5 } else { 1 }).await;
        assert_eq!((number(&held[0]), held[0].attempt()), (0, attempt));
        if attempt > 1 {
            nothing_more(&mut consumer).await;
        }
        drop(broker);
        fixture.end(End::Killed).await;
        broker = fixture.open().await;
    }
    let mut consumer = broker.consume(queue, 5).await.unwrap();
    for expected in 0..total {
        let delivery = take(&mut consumer, 1).await.remove(0);
        assert_eq!(number(&delivery), expected);
        match expected {
            0 => assert_eq!(delivery.attempt(), 4),
            1..5 => assert_eq!(delivery.attempt(), 2),
            _ if expected > BLOCK_MAX + 5 => assert_eq!(delivery.attempt(), 1),
            _ => assert!(delivery.attempt() <= 2),
        }
        delivery.ack();
    }
}

/// A dead letter is in its queue no more, and kept with its reason.
pub async fn a_dead_letter_leaves_its_queue_with_its_reason(fixture: &mut impl Fixture) {
    let broker = fixture.open().await;
    let queue = queue(Lane::Unicast);
    assert_eq!(broker.dead_letters(10).await.unwrap(), []);
    broker.publish(numbers(queue, 0..3)).await.unwrap();
    let mut consumer = broker.consume(queue, 10).await.unwrap();
    for delivery in take(&mut consumer, 3).await {
        let reason = format!("nobody can read {}", number(&delivery));
        delivery.dead_letter(reason).await.unwrap();
    }
    assert_eq!(broker.depth(queue).await.unwrap(), Depth::default());
    drop((consumer, broker));
    fixture.end(End::Killed).await;
    let broker = fixture.open().await;
    let mut consumer = broker.consume(queue, 10).await.unwrap();
    nothing_more(&mut consumer).await;
    let dead = broker.dead_letters(2).await.unwrap();
    assert_eq!(dead.len(), 2);
    assert_eq!((dead[0].queue, &dead[0].body, &*dead[0].reason), (queue, &Bytes::from("0"), "nobody can read 0"));
    assert_eq!((dead[1].queue, &dead[1].body, &*dead[1].reason), (queue, &Bytes::from("1"), "nobody can read 1"));
    assert_eq!(broker.dead_letters(10).await.unwrap().len(), 3);
}

/// What became of the messages around a poison.
#[derive(Default)]
struct Lives {
    deaths: u32,
    handled: BTreeMap<usize, u32>,
    dead_lettered: bool,
}

/// One message of fifty kills its handler, which holds them all. It is recognised by its attempt and set aside; of
/// the others each is acked, and none is ever taken for poison.
pub async fn poison_takes_no_neighbour_along(fixture: &mut impl Fixture) {
    let mut broker = fixture.open().await;
    broker.publish(numbers(queue(Lane::Unicast), 0..50)).await.unwrap();
    let mut lives = Lives::default();
    while let Err(held) = live(&broker, &mut lives).await {
        lives.deaths += 1;
        drop(broker);
        fixture.end(End::Killed).await;
        drop(held);
        broker = fixture.open().await;
    }
    assert_eq!(lives.deaths, 2);
    assert_eq!(lives.handled.len(), 49);
    assert!(lives.handled.values().all(|times| *times <= 2), "{:?}", lives.handled);
    assert_eq!(broker.dead_letters(100).await.unwrap().len(), 1);
    eventually("emptiness", || async { broker.depth(queue(Lane::Unicast)).await.unwrap() == Depth::default() }).await;
}

/// Handles messages until all are done, or the poison kills the handler, which then never settles what it holds.
async fn live(broker: &SharedBroker, lives: &mut Lives) -> Result<(), (Consumer, VecDeque<Delivery>)> {
    const POISON: usize = 20;
    let mut consumer = broker.consume(queue(Lane::Unicast), 50).await.unwrap();
    while lives.handled.len() < 49 || !lives.dead_lettered {
        let batch = timeout(DEADLINE, consumer.next(50)).await.expect("more must come");
        let mut batch = VecDeque::from(batch);
        while let Some(delivery) = batch.pop_front() {
            match number(&delivery) {
                POISON if delivery.attempt() < 3 => {
                    batch.push_front(delivery);
                    return Err((consumer, batch));
                }
                POISON => {
                    delivery.dead_letter("it kills").await.unwrap();
                    lives.dead_lettered = true;
                }
                neighbour => {
                    assert!(delivery.attempt() < 3, "{neighbour} was taken for poison");
                    *lives.handled.entry(neighbour).or_default() += 1;
                    delivery.ack();
                }
            }
        }
    }
    Ok(())
}

/// A publisher that tries until it is confirmed reaches a consumer that knows what it has seen, exactly once each.
pub async fn an_accepted_message_is_delivered_however_often_publishing_fails(fixture: &mut impl Fixture) {
    let inner = fixture.open().await;
    let broker = Flaky::new(inner, 3);
    let queue = queue(Lane::Unicast);
    let mut failed = 0;
    for message in 0..100 {
        while broker.publish(numbers(queue, message..message + 1)).await.is_err() {
            failed += 1;
        }
    }
    assert!(failed >= 33);
    let mut consumer = broker.consume(queue, 10).await.unwrap();
    let mut seen = BTreeSet::new();
    while seen.len() < 100 {
        for delivery in take(&mut consumer, 1).await {
            seen.insert(number(&delivery));
            delivery.ack();
        }
    }
    assert!(seen.into_iter().eq(0..100));
}
