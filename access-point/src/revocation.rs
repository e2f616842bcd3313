//! Finds out with every sweep whose tokens are revoked and which devices are removed, from what the store tells of changes
//! in the registries. So a session ends also when the bell about it was lost, never rung, or rung before it was there.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use model::{AppId, DeviceId, Ordinal, Ordinals};
use store::{ChangeId, PAGE_MAX};
use tracing::warn;

use crate::{Site, registry::Handle};

/// Pages of changes that are gone through. Behind by more, it costs less to ask about every session.
const PAGES_MAX: usize = 64;

/// Sessions asked about in one call: the store does others' work in between.
const SESSIONS_A_CALL: usize = 128;

/// Looks after every sweep, for ever.
pub(crate) async fn run(site: Arc<Site>) {
    let mut apps = HashMap::<AppId, Option<ChangeId>>::new();
    loop {
        site.swept.notified().await;
        for app in site.registry.apps() {
            let upto = apps.entry(app.clone()).or_default();
            if let Err(error) = look(&site, &app, upto).await {
                site.metrics.store_failures.inc();
                warn!(%app, %error, "cannot look for revoked tokens; the next sweep will");
            }
        }
    }
}

/// Looks at what changed in an app after `upto`, and moves that on; at every session where nobody knows what did.
async fn look(site: &Site, app: &AppId, upto: &mut Option<ChangeId>) -> Result<(), store::Error> {
    for _ in 0..PAGES_MAX {
        let Some(after) = *upto else { break };
        let Some(changes) = site.deps.store.changes_after(app, after, PAGE_MAX).await? else { break };
        let Some((last, _)) = changes.last() else { return Ok(()) };
        let changed: Ordinals = changes.iter().map(|(_, device)| *device).collect();
        site.looks.fetch_add(1, Ordering::AcqRel);
        let here: Vec<_> = changed.iter().filter_map(|device| site.registry.get(app, device)).collect();
        check(site, app, &here).await?;
        *upto = Some(*last);
        if changes.len() < PAGE_MAX {
            return Ok(());
        }
    }
    let head = site.deps.store.change_head(app).await?;
    site.looks.fetch_add(1, Ordering::AcqRel);
    check(site, app, &site.registry.sessions(app)).await?;
    *upto = Some(head);
    Ok(())
}

/// Ends those of an app's sessions whose token is revoked, or whose device is removed.
pub(crate) async fn check(site: &Site, app: &AppId, sessions: &[Arc<Handle>]) -> Result<(), store::Error> {
    for some in sessions.chunks(SESSIONS_A_CALL) {
        let ordinals: Vec<Ordinal> = some.iter().map(|session| session.ordinal).collect();
        let names = site.deps.store.names(app, &ordinals).await?;
        // One without a name was not removed: the store has forgotten it.
        let named = some.iter().zip(names).filter_map(|(session, name)| Some((session, name?)));
        let (sessions, names): (Vec<&Arc<Handle>>, Vec<DeviceId>) = named.unzip();
        let devices = site.deps.store.devices(app, &names).await?;
        for (session, device) in sessions.into_iter().zip(devices) {
            let device = device.filter(|device| device.ordinal == session.ordinal);
            session.revoke(device.map_or(u32::MAX, |device| device.generation));
        }
    }
    Ok(())
}
