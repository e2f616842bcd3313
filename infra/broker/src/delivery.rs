//! What a consumer holds: deliveries that settle themselves.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::Error;

/// Where a delivery is settled: the queue it was taken from, in either implementation.
#[async_trait]
pub(crate) trait Settle: Send + Sync {
    /// The message is done with. Acks are gathered and become durable soon; one that is lost is a redelivery.
    fn ack(&self, tag: u64);

    /// The message is to be handed out again.
    fn give_back(&self, tag: u64);

    /// The message is set aside; returns once that is durable.
    async fn dead_letter(&self, tag: u64, reason: String) -> Result<(), Error>;
}

/// Deliveries of one queue, in batches of whatever is there. Dropping it gives back what it was handed.
#[derive(Debug)]
pub struct Consumer {
    deliveries: mpsc::Receiver<Delivery>,
}

impl Consumer {
    pub(crate) fn new(deliveries: mpsc::Receiver<Delivery>) -> Self {
        Self { deliveries }
    }

    /// Waits for a message, then returns it and what else is there, `max` at most. Empty when the broker is gone.
    pub async fn next(&mut self, max: usize) -> Vec<Delivery> {
        let mut batch = Vec::new();
        self.deliveries.recv_many(&mut batch, max).await;
        batch
    }
}

/// A message taken from a queue. Dropping it gives it back to the queue.
#[must_use = "a dropped delivery is handed out again"]
pub struct Delivery {
    body: Bytes,
    attempt: u32,
    tag: u64,
    settle: Option<Arc<dyn Settle>>,
}

impl Delivery {
    pub(crate) fn new(body: Bytes, attempt: u32, tag: u64, settle: Arc<dyn Settle>) -> Self {
        Self { body, attempt, tag, settle: Some(settle) }
    }

    /// What was published.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// How often this message has been handed out, this time included; 1 at first.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The message is done with: it will not be handed out again, unless the process dies within moments.
    pub fn ack(mut self) {
        if let Some(settle) = self.settle.take() {
            settle.ack(self.tag);
        }
    }

    /// Sets the message aside with a reason for people. It leaves its queue and joins the dead letters in one step.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: the message will be handed out again.
    pub async fn dead_letter(mut self, reason: impl Into<String> + Send) -> Result<(), Error> {
        match self.settle.take() {
            Some(settle) => settle.dead_letter(self.tag, reason.into()).await,
            None => Ok(()),
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(settle) = self.settle.take() {
            settle.give_back(self.tag);
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery").field("tag", &self.tag).field("attempt", &self.attempt).finish_non_exhaustive()
    }
}
