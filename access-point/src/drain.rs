//! Moves devices to other access points: all of them before this one stops or is worked on, or a part because another
//! has more room. They are told to go at a rate, so that the others can take them in; what they had not acked goes on
//! where their cursor says; and it is told how many came elsewhere, how long they were nowhere, and that nothing is missing.

mod watch;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use model::{Drain, DrainState, Endpoint, Node, Timestamp, drain::ALL_PERMILLE};
use parking_lot::Mutex;
use tokio::{
    sync::watch as channel,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, info};

use crate::{Site, close::Close, registry::Handle};

pub(crate) use watch::Evicted;
use watch::Watch;

/// Devices are told to go this often, some at a time: a timer for each would cost more than the telling.
const TICK: Duration = Duration::from_millis(20);

/// How often it is looked where they have come to, and which access points there are.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Looks after the last device was told, without another one leaving, after which all have left.
const QUIET_LOOKS: u32 = 2;

/// How long devices that are told to go are waited for: most clients come back within seconds; the rest is asleep.
const WATCH_MAX: Duration = Duration::from_secs(15);

/// Access points that a device is told of.
const ELSEWHERE_MAX: usize = 4;

/// An order to move devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    /// Names it: of two orders the later counts.
    pub(crate) ordered_at: Timestamp,
    pub(crate) rate_per_s: u32,
    /// The part of the devices that is to go.
    pub(crate) permille: u16,
}

impl Order {
    fn begun(self, sessions: usize) -> Drain {
        Drain {
            ordered_at: self.ordered_at,
            rate_per_s: self.rate_per_s,
            permille: self.permille,
            state: DrainState::Draining,
            sessions: sessions as u64,
            evicted: 0,
            moved: 0,
            unacked: 0,
            lost: 0,
            longest_gap_ms: 0,
        }
    }
}

/// The order that counts and what has come of it.
pub(crate) struct Drains {
    orders: channel::Sender<Option<Order>>,
    told: channel::Sender<Option<Drain>>,
    /// Whether newcomers are sent away.
    closed: AtomicBool,
    /// Sessions that have ended since the last look; no more than there are connections.
    evicted: Mutex<Vec<Evicted>>,
}

impl Default for Drains {
    fn default() -> Self {
        let (orders, told) = (channel::Sender::new(None), channel::Sender::new(None));
        Self { orders, told, closed: AtomicBool::new(false), evicted: Mutex::default() }
    }
}

impl Drains {
    /// Carries an order out, instead of an earlier one; one that is known, or older, changes nothing.
    pub(crate) fn order(&self, order: Order) {
        let is_new = |told: &Option<Drain>| told.as_ref().is_none_or(|told| told.ordered_at < order.ordered_at);
        if self.told.send_if_modified(|told| is_new(told) && told.replace(order.begun(0)) != *told) {
            self.orders.send_replace(Some(order));
        }
    }

    /// Lets devices stay and come in again.
    pub(crate) fn revoke(&self) {
        self.orders.send_replace(None);
        self.closed.store(false, Ordering::Release);
        self.told.send_if_modified(|told| {
            told.as_mut().is_some_and(|told| std::mem::replace(&mut told.state, DrainState::Revoked) != told.state)
        });
    }

    /// Whether newcomers are sent away.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// What has come of the last order.
    pub(crate) fn told(&self) -> Option<Drain> {
        self.told.borrow().clone()
    }

    /// A session that is to go has ended, and its device is told now.
    pub(crate) fn note(&self, evicted: Evicted, now: Timestamp) {
        self.evicted.lock().push(evicted.told(now));
    }
}

