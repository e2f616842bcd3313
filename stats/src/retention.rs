//! Removes what is over, a page at a time, so that it holds up nobody. Of several nodes one does it; doing it twice
//! would do no harm.

use std::time::Duration;

use model::NodeId;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::Deps;

/// Between two rounds.
const EVERY: Duration = Duration::from_secs(5);

/// Between two pages of one round: leaves the disk to others most of the time.
const BREATH: Duration = Duration::from_millis(20);

/// The name of this duty.
const DUTY: &str = "retention";

/// How long the duty stays with a node that is not heard of: a few rounds.
const LEASE: Duration = Duration::from_secs(20);

pub(crate) async fn run(deps: &Deps, node: &NodeId, shutdown: &CancellationToken) {
    loop {
        let pause = match round(deps, node).await {
            Ok(0) => EVERY,
            Ok(removed) => {
                debug!(removed, "removed what is over");
                BREATH
            }
            Err(error) => {
                warn!(%error, "cannot remove all that is over; going on");
                EVERY
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = time::sleep(pause) => {}
        }
    }
}

/// Removes a page, if that is this node's duty; how much it was.
async fn round(deps: &Deps, node: &NodeId) -> Result<usize, store::Error> {
    let now = deps.clock.now();
    if deps.store.hold(DUTY, node, now, LEASE).await? { deps.store.expire(now).await } else { Ok(0) }
}
