//! Several apps on one link (`bind`): each has a session of its own, a record like any other, with its own place in the
//! app's sessions, window, streams, cursor, receipts and token; only its bytes go through the link of the first. What the
//! device sends for an app is handed on by topic and packet id, what a session writes goes out as it is.

mod open;
mod pipe;

use model::{AppId, Position, sign::DeviceToken};
use mqtt::{
    Packet, Reason,
    packet::{Connect, Publish},
    session::{BOUND_MAX, bound_ids},
    wire,
};
use serde::{Deserialize, Deserializer, de::Error as _};

pub(crate) use self::pipe::Far;
use self::{
    open::Wanted,
    pipe::{Pipe, pipe},
};
use crate::{close::Close, connection::Connection, control, worker::Turn};

/// Unsent bytes of the link beyond which sessions keep theirs.
const UNSENT_MAX_BYTES: usize = 32 * 1024;

/// What a PINGRESP begins with: the link answers pings itself.
const PINGRESP: u8 = 0xD0;

/// The payload of `bind`; without a token the app leaves the link.
#[derive(Deserialize)]
struct Bind {
    app: AppId,
    #[serde(default)]
    token: Option<String>,
    #[serde(default, deserialize_with = "position")]
    after: Option<Position>,
}

fn position<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Position>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
}

/// An app that shares a link.
#[derive(Debug)]
struct Seat {
    app: AppId,
    packet_ids: (u16, u16),
    pipe: Pipe,
}

/// The apps that share a link with its first.
#[derive(Debug, Default)]
pub(crate) struct Bound {
    seats: Vec<Seat>,
    /// Sessions so far: each has other packet ids than those before, whose acks may be on their way.
    sessions: u16,
}

impl Bound {
    fn of(&self, app: &AppId) -> Option<&Pipe> {
        self.seats.iter().find(|seat| seat.app == *app).map(|seat| &seat.pipe)
    }

    fn with_id(&self, packet_id: u16) -> Option<&Pipe> {
        let has = |seat: &&Seat| (seat.packet_ids.0..=seat.packet_ids.1).contains(&packet_id);
        self.seats.iter().find(has).map(|seat| &seat.pipe)
    }

    /// Whether every session takes what comes next. While one does not, the device is not heard: as on a link of its own.
    pub(crate) fn has_room(&self) -> bool {
        self.seats.iter().all(|seat| seat.pipe.has_room())
    }

    /// Its session ends with its pipe.
    fn leave(&mut self, app: &AppId) {
        self.seats.retain(|seat| seat.app != *app);
    }

    /// Packet ids that no session here uses.
    fn next_ids(&mut self) -> (u16, u16) {
        loop {
            let packet_ids = bound_ids(self.sessions);
            self.sessions = self.sessions.wrapping_add(1);
            if self.seats.iter().all(|seat| seat.packet_ids != packet_ids) {
                return packet_ids;
            }
        }
    }
}

impl Connection {
    /// Hands a packet on that is for a session of another app; gives it back when it is for this one.
    pub(crate) fn hand_on(&self, packet: Packet) -> Result<Option<Packet>, Close> {
        let Some(bound) = &self.bound else { return Ok(Some(packet)) };
        let pipe = match &packet {
            Packet::PubAck(ack) => bound.with_id(ack.packet_id),
            Packet::Publish(publish) => mqtt::Up::parse(&publish.topic).and_then(|(app, _)| bound.of(&app)),
            Packet::PingReq => {
                let ping = self.written(&packet)?;
                bound.seats.iter().for_each(|seat| seat.pipe.send(&ping));
                None
            }
            _ => None,
        };
        let Some(pipe) = pipe else { return Ok(Some(packet)) };
        pipe.send(&self.written(&packet)?);
        Ok(None)
    }

    fn written(&self, packet: &Packet) -> Result<Vec<u8>, Close> {
        let mut bytes = Vec::new();
        wire::encode(packet, self.link.version(), &mut bytes)?;
        Ok(bytes)
    }

