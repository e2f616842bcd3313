//! What [`Timeline`](crate::Timeline) promises.

use std::{collections::BTreeSet, sync::Arc};

use model::{Message, Receipt, ReceiptBatch, Seq};

use super::{NOW, Place, accept, demo, demo_2, funnel, later, message, register, set, to_inboxes, to_timeline};
use crate::{Appended, PAGE_MAX, Store, TimelineEntry, timeline::TIMELINE_MAX};

async fn append(store: &dyn Store, message: &Message) -> Appended {
    store.append_timeline(vec![to_timeline(message, set([1]))], NOW).await.unwrap()[0]
}

async fn entries(store: &dyn Store, after: Seq) -> Vec<TimelineEntry> {
    store.timeline_after(&demo(), after, PAGE_MAX).await.unwrap()
}

/// A number is the clock's, or one more than the last when the clock has not moved on or went back.
pub async fn numbers_grow_by_the_rule(place: &mut dyn Place) {
    let store = place.open().await;
    assert_eq!(store.timeline_head(&demo()).await.unwrap(), Seq::ZERO);
    let mut expected = Vec::new();
    for (n, now) in [NOW, NOW, later(1), NOW, later(5)].into_iter().enumerate() {
        expected.push(expected.last().copied().unwrap_or(Seq::ZERO).next(now));
        let append = to_timeline(&message(n as u32), set([1]));
        assert_eq!(store.append_timeline(vec![append], now).await.unwrap(), [Appended::New]);
        assert_eq!(store.timeline_head(&demo()).await.unwrap(), expected[n]);
    }
    let seqs: Vec<_> = entries(&*store, Seq::ZERO).await.iter().map(|entry| entry.seq).collect();
    assert_eq!(seqs, expected);
}

/// Neither in the same call nor later, nor when it was appended to inboxes.
pub async fn the_same_message_again_changes_nothing(place: &mut dyn Place) {
    let store = place.open().await;
    let twice = vec![to_timeline(&message(1), set([1, 2])), to_timeline(&message(1), set([3]))];
    assert_eq!(store.append_timeline(twice, NOW).await.unwrap(), [Appended::New, Appended::Again]);
    let before = entries(&*store, Seq::ZERO).await;
    assert_eq!(before.len(), 1);
    assert_eq!(append(&*store, &message(1)).await, Appended::Again);
    store.append_inbox(vec![to_inboxes(&message(2), set([1]))], NOW).await.unwrap();
    assert_eq!(append(&*store, &message(2)).await, Appended::Again);
    assert_eq!(entries(&*store, Seq::ZERO).await, before);
    assert_eq!(store.timeline_head(&demo()).await.unwrap(), before[0].seq);
}

/// In one step with its entry a message has its tally and the note of when it was dispatched.
pub async fn an_append_dispatches_the_message(place: &mut dyn Place) {
    let store = place.open().await;
    accept(&*store, &message(1)).await;
    let appends = (1..=2).map(|n| to_timeline(&message(n), set(0..1_000))).collect();
    assert_eq!(store.append_timeline(appends, later(3)).await.unwrap(), [Appended::New; 2]);
    for n in 1..=2 {
        let entry = store.entry(&demo(), message(n).id).await.unwrap().unwrap();
        assert_eq!(entry.dispatched_at, Some(later(3)));
        let funnel = funnel(&*store, &message(n), NOW).await;
        assert_eq!((funnel.targeted, funnel.pending_offline), (1_000, 1_000));
    }
}

/// Expiry is at `expires_at` sharp; the messages beside it in the call are appended.
pub async fn what_is_over_or_called_back_is_not_appended(place: &mut dyn Place) {
    let store = place.open().await;
    accept(&*store, &message(1)).await;
    store.cancel(&demo(), message(1).id, NOW).await.unwrap().unwrap();
    let over = Message { expires_at: later(9), ..message(2) };
    let appends = [&message(1), &over, &message(3)].map(|message| to_timeline(message, set([1]))).into();
    let done = store.append_timeline(appends, later(9)).await.unwrap();
    assert_eq!(done, [Appended::Cancelled, Appended::Cancelled, Appended::New]);
    assert_eq!(entries(&*store, Seq::ZERO).await.len(), 1);
    assert_eq!(store.tally(&demo(), over.id).await.unwrap(), None);
}

