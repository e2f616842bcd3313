//! Knows which nodes run, and notices when one that rings is not heard: its bells are lost then, and nobody else says so.
//! A node of the broker that is cut off takes and hands out bells for a minute before it finds out.

use std::{collections::HashMap, sync::Arc, time::Duration};

use model::{NodeId, Tier, bell::PULSE_EVERY};
use parking_lot::Mutex;
use tokio::time::{self, Instant};
use tracing::{info, warn};

use crate::Site;

/// A node that was not heard for so long is not heard: one pulse may be lost.
const LATE: Duration = PULSE_EVERY.saturating_mul(2);

/// Between two looks for such nodes.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Between two questions which nodes run: as often as they say so.
const ASK_EVERY: Duration = Duration::from_secs(2);

struct Pulse {
    heard_at: Instant,
    dropped: u64,
}

/// When each node that rings was last heard, or found to run.
#[derive(Default)]
pub(crate) struct Pulses(Mutex<HashMap<NodeId, Pulse>>);

impl Pulses {
    /// A node is heard. Whether it has dropped bells since it was heard last.
    pub(crate) fn heard(&self, node: NodeId, dropped: u64) -> bool {
        let before = self.0.lock().insert(node, Pulse { heard_at: Instant::now(), dropped });
        before.is_some_and(|before| before.dropped != dropped)
    }

    /// These nodes ring, and no others.
    fn expect(&self, nodes: Vec<NodeId>) {
        let mut pulses = self.0.lock();
        let new = |node| {
            let pulse = pulses.remove(&node).unwrap_or_else(|| Pulse { heard_at: Instant::now(), dropped: 0 });
            (node, pulse)
        };
        *pulses = nodes.into_iter().map(new).collect();
    }

    /// Those that are not heard.
    fn silent(&self) -> Vec<NodeId> {
        let pulses = self.0.lock();
        let silent = pulses.iter().filter(|(_, pulse)| pulse.heard_at.elapsed() > LATE);
        silent.map(|(node, _)| node.clone()).collect()
    }
}

/// Watches for ever.
pub(crate) async fn watch(site: Arc<Site>) {
    let (mut asked_at, mut missed) = (None::<Instant>, Vec::new());
    loop {
        let mut silent = site.pulses.silent();
        // One that is not heard may have stopped.
        if !silent.is_empty() || asked_at.is_none_or(|at| at.elapsed() >= ASK_EVERY) {
            ask(&site).await;
            (asked_at, silent) = (Some(Instant::now()), site.pulses.silent());
        }
        if !silent.is_empty() {
            site.unheard.notify_one();
        }
        tell(&site, &missed, &silent);
        missed = silent;
        time::sleep(LOOK_EVERY).await;
    }
}

/// Finds out which nodes run: those that ring, and among how many the rates of apps are shared. As before when the store
/// does not say.
async fn ask(site: &Site) {
    let Ok(nodes) = site.deps.store.nodes(site.deps.clock.now()).await else { return };
    site.types.share_among(nodes.iter().filter(|node| node.tiers.contains(&Tier::AccessPoint)).count());
    site.pulses.expect(nodes.into_iter().filter(|node| node.rings()).map(|node| node.id).collect());
}

/// Tells people who is not heard, and who is again.
fn tell(site: &Site, before: &[NodeId], silent: &[NodeId]) {
    site.metrics.unheard_nodes.set(silent.len() as i64);
    for node in silent.iter().filter(|node| !before.contains(node)) {
        warn!(%node, "its bells are not heard; looking each second for what they were for");
    }
    for node in before.iter().filter(|node| !silent.contains(node)) {
        info!(%node, "its bells are heard again, or it has stopped");
    }
}
