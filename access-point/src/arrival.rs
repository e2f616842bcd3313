//! Devices that have proven who they are and have no session yet: for a moment, or for as long as the store is away. Of
//! one device the latest connection counts here, as it does among sessions.

use std::{collections::HashMap, sync::Arc};

use model::{AppId, DeviceId};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::Site;

type Who = (AppId, DeviceId);

/// The latest connection of each device that has no session yet; no more than there are connections.
#[derive(Default)]
pub(crate) struct Arrivals(Mutex<HashMap<Who, CancellationToken>>);

/// A connection's place among them; it is given up when this is dropped.
pub(crate) struct Arrival {
    site: Arc<Site>,
    who: Who,
    superseded: CancellationToken,
}

impl Arrival {
    /// Enters a connection, in the place of an older one of its device.
    pub(crate) fn new(site: &Arc<Site>, app: AppId, device: DeviceId) -> Self {
        let (who, superseded) = ((app, device), CancellationToken::new());
        let mut arrivals = site.arrivals.0.lock();
        // While the place is locked: the one before must not give up what is not its own any more.
        arrivals.insert(who.clone(), superseded.clone()).inspect(CancellationToken::cancel);
        drop(arrivals);
        Self { site: site.clone(), who, superseded }
    }

    /// Returns when a later connection of the device has arrived.
    pub(crate) async fn superseded(&self) {
        self.superseded.cancelled().await;
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        let mut arrivals = self.site.arrivals.0.lock();
        // Whoever is superseded has no place any more.
        if !self.superseded.is_cancelled() {
            arrivals.remove(&self.who);
        }
    }
}
