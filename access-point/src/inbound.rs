//! What a device sends: acks, and messages on the few topics that it may publish to. A message is acked only once it
//! is where it is kept.

use broker::Publication;
use model::{AppId, Position, Queue, Report, Stream, Timestamp, record::Record as _};
use mqtt::{
    Answered, Packet, Reason, Up, Version,
    packet::{PubAck, Publish, SubAck, Subscribe, Unsubscribe},
    topic,
};
use serde::Deserialize;
use tokio::time::Duration;
use tracing::debug;

use crate::{
    KeepAlive,
    admit::{cut, is_ahead},
    close::Close,
    connection::Connection,
    control,
    errand::{self, Stated},
    fetch::{Asked, Sync},
    metrics::Delivered,
    outbox::Fact,
    peer::{self, Post},
    pull::Sent,
    uplink::HELD_MAX,
    worker::Turn,
};

/// A ping makes a session look at its streams, but not more often than this.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The payload of `hb`: seconds, alone or among more.
#[derive(Deserialize)]
#[serde(untagged)]
enum Beat {
    Alone(u16),
    Among { keepalive_s: u16 },
}

impl Beat {
    fn read(payload: &[u8]) -> Option<u16> {
        serde_json::from_slice(payload).ok().map(|(Self::Alone(secs) | Self::Among { keepalive_s: secs })| secs)
    }
}

/// What some packets of a device bring up.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) uploads: Vec<Publication>,
    /// Acked once the uploads are confirmed.
    pub(crate) packet_ids: Vec<u16>,
    /// For other devices.
    pub(crate) posts: Vec<Post>,
    /// What the device says it has.
    stated: Option<Stated>,
}

