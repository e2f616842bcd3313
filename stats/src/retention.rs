//! Removes what is over, a page at a time, so that it holds up nobody.

use std::time::Duration;

use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::Deps;

/// Between two rounds.
const EVERY: Duration = Duration::from_secs(5);

/// Between two pages of one round: leaves the disk to others most of the time.
const BREATH: Duration = Duration::from_millis(20);

pub(crate) async fn run(deps: &Deps, shutdown: &CancellationToken) {
    loop {
        let pause = match deps.store.expire(deps.clock.now()).await {
            Ok(0) => EVERY,
            Ok(removed) => {
                debug!(removed, "removed what is over");
                BREATH
            }
            Err(error) => {
                warn!(%error, "cannot remove what is over; trying again");
                EVERY
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = time::sleep(pause) => {}
        }
    }
}