/// Carries orders out for ever.
pub(crate) async fn follow(site: Arc<Site>) {
    let mut orders = site.drains.orders.subscribe();
    loop {
        let order = *orders.borrow_and_update();
        let carried_out = async {
            match order {
                Some(order) => Move::begin(&site, order).await.carry_out().await,
                // An order may have begun just when it was revoked.
                None => site.drains.closed.store(false, Ordering::Release),
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = carried_out => {}
            changed = orders.changed() => if changed.is_err() { return },
        }
    }
}

/// Returns when this access point should take no connection any more: a while after `shutdown`, for whoever sends devices
/// here must first learn that it stops. When there is no other access point, nobody would be sent elsewhere: at once.
pub(crate) async fn announced(site: &Site, shutdown: impl Future<Output = ()>) {
    shutdown.await;
    if elsewhere(site).await.is_empty() {
        return;
    }
    let order = Order { ordered_at: site.deps.clock.now(), rate_per_s: 0, permille: ALL_PERMILLE };
    site.drains.told.send_replace(Some(order.begun(sessions(site).len())));
    sleep(site.config.drain.wait).await;
}

/// Moves every device before the access point stops, as fast as the time it has demands, if there is somewhere to go.
pub(crate) async fn leave(site: &Site) {
    let count = sessions(site).len();
    if count == 0 || elsewhere(site).await.is_empty() {
        return;
    }
    let within = site.config.drain.within;
    let needed = (count as f64 / within.as_secs_f64().max(1.0)).ceil() as u32;
    let rate_per_s = site.config.drain.per_s.get().max(needed);
    site.drains.order(Order { ordered_at: site.deps.clock.now(), rate_per_s, permille: ALL_PERMILLE });
    let mut told = site.drains.told.subscribe();
    let done = told.wait_for(|told| told.as_ref().is_some_and(|told| told.state == DrainState::Done));
    let _ = timeout(within, done).await;
}

/// An order that is being carried out.
struct Move<'a> {
    site: &'a Site,
    order: Order,
    begun: Instant,
    chosen: Vec<Arc<Handle>>,
    /// Lists of where to go, each with another access point first.
    directions: Vec<Arc<[Endpoint]>>,
    watch: Watch,
    report: Drain,
}

impl<'a> Move<'a> {
    async fn begin(site: &'a Site, order: Order) -> Self {
        let mut chosen = sessions(site);
        let part = (chosen.len() * usize::from(order.permille)).div_ceil(usize::from(ALL_PERMILLE));
        chosen.truncate(part);
        let report = order.begun(chosen.len());
        site.drains.closed.store(report.closes(), Ordering::Release);
        info!(devices = chosen.len(), rate_per_s = order.rate_per_s, permille = order.permille, "moving devices away");
        let watch = Watch::new(site.config.node.clone());
        let directions = directions(&destinations(site, &report).await);
        Self { site, order, begun: Instant::now(), chosen, directions, watch, report }
    }

    async fn carry_out(mut self) {
        let (mut look_at, mut quiet, mut give_up_at) = (self.begun, 0, None);
        loop {
            sleep(TICK).await;
            self.evict();
            if Instant::now() < look_at {
                continue;
            }
            look_at = Instant::now() + LOOK_EVERY;
            let news = self.look().await;
            if self.report.closes() && self.chosen.is_empty() {
                self.choose_late_ones();
            }
            quiet = if news || !self.chosen.is_empty() { 0 } else { quiet + 1 };
            if self.chosen.is_empty() {
                self.report.state = DrainState::Watching;
                let late = Instant::now() >= *give_up_at.get_or_insert(Instant::now() + WATCH_MAX);
                if late || (quiet >= QUIET_LOOKS && self.watch.is_over()) {
                    break;
                }
            }
            self.tell();
        }
        self.report.state = DrainState::Done;
        self.tell();
        let Drain { evicted, moved, unacked, lost, longest_gap_ms, .. } = self.report;
        info!(evicted, moved, unacked, lost, longest_gap_ms, "devices were moved away");
    }

    /// Tells as many devices to go as are due.
    fn evict(&mut self) {
        let due = f64::from(self.order.rate_per_s) * self.begun.elapsed().as_secs_f64();
        while (self.report.evicted as f64) < due
            && let Some(session) = self.chosen.pop()
        {
            let turn = usize::try_from(self.report.evicted).unwrap_or(0).checked_rem(self.directions.len());
            let direction = turn.map_or_else(|| [].into(), |turn| self.directions[turn].clone());
            session.close(Close::Moving(direction));
            self.report.evicted += 1;
        }
    }

