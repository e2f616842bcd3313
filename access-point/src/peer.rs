//! What a device sends to another of its app, where the app lets it: a unicast like a product's, but for who sent it.
//! It is on its queue and known to the store before it is acked.

use std::{collections::BTreeMap, sync::Arc};

use broker::Publication;
use bytes::Bytes;
use futures_util::future::try_join_all;
use model::{
    Audience, Class, DeviceId, Envelope, Lane, Message, MessageId, Ordinal, Priority, Queue, Shard, Terms, Timestamp,
    TraceParent, record::Record as _,
};
use mqtt::{Reason, packet::Publish};
use store::Entry;
use tokio::time::{Duration, timeout};
use tracing::debug;

use crate::{
    Site,
    close::Close,
    connection::{Connection, Peer},
    errand::{Home, Outcome, UPLOAD_MAX, refused},
    inbound::Batch,
    uplink::is_right,
    worker::Turn,
};

/// Largest body, in bytes: as much as a product's message may have when nobody says otherwise.
const BODY_MAX_BYTES: usize = 4_096;

/// How long a message is good for when its sender does not say, and at most.
const TTL_MAX: Duration = Duration::from_hours(24);

/// What they all count as beside the types of uplinks: no type has this name.
const COUNTED_AS: &str = "peer/";

/// A message from one device to another.
pub(crate) struct Post {
    to: DeviceId,
    kind: String,
    payload: Bytes,
    content_type: Option<String>,
    ttl: Duration,
    trace: TraceParent,
    packet_id: Option<u16>,
}

impl Connection {
    /// Takes a message of this type for another device.
    pub(crate) fn send_to_peer(
        &mut self,
        publish: Publish,
        (to, kind): (DeviceId, String),
        batch: &mut Batch,
        turn: &Turn,
    ) -> Result<(), Close> {
        let packet_id = publish.acked_under();
        let taken = match is_right(&publish, BODY_MAX_BYTES) {
            true => self.spend(Some(COUNTED_AS), packet_id, |rules| rules.peers, turn),
            false => Err(Reason::BAD_PAYLOAD),
        };
        if let Err(reason) = taken {
            return self.turn_away(packet_id, reason, turn);
        }
        let trace = publish.property("traceparent").and_then(|trace| trace.parse().ok());
        let said = publish.expiry_s.map(|secs| Duration::from_secs(secs.into()));
        batch.posts.push(Post {
            to,
            kind,
            payload: publish.payload,
            content_type: publish.content_type,
            ttl: said.unwrap_or(TTL_MAX).min(TTL_MAX),
            trace: trace.unwrap_or_else(|| TraceParent::start(rand::random(), rand::random())),
            packet_id,
        });
        Ok(())
    }
}

impl Post {
    fn message(self, from: &Peer, now: Timestamp) -> Message {
        let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&self.payload).is_ok();
        let usual = if is_json { "application/json" } else { "application/octet-stream" };
        Message {
            id: MessageId::new(now, rand::random()),
            app: from.app.clone(),
            env: from.env,
            lane: Lane::Unicast,
            kind: self.kind,
            class: Class::Peer { from: from.device.clone() },
            payload: self.payload,
            content_type: self.content_type.unwrap_or_else(|| usual.to_owned()),
            created_at: now,
            expires_at: now + self.ttl,
            due_at: None,
            priority: Priority::Normal,
            collapse_key: None,
            metadata: BTreeMap::new(),
            trace: self.trace,
        }
    }
}

/// Passes messages on in the order in which they came; a device that is not there is nobody's mistake.
pub(crate) fn pass_on(site: &Arc<Site>, home: Home, from: Peer, posts: Vec<Post>) {
    let site = site.clone();
    tokio::spawn(async move {
        let packet_ids: Vec<_> = posts.iter().map(|post| post.packet_id).collect();
        let reasons = match timeout(UPLOAD_MAX, keep(&site, &from, posts)).await {
            Ok(Ok(reasons)) => reasons,
            Ok(Err(reason)) => vec![reason; packet_ids.len()],
            Err(_) => vec![Reason::IMPLEMENTATION; packet_ids.len()],
        };
        let answers = packet_ids.into_iter().zip(reasons).filter_map(|(packet_id, reason)| Some((packet_id?, reason)));
        home.bring(Outcome::Uploaded(answers.collect()));
    });
}

/// Puts messages where they are kept; what is to be said of each.
async fn keep(site: &Site, from: &Peer, posts: Vec<Post>) -> Result<Vec<Reason>, Reason> {
    let (store, now) = (&site.deps.store, site.deps.clock.now());
    let ids: Vec<_> = posts.iter().map(|post| post.to.clone()).collect();
    let devices = store.devices(&from.app, &ids).await.map_err(|error| away(&error))?;
    let ordinals = devices.into_iter().map(|device| Some(device.filter(|device| device.env == from.env)?.ordinal));
    let ordinals: Vec<Option<Ordinal>> = ordinals.collect();
    let known = posts.into_iter().zip(&ordinals).filter_map(|(post, to)| Some((post.message(from, now), (*to)?)));
    let messages: Vec<_> = known.collect();
    let accept = |(message, _): &(Message, Ordinal)| store.accept(&from.app, Entry::from(message), None);
    let accepted = try_join_all(messages.iter().map(accept));
    let publications = messages.iter().map(|(message, to)| {
        let shard = Shard::of_device(&message.app, *to, site.config.unicast_shards);
        let (message, audience) = (message.clone(), Audience::One(*to));
        let envelope = Envelope { message, audience, terms: Terms::default() };
        Publication { queue: Queue::Push(Lane::Unicast, shard), body: envelope.encode().into() }
    });
    let published = site.deps.broker.publish(publications.collect());
    let (accepted, published) = tokio::join!(accepted, published);
    accepted.map_err(|error| away(&error))?;
    published.map_err(|error| refused(&error))?;
    Ok(ordinals.iter().map(|to| to.map_or(Reason::NO_SUBSCRIBERS, |_| Reason::SUCCESS)).collect())
}

fn away(error: &store::Error) -> Reason {
    debug!(%error, "what a device sends to another is not taken");
    Reason::IMPLEMENTATION
}
