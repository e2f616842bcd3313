//! Says that this process runs, again and again, and hears when a later run has taken its name.

use std::time::Duration;

use anyhow::bail;
use model::{Clock as _, Endpoint, Node, SystemClock};
use store::SharedStore;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Between two signs of life: five fit a lease.
const EVERY: Duration = Duration::from_secs(2);

/// Tells how many connections are open.
pub(crate) type Connections = Box<dyn Fn() -> usize + Send + Sync>;

/// What this process says of itself.
pub(crate) struct Presence {
    pub(crate) node: Node,
    /// Asked each time, where devices connect.
    pub(crate) connections: Option<Connections>,
}

impl Presence {
    /// Says it until `shutdown`, then that it ends.
    ///
    /// # Errors
    /// When another process was started under this name: two of one name would take each other's bells.
    pub(crate) async fn run(mut self, store: SharedStore, shutdown: CancellationToken) -> anyhow::Result<()> {
        loop {
            match store.beat(self.now()).await {
                Ok(true) => {}
                Ok(false) => bail!(
                    "another process was started with the name {:?}: give every process its own (the setting `node`)",
                    self.node.id.as_str()
                ),
                Err(error) => warn!(%error, "cannot say that this node runs; trying again"),
            }
            tokio::select! {
                () = time::sleep(EVERY) => {}
                () = shutdown.cancelled() => break,
            }
        }
        if let Err(error) = store.depart(&self.node.id, self.node.boot).await {
            warn!(%error, "this node will be thought to run for a few seconds more");
        }
        Ok(())
    }

    fn now(&mut self) -> Node {
        self.node.seen_at = SystemClock.now();
        let open = self.connections.as_ref().map_or(0, |connections| connections());
        if let Some(Endpoint { connections, .. }) = &mut self.node.endpoint {
            *connections = open as u64;
        }
        self.node.clone()
    }
}
