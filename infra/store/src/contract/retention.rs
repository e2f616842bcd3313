//! What [`Retention`](crate::Retention) promises.

use std::time::Duration;

use model::{Env, Message, Ordinal, Seq, Timestamp, Uplink};

use super::{NOW, Place, TTL, accept, demo, funnel, later, message, set, to_inboxes, to_timeline, uplinks::uplink};
use crate::{
    Accepted, Entry, Once, PAGE_MAX, Store,
    messages::{KEPT, ONCE_KEPT},
    uplinks::UPLINK_KEPT,
};

const A_MOMENT: Duration = Duration::from_millis(1);

async fn expire_all(store: &dyn Store, now: Timestamp) -> usize {
    let mut removed = 0;
    loop {
        match store.expire(now).await.unwrap() {
            0 => return removed,
            some => removed += some,
        }
    }
}

async fn in_streams(store: &dyn Store) -> (usize, usize) {
    let inbox = store.inbox_after(&demo(), Ordinal(1), Seq::ZERO, PAGE_MAX).await.unwrap();
    (inbox.len(), store.timeline_after(&demo(), Seq::ZERO, PAGE_MAX).await.unwrap().len())
}

/// From both streams, each at its own time and in any order; whoever had not answered is counted as expired.
pub async fn entries_of_streams_go_when_they_expire(place: &mut dyn Place) {
    let store = place.open().await;
    let lasting = |n, millis| Message { expires_at: later(millis), ..message(n) };
    let times = [30, 10, 20];
    for (n, millis) in (0..).zip(times) {
        store.append_inbox(vec![to_inboxes(&lasting(n, millis), set([1, 2]))], NOW).await.unwrap();
        store.append_timeline(vec![to_timeline(&lasting(10 + n, millis), set([1, 2]))], NOW).await.unwrap();
    }
    assert_eq!(expire_all(&*store, later(9)).await, 0);
    for (now, left) in [(10, 2), (20, 1), (30, 0)] {
        assert!(expire_all(&*store, later(now)).await > 0);
        assert_eq!(in_streams(&*store).await, (left, left));
    }
    assert_eq!(funnel(&*store, &lasting(0, 30), later(30)).await.expired, 2);
}

/// Entry and tally stay for their keeping time, or until expiry if that is later.
pub async fn a_message_is_kept_for_its_time(place: &mut dyn Place) {
    let store = place.open().await;
    let long = Message { expires_at: NOW + KEPT + TTL, ..message(2) };
    store.append_inbox(vec![to_inboxes(&message(1), set([1])), to_inboxes(&long, set([1]))], NOW).await.unwrap();
    accept(&*store, &message(3)).await;
    expire_all(&*store, NOW + KEPT - A_MOMENT).await;
    for message in [message(1), message(3)] {
        assert!(store.entry(&demo(), message.id).await.unwrap().is_some());
    }
    assert!(store.tally(&demo(), message(1).id).await.unwrap().is_some());
    expire_all(&*store, NOW + KEPT).await;
    for message in [message(1), message(3)] {
        assert_eq!(store.entry(&demo(), message.id).await.unwrap(), None);
        assert_eq!(store.tally(&demo(), message.id).await.unwrap(), None);
    }
    assert_eq!(in_streams(&*store).await.0, 1);
    expire_all(&*store, long.expires_at).await;
    assert_eq!(store.entry(&demo(), long.id).await.unwrap(), None);
    assert_eq!(in_streams(&*store).await.0, 0);
}

/// And one that was used again in the meantime stays for its second time.
pub async fn a_used_key_goes_after_its_time(place: &mut dyn Place) {
    let store = place.open().await;
    let accept = async |n, created_at| {
        let entry = Entry { created_at, ..Entry::from(&message(n)) };
        let once = Once { key: "k".into(), fingerprint: [1; 32], answer: n.to_string() };
        store.accept(&demo(), entry, Some(once)).await.unwrap()
    };
    assert_eq!(accept(1, NOW).await, Accepted::New);
    assert_eq!(accept(2, NOW + ONCE_KEPT).await, Accepted::New);
    assert!(expire_all(&*store, NOW + ONCE_KEPT).await > 0);
    assert_eq!(accept(3, NOW + ONCE_KEPT).await, Accepted::Before(message(2).id, "2".into()));
    expire_all(&*store, NOW + ONCE_KEPT + ONCE_KEPT).await;
    assert_eq!(accept(4, NOW).await, Accepted::New, "nothing remembers it");
}

