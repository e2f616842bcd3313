//! The broker: durable queues between the tiers, and bells to access points.
//!
//! [`Broker`] has exactly two implementations, chosen by URL: [`embedded`] (durable, in `data_dir`) and [`rabbit`]. What
//! it promises stands in the doc comments below and is repeated, one test a promise, in `contract`, which both
//! implementations run.

mod consumers;
#[cfg(feature = "contract")]
pub mod contract;
pub mod delivery;
pub mod embedded;
pub mod rabbit;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use model::{Lane, NodeId, Queue, Timestamp};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::{Notify, mpsc};

pub use delivery::{Consumer, Delivery};

/// Why the broker did not do what was asked, by what the caller can do about it.
#[derive(Clone, Debug, Error)]
pub enum Error {
    /// Not now: whether a publish took effect is unknown. Try again with the same message ids.
    #[error("broker unavailable: {0}")]
    Unavailable(String),
    /// The queue holds as much as it may; nothing was published. Try again when it has drained.
    #[error("queue {0} is full")]
    Full(Queue),
    /// What the broker keeps cannot be trusted: stop and restore.
    #[error("broker damaged: {0}")]
    Corrupt(String),
}

/// How much a queue may hold; a batch that would make it more is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Messages in one queue.
    pub messages_max: u64,
    /// Bytes of their bodies.
    pub bytes_max: u64,
}

impl Default for Limits {
    /// A million messages or 512 MiB: minutes of backlog, and 8 GB of disk when all queues are full.
    fn default() -> Self {
        Self { messages_max: 1_000_000, bytes_max: 512 * 1024 * 1024 }
    }
}

/// One message for one queue.
#[derive(Clone, Debug)]
pub struct Publication {
    /// Where to.
    pub queue: Queue,
    /// What.
    pub body: Bytes,
}

/// Who should hear a bell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ring {
    /// One access point.
    One(NodeId),
    /// Every access point.
    All,
}

/// What waits in a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Waiting to be taken.
    pub ready: u64,
    /// Taken and not settled.
    pub unacked: u64,
    /// How long the oldest of them has been here.
    pub oldest_age: Duration,
}

/// A message that was set aside, with the reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Where it was.
    pub queue: Queue,
    /// What it is.
    pub body: Bytes,
    /// Why it was set aside, for people.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// Durable queues and bells.
#[async_trait]
pub trait Broker: Send + Sync {
    /// Publishes a batch and returns once every message of it is confirmed: it survives the loss of this process (and
    /// of any one node, where the broker has three), and will be handed to a consumer of its queue until one acks it.
    /// Messages of one batch for one queue are handed out in the order given, after those confirmed before.
    ///
    /// A queue that is full refuses the batch; nothing is ever dropped to make room. A message that no queue would
    /// take is an error, never a silent confirm.
    ///
    /// # Errors
    /// [`Error::Full`]: nothing was published. [`Error::Unavailable`]: any part may have been.
    async fn publish(&self, batch: Vec<Publication>) -> Result<(), Error>;

    /// Whether it refuses every publication at present for want of memory or disk, as far as it has said so.
    fn refuses(&self) -> bool;

    /// Takes messages from a queue, at most `prefetch` unsettled at a time. Consumers of one queue share it.
    ///
    /// A message whose [`Delivery`] is dropped, or whose consumer or process is gone, is handed out again, to any
    /// consumer, with a higher [`attempt`](Delivery::attempt). That number is durable: it rises also when the process
    /// that handled the message dies, and only for messages that were being handled then, or were among the next
    /// thousand to be; such messages are handed out before all others and one at a time, so a message that kills its
    /// handler takes no neighbour along.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the queue cannot be reached.
    async fn consume(&self, queue: Queue, prefetch: usize) -> Result<Consumer, Error>;

    /// Rings: hands `bell` to the access points that [`listen`](Broker::listen) in this lane. At most once, in memory,
    /// never waiting: a bell is dropped when its bounded queue is full or the broker is blocked. An ack must never
    /// depend on it.
    fn ring(&self, lane: Lane, whom: &Ring, bell: Bytes);

    /// Grows when bells that were rung here were dropped, or may have been.
    fn bells_dropped(&self) -> u64;

    /// Hears the bells of one lane, as the access point `node`. A second listener of the same node and lane replaces
    /// the first.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the broker cannot be reached.
    async fn listen(&self, node: &NodeId, lane: Lane) -> Result<Bells, Error>;

    /// What waits in a queue.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the broker cannot be reached.
    async fn depth(&self, queue: Queue) -> Result<Depth, Error>;

    /// The oldest messages that were set aside, at most `limit` of them.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the broker cannot be reached.
    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, Error>;
}

/// Bells waiting to be heard; bounded, the newest are dropped when it is full.
#[derive(Debug)]
pub struct Bells {
    bells: mpsc::Receiver<Bytes>,
    gaps: Gaps,
}

impl Bells {
    /// The next bell; `None` when somebody else listens in this place now, or the broker is gone.
    pub async fn heard(&mut self) -> Option<Bytes> {
        self.bells.recv().await
    }

    /// Where its gaps are told of.
    pub fn gaps(&self) -> Gaps {
        self.gaps.clone()
    }
}

/// Tells a listener that there may have been bells that it did not hear: before it listened, while its broker could not
/// be reached, when too many waited.
#[derive(Clone, Debug, Default)]
pub struct Gaps(Arc<Notify>);

impl Gaps {
    /// Waits for a gap, unless there was one since the last was told of; the first is where listening begins. What was
    /// announced in it is to be looked for.
    pub async fn next(&self) {
        self.0.notified().await;
    }

    fn tell(&self) {
        self.0.notify_one();
    }
}

/// A broker, shared.
pub type SharedBroker = Arc<dyn Broker>;
