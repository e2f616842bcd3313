//! What a device sends: acks, and messages on the few topics that it may publish to. A message is acked only once it
//! is where it is kept.

use broker::Publication;
use model::{AppId, MessageId, Position, Queue, Report, TraceParent, Uplink, UplinkId, record::Record as _};
use mqtt::{
    Answered, Packet, Reason, Up, Version,
    packet::{PubAck, Publish, SubAck, Subscribe, Unsubscribe},
    topic,
};
use serde::Deserialize;
use tokio::time::{Duration, Instant, timeout};
use tracing::debug;

use crate::{
    admit::{cut, heads, is_ahead},
    close::Close,
    connection::Connection,
    control,
    metrics::Delivered,
    outbox::Fact,
    pull::Sent,
};

/// How long the broker may take for what devices send up; then they are told to try again.
const UPLOAD_MAX: Duration = Duration::from_secs(4);

/// A ping makes a session look at its streams, but not more often than this.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The payload of `sync`.
#[derive(Deserialize)]
struct Sync {
    after: String,
}

/// What some packets of a device amount to.
#[derive(Default)]
struct Batch {
    facts: Vec<(MessageId, Fact)>,
    uploads: Vec<Publication>,
    /// Acked once the uploads are confirmed.
    uploaded: Vec<u16>,
}

/// Nothing depends on subscriptions: messages come without. They are granted for the clients that want them.
pub(crate) fn granted(app: &AppId, subscribe: &Subscribe) -> Packet {
    let grant = |(filter, qos): &(String, u8)| match topic::is_inside(filter, app) {
        true => Reason((*qos).min(1)),
        false => Reason::NOT_AUTHORIZED,
    };
    let reasons = subscribe.filters.iter().map(grant).collect();
    Packet::SubAck(SubAck { packet_id: subscribe.packet_id, reasons })
}

/// The answer to a device that wants no longer what comes anyway.
pub(crate) fn forgotten(unsubscribe: &Unsubscribe) -> Packet {
    let reasons = vec![Reason::SUCCESS; unsubscribe.filters.len()];
    Packet::UnsubAck(SubAck { packet_id: unsubscribe.packet_id, reasons })
}

impl Connection {
    /// Deals with what a device has sent.
    pub(crate) async fn take(&mut self, packets: Vec<Packet>) -> Result<(), Close> {
        if packets.is_empty() {
            return Ok(());
        }
        self.session.touched(Instant::now().into_std());
        let mut batch = Batch::default();
        let mut taken = Ok(());
        for packet in packets {
            taken = self.take_one(packet, &mut batch).await;
            if taken.is_err() {
                break;
            }
        }
        self.tell(&batch.facts);
        if !batch.uploads.is_empty() {
            Box::pin(self.upload(batch)).await?;
        }
        taken
    }

