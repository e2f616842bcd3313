//! A device that was let in on its token while its session cannot be found, because the store is away: its link lives,
//! and what it sends up waits, up to a bound, for the session. Beyond it is refused: the device knows that it was not taken.

use std::{pin::pin, sync::Arc};

use mqtt::{
    Packet, Reason, Version,
    packet::{PubAck, Publish},
};
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use crate::{
    Site,
    admit::{Admitted, Guest},
    auth::Refused,
    close::Close,
    control,
    inbound::{forgotten, granted},
    link::Link,
};

/// Messages of a device that are kept for its session: what devices say when they come. Thousands may be waiting.
const HELD_MAX: usize = 16;
const HELD_MAX_BYTES: usize = 8 * 1024;

/// A device that is in and has no session.
pub(crate) struct Waiting {
    site: Arc<Site>,
    guest: Arc<Guest>,
    link: Link,
    heard_at: Instant,
    held: Vec<Packet>,
    held_bytes: usize,
}

impl Waiting {
    /// A device that has been answered, or will read the answer first.
    pub(crate) fn new(site: &Arc<Site>, guest: &Arc<Guest>, link: Link) -> Self {
        site.metrics.waiting.inc();
        debug!(app = %guest.login.app, device.id = %guest.login.device, "a device is in and has no session");
        let (site, guest) = (site.clone(), guest.clone());
        Self { site, guest, link, heard_at: Instant::now(), held: Vec::new(), held_bytes: 0 }
    }

    /// Keeps the link alive until the session is found; then gives back what the session must deal with. `None` when
    /// the link is over. `early` are packets that came with CONNECT.
    pub(crate) async fn until(
        mut self,
        admission: impl Future<Output = Result<Admitted, Refused>>,
        early: Vec<Packet>,
    ) -> Option<(Admitted, Link, Vec<Packet>)> {
        let found = match self.take(early) {
            Ok(()) => self.find(admission).await,
            Err(close) => Err(close),
        };
        self.site.metrics.waiting.dec();
        match found {
            Ok(admitted) => Some((admitted, self.link, self.held)),
            Err(close) => {
                self.end(close).await;
                None
            }
        }
    }

    async fn find(&mut self, admission: impl Future<Output = Result<Admitted, Refused>>) -> Result<Admitted, Close> {
        let mut admission = pin!(admission);
        let (site, guest) = (self.site.clone(), self.guest.clone());
        loop {
            self.link.flush()?;
            tokio::select! {
                admitted = &mut admission => return Ok(admitted?),
                () = guest.arrival.superseded() => return Err(Close::TakenOver),
                () = site.shutdown.cancelled() => return Err(Close::ShuttingDown),
                () = sleep_until(self.wake_at()) => self.check(Instant::now())?,
                ready = self.link.ready() => {
                    ready?;
                    let mut packets = Vec::new();
                    let read = self.link.read(&mut packets);
                    self.take(packets)?;
                    read?;
                }
            }
        }
    }

    fn stalled_at(&self) -> Option<Instant> {
        self.link.stalled_since().map(|since| since + self.site.config.write_timeout)
    }

    fn silent_at(&self) -> Instant {
        self.heard_at + self.guest.limits.silence_max()
    }

    fn wake_at(&self) -> Instant {
        let ends = self.silent_at().min(self.guest.token_ends);
        self.stalled_at().map_or(ends, |stalled| stalled.min(ends))
    }

    fn check(&self, now: Instant) -> Result<(), Close> {
        match () {
            () if self.stalled_at().is_some_and(|at| now >= at) => Err(Close::Stalled),
            () if now >= self.silent_at() => Err(Close::Overdue(mqtt::Overdue::KeepAlive)),
            () if now >= self.guest.token_ends => Err(Close::TokenEnded),
            () => Ok(()),
        }
    }

    fn take(&mut self, packets: Vec<Packet>) -> Result<(), Close> {
        for packet in packets {
            self.heard_at = Instant::now();
            match packet {
                Packet::Publish(publish) => self.hold(publish)?,
                Packet::Subscribe(subscribe) => {
                    self.link.push(&granted(std::iter::once(&self.guest.login.app), &subscribe))?
                }
                Packet::Unsubscribe(unsubscribe) => self.link.push(&forgotten(&unsubscribe))?,
                Packet::PingReq => self.link.push(&Packet::PingResp)?,
                // Of an earlier link: nothing was sent on this one.
                Packet::PubAck(_) => {}
                Packet::Disconnect(_) => return Err(Close::Goodbye),
                Packet::Connect(_)
                | Packet::ConnAck(_)
                | Packet::SubAck(_)
                | Packet::UnsubAck(_)
                | Packet::PingResp => return Err(Close::Broken(Reason::PROTOCOL_ERROR)),
            }
        }
        Ok(())
    }

    /// Keeps a message for the session; when there is no room, the device is told to send it again later. Only MQTT 5
    /// has words for that, and only for a message that is acked: others end the link.
    fn hold(&mut self, publish: Box<Publish>) -> Result<(), Close> {
        let bytes = publish.topic.len() + publish.payload.len();
        if self.held.len() < HELD_MAX && self.held_bytes + bytes <= HELD_MAX_BYTES {
            self.held_bytes += bytes;
            self.held.push(Packet::Publish(publish));
            return Ok(());
        }
        let reason = Reason::IMPLEMENTATION;
        match self.link.version() {
            Version::V5 if publish.qos == 1 => {
                self.link.push(&Packet::PubAck(PubAck { packet_id: publish.packet_id, reason }))
            }
            _ => Err(Close::Broken(reason)),
        }
    }

    async fn end(self, close: Close) {
        let Self { site, guest, link, .. } = self;
        site.metrics.disconnect(close.as_str());
        debug!(app = %guest.login.app, device.id = %guest.login.device, reason = close.as_str(), "a device is gone");
        let last: Vec<Packet> = control::farewell(&link, &guest.login.app, &close).into_iter().collect();
        link.close(&last).await;
    }
}
