//! Waiting for replicas, together: one `WAIT` at a time covers every write that was answered before it began.
//!
//! It has a connection of its own, since the one it waits on is held up meanwhile. `WAIT` is about what was written on
//! its own connection; a mark written there lies behind everything written to the same server before it. Each connection
//! finds out by itself who is the primary, so while one is replaced they may lead to two servers: then nothing is known.
//! In a cluster nobody says who that is, so there each call waits on its own connection (`Link::settling`).

use std::time::Duration;

use deadpool_redis::redis::{Cmd, cmd};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::{
    key::Key,
    link::{Link, Repeat, ServerName},
    take,
};
use crate::Error;

/// Calls that may wait for the next turn; as many as may be in flight.
const WAITING_MAX: usize = 4_096;

/// How long replicas have: less than an answer may take.
const PATIENCE: Duration = Duration::from_millis(400);

/// Which server's writes the replicas have.
type Outcome = Result<ServerName, Error>;

/// Where writes wait until replicas have them.
pub(super) struct Fence {
    queue: mpsc::Sender<oneshot::Sender<Outcome>>,
    keeper: JoinHandle<()>,
}

impl Fence {
    /// A fence on `link` that is passed when `replicas` have what was written before.
    pub(super) fn new(link: Link, mark: Key, replicas: u32) -> Self {
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        Self { queue, keeper: tokio::spawn(keep(link, mark, replicas, waiting)) }
    }

    /// Returns when replicas have everything that was answered by this server before this call.
    pub(super) async fn pass(&self, by: &ServerName) -> Result<(), Error> {
        let (passed, outcome) = oneshot::channel();
        let closed = || Error::Unavailable("too much is waiting for replicas".into());
        self.queue.try_send(passed).map_err(|_| closed())?;
        let reached = outcome.await.map_err(|_| closed())??;
        let why = match by {
            None => "Redis does not say which server it is: allow INFO",
            by if reached != *by => "another Redis is the primary now, which may not have it",
            _ => return Ok(()),
        };
        Err(Error::Unavailable(why.into()))
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

async fn keep(link: Link, mark: Key, replicas: u32, mut waiting: mpsc::Receiver<oneshot::Sender<Outcome>>) {
    let mut turn = Vec::new();
    while waiting.recv_many(&mut turn, WAITING_MAX).await > 0 {
        let outcome = reach(&link, &mark, replicas).await;
        for passed in turn.drain(..) {
            // Whoever gave up does not hear it.
            drop(passed.send(outcome.clone()));
        }
    }
}

/// Commands that write a mark and say how many replicas have it, and with it everything before it.
pub(super) fn wait(mark: Key, replicas: u32) -> [Cmd; 2] {
    let (mut write, mut wait) = (cmd("INCR"), cmd("WAIT"));
    write.arg(mark);
    wait.arg(replicas).arg(PATIENCE.as_millis() as u64);
    [write, wait]
}

async fn reach(link: &Link, mark: &Key, replicas: u32) -> Outcome {
    let done = link.carry_out(wait(mark.clone(), replicas).into(), Repeat::Once).await?;
    let reached: u32 = take::value(take::only(done.answers)?)?;
    if reached < replicas {
        return Err(Error::Unavailable(format!("{reached} of {replicas} replicas have it")));
    }
    Ok(done.by)
}
