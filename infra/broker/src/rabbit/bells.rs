//! Bells over the broker: transient messages without confirm, from a bounded buffer that drops what does not fit. What
//! gathers for the same access points travels together.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel,
    options::{BasicConsumeOptions, BasicPublishOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use model::{Lane, NodeId, queue::Names};
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot},
    task::AbortHandle,
    time::sleep,
};

use super::{
    chunk,
    link::{Link, Session, Site, Taking, answer, unavailable},
};
use crate::{Error, Gaps, Ring};

/// Bells that wait to be rung, or to be heard by one listener: a fifth of a second at 20,000 a second, and a megabyte
/// of common ones. Past it they are dropped, since the sweep finds what they announced.
pub(super) const WAITING_MAX: usize = 4_096;

/// Bells rung at once.
const BURST_MAX: usize = 1_024;

/// Bytes of bells that travel together, unless one alone has more.
const BYTES_MAX: usize = 128 * 1024;

/// AMQP messages of bells that wait at the broker for one listener, which takes them as fast as they come.
const AT_BROKER_MAX: u32 = 1_000;

/// Time between rings while there are many: the broker's work is by AMQP message.
const GATHERED: Duration = Duration::from_millis(1);

/// How long a listener waits before it tries again what has failed.
const PAUSE: Duration = Duration::from_millis(200);

/// What a listener publishes to those that listened in its place before.
const REPLACED: &str = "replaced";

/// A bell on its way.
struct Rung {
    lane: Lane,
    whom: Ring,
    bell: Bytes,
}

/// Who rings and who listens in this process.
pub(super) struct Belfry {
    rung: mpsc::Sender<Rung>,
    listeners: Mutex<HashMap<(NodeId, Lane), AbortHandle>>,
    dropped: Arc<AtomicU64>,
}

