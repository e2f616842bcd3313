//! The broker in this process: queues as key ranges of the embedded engine.
//!
//! A batch is one step of the engine's next group, whatever queues it goes to, and is confirmed when the group is on
//! disk. Its messages join the part of their queue that is in memory as soon as they are written, from which the queue's
//! own task hands them to consumers while the disk is still flushing; what does not fit there is read back when its turn
//! comes. Acks are gathered and go with a later group. After a crash, what had been handed out is suspected of it, and
//! handed out again with care.

mod bells;
mod dead;
mod key;
mod pump;
mod queue;
mod recovery;
mod state;
mod supply;
#[cfg(test)]
mod tests;
mod window;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use engine::{Engine, Tx};
use model::{Clock, Lane, NodeId, Timestamp};
use tokio::task::JoinSet;

pub use crate::Limits;
use crate::{Bells, Broker, Consumer, DeadLetter, Depth, Error, Publication, Ring};
use bells::Belfry;
use queue::{Queue, Shared};

/// How long acks are gathered: a flush for each would take every second turn of the disk from publishers.
const ACKS_GATHERED: Duration = Duration::from_millis(5);

/// The broker in this process. Dropping it ends every consumer and listener; what was acked in the last moments may
/// then be handed out again, unless it was [closed](Embedded::close).
pub struct Embedded {
    engine: Arc<Engine>,
    shared: Arc<Shared>,
    queues: Arc<HashMap<model::Queue, Arc<Queue>>>,
    belfry: Belfry,
    /// One a queue, and the one that flushes acks; they end with this.
    _tasks: JoinSet<()>,
}

impl Embedded {
    /// Opens the queues in `engine`, in the state the last process left them. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when what is there is not what was written.
    pub fn open(engine: Arc<Engine>, clock: Arc<dyn Clock>, limits: Limits) -> Result<Arc<Self>, Error> {
        let shared = Arc::new(Shared::new(&engine, clock, limits)?);
        let queues: HashMap<_, _> = recovery::open(&shared)?.into_iter().map(|queue| (queue.name, queue)).collect();
        let queues = Arc::new(queues);
        let mut tasks: JoinSet<()> = queues.values().cloned().map(pump::run).collect();
        tasks.spawn(flush_acks(Arc::clone(&shared), Arc::clone(&queues)));
        Ok(Arc::new(Self { engine, shared, queues, belfry: Belfry::default(), _tasks: tasks }))
    }

    /// Stops handing out and taking in, and returns once every ack so far is durable. What is still out then is handed
    /// out again when the broker is next opened, with a higher attempt.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the engine is shutting down.
    pub async fn close(&self) -> Result<(), Error> {
        self.stop();
        let queues = Arc::clone(&self.queues);
        let step = move |tx: &mut Tx<'_>| {
            for queue in queues.values() {
                queue.settle(tx);
                queue.settle_mark(tx);
            }
        };
        Ok(self.engine.write(step).await?)
    }

    /// Dead letters that were dropped to keep newer ones.
    pub fn dead_letters_dropped(&self) -> u64 {
        self.shared.dead.dropped()
    }

    fn queue(&self, name: model::Queue) -> Result<&Arc<Queue>, Error> {
        self.queues.get(&name).ok_or_else(|| Error::Unavailable(format!("there is no queue {name}")))
    }

    fn stop(&self) {
        for queue in self.queues.values() {
            queue.close(Error::Unavailable("shutting down".into()));
        }
        self.belfry.close();
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.stop();
    }
}

#[async_trait]
impl Broker for Embedded {
    async fn publish(&self, batch: Vec<Publication>) -> Result<(), Error> {
        self.engine.room()?;
        let mut bodies: BTreeMap<model::Queue, Vec<Bytes>> = BTreeMap::new();
        for Publication { queue, body } in batch {
            bodies.entry(queue).or_default().push(body);
        }
        let parts = bodies.into_iter().map(|(name, bodies)| Ok((Arc::clone(self.queue(name)?), bodies)));
        let parts = parts.collect::<Result<Vec<_>, Error>>()?;
        let at = self.shared.clock.now();
        let tell = |appended: Result<Vec<Part<u64>>, Error>| {
            appended.map(|parts| parts.into_iter().for_each(|(queue, end)| queue.flushed(end)))
        };
        self.engine.write_then(move |tx| append(tx, at, parts), tell).await?
    }

    fn refuses(&self) -> bool {
        self.engine.room().is_err()
    }

    async fn consume(&self, queue: model::Queue, prefetch: usize) -> Result<Consumer, Error> {
        self.queue(queue)?.join(prefetch)
    }

    fn ring(&self, lane: Lane, whom: &Ring, bell: Bytes) {
        self.belfry.ring(lane, whom, &bell);
    }

    fn bells_dropped(&self) -> u64 {
        self.belfry.dropped()
    }

    async fn listen(&self, node: &NodeId, lane: Lane) -> Result<Bells, Error> {
        Ok(self.belfry.listen(node, lane))
    }

    async fn depth(&self, queue: model::Queue) -> Result<Depth, Error> {
        self.queue(queue)?.depth()
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, Error> {
        self.shared.dead.list(limit)
    }
}

/// The part of a batch that goes to one queue.
type Part<T> = (Arc<Queue>, T);

/// Writes a batch down when every queue of it has room. Part of a step: nothing else changes a queue's size meanwhile.
fn append(tx: &mut Tx<'_>, at: Timestamp, parts: Vec<Part<Vec<Bytes>>>) -> Result<Vec<Part<u64>>, Error> {
    for (queue, bodies) in &parts {
        queue.room_for(bodies)?;
    }
    let append = |(queue, bodies): Part<_>| {
        let end = queue.append(tx, at, bodies);
        (queue, end)
    };
    Ok(parts.into_iter().map(append).collect())
}

/// Removes what was acked, all queues in one step, as soon as the step before is done and a few more have gathered.
async fn flush_acks(shared: Arc<Shared>, queues: Arc<HashMap<model::Queue, Arc<Queue>>>) {
    loop {
        shared.acked.notified().await;
        tokio::time::sleep(ACKS_GATHERED).await;
        let Ok(engine) = shared.engine() else {
            return;
        };
        let queues = Arc::clone(&queues);
        let step = move |tx: &mut Tx<'_>| queues.values().for_each(|queue| queue.settle(tx));
        if engine.write(step).await.is_err() {
            return;
        }
    }
}

impl From<engine::Error> for Error {
    fn from(error: engine::Error) -> Self {
        match error {
            engine::Error::Corrupt(what) => Self::Corrupt(what),
            engine::Error::Locked(_) | engine::Error::Unavailable(_) => Self::Unavailable(error.to_string()),
        }
    }
}
