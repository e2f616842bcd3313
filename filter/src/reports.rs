//! From the reports queue into the profiles of devices: many reports in one step, acked when that is durable. Of several
//! filter nodes one at a time does it: two would take turns with the reports of one device, and mix up their order.
//!
//! A report is applied to the profile as it is read just before; a change that a backend makes in the same moment may
//! be lost to it. Reports are repeated when an ack is lost, which changes nothing: a merge patch is idempotent, and the
//! reports of one device stay in order.

use std::{
    collections::{BTreeMap, HashMap, btree_map::Entry},
    time::Duration,
};

use audience::patch::{self, InvalidPatch};
use broker::{Consumer, Delivery};
use model::{AppId, Device, DeviceId, NodeId, Profile, Queue, Report, record::Record as _, report::PATCH_MAX_BYTES};
use store::Registration;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{Deps, Error, Metrics, attributes::Catalogue};

/// Reports taken together: enough to gain from one flush, few enough to begin again cheaply.
const TAKEN_MAX: usize = 256;

/// Pause after a failure of the broker or the store, and between two looks whether this is now the node that keeps reports.
const PAUSE: Duration = Duration::from_millis(250);

/// The name of this duty.
const DUTY: &str = "reports";

/// How long the duty stays with a node that is not heard of: so long reports wait when it dies.
const LEASE: Duration = Duration::from_secs(3);

/// Between two signs that the node with the duty is there: three fit a lease.
const RENEW_EVERY: Duration = Duration::from_secs(1);

/// What became of the reports of a batch.
#[derive(Default)]
struct Outcomes {
    merged: u64,
    invalid: u64,
    stale: u64,
    /// Attributes that were left as they are: not the device's to write, or of another type.
    refused: u64,
}

/// Keeps reports until `shutdown`, whenever that is the duty of this node; only damage ends it earlier.
pub(crate) async fn keep(
    deps: &Deps,
    node: &NodeId,
    metrics: &Metrics,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    while !shutdown.is_cancelled() {
        if has_duty(deps, node).await.is_ok_and(|has| has) {
            tokio::select! {
                taken = take(deps, metrics, shutdown) => taken?,
                // What is in hand goes back to the queue, for whoever has the duty now.
                () = duty_lost(deps, node) => debug!("another node keeps reports now"),
            }
        }
        pause(shutdown).await;
    }
    Ok(())
}

async fn has_duty(deps: &Deps, node: &NodeId) -> Result<bool, store::Error> {
    deps.store.hold(DUTY, node, deps.clock.now(), LEASE).await
}

/// Keeps the duty; ends when another node has it, or nobody can say so for as long as it would take.
async fn duty_lost(deps: &Deps, node: &NodeId) {
    let mut held = time::Instant::now();
    while held.elapsed() < LEASE {
        time::sleep(RENEW_EVERY).await;
        match has_duty(deps, node).await {
            Ok(true) => held = time::Instant::now(),
            Ok(false) => return,
            Err(error) => debug!(%error, "cannot say that this node keeps reports"),
        }
    }
}

async fn take(deps: &Deps, metrics: &Metrics, shutdown: &CancellationToken) -> Result<(), Error> {
    match deps.broker.consume(Queue::Reports, TAKEN_MAX).await {
        Ok(consumer) => drain(deps, metrics, consumer, shutdown).await?,
        Err(damaged @ broker::Error::Corrupt(_)) => return Err(damaged.into()),
        Err(error) => warn!(%error, "cannot take reports; trying again"),
    }
    Ok(())
}

async fn drain(
    deps: &Deps,
    metrics: &Metrics,
    mut consumer: Consumer,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    loop {
        let deliveries = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            deliveries = consumer.next(TAKEN_MAX) => deliveries,
        };
        if deliveries.is_empty() {
            return Ok(());
        }
        let (reports, deliveries) = read(metrics, deliveries).await;
        let outcomes = loop {
            match merge(deps, &reports).await {
                Ok(outcomes) => break outcomes,
                Err(damaged @ store::Error::Corrupt(_)) => return Err(damaged.into()),
                Err(error) => warn!(%error, "cannot keep reports; holding them"),
            }
            pause(shutdown).await;
            if shutdown.is_cancelled() {
                return Ok(());
            }
        };
        deliveries.into_iter().for_each(Delivery::ack);
        metrics.reports("merged", outcomes.merged);
        metrics.reports("invalid", outcomes.invalid);
        metrics.reports("stale", outcomes.stale);
        metrics.refused(outcomes.refused);
    }
}

