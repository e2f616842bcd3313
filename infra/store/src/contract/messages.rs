//! What [`Messages`](crate::Messages) promises.

use std::time::Duration;

use model::{Class, Message, Ordinal, Receipt, ReceiptBatch, Seq};

use super::{NOW, Place, TTL, accept, demo, demo_2, funnel, later, message, name, set, to_inboxes, to_timeline};
use crate::{Accepted, Appended, Entry, Once, Promise, Store, messages::ONCE_KEPT};

fn once(key: &str, meaning: u8, answer: &str) -> Option<Once> {
    Some(Once { key: key.into(), fingerprint: [meaning; 32], answer: answer.into() })
}

async fn accept_once(store: &dyn Store, message: &Message, once: Option<Once>) -> Accepted {
    store.accept(&message.app, Entry::from(message), once).await.unwrap()
}

async fn entry(store: &dyn Store, n: u32) -> Option<Entry> {
    store.entry(&demo(), message(n).id).await.unwrap()
}

async fn inbox(store: &dyn Store, device: u32) -> Vec<crate::InboxEntry> {
    store.inbox_after(&demo(), Ordinal(device), Seq::ZERO, 9).await.unwrap()
}

/// As it was given, and only in its app.
pub async fn an_accepted_message_has_an_entry(place: &mut dyn Place) {
    let store = place.open().await;
    assert_eq!(entry(&*store, 1).await, None);
    assert_eq!(accept_once(&*store, &message(1), None).await, Accepted::New);
    assert_eq!(entry(&*store, 1).await, Some(Entry::from(&message(1))));
    assert_eq!(store.entry(&demo_2(), message(1).id).await.unwrap(), None);
}

/// Whether it was accepted first or appended first, and with the device that is to carry it out.
pub async fn a_command_is_known_as_one(place: &mut dyn Place) {
    let store = place.open().await;
    let command = |n| Message { class: Class::Command { device: name("dev-1") }, ..message(n) };
    accept(&*store, &command(1)).await;
    store.append_inbox(vec![to_inboxes(&command(2), set([0]))], NOW).await.unwrap();
    accept(&*store, &command(2)).await;
    drop(store);
    let store = place.open().await;
    for n in [1, 2] {
        assert_eq!(entry(&*store, n).await.unwrap().class, command(n).class);
    }
    let delivered = inbox(&*store, 0).await;
    assert_eq!(delivered[0].message.class, command(2).class);
}

/// With the first message's id; the second message has no entry.
pub async fn the_same_key_gives_the_first_answer(place: &mut dyn Place) {
    let store = place.open().await;
    assert_eq!(accept_once(&*store, &message(1), once("k", 7, "first")).await, Accepted::New);
    let again = accept_once(&*store, &message(2), once("k", 7, "second")).await;
    assert_eq!(again, Accepted::Before(message(1).id, "first".into()));
    assert_eq!(entry(&*store, 2).await, None);
    assert_eq!(accept_once(&*store, &message(2), once("other", 7, "second")).await, Accepted::New);
}

/// Nothing changes: not the first promise, and there is no second message.
pub async fn the_same_key_with_another_meaning_is_refused(place: &mut dyn Place) {
    let store = place.open().await;
    accept_once(&*store, &message(1), once("k", 7, "first")).await;
    assert_eq!(accept_once(&*store, &message(2), once("k", 8, "second")).await, Accepted::Reused);
    assert_eq!(entry(&*store, 2).await, None);
    let again = accept_once(&*store, &message(3), once("k", 7, "third")).await;
    assert_eq!(again, Accepted::Before(message(1).id, "first".into()));
}

/// From 24 hours after the first message on, the key is a new one.
pub async fn a_key_is_forgotten_after_a_day(place: &mut dyn Place) {
    let store = place.open().await;
    accept_once(&*store, &message(1), once("k", 7, "first")).await;
    let at = |n, created_at| Message { created_at, expires_at: created_at + TTL, ..message(n) };
    let last_moment = NOW + ONCE_KEPT - Duration::from_millis(1);
    assert_eq!(accept_once(&*store, &at(2, last_moment), once("k", 8, "second")).await, Accepted::Reused);
    assert_eq!(accept_once(&*store, &at(3, NOW + ONCE_KEPT), once("k", 8, "third")).await, Accepted::New);
    let again = accept_once(&*store, &at(4, NOW + ONCE_KEPT), once("k", 8, "fourth")).await;
    assert_eq!(again, Accepted::Before(message(3).id, "third".into()));
}

/// The same key of another app is another key.
pub async fn apps_do_not_share_keys(place: &mut dyn Place) {
    let store = place.open().await;
    accept_once(&*store, &message(1), once("k", 7, "first")).await;
    let other = Message { app: demo_2(), ..message(2) };
    assert_eq!(accept_once(&*store, &other, once("k", 8, "second")).await, Accepted::New);
}

