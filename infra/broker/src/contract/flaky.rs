//! A broker that fails now and then, for tests of those that publish and listen.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use model::{Lane, NodeId, Queue};

use crate::{Bells, Broker, Consumer, DeadLetter, Depth, Error, Publication, Ring, SharedBroker};

/// A broker whose every n-th publish fails: by turns before it took effect, and after, as when a confirm is lost. Every n-th
/// time that somebody wants to listen fails as well.
pub struct Flaky {
    inner: SharedBroker,
    every: u64,
    publishes: AtomicU64,
    listens: AtomicU64,
}

impl Flaky {
    /// Fails every `every`-th time on the way to `inner`; `every` is at least 1.
    pub fn new(inner: SharedBroker, every: u64) -> Self {
        Self { inner, every: every.max(1), publishes: AtomicU64::new(0), listens: AtomicU64::new(0) }
    }
}

#[async_trait]
impl Broker for Flaky {
    async fn publish(&self, batch: Vec<Publication>) -> Result<(), Error> {
        let count = self.publishes.fetch_add(1, Ordering::Relaxed) + 1;
        if !count.is_multiple_of(self.every) {
            return self.inner.publish(batch).await;
        }
        if (count / self.every).is_multiple_of(2) {
            self.inner.publish(batch).await?;
        }
        Err(Error::Unavailable("made to fail".into()))
    }

    fn refuses(&self) -> bool {
        self.inner.refuses()
    }

    async fn consume(&self, queue: Queue, prefetch: usize) -> Result<Consumer, Error> {
        self.inner.consume(queue, prefetch).await
    }

    fn ring(&self, lane: Lane, whom: &Ring, bell: Bytes) {
        self.inner.ring(lane, whom, bell);
    }

    fn bells_dropped(&self) -> u64 {
        self.inner.bells_dropped()
    }

    async fn listen(&self, node: &NodeId, lane: Lane) -> Result<Bells, Error> {
        let count = self.listens.fetch_add(1, Ordering::Relaxed) + 1;
        if count.is_multiple_of(self.every) {
            return Err(Error::Unavailable("made to fail".into()));
        }
        self.inner.listen(node, lane).await
    }

    async fn depth(&self, queue: Queue) -> Result<Depth, Error> {
        self.inner.depth(queue).await
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, Error> {
        self.inner.dead_letters(limit).await
    }
}