async fn read(metrics: &Metrics, deliveries: Vec<Delivery>) -> (Vec<Report>, Vec<Delivery>) {
    let (mut reports, mut readable) = (Vec::with_capacity(deliveries.len()), Vec::with_capacity(deliveries.len()));
    for delivery in deliveries {
        match Report::decode(delivery.body()) {
            Ok(report) => {
                reports.push(report);
                readable.push(delivery);
            }
            Err(unreadable) => {
                metrics.reports("unreadable", 1);
                if let Err(error) = delivery.dead_letter(unreadable.to_string()).await {
                    warn!(%error, "cannot set a report aside now; it will come again");
                }
            }
        }
    }
    (reports, readable)
}

async fn merge(deps: &Deps, reports: &[Report]) -> Result<Outcomes, store::Error> {
    let mut outcomes = Outcomes::default();
    let mut apps = BTreeMap::<&AppId, Vec<&Report>>::new();
    for report in reports {
        apps.entry(&report.app).or_default().push(report);
    }
    for (app, reports) in apps {
        let changed = changed(deps, app, &reports, &mut outcomes).await?;
        if !changed.is_empty() {
            deps.store.register(app, changed, deps.clock.now()).await?;
        }
    }
    Ok(outcomes)
}

/// The devices of one app with what they reported about themselves.
async fn changed(
    deps: &Deps,
    app: &AppId,
    reports: &[&Report],
    outcomes: &mut Outcomes,
) -> Result<Vec<Registration>, store::Error> {
    let ids: Vec<DeviceId> = reports.iter().map(|report| report.device.clone()).collect();
    let found = deps.store.devices(app, &ids).await?;
    let mut devices: HashMap<DeviceId, Device> =
        found.into_iter().flatten().map(|device| (device.id.clone(), device)).collect();
    let mut changed = BTreeMap::new();
    let mut catalogues = BTreeMap::new();
    for report in reports {
        let Some(device) = devices.get_mut(&report.device).filter(|device| device.ordinal == report.ordinal) else {
            debug!(app.id = %app, device.id = %report.device, "a report of a device that is gone");
            outcomes.stale += 1;
            continue;
        };
        match apply(&device.profile, report) {
            Ok(mut profile) => {
                let catalogue = match catalogues.entry(device.env) {
                    Entry::Occupied(read) => read.into_mut(),
                    Entry::Vacant(new) => new.insert(Catalogue::read(&*deps.store, app, device.env).await?),
                };
                outcomes.refused += catalogue.admit(&*deps.store, &device.profile, &mut profile).await?;
                device.profile = profile.clone();
                let registration = Registration { id: device.id.clone(), env: device.env, profile: Some(profile) };
                changed.insert(&report.device, registration);
                outcomes.merged += 1;
            }
            Err(invalid) => {
                warn!(app.id = %app, device.id = %report.device, %invalid, "dropped what a device reported");
                outcomes.invalid += 1;
            }
        }
    }
    Ok(changed.into_values().collect())
}

/// The profile after a report. Whose a device is says the backend: a device could otherwise read what is another's.
fn apply(profile: &Profile, report: &Report) -> Result<Profile, InvalidPatch> {
    let refused = |pointer: &str, reason| Err(InvalidPatch { pointer: pointer.to_owned(), reason });
    if report.patch.len() > PATCH_MAX_BYTES {
        return refused("", format!("longer than {PATCH_MAX_BYTES} bytes"));
    }
    let merged = patch::merge(profile, &report.patch)?;
    if merged.user_id != profile.user_id {
        return refused("/user_id", "is set by the app's backend, not by a device".to_owned());
    }
    Ok(merged)
}

async fn pause(shutdown: &CancellationToken) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = time::sleep(PAUSE) => {}
    }
}
