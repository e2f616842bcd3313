//! Where devices are connected: in memory, since access points are the truth and tell again.

use std::collections::HashMap;

use async_trait::async_trait;
use model::{AppId, Epoch, NodeId, Ordinal, Route, Timestamp};
use parking_lot::Mutex;

use super::{Embedded, key, table::Read as _};
use crate::{Claim, Error, Generation, Routes};

/// The sessions of every app; as many as there are connected devices.
#[derive(Default)]
pub(super) struct Sessions(Mutex<State>);

#[derive(Default)]
struct State {
    routes: HashMap<AppId, HashMap<Ordinal, Route>>,
    /// The last epoch given to any device: greater than all before, without remembering who is gone.
    last: Epoch,
}

#[async_trait]
impl Routes for Embedded {
    async fn claim(&self, app: &AppId, device: Ordinal, node: &NodeId, now: Timestamp) -> Result<Claim, Error> {
        let kept = self.view().get(&key::Cursor { app: app.clone(), device })?.unwrap_or_default();
        let mut state = self.sessions.0.lock();
        let epoch = state.last.max(kept.epoch).next(now);
        state.last = epoch;
        let route = Route { node: node.clone(), epoch };
        let previous = state.routes.entry(app.clone()).or_default().insert(device, route);
        Ok(Claim { epoch, previous, routed: true })
    }

    async fn release(&self, app: &AppId, device: Ordinal, epoch: Epoch) -> Result<(), Error> {
        let mut state = self.sessions.0.lock();
        if let Some(routes) = state.routes.get_mut(app)
            && routes.get(&device).is_some_and(|route| route.epoch == epoch)
        {
            routes.remove(&device);
        }
        Ok(())
    }

    async fn routes(&self, app: &AppId, devices: &[Ordinal]) -> Result<Vec<Option<Route>>, Error> {
        let state = self.sessions.0.lock();
        let routes = state.routes.get(app);
        Ok(devices.iter().map(|device| routes.and_then(|routes| routes.get(device)).cloned()).collect())
    }

    async fn generation(&self, _: u128) -> Result<Generation, Error> {
        // As long as this process lives: whoever could ask dies with it.
        Ok(Generation(Vec::new()))
    }

    async fn restore(&self, app: &AppId, node: &NodeId, routes: &[(Ordinal, Epoch)]) -> Result<Vec<bool>, Error> {
        let mut state = self.sessions.0.lock();
        let known = state.routes.entry(app.clone()).or_default();
        let restore = |&(device, epoch): &(Ordinal, Epoch)| match known.get(&device) {
            Some(later) if later.epoch > epoch => later.node == *node,
            _ => {
                known.insert(device, Route { node: node.clone(), epoch });
                true
            }
        };
        Ok(routes.iter().map(restore).collect())
    }
}
