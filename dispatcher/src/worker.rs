//! One queue's worker: takes what waits, brings it into the streams together, rings, acks. While it rings for one batch
//! it appends the next. A message whose audience cannot be found now waits beside the others.

use std::{future::Future, sync::Arc, time::Duration};

use broker::{Consumer, Delivery, Publication};
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use model::{Envelope, Lane, Message, Queue, record::Record as _};
use store::{InboxAppend, InboxAppended, TimelineAppend};
use tokio::{sync::mpsc, time};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    Config, Deps,
    blocked::Blocked,
    metrics::LaneMetrics,
    parts::parts,
    resolve::{Place, Unresolved, resolve},
    ring::Bells,
};

/// First pause after the store failed; doubled up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(2);

pub(crate) struct Worker {
    pub(crate) queue: Queue,
    pub(crate) lane: Lane,
    pub(crate) config: Config,
    pub(crate) deps: Deps,
    pub(crate) blocked: Arc<Blocked>,
    pub(crate) metrics: LaneMetrics,
}

/// Batches that are appended and not yet rung for: the next may be on its way, and no more.
const UNRUNG_MAX: usize = 1;

/// How long the places of one batch are waited for: what takes longer waits beside the others.
const SOON: Duration = Duration::from_millis(500);

/// Messages that wait for their audience while others go on; with more of them the queue waits. A part of the deliveries
/// that may be out.
const PARKED_MAX: usize = 64;

/// Those that wait, each until it has its place, or none.
type Parked<'a> = FuturesUnordered<BoxFuture<'a, Option<Job>>>;

/// Jobs whose messages are in their streams, and what came of each.
type Done = (Vec<Job>, Vec<InboxAppended>);

/// A delivery on its way into streams.
struct Job {
    delivery: Delivery,
    message: Arc<Message>,
    place: Place,
}

impl Job {
    /// What the store has to do for it; four for a unicast. Of timelines 64 entries, or 4 MiB of audiences, are a part: the
    /// answer must come in time, whatever they weigh.
    fn weight(&self) -> usize {
        match &self.place {
            Place::Inbox(devices) => 3 + devices.len() as usize,
            Place::Timeline(audience) => 16 + audience.bytes_len() / 4_096,
        }
    }
}

/// What was done, or why it never will be; nothing when it is to be asked again.
fn settled<T>(done: Result<T, Unresolved>) -> Option<Result<T, String>> {
    match done {
        Ok(done) => Some(Ok(done)),
        Err(Unresolved::Never(reason)) => Some(Err(reason)),
        Err(Unresolved::NotNow(_)) => None,
    }
}

