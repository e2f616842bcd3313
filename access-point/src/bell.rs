//! Hears the bells of this access point, each lane by itself, and wakes whom they are for. A bell says where to look; it
//! may carry what is there, for whoever has seen all before it. One that is lost costs the time until the next sweep.
//!
//! Nothing here waits for the store: what must be looked for there is, by a task for each app that has any. So an app whose
//! part of the store is slow holds up its own bells only, and no pulse is heard late.

use std::{sync::Arc, time::Duration};

use broker::Bells;
use model::{AppId, Bell, Carried, Lane, Placed, Seq, Stream, record::Record as _};
use tokio::time;
use tracing::{debug, warn};

use crate::{Site, close::Close, drain::Order, registry::Entry, rung::Wanted, timeline::Timeline};

/// Pause before listening again when the broker is away.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Devices that are looked for one by one; past that, workers go through their sessions.
const FEW: u64 = 1_000;

/// Hears the bells of one lane, for as long as there is a broker.
pub(crate) async fn listen(site: Arc<Site>, lane: Lane) {
    loop {
        match site.deps.broker.listen(&site.config.node, lane).await {
            Ok(bells) => {
                hear_all(&site, lane, bells).await;
                warn!(%lane, "bells have stopped; listening again");
            }
            Err(error) => warn!(%lane, %error, "cannot listen for bells"),
        }
        time::sleep(RETRY_PAUSE).await;
    }
}

/// Until there are no more.
async fn hear_all(site: &Arc<Site>, lane: Lane, mut bells: Bells) {
    let gaps = bells.gaps();
    loop {
        let bell = tokio::select! {
            bell = bells.heard() => bell,
            () = gaps.next() => {
                site.unheard.notify_one();
                continue;
            }
        };
        let Some(bell) = bell else { return };
        match Bell::decode(&bell) {
            Ok(bell) => {
                if !matches!(bell, Bell::Pulse { .. }) {
                    site.metrics.bells.inc();
                }
                hear(site, bell);
            }
            Err(error) => warn!(%lane, %error, "a bell that cannot be read"),
        }
    }
}

fn hear(site: &Arc<Site>, bell: Bell) {
    match bell {
        Bell::Inbox { app, devices } => {
            let sessions = devices.iter().filter_map(|device| site.registry.get(&app, device));
            sessions.for_each(|session| session.ring(Stream::Inbox));
        }
        Bell::Entries { app, at, entries } => {
            for Carried { message, places } in entries {
                let message = Arc::new(message);
                for Placed { device, before, seq } in places {
                    let session = site.registry.get(&app, device);
                    session.inspect(|session| session.hand(Entry { message: message.clone(), before, seq, at }));
                }
            }
        }
        Bell::Timeline { app, head } => attend(site, app, |wanted| wanted.grown(head)),
        Bell::Cancelled { app, message } => attend(site, app, |wanted| {
            if !wanted.cancelled(message) {
                site.unheard.notify_one();
            }
        }),
        Bell::Superseded { app, device, epoch } => {
            let older = site.registry.get(&app, device).filter(|session| session.epoch < epoch);
            older.inspect(|session| session.close(Close::TakenOver));
        }
        Bell::Revoked { app, device, generation } => {
            site.registry.get(&app, device).inspect(|session| session.revoke(generation));
        }
        Bell::Drain { node, ordered_at, rate_per_s, permille } if node == site.config.node => {
            site.drains.order(Order { ordered_at, rate_per_s, permille });
        }
        Bell::Undrain { node } if node == site.config.node => site.drains.revoke(),
        Bell::Drain { .. } | Bell::Undrain { .. } => {}
        Bell::Pulse { node, dropped } => {
            if site.pulses.heard(node, dropped) {
                site.unheard.notify_one();
            }
        }
        Bell::Apps => site.apps.changed(),
    }
}

/// Notes what a bell has told of an app's timeline, and has it looked for unless somebody does.
fn attend(site: &Arc<Site>, app: AppId, note: impl FnOnce(&mut Wanted)) {
    let Some(timeline) = site.timelines.get(&app) else { return };
    if timeline.rung.note(note) {
        let site = site.clone();
        tokio::spawn(async move { look(&site, &app, &timeline).await });
    }
}

/// Looks until nothing is wanted. What was called back goes first: entries that are yet to be read tell it themselves.
async fn look(site: &Site, app: &AppId, timeline: &Timeline) {
    while let Some(Wanted { head, cancelled }) = timeline.rung.take() {
        timeline.cancel(&cancelled).await;
        if let Some(head) = head {
            grown(site, app, head).await;
        }
    }
}

/// A timeline has grown: reads the new entries once and has the sessions they are for go on. When they are for few, others
/// go past them when they are next awake.
pub(crate) async fn grown(site: &Site, app: &AppId, head: Seq) {
    let Some(timeline) = site.timelines.get(app) else { return };
    let (whom, read) = timeline.refresh(head).await;
    if whom.len() <= FEW {
        let sessions = whom.iter().filter_map(|device| site.registry.get(app, device));
        sessions.for_each(|session| session.ring(Stream::Timeline));
    } else {
        site.workers.grown(app);
    }
    if let Err(error) = read {
        site.metrics.store_failures.inc();
        site.unheard.notify_one();
        debug!(%app, %error, "cannot read the timeline; the sweep will");
    }
}
