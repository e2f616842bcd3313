//! A bell may carry the entry that it announces (rule 3): good for whoever is just before it, for a moment.

use std::{sync::Arc, time::Duration};

use access_point::Config;
use model::{Bell, Carried, Lane, Ordinal, Placed, Seq, Timestamp};
use store::InboxAppend;

use crate::{
    bench::{Bench, config},
    client::{Client, number},
};

/// A device that has seen one entry, and the number of that entry.
pub(crate) async fn caught_up(bench: &Bench) -> (Ordinal, Client, Seq) {
    let device = bench.register("dev").await;
    let mut client = Client::open(bench, "dev").await;
    let append =
        InboxAppend { message: Arc::new(bench.message(Lane::Unicast, 1)), devices: [device].into_iter().collect() };
    let appended = bench.store.append_inbox(vec![append], bench.now()).await.unwrap();
    bench.ring(&Bell::Inbox { app: bench.app.clone(), devices: [device].into_iter().collect() });
    assert_eq!(number(&client.take().await), 1);
    (device, client, appended[0].places[0].seq)
}

/// Rings with an entry that the store does not have, so that what arrives can only have come with the bell.
pub(crate) fn ring_with(bench: &Bench, what: usize, place: Placed, at: Timestamp) {
    let carried = Carried { message: bench.message(Lane::Unicast, what), places: vec![place] };
    bench.ring(&Bell::Entries { app: bench.app.clone(), at, entries: vec![carried] });
}

#[tokio::test]
async fn entries_that_follow_each_other_need_not_be_read() {
    let bench = Bench::start(config()).await;
    let (device, mut client, head) = caught_up(&bench).await;
    for n in 1..=3 {
        let (before, seq) = (Seq(head.0 + n - 1), Seq(head.0 + n));
        ring_with(&bench, 10 + n as usize, Placed { device, before, seq }, bench.now());
        assert_eq!(number(&client.take().await), 10 + n as usize);
    }
}

#[tokio::test]
async fn what_is_not_next_or_not_fresh_is_only_a_doorbell() {
    let bench = Bench::start(config()).await;
    let (device, mut client, head) = caught_up(&bench).await;
    let seq = Seq(head.0 + 5);
    ring_with(&bench, 11, Placed { device, before: Seq(head.0 + 1), seq }, bench.now());
    let next = Placed { device, before: head, seq };
    ring_with(&bench, 12, next, Timestamp::from_millis(bench.now().as_millis() - 1_000));
    ring_with(&bench, 13, next, bench.now() + Duration::from_secs(10));
    ring_with(&bench, 14, Placed { device, before: Seq::ZERO, seq: head }, bench.now());
    client.hears_nothing().await;
}

#[tokio::test]
async fn a_doorbell_makes_the_session_look_also_when_what_it_carries_is_of_no_use() {
    let without_sweeps = Config { sweep: Duration::from_secs(3_600), ..config() };
    let bench = Bench::start(without_sweeps).await;
    let (device, mut client, _) = caught_up(&bench).await;
    let append =
        InboxAppend { message: Arc::new(bench.message(Lane::Unicast, 2)), devices: [device].into_iter().collect() };
    let appended = bench.store.append_inbox(vec![append], bench.now()).await.unwrap();
    let old = Timestamp::from_millis(bench.now().as_millis() - 1_000);
    ring_with(&bench, 99, appended[0].places[0], old);
    assert_eq!(number(&client.take().await), 2, "read from the store");
}
