//! What [`Inbox`](crate::Inbox) promises.

use std::{collections::BTreeSet, sync::Arc};

use model::{AppId, Cursor, Epoch, Message, Ordinal, Placed, Position, Receipt, ReceiptBatch, Seq};

use super::{NOW, Place, TTL, accept, demo, demo_2, funnel, later, message, set, to_inboxes};
use crate::{Appended, CursorWrite, InboxAppended, InboxEntry, Store, inbox::INBOX_MAX};

async fn append(store: &dyn Store, message: &Message, device: u32) -> Appended {
    store.append_inbox(vec![to_inboxes(message, set([device]))], NOW).await.unwrap()[0].outcome
}

async fn entries(store: &dyn Store, app: &AppId, device: u32) -> Vec<InboxEntry> {
    store.inbox_after(app, Ordinal(device), Seq::ZERO, INBOX_MAX + 1).await.unwrap()
}

async fn head(store: &dyn Store, device: u32) -> Seq {
    store.inbox_heads(&demo(), &[Ordinal(device)]).await.unwrap()[0]
}

/// Acks everything up to `prefix`.
async fn ack(store: &dyn Store, device: u32, prefix: Seq) {
    let cursor = Cursor::at(Position { inbox: prefix, timeline: Seq::ZERO });
    let write = CursorWrite { app: demo(), device: Ordinal(device), epoch: Epoch(1), cursor };
    assert_eq!(store.save_cursors(vec![write]).await.unwrap(), [true]);
}

/// A number is the clock's, or one more than the last when the clock has not moved on or went back.
pub async fn numbers_grow_by_the_rule(place: &mut dyn Place) {
    let store = place.open().await;
    assert_eq!(head(&*store, 1).await, Seq::ZERO);
    let mut expected = Vec::new();
    for (n, now) in [NOW, NOW, later(1), NOW, later(5)].into_iter().enumerate() {
        let before = expected.last().copied().unwrap_or(Seq::ZERO);
        expected.push(before.next(now));
        let append = to_inboxes(&message(n as u32), set([1]));
        let places = vec![Placed { device: Ordinal(1), before, seq: expected[n] }];
        let appended = InboxAppended { outcome: Appended::New, places };
        assert_eq!(store.append_inbox(vec![append], now).await.unwrap(), [appended]);
        assert_eq!(head(&*store, 1).await, expected[n]);
    }
    let seqs: Vec<_> = entries(&*store, &demo(), 1).await.iter().map(|entry| entry.seq).collect();
    assert_eq!(seqs, expected);
}

/// Not after its entry was acked, cancelled or has expired, and not after a restart.
pub async fn a_number_is_never_given_again(place: &mut dyn Place) {
    let mut store = place.open().await;
    let mut last = Seq::ZERO;
    for n in 0..4 {
        append(&*store, &message(n), 1).await;
        let given = head(&*store, 1).await;
        assert!(given > last);
        last = given;
        match n {
            0 => ack(&*store, 1, given).await,
            1 => assert!(store.cancel(&demo(), message(n).id, NOW).await.unwrap().is_some()),
            2 => assert!(store.expire(NOW + TTL).await.unwrap() > 0),
            _ => {}
        }
        assert_eq!(entries(&*store, &demo(), 1).await.is_empty(), n < 3);
        drop(store);
        store = place.open().await;
        assert_eq!(head(&*store, 1).await, last, "the head stays when its entry goes");
    }
}

/// Neither in the same call nor later, also when it has been acked or named for others; the entries keep their numbers.
pub async fn the_same_message_again_changes_nothing(place: &mut dyn Place) {
    let store = place.open().await;
    let twice = vec![to_inboxes(&message(1), set([1, 2])), to_inboxes(&message(1), set([1, 2]))];
    assert_eq!(store.append_inbox(twice.clone(), NOW).await.unwrap(), [Appended::New, Appended::Again]);
    let before = entries(&*store, &demo(), 2).await;
    ack(&*store, 1, head(&*store, 1).await).await;
    let others = to_inboxes(&message(1), set([2, 3]));
    let again = store.append_inbox(vec![twice[0].clone(), others], later(9)).await.unwrap();
    assert_eq!(again, [Appended::Again, Appended::Again]);
    assert_eq!(entries(&*store, &demo(), 1).await, []);
    assert_eq!(entries(&*store, &demo(), 2).await, before);
    assert_eq!(entries(&*store, &demo(), 3).await, []);
    assert_eq!(funnel(&*store, &message(1), NOW).await.targeted, 2);
}

