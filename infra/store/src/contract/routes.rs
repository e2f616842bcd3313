//! What [`Routes`](crate::Routes) promises.

use model::{Cursor, Epoch, NodeId, Ordinal, Route};

use super::{NOW, Place, demo, demo_2, later, name};
use crate::{Claim, CursorWrite};

fn node(n: u32) -> NodeId {
    name(&format!("node-{n}"))
}

/// Also when the clock stands still or goes back, and after a release.
pub async fn a_later_session_gets_a_greater_epoch(place: &mut dyn Place) {
    let store = place.open().await;
    let mut last = Epoch(0);
    for now in [NOW, NOW, later(5), NOW, later(9)] {
        let Claim { epoch, .. } = store.claim(&demo(), Ordinal(1), &node(1), now).await.unwrap();
        assert!(epoch > last);
        last = epoch;
        store.release(&demo(), Ordinal(1), epoch).await.unwrap();
    }
}

/// Nobody at first, then each the one before.
pub async fn a_claim_says_who_was_there_before(place: &mut dyn Place) {
    let store = place.open().await;
    let first = store.claim(&demo(), Ordinal(1), &node(1), NOW).await.unwrap();
    assert_eq!(first.previous, None);
    let second = store.claim(&demo(), Ordinal(1), &node(2), NOW).await.unwrap();
    assert_eq!(second.previous, Some(Route { node: node(1), epoch: first.epoch }));
    let routes = store.routes(&demo(), &[Ordinal(1)]).await.unwrap();
    assert_eq!(routes, [Some(Route { node: node(2), epoch: second.epoch })]);
}

/// Only the session that holds the route can give it up.
pub async fn a_release_leaves_a_later_session_alone(place: &mut dyn Place) {
    let store = place.open().await;
    let first = store.claim(&demo(), Ordinal(1), &node(1), NOW).await.unwrap();
    let second = store.claim(&demo(), Ordinal(1), &node(2), NOW).await.unwrap();
    store.release(&demo(), Ordinal(1), first.epoch).await.unwrap();
    assert!(store.routes(&demo(), &[Ordinal(1)]).await.unwrap()[0].is_some());
    store.release(&demo(), Ordinal(1), second.epoch).await.unwrap();
    assert_eq!(store.routes(&demo(), &[Ordinal(1)]).await.unwrap(), [None]);
    store.release(&demo(), Ordinal(1), second.epoch).await.unwrap();
}

/// Routes come in the order asked for, and belong to their app.
pub async fn unknown_devices_have_no_route(place: &mut dyn Place) {
    let store = place.open().await;
    let claim = store.claim(&demo(), Ordinal(2), &node(1), NOW).await.unwrap();
    let route = Some(Route { node: node(1), epoch: claim.epoch });
    let devices = [Ordinal(1), Ordinal(2), Ordinal(3)];
    assert_eq!(store.routes(&demo(), &devices).await.unwrap(), [None, route, None]);
    assert_eq!(store.routes(&demo_2(), &devices).await.unwrap(), [None, None, None]);
}

/// A session that comes when routes are forgotten is still greater than whoever wrote the device's cursor.
pub async fn epochs_outgrow_kept_cursors(place: &mut dyn Place) {
    let store = place.open().await;
    let claim = store.claim(&demo(), Ordinal(1), &node(1), later(60_000)).await.unwrap();
    let write = CursorWrite { app: demo(), device: Ordinal(1), epoch: claim.epoch, cursor: Cursor::default() };
    store.save_cursors(vec![write]).await.unwrap();
    drop(store);
    let store = place.open().await;
    let after = store.claim(&demo(), Ordinal(1), &node(1), NOW).await.unwrap();
    assert!(after.epoch > claim.epoch);
}

/// As an access point does that finds its routes forgotten; a session that came since stays.
pub async fn routes_are_told_again(place: &mut dyn Place) {
    let store = place.open().await;
    let old = store.claim(&demo(), Ordinal(1), &node(1), NOW).await.unwrap().epoch;
    let new = store.claim(&demo(), Ordinal(1), &node(2), NOW).await.unwrap().epoch;
    let told = [(Ordinal(1), old), (Ordinal(7), old)];
    for _ in 0..2 {
        assert_eq!(store.restore(&demo(), &node(1), &told).await.unwrap(), [false, true]);
    }
    let there = |n, epoch| Some(Route { node: node(n), epoch });
    let routes = store.routes(&demo(), &[Ordinal(1), Ordinal(7)]).await.unwrap();
    assert_eq!(routes, [there(2, new), there(1, old)]);
    for epoch in [new, old] {
        assert_eq!(store.restore(&demo(), &node(2), &[(Ordinal(1), epoch)]).await.unwrap(), [true]);
        let route = store.routes(&demo(), &[Ordinal(1)]).await.unwrap();
        assert_eq!(route, [there(2, new)], "a later one of the same node stays and does no harm");
    }
    assert_eq!(store.generation(1).await.unwrap(), store.generation(2).await.unwrap());
}
