//! Says that this process runs, again and again: to the store, from which it hears when a later run has taken its name, and,
//! if it rings, to the access points, so that they notice when they do not hear its bells.

use std::time::Duration;

use anyhow::bail;
use broker::{Ring, SharedBroker};
use model::{Bell, Clock as _, Lane, Node, SystemClock, bell::PULSE_EVERY, record::Record as _};
use store::{SharedStore, nodes::BEAT_EVERY};
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Between two signs of life while devices leave: whoever sends them here must know, and whoever waits for the last one.
const EVERY_LEAVING: Duration = Duration::from_millis(500);

/// Tells how the access point here is.
pub(crate) type Status = Box<dyn Fn() -> access_point::Status + Send + Sync>;

/// What this process says of itself.
pub(crate) struct Presence {
    pub(crate) node: Node,
    /// Asked each time, where devices connect.
    pub(crate) status: Option<Status>,
}

impl Presence {
    /// Says it until `shutdown` and for as long as devices are connected then, and that it ends.
    ///
    /// # Errors
    /// When another process was started under this name: two of one name would take each other's bells.
    pub(crate) async fn run(
        self,
        store: SharedStore,
        broker: SharedBroker,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        let node = self.node.clone();
        tokio::select! {
            ended = self.beat(store, shutdown) => ended,
            () = pulse(broker, &node), if node.rings() => Ok(()),
        }
    }

    async fn beat(mut self, store: SharedStore, shutdown: CancellationToken) -> anyhow::Result<()> {
        loop {
            match store.beat(self.now()).await {
                Ok(true) => {}
                Ok(false) => bail!(
                    "another process was started with the name {:?}: give every process its own (the setting `node`)",
                    self.node.id.as_str()
                ),
                Err(error) => warn!(%error, "cannot say that this node runs; trying again"),
            }
            if shutdown.is_cancelled() {
                if self.node.endpoint.as_ref().is_none_or(|endpoint| endpoint.connections == 0) {
                    break;
                }
                time::sleep(EVERY_LEAVING).await;
            } else {
                let _ = time::timeout(BEAT_EVERY, shutdown.cancelled()).await;
            }
        }
        if let Err(error) = store.depart(&self.node.id, self.node.boot).await {
            warn!(%error, "this node will be thought to run for a few seconds more");
        }
        Ok(())
    }

    fn now(&mut self) -> Node {
        self.node.seen_at = SystemClock.now();
        if let (Some(endpoint), Some(status)) = (&mut self.node.endpoint, &self.status) {
            let status = status();
            endpoint.connections = status.connections as u64;
            self.node.drain = status.drain;
        }
        self.node.clone()
    }
}

/// Rings for ever that this node rings.
async fn pulse(broker: SharedBroker, node: &Node) {
    loop {
        let bell = Bell::Pulse { node: node.id.clone(), dropped: broker.bells_dropped() };
        broker.ring(Lane::Broadcast, &Ring::All, bell.encode().into());
        time::sleep(PULSE_EVERY).await;
    }
}