    async fn take_one(&mut self, packet: Packet, batch: &mut Batch) -> Result<(), Close> {
        match packet {
            Packet::PubAck(ack) => {
                if let Some(answered) = self.session.ack(ack.packet_id, ack.reason) {
                    self.answered(&answered, batch);
                }
                Ok(())
            }
            Packet::Publish(publish) => Box::pin(self.publish(*publish, batch)).await,
            Packet::Subscribe(subscribe) => self.link.push(&granted(&self.peer.app, &subscribe)),
            Packet::Unsubscribe(unsubscribe) => self.link.push(&forgotten(&unsubscribe)),
            Packet::PingReq => {
                if self.looked_at.elapsed() >= LOOK_EVERY {
                    self.looked_at = Instant::now();
                    self.behind = [true; 2];
                }
                self.link.push(&Packet::PingResp)
            }
            Packet::Disconnect(_) => Err(Close::Goodbye),
            Packet::Connect(_) | Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                Err(Close::Broken(Reason::PROTOCOL_ERROR))
            }
        }
    }

    fn answered(&self, answered: &Answered<Sent>, batch: &mut Batch) {
        let sent = answered.tag;
        let (fact, delivered) = match answered.rejected {
            true => (Fact::Rejected, Delivered::Rejected),
            false => (Fact::Acked, Delivered::Acked),
        };
        batch.facts.push((sent.message, fact));
        self.site.metrics.delivered(sent.lane, delivered);
        self.site.metrics.acked_after(sent.lane, self.site.deps.clock.now().since(sent.created_at));
        debug!(
            app = %self.peer.app, device.id = %self.peer.device, message.id = %sent.message,
            trace.id = sent.trace.id(), rejected = answered.rejected, "acked"
        );
    }

    async fn publish(&mut self, publish: Publish, batch: &mut Batch) -> Result<(), Close> {
        if publish.qos > 1 && self.link.version() == Version::V5 {
            return Err(Close::Broken(Reason::QOS_UNSUPPORTED));
        }
        let packet_id = (publish.qos > 0).then_some(publish.packet_id);
        let known = Up::parse(&publish.topic).filter(|(app, _)| *app == self.peer.app);
        let Some((_, up)) = known else { return self.refuse(packet_id, Reason::NOT_AUTHORIZED) };
        match up {
            Up::Uplink(kind) => {
                let kind = kind.to_owned();
                batch
                    .uploads
                    .push(Publication { queue: Queue::Uplink, body: self.uplink(publish, kind).encode().into() });
                batch.uploaded.extend(packet_id);
                Ok(())
            }
            Up::Attributes if publish.payload.len() > model::report::PATCH_MAX_BYTES => {
                self.refuse(packet_id, Reason::BAD_PAYLOAD)
            }
            Up::Attributes => {
                batch.uploads.push(Publication { queue: Queue::Reports, body: self.report(publish).encode().into() });
                batch.uploaded.extend(packet_id);
                Ok(())
            }
            Up::Sync => {
                let sync: Option<Sync> = serde_json::from_slice(&publish.payload).ok();
                let Some(after) = sync.and_then(|sync| sync.after.parse().ok()) else {
                    return self.refuse(packet_id, Reason::BAD_PAYLOAD);
                };
                self.sync(after, batch).await?;
                self.acknowledge(packet_id, Reason::SUCCESS)
            }
            Up::Heartbeat => self.acknowledge(packet_id, Reason::SUCCESS),
            Up::Event | Up::Bind => self.refuse(packet_id, Reason::NOT_AUTHORIZED),
        }
    }

    /// The device says what it has received. When the store cannot confirm it now, nothing is lost: entries go out
    /// once more.
    async fn sync(&mut self, after: Position, batch: &mut Batch) -> Result<(), Close> {
        let Ok(latest) = heads(&self.site, &self.peer).await else { return Ok(()) };
        for answered in self.session.state(cut(after, latest)) {
            self.answered(&answered, batch);
        }
        self.behind = [true; 2];
        if is_ahead(after, latest) {
            self.site.metrics.resyncs.inc();
            self.link.push(&control::resync(&self.peer.app, latest))?;
        }
        Ok(())
    }

    fn uplink(&self, publish: Publish, kind: String) -> Uplink {
        let now = self.site.deps.clock.now();
        let trace = publish.property("traceparent").and_then(|trace| trace.parse().ok());
        Uplink {
            id: UplinkId::new(now, rand::random()),
            app: self.peer.app.clone(),
            env: self.peer.env,
            device: self.peer.device.clone(),
            user: self.peer.user.clone(),
            kind,
            content_type: publish.content_type,
            payload: publish.payload,
            received_at: now,
            trace: trace.unwrap_or_else(|| TraceParent::start(rand::random(), rand::random())),
        }
    }

    fn report(&self, publish: Publish) -> Report {
        Report {
            app: self.peer.app.clone(),
            device: self.peer.device.clone(),
            ordinal: self.peer.ordinal,
            patch: publish.payload,
            at: self.site.deps.clock.now(),
        }
    }

    /// Brings what the device sent up to where it is kept, then acks it.
    async fn upload(&mut self, batch: Batch) -> Result<(), Close> {
        let published = timeout(UPLOAD_MAX, self.site.deps.broker.publish(batch.uploads)).await;
        let reason = match published {
            Ok(Ok(())) => Reason::SUCCESS,
            Ok(Err(broker::Error::Full(_))) => Reason::QUOTA_EXCEEDED,
            Ok(Err(_)) | Err(_) => Reason::IMPLEMENTATION,
        };
        if reason.is_error() {
            debug!(app = %self.peer.app, device.id = %self.peer.device, ?reason, "what a device sent was not taken");
        }
        for packet_id in batch.uploaded {
            match reason {
                Reason::SUCCESS => self.acknowledge(Some(packet_id), reason)?,
                reason => self.refuse(Some(packet_id), reason)?,
            }
        }
        Ok(())
    }

    fn acknowledge(&mut self, packet_id: Option<u16>, reason: Reason) -> Result<(), Close> {
        let ack = packet_id.map(|packet_id| Packet::PubAck(PubAck { packet_id, reason }));
        ack.map_or(Ok(()), |ack| self.link.push(&ack))
    }

    /// Says no to a message. Only MQTT 5 has words for it, and only for a message that is acked: others end the link.
    fn refuse(&mut self, packet_id: Option<u16>, reason: Reason) -> Result<(), Close> {
        match self.link.version() {
            Version::V5 if packet_id.is_some() => self.acknowledge(packet_id, reason),
            _ => Err(Close::Broken(reason)),
        }
    }
}
