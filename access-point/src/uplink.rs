//! What a device sends up: whether its app lets it, and no faster than its app lets it. Whoever can be told no is told;
//! whoever cannot is not heard until it was not too fast.

use broker::Publication;
use bytes::Bytes;
use model::{
    MessageId, Outcome, Queue, Reply, ReplyTo, Timestamp, TraceParent, Uplink, UplinkId, UplinkName, UplinkRules,
    class::CORRELATION_MAX_BYTES, record::Record as _,
};
use mqtt::{Reason, Version, packet::Publish, topic};
use serde::de::IgnoredAny;
use tokio::time::Duration;

use crate::{close::Close, connection::Connection, inbound::Batch, quota::Rate, worker::Turn};

/// How long a device is not heard that cannot be told no; when that is not enough, its link ends.
pub(crate) const HELD_MAX: Duration = Duration::from_secs(10);

/// Largest body, in bytes: what is larger goes elsewhere, and a link to it goes up.
const BODY_MAX_BYTES: usize = 64 * 1024;

/// The type of uplink that tells what came of a command; apps need not allow it.
const OUTCOME: &str = "result";

const JSON: &str = "application/json";

impl Connection {
    /// Takes business data of this type.
    pub(crate) fn send_up(
        &mut self,
        publish: Publish,
        (kind, request): (&str, Option<ReplyTo>),
        batch: &mut Batch,
        turn: &Turn,
    ) -> Result<(), Close> {
        let packet_id = publish.acked_under();
        let taken = match self.reply(&publish, request) {
            Ok(_) if !is_right(&publish, BODY_MAX_BYTES) => Err(Reason::BAD_PAYLOAD),
            Ok(reply) => self.uplink(publish, kind.to_owned(), turn.now).map(|uplink| Uplink { reply, ..uplink }),
            Err(reason) => Err(reason),
        };
        let paid = |uplink| self.spend(Some(kind), packet_id, |rules| rules.allow(kind), turn).map(|()| uplink);
        match taken.and_then(paid) {
            Ok(uplink) => {
                batch.upload(&uplink, packet_id);
                Ok(())
            }
            Err(reason) => self.turn_away(packet_id, reason, turn),
        }
    }

    /// Takes what the device says came of a command.
    pub(crate) fn send_outcome(
        &mut self,
        publish: Publish,
        command: MessageId,
        batch: &mut Batch,
        turn: &Turn,
    ) -> Result<(), Close> {
        let packet_id = publish.acked_under();
        let said = self.uplink(publish, OUTCOME.to_owned(), turn.now);
        let is_outcome = |uplink: &Uplink| Outcome::read(&uplink.payload, uplink.id, turn.now).is_some();
        let taken = match said {
            Ok(uplink) if !is_outcome(&uplink) => Err(Reason::BAD_PAYLOAD),
            Ok(uplink) => self.spend(Some(OUTCOME), packet_id, |_| true, turn).map(|()| uplink),
            Err(reason) => Err(reason),
        };
        match taken {
            Ok(uplink) => {
                batch.upload(&Uplink { answers: Some(command), ..uplink }, packet_id);
                Ok(())
            }
            Err(reason) => self.turn_away(packet_id, reason, turn),
        }
    }

    /// Counts a message of this type; one of none counts by its device alone. One that is too many is refused where that
    /// can be said, else the device is not heard for a while.
    ///
    /// # Errors
    /// Why it is refused.
    pub(crate) fn spend(
        &mut self,
        kind: Option<&str>,
        packet_id: Option<u16>,
        is_allowed: impl FnOnce(&UplinkRules) -> bool,
        turn: &Turn,
    ) -> Result<(), Reason> {
        let app = turn.site.apps.known(&self.peer.app).ok_or(Reason::IMPLEMENTATION)?;
        if !is_allowed(&app.uplink) {
            return Err(Reason::NOT_AUTHORIZED);
        }
        let UplinkRules { device_per_s, device_burst, type_per_s, .. } = app.uplink;
        let hears_no = self.link.version() == Version::V5 && packet_id.is_some();
        let (now, longest) = (turn.instant, if hears_no { Duration::ZERO } else { HELD_MAX });
        let own = self.quota.owe(Rate { per_s: device_per_s, burst: device_burst }, now, longest);
        let of_type = own.and_then(|_| match kind {
            Some(kind) => turn.site.types.owe((&self.peer.app, kind), type_per_s, now, longest),
            None => Some(Duration::ZERO),
        });
        let wait = own.max(of_type).filter(|_| of_type.is_some()).ok_or(Reason::QUOTA_EXCEEDED)?;
        if !wait.is_zero() {
            self.held_until = self.held_until.max(Some(now + wait));
            turn.site.metrics.uplinks_held.inc();
        }
        Ok(())
    }

    pub(crate) fn turn_away(&mut self, packet_id: Option<u16>, reason: Reason, turn: &Turn) -> Result<(), Close> {
        turn.site.metrics.uplinks_refused.inc();
        self.refuse(packet_id, reason)
    }

    /// Where an answer is to go: MQTT 5 says it with the message, others by the topic.
    fn reply(&self, publish: &Publish, request: Option<ReplyTo>) -> Result<Option<Reply>, Reason> {
        let correlation = publish.correlation_data.clone().map(Bytes::from);
        if correlation.as_ref().is_some_and(|correlation| correlation.len() > CORRELATION_MAX_BYTES) {
            return Err(Reason::BAD_PAYLOAD);
        }
        let to = match &publish.response_topic {
            Some(topic) => Some(topic::request(topic, &self.peer.app).ok_or(Reason::TOPIC_INVALID)?),
            None => request,
        };
        Ok(to.map(|to| Reply { to, correlation }))
    }

    /// What a device that names it sends again, because no answer came, has the id that it had: it is kept once.
    fn uplink(&self, publish: Publish, kind: String, now: Timestamp) -> Result<Uplink, Reason> {
        let trace = publish.property("traceparent").and_then(|trace| trace.parse().ok());
        let id = match publish.property("id").map(str::parse::<UplinkName>) {
            Some(Ok(name)) => name.id((&self.peer.app, self.peer.env), &self.peer.device),
            Some(Err(_)) => return Err(Reason::BAD_PAYLOAD),
            None => UplinkId::new(now, rand::random()),
        };
        Ok(Uplink {
            id,
            app: self.peer.app.clone(),
            env: self.peer.env,
            device: self.peer.device.clone(),
            user: self.peer.user.clone(),
            kind,
            answers: None,
            reply: None,
            content_type: publish.content_type,
            payload: publish.payload,
            received_at: now,
            trace: trace.unwrap_or_else(|| TraceParent::start(rand::random(), rand::random())),
        })
    }
}

impl Batch {
    fn upload(&mut self, uplink: &Uplink, packet_id: Option<u16>) {
        self.uploads.push(Publication { queue: Queue::Uplink, body: uplink.encode().into() });
        self.packet_ids.extend(packet_id);
    }
}

/// Whether the body has no more than so many bytes, and is JSON if it is said to be.
pub(crate) fn is_right(publish: &Publish, max_bytes: usize) -> bool {
    let mime = publish.content_type.as_deref().and_then(|mime| mime.split(';').next());
    let is_json = mime.is_some_and(|mime| mime.trim() == JSON);
    publish.payload.len() <= max_bytes && (!is_json || serde_json::from_slice::<IgnoredAny>(&publish.payload).is_ok())
}
