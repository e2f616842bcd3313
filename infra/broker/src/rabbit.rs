//! The broker on RabbitMQ, one node or a cluster: durable quorum queues, and transient queues for bells.
//!
//! A batch travels in one or more AMQP messages for each queue of it. What meets an idle queue travels message by
//! message; what gathers while a confirm is awaited travels together, since the broker's cost is by AMQP message.
//! Messages that travelled together are acked together: when a process dies, those that it had acked come again if one
//! beside them was not.
//!
//! Connections are by role, so that none waits for what another waits for: publishing (one for each lane and one for
//! what goes upwards), consuming, ringing, and looking. A node that is blocked by its alarms stops publishing and
//! ringing at once and nothing else. A connection that ends, or does not confirm in time, is dialled again at the next
//! node; deliveries that were out then are handed out again.
//!
//! Attempts are durable without a ledger of ours: what was handed out before goes by way of a retry queue beside its
//! own, whose single consumer in all the cluster holds one message at a time, so that the broker's own count of
//! redeliveries is the message's own.

mod bells;
mod chunk;
mod config;
mod dead;
mod hands;
mod intake;
mod link;
mod mover;
mod publisher;
mod pump;
mod room;
mod survey;
mod topology;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use model::{Lane, NodeId, Queue, queue::Names};
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};

use crate::{Bells, Broker, Consumer, DeadLetter, Depth, Error, Gaps, Publication, Ring};
use bells::{Belfry, Listener};
use chunk::Load;
use dead::DeadLetters;
use intake::Intake;
use link::{Link, Site};
use publisher::{Publisher, Target};
use room::Room;
use survey::Survey;

pub use config::{Config, InvalidUrl};

/// How long the first connection may take, all nodes tried: declaring everything on three nodes takes seconds.
const FIRST: Duration = Duration::from_secs(30);

/// How long closing waits for the broker to hear of everything settled.
const LAST: Duration = Duration::from_secs(5);

/// One queue, as it is used here.
struct Place {
    publisher: Publisher,
    survey: Survey,
    intake: Arc<Intake>,
}

/// The broker on RabbitMQ. Dropping it ends every consumer and listener and closes its connections; what was settled in
/// the last moments may then be handed out again, unless it was [closed](Rabbit::close).
pub struct Rabbit {
    site: Arc<Site>,
    places: HashMap<Queue, Place>,
    belfry: Belfry,
    dead: DeadLetters,
    consuming: Link,
    watching: Link,
    links: Vec<Link>,
    /// Whatever runs; it ends with this.
    tasks: Mutex<JoinSet<()>>,
}

/// The connections of one broker, by role.
struct Links {
    /// By lane; what has no lane goes upwards.
    publishing: HashMap<Option<Lane>, Link>,
    consuming: Link,
    ringing: Link,
    watching: Link,
}

impl Links {
    fn new(site: &Arc<Site>, tasks: &mut JoinSet<()>) -> Self {
        let mut link = |role| {
            let (link, keep_up) = Link::new(Arc::clone(site), role);
            tasks.spawn(keep_up);
            link
        };
        let roles = [
            (Some(Lane::Unicast), "publish unicast"),
            (Some(Lane::Multicast), "publish multicast"),
            (Some(Lane::Broadcast), "publish broadcast"),
            (None, "publish upwards"),
        ];
        Self {
            publishing: roles.into_iter().map(|(lane, role)| (lane, link(role))).collect(),
            consuming: link("consume"),
            ringing: link("ring"),
            watching: link("watch"),
        }
    }

    fn all(&self) -> Vec<Link> {
        let others = [&self.ringing, &self.watching, &self.consuming];
        self.publishing.values().chain(others).cloned().collect()
    }
}

impl Rabbit {
    /// Connects, and declares what is not there yet.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no node can be reached, or refuses.
    pub async fn connect(config: Config) -> Result<Arc<Self>, Error> {
        let names = Names::new(config.namespace.clone());
        let site = Arc::new(Site { config, names });
        let mut tasks = JoinSet::new();
        let links = Links::new(&site, &mut tasks);
        let publisher = |target, lane: Option<Lane>, room, tasks: &mut JoinSet<()>| {
            let (publisher, run) = Publisher::new(Arc::clone(&site), target, links.publishing[&lane].clone(), room);
            tasks.spawn(run);
            publisher
        };
        let burial = publisher(Target::Dead, None, None, &mut tasks);
        let mut places = HashMap::new();
        for queue in Queue::all() {
            let room = Arc::new(Room::new(queue, site.config.limits));
            let retry = publisher(Target::Retry(queue), queue.lane(), None, &mut tasks);
            let (intake, wishes) = Intake::new(queue, Arc::clone(&site), Arc::clone(&room), retry, burial.clone());
            tasks.spawn(pump::run(Arc::clone(&intake), links.consuming.clone(), wishes));
            let survey = Survey::new(queue, Arc::clone(&site), links.watching.clone(), Arc::clone(&room));
            let publisher = publisher(Target::Queue(queue), queue.lane(), Some(Arc::clone(&room)), &mut tasks);
            places.insert(queue, Place { publisher, survey, intake });
        }
        let (belfry, ringer) = Belfry::new(Arc::clone(&site), links.ringing.clone());
        tasks.spawn(ringer);
        let dead = DeadLetters::new(site.names.dead(), links.watching.clone());
        links.consuming.session_within(FIRST).await?;
        links.ringing.session_within(FIRST).await?;
        let (consuming, watching, links) = (links.consuming.clone(), links.watching.clone(), links.all());
        Ok(Arc::new(Self { site, places, belfry, dead, consuming, watching, links, tasks: Mutex::new(tasks) }))
    }

