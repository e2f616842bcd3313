//! The second level of routing: by receiver. The only place that builds the names of queues.

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
};

use serde::{Deserialize, Serialize};

use crate::{AppId, Lane, NodeId, Ordinal};

/// Shards of each lane: all are served, whether or not all are used. They bound what one stuck receiver can hold up.
pub const SHARDS: u8 = 4;

/// Which of a lane's queues a receiver's messages go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shard(u8);

impl Shard {
    /// The shard of one device, among the first `used`, at least one: all its unicasts go the same way, in order. A
    /// broker's cost is by what travels together, so fewer are cheaper; one for each of its nodes uses them all.
    pub fn of_device(app: &AppId, device: Ordinal, used: u8) -> Self {
        Self::of(&(app.as_str(), device.0), used)
    }

    /// The shard of an app: its multicasts and broadcasts.
    pub fn of_app(app: &AppId) -> Self {
        Self::of(app.as_str(), SHARDS)
    }

    /// Every shard.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SHARDS).map(Self)
    }

    /// The shard's number, below [`SHARDS`].
    pub fn number(self) -> u8 {
        self.0
    }

    fn of<T: Hash + ?Sized>(receiver: &T, used: u8) -> Self {
        let mut hasher = DefaultHasher::new();
        receiver.hash(&mut hasher);
        #[expect(clippy::cast_possible_truncation, reason = "a remainder of SHARDS or less fits a u8")]
        Self((hasher.finish() % u64::from(used.clamp(1, SHARDS))) as u8)
    }
}

/// A durable queue of the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Queue {
    /// Envelopes of one lane and shard.
    Push(Lane, Shard),
    /// Receipts, from access points to stats.
    Receipts,
    /// What devices sent up, from access points to ingest.
    Uplink,
    /// Attributes that devices report, from access points to the filter.
    Reports,
}

impl Queue {
    /// Every durable queue there is.
    pub fn all() -> impl Iterator<Item = Self> {
        let lanes = Lane::ALL.into_iter().flat_map(|lane| Shard::all().map(move |shard| Self::Push(lane, shard)));
        lanes.chain([Self::Receipts, Self::Uplink, Self::Reports])
    }

    /// Whether its messages stay in order whatever happens to their consumers: one at a time takes from it, and what one
    /// leaves behind goes to the next before anything later.
    pub fn is_in_order(self) -> bool {
        matches!(self, Self::Reports)
    }

    /// The first routing level of this queue, if it is a lane's.
    pub fn lane(self) -> Option<Lane> {
        match self {
            Self::Push(lane, _) => Some(lane),
            Self::Receipts | Self::Uplink | Self::Reports => None,
        }
    }
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Push(lane, shard) => write!(f, "push.{lane}.{}", shard.0),
            Self::Receipts => f.write_str("receipts"),
            Self::Uplink => f.write_str("uplink"),
            Self::Reports => f.write_str("reports"),
        }
    }
}

/// The names of the exchanges, queues and keys of one deployment, all with its prefix. The first level routes by lane
/// (`push` to `push.<lane>`, `bell` to `bell.<lane>`), the second by receiver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    prefix: String,
}

impl Names {
    /// The names of the deployment with this prefix; empty when it has the broker for itself.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into() }
    }

    /// A durable queue.
    pub fn queue(&self, queue: Queue) -> String {
        self.named(queue)
    }

    /// The queue beside it, of those of its messages that were handed out before.
    pub fn retry(&self, queue: Queue) -> String {
        self.named(format_args!("{queue}.retry"))
    }

    /// The queue of dead letters.
    pub fn dead(&self) -> String {
        self.named("dead")
    }

    /// The exchange that envelopes are published to.
    pub fn push(&self) -> String {
        self.named("push")
    }

    /// The exchange of one lane's envelopes.
    pub fn push_lane(&self, lane: Lane) -> String {
        self.named(format_args!("push.{lane}"))
    }

    /// The exchange that bells are published to.
    pub fn bell(&self) -> String {
        self.named("bell")
    }

    /// The exchange of one lane's bells.
    pub fn bell_lane(&self, lane: Lane) -> String {
        self.named(format_args!("bell.{lane}"))
    }

    /// The queue of one access point's bells in one lane; `listener` tells apart those that listen for it.
    pub fn bell_queue(&self, lane: Lane, node: &NodeId, listener: &str) -> String {
        self.named(format_args!("bell.{lane}.{node}.{listener}"))
    }

    /// The routing key of a lane's envelopes for one shard.
    pub fn push_key(lane: Lane, shard: Shard) -> String {
        format!("{lane}.{}", shard.0)
    }

    /// The routing key of a bell for one access point.
    pub fn bell_one(lane: Lane, node: &NodeId) -> String {
        format!("{lane}.one.{node}")
    }

    /// The routing key of a bell for every access point.
    pub fn bell_all(lane: Lane) -> String {
        format!("{lane}.all")
    }

    /// What matches every routing key of a lane.
    pub fn lane_keys(lane: Lane) -> String {
        format!("{lane}.#")
    }

    fn named(&self, name: impl fmt::Display) -> String {
        format!("{}{name}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_a_device_keeps_its_shard() {
        let names: Vec<String> = Queue::all().map(|queue| queue.to_string()).collect();
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
        assert!(names.contains(&"push.unicast.0".to_owned()));
        let app: AppId = "demo".parse().unwrap();
        for used in 1..=SHARDS {
            let shard = |device| Shard::of_device(&app, Ordinal(device), used);
            assert_eq!(shard(7), shard(7));
            let shards: std::collections::BTreeSet<_> = (0..64).map(shard).collect();
            assert_eq!(shards.len(), usize::from(used));
        }
    }

    #[test]
    fn a_prefix_keeps_deployments_apart() {
        let (plain, blue) = (Names::default(), Names::new("blue."));
        let queue = Queue::Push(Lane::Unicast, Shard(3));
        assert_eq!((plain.queue(queue), blue.queue(queue)), ("push.unicast.3".into(), "blue.push.unicast.3".into()));
        assert_eq!(blue.retry(Queue::Receipts), "blue.receipts.retry");
        let node = "one".parse().unwrap();
        assert_eq!(blue.bell_queue(Lane::Broadcast, &node, "x"), "blue.bell.broadcast.one.x");
    }
}