/// A timeline keeps its newest; whoever had not answered what fell off has it truncated.
pub async fn the_oldest_fall_off_and_are_counted(place: &mut dyn Place) {
    let store = place.open().await;
    let most = TIMELINE_MAX as u32;
    for page in (0..most).collect::<Vec<_>>().chunks(PAGE_MAX) {
        let appends = page.iter().map(|n| to_timeline(&message(*n), set(0..10))).collect();
        store.append_timeline(appends, NOW).await.unwrap();
    }
    let oldest = entries(&*store, Seq::ZERO).await[0].clone();
    assert_eq!(oldest.message.id, message(0).id);
    let receipt = Receipt { sent: set(0..5), acked: set(0..3), rejected: set([3]), ..Receipt::new(message(0).id) };
    store.add_receipts(vec![ReceiptBatch { app: demo(), receipts: vec![receipt] }]).await.unwrap();
    let appends = (0..2).map(|n| to_timeline(&message(most + n), set(0..10))).collect();
    store.append_timeline(appends, NOW).await.unwrap();
    assert_eq!(entries(&*store, Seq::ZERO).await[0].message.id, message(2).id);
    let gone = funnel(&*store, &message(0), NOW).await;
    assert!(gone.balances());
    assert_eq!((gone.acked, gone.rejected, gone.truncated, gone.pending), (3, 1, 6, 0));
    assert_eq!(funnel(&*store, &message(1), NOW).await.truncated, 10);
    assert_eq!(funnel(&*store, &message(2), NOW).await.truncated, 0);
}

/// Entries come oldest first, after the number given, as many as asked.
pub async fn pages_follow_each_other(place: &mut dyn Place) {
    let store = place.open().await;
    let appends = (0..5).map(|n| to_timeline(&message(n), set([n]))).collect();
    store.append_timeline(appends, NOW).await.unwrap();
    let all = entries(&*store, Seq::ZERO).await;
    assert_eq!(
        all.iter().map(|entry| (*entry.message).clone()).collect::<Vec<_>>(),
        (0..5).map(message).collect::<Vec<_>>()
    );
    for (after, limit, expected) in [(Seq::ZERO, 2, 0..2), (all[1].seq, 2, 2..4), (all[3].seq, 2, 4..5)] {
        assert_eq!(store.timeline_after(&demo(), after, limit).await.unwrap(), all[expected]);
    }
    assert_eq!(entries(&*store, all[4].seq).await, []);
}

/// It is frozen at the append: who registers or is removed later changes nothing.
pub async fn an_audience_never_changes(place: &mut dyn Place) {
    let store = place.open().await;
    register(&*store, &["a", "b"]).await;
    store.append_timeline(vec![to_timeline(&message(1), set([0, 1]))], NOW).await.unwrap();
    register(&*store, &["c"]).await;
    store.remove(&demo(), &super::name("a")).await.unwrap();
    assert_eq!(*entries(&*store, Seq::ZERO).await[0].audience, set([0, 1]));
    assert_eq!(store.tally(&demo(), message(1).id).await.unwrap().unwrap().targeted, set([0, 1]));
}

/// Apps do not see each other's.
pub async fn timelines_are_kept_apart(place: &mut dyn Place) {
    let store = place.open().await;
    let other = Message { app: demo_2(), ..message(1) };
    let appends = vec![to_timeline(&message(1), set([1])), to_timeline(&other, set([2]))];
    assert_eq!(store.append_timeline(appends, NOW).await.unwrap(), [Appended::New; 2], "an id is an id of its app");
    assert_eq!(*entries(&*store, Seq::ZERO).await[0].message, message(1));
    let of_other = store.timeline_after(&demo_2(), Seq::ZERO, 9).await.unwrap();
    assert_eq!((of_other.len(), &*of_other[0].message), (1, &other));
}

/// Appends get distinct numbers, and whoever has read up to one never finds a new entry below it.
pub async fn readers_see_concurrent_appends_without_gaps(place: &mut dyn Place) {
    const WRITERS: u32 = 16;
    const EACH: u32 = 20;
    let store = place.open().await;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for n in 0..EACH {
                    assert_eq!(append(&*store, &message(writer * EACH + n)).await, Appended::New);
                }
            })
        })
        .collect();
    let mut mark = Seq::ZERO;
    let mut seen = BTreeSet::new();
    loop {
        let over = writers.iter().all(tokio::task::JoinHandle::is_finished);
        for entry in entries(&*store, mark).await {
            assert!(entry.seq > mark, "entries rise");
            mark = entry.seq;
            assert!(seen.insert(entry.message.id), "no message is seen twice");
        }
        if over {
            break;
        }
        tokio::task::yield_now().await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(seen.len(), (WRITERS * EACH) as usize, "a reader going forward meets every entry");
}

/// It is durable when the call returns.
pub async fn what_was_appended_outlives_a_restart(place: &mut dyn Place) {
    let store = place.open().await;
    let appends = (0..3).map(|n| to_timeline(&message(n), set([n]))).collect();
    store.append_timeline(appends, NOW).await.unwrap();
    let (before, head) = (entries(&*store, Seq::ZERO).await, store.timeline_head(&demo()).await.unwrap());
    drop(store);
    let store = place.open().await;
    assert_eq!(entries(&*store, Seq::ZERO).await, before);
    assert_eq!(append(&*store, &message(0)).await, Appended::Again);
    assert_eq!(append(&*store, &message(9)).await, Appended::New);
    assert!(store.timeline_head(&demo()).await.unwrap() > head);
}