/// In one step with its entries a message has its tally and the note of when it was dispatched.
pub async fn an_append_dispatches_the_message(place: &mut dyn Place) {
    let store = place.open().await;
    accept(&*store, &message(1)).await;
    assert_eq!(store.tally(&demo(), message(1).id).await.unwrap(), None);
    let appends = (1..=2).map(|n| to_inboxes(&message(n), set([n, 7]))).collect();
    assert_eq!(store.append_inbox(appends, later(3)).await.unwrap(), [Appended::New; 2]);
    for n in 1..=2 {
        let entry = store.entry(&demo(), message(n).id).await.unwrap();
        assert_eq!(entry.unwrap().dispatched_at, Some(later(3)), "also when it was not accepted yet");
        assert_eq!(store.tally(&demo(), message(n).id).await.unwrap().unwrap().targeted, set([n, 7]));
    }
    let of_7 = entries(&*store, &demo(), 7).await;
    assert_eq!(of_7.iter().map(|entry| (*entry.message).clone()).collect::<Vec<_>>(), [message(1), message(2)]);
}

/// Expiry is at `expires_at` sharp; the messages beside it in the call are appended.
pub async fn what_is_over_or_called_back_is_not_appended(place: &mut dyn Place) {
    let store = place.open().await;
    accept(&*store, &message(1)).await;
    store.cancel(&demo(), message(1).id, NOW).await.unwrap().unwrap();
    let over = Message { expires_at: later(9), ..message(2) };
    let appends =
        vec![to_inboxes(&message(1), set([1])), to_inboxes(&over, set([1])), to_inboxes(&message(3), set([1]))];
    let done = store.append_inbox(appends, later(9)).await.unwrap();
    assert_eq!(done, [Appended::Cancelled, Appended::Cancelled, Appended::New]);
    assert_eq!(entries(&*store, &demo(), 1).await.len(), 1);
    assert_eq!(store.tally(&demo(), over.id).await.unwrap(), None);
}

/// An inbox keeps its newest; what fell off is truncated for that device and no other, unless it had expired.
pub async fn the_oldest_fall_off_and_are_counted(place: &mut dyn Place) {
    let store = place.open().await;
    let short = Message { expires_at: later(5), ..message(0) };
    store.append_inbox(vec![to_inboxes(&short, set([1]))], NOW).await.unwrap();
    let most = INBOX_MAX as u32;
    let appends = (1..=most).map(|n| to_inboxes(&message(n), set([1, 2]))).collect();
    store.append_inbox(appends, later(5)).await.unwrap();
    assert_eq!(entries(&*store, &demo(), 1).await.len(), INBOX_MAX, "what has expired takes no room");
    let appends = (1..=2).map(|n| to_inboxes(&message(most + n), set([1]))).collect();
    store.append_inbox(appends, later(5)).await.unwrap();
    let left = entries(&*store, &demo(), 1).await;
    assert_eq!(left.len(), INBOX_MAX);
    assert_eq!(left[0].message.id, message(3).id);
    assert_eq!(entries(&*store, &demo(), 2).await.len(), INBOX_MAX);
    for n in 1..=2 {
        let funnel = funnel(&*store, &message(n), NOW).await;
        assert!(funnel.balances());
        assert_eq!((funnel.truncated, funnel.pending), (1, 1));
    }
    assert_eq!(funnel(&*store, &message(3), NOW).await.truncated, 0);
    assert_eq!(funnel(&*store, &short, later(5)).await.expired, 1);
}

/// Only for the devices of the newer message, and only entries of the same key.
pub async fn a_newer_message_replaces_those_with_its_collapse_key(place: &mut dyn Place) {
    let store = place.open().await;
    let keyed = |n, key: &str| Message { collapse_key: Some(key.into()), ..message(n) };
    let appends = vec![
        to_inboxes(&keyed(1, "score"), set([1, 2])),
        to_inboxes(&keyed(2, "weather"), set([1])),
        to_inboxes(&message(3), set([1])),
        to_inboxes(&keyed(4, "score"), set([1])),
    ];
    store.append_inbox(appends, NOW).await.unwrap();
    let ids: Vec<_> = entries(&*store, &demo(), 1).await.iter().map(|entry| entry.message.id).collect();
    assert_eq!(ids, [message(2).id, message(3).id, message(4).id]);
    assert_eq!(entries(&*store, &demo(), 2).await.len(), 1);
    let funnel = funnel(&*store, &message(1), NOW).await;
    assert_eq!((funnel.cancelled, funnel.pending), (1, 1));
    let of_others = Message { app: demo_2(), ..keyed(5, "score") };
    store.append_inbox(vec![to_inboxes(&of_others, set([1]))], NOW).await.unwrap();
    assert_eq!(entries(&*store, &demo(), 1).await.len(), 3);
}