/// To whoever asks before using it; only in its app, and as long as it is remembered.
pub async fn a_used_key_tells_what_it_was_used_for(place: &mut dyn Place) {
    let store = place.open().await;
    let until = NOW + ONCE_KEPT;
    let promised = async |key: &str, now| store.promised(&demo(), key, now).await.unwrap();
    assert_eq!(promised("k", NOW).await, None);
    accept_once(&*store, &message(1), once("k", 7, "first")).await;
    accept_once(&*store, &message(2), once("k", 8, "second")).await;
    let first = Promise { message: message(1).id, fingerprint: [7; 32], answer: "first".into(), until };
    assert_eq!(promised("k", until - Duration::from_millis(1)).await, Some(first));
    assert_eq!(promised("k", until).await, None);
    assert_eq!(promised("other", NOW).await, None);
    assert_eq!(store.promised(&demo_2(), "k", NOW).await.unwrap(), None);
}

/// A message may be dispatched and cancelled before its sender's entry is kept.
pub async fn accepting_after_the_append_keeps_what_happened(place: &mut dyn Place) {
    let store = place.open().await;
    store.append_inbox(vec![to_inboxes(&message(1), set([1]))], later(2)).await.unwrap();
    store.cancel(&demo(), message(1).id, later(3)).await.unwrap().unwrap();
    assert_eq!(accept_once(&*store, &message(1), once("k", 7, "first")).await, Accepted::New);
    let expected = Entry { dispatched_at: Some(later(2)), cancelled_at: Some(later(3)), ..Entry::from(&message(1)) };
    assert_eq!(entry(&*store, 1).await, Some(expected));
    let again = store.append_inbox(vec![to_inboxes(&message(1), set([1]))], later(4)).await.unwrap();
    assert_eq!(again, [Appended::Again]);
}

/// Until when it can wait is known of a message whatever else is said of it.
pub async fn an_entry_tells_until_when_its_message_can_wait(place: &mut dyn Place) {
    let store = place.open().await;
    let command = Class::Command { device: name("dev-1") };
    for (n, class, due_at) in [(1, Class::Message, Some(later(9))), (2, command, None)] {
        let message = Message { class, due_at, ..message(n) };
        accept(&*store, &message).await;
        assert_eq!(entry(&*store, n).await, Some(Entry::from(&message)));
    }
}

/// It is over from the start, and is not queued for ever.
pub async fn a_message_for_nobody_stays_dispatched(place: &mut dyn Place) {
    let store = place.open().await;
    let expected = Entry { dispatched_at: Some(later(1)), ..Entry::from(&message(1)) };
    store.accept(&demo(), expected.clone(), None).await.unwrap();
    assert_eq!(entry(&*store, 1).await, Some(expected));
}

/// By id; a page follows the last one seen, which need not be there.
pub async fn entries_come_newest_first_in_pages(place: &mut dyn Place) {
    let store = place.open().await;
    for n in [2, 5, 1, 4] {
        accept(&*store, &message(n)).await;
    }
    accept(&*store, &Message { app: demo_2(), ..message(9) }).await;
    let page = async |before: Option<u32>| {
        let before = before.map(|n| message(n).id);
        let page = store.entries(&demo(), before, 2).await.unwrap();
        page.into_iter().map(|entry| entry.id).collect::<Vec<_>>()
    };
    assert_eq!(page(None).await, [message(5).id, message(4).id]);
    assert_eq!(page(Some(4)).await, [message(2).id, message(1).id]);
    assert_eq!(page(Some(3)).await, [message(2).id, message(1).id]);
    assert_eq!(page(Some(1)).await, []);
}

/// A message still on the broker is not appended when it arrives.
pub async fn a_cancel_before_the_append_prevents_it(place: &mut dyn Place) {
    let store = place.open().await;
    accept(&*store, &message(1)).await;
    let cancelled = store.cancel(&demo(), message(1).id, later(1)).await.unwrap().unwrap();
    assert_eq!((cancelled.stopped, cancelled.entry.cancelled_at), (0, Some(later(1))));
    let appended = store.append_inbox(vec![to_inboxes(&message(1), set([1]))], later(2)).await.unwrap();
    assert_eq!(appended, [Appended::Cancelled]);
    assert_eq!(inbox(&*store, 1).await, []);
    assert_eq!(entry(&*store, 1).await.unwrap().dispatched_at, None);
}