    /// The apps on this link.
    pub(crate) fn apps(&self) -> impl Iterator<Item = &AppId> + Clone {
        let bound = self.bound.iter().flat_map(|bound| bound.seats.iter().map(|seat| &seat.app));
        std::iter::once(&self.peer.app).chain(bound)
    }

    /// Does what a message to `bind` asks for; what comes of it is told on `ctl`.
    pub(crate) fn bind(&mut self, packet_id: Option<u16>, publish: &Publish, turn: &Turn) -> Result<(), Close> {
        let Ok(Bind { app, token, after }) = serde_json::from_slice(&publish.payload) else {
            return self.refuse(packet_id, Reason::BAD_PAYLOAD);
        };
        let refused = match token.filter(|token| !token.is_empty()) {
            Some(token) => self.start_to_bind(&app, (token, after.unwrap_or_default()), turn).err(),
            None => {
                self.bound.as_mut().into_iter().for_each(|bound| bound.leave(&app));
                None
            }
        };
        let Some((reason, why)) = refused else { return self.acknowledge(packet_id, Reason::SUCCESS) };
        self.link.push(&control::unbound(&self.peer.app, &app, why))?;
        self.acknowledge(packet_id, reason)
    }

    /// Sends for the session of an app. Who binds again comes with a new token, for a session that takes over.
    fn start_to_bind(
        &mut self,
        app: &AppId,
        (token, after): (String, Position),
        turn: &Turn,
    ) -> Result<(), (Reason, &'static str)> {
        // The link's own app came with CONNECT, and what shares a link shares it with nobody else.
        let is_of_app = DeviceToken::claimed(&token).is_some_and(|(of, _)| of == *app);
        if !is_of_app || *app == self.peer.app || self.link.is_shared() {
            return Err((Reason::NOT_AUTHORIZED, "token"));
        }
        let (window, bound) = (self.peer.window_bound, self.bound.get_or_insert_default());
        bound.leave(app);
        if bound.seats.len() >= usize::from(BOUND_MAX) {
            return Err((Reason::QUOTA_EXCEEDED, "too_many"));
        }
        if window == 0 {
            return Err((Reason::QUOTA_EXCEEDED, "receive_maximum"));
        }
        let packet_ids = bound.next_ids();
        let (near, far) = pipe(self.waker.clone());
        bound.seats.push(Seat { app: app.clone(), packet_ids, pipe: near });
        let connect = Connect {
            maximum_packet_size: u32::try_from(self.peer.packet_max_bytes).ok(),
            ..Connect::new(self.link.version(), self.peer.device.as_str())
        };
        let peer = self.peer.clone();
        open::open(&turn.site, far, Wanted { token, after, peer, connect, window, packet_ids });
        Ok(())
    }

    /// Puts what sessions of other apps have written on the link, as much as should wait for the device.
    pub(crate) fn carry(&mut self) -> Result<(), Close> {
        let Some(mut bound) = self.bound.take() else { return Ok(()) };
        let mut over = Vec::new();
        for seat in &bound.seats {
            if self.link.unsent_bytes() >= UNSENT_MAX_BYTES {
                if self.link.stalled_since().is_none() {
                    self.waker.wake_by_ref();
                }
                break;
            }
            let (packets, news) = seat.pipe.take()?;
            if let Some(latest) = news.opened {
                self.link.push(&control::bound(&self.peer.app, &seat.app, latest))?;
            }
            self.put_on(&packets)?;
            if let Some(why) = news.over {
                self.link.push(&control::unbound(&self.peer.app, &seat.app, why))?;
                over.push(seat.packet_ids);
            }
        }
        bound.seats.retain(|seat| !over.contains(&seat.packet_ids));
        self.bound = Some(bound);
        if !over.is_empty() {
            // It may have been for one of these that the device was not heard.
            self.waker.wake_by_ref();
        }
        Ok(())
    }

    fn put_on(&mut self, mut packets: &[u8]) -> Result<(), Close> {
        while let Some(len) = wire::frame_len(packets, usize::MAX)? {
            let (packet, rest) = packets.split_at(len);
            if packet[0] != PINGRESP {
                self.link.push_bytes(packet);
            }
            packets = rest;
        }
        Ok(())
    }
}
