//! A queue: its state in memory, and the steps that write down what the state decides.
//!
//! Lock order: a queue's state is the only lock taken here, never two at once, and never while waiting.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use engine::{Engine, Tx};
use model::{Clock, Timestamp};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use super::{
    dead::DeadLetters,
    key::{self, Ledger, Spaces},
    state::{Settled, State},
    window::Message,
};
use crate::{
    Consumer, DeadLetter, Depth, Error, Limits,
    consumers::{ConsumerId, PREFETCH_MAX},
    delivery::{Settle, Tag},
};

/// What the queues of one broker share.
pub(super) struct Shared {
    /// Weak, since a step that owned the engine would have the committer's thread wait for itself.
    engine: Weak<Engine>,
    pub(super) spaces: Spaces,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) limits: Limits,
    pub(super) dead: DeadLetters,
    /// Something has been acked.
    pub(super) acked: Notify,
}

impl Shared {
    pub(super) fn new(engine: &Arc<Engine>, clock: Arc<dyn Clock>, limits: Limits) -> Result<Self, Error> {
        let spaces = Spaces::open(engine)?;
        let dead = DeadLetters::open(spaces.dead.clone())?;
        Ok(Self { engine: Arc::downgrade(engine), spaces, clock, limits, dead, acked: Notify::new() })
    }

    pub(super) fn engine(&self) -> Result<Arc<Engine>, Error> {
        self.engine.upgrade().ok_or_else(|| Error::Unavailable("shutting down".into()))
    }
}

pub(super) struct Queue {
    pub(super) name: model::Queue,
    pub(super) shared: Arc<Shared>,
    /// Something changed that may let a message be handed out.
    pub(super) changed: Notify,
    pub(super) state: Mutex<State>,
    pub(super) me: Weak<Queue>,
}

impl Queue {
    pub(super) fn new(name: model::Queue, shared: Arc<Shared>, state: State) -> Arc<Self> {
        Arc::new_cyclic(|me| Self { name, shared, changed: Notify::new(), state: Mutex::new(state), me: me.clone() })
    }

    /// Lets a consumer in.
    pub(super) fn join(&self, prefetch: usize) -> Result<Consumer, Error> {
        let prefetch = prefetch.clamp(1, PREFETCH_MAX);
        let (deliveries, taken) = mpsc::channel(prefetch);
        let mut state = self.state.lock();
        state.open()?;
        let id = state.consumers.join(prefetch, deliveries);
        drop(state);
        self.changed.notify_one();
        Ok(Consumer::new(taken, Box::new(Place { queue: self.me.clone(), id })))
    }

    fn leave(&self, id: ConsumerId) {
        let mut state = self.state.lock();
        state.give_back_all(id);
        let sender = state.consumers.leave(id);
        drop(state);
        drop(sender);
        self.changed.notify_one();
    }

    /// Nothing is handed out or published from now on; consumers hear what they were handed, then nothing.
    pub(super) fn close(&self, why: Error) {
        let mut state = self.state.lock();
        state.close(why);
        let senders = state.consumers.leave_all();
        drop(state);
        drop(senders);
        self.changed.notify_one();
    }

    /// That there is room for this batch. Part of a step.
    pub(super) fn room_for(&self, bodies: &[Bytes]) -> Result<(), Error> {
        let state = self.state.lock();
        state.open()?;
        if state.room_for(bodies, self.shared.limits) { Ok(()) } else { Err(Error::Full(self.name)) }
    }

    /// Writes a batch down, and has it handed out: whatever comes of it is flushed after it, and a group that cannot be
    /// flushed ends the process. Part of a step. Gives the seq after the last.
    pub(super) fn append(&self, tx: &mut Tx<'_>, at: Timestamp, bodies: Vec<Bytes>) -> u64 {
        let (messages, end, ledger) = self.state.lock().append(bodies);
        for Message { seq, body } in &messages {
            tx.insert(&self.shared.spaces.messages, key::message(self.name, *seq), key::encode_message(at, body));
        }
        self.keep(tx, ledger);
        self.state.lock().supply.add(messages);
        self.changed.notify_one();
        end
    }

    /// All messages before `end` are durable.
    pub(super) fn flushed(&self, end: u64) {
        if self.state.lock().supply.flushed(end) {
            self.changed.notify_one();
        }
    }

    /// Removes what was acked. Part of a step.
    pub(super) fn settle(&self, tx: &mut Tx<'_>) {
        let settled = self.state.lock().settle();
        if let Some((settled, ledger)) = settled {
            settled.iter().for_each(|settled| self.remove(tx, settled));
            self.keep(tx, ledger);
        }
    }

    /// Moves the mark back to what has really been handed out, so that opening again suspects nothing else. Part of
    /// the last step of a closed queue.
    pub(super) fn settle_mark(&self, tx: &mut Tx<'_>) {
        let mut state = self.state.lock();
        let taken = state.supply.taken();
        let ledger = state.mark(taken);
        drop(state);
        self.keep(tx, ledger);
    }

    /// Writes the ledger down. Part of a step.
    pub(super) fn keep(&self, tx: &mut Tx<'_>, ledger: Ledger) {
        tx.insert(&self.shared.spaces.queues, key::queue(self.name), ledger.encode());
    }

    fn remove(&self, tx: &mut Tx<'_>, settled: &Settled) {
        let key = key::message(self.name, settled.seq);
        tx.remove(&self.shared.spaces.messages, key);
        if settled.counted {
            tx.remove(&self.shared.spaces.attempts, key);
        }
    }

    pub(super) fn depth(&self) -> Result<Depth, Error> {
        let state = self.state.lock();
        state.open()?;
        let ((ready, unacked), lowest) = (state.counts(), state.lowest());
        drop(state);
        let oldest = self.shared.spaces.messages.get(key::message(self.name, lowest))?;
        let oldest = oldest.map(|value| key::decode_message(&value)).transpose()?;
        let oldest_age = oldest.map(|(at, _)| self.shared.clock.now().since(at)).unwrap_or_default();
        Ok(Depth { ready, unacked, oldest_age })
    }
}

#[async_trait]
impl Settle for Queue {
    fn ack(&self, tag: Tag) {
        if self.state.lock().ack(tag) {
            self.shared.acked.notify_one();
            self.changed.notify_one();
        }
    }

    fn give_back(&self, tag: Tag) {
        if self.state.lock().give_back(tag) {
            self.changed.notify_one();
        }
    }

    async fn dead_letter(&self, tag: Tag, reason: String) -> Result<(), Error> {
        let Some(queue) = self.me.upgrade() else {
            return Err(Error::Unavailable("shutting down".into()));
        };
        let at = self.shared.clock.now();
        let step = move |tx: &mut Tx<'_>| {
            // What is decided here stands: a group that fails ends the process.
            let taken = queue.state.lock().set_aside(tag);
            let Some((message, settled, ledger)) = taken else {
                return Err(Error::Unavailable("the message was handed out again".into()));
            };
            queue.remove(tx, &settled);
            queue.keep(tx, ledger);
            queue.shared.dead.insert(tx, &DeadLetter { queue: queue.name, body: message.body, reason, at });
            queue.changed.notify_one();
            Ok(())
        };
        self.shared.engine()?.write(step).await?
    }
}

/// A consumer's place in a queue, given up when it is dropped.
struct Place {
    queue: Weak<Queue>,
    id: ConsumerId,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.upgrade() {
            queue.leave(self.id);
        }
    }
}
