//! What is seen of devices here: who comes, from where, and who goes. Gathered for a moment and told to the filter in
//! batches, some at a time, so that a storm of devices is noted after it rather than in it. Best effort: what is lost with this process is told by
//! the next sessions of its devices.

use std::{
    collections::{HashMap, VecDeque},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use broker::Publication;
use model::{
    AppId, DeviceId, Epoch, Ordinal, Queue, Reported, Run, Seen, Sighting, Timestamp, record::Record as _,
    seen::ip_prefix,
};
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{Site, connection::Peer, entry::Origin, pace::each_round};

/// How long sightings are gathered: a device that comes and goes in this time is one of them.
const GATHER: Duration = Duration::from_secs(1);

/// Pause between two publications, when more wait: after a storm there is something to tell of every device, and the store
/// is also where unicasts wait to be appended.
const PAUSE: Duration = Duration::from_millis(50);

/// Devices told at once where any number is let in.
const TOLD_MAX: usize = 250;

/// Devices that wait to be told; beyond it those that come later are not, until they come again. More than an access
/// point holds, many times.
const WAITING_MAX: usize = 200_000;

/// The latest that was seen of a device.
#[derive(Clone, Debug)]
struct Latest {
    device: DeviceId,
    epoch: Epoch,
    over: bool,
    at: Timestamp,
    origin: Origin,
}

impl Latest {
    fn is_after(&self, other: &Self) -> bool {
        (self.epoch, self.over) >= (other.epoch, other.over)
    }
}

type Who = (AppId, Ordinal);

/// The latest of each device, and in which order they are to be told.
#[derive(Debug, Default)]
struct Waiting {
    latest: HashMap<Who, Latest>,
    turns: VecDeque<Who>,
}

impl Waiting {
    /// Has a device wait, in the turn that it has already if it has one; false when too many do.
    fn add(&mut self, who: Who, latest: Latest) -> bool {
        match self.latest.get_mut(&who) {
            Some(known) if latest.is_after(known) => *known = latest,
            Some(_) => {}
            None if self.turns.len() >= WAITING_MAX => return false,
            None => {
                self.turns.push_back(who.clone());
                self.latest.insert(who, latest);
            }
        }
        true
    }

    /// Whose turn it is, of so many at most.
    fn take(&mut self, most: usize) -> Vec<(Who, Latest)> {
        let some = self.turns.len().min(most);
        let of = |who| self.latest.remove(&who).map(|latest| (who, latest));
        let taken = self.turns.drain(..some).filter_map(of).collect();
        if self.turns.is_empty() {
            // What a storm has filled is not kept for the next one.
            *self = Self::default();
        }
        taken
    }
}

/// What is yet to be told.
#[derive(Debug)]
pub(crate) struct Sightings {
    waiting: Mutex<Waiting>,
    /// Devices told at once.
    each: usize,
    /// This run of the access point, once it has said that it runs.
    run: Mutex<Option<Run>>,
    lost: Counter,
}

impl Sightings {
    /// For an access point that lets in so many a second: of as many it is told, so whoever is cut off and soon back is
    /// told of once. `lost` counts what is never told.
    pub(crate) fn new(connects_per_s: Option<NonZeroU32>, lost: Counter) -> Self {
        let each = connects_per_s.map_or(TOLD_MAX, |per_s| each_round(per_s.get(), PAUSE));
        Self { waiting: Mutex::default(), each, run: Mutex::default(), lost }
    }

    /// Notes that a device's session began, or is `over`.
    pub(crate) fn note(&self, peer: &Peer, epoch: Epoch, over: bool, at: Timestamp) {
        let latest = Latest { device: peer.device.clone(), epoch, over, at, origin: peer.origin };
        self.add((peer.app.clone(), peer.ordinal), latest);
    }

    fn add(&self, who: Who, latest: Latest) {
        if !self.waiting.lock().add(who, latest) {
            self.lost.inc();
        }
    }

    fn is_waiting(&self) -> bool {
        !self.waiting.lock().turns.is_empty()
    }
}

fn publications(leaving: &[(Who, Latest)], run: &Run) -> Vec<Publication> {
    let mut apps = HashMap::<&AppId, Vec<Sighting>>::new();
    for ((app, ordinal), latest) in leaving {
        let seen = Seen {
            epoch: latest.epoch,
            at: latest.at,
            run: (!latest.over).then(|| run.clone()),
            transport: latest.origin.transport.to_owned(),
            ip_prefix: ip_prefix(latest.origin.address),
        };
        let sighting = Sighting { device: latest.device.clone(), ordinal: *ordinal, seen };
        apps.entry(app).or_default().push(sighting);
    }
    let told = |(app, devices): (&AppId, Vec<Sighting>)| {
        let sightings = model::Sightings { app: app.clone(), devices };
        Publication { queue: Queue::Reports, body: Reported::Seen(sightings).encode().into() }
    };
    apps.into_iter().map(told).collect()
}

/// Tells what is seen, again and again, and once more when `done` is cancelled: then every session is over.
pub(crate) async fn tell(site: Arc<Site>, done: CancellationToken) {
    loop {
        let is_done = done.run_until_cancelled(sleep(GATHER.mul_f64(rand::random_range(0.5..1.5)))).await.is_none();
        while site.sightings.is_waiting() {
            if let Err(why) = try_tell(&site).await {
                debug!(why, "what was seen of devices must wait");
                break;
            }
            let _ = done.run_until_cancelled(sleep(PAUSE)).await;
        }
        if is_done {
            return;
        }
    }
}

async fn try_tell(site: &Site) -> Result<(), String> {
    let run = run(site).await?;
    let leaving = site.sightings.waiting.lock().take(site.sightings.each);
    let published = site.deps.broker.publish(publications(&leaving, &run)).await;
    if published.is_err() {
        leaving.into_iter().for_each(|(who, latest)| site.sightings.add(who, latest));
    }
    published.map_err(|error| error.to_string())
}

/// This run of the access point: without it a session could never be told from one that went with its access point. One
/// that is about to end says no more that it runs.
async fn run(site: &Site) -> Result<Run, String> {
    let nodes = site.deps.store.nodes(site.deps.clock.now()).await.map_err(|error| error.to_string())?;
    let here = nodes.into_iter().find(|node| node.id == site.config.node);
    let mut known = site.sightings.run.lock();
    if let Some(here) = here {
        *known = Some(Run { node: here.id, boot: here.boot });
    }
    known.clone().ok_or_else(|| "this node has not said yet that it runs".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latest(ordinal: u32, epoch: u64, over: bool) -> (Who, Latest) {
        let origin = Origin { address: [127, 0, 0, 1].into(), transport: "tcp" };
        let device = format!("d{ordinal}").parse().unwrap();
        let latest = Latest { device, epoch: Epoch(epoch), over, at: Timestamp::from_millis(epoch), origin };
        (("demo".parse().unwrap(), Ordinal(ordinal)), latest)
    }

    fn add(waiting: &mut Waiting, (who, latest): (Who, Latest)) -> bool {
        waiting.add(who, latest)
    }

    #[test]
    fn a_storm_is_told_some_at_a_time_and_in_order() {
        let mut waiting = Waiting::default();
        (0..250).for_each(|device| assert!(add(&mut waiting, latest(device, 1, true))));
        assert!(add(&mut waiting, latest(0, 2, false)), "whoever is back keeps its turn");
        let told: Vec<_> = std::iter::from_fn(|| Some(waiting.take(100)).filter(|some| !some.is_empty())).collect();
        assert_eq!(told.iter().map(Vec::len).collect::<Vec<_>>(), [100, 100, 50]);
        assert!(told.iter().flatten().map(|((_, ordinal), _)| ordinal.0).eq(0..250));
        assert_eq!((told[0][0].1.epoch, told[0][0].1.over), (Epoch(2), false));
    }

    #[test]
    fn as_many_are_told_of_as_may_come_and_never_none() {
        let each = |per_s| Sightings::new(NonZeroU32::new(per_s), Counter::default()).each;
        assert_eq!((each(1_000), each(1), each(0)), (50, 1, TOLD_MAX));
    }

    #[test]
    fn what_is_older_than_what_waits_is_forgotten() {
        let mut waiting = Waiting::default();
        assert!(add(&mut waiting, latest(7, 2, false)));
        assert!(add(&mut waiting, latest(7, 1, true)));
        let taken = waiting.take(100);
        assert_eq!((taken.len(), taken[0].1.epoch), (1, Epoch(2)));
        assert!(waiting.take(100).is_empty());
    }
}
