//! One connected device, from CONNACK to the end of its link: one task that waits for whatever comes next.

use std::sync::Arc;

use model::{AppId, DeviceId, Env, Ordinal, Stream, UserId};
use mqtt::{Format, Packet, Session, session::Change};
use tokio::{
    task::yield_now,
    time::{Duration, Instant, sleep_until, timeout},
};
use tracing::debug;

use crate::{
    Site,
    admit::{Admitted, Presence},
    close::Close,
    control,
    drain::Evicted,
    link::Link,
    outbox::Fact,
    pull::Sent,
    timeline::Timeline,
};

/// Reads after a link's end was decided: a window of acks fits one, and a device that never stops must not hold it.
const LAST_READS_MAX: usize = 8;

/// How long a device that is to go waits until its cursor is where the next access point finds it. Without it, it would
/// be sent again what it has acked.
const HANDOVER_MAX: Duration = Duration::from_secs(1);

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) app: AppId,
    pub(crate) device: DeviceId,
    pub(crate) ordinal: Ordinal,
    pub(crate) env: Env,
    pub(crate) user: Option<UserId>,
    pub(crate) format: Format,
    /// The largest packet it takes.
    pub(crate) packet_max_bytes: usize,
}

/// One connected device.
pub(crate) struct Connection {
    pub(crate) site: Arc<Site>,
    pub(crate) link: Link,
    pub(crate) peer: Peer,
    pub(crate) presence: Presence,
    pub(crate) session: Session<Sent>,
    pub(crate) timeline: Arc<Timeline>,
    /// The streams, by number, that may hold entries after the mark.
    pub(crate) behind: [bool; 2],
    /// When to ask a store again that was not there.
    pub(crate) retry_at: Option<Instant>,
    /// When a ping last made it look at its streams.
    pub(crate) looked_at: Instant,
    token_ends: Instant,
    counted: Counted,
}

/// What the gauges hold of this session.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    in_flight: i64,
    unsent_bytes: i64,
}

enum Event {
    Socket,
    Woken,
    Time,
}

impl Connection {
    /// A session whose device has been answered, or will read the answer first; its token counts until `token_ends`.
    pub(crate) fn new(site: Arc<Site>, link: Link, admitted: Admitted, token_ends: Instant) -> Self {
        let Admitted { peer, presence, session, timeline, .. } = admitted;
        let (behind, looked_at) = ([true; 2], Instant::now());
        let (retry_at, counted) = (None, Counted::default());
        Self { site, link, peer, presence, session, timeline, behind, retry_at, looked_at, token_ends, counted }
    }

    /// Serves the device until its link ends; `early` are packets that came before it was found.
    pub(crate) async fn run(mut self, early: Vec<Packet>) {
        debug!(app = %self.peer.app, device.id = %self.peer.device, "a device is connected");
        let close = match self.take(early).await {
            Ok(()) => loop {
                if let Err(close) = self.turn().await {
                    break close;
                }
            },
            Err(close) => close,
        };
        self.end(close).await;
    }

    /// Sends what can be sent, then waits for one thing to happen.
    async fn turn(&mut self) -> Result<(), Close> {
        self.deliver().await;
        self.settle();
        self.link.flush()?;
        self.count();
        if self.can_deliver() {
            yield_now().await;
            return Ok(());
        }
        let event = tokio::select! {
            ready = self.link.ready() => { ready?; Event::Socket }
            () = self.presence.handle.woken() => Event::Woken,
            () = sleep_until(self.wake_at()) => Event::Time,
        };
        match event {
            Event::Socket => {
                let mut packets = Vec::new();
                let read = self.link.read(&mut packets);
                self.take(packets).await?;
                read
            }
            Event::Woken => self.woken(),
            Event::Time => self.check(Instant::now()),
        }
    }

    fn woken(&mut self) -> Result<(), Close> {
        let heard = self.presence.handle.heard();
        for stream in [Stream::Inbox, Stream::Timeline] {
            self.behind[stream as usize] |= heard[stream as usize];
        }
        self.take_handed();
        self.presence.handle.order().map_or(Ok(()), Err)
    }

