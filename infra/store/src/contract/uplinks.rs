//! What [`Uplinks`](crate::Uplinks) promises.

use bytes::Bytes;
use model::{Env, TraceParent, Uplink, UplinkId};

use super::{NOW, Place, demo, demo_2, later, name};

/// The `n`-th uplink of the app `demo`.
pub(super) fn uplink(n: u32) -> Uplink {
    Uplink {
        id: UplinkId::new(later(n.into()), n.into()),
        app: demo(),
        env: Env::Live,
        device: name("a"),
        user: None,
        kind: "ping".into(),
        answers: None,
        reply: None,
        content_type: None,
        payload: Bytes::from(format!("body {n}")),
        received_at: NOW,
        trace: TraceParent::start(1, 1),
    }
}

/// The same id again, in one call or in two, changes nothing.
pub async fn an_uplink_is_kept_once(place: &mut dyn Place) {
    let store = place.open().await;
    let other = Uplink { payload: "other".into(), ..uplink(1) };
    store.keep_uplinks(vec![uplink(1), other.clone()]).await.unwrap();
    store.keep_uplinks(vec![other]).await.unwrap();
    assert_eq!(store.uplinks_after(&demo(), Env::Live, None, None, 9).await.unwrap(), [uplink(1)]);
    assert_eq!(store.uplinks_after(&demo_2(), Env::Live, None, None, 9).await.unwrap(), []);
}

/// Not of their ids: whoever reads on from the last one misses nothing that was kept later.
pub async fn they_come_in_the_order_they_were_kept(place: &mut dyn Place) {
    let store = place.open().await;
    store.keep_uplinks(vec![uplink(5), uplink(7)]).await.unwrap();
    assert_eq!(store.uplinks_after(&demo(), Env::Live, None, None, 9).await.unwrap(), [uplink(5), uplink(7)]);
    store.keep_uplinks(vec![uplink(2), uplink(6), uplink(9)]).await.unwrap();
    let next = store.uplinks_after(&demo(), Env::Live, None, Some(uplink(7).id), 2).await.unwrap();
    assert_eq!(next, [uplink(2), uplink(6)]);
    let next = store.uplinks_after(&demo(), Env::Live, None, Some(uplink(6).id), 2).await.unwrap();
    assert_eq!(next, [uplink(9)]);
    assert_eq!(store.uplinks_after(&demo(), Env::Live, None, Some(uplink(9).id), 2).await.unwrap(), []);
}

/// Its pages may go on from an uplink of any type.
pub async fn one_type_can_be_had_alone(place: &mut dyn Place) {
    let store = place.open().await;
    let pong = |n| Uplink { kind: "pong".into(), ..uplink(n) };
    store.keep_uplinks(vec![uplink(1), pong(2), uplink(3), pong(4), pong(5)]).await.unwrap();
    assert_eq!(store.uplinks_after(&demo(), Env::Live, Some("pong"), None, 2).await.unwrap(), [pong(2), pong(4)]);
    let next = store.uplinks_after(&demo(), Env::Live, Some("pong"), Some(uplink(3).id), 9).await.unwrap();
    assert_eq!(next, [pong(4), pong(5)]);
    assert_eq!(store.uplinks_after(&demo(), Env::Live, Some("po"), None, 9).await.unwrap(), []);
}

/// Neither is seen from the other, nor gone on from.
pub async fn environments_do_not_share_uplinks(place: &mut dyn Place) {
    let store = place.open().await;
    let test = |n| Uplink { env: Env::Test, ..uplink(n) };
    store.keep_uplinks(vec![uplink(1), test(2), uplink(3), test(4)]).await.unwrap();
    for (env, expected) in [(Env::Live, [uplink(1), uplink(3)]), (Env::Test, [test(2), test(4)])] {
        for kind in [None, Some("ping")] {
            assert_eq!(store.uplinks_after(&demo(), env, kind, None, 9).await.unwrap(), expected);
            assert_eq!(store.uplinks_after(&demo(), env, kind, Some(expected[0].id), 9).await.unwrap(), expected[1..]);
        }
    }
    assert_eq!(store.uplinks_after(&demo(), Env::Test, None, Some(uplink(3).id), 9).await.unwrap(), [test(2), test(4)]);
}

/// Rather twice than not at all.
pub async fn an_unknown_last_one_means_from_the_oldest(place: &mut dyn Place) {
    let store = place.open().await;
    store.keep_uplinks(vec![uplink(1), uplink(2)]).await.unwrap();
    let all = store.uplinks_after(&demo(), Env::Live, None, Some(uplink(9).id), 9).await.unwrap();
    assert_eq!(all, [uplink(1), uplink(2)]);
}

/// They are durable when the call returns.
pub async fn uplinks_outlive_a_restart(place: &mut dyn Place) {
    let store = place.open().await;
    store.keep_uplinks(vec![uplink(1)]).await.unwrap();
    drop(store);
    let store = place.open().await;
    store.keep_uplinks(vec![uplink(2)]).await.unwrap();
    assert_eq!(store.uplinks_after(&demo(), Env::Live, None, Some(uplink(1).id), 9).await.unwrap(), [uplink(2)]);
}
