//! Publishing to one queue: one burst under way at a time, so that order holds and what arrives meanwhile travels
//! together. A burst is confirmed, or its callers hear that it was not, within the confirm timeout.

use std::{collections::HashSet, sync::Arc, time::Duration};

use lapin::{
    BasicProperties, Channel,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::ShortString,
};
use model::{Queue, queue::Names};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, interval, timeout, timeout_at},
};

use super::{
    chunk::{self, Chunk, Load, Packing},
    link::{Link, PATIENCE, Session, Site, answer, unavailable},
    room::Room,
};
use crate::Error;

/// Callers that wait for one queue. Past it they wait before they are let in, with what they hold themselves.
const WAITING_MAX: usize = 4_096;

/// Callers whose messages make one burst: what is unknown when the connection is lost.
const BURST_MAX: usize = 1_024;

/// How often a burst looks whether the node has stopped reading.
const LOOK: Duration = Duration::from_millis(50);

/// How long a burst waits for as many callers as the last had: those come back just when they were confirmed, and a
/// burst of the first of them would keep the others waiting for another confirm.
const GATHERED: Duration = Duration::from_millis(1);

/// Callers of a burst from which on the queue is busy: then a burst waits for those who still come, since what it costs
/// the broker, and whoever takes it, is by burst.
const BUSY: usize = 16;

/// How long a busy queue's burst waits at most: as long as a confirm takes.
const CROWDED: Duration = Duration::from_millis(3);

/// Published messages survive a restart of the node.
const PERSISTENT: u8 = 2;

/// Where a publisher publishes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Target {
    /// A queue.
    Queue(Queue),
    /// The queue beside it, of what was handed out before.
    Retry(Queue),
    /// The dead letters.
    Dead,
}

impl Target {
    /// The exchange and the routing key.
    fn address(self, names: &Names) -> (String, String) {
        match self {
            Self::Queue(Queue::Push(lane, shard)) => (names.push(), Names::push_key(lane, shard)),
            Self::Queue(queue) => (String::new(), names.queue(queue)),
            Self::Retry(queue) => (String::new(), names.retry(queue)),
            Self::Dead => (String::new(), names.dead()),
        }
    }

    fn full(self) -> Error {
        match self {
            Self::Queue(queue) => Error::Full(queue),
            Self::Retry(_) | Self::Dead => Error::Unavailable("RabbitMQ refuses what has to be set aside".into()),
        }
    }
}

/// What one caller publishes, and where it waits for the outcome.
struct Job {
    load: Load,
    done: oneshot::Sender<Result<(), Error>>,
}

/// Publishes to one target.
#[derive(Clone)]
pub(super) struct Publisher(mpsc::Sender<Job>);

impl Publisher {
    /// A publisher, and what publishes for as long as it runs.
    pub(super) fn new(
        site: Arc<Site>,
        target: Target,
        link: Link,
        room: Option<Arc<Room>>,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (jobs, waiting) = mpsc::channel(WAITING_MAX);
        let (exchange, key) = target.address(&site.names);
        let (exchange, key) = (exchange.into(), key.into());
        let press = Press { site, target, link, room, exchange, key, open: None, numbered: 0 };
        (Self(jobs), press.run(waiting))
    }

    /// Hands a load in, after those before; the outcome comes later.
    pub(super) async fn submit(&self, load: Load) -> oneshot::Receiver<Result<(), Error>> {
        let (done, outcome) = oneshot::channel();
        // When nobody takes it, `done` is dropped, and the outcome says so.
        let _ = self.0.send(Job { load, done }).await;
        outcome
    }

    /// Publishes a load and waits for its confirm.
    pub(super) async fn publish(&self, load: Load) -> Result<(), Error> {
        outcome(self.submit(load).await).await
    }
}

/// Waits for what became of a load.
pub(super) async fn outcome(outcome: oneshot::Receiver<Result<(), Error>>) -> Result<(), Error> {
    outcome.await.unwrap_or_else(|_| Err(Error::Unavailable("shutting down".into())))
}

/// What became of a chunk.
#[derive(Clone, Debug)]
enum Fate {
    /// It is durable.
    Confirmed,
    /// The queue is full; it was not published.
    Refused,
    /// Nobody knows.
    Unknown(Error),
}

/// The one who publishes.
struct Press {
    site: Arc<Site>,
    target: Target,
    link: Link,
    /// What is known of the queue, when it has limits.
    room: Option<Arc<Room>>,
    exchange: ShortString,
    key: ShortString,
    /// The channel, and the connection it is of.
    open: Option<(Arc<Session>, Channel)>,
    /// Chunks published; each is known by its number when it comes back.
    numbered: u64,
}

impl Press {
    async fn run(mut self, mut waiting: mpsc::Receiver<Job>) {
        let mut jobs: Vec<Job> = Vec::new();
        let mut last = 0;
        loop {
            let packing = match self.target {
                Target::Queue(_) if last > 1 || !waiting.is_empty() => Packing::Tight,
                Target::Queue(_) => Packing::Idle,
                Target::Retry(_) | Target::Dead => Packing::Apart,
            };
            if !gather(&mut waiting, &mut jobs, last).await {
                return;
            }
            last = jobs.len();
            let (loads, callers): (Vec<_>, Vec<_>) = jobs.drain(..).map(|job| (job.load, job.done)).unzip();
            let (chunks, places) = chunk::pack(&loads, packing);
            if let Some(room) = &self.room {
                chunks.iter().for_each(|chunk| room.published(chunk.parts.len()));
            }
            let fates = self.burst(&chunks).await;
            for (done, place) in callers.into_iter().zip(places) {
                // A caller that has gone away does not want to know.
                let _ = done.send(self.sum_up(&fates[place]));
            }
        }
    }

