//! The second level of routing: by receiver. The only place that builds the names of queues.

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
};

use serde::{Deserialize, Serialize};

use crate::{AppId, Lane, Ordinal};

/// Shards of each lane. One machine needs few; they bound what one stuck receiver can hold up.
pub const SHARDS: u8 = 4;

/// Which of a lane's queues a receiver's messages go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shard(u8);

impl Shard {
    /// The shard of one device: all its unicasts go the same way, in order.
    pub fn of_device(app: &AppId, device: Ordinal) -> Self {
        Self::of(&(app.as_str(), device.0))
    }

    /// The shard of an app: its multicasts and broadcasts.
    pub fn of_app(app: &AppId) -> Self {
        Self::of(app.as_str())
    }

    /// Every shard.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SHARDS).map(Self)
    }

    /// The shard's number, below [`SHARDS`].
    pub fn number(self) -> u8 {
        self.0
    }

    fn of<T: Hash + ?Sized>(receiver: &T) -> Self {
        let mut hasher = DefaultHasher::new();
        receiver.hash(&mut hasher);
        #[expect(clippy::cast_possible_truncation, reason = "a remainder of SHARDS fits a u8")]
        Self((hasher.finish() % u64::from(SHARDS)) as u8)
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
        assert_eq!(Shard::of_device(&app, Ordinal(7)), Shard::of_device(&app, Ordinal(7)));
        let used: std::collections::BTreeSet<_> = (0..64).map(|o| Shard::of_device(&app, Ordinal(o))).collect();
        assert_eq!(used.len(), usize::from(SHARDS));
    }
}