impl Belfry {
    /// A belfry, and what rings for as long as it runs.
    pub(super) fn new(site: Arc<Site>, link: Link) -> (Self, impl Future<Output = ()> + Send) {
        let (rung, waiting) = mpsc::channel(WAITING_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let ringer = Ringer { site, link, open: None, dropped: Arc::clone(&dropped) };
        (Self { rung, listeners: Mutex::default(), dropped }, ringer.run(waiting))
    }

    pub(super) fn ring(&self, lane: Lane, whom: &Ring, bell: Bytes) {
        if self.rung.try_send(Rung { lane, whom: whom.clone(), bell }).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Lets a listener's task in; the one before in its place is ended.
    pub(super) fn replace(&self, node: &NodeId, lane: Lane, task: AbortHandle) {
        let mut listeners = self.listeners.lock();
        listeners.retain(|_, task| !task.is_finished());
        if let Some(before) = listeners.insert((node.clone(), lane), task) {
            before.abort();
        }
    }
}

/// The one who rings.
struct Ringer {
    site: Arc<Site>,
    link: Link,
    open: Option<(Arc<Session>, Channel)>,
    dropped: Arc<AtomicU64>,
}

impl Ringer {
    async fn run(mut self, mut waiting: mpsc::Receiver<Rung>) {
        let mut rung = Vec::new();
        while waiting.recv_many(&mut rung, BURST_MAX).await > 0 {
            let many = rung.len() > 1;
            let bells = rung.len() as u64;
            if let Err(error) = self.ring(gather(rung.drain(..))).await {
                tracing::debug!(%error, bells, "bells are dropped");
                self.dropped.fetch_add(bells, Ordering::Relaxed);
                self.open = None;
            }
            if many {
                sleep(GATHERED).await;
            }
        }
    }

    async fn ring(&mut self, bells: Vec<(String, Bytes)>) -> Result<(), Error> {
        let channel = self.channel().await?;
        for (key, bells) in bells {
            let properties = BasicProperties::default();
            publish(&channel, self.site.names.bell(), key, &bells, properties).await?;
        }
        Ok(())
    }

    /// The open channel, or a new one when its connection is not the one there is.
    async fn channel(&mut self) -> Result<Channel, Error> {
        let session = self.link.session().ok_or_else(|| Error::Unavailable("RabbitMQ cannot be reached".into()))?;
        if session.blocked() {
            return Err(Error::Unavailable("RabbitMQ is blocked".into()));
        }
        match &self.open {
            Some((of, channel)) if Arc::ptr_eq(of, &session) && channel.status().connected() => Ok(channel.clone()),
            _ => {
                if self.open.take().is_some() {
                    // Nobody says what has become of the last bells on a channel that is lost.
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                }
                let channel = session.channel().await.inspect_err(|_| session.give_up())?;
                self.open = Some((session, channel.clone()));
                Ok(channel)
            }
        }
    }
}

/// Publishes a transient message, which no confirm follows.
async fn publish(
    channel: &Channel,
    exchange: String,
    key: String,
    body: &[u8],
    properties: BasicProperties,
) -> Result<(), Error> {
    let options = BasicPublishOptions::default();
    answer(channel.basic_publish(exchange.into(), key.into(), options, body, properties)).await.map(drop)
}

/// Puts bells for the same access points together, by routing key.
fn gather(rung: impl Iterator<Item = Rung>) -> Vec<(String, Bytes)> {
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut gathered: Vec<(String, BytesMut)> = Vec::new();
    for Rung { lane, whom, bell } in rung {
        let key = match whom {
            Ring::One(node) => Names::bell_one(lane, &node),
            Ring::All => Names::bell_all(lane),
        };
        let open = places.get(&key).copied().filter(|place| gathered[*place].1.len() + bell.len() <= BYTES_MAX);
        let place = open.unwrap_or_else(|| {
            gathered.push((key.clone(), BytesMut::new()));
            places.insert(key, gathered.len() - 1);
            gathered.len() - 1
        });
        chunk::put(&mut gathered[place].1, &bell);
    }
    gathered.into_iter().map(|(key, bells)| (key, bells.freeze())).collect()
}

/// One who listens for an access point in one lane.
pub(super) struct Listener {
    pub(super) site: Arc<Site>,
    pub(super) link: Link,
    pub(super) node: NodeId,
    pub(super) lane: Lane,
    pub(super) heard: mpsc::Sender<Bytes>,
    pub(super) gaps: Gaps,
}

impl Listener {
    /// Listens until nobody hears, or somebody else listens in this place. Tells once how the first try went.
    pub(super) async fn run(self, begun: oneshot::Sender<Result<(), Error>>) {
        let me: ShortString = format!("{:016x}", rand::random::<u64>()).into();
        let mut begun = Some(begun);
        while let Some(session) = self.link.next_session().await {
            let listening = self.open(&session, &me, begun.is_some()).await;
            let failed = listening.as_ref().err().cloned();
            if let Some(begun) = begun.take() {
                // Who began this may have gone away; then nobody hears either.
                let _ = begun.send(failed.clone().map_or(Ok(()), Err));
                if failed.is_some() {
                    return;
                }
            }
            let ended = match listening {
                Ok((_channel, bells)) => {
                    self.gaps.tell();
                    self.hear(&session, bells, &me).await
                }
                Err(error) => Err(error),
            };
            match ended {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(node = %self.node, lane = %self.lane, %error, "bells are not heard for a moment");
                    session.doubt().await;
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Declares this listener's queue. It is exclusive: it ends with the connection, and no two share a name.
    async fn open(&self, session: &Session, me: &ShortString, first: bool) -> Result<(Taking, lapin::Consumer), Error> {
        let channel = session.taking().await?;
        let names = &self.site.names;
        let name: ShortString = names.bell_queue(self.lane, &self.node, me.as_str()).into();
        let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length".into(), AMQPValue::LongUInt(AT_BROKER_MAX));
        arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
        answer(channel.queue_declare(name.clone(), options, arguments)).await?;
        let (one, all) = (Names::bell_one(self.lane, &self.node), Names::bell_all(self.lane));
        for key in [one.clone(), all] {
            let (exchange, options) = (names.bell_lane(self.lane).into(), QueueBindOptions::default());
            answer(channel.queue_bind(name.clone(), exchange, key.into(), options, FieldTable::default())).await?;
        }
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let bells = answer(channel.basic_consume(name, "".into(), options, FieldTable::default())).await?;
        if first {
            let properties = BasicProperties::default().with_type(REPLACED.into()).with_message_id(me.clone());
            publish(&channel, names.bell(), one, &[], properties).await?;
        }
        Ok((channel, bells))
    }

    /// Hears bells until nobody wants them any more.
    async fn hear(&self, session: &Arc<Session>, mut bells: lapin::Consumer, me: &ShortString) -> Result<(), Error> {
        loop {
            let bell = tokio::select! {
                bell = bells.next() => bell,
                () = self.link.lost(session) => None,
                () = self.heard.closed() => return Ok(()),
            };
            let Some(bell) = bell.transpose().map_err(unavailable)? else {
                return Err(Error::Unavailable("RabbitMQ hands out no bells".into()));
            };
            let kind = bell.properties.kind().as_ref().map(ShortString::as_str);
            if kind == Some(REPLACED) {
                if bell.properties.message_id().as_ref() != Some(me) {
                    return Ok(());
                }
                continue;
            }
            for bell in chunk::unpack(bell.data.into()).unwrap_or_default() {
                // A listener that is slow misses what it has no room for.
                if self.heard.try_send(bell).is_err() {
                    self.gaps.tell();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bells_for_the_same_access_points_travel_together() {
        let one = || Ring::One("one".parse().unwrap());
        let rung = |whom, bell: usize| Rung { lane: Lane::Unicast, whom, bell: Bytes::from(vec![b'x'; bell]) };
        let rung = [rung(one(), 3), rung(Ring::All, 5), rung(one(), 4), rung(one(), BYTES_MAX), rung(one(), 1)];
        let gathered = gather(rung.into_iter());
        let sizes = |bells: &Bytes| chunk::unpack(bells.clone()).unwrap().iter().map(Bytes::len).collect::<Vec<_>>();
        let gathered: Vec<_> = gathered.iter().map(|(key, bells)| (key.as_str(), sizes(bells))).collect();
        let one = "unicast.one.one";
        assert_eq!(gathered, [(one, vec![3, 4]), ("unicast.all", vec![5]), (one, vec![BYTES_MAX]), (one, vec![1])]);
    }
}