/// It leaves the inboxes of those it was not sent to, who are counted; those it was sent to keep their chance to ack.
pub async fn a_cancel_stops_whoever_was_not_sent_it(place: &mut dyn Place) {
    let store = place.open().await;
    let appends = vec![to_inboxes(&message(1), set([1, 2, 3])), to_inboxes(&message(2), set([1, 2, 3]))];
    store.append_inbox(appends, NOW).await.unwrap();
    let head = inbox(&*store, 3).await[1].seq;
    let receipt = Receipt { sent: set([1, 2]), acked: set([1]), ..Receipt::new(message(1).id) };
    store.add_receipts(vec![ReceiptBatch { app: demo(), receipts: vec![receipt] }]).await.unwrap();
    let cancelled = store.cancel(&demo(), message(1).id, later(1)).await.unwrap().unwrap();
    assert_eq!((cancelled.stopped, &cancelled.tally.cancelled), (1, &set([3])));
    assert_eq!(inbox(&*store, 3).await.iter().map(|entry| entry.message.id).collect::<Vec<_>>(), [message(2).id]);
    assert_eq!(inbox(&*store, 2).await.len(), 2);
    let funnel = funnel(&*store, &message(1), later(1)).await;
    assert!(funnel.balances());
    assert_eq!((funnel.acked, funnel.cancelled, funnel.pending_online), (1, 1, 1));
    assert_eq!(store.inbox_heads(&demo(), &[Ordinal(3)]).await.unwrap(), [head]);
}

/// The entry stays in its place, for those alone that were sent it; the others are counted.
pub async fn a_cancel_marks_the_timeline(place: &mut dyn Place) {
    let store = place.open().await;
    let appends = (1..=2).map(|n| to_timeline(&message(n), set(0..9))).collect();
    store.append_timeline(appends, NOW).await.unwrap();
    let receipt = Receipt { sent: set([4]), ..Receipt::new(message(1).id) };
    store.add_receipts(vec![ReceiptBatch { app: demo(), receipts: vec![receipt] }]).await.unwrap();
    let cancelled = store.cancel(&demo(), message(1).id, later(1)).await.unwrap().unwrap();
    assert_eq!(cancelled.stopped, 8);
    let entries = store.timeline_after(&demo(), Seq::ZERO, 9).await.unwrap();
    let left: Vec<_> = entries.iter().map(|entry| (entry.cancelled, (*entry.audience).clone())).collect();
    assert_eq!(left, [(true, set([4])), (false, set(0..9))]);
    assert_eq!(store.timeline_cancelled(&demo(), Seq::ZERO).await.unwrap(), [message(1).id]);
    assert_eq!(store.timeline_cancelled(&demo(), entries[0].seq).await.unwrap(), []);
    assert_eq!(funnel(&*store, &message(1), later(1)).await.pending_online, 1);
}

/// The second answer is the first; there is nothing to cancel in another app.
pub async fn cancelling_again_changes_nothing(place: &mut dyn Place) {
    let store = place.open().await;
    store.append_inbox(vec![to_inboxes(&message(1), set([1, 2]))], NOW).await.unwrap();
    assert_eq!(store.cancel(&demo_2(), message(1).id, NOW).await.unwrap(), None);
    assert_eq!(store.cancel(&demo(), message(2).id, NOW).await.unwrap(), None);
    let first = store.cancel(&demo(), message(1).id, later(1)).await.unwrap();
    assert_eq!(store.cancel(&demo(), message(1).id, later(2)).await.unwrap(), first);
    assert_eq!(first.unwrap().stopped, 2);
}

/// A message that has expired stays expired.
pub async fn what_is_over_is_not_cancelled(place: &mut dyn Place) {
    let store = place.open().await;
    store.append_inbox(vec![to_inboxes(&message(1), set([1, 2]))], NOW).await.unwrap();
    let late = store.cancel(&demo(), message(1).id, NOW + TTL).await.unwrap().unwrap();
    assert_eq!((late.stopped, late.entry.cancelled_at), (0, None));
    assert_eq!(funnel(&*store, &message(1), NOW + TTL).await.expired, 2);
}

/// And not after it, nor for a message that is not known.
pub async fn a_failure_is_noted_until_the_message_is_dispatched(place: &mut dyn Place) {
    let store = place.open().await;
    accept(&*store, &message(1)).await;
    store.fail(&demo(), message(1).id, "no such group".into()).await.unwrap();
    store.fail(&demo(), message(2).id, "no such message".into()).await.unwrap();
    assert_eq!(entry(&*store, 1).await.unwrap().failed.as_deref(), Some("no such group"));
    assert_eq!(entry(&*store, 2).await, None);
    store.append_inbox(vec![to_inboxes(&message(1), set([1]))], NOW).await.unwrap();
    store.fail(&demo(), message(1).id, "too late".into()).await.unwrap();
    assert_eq!(entry(&*store, 1).await.unwrap().failed, None);
}

/// Entry, key, cancel are durable when the call returns.
pub async fn promises_to_senders_outlive_a_restart(place: &mut dyn Place) {
    let store = place.open().await;
    accept_once(&*store, &message(1), once("k", 7, "first")).await;
    store.cancel(&demo(), message(1).id, later(1)).await.unwrap().unwrap();
    drop(store);
    let store = place.open().await;
    assert_eq!(entry(&*store, 1).await.unwrap().cancelled_at, Some(later(1)));
    let again = accept_once(&*store, &message(2), once("k", 7, "second")).await;
    assert_eq!(again, Accepted::Before(message(1).id, "first".into()));
}
