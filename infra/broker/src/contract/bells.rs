//! Promises about bells: at most once, never waiting.

use bytes::Bytes;
use model::{Lane, NodeId};
use tokio::time::{Instant, timeout};

use super::{DEADLINE, Fixture, GLANCE};
use crate::{Bells, Ring};

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

async fn heard(bells: &mut Bells) -> Option<Bytes> {
    timeout(DEADLINE, bells.heard()).await.expect("a bell must be heard")
}

/// One access point hears what is rung for it, all hear what is rung for all, and no lane hears another's.
pub async fn bells_reach_one_or_all_of_a_lane(fixture: &mut impl Fixture) {
    let broker = fixture.open().await;
    let mut one = broker.listen(&node("one"), Lane::Unicast).await.unwrap();
    let mut two = broker.listen(&node("two"), Lane::Unicast).await.unwrap();
    let mut other_lane = broker.listen(&node("one"), Lane::Broadcast).await.unwrap();
    broker.ring(Lane::Unicast, &Ring::One(node("one")), Bytes::from("for one"));
    broker.ring(Lane::Unicast, &Ring::One(node("nobody")), Bytes::from("for nobody"));
    broker.ring(Lane::Unicast, &Ring::All, Bytes::from("for all"));
    assert_eq!(heard(&mut one).await.unwrap(), "for one");
    assert_eq!(heard(&mut one).await.unwrap(), "for all");
    assert_eq!(heard(&mut two).await.unwrap(), "for all");
    assert!(timeout(GLANCE, other_lane.heard()).await.is_err());
}

/// A listener that does not listen costs bounded memory and holds up nobody; later it hears again.
pub async fn bells_are_dropped_when_nobody_takes_them_and_never_block(fixture: &mut impl Fixture) {
    const RUNG: usize = 100_000;
    let broker = fixture.open().await;
    let mut slow = broker.listen(&node("slow"), Lane::Unicast).await.unwrap();
    for _ in 0..RUNG {
        broker.ring(Lane::Unicast, &Ring::All, Bytes::from("early"));
    }
    let mut early = 0;
    while timeout(GLANCE, slow.heard()).await.is_ok() {
        early += 1;
    }
    assert!((1..RUNG).contains(&early), "{early} of {RUNG} bells waited");
    broker.ring(Lane::Unicast, &Ring::All, Bytes::from("late"));
    assert_eq!(heard(&mut slow).await.unwrap(), "late");
}

/// Who listens is told where bells may have been rung that it did not hear: before it began, and when too many waited.
pub async fn gaps_are_told(fixture: &mut impl Fixture) {
    const ROUND: usize = 2_000;
    let broker = fixture.open().await;
    let mut bells = broker.listen(&node("one"), Lane::Unicast).await.unwrap();
    let gaps = bells.gaps();
    timeout(DEADLINE, gaps.next()).await.expect("listening begins with a gap");
    broker.ring(Lane::Unicast, &Ring::All, Bytes::from("early"));
    assert_eq!(heard(&mut bells).await.unwrap(), "early");
    assert!(timeout(GLANCE, gaps.next()).await.is_err(), "nothing was missed");
    let deadline = Instant::now() + DEADLINE;
    while timeout(GLANCE, gaps.next()).await.is_err() {
        assert!(Instant::now() < deadline, "nothing is told of bells that there was no room for");
        (0..ROUND).for_each(|_| broker.ring(Lane::Unicast, &Ring::All, Bytes::from("many")));
    }
}

/// Of two listeners in the same place the newer hears; the older hears that it is over.
pub async fn a_second_listener_replaces_the_first(fixture: &mut impl Fixture) {
    let broker = fixture.open().await;
    let mut old = broker.listen(&node("one"), Lane::Unicast).await.unwrap();
    let mut new = broker.listen(&node("one"), Lane::Unicast).await.unwrap();
    assert_eq!(heard(&mut old).await, None);
    broker.ring(Lane::Unicast, &Ring::One(node("one")), Bytes::from("ring"));
    assert_eq!(heard(&mut new).await.unwrap(), "ring");
}
