//! Which processes run, and who of them has a duty that one at a time may have. Volatile: nodes tell again.

use std::time::Duration;

use async_trait::async_trait;
use model::{Node, NodeId, Run, Timestamp};

use crate::Error;

/// How long a node counts as running after it was last heard of.
pub const NODE_LEASE: Duration = Duration::from_secs(10);

/// Between two signs of life of a node: five fit a lease.
pub const BEAT_EVERY: Duration = Duration::from_secs(2);

/// In so long every node that runs is heard, also when one of its signs of life is lost. And when nobody is heard for
/// less than that, each node is heard again before its lease is over.
pub const ALL_HEARD: Duration = Duration::from_secs(5);

/// Since when nodes say that they run, without a pause in which leases may have ended, and when one last did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The first sign of life after it was quiet, or after all of them were forgotten.
    pub since: Timestamp,
    /// The last one.
    pub last: Timestamp,
}

impl Heard {
    /// What is known after a sign of life at `at`.
    pub(crate) fn again(before: Option<Self>, at: Timestamp) -> Self {
        match before.filter(|before| at <= before.last + ALL_HEARD) {
            Some(Self { since, last }) => Self { since, last: last.max(at) },
            None => Self { since: at, last: at },
        }
    }

    /// Whether every node that runs at `now` has been heard.
    fn is_everybody(self, now: Timestamp) -> bool {
        self.since + ALL_HEARD <= now && now <= self.last + ALL_HEARD
    }
}

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

    /// Since when nodes are heard; nothing when every sign of life is forgotten.
    async fn heard(&self) -> Result<Option<Heard>, Error>;

    /// The runs of these nodes, for whoever takes one that is missing for ended. Unavailable while one that goes on may be
    /// missing: for [`ALL_HEARD`] after the nodes were forgotten, or could not say for so long that they run.
    async fn runs(&self, now: Timestamp) -> Result<Vec<Run>, Error> {
        // In this order: what is forgotten in between is missing there, and not believed here.
        let nodes = self.nodes(now).await?;
        if !self.heard().await?.is_some_and(|heard| heard.is_everybody(now)) {
            return Err(Error::Unavailable("not every node has had time to say that it runs".into()));
        }
        Ok(nodes.into_iter().map(|node| Run { node: node.id, boot: node.boot }).collect())
    }

    /// Takes a duty, or keeps it, until `now` + `lease`. False while another node has it. Two nodes may think that they
    /// have it when one of them was stopped for longer than the lease: what is done under a duty must bear that.
    async fn hold(&self, duty: &str, node: &NodeId, now: Timestamp, lease: Duration) -> Result<bool, Error>;
}
