//! Which processes run: in memory, since the only ones that could ask run in this process.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use async_trait::async_trait;
use model::{Node, NodeId, Timestamp};
use parking_lot::Mutex;

use super::Embedded;
use crate::{
    Error, Nodes,
    nodes::{Heard, NODE_LEASE},
};

/// The nodes and their duties; as many as there are processes.
#[derive(Default)]
pub(super) struct Leases(Mutex<State>);

#[derive(Default)]
struct State {
    nodes: BTreeMap<NodeId, Node>,
    heard: Option<Heard>,
    duties: HashMap<String, (NodeId, Timestamp)>,
}

fn runs(node: &Node, now: Timestamp) -> bool {
    now < node.seen_at + NODE_LEASE
}

#[async_trait]
impl Nodes for Embedded {
    async fn beat(&self, node: Node) -> Result<bool, Error> {
        let mut state = self.leases.0.lock();
        let known = state.nodes.get(&node.id);
        if known.is_some_and(|known| known.boot > node.boot && runs(known, node.seen_at)) {
            return Ok(false);
        }
        state.heard = Some(Heard::again(state.heard, node.seen_at));
        state.nodes.insert(node.id.clone(), node);
        Ok(true)
    }

    async fn depart(&self, id: &NodeId, boot: Timestamp) -> Result<(), Error> {
        let mut state = self.leases.0.lock();
        if state.nodes.get(id).is_some_and(|node| node.boot == boot) {
            state.nodes.remove(id);
        }
        Ok(())
    }

    async fn nodes(&self, now: Timestamp) -> Result<Vec<Node>, Error> {
        let mut state = self.leases.0.lock();
        state.nodes.retain(|_, node| runs(node, now));
        Ok(state.nodes.values().cloned().collect())
    }

    async fn heard(&self) -> Result<Option<Heard>, Error> {
        Ok(self.leases.0.lock().heard)
    }

    async fn hold(&self, duty: &str, node: &NodeId, now: Timestamp, lease: Duration) -> Result<bool, Error> {
        let mut state = self.leases.0.lock();
        if state.duties.get(duty).is_some_and(|(holder, until)| holder != node && now < *until) {
            return Ok(false);
        }
        state.duties.insert(duty.to_owned(), (node.clone(), now + lease));
        Ok(true)
    }
}
