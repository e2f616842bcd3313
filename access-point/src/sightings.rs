//! What is seen of devices here: who comes, from where, and who goes. Gathered for a moment and told to the filter in
//! batches, so that a storm of devices costs a few publications. Best effort: what is lost with this process is told by
//! the next sessions of its devices.

use std::{collections::HashMap, sync::Arc, time::Duration};

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

use crate::{Site, connection::Peer, entry::Origin};

/// How long sightings are gathered: a device that comes and goes in this time is one of them.
const GATHER: Duration = Duration::from_secs(1);

/// Devices in one publication: far below what a broker takes.
const DEVICES_MAX: usize = 1_000;

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

/// What is yet to be told.
#[derive(Debug)]
pub(crate) struct Sightings {
    waiting: Mutex<HashMap<(AppId, Ordinal), Latest>>,
    /// This run of the access point, once it has said that it runs.
    run: Mutex<Option<Run>>,
    lost: Counter,
}

impl Sightings {
    /// `lost` counts what is never told.
    pub(crate) fn new(lost: Counter) -> Self {
        Self { waiting: Mutex::default(), run: Mutex::default(), lost }
    }

    /// Notes that a device's session began, or is `over`.
    pub(crate) fn note(&self, peer: &Peer, epoch: Epoch, over: bool, at: Timestamp) {
        let latest = Latest { device: peer.device.clone(), epoch, over, at, origin: peer.origin };
        self.add((peer.app.clone(), peer.ordinal), latest);
    }

    fn add(&self, who: (AppId, Ordinal), latest: Latest) {
        let mut waiting = self.waiting.lock();
        let is_full = waiting.len() >= WAITING_MAX;
        match waiting.get_mut(&who) {
            Some(known) if latest.is_after(known) => *known = latest,
            Some(_) => {}
            None if is_full => _ = self.lost.inc(),
            None => _ = waiting.insert(who, latest),
        }
    }

    fn publications(&self, run: &Run) -> (Vec<Publication>, HashMap<(AppId, Ordinal), Latest>) {
        let leaving = std::mem::take(&mut *self.waiting.lock());
        let mut apps = HashMap::<&AppId, Vec<Sighting>>::new();
        for ((app, ordinal), latest) in &leaving {
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
        let mut publications = Vec::new();
        for (app, devices) in apps {
            for some in devices.chunks(DEVICES_MAX) {
                let sightings = model::Sightings { app: app.clone(), devices: some.to_vec() };
                let body = Reported::Seen(sightings).encode().into();
                publications.push(Publication { queue: Queue::Reports, body });
            }
        }
        (publications, leaving)
    }
}

/// Tells what is seen, again and again, and once more when `done` is cancelled: then every session is over.
pub(crate) async fn tell(site: Arc<Site>, done: CancellationToken) {
    loop {
        let is_done = done.run_until_cancelled(sleep(GATHER.mul_f64(rand::random_range(0.5..1.5)))).await.is_none();
        if !site.sightings.waiting.lock().is_empty()
            && let Err(why) = try_tell(&site).await
        {
            debug!(why, "what was seen of devices must wait");
        }
        if is_done {
            return;
        }
    }
}

async fn try_tell(site: &Site) -> Result<(), String> {
    let run = run(site).await?;
    let (publications, leaving) = site.sightings.publications(&run);
    let published = site.deps.broker.publish(publications).await;
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
