//! Tells the store again where devices are when it has forgotten, or has not heard: this access point is the truth about its
//! own.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use model::{AppId, Ordinal};
use store::Generation;
use tokio::time;
use tracing::{debug, info};

use crate::{Site, close::Close, registry::Handle};

/// Between two looks, on average: access points must not all tell at once when a store is back.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Routes told at once.
const TOLD_MAX: usize = 1_000;

/// Looks for ever whether routes were forgotten or not heard.
pub(crate) async fn keep(site: Arc<Site>) {
    let mut told: Option<Generation> = None;
    loop {
        time::sleep(LOOK_EVERY.mul_f64(rand::random_range(0.5..1.5))).await;
        // After a failure everything is told again: a store that kept its routes has not heard those of the meantime.
        match look(&site, told.take()).await {
            Ok(generation) => told = Some(generation),
            Err(error) => debug!(%error, "cannot tell where devices are; trying again"),
        }
    }
}

/// Tells every route, unless all were `told` in this life of the routes, which is returned.
async fn look(site: &Site, told: Option<Generation>) -> Result<Generation, store::Error> {
    let generation = site.deps.store.generation(rand::random()).await?;
    let untold = site.untold.swap(false, Ordering::AcqRel);
    if untold || told.as_ref() != Some(&generation) {
        let routes = tell(site).await?;
        info!(routes, "told where devices are");
    }
    Ok(generation)
}

/// Tells every route; how many there were.
async fn tell(site: &Site) -> Result<usize, store::Error> {
    let mut routes = 0;
    for app in site.registry.apps() {
        let sessions = site.registry.sessions(&app);
        routes += sessions.len();
        for some in sessions.chunks(TOLD_MAX) {
            tell_some(site, &app, some).await?;
        }
    }
    Ok(routes)
}

/// Whose device has a later session elsewhere is over here.
async fn tell_some(site: &Site, app: &AppId, sessions: &[Arc<Handle>]) -> Result<(), store::Error> {
    let routes: Vec<(Ordinal, _)> = sessions.iter().map(|session| (session.ordinal, session.epoch)).collect();
    let there = site.deps.store.restore(app, &site.config.node, &routes).await?;
    let late = sessions.iter().zip(there).filter(|(_, there)| !there);
    late.for_each(|(session, _)| session.close(Close::TakenOver));
    Ok(())
}
