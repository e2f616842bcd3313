//! What [`Changes`](crate::Changes) promises.

use model::{Env, Ordinal, Profile};

use super::{NOW, Place, demo, demo_2, later, name, register, registration};
use crate::{ChangeId, Store};

async fn after(store: &dyn Store, change: ChangeId) -> Vec<u32> {
    let changes = store.changes_after(&demo(), change, 100).await.unwrap().unwrap();
    assert!(changes.is_sorted_by(|(a, _), (b, _)| a < b) && changes.iter().all(|(id, _)| *id > change));
    assert_eq!(changes.last().map_or(change, |(id, _)| *id), store.change_head(&demo()).await.unwrap());
    changes.into_iter().map(|(_, device)| device.0).collect()
}

fn tagged(tag: &str) -> Option<Profile> {
    Some(Profile { tags: [tag.to_owned()].into(), ..Profile::default() })
}

/// From the first registration on, also from in between; apps have their own.
pub async fn whoever_follows_sees_every_change(place: &mut dyn Place) {
    let store = place.open().await;
    assert_eq!(store.change_head(&demo()).await.unwrap(), ChangeId::default());
    assert!(after(&*store, ChangeId::default()).await.is_empty());
    register(&*store, &["a", "b"]).await;
    let head = store.change_head(&demo()).await.unwrap();
    store.register(&demo(), vec![registration("a", Env::Live, tagged("x"))], later(5)).await.unwrap();
    store.revoke(&demo(), &name("a")).await.unwrap();
    store.remove(&demo(), &name("b")).await.unwrap();
    register(&*store, &["b"]).await;
    store.register(&demo_2(), vec![registration("a", Env::Live, None)], NOW).await.unwrap();
    assert_eq!(after(&*store, ChangeId::default()).await, [0, 1, 0, 0, 1, 2]);
    assert_eq!(after(&*store, head).await, [0, 0, 1, 2]);
}

/// Registering again with the profile that is there, with none, or in vain; revoking or removing whom nobody knows.
pub async fn what_changes_nothing_is_no_change(place: &mut dyn Place) {
    let store = place.open().await;
    store.register(&demo(), vec![registration("a", Env::Live, tagged("x"))], NOW).await.unwrap();
    let head = store.change_head(&demo()).await.unwrap();
    store.register(&demo(), vec![registration("a", Env::Live, tagged("x"))], later(1)).await.unwrap();
    store.register(&demo(), vec![registration("a", Env::Live, None)], later(2)).await.unwrap();
    let refused = vec![registration("b", Env::Live, None), registration("a", Env::Test, tagged("y"))];
    store.register(&demo(), refused, later(3)).await.unwrap_err();
    store.revoke(&demo(), &name("c")).await.unwrap();
    store.remove(&demo(), &name("c")).await.unwrap();
    assert_eq!(store.change_head(&demo()).await.unwrap(), head);
}

/// In order, without gaps.
pub async fn pages_follow_each_other(place: &mut dyn Place) {
    let store = place.open().await;
    register(&*store, &["a", "b", "c", "d", "e"]).await;
    let (mut at, mut found) = (ChangeId::default(), Vec::new());
    loop {
        let page = store.changes_after(&demo(), at, 2).await.unwrap().unwrap();
        assert!(page.len() <= 2);
        let Some((last, _)) = page.last() else { break };
        at = *last;
        found.extend(page.into_iter().map(|(_, device)| device));
    }
    assert_eq!(found, (0..5).map(Ordinal).collect::<Vec<_>>());
}

/// What the store never knew, or lost, is not taken for a change without any after it.
pub async fn an_unknown_change_is_told(place: &mut dyn Place) {
    let store = place.open().await;
    let unknown = [ChangeId(1), ChangeId(7 << 64), ChangeId(u128::MAX)];
    for _ in 0..2 {
        for unknown in unknown {
            assert_eq!(store.changes_after(&demo(), unknown, 9).await.unwrap(), None);
        }
        register(&*store, &["a"]).await;
    }
}

/// And whoever followed before goes on after it.
pub async fn changes_outlive_a_restart(place: &mut dyn Place) {
    let store = place.open().await;
    register(&*store, &["a", "b"]).await;
    let head = store.change_head(&demo()).await.unwrap();
    drop(store);
    let store = place.open().await;
    register(&*store, &["c"]).await;
    assert_eq!(after(&*store, head).await, [2]);
    assert_eq!(after(&*store, ChangeId::default()).await, [0, 1, 2]);
}