/// An ack counts more than a collapse, whichever is told first.
pub async fn who_acked_is_not_counted_as_collapsed(place: &mut dyn Place) {
    let store = place.open().await;
    let keyed = |n| Message { collapse_key: Some("score".into()), ..message(n) };
    let acked = |device| {
        let receipt = Receipt { acked: set([device]), sent: set([device]), ..Receipt::new(message(1).id) };
        store.add_receipts(vec![ReceiptBatch { app: demo(), receipts: vec![receipt] }])
    };
    store.append_inbox(vec![to_inboxes(&keyed(1), set([1, 2, 3]))], NOW).await.unwrap();
    acked(1).await.unwrap();
    store.append_inbox(vec![to_inboxes(&keyed(2), set([1, 2, 3]))], NOW).await.unwrap();
    acked(2).await.unwrap();
    let funnel = funnel(&*store, &message(1), NOW).await;
    assert_eq!((funnel.acked, funnel.cancelled), (2, 1));
}

/// Entries come oldest first, after the number given, as many as asked.
pub async fn pages_follow_each_other(place: &mut dyn Place) {
    let store = place.open().await;
    let appends = (0..5).map(|n| to_inboxes(&message(n), set([1]))).collect();
    store.append_inbox(appends, NOW).await.unwrap();
    let all = entries(&*store, &demo(), 1).await;
    for (after, limit, expected) in [(Seq::ZERO, 2, 0..2), (all[1].seq, 2, 2..4), (all[3].seq, 2, 4..5)] {
        assert_eq!(store.inbox_after(&demo(), Ordinal(1), after, limit).await.unwrap(), all[expected]);
    }
    assert_eq!(store.inbox_after(&demo(), Ordinal(1), all[4].seq, 2).await.unwrap(), []);
}

/// Devices and apps do not see each other's; heads come in the order asked for.
pub async fn inboxes_are_kept_apart(place: &mut dyn Place) {
    let store = place.open().await;
    let other = Message { app: demo_2(), ..message(1) };
    let appends = vec![to_inboxes(&message(1), set([1])), to_inboxes(&other, set([2]))];
    assert_eq!(store.append_inbox(appends, NOW).await.unwrap(), [Appended::New; 2], "an id is an id of its app");
    assert_eq!(entries(&*store, &demo(), 2).await, []);
    assert_eq!(entries(&*store, &demo_2(), 1).await, []);
    assert_eq!(*entries(&*store, &demo_2(), 2).await[0].message, other);
    let heads = store.inbox_heads(&demo(), &[Ordinal(2), Ordinal(1)]).await.unwrap();
    assert_eq!(heads, [Seq::ZERO, Seq::ZERO.next(NOW)]);
}

/// Appends get distinct numbers, and whoever has read up to one never finds a new entry below it.
pub async fn readers_see_concurrent_appends_without_gaps(place: &mut dyn Place) {
    const WRITERS: u32 = 16;
    const EACH: u32 = 8;
    let store = place.open().await;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for n in 0..EACH {
                    assert_eq!(append(&*store, &message(writer * EACH + n), 1).await, Appended::New);
                }
            })
        })
        .collect();
    let mut mark = Seq::ZERO;
    let mut seen = BTreeSet::new();
    loop {
        let over = writers.iter().all(tokio::task::JoinHandle::is_finished);
        for entry in store.inbox_after(&demo(), Ordinal(1), mark, INBOX_MAX).await.unwrap() {
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
    let appends = (0..3).map(|n| to_inboxes(&message(n), set([1, 2]))).collect();
    store.append_inbox(appends, NOW).await.unwrap();
    let before = entries(&*store, &demo(), 1).await;
    drop(store);
    let store = place.open().await;
    assert_eq!(entries(&*store, &demo(), 1).await, before);
    assert_eq!(append(&*store, &message(0), 1).await, Appended::Again);
}
