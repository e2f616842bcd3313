//! The promises of [`Broker`](crate::Broker) as tests, one a promise, for whoever implements it.
//!
//! [`contract_suite!`](crate::contract_suite) expands to one named test a promise. Nothing here knows an
//! implementation: what only one of them promises is tested beside it.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a promise that is not kept is a failed test")]

mod bells;
mod flaky;
mod out;
mod queues;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use model::{AppId, Lane, Queue, Shard};
use tokio::time::{Instant, sleep, timeout};

use crate::{Consumer, Delivery, Publication, SharedBroker};

pub use bells::*;
pub use flaky::Flaky;
pub use out::*;
pub use queues::*;

/// How long anything may take: far more than it does, so that a slow machine fails no test.
const DEADLINE: Duration = Duration::from_secs(20);

/// How long to look for what must not come.
const GLANCE: Duration = Duration::from_millis(150);

/// Where the suite has its brokers from. Each test is given one of its own, which is empty.
#[async_trait]
pub trait Fixture: Send {
    /// Opens the broker: empty the first time, later with what the one before has kept.
    async fn open(&mut self) -> SharedBroker;

    /// Ends the broker, of which nobody else has a handle any more. Deliveries and consumers may still be around.
    async fn end(&mut self, how: End);

    /// How many messages one queue holds at most; 5,000 or more.
    fn messages_max(&self) -> u64;
}

/// How a broker ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// In good order.
    Closed,
    /// As if the process had died: what is out stays unsettled, and the last acks may be lost.
    Killed,
}

/// Expands to one test a promise, each with the [`Fixture`](crate::contract::Fixture) that `$start().await` gives. After
/// `if`, it gives one or none: a test without passes unseen, so `$start` should say so.
#[macro_export]
macro_rules! contract_suite {
    (if $start:expr) => {
        $crate::contract_suite! { @all given $start }
    };
    ($start:expr) => {
        $crate::contract_suite! { @all always $start }
    };
    (@all $how:ident $start:expr) => {
        $crate::contract_suite! {
            @each $how $start;
            // Queues.
            a_confirmed_message_survives_a_kill,
            a_queue_hands_out_in_the_order_of_confirms,
            what_is_left_behind_stays_in_order,
            any_bytes_come_back_unchanged,
            a_full_queue_refuses_the_whole_batch_and_loses_nothing,
            queues_do_not_block_each_other,
            depth_counts_what_waits_and_what_is_out,
            the_end_of_the_broker_ends_its_consumers,
            // What is out.
            prefetch_bounds_what_is_out,
            consumers_share_a_queue,
            what_was_acked_is_not_handed_out_again,
            a_dropped_delivery_is_handed_out_again_with_a_higher_attempt,
            a_dropped_consumer_gives_back_what_it_held,
            a_kill_raises_the_attempt_of_what_was_out,
            a_dead_letter_leaves_its_queue_with_its_reason,
            poison_takes_no_neighbour_along,
            an_accepted_message_is_delivered_however_often_publishing_fails,
            // Bells.
            bells_reach_one_or_all_of_a_lane,
            bells_are_dropped_when_nobody_takes_them_and_never_block,
            gaps_are_told,
            a_second_listener_replaces_the_first,
        }
    };
    (@each $how:ident $start:expr; $($promise:ident,)*) => {
        $(
            #[tokio::test]
            async fn $promise() {
                $crate::contract_suite! { @one $how $start, $promise }
            }
        )*
    };
    (@one always $start:expr, $promise:ident) => {
        $crate::contract::$promise(&mut $start().await).await;
    };
    (@one given $start:expr, $promise:ident) => {
        if let Some(mut fixture) = $start().await {
            $crate::contract::$promise(&mut fixture).await;
        }
    };
}

/// A queue of this lane; always the same.
fn queue(lane: Lane) -> Queue {
    let app: AppId = "contract".parse().unwrap();
    Queue::Push(lane, Shard::of_app(&app))
}

/// A batch for one queue: the numbers of `range`, as text.
fn numbers(queue: Queue, range: std::ops::Range<usize>) -> Vec<Publication> {
    range.map(|number| Publication { queue, body: Bytes::from(number.to_string()) }).collect()
}

/// The number in a body made by [`numbers`].
fn number(delivery: &Delivery) -> usize {
    std::str::from_utf8(delivery.body()).unwrap().parse().unwrap()
}

/// Takes exactly `count` deliveries.
async fn take(consumer: &mut Consumer, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let batch = timeout(DEADLINE, consumer.next(count - taken.len())).await;
        let batch = batch.unwrap_or_else(|_| panic!("{} of {count} came", taken.len()));
        assert!(!batch.is_empty(), "the queue closed after {} of {count}", taken.len());
        taken.extend(batch);
    }
    taken
}

/// That nothing more comes for now.
async fn nothing_more(consumer: &mut Consumer) {
    if let Ok(batch) = timeout(GLANCE, consumer.next(1)).await {
        panic!("{batch:?} came");
    }
}

/// Waits until `holds` does.
async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + DEADLINE;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what} did not come true");
        sleep(Duration::from_millis(5)).await;
    }
}
