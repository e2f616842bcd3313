//! What is left to do once a session is over and all it knew is told: its last words, its socket, its route. A device that
//! is there to hear is told at once. Where nobody is, the socket is closed in its turn, so many a second: of a crowd that is
//! cut off in one moment, those who stay should not notice.

use std::{collections::VecDeque, num::NonZeroU32, sync::Arc, time::Duration};

use futures_util::future::join_all;
use mqtt::Packet;
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{Site, drain::Evicted, link::Link, listen::Place, pace::each_round, registry::Handle};

/// How long a device that is to go elsewhere waits for its cursor to be kept: several times as long as that usually takes.
const HANDOVER_MAX: Duration = Duration::from_secs(1);

/// Between two rounds. The routes of one round are given up in one call.
const ROUND: Duration = Duration::from_millis(2);

/// Sockets closed for each connection that may be let in: newcomers hold a place while they wait for their turn, so places
/// must come free several times as fast as turns.
const CLOSED_EACH: u32 = 4;

/// A connection that is over.
pub(crate) struct Parting {
    pub(crate) link: Link,
    /// What there is to say to the device.
    pub(crate) last: Vec<Packet>,
    /// Its route, unless that is another session's now.
    pub(crate) route: Option<Arc<Handle>>,
    /// What is known of a device that is to go elsewhere.
    pub(crate) evicted: Option<Evicted>,
    pub(crate) place: Place,
}

/// Connections that are over and wait for their round; each has its place, so no more than may be open.
pub(crate) struct Partings(Rounds<Parting>);

impl Partings {
    /// For an access point that lets in so many a second; absent: any number, and as many go at once.
    pub(crate) fn new(connects_per_s: Option<NonZeroU32>) -> Self {
        let each = |per_s: NonZeroU32| each_round(per_s.get().saturating_mul(CLOSED_EACH), ROUND);
        Self(Rounds::new(connects_per_s.map_or(usize::MAX, each)))
    }
}

/// Parts from a connection: now if the device is there to hear it, else in its turn.
pub(crate) fn part(site: &Arc<Site>, parting: Parting) {
    let now = if parting.last.is_empty() { site.partings.0.put(parting) } else { Some(parting) };
    if let Some(parting) = now {
        let site = site.clone();
        tokio::spawn(async move { say_goodbye(&site, parting).await });
    }
}

/// Parts from those who wait, round by round, until the access point stops; then from all who are left.
pub(crate) async fn run(site: Arc<Site>) {
    while let Some(some) = site.partings.0.next(&site.shutdown).await {
        let round = site.clone();
        tokio::spawn(async move { join_all(some.into_iter().map(|parting| say_goodbye(&round, parting))).await });
        let _ = site.shutdown.run_until_cancelled(sleep(ROUND)).await;
    }
}

/// Says the last words to a device and gives its route up. One that is to go elsewhere hears them when its cursor is where it
/// will be looked for: else it would be sent again what it has acked.
async fn say_goodbye(site: &Site, parting: Parting) {
    let Parting { link, last, route, evicted, place } = parting;
    if let (Some(evicted), Some(handle)) = (evicted, &route) {
        let _ = timeout(HANDOVER_MAX, site.outbox.kept(&handle.app, handle.ordinal)).await;
        site.drains.note(evicted, site.deps.clock.now());
    }
    link.close(&last).await;
    if let Some(route) = route
        && let Err(error) = site.deps.store.release(&route.app, route.ordinal, route.epoch).await
    {
        let (app, device) = (&route.app, route.ordinal.0);
        debug!(%app, device.ordinal = device, %error, "a route stays behind; nobody trusts it");
    }
    drop(place);
}

struct State<T> {
    waiting: VecDeque<T>,
    /// Whether the last round has been.
    over: bool,
}

/// Whoever waits for a round, first come first served, and so many in each.
struct Rounds<T> {
    each: usize,
    state: Mutex<State<T>>,
    filled: Notify,
}

impl<T> Rounds<T> {
    fn new(each: usize) -> Self {
        Self { each, state: Mutex::new(State { waiting: VecDeque::new(), over: false }), filled: Notify::new() }
    }

    /// Has somebody wait; given back when no round comes any more.
    fn put(&self, one: T) -> Option<T> {
        let mut state = self.state.lock();
        if state.over {
            return Some(one);
        }
        state.waiting.push_back(one);
        drop(state);
        self.filled.notify_one();
        None
    }

    /// The next round, as soon as somebody waits for it. When `over`, that of all who are left, and none after it.
    async fn next(&self, over: &CancellationToken) -> Option<VecDeque<T>> {
        loop {
            let is_last = over.is_cancelled();
            let some = self.round(is_last);
            if is_last || !some.is_empty() {
                return (!some.is_empty()).then_some(some);
            }
            let _ = over.run_until_cancelled(self.filled.notified()).await;
        }
    }

    fn round(&self, is_last: bool) -> VecDeque<T> {
        let mut state = self.state.lock();
        state.over |= is_last;
        if is_last || state.waiting.len() <= self.each {
            return std::mem::take(&mut state.waiting);
        }
        state.waiting.drain(..self.each).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_crowd_goes_in_rounds_and_in_order() {
        let (rounds, over) = (Rounds::new(40), CancellationToken::new());
        (0..100).for_each(|one| assert_eq!(rounds.put(one), None));
        let mut went = Vec::new();
        for expected in [40, 40, 20] {
            let some = rounds.next(&over).await.unwrap();
            assert_eq!(some.len(), expected);
            went.extend(some);
        }
        assert!(went.into_iter().eq(0..100), "who came first goes first, and nobody is left");
    }

    #[tokio::test]
    async fn whoever_comes_alone_goes_at_once() {
        let (rounds, over) = (Arc::new(Rounds::new(1)), CancellationToken::new());
        let waiting = tokio::spawn({
            let rounds = rounds.clone();
            async move { rounds.next(&over).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(rounds.put(7), None);
        assert_eq!(waiting.await.unwrap().unwrap(), [7]);
    }

    #[tokio::test]
    async fn in_the_end_all_who_are_left_go_and_nobody_waits_any_more() {
        let (rounds, over) = (Rounds::new(10), CancellationToken::new());
        (0..100).for_each(|one| assert_eq!(rounds.put(one), None));
        assert_eq!(rounds.next(&over).await.unwrap().len(), 10);
        over.cancel();
        assert_eq!(rounds.next(&over).await.unwrap().len(), 90);
        assert_eq!(rounds.next(&over).await, None);
        assert_eq!(rounds.put(7), Some(7), "it goes at once");
    }

    #[test]
    fn sockets_are_closed_faster_than_others_are_opened_and_never_not() {
        let each = |per_s| Partings::new(NonZeroU32::new(per_s)).0.each;
        assert_eq!((each(1_000), each(1), each(0)), (8, 1, usize::MAX));
    }
}
