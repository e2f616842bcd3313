//! What a consumer holds: deliveries that settle themselves.

use std::{any::Any, fmt, sync::Weak};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::Error;

/// One handing-out of one message: a later one of the same message bears a higher attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    /// Which message of its queue.
    pub(crate) seq: u64,
    /// How often it has been handed out, this time included.
    pub(crate) attempt: u32,
}

/// Where a delivery is settled: the queue it was taken from, in either implementation. What is not out under this tag
/// any more is left alone.
#[async_trait]
pub(crate) trait Settle: Send + Sync {
    /// The message is done with. Acks are gathered and become durable soon; one that is lost is a redelivery.
    fn ack(&self, tag: Tag);

    /// The message is to be handed out again.
    fn give_back(&self, tag: Tag);

    /// The message is set aside; returns once that is durable. When this fails the message is still out.
    async fn dead_letter(&self, tag: Tag, reason: String) -> Result<(), Error>;
}

/// Deliveries of one queue, in batches of whatever is there. Dropping it gives back what it was handed.
#[derive(Debug)]
pub struct Consumer {
    /// Dropped before the channel is, so that nothing is sent to a channel that nobody will read.
    _place: Box<dyn Any + Send + Sync>,
    deliveries: mpsc::Receiver<Delivery>,
}

impl Consumer {
    /// A consumer whose `place` in the queue is given up when it is dropped.
    pub(crate) fn new(deliveries: mpsc::Receiver<Delivery>, place: Box<dyn Any + Send + Sync>) -> Self {
        Self { _place: place, deliveries }
    }

    /// Waits for a message, then returns it and what else is there, `max` at most. Empty when the broker is gone.
    pub async fn next(&mut self, max: usize) -> Vec<Delivery> {
        let mut batch = Vec::new();
        self.deliveries.recv_many(&mut batch, max).await;
        batch
    }
}

/// A message taken from a queue. Dropping it gives it back to the queue. It does not keep its broker alive.
#[must_use = "a dropped delivery is handed out again"]
pub struct Delivery {
    body: Bytes,
    tag: Tag,
    settle: Option<Weak<dyn Settle>>,
}

impl Delivery {
    pub(crate) fn new(body: Bytes, tag: Tag, settle: Weak<dyn Settle>) -> Self {
        Self { body, tag, settle: Some(settle) }
    }

    /// What was published.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// How often this message has been handed out, this time included; 1 at first.
    pub fn attempt(&self) -> u32 {
        self.tag.attempt
    }

    /// The message is done with: it will not be handed out again, unless the process dies within moments.
    pub fn ack(mut self) {
        if let Some(settle) = self.settle.take().and_then(|settle| settle.upgrade()) {
            settle.ack(self.tag);
        }
    }

    /// Sets the message aside with a reason for people. It leaves its queue and joins the dead letters in one step.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: the message will be handed out again.
    pub async fn dead_letter(mut self, reason: impl Into<String> + Send) -> Result<(), Error> {
        let settle = self.settle.as_ref().and_then(Weak::upgrade);
        let settle = settle.ok_or_else(|| Error::Unavailable("shutting down".into()))?;
        settle.dead_letter(self.tag, reason.into()).await?;
        self.settle = None;
        Ok(())
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(settle) = self.settle.take().and_then(|settle| settle.upgrade()) {
            settle.give_back(self.tag);
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery").field("tag", &self.tag).finish_non_exhaustive()
    }
}