/// Each after its own time; the rest can still be had in order.
pub async fn uplinks_go_after_their_time(place: &mut dyn Place) {
    let store = place.open().await;
    let kept: Vec<_> =
        [5, 0, 9].into_iter().zip(1..).map(|(at, n)| Uplink { received_at: later(at), ..uplink(n) }).collect();
    store.keep_uplinks(kept.clone()).await.unwrap();
    let left = async || store.uplinks_after(&demo(), Env::Live, None, None, 9).await.unwrap();
    expire_all(&*store, later(0) + UPLINK_KEPT - A_MOMENT).await;
    assert_eq!(left().await, kept);
    expire_all(&*store, later(0) + UPLINK_KEPT).await;
    assert_eq!(left().await, [kept[0].clone(), kept[2].clone()]);
    expire_all(&*store, later(5) + UPLINK_KEPT).await;
    assert_eq!(left().await, kept[2..]);
    assert_eq!(store.uplinks_after(&demo(), Env::Live, Some("ping"), None, 9).await.unwrap(), kept[2..]);
    expire_all(&*store, later(9) + UPLINK_KEPT).await;
    assert_eq!(left().await, []);
    store.keep_uplinks(vec![uplink(1)]).await.unwrap();
    assert_eq!(left().await, [uplink(1)]);
}

/// What is added after a sweep goes at its time too, also when that is before the sweep's.
pub async fn nothing_goes_early(place: &mut dyn Place) {
    let store = place.open().await;
    assert_eq!(expire_all(&*store, later(50)).await, 0);
    let short = Message { expires_at: later(20), ..message(1) };
    store.append_timeline(vec![to_timeline(&short, set([1])), to_timeline(&message(2), set([1]))], NOW).await.unwrap();
    assert_eq!(expire_all(&*store, later(19)).await, 0);
    assert_eq!(in_streams(&*store).await.1, 2);
    assert!(expire_all(&*store, later(50)).await > 0);
    assert_eq!(in_streams(&*store).await.1, 1);
    assert_eq!(expire_all(&*store, later(50)).await, 0);
}

/// Every call does some of it, until nothing is left.
pub async fn more_than_a_page_goes_in_several_calls(place: &mut dyn Place) {
    let store = place.open().await;
    let count = PAGE_MAX as u32 + 5;
    store.append_timeline((0..count).map(|n| to_timeline(&message(n), set([1]))).collect(), NOW).await.unwrap();
    let first = store.expire(NOW + TTL).await.unwrap();
    assert!((1..=PAGE_MAX).contains(&first), "{first} went at once");
    assert_eq!(first + expire_all(&*store, NOW + TTL).await, count as usize);
    assert_eq!(in_streams(&*store).await.1, 0);
}

/// Heads stay where they were, and readers find what comes next.
pub async fn numbers_go_on_after_everything_expired(place: &mut dyn Place) {
    let store = place.open().await;
    store.append_timeline(vec![to_timeline(&message(1), set([1]))], NOW).await.unwrap();
    let head = store.timeline_head(&demo()).await.unwrap();
    expire_all(&*store, NOW + TTL).await;
    assert_eq!(store.timeline_head(&demo()).await.unwrap(), head);
    store.append_timeline(vec![to_timeline(&message(2), set([1]))], NOW).await.unwrap();
    let entries = store.timeline_after(&demo(), head, 9).await.unwrap();
    assert_eq!(entries.iter().map(|entry| entry.message.id).collect::<Vec<_>>(), [message(2).id]);
    assert_eq!(store.timeline_after(&demo(), Seq::ZERO, 9).await.unwrap(), entries);
}