    /// When something must happen even if nothing does.
    fn wake_at(&self) -> Instant {
        let stalled = self.link.stalled_since().map(|since| since + self.site.config.write_timeout);
        let session = Instant::from_std(self.session.deadline());
        [stalled, self.retry_at].into_iter().flatten().fold(session.min(self.token_ends), Instant::min)
    }

    fn check(&mut self, now: Instant) -> Result<(), Close> {
        if self.retry_at.is_some_and(|at| now >= at) {
            self.retry_at = None;
        }
        let stalled = self.link.stalled_since().is_some_and(|since| now >= since + self.site.config.write_timeout);
        match self.session.overdue(now.into_std()) {
            _ if stalled => Err(Close::Stalled),
            Some(overdue) => Err(Close::Overdue(overdue)),
            None if now >= self.token_ends => Err(Close::TokenEnded),
            None => Ok(()),
        }
    }

    /// Hands over the cursor when it has moved, after the receipts it covers, and says how far the session is.
    fn settle(&mut self) {
        if self.session.change() == Change::Moved {
            self.keep_cursor();
        }
        for stream in [Stream::Inbox, Stream::Timeline] {
            self.presence.handle.set_mark(stream, self.session.mark(stream));
        }
    }

    fn keep_cursor(&mut self) {
        let cursor = self.session.cursor();
        self.site.outbox.keep(&self.peer.app, self.peer.ordinal, self.presence.handle.epoch, cursor);
        self.session.saved();
    }

    /// Brings the gauges up to what this session holds.
    fn count(&mut self) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.count_as(Counted {
            in_flight: number(self.session.in_flight()),
            unsent_bytes: number(self.link.unsent_bytes()),
        });
    }

    fn count_as(&mut self, now: Counted) {
        self.site.metrics.in_flight.inc_by(now.in_flight - self.counted.in_flight);
        self.site.metrics.unsent_bytes.inc_by(now.unsent_bytes - self.counted.unsent_bytes);
        self.counted = now;
    }

    /// Tells facts about this device.
    pub(crate) fn tell(&self, facts: &[(model::MessageId, Fact)]) {
        self.site.outbox.tell(&self.peer.app, self.peer.ordinal, facts);
    }

    /// Takes what the device has sent and nobody has read: most of it are acks, and what they are for would come again.
    async fn hear_out(&mut self) {
        for _ in 0..LAST_READS_MAX {
            let mut packets = Vec::new();
            let read = self.link.read(&mut packets);
            if packets.is_empty() || self.take(packets).await.is_err() || read.is_err() {
                return;
            }
        }
    }

    async fn end(mut self, close: Close) {
        if !matches!(close, Close::Goodbye | Close::Broken(_)) {
            Box::pin(self.hear_out()).await;
        }
        if self.session.change() > Change::Nothing {
            self.keep_cursor();
        }
        if matches!(close, Close::Moving(_)) {
            let _ = timeout(HANDOVER_MAX, self.site.outbox.kept(&self.peer.app, self.peer.ordinal)).await;
            self.site.drains.note(Evicted::of(&self.peer, self.presence.handle.epoch, &self.session, &self.site));
        }
        self.count_as(Counted::default());
        self.site.metrics.stray_acks.inc_by(self.session.strays());
        self.site.metrics.disconnect(close.as_str());
        debug!(app = %self.peer.app, device.id = %self.peer.device, reason = close.as_str(), "a device is gone");
        let Self { site, link, peer, presence, .. } = self;
        let epoch = presence.handle.epoch;
        drop(presence);
        let last: Vec<Packet> = control::farewell(link.version(), &peer.app, &close).into_iter().collect();
        link.close(&last).await;
        if close != Close::TakenOver
            && let Err(error) = site.deps.store.release(&peer.app, peer.ordinal, epoch).await
        {
            debug!(app = %peer.app, device.id = %peer.device, %error, "a route stays behind; nobody trusts it");
        }
    }
}
