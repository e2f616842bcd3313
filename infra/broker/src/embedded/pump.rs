//! The task of a queue that hands out its messages, and does what has to be durable before one can be.

use std::sync::{Arc, Weak};

use engine::Tx;

use super::{
    key,
    queue::Queue,
    supply::Next,
    window::{self, Message},
};
use crate::{Error, delivery::Settle};

/// How far ahead the mark is raised. So often a hand-out waits for the disk, and so many messages that were not handed
/// out are counted as if they had been, and taken one at a time, after a crash: a quarter of a second of work.
const MARK_STEP: u64 = 256;

/// Messages read at once, before others get their turn on this thread: about a millisecond.
const REFILL_MESSAGES: usize = 1_000;

/// Runs until the queue is closed. Each turn hands out all that can be and waits for what the next message takes.
pub(super) async fn run(queue: Arc<Queue>) {
    let settle: Weak<dyn Settle> = queue.me.clone();
    loop {
        let next = queue.state.lock().hand_out(&settle);
        let done = match next {
            Next::Wait => {
                queue.changed.notified().await;
                Ok(())
            }
            Next::Refill(from) => queue.refill(from),
            Next::Mark(seq) => queue.raise_mark(seq + MARK_STEP).await,
            Next::Count { seq, attempt } => queue.count(seq, attempt).await,
            Next::Stop => return,
        };
        if let Err(error) = done {
            tracing::error!(queue = %queue.name, %error, "a queue hands out nothing more");
            queue.close(error);
        }
    }
}

impl Queue {
    /// Reads messages on from `from`, as many as fit.
    fn refill(&self, from: u64) -> Result<(), Error> {
        let range = key::message(self.name, from)..=key::message(self.name, u64::MAX);
        let mut read = Vec::new();
        let mut bytes = 0;
        for entry in self.shared.spaces.messages.range(range).take(REFILL_MESSAGES) {
            let (key, value) = entry?;
            let (seq, (_, body)) = (key::seq(&key)?, key::decode_message(&value)?);
            bytes += body.len();
            read.push(Message { seq, body });
            if bytes > window::BYTES_MAX {
                break;
            }
        }
        if read.first().is_none_or(|first| first.seq != from) {
            return Err(Error::Corrupt(format!("message {from} of queue {} is missing", self.name)));
        }
        self.state.lock().supply.add(read);
        Ok(())
    }

    /// Makes it durable that messages up to `mark` may have been handed out.
    async fn raise_mark(&self, mark: u64) -> Result<(), Error> {
        let Some(queue) = self.me.upgrade() else {
            return Ok(());
        };
        let step = move |tx: &mut Tx<'_>| {
            let ledger = queue.state.lock().mark(mark);
            queue.keep(tx, ledger);
        };
        self.shared.engine()?.write(step).await?;
        self.state.lock().supply.marked(mark);
        Ok(())
    }

    /// Makes it durable that a suspect is handed out once more, and fetches it. What was acked before goes in the same
    /// step: the suspects before this one must not be counted again because this one kills the process.
    async fn count(&self, seq: u64, attempt: u32) -> Result<(), Error> {
        let Some(queue) = self.me.upgrade() else {
            return Ok(());
        };
        let key = key::message(self.name, seq);
        let step = move |tx: &mut Tx<'_>| {
            queue.settle(tx);
            tx.insert(&queue.shared.spaces.attempts, key, key::encode_attempts(attempt));
        };
        self.shared.engine()?.write(step).await?;
        let value = self.shared.spaces.messages.get(key)?;
        let value = value.ok_or_else(|| Error::Corrupt(format!("message {seq} of queue {} is missing", self.name)))?;
        let (_, body) = key::decode_message(&value)?;
        self.state.lock().supply.counted(Message { seq, body }, attempt);
        Ok(())
    }
}
