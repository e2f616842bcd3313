//! Keeps a storm of newcomers away from those who are in: turns at a rate, so many connections an address, and answers
//! that come later the fuller it is here. Nobody is refused for what will pass: clients that are may never come back. They
//! wait, or find their link closed.

use std::{
    net::IpAddr,
    num::{NonZero, NonZeroU32, NonZeroUsize},
    sync::Arc,
    thread::available_parallelism,
};

use model::{AppId, DeviceId, Endpoint, NodeId, node::ANSWER_DELAY_MAX};
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::warn;

use crate::{
    address::{Addresses, Share},
    auth::Refused,
    flap::{Flaps, Party},
    line::{Line, until},
    metrics::Metrics,
    pace::Pace,
};

/// Connections let in a second for each core, when nobody says: a fraction of what it could, for those who are in need it
/// as well, and 30,000 devices on two cores are back within a minute.
const CONNECTS_PER_S_EACH_CORE: u32 = 250;

/// Connections taken for each that may be let in, so that a queue can form here and its end is told at once; beyond that they
/// wait in the system's own queue. Taking one, and closing it again, costs those who are in something as well.
const TAKEN_EACH: u32 = 4;

/// So many a second are always taken: they are no burden.
const TAKEN_MIN: u32 = 1_000;

/// Connections let in a second on this machine, when nobody says.
pub(crate) fn connects_per_s() -> Option<NonZeroU32> {
    let cores = u32::try_from(available_parallelism().map_or(1, NonZero::get)).unwrap_or(u32::MAX);
    NonZeroU32::new(CONNECTS_PER_S_EACH_CORE.saturating_mul(cores))
}

/// What newcomers have to wait for.
pub(crate) struct Calm {
    taking: Option<Mutex<Pace>>,
    line: Option<Line>,
    addresses: Option<Arc<Addresses>>,
    flaps: Mutex<Flaps>,
    metrics: Metrics,
}

/// A newcomer, from the moment its connection was taken.
#[derive(Debug)]
pub(crate) struct Newcomer {
    came_at: Instant,
    /// To be kept for as long as the connection lasts.
    pub(crate) share: Option<Box<Share>>,
}

impl Calm {
    /// So many newcomers a second and so many connections of one address; absent: any number.
    pub(crate) fn new(per_s: Option<NonZeroU32>, per_address: Option<NonZeroUsize>, metrics: Metrics) -> Self {
        let taken = per_s.and_then(|per_s| NonZeroU32::new(per_s.get().saturating_mul(TAKEN_EACH).max(TAKEN_MIN)));
        Self {
            taking: taken.map(|per_s| Mutex::new(Pace::new(per_s, Instant::now()))),
            line: per_s.map(|per_s| Line::new(per_s, metrics.in_line.clone())),
            addresses: per_address.map(Addresses::new),
            flaps: Mutex::default(),
            metrics,
        }
    }

    /// Waits until another connection may be taken from the system, whoever it is from.
    pub(crate) async fn taking(&self) {
        let Some(taking) = &self.taking else { return };
        let now = Instant::now();
        let wait = taking.lock().turn(now);
        until(now, wait).await;
    }

    /// Waits for the turn of whoever comes from this address, for as long as it is `wanted`; nothing is read and nothing is
    /// computed for it before.
    pub(crate) async fn turn(
        &self,
        address: IpAddr,
        wanted: impl Fn() -> Result<(), Refused>,
    ) -> Result<Newcomer, Refused> {
        let came_at = Instant::now();
        let share = match &self.addresses {
            Some(addresses) => Some(Box::new(addresses.share(address).ok_or(Refused::ForNow("address"))?)),
            None => None,
        };
        match &self.line {
            Some(line) => line.turn(wanted).await?,
            None => wanted()?,
        }
        Ok(Newcomer { came_at, share })
    }

    /// Waits before a device is answered: longer the fuller the access point is, and when somebody else uses its id. All
    /// in all no longer than clients wait.
    pub(crate) async fn hesitate(&self, newcomer: &Newcomer, here: &Endpoint, app: &AppId, device: &DeviceId) {
        let now = Instant::now();
        let flapping = self.flaps.lock().delay(app, device, now);
        let wait = flapping.max(here.delay()).min(ANSWER_DELAY_MAX.saturating_sub(now - newcomer.came_at));
        until(now, wait).await;
        self.metrics.answer_delay.observe(newcomer.came_at.elapsed().as_secs_f64());
    }

    /// A device has taken its session over from an older connection, here or at another access point.
    pub(crate) fn taken_over(&self, app: &AppId, device: &DeviceId, by: IpAddr, from: Option<&NodeId>) {
        let elsewhere = from.map(|node| Party::Elsewhere(node.clone()));
        let parties = [Party::Address(by)].into_iter().chain(elsewhere).collect();
        if self.flaps.lock().note(app, device, parties, Instant::now()) {
            self.metrics.id_conflicts.inc();
            warn!(%app, device.id = %device, alarm = "device_id_conflict", "two terminals use one device id");
        }
    }
}
