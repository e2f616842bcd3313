//! Which processes run, and who of them has a duty that one at a time may have. Volatile: nodes tell again.

use std::time::Duration;

use async_trait::async_trait;
use model::{Node, NodeId, Timestamp};

use crate::Error;

/// How long a node counts as running after it was last heard of.
pub const NODE_LEASE: Duration = Duration::from_secs(10);

/// Which processes run.
#[async_trait]
pub trait Nodes: Send + Sync {
    /// Says that a node runs, as of its `seen_at`. False when a later run of the same name has said so, and its lease
    /// holds: then nothing changes, and this run should end.
    async fn beat(&self, node: Node) -> Result<bool, Error>;

    /// Says that a node's run ends; a later run's lease is left alone.
    async fn depart(&self, id: &NodeId, boot: Timestamp) -> Result<(), Error>;

    /// The nodes whose lease holds at `now`, by name.
    async fn nodes(&self, now: Timestamp) -> Result<Vec<Node>, Error>;

    /// Takes a duty, or keeps it, until `now` + `lease`. False while another node has it. Two nodes may think that they
    /// have it when one of them was stopped for longer than the lease: what is done under a duty must bear that.
    async fn hold(&self, duty: &str, node: &NodeId, now: Timestamp, lease: Duration) -> Result<bool, Error>;
}