    /// Stops handing out and taking in, and returns once the broker has heard of everything settled so far. What is
    /// still out then is handed out again, with a higher attempt.
    pub async fn close(&self) {
        let intakes = self.places.values().map(|place| &place.intake);
        intakes.clone().for_each(|intake| intake.end());
        // What it has not heard of then is handed out again.
        let _ = timeout(LAST, join_all(intakes.map(|intake| intake.left()))).await;
        join_all(self.links.iter().map(Link::close)).await;
        self.tasks.lock().abort_all();
    }

    fn place(&self, queue: Queue) -> Result<&Place, Error> {
        self.places.get(&queue).ok_or_else(|| Error::Unavailable(format!("there is no queue {queue}")))
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> tokio::task::AbortHandle {
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task)
    }
}

impl Drop for Rabbit {
    fn drop(&mut self) {
        self.places.values().for_each(|place| place.intake.end());
    }
}

#[async_trait]
impl Broker for Rabbit {
    async fn publish(&self, batch: Vec<Publication>) -> Result<(), Error> {
        let mut bodies: BTreeMap<Queue, Vec<Bytes>> = BTreeMap::new();
        for Publication { queue, body } in batch {
            bodies.entry(queue).or_default().push(body);
        }
        let at = self.site.config.clock.now();
        let mut loads = Vec::with_capacity(bodies.len());
        for (queue, parts) in bodies {
            let place = self.place(queue)?;
            place.survey.room_for(chunk::count(&parts)).await?;
            loads.push((place, Load { attempts: 0, at, parts }));
        }
        sum_up(join_all(loads.into_iter().map(|(place, load)| place.publisher.publish(load))).await)
    }

    /// It tells those who publish, and then no longer reads what they say.
    fn refuses(&self) -> bool {
        self.links.iter().filter_map(Link::session).any(|session| session.blocked())
    }

    async fn consume(&self, queue: Queue, prefetch: usize) -> Result<Consumer, Error> {
        let place = self.place(queue)?;
        self.consuming.session_within(link::PATIENCE).await?;
        place.intake.join(prefetch)
    }

    fn ring(&self, lane: Lane, whom: &Ring, bell: Bytes) {
        self.belfry.ring(lane, whom, bell);
    }

    fn bells_dropped(&self) -> u64 {
        self.belfry.dropped()
    }

    async fn listen(&self, node: &NodeId, lane: Lane) -> Result<Bells, Error> {
        let ((heard, bells), gaps) = (mpsc::channel(bells::WAITING_MAX), Gaps::default());
        let (site, link) = (Arc::clone(&self.site), self.watching.clone());
        self.watching.session_within(FIRST).await?;
        let listener = Listener { site, link, node: node.clone(), lane, heard, gaps: gaps.clone() };
        let (begun, begins) = oneshot::channel();
        let task = self.spawn(listener.run(begun));
        let begun = begins.await.unwrap_or_else(|_| Err(Error::Unavailable("shutting down".into())));
        begun.inspect_err(|_| task.abort())?;
        self.belfry.replace(node, lane, task);
        Ok(Bells { bells, gaps })
    }

    async fn depth(&self, queue: Queue) -> Result<Depth, Error> {
        let place = self.place(queue)?;
        match place.intake.depth().await {
            Some(depth) => Ok(depth),
            None => place.survey.depth().await,
        }
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, Error> {
        self.dead.list(limit).await
    }
}

/// What to tell whose batch went to several queues: that one is full only when nothing was published to any.
fn sum_up(outcomes: Vec<Result<(), Error>>) -> Result<(), Error> {
    let confirmed = outcomes.iter().any(Result::is_ok);
    match outcomes.into_iter().filter_map(Result::err).reduce(|one, other| match one {
        Error::Full(_) => other,
        _ => one,
    }) {
        Some(Error::Full(queue)) if confirmed => {
            Err(Error::Unavailable(format!("queue {queue} became full when others had taken their part")))
        }
        Some(error) => Err(error),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_means_that_nothing_was_published() {
        let (full, gone) = (|| Err(Error::Full(Queue::Uplink)), || Err(Error::Unavailable("gone".into())));
        assert!(sum_up(vec![Ok(()), Ok(())]).is_ok());
        assert!(matches!(sum_up(vec![full(), full()]), Err(Error::Full(Queue::Uplink))));
        assert!(matches!(sum_up(vec![full(), Ok(())]), Err(Error::Unavailable(_))));
        assert!(matches!(sum_up(vec![full(), gone()]), Err(Error::Unavailable(_))));
    }
}