    /// What to tell a caller whose chunks had these fates: that the queue is full only when none was published.
    fn sum_up(&self, fates: &[Fate]) -> Result<(), Error> {
        if let Some(error) =
            fates.iter().find_map(|fate| if let Fate::Unknown(error) = fate { Some(error) } else { None })
        {
            return Err(error.clone());
        }
        match fates.iter().filter(|fate| matches!(fate, Fate::Refused)).count() {
            0 => Ok(()),
            all if all == fates.len() => Err(self.target.full()),
            _ => Err(Error::Unavailable("the queue became full in the middle of the batch".into())),
        }
    }

    /// Publishes chunks and waits for their confirms. When these do not come, the connection is given up.
    async fn burst(&mut self, chunks: &[Chunk]) -> Vec<Fate> {
        let sent = match self.channel().await {
            Err(error) => Err(error),
            Ok((session, channel)) => {
                let numbered = self.numbered;
                self.numbered += chunks.len() as u64;
                let sent = tokio::select! {
                    sent = timeout(self.site.config.confirm_timeout, self.send(&channel, numbered, chunks)) => {
                        sent.unwrap_or_else(|_| Err(Error::Unavailable("RabbitMQ does not confirm".into())))
                    }
                    () = blocked(&session) => Err(Error::Unavailable("RabbitMQ is blocked".into())),
                };
                let lost = matches!(&sent, Ok(fates) if fates.iter().any(|fate| matches!(fate, Fate::Unknown(_))));
                if lost || (sent.is_err() && !session.blocked()) {
                    session.give_up();
                }
                if lost || sent.is_err() {
                    self.open = None;
                }
                sent
            }
        };
        sent.unwrap_or_else(|error| vec![Fate::Unknown(error); chunks.len()])
    }

    /// The open channel, or a new one when its connection is not the one there is.
    async fn channel(&mut self) -> Result<(Arc<Session>, Channel), Error> {
        let session = self.link.session_within(PATIENCE).await?;
        if session.blocked() {
            return Err(Error::Unavailable("RabbitMQ is blocked".into()));
        }
        match &self.open {
            Some((of, channel)) if Arc::ptr_eq(of, &session) && channel.status().connected() => {
                Ok((session, channel.clone()))
            }
            _ => {
                let channel = session.channel().await.inspect_err(|_| session.give_up())?;
                answer(channel.confirm_select(ConfirmSelectOptions::default())).await?;
                self.open = Some((Arc::clone(&session), channel.clone()));
                Ok((session, channel))
            }
        }
    }

    /// Sends chunks, in order, and waits until each is confirmed or refused. What no queue takes is both sent back and
    /// confirmed, and the client library may tell so with the confirm of another.
    async fn send(&self, channel: &Channel, numbered: u64, chunks: &[Chunk]) -> Result<Vec<Fate>, Error> {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let mut confirms = Vec::with_capacity(chunks.len());
        for (number, chunk) in (numbered..).zip(chunks) {
            let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
            let properties = properties.with_message_id(number.to_string().into());
            let (exchange, key) = (self.exchange.clone(), self.key.clone());
            let confirm = channel.basic_publish(exchange, key, options, &chunk.encode(), properties).await;
            confirms.push(confirm.map_err(unavailable)?);
        }
        let mut back = HashSet::new();
        let mut fates = Vec::with_capacity(chunks.len());
        for confirm in confirms {
            let confirmation = confirm.await.map_err(unavailable)?;
            fates.push(if confirmation.is_nack() { Fate::Refused } else { Fate::Confirmed });
            back.extend(confirmation.take_message().and_then(|message| message.properties.message_id().clone()));
        }
        for (number, fate) in (numbered..).zip(&mut fates) {
            if back.contains(number.to_string().as_str()) {
                *fate = Fate::Unknown(Error::Unavailable(format!("no queue takes what is for {}", self.key)));
            }
        }
        Ok(fates)
    }
}

/// Waits for callers: for as many as there were in the last burst, if they come soon, or else for one; on a busy queue
/// for as many as travel in one AMQP message, as long as they keep coming. False when none will come any more.
async fn gather(waiting: &mut mpsc::Receiver<Job>, jobs: &mut Vec<Job>, last: usize) -> bool {
    let begun = Instant::now();
    let (wanted, latest) = if last < BUSY { (last, GATHERED) } else { (last.max(chunk::PARTS_MAX), CROWDED) };
    while jobs.len() < wanted {
        let until = (begun + latest).min(Instant::now() + GATHERED);
        match timeout_at(until, waiting.recv_many(jobs, BURST_MAX - jobs.len())).await {
            Ok(0) => return false,
            Ok(_) => {}
            Err(_) => break,
        }
    }
    !jobs.is_empty() || waiting.recv_many(jobs, BURST_MAX).await > 0
}

/// Waits until the node has stopped reading.
async fn blocked(session: &Session) {
    let mut look = interval(LOOK);
    loop {
        look.tick().await;
        if session.blocked() {
            return;
        }
    }
}
