//! Rings the access points after an append: those that hold a device's session where that is known, else every one.

use std::collections::BTreeMap;

use model::{AppId, Bell, Lane, NodeId, Ordinal, Ordinals, record::Record as _};
use tracing::debug;

use broker::Ring;

use crate::Deps;

/// Bells of one batch, gathered so that each access point hears one for an app.
#[derive(Default)]
pub(crate) struct Bells {
    inboxes: BTreeMap<AppId, Ordinals>,
    timelines: Vec<AppId>,
}

impl Bells {
    pub(crate) fn inbox(&mut self, app: &AppId, devices: &Ordinals) {
        *self.inboxes.entry(app.clone()).or_default() |= devices;
    }

    pub(crate) fn timeline(&mut self, app: &AppId) {
        if !self.timelines.contains(app) {
            self.timelines.push(app.clone());
        }
    }

    /// Rings. What cannot be found out is not rung: the access points' sweep finds it.
    pub(crate) async fn ring(self, lane: Lane, deps: &Deps) {
        let ring = |whom: &Ring, bell: Bell| deps.broker.ring(lane, whom, bell.encode().into());
        for app in self.timelines {
            match deps.store.timeline_head(&app).await {
                Ok(head) => ring(&Ring::All, Bell::Timeline { app, head }),
                Err(error) => debug!(%app, %error, "bell not rung; the sweep will find the entry"),
            }
        }
        for (app, devices) in self.inboxes {
            let devices: Vec<Ordinal> = devices.iter().collect();
            let (known, unknown) = by_node(deps, &app, &devices).await;
            for (node, devices) in known {
                ring(&Ring::One(node), Bell::Inbox { app: app.clone(), devices });
            }
            if !unknown.is_empty() {
                ring(&Ring::All, Bell::Inbox { app, devices: unknown });
            }
        }
    }
}

/// The devices by the access point that holds them, and those of which nobody knows.
async fn by_node(deps: &Deps, app: &AppId, devices: &[Ordinal]) -> (BTreeMap<NodeId, Ordinals>, Ordinals) {
    let routes = deps.store.routes(app, devices).await.unwrap_or_else(|_| vec![None; devices.len()]);
    let (mut known, mut unknown) = (BTreeMap::<NodeId, Ordinals>::new(), Ordinals::new());
    for (device, route) in devices.iter().zip(routes) {
        let set = route.map_or(&mut unknown, |route| known.entry(route.node).or_default());
        set.insert(*device);
    }
    (known, unknown)
}
