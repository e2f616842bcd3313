//! Rings the access points after an append: those that hold a device's session where that is known, else every one. To
//! those that are known, the bell carries what was appended.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use broker::Ring;
use model::{AppId, Bell, Carried, Lane, Message, NodeId, Ordinal, Ordinals, Placed, Timestamp, record::Record as _};
use tracing::debug;

use crate::Deps;

/// Bytes of messages that one bell carries: beyond it another one is rung, so that none is a burden to those behind it.
const CARRIED_MAX_BYTES: usize = 64 * 1024;

/// The largest payload that is carried: a larger one is better read by who needs it.
const PAYLOAD_MAX_BYTES: usize = 4 * 1024;

/// What has grown of one app's inboxes.
#[derive(Default)]
struct Grown {
    entries: Vec<(Arc<Message>, Vec<Placed>)>,
    /// Those that have to look for themselves.
    look: Ordinals,
}

/// Bells of one batch, gathered so that each access point hears few for an app.
#[derive(Default)]
pub(crate) struct Bells {
    inboxes: BTreeMap<AppId, Grown>,
    timelines: Vec<AppId>,
}

impl Bells {
    /// For these devices' inboxes; `places` says where the message stands, if that is known.
    pub(crate) fn inbox(&mut self, message: &Arc<Message>, devices: &Ordinals, places: Vec<Placed>) {
        let grown = self.inboxes.entry(message.app.clone()).or_default();
        if places.is_empty() || message.payload.len() > PAYLOAD_MAX_BYTES {
            grown.look |= devices;
        } else {
            grown.entries.push((message.clone(), places));
        }
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
        for (app, grown) in self.inboxes {
            let routes = routes(deps, &app, &grown).await;
            for (node, grown) in grown.by_node(&routes) {
                let whom = node.map_or(Ring::All, Ring::One);
                let now = deps.clock.now();
                grown.bells(&app, now).into_iter().for_each(|bell| ring(&whom, bell));
            }
        }
    }
}

/// The access point that holds each device, as far as that is known.
async fn routes(deps: &Deps, app: &AppId, grown: &Grown) -> HashMap<Ordinal, NodeId> {
    let mut devices = grown.look.clone();
    devices.extend(grown.entries.iter().flat_map(|(_, places)| places).map(|place| place.device));
    let devices: Vec<Ordinal> = devices.iter().collect();
    let routes = deps.store.routes(app, &devices).await.unwrap_or_default();
    devices.into_iter().zip(routes).filter_map(|(device, route)| Some((device, route?.node))).collect()
}

impl Grown {
    /// What each access point is to hear; what nobody is known to hold, they all hear, and look.
    fn by_node(&self, routes: &HashMap<Ordinal, NodeId>) -> BTreeMap<Option<NodeId>, Self> {
        let mut by_node = BTreeMap::<Option<NodeId>, Self>::new();
        for device in self.look.iter() {
            by_node.entry(routes.get(&device).cloned()).or_default().look.insert(device);
        }
        for (message, places) in &self.entries {
            for place in places {
                let node = routes.get(&place.device);
                let there = by_node.entry(node.cloned()).or_default();
                match there.entries.last_mut() {
                    _ if node.is_none() => _ = there.look.insert(place.device),
                    Some((last, places)) if Arc::ptr_eq(last, message) => places.push(*place),
                    _ => there.entries.push((message.clone(), vec![*place])),
                }
            }
        }
        by_node
    }

    fn bells(self, app: &AppId, now: Timestamp) -> Vec<Bell> {
        let mut bells = Vec::new();
        let mut entries = self.entries.into_iter().peekable();
        while entries.peek().is_some() {
            let mut bytes = 0;
            let mut carried = Vec::new();
            while let Some((message, places)) = entries.next_if(|_| bytes < CARRIED_MAX_BYTES) {
                bytes += message.payload.len();
                carried.push(Carried { message: Arc::unwrap_or_clone(message), places });
            }
            bells.push(Bell::Entries { app: app.clone(), at: now, entries: carried });
        }
        if !self.look.is_empty() {
            bells.push(Bell::Inbox { app: app.clone(), devices: self.look });
        }
        bells
    }
}
