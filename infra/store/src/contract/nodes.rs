//! What [`Nodes`](crate::Nodes) promises.

use std::time::Duration;

use model::{Endpoint, Node, Run, Tier, Timestamp};

use super::{NOW, Place, later, name};
use crate::{
    Error,
    nodes::{ALL_HEARD, NODE_LEASE},
};

const A_MOMENT: Duration = Duration::from_millis(1);

fn node(id: &str, boot: Timestamp, seen_at: Timestamp) -> Node {
    Node {
        id: name(id),
        boot,
        tiers: vec![Tier::Ingest, Tier::AccessPoint],
        endpoint: Some(Endpoint {
            address: "push.example:1883".into(),
            tls_address: Some("push.example:8883".into()),
            connections: 7,
            connections_max: 9,
        }),
        filter: Some("filter.example:8090".into()),
        version: "1.2.3".into(),
        seen_at,
        drain: None,
    }
}

/// By name, and with all that it said last.
pub async fn a_node_runs_until_its_lease_ends(place: &mut dyn Place) {
    let store = place.open().await;
    let (b, a) = (node("b", NOW, NOW), node("a", NOW, later(5_000)));
    assert!(store.beat(b.clone()).await.unwrap());
    assert!(store.beat(node("a", NOW, NOW)).await.unwrap());
    assert!(store.beat(a.clone()).await.unwrap());
    assert_eq!(store.nodes(later(5_000)).await.unwrap(), [a.clone(), b.clone()]);
    assert_eq!(store.nodes(NOW + NODE_LEASE - A_MOMENT).await.unwrap(), [a.clone(), b]);
    assert_eq!(store.nodes(NOW + NODE_LEASE).await.unwrap(), [a]);
    assert_eq!(store.nodes(later(5_000) + NODE_LEASE).await.unwrap(), []);
}

/// Two processes were given one name: the one that started last goes on.
pub async fn the_later_run_of_a_name_counts(place: &mut dyn Place) {
    let store = place.open().await;
    let (old, new) = (node("a", NOW, later(10)), node("a", later(5), later(10)));
    assert!(store.beat(old.clone()).await.unwrap());
    assert!(store.beat(new.clone()).await.unwrap());
    assert!(!store.beat(old.clone()).await.unwrap());
    assert_eq!(store.nodes(later(10)).await.unwrap(), [new]);
    let after = Node { seen_at: later(10) + NODE_LEASE, ..old };
    assert!(store.beat(after.clone()).await.unwrap(), "a lease that is over stands in nobody's way");
    assert_eq!(store.nodes(after.seen_at).await.unwrap(), [after]);
}

/// And cannot take a later run along.
pub async fn a_node_that_departs_is_gone_at_once(place: &mut dyn Place) {
    let store = place.open().await;
    let (old, new) = (node("a", NOW, NOW), node("a", later(5), later(5)));
    store.beat(old.clone()).await.unwrap();
    store.depart(&old.id, old.boot).await.unwrap();
    assert_eq!(store.nodes(NOW).await.unwrap(), []);
    store.beat(new.clone()).await.unwrap();
    store.depart(&old.id, old.boot).await.unwrap();
    assert_eq!(store.nodes(later(5)).await.unwrap(), [new]);
}

/// At first, and when nobody was heard for so long that leases may have ended: who is missing need not be over.
pub async fn runs_are_unknown_until_every_node_has_had_time_to_be_heard(place: &mut dyn Place) {
    let store = place.open().await;
    let beat = async |id: &str, at| assert!(store.beat(node(id, NOW, at)).await.unwrap());
    let unknown = async |at| {
        let runs = store.runs(at).await;
        assert!(matches!(runs, Err(Error::Unavailable(_))), "{runs:?}");
    };
    let run = |id: &str| Run { node: name(id), boot: NOW };
    unknown(NOW).await;
    beat("a", NOW).await;
    unknown(NOW + ALL_HEARD - A_MOMENT).await;
    beat("a", NOW + ALL_HEARD).await;
    assert_eq!(store.runs(NOW + ALL_HEARD).await.unwrap(), [run("a")]);
    let back = NOW + ALL_HEARD + NODE_LEASE;
    unknown(back).await;
    beat("b", back).await;
    unknown(back).await;
    beat("a", back + ALL_HEARD - A_MOMENT).await;
    unknown(back + ALL_HEARD - A_MOMENT).await;
    assert_eq!(store.runs(back + ALL_HEARD).await.unwrap(), [run("a"), run("b")]);
}

/// Until it lets the lease end.
pub async fn a_duty_has_one_holder(place: &mut dyn Place) {
    let store = place.open().await;
    let (a, b, lease) = (name("a"), name("b"), Duration::from_secs(5));
    assert!(store.hold("clean", &a, NOW, lease).await.unwrap());
    assert!(!store.hold("clean", &b, later(4_999), lease).await.unwrap());
    assert!(store.hold("other", &b, NOW, lease).await.unwrap());
    assert!(store.hold("clean", &a, later(4_000), lease).await.unwrap());
    assert!(!store.hold("clean", &b, later(8_999), lease).await.unwrap());
    assert!(store.hold("clean", &b, later(9_000), lease).await.unwrap());
    assert!(!store.hold("clean", &a, later(9_001), lease).await.unwrap());
}