impl Worker {
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) -> Result<(), broker::Error> {
        // What is taken while the store is away would count as begun each time this process ends.
        if self.patiently(&shutdown, || async { Ok(self.deps.store.apps().await?) }).await.is_none() {
            return Ok(());
        }
        // It stays until the last batch is acked: what it still holds when it goes is handed out again.
        let mut consumer = self.deps.broker.consume(self.queue, self.config.prefetch).await?;
        let (appended, unrung) = mpsc::channel(UNRUNG_MAX);
        tokio::join!(self.take(&mut consumer, appended, &shutdown), self.ring_and_ack(unrung));
        Ok(())
    }

    /// Appends batch after batch, until there is no more.
    async fn take(&self, consumer: &mut Consumer, appended: mpsc::Sender<Done>, shutdown: &CancellationToken) {
        let mut parked = Parked::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some(found) = parked.next() => self.append_all(found.into_iter().collect(), &appended, shutdown).await,
                batch = consumer.next(self.config.prefetch), if parked.len() < PARKED_MAX => {
                    if batch.is_empty() {
                        return;
                    }
                    let jobs = self.place_all(batch, &mut parked, shutdown).await;
                    self.append_all(jobs, &appended, shutdown).await;
                }
            }
        }
    }

    /// Rings for what is appended, then acks it.
    async fn ring_and_ack(&self, mut unrung: mpsc::Receiver<Done>) {
        while let Some((jobs, appended)) = unrung.recv().await {
            for (job, appended) in jobs.iter().zip(&appended) {
                self.metrics.count(appended.outcome);
                debug!(message.id = %job.message.id, app = %job.message.app, trace.id = job.message.trace.id(),
                    outcome = ?appended.outcome, "dispatched");
            }
            self.ring(&jobs, appended).await;
            jobs.into_iter().for_each(|job| job.delivery.ack());
        }
    }

    /// Finds out where a batch goes; what has no place soon is parked. What is neither is settled.
    async fn place_all<'a>(
        &'a self,
        batch: Vec<Delivery>,
        parked: &mut Parked<'a>,
        shutdown: &'a CancellationToken,
    ) -> Vec<Job> {
        let (mut jobs, until) = (Vec::with_capacity(batch.len()), time::Instant::now() + SOON);
        for delivery in batch {
            let Some((delivery, envelope)) = self.open(delivery).await else { continue };
            match time::timeout_at(until, self.resolve(&envelope)).await.ok().and_then(settled) {
                Some(resolved) => jobs.extend(self.place(delivery, envelope, resolved).await),
                None => parked.push(self.wait_for_place(delivery, envelope, shutdown).boxed()),
            }
        }
        jobs
    }

    /// Brings jobs into the streams. Whatever is not acked when this returns goes back to the queue.
    async fn append_all(&self, mut jobs: Vec<Job>, appended: &mpsc::Sender<Done>, shutdown: &CancellationToken) {
        jobs.sort_by_key(|job| std::cmp::Reverse(job.message.priority));
        let (inbox, timeline): (Vec<_>, Vec<_>) =
            jobs.into_iter().partition(|job| matches!(job.place, Place::Inbox(_)));
        let in_parts = async |jobs| {
            for part in parts(jobs, Job::weight) {
                if !shutdown.is_cancelled() {
                    self.append(part, appended, shutdown).await;
                }
            }
        };
        tokio::join!(in_parts(inbox), in_parts(timeline));
    }

    /// Reads the envelope. What cannot be read, or has killed its handler too often, is set aside.
    async fn open(&self, delivery: Delivery) -> Option<(Delivery, Envelope)> {
        let envelope = match Envelope::decode(delivery.body()) {
            Ok(envelope) => envelope,
            Err(unreadable) => {
                self.set_aside(delivery, unreadable.to_string()).await;
                return None;
            }
        };
        if delivery.attempt() > self.config.attempts_max {
            let reason = format!("begun {} times and never finished", self.config.attempts_max);
            self.fail(&envelope.message, &reason).await;
            self.set_aside(delivery, reason).await;
            return None;
        }
        Some((delivery, envelope))
    }

    /// Finds out whose streams the message goes to.
    async fn resolve(&self, envelope: &Envelope) -> Result<Place, Unresolved> {
        let started = time::Instant::now();
        let resolved = resolve(&self.deps, &self.blocked, envelope).await;
        self.metrics.resolve_seconds.observe(started.elapsed().as_secs_f64());
        resolved
    }

    /// Asks again until there is a place, or nobody is to get the message any more.
    async fn wait_for_place(
        &self,
        mut delivery: Delivery,
        envelope: Envelope,
        shutdown: &CancellationToken,
    ) -> Option<Job> {
        // While a suspect is out the broker holds others back.
        if delivery.attempt() > 1 {
            match settled(self.resolve(&envelope).await) {
                Some(resolved) => return self.place(delivery, envelope, resolved).await,
                None => delivery = self.begin_anew(delivery).await?,
            }
        }
        let resolved = self.patiently(shutdown, || self.resolve(&envelope)).await?;
        self.place(delivery, envelope, resolved).await
    }

    /// Publishes a suspect that killed nobody and has to wait as a new message, whose attempts are counted from the start;
    /// gives it back while the broker takes nothing. Should both be dispatched, the second is not appended.
    async fn begin_anew(&self, delivery: Delivery) -> Option<Delivery> {
        let anew = Publication { queue: self.queue, body: delivery.body().clone() };
        match self.deps.broker.publish(vec![anew]).await {
            Ok(()) => {
                delivery.ack();
                None
            }
            Err(error) => {
                warn!(%error, "a suspect that waits holds others back");
                Some(delivery)
            }
        }
    }

    /// Lets suspects begin anew, before each connection that is lost while the store takes nothing counts as an attempt;
    /// gives the other jobs.
    async fn let_suspects_begin_anew(&self, jobs: Vec<Job>) -> Vec<Job> {
        let mut left = Vec::with_capacity(jobs.len());
        for Job { mut delivery, message, place } in jobs {
            if delivery.attempt() > 1 {
                let Some(held) = self.begin_anew(delivery).await else { continue };
                delivery = held;
            }
            left.push(Job { delivery, message, place });
        }
        left
    }

    /// Makes a job of what has a place, and sets aside what will never have one.
    async fn place(&self, delivery: Delivery, envelope: Envelope, resolved: Result<Place, String>) -> Option<Job> {
        let message = envelope.message;
        match resolved {
            Ok(place) => Some(Job { delivery, message: message.into(), place }),
            Err(reason) => {
                self.fail(&message, &reason).await;
                self.set_aside(delivery, reason).await;
                None
            }
        }
    }

    /// Appends jobs of one stream kind in one step. One that the store would not take at all is set aside alone.
    async fn append(&self, mut jobs: Vec<Job>, appended: &mpsc::Sender<Done>, shutdown: &CancellationToken) {
        if jobs.is_empty() {
            return;
        }
        let mut stored = settled(self.store(&jobs).await);
        if stored.is_none() {
            jobs = self.let_suspects_begin_anew(jobs).await;
            stored = self.patiently(shutdown, || self.store(&jobs)).await;
        }
        match stored {
            None => {}
            // Nobody takes them only when this worker ends; then they are appended again later, under the same numbers.
            Some(Ok(outcomes)) => _ = appended.send((jobs, outcomes)).await,
            Some(Err(_)) if jobs.len() > 1 => {
                for job in jobs {
                    Box::pin(self.append(vec![job], appended, shutdown)).await;
                }
            }
            Some(Err(reason)) => {
                for job in jobs {
                    self.fail(&job.message, &reason).await;
                    self.set_aside(job.delivery, reason.clone()).await;
                }
            }
        }
    }

    async fn store(&self, jobs: &[Job]) -> Result<Vec<InboxAppended>, Unresolved> {
        let (mut inbox, mut timeline) = (Vec::new(), Vec::new());
        for Job { message, place, .. } in jobs {
            let message = message.clone();
            match place {
                Place::Inbox(devices) => inbox.push(InboxAppend { message, devices: devices.clone() }),
                Place::Timeline(audience) => timeline.push(TimelineAppend { message, audience: audience.clone() }),
            }
        }
        let now = self.deps.clock.now();
        if timeline.is_empty() {
            return Ok(self.deps.store.append_inbox(inbox, now).await?);
        }
        let outcomes = self.deps.store.append_timeline(timeline, now).await?;
        Ok(outcomes.into_iter().map(|outcome| InboxAppended { outcome, places: Vec::new() }).collect())
    }

    async fn ring(&self, jobs: &[Job], appended: Vec<InboxAppended>) {
        let mut bells = Bells::default();
        for (job, InboxAppended { places, .. }) in jobs.iter().zip(appended) {
            match &job.place {
                Place::Inbox(devices) => bells.inbox(&job.message, devices, places),
                Place::Timeline(_) => bells.timeline(&job.message.app),
            }
        }
        bells.ring(self.lane, &self.deps).await;
    }

    /// Does `step` until it succeeds, is refused for good (the reason), or the tier shuts down (`None`).
    async fn patiently<T, F: Future<Output = Result<T, Unresolved>>>(
        &self,
        shutdown: &CancellationToken,
        step: impl Fn() -> F,
    ) -> Option<Result<T, String>> {
        let mut pause = PAUSE_MIN;
        loop {
            match step().await {
                Ok(done) => return Some(Ok(done)),
                Err(Unresolved::Never(reason)) => return Some(Err(reason)),
                Err(Unresolved::NotNow(reason)) if pause == PAUSE_MIN => warn!(reason, "not now; holding the delivery"),
                Err(Unresolved::NotNow(reason)) => debug!(reason, ?pause, "still not"),
            }
            let jitter = pause.mul_f64(rand::random_range(0.5..1.0));
            tokio::select! {
                () = shutdown.cancelled() => return None,
                () = time::sleep(jitter) => pause = (pause * 2).min(PAUSE_MAX),
            }
        }
    }

    /// Tells the sender why there will be no delivery; a note that cannot be taken does not hold up the rest.
    async fn fail(&self, message: &Message, reason: &str) {
        if let Err(error) = self.deps.store.fail(&message.app, message.id, reason.to_owned()).await {
            warn!(message.id = %message.id, %error, "cannot note why the message failed");
        }
    }

    async fn set_aside(&self, delivery: Delivery, reason: String) {
        self.metrics.dead_letters.inc();
        warn!(reason, "dead letter");
        if let Err(error) = delivery.dead_letter(reason).await {
            warn!(%error, "cannot set it aside now; it will come again");
        }
    }
}
