//! Which filter node is asked about an app: of those that run, the one that the hash of both names puts first, so that
//! each app has one index, and only the apps of a node that comes or goes move.

use std::{collections::HashMap, sync::Arc, time::Duration};

use model::{AppId, Clock, Node, NodeId, Tier, Timestamp};
use parking_lot::Mutex;
use store::{SharedStore, nodes::NODE_LEASE};
use tokio::{sync::Mutex as Turn, time::Instant};
use tracing::debug;
use xxhash_rust::xxh3::xxh3_64;

/// How long the nodes that were seen are believed: a new one has its share so soon.
const SEEN_FOR: Duration = Duration::from_secs(1);
/// How long a node that did not answer is asked last: then it runs again, or its lease is over.
const SUSPECT_FOR: Duration = NODE_LEASE;

/// A filter node that says it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    id: NodeId,
    boot: Timestamp,
    /// Where it answers.
    pub(super) address: String,
}

/// Knows the filter nodes.
pub(super) struct Whom {
    store: SharedStore,
    clock: Arc<dyn Clock>,
    seen: Turn<Option<(Instant, Arc<[Peer]>)>>,
    /// Runs of nodes that did not answer, and until when to ask others first. No more than there are nodes.
    suspects: Mutex<HashMap<(NodeId, Timestamp), Instant>>,
}

impl Whom {
    pub(super) fn new(store: SharedStore, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, seen: Turn::default(), suspects: Mutex::default() }
    }

    /// Whom to ask about an app, the right one first.
    pub(super) async fn of(&self, app: &AppId) -> Vec<Peer> {
        let peers = self.peers().await;
        let (suspects, now) = (self.suspects.lock(), Instant::now());
        let suspect = |peer: &Peer| suspects.get(&(peer.id.clone(), peer.boot)).is_some_and(|until| now < *until);
        let mut ranked: Vec<_> = peers.iter().map(|peer| ((suspect(peer), !weight(app, &peer.id)), peer)).collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.into_iter().map(|(_, peer)| peer.clone()).collect()
    }

    /// It did not answer: others are asked first for a while, unless it is started again.
    pub(super) fn suspect(&self, peer: &Peer) {
        let (mut suspects, now) = (self.suspects.lock(), Instant::now());
        suspects.retain(|_, until| now < *until);
        suspects.insert((peer.id.clone(), peer.boot), now + SUSPECT_FOR);
    }

    /// Those that run, as far as is known; while the store is away, those known before.
    async fn peers(&self) -> Arc<[Peer]> {
        let mut seen = self.seen.lock().await;
        if let Some((at, peers)) = &*seen
            && at.elapsed() < SEEN_FOR
        {
            return peers.clone();
        }
        let peers = match self.store.nodes(self.clock.now()).await {
            Ok(nodes) => nodes.into_iter().filter_map(peer).collect(),
            Err(error) => {
                debug!(%error, "cannot see which filter nodes run; those known count");
                seen.take().map_or_else(Arc::default, |(_, peers)| peers)
            }
        };
        seen.insert((Instant::now(), peers)).1.clone()
    }
}

fn peer(node: Node) -> Option<Peer> {
    let answers = node.tiers.contains(&Tier::Filter);
    Some(Peer { id: node.id, boot: node.boot, address: node.filter.filter(|_| answers)? })
}

fn weight(app: &AppId, node: &NodeId) -> u64 {
    xxh3_64(format!("{app} {node}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first<'a>(app: &AppId, nodes: &'a [NodeId]) -> &'a NodeId {
        nodes.iter().max_by_key(|node| weight(app, node)).unwrap()
    }

    #[test]
    fn apps_spread_evenly_and_only_those_of_a_node_that_goes_move() {
        let nodes: Vec<NodeId> = (0..4).map(|n| format!("filter{n}").parse().unwrap()).collect();
        let apps: Vec<AppId> = (0..4_000).map(|n| format!("app-{n}").parse().unwrap()).collect();
        for node in &nodes {
            let share = apps.iter().filter(|app| first(app, &nodes) == node).count();
            assert!((850..1_150).contains(&share), "{node}: {share}");
        }
        for app in &apps {
            let before = first(app, &nodes);
            assert!(before == &nodes[3] || first(app, &nodes[..3]) == before);
        }
    }
}