/// Nothing depends on subscriptions: messages come without. They are granted for the clients that want them.
pub(crate) fn granted<'a>(apps: impl Iterator<Item = &'a AppId> + Clone, subscribe: &Subscribe) -> Packet {
    let grant = |(filter, qos): &(String, u8)| match apps.clone().any(|app| topic::is_inside(filter, app)) {
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
    pub(crate) fn take(&mut self, packets: Vec<Packet>, turn: &mut Turn) -> Result<(), Close> {
        if packets.is_empty() {
            return Ok(());
        }
        self.session.touched(turn.instant.into_std());
        let waited = self.doze.heard(turn.instant);
        self.look_for(waited);
        self.doze.owes_pong |= waited[Stream::Inbox as usize] && packets.contains(&Packet::PingReq);
        let mut batch = Batch::default();
        let mut taken = Ok(());
        for packet in packets {
            taken = match self.hand_on(packet) {
                Ok(Some(packet)) => self.take_one(packet, &mut batch, turn),
                Ok(None) => Ok(()),
                Err(close) => Err(close),
            };
            if taken.is_err() {
                break;
            }
        }
        let posts = std::mem::take(&mut batch.posts);
        if !posts.is_empty() {
            self.busy += 1;
            peer::pass_on(&turn.site, self.home(), self.peer.clone(), posts);
        }
        if let Some(stated) = batch.stated.take() {
            self.busy += 1;
            errand::look_up_heads(&turn.site, self.home(), self.peer.clone(), stated);
        }
        if !batch.uploads.is_empty() {
            self.busy += 1;
            let patience = if self.link.version() == Version::V5 { Duration::ZERO } else { HELD_MAX };
            errand::upload(&turn.site, self.home(), batch, patience);
        }
        taken
    }

    fn take_one(&mut self, packet: Packet, batch: &mut Batch, turn: &mut Turn) -> Result<(), Close> {
        match packet {
            Packet::PubAck(ack) if self.fetch.is_some() => {
                let answered = self.session.ack_all(ack.packet_id, ack.reason);
                answered.iter().for_each(|answered| self.answered(answered, turn));
                Ok(())
            }
            Packet::PubAck(ack) => {
                if let Some(answered) = self.session.ack(ack.packet_id, ack.reason) {
                    self.answered(&answered, turn);
                }
                Ok(())
            }
            Packet::Publish(publish) => self.publish(*publish, batch, turn),
            Packet::Subscribe(subscribe) => {
                let answer = granted(self.apps(), &subscribe);
                self.link.push(&answer)
            }
            Packet::Unsubscribe(unsubscribe) => self.link.push(&forgotten(&unsubscribe)),
            Packet::PingReq => {
                if turn.instant.duration_since(self.looked_at) >= LOOK_EVERY {
                    self.looked_at = turn.instant;
                    self.behind = [true; 2];
                    self.fetch.as_mut().into_iter().for_each(|fetch| fetch.remind());
                }
                if let Some(heartbeat) = &self.peer.heartbeat {
                    heartbeat.pinged(turn.instant);
                }
                if self.doze.owes_pong { Ok(()) } else { self.link.push(&Packet::PingResp) }
            }
            Packet::Disconnect(_) => Err(Close::Goodbye),
            Packet::Connect(_) | Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                Err(Close::Broken(Reason::PROTOCOL_ERROR))
            }
        }
    }

    /// The device says how often it will be heard. Whoever leaves that to us is told what was learned.
    fn beat(&mut self, asked_s: u16, turn: &Turn) -> Result<(), Close> {
        let KeepAlive { min_s, max_s, .. } = turn.site.config.keep_alive;
        let learned = self.peer.heartbeat.as_ref().map(|heartbeat| heartbeat.told_s.clamp(min_s, max_s));
        let counts = asked_s.max(learned.unwrap_or(0)).clamp(min_s, max_s);
        self.session.set_keep_alive(Duration::from_secs(counts.into()));
        let told = learned.filter(|learned| *learned != asked_s);
        told.map_or(Ok(()), |learned| self.link.push(&control::keep_alive(&self.peer.app, learned)))
    }

    fn answered(&self, answered: &Answered<Sent>, turn: &mut Turn) {
        let sent = answered.tag;
        let (fact, delivered) = match answered.rejected {
            true => (Fact::Rejected, Delivered::Rejected),
            false => (Fact::Acked, Delivered::Acked),
        };
        turn.tell(&self.peer.app, self.peer.ordinal, sent.message, fact);
        turn.site.metrics.delivered(sent.lane, delivered);
        turn.site.metrics.acked_after(sent.lane, turn.now.since(sent.created_at));
        debug!(
            app = %self.peer.app, device.id = %self.peer.device, message.id = %sent.message,
            trace.id = sent.trace.id(), rejected = answered.rejected, "acked"
        );
    }

    fn publish(&mut self, publish: Publish, batch: &mut Batch, turn: &Turn) -> Result<(), Close> {
        if publish.qos > 1 && self.link.version() == Version::V5 {
            return Err(Close::Broken(Reason::QOS_UNSUPPORTED));
        }
        let packet_id = publish.acked_under();
        let known = Up::parse(&publish.topic).filter(|(app, _)| *app == self.peer.app);
        let Some((_, up)) = known else { return self.refuse(packet_id, Reason::NOT_AUTHORIZED) };
        // Of no type, whose rate all devices share, but each costs the broker or the store something.
        if matches!(up, Up::Attributes | Up::Sync | Up::Bind)
            && let Err(reason) = self.spend(None, packet_id, |_| true, turn)
        {
            return self.turn_away(packet_id, reason, turn);
        }
        match up {
            Up::Uplink(kind, request) => {
                let kind = kind.to_owned();
                self.send_up(publish, (&kind, request), batch, turn)
            }
            Up::Peer(to, kind) => {
                let kind = kind.to_owned();
                self.send_to_peer(publish, (to, kind), batch, turn)
            }
            Up::Outcome(command) => self.send_outcome(publish, command, batch, turn),
            Up::Attributes if publish.payload.len() > model::report::PATCH_MAX_BYTES => {
                self.refuse(packet_id, Reason::BAD_PAYLOAD)
            }
            Up::Attributes => {
                let report = self.report(publish, turn.now);
                batch.uploads.push(Publication { queue: Queue::Reports, body: report.encode().into() });
                batch.packet_ids.extend(packet_id);
                Ok(())
            }
            Up::Sync => match self.stated(packet_id, &publish) {
                Ok(stated) => {
                    batch.stated.get_or_insert_default().add(stated);
                    Ok(())
                }
                Err(reason) => self.refuse(packet_id, reason),
            },
            Up::Heartbeat => match Beat::read(&publish.payload) {
                Some(asked_s) => {
                    self.beat(asked_s, turn)?;
                    self.acknowledge(packet_id, Reason::SUCCESS)
                }
                None => self.refuse(packet_id, Reason::BAD_PAYLOAD),
            },
            Up::Bind => self.bind(packet_id, &publish, turn),
            Up::Event => self.refuse(packet_id, Reason::NOT_AUTHORIZED),
        }
    }

    /// What a message to `sync` says; a device that fetches asks for a page with it.
    fn stated(&self, packet_id: Option<u16>, publish: &Publish) -> Result<Stated, Reason> {
        let sync: Sync = serde_json::from_slice(&publish.payload).map_err(|_| Reason::BAD_PAYLOAD)?;
        let after = sync.after.parse().map_err(|_| Reason::BAD_PAYLOAD)?;
        let asked = self.fetch.as_ref().map(|_| Asked::of(&self.peer.app, &sync, publish)).transpose()?;
        Ok(Stated { after, packet_ids: packet_id.into_iter().collect(), asked: asked.into_iter().collect() })
    }

    /// The device has said what it has received. When the store cannot confirm it now, nothing is lost: entries go out
    /// once more.
    pub(crate) fn synced(
        &mut self,
        Stated { after, packet_ids, asked }: Stated,
        latest: Result<Position, store::Error>,
        turn: &mut Turn,
    ) -> Result<(), Close> {
        self.busy -= 1;
        // Also when it cannot: a device that fetches would be told that there is nothing more.
        self.behind = [true; 2];
        if let Ok(latest) = latest {
            for answered in self.session.state(cut(after, latest)) {
                self.answered(&answered, turn);
            }
            if is_ahead(after, latest) {
                turn.site.metrics.resyncs.inc();
                self.link.push(&control::resync(&self.peer.app, latest))?;
            }
        }
        for packet_id in packet_ids {
            self.acknowledge(Some(packet_id), Reason::SUCCESS)?;
        }
        for asked in asked {
            self.open_page(asked, turn)?;
        }
        Ok(())
    }

    fn report(&self, publish: Publish, at: Timestamp) -> Report {
        Report {
            app: self.peer.app.clone(),
            device: self.peer.device.clone(),
            ordinal: self.peer.ordinal,
            patch: publish.payload,
            at,
        }
    }

    /// What the device has sent up is kept, or is not.
    pub(crate) fn uploaded(&mut self, answers: Vec<(u16, Reason)>) -> Result<(), Close> {
        self.busy -= 1;
        for (packet_id, reason) in answers {
            match reason.is_error() {
                false => self.acknowledge(Some(packet_id), reason)?,
                true => self.refuse(Some(packet_id), reason)?,
            }
        }
        Ok(())
    }

    pub(crate) fn acknowledge(&mut self, packet_id: Option<u16>, reason: Reason) -> Result<(), Close> {
        let ack = packet_id.map(|packet_id| Packet::PubAck(PubAck { packet_id, reason }));
        ack.map_or(Ok(()), |ack| self.link.push(&ack))
    }

    /// Says no to a message. Only MQTT 5 has words for it, and only for a message that is acked: others end the link.
    pub(crate) fn refuse(&mut self, packet_id: Option<u16>, reason: Reason) -> Result<(), Close> {
        match self.link.version() {
            Version::V5 if packet_id.is_some() => self.acknowledge(packet_id, reason),
            _ => Err(Close::Broken(reason)),
        }
    }
}
