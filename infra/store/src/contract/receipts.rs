//! What [`Receipts`](crate::Receipts) promises.

use model::{AppId, Receipt, ReceiptBatch, Tally};

use super::{NOW, Place, accept, demo, demo_2, message, set, to_inboxes, to_timeline};

fn batch(app: AppId, n: u32, sent: &[u32], acked: &[u32], rejected: &[u32]) -> ReceiptBatch {
    let set = |devices: &[u32]| set(devices.iter().copied());
    let receipt = Receipt { message: message(n).id, sent: set(sent), acked: set(acked), rejected: set(rejected) };
    ReceiptBatch { app, receipts: vec![receipt] }
}

/// The same receipts twice, in one call or in two, before and after a restart, are the receipts once.
pub async fn telling_again_changes_nothing(place: &mut dyn Place) {
    let store = place.open().await;
    store.append_inbox(vec![to_inboxes(&message(1), set([1, 2, 3]))], NOW).await.unwrap();
    let told = batch(demo(), 1, &[1, 2], &[1], &[2]);
    store.add_receipts(vec![told.clone()]).await.unwrap();
    let once = store.tally(&demo(), message(1).id).await.unwrap().unwrap();
    let expected =
        Tally { targeted: set([1, 2, 3]), sent: set([1, 2]), acked: set([1]), rejected: set([2]), ..Tally::default() };
    assert_eq!(once, expected);
    store.add_receipts(vec![told.clone(), told.clone()]).await.unwrap();
    drop(store);
    let store = place.open().await;
    store.add_receipts(vec![told]).await.unwrap();
    assert_eq!(store.tally(&demo(), message(1).id).await.unwrap(), Some(once));
}

/// Whatever the order, the tally is the union.
pub async fn sets_of_many_access_points_add_up(place: &mut dyn Place) {
    let store = place.open().await;
    let appends = (1..=2).map(|n| to_timeline(&message(n), set(0..100))).collect();
    store.append_timeline(appends, NOW).await.unwrap();
    let mut parts: Vec<_> = (0..10).map(|n| batch(demo(), 1, &[n, n + 10], &[n], &[])).collect();
    parts.push(batch(demo(), 2, &[5], &[], &[5]));
    store.add_receipts(parts.split_off(6)).await.unwrap();
    store.add_receipts(parts).await.unwrap();
    let tally = store.tally(&demo(), message(1).id).await.unwrap().unwrap();
    assert_eq!((tally.sent, tally.acked, tally.rejected), (set(0..20), set(0..10), set([])));
    let tally = store.tally(&demo(), message(2).id).await.unwrap().unwrap();
    assert_eq!((tally.sent, tally.rejected), (set([5]), set([5])));
}

/// Receipts of such a message, or of one nobody knows, are ignored.
pub async fn what_is_not_dispatched_has_no_tally(place: &mut dyn Place) {
    let store = place.open().await;
    accept(&*store, &message(1)).await;
    let told = (1..=2).map(|n| batch(demo(), n, &[1], &[1], &[])).collect();
    store.add_receipts(told).await.unwrap();
    for n in 1..=2 {
        assert_eq!(store.tally(&demo(), message(n).id).await.unwrap(), None);
    }
    store.append_inbox(vec![to_inboxes(&message(1), set([1]))], NOW).await.unwrap();
    let tally = store.tally(&demo(), message(1).id).await.unwrap();
    assert_eq!(tally, Some(Tally { targeted: set([1]), ..Tally::default() }));
}

/// A message is one of its app: what another app tells of its id is ignored.
pub async fn apps_do_not_share_tallies(place: &mut dyn Place) {
    let store = place.open().await;
    store.append_inbox(vec![to_inboxes(&message(1), set([1]))], NOW).await.unwrap();
    store.add_receipts(vec![batch(demo_2(), 1, &[1], &[1], &[])]).await.unwrap();
    assert!(store.tally(&demo(), message(1).id).await.unwrap().unwrap().acked.is_empty());
    assert_eq!(store.tally(&demo_2(), message(1).id).await.unwrap(), None);
}
