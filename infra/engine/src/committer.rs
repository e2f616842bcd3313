//! The one thread that writes: it takes whatever waits, runs it in one transaction, flushes once, then tells everybody.

use std::thread;

use fjall::{PersistMode, SingleWriterTxDatabase};
use tokio::sync::{mpsc, oneshot};

use crate::{Error, Tx};

/// Writes waiting for the committer: past this, writers wait their turn. About 20 ms of work.
const WAITING_MAX: usize = 8_192;

/// Writes in one group: bounds how long the first of them waits for the last.
const GROUP_MAX: usize = 1_024;

/// What is told once a group is durable.
type Told = Box<dyn FnOnce() + Send>;

/// A write on its way: run inside the group, it leaves what to tell afterwards.
type Step = Box<dyn for<'a, 'b> FnOnce(&'a mut Tx<'b>) -> Told + Send>;

pub(crate) struct Committer {
    steps: Option<mpsc::Sender<Step>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Committer {
    pub(crate) fn start(db: SingleWriterTxDatabase) -> Self {
        let (steps, waiting) = mpsc::channel(WAITING_MAX);
        let thread = thread::Builder::new().name("committer".into()).spawn(move || run(&db, waiting));
        #[expect(clippy::expect_used, reason = "without its committer the engine cannot exist")]
        let thread = thread.expect("the system must give one thread at start-up");
        Self { steps: Some(steps), thread: Some(thread) }
    }

    pub(crate) async fn submit<T, U: Send + 'static>(
        &self,
        step: impl FnOnce(&mut Tx<'_>) -> T + Send + 'static,
        then: impl FnOnce(T) -> U + Send + 'static,
    ) -> Result<U, Error>
    where
        T: Send + 'static,
    {
        let closed = || Error::Unavailable("shutting down".into());
        let (tell, told) = oneshot::channel();
        let step: Step = Box::new(move |tx| {
            let result = step(tx);
            Box::new(move || drop(tell.send(then(result))))
        });
        self.steps.as_ref().ok_or_else(closed)?.send(step).await.map_err(|_| closed())?;
        told.await.map_err(|_| closed())
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.steps = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn run(db: &SingleWriterTxDatabase, mut waiting: mpsc::Receiver<Step>) {
    let mut group = Vec::with_capacity(GROUP_MAX);
    while waiting.blocking_recv_many(&mut group, GROUP_MAX) > 0 {
        let mut tx = Tx(db.write_tx().durability(Some(PersistMode::SyncData)));
        let told: Vec<Told> = group.drain(..).map(|step| step(&mut tx)).collect();
        if let Err(error) = tx.0.commit() {
            // After a failed flush the kernel may have dropped the pages: trying again could claim what is not there.
            tracing::error!(%error, "cannot make writes durable; stopping so that recovery decides what is");
            std::process::abort();
        }
        told.into_iter().for_each(|tell| tell());
    }
}

#[cfg(test)]
mod tests {
    use crate::Engine;

    #[tokio::test]
    async fn a_step_sees_what_earlier_steps_of_its_group_did() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path()).unwrap();
        let counters = engine.keyspace("counters").unwrap();
        let increments = (0..500).map(|_| {
            let counters = counters.clone();
            engine.write(move |tx| {
                let last = tx.get(&counters, "n").unwrap().map_or(0, |n| n[0] as u32 * 256 + n[1] as u32);
                tx.insert(&counters, "n", [((last + 1) / 256) as u8, ((last + 1) % 256) as u8]);
                last + 1
            })
        });
        let mut seen = Vec::new();
        for increment in increments {
            seen.push(increment.await.unwrap());
        }
        assert_eq!(seen, (1..=500).collect::<Vec<u32>>());
    }

    #[tokio::test]
    async fn what_follows_a_step_sees_it_durable_even_when_nobody_waits() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path()).unwrap();
        let space = engine.keyspace("space").unwrap();
        let (seen, mut looked) = tokio::sync::mpsc::channel(1);
        let handles = (space.clone(), space.clone());
        let write = engine.write_then(
            move |tx| tx.insert(&handles.0, "key", "value"),
            move |()| seen.try_send(handles.1.get("key").unwrap().is_some()).unwrap(),
        );
        tokio::select! {
            biased;
            _ = write => {}
            () = std::future::ready(()) => {}
        }
        assert_eq!(looked.recv().await, Some(true));
    }

    #[tokio::test]
    async fn what_was_told_is_there_after_opening_again_and_one_process_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path()).unwrap();
        assert!(matches!(Engine::open(dir.path()), Err(crate::Error::Locked(_))));
        let space = engine.keyspace("space").unwrap();
        let handle = space.clone();
        engine.write(move |tx| tx.insert(&handle, "key", "value")).await.unwrap();
        drop((engine, space));
        let engine = Engine::open(dir.path()).unwrap();
        assert_eq!(engine.keyspace("space").unwrap().get("key").unwrap().as_deref(), Some(&b"value"[..]));
    }
}