    /// Devices that came in at the last moment.
    fn choose_late_ones(&mut self) {
        self.chosen = sessions(self.site);
        self.chosen.retain(|session| !session.is_leaving());
        self.report.sessions += self.chosen.len() as u64;
    }

    /// Looks where devices have come to; true when more of them have left since the last time.
    async fn look(&mut self) -> bool {
        let left = std::mem::take(&mut *self.site.drains.evicted.lock());
        let news = !left.is_empty();
        self.watch.add(left);
        let store = &*self.site.deps.store;
        if let Err(error) = self.watch.look(store, self.site.deps.clock.now()).await {
            debug!(%error, "cannot look where devices have come to; later");
        }
        self.directions = directions(&destinations(self.site, &self.report).await);
        news
    }

    fn tell(&mut self) {
        self.watch.write(&mut self.report);
        let report = self.report.clone();
        self.site.drains.told.send_modify(|told| {
            if told.as_ref().is_none_or(|told| told.ordered_at <= report.ordered_at) {
                *told = Some(report);
            }
        });
    }
}

fn sessions(site: &Site) -> Vec<Arc<Handle>> {
    site.registry.apps().iter().flat_map(|app| site.registry.sessions(app)).collect()
}

/// Where devices may go, the least loaded first; nowhere when the store does not say.
async fn elsewhere(site: &Site) -> Vec<Endpoint> {
    let nodes = site.deps.store.nodes(site.deps.clock.now()).await.unwrap_or_default();
    let others = nodes.iter().filter(|node| node.id != site.config.node);
    let mut open: Vec<_> = others.filter_map(Node::open_endpoint).collect();
    open.sort_by(|a, b| a.load().total_cmp(&b.load()));
    open.into_iter().take(ELSEWHERE_MAX).cloned().collect()
}

/// Where devices are sent. A part of them goes only where there is more room than here, while there is such a place: anywhere
/// else it would be too many again, and come back.
async fn destinations(site: &Site, order: &Drain) -> Vec<Endpoint> {
    let mut elsewhere = elsewhere(site).await;
    let here = site.endpoint().load();
    if !order.closes() && elsewhere.first().is_some_and(|coolest| coolest.load() < here) {
        elsewhere.retain(|at| at.load() < here);
    }
    elsewhere
}

fn directions(elsewhere: &[Endpoint]) -> Vec<Arc<[Endpoint]>> {
    let beginning_with = |first| {
        let mut list = elsewhere.to_vec();
        list.rotate_left(first);
        list.into()
    };
    (0..elsewhere.len()).map(beginning_with).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(at: u64, permille: u16) -> Order {
        Order { ordered_at: Timestamp::from_millis(at), rate_per_s: 10, permille }
    }

    #[test]
    fn of_two_orders_the_later_counts_however_often_the_earlier_is_heard() {
        let drains = Drains::default();
        drains.order(order(2, 300));
        drains.order(order(1, 1_000));
        drains.order(order(2, 1_000));
        assert_eq!((*drains.orders.borrow(), drains.told().unwrap().permille), (Some(order(2, 300)), 300));
        drains.revoke();
        assert_eq!((*drains.orders.borrow(), drains.told().unwrap().state), (None, DrainState::Revoked));
        drains.order(order(2, 300));
        assert_eq!(*drains.orders.borrow(), None, "an order that was taken back stays so");
        drains.order(order(3, 1_000));
        assert_eq!(*drains.orders.borrow(), Some(order(3, 1_000)));
    }

    #[test]
    fn every_access_point_is_somebodys_first_choice() {
        let at =
            |address: &str| Endpoint { address: address.into(), tls_address: None, connections: 0, connections_max: 1 };
        let directions = directions(&["a:1", "b:1", "c:1"].map(at));
        let firsts: Vec<_> = directions.iter().map(|list| list[0].address.as_str()).collect();
        assert_eq!(firsts, ["a:1", "b:1", "c:1"]);
        assert!(directions.iter().all(|list| list.len() == 3));
    }
}
