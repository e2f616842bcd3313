//! Finds out with every sweep whose tokens are revoked and which devices are removed, from what the store tells of changes
//! in the registries. So a session ends also when the bell about it was lost, never rung, or rung before it was there.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use model::{AppId, Ordinal, Ordinals};
use store::{
    ChangeId, PAGE_MAX,
    devices::{self, Absent},
};
use tracing::warn;

use crate::{
    Site,
    registry::{Handle, Registry},
};

/// Pages of changes that are gone through. Behind by more, it costs less to ask about every session.
const PAGES_MAX: usize = 64;

/// Sessions asked about in one call: the store does others' work in between.
const SESSIONS_A_CALL: usize = 128;

/// Up to where the changes of each app with sessions here were looked at; nowhere yet, where every session is to be.
type Seen = HashMap<AppId, Option<ChangeId>>;

/// Forgets apps that have no sessions any more: when one comes it is looked at, whatever has changed.
fn keep_those_here(seen: &mut Seen, registry: &Registry) {
    let here = registry.apps().into_iter().filter(|app| registry.has_sessions(app));
    *seen = here.map(|app| seen.remove_entry(&app).unwrap_or((app, None))).collect();
}

/// Looks after every sweep, for ever.
pub(crate) async fn run(site: Arc<Site>) {
    let mut apps = Seen::new();
    loop {
        site.swept.notified().await;
        keep_those_here(&mut apps, &site.registry);
        for (app, upto) in &mut apps {
            if let Err(error) = look(&site, app, upto).await {
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
        for (session, device) in some.iter().zip(devices::behind(&*site.deps.store, app, &ordinals).await?) {
            match device {
                Ok(device) => session.revoke(device.generation),
                Err(Absent::Removed) => session.revoke(u32::MAX),
                // The store has forgotten it: nobody removed it.
                Err(Absent::Unknown) => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use model::Epoch;

    use super::*;

    #[test]
    fn an_app_whose_sessions_are_gone_is_forgotten() {
        let (registry, mut seen) = (Registry::default(), Seen::new());
        let handle = Arc::new(Handle::new("demo".parse().unwrap(), Ordinal(7), Epoch(1), 0, Arc::default()));
        registry.enter(&handle);
        keep_those_here(&mut seen, &registry);
        let upto = seen.get_mut(&handle.app).unwrap();
        assert_eq!(upto.replace(ChangeId(5)), None);
        keep_those_here(&mut seen, &registry);
        assert_eq!(seen.get(&handle.app), Some(&Some(ChangeId(5))));
        registry.leave(&handle);
        keep_those_here(&mut seen, &registry);
        assert!(seen.is_empty());
    }
}
