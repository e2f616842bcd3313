//! Reads a device's streams after its session's marks and writes what is for it. Catching up after an absence and
//! following a bell are the same thing; only what a bell hands over and is next need not be read. Nothing that the
//! window has no room for is kept: it is read again later.

use model::{Lane, Message, MessageId, Seq, Stream, Timestamp, TraceParent};
use mqtt::{Encoded, Offer};
use tokio::time::{Duration, Instant};
use tracing::debug;

use crate::{connection::Connection, metrics::Delivered, outbox::Fact, registry::Entry};

/// Inbox entries that go before the next timeline entry, when both streams have some.
const INBOX_TURN: usize = 10;

/// Timeline entries looked at together, of which many may be for others.
const TIMELINE_PAGE: usize = 32;

/// Bytes that are written together: more would wait in memory for a slow device.
const BATCH_MAX_BYTES: usize = 32 * 1024;

/// Pause before a store that was not there is asked again, with as much again at random: no herd when it is back.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// How long an entry that a bell carries is as good as one that was read. Later it may have been called back or
/// replaced, or this process may have been standing still while another took over its devices.
const FRESH: Duration = Duration::from_millis(500);

/// What is remembered of a message on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) message: MessageId,
    pub(crate) lane: Lane,
    pub(crate) created_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    pub(crate) trace: TraceParent,
}

type Facts = Vec<(MessageId, Fact)>;

impl Connection {
    /// Whether there may be something to send and nothing stands against it.
    pub(crate) fn can_deliver(&self) -> bool {
        let wanted = self.wants(Stream::Inbox) || self.wants(Stream::Timeline);
        wanted && self.link.stalled_since().is_none() && self.retry_at.is_none()
    }

    fn wants(&self, stream: Stream) -> bool {
        self.behind[stream as usize] && self.session.room(stream) > 0
    }

    /// Writes pending entries, inbox first, as many as the window and one write take. While the device has not taken
    /// what was written before, it does nothing.
    pub(crate) async fn deliver(&mut self) {
        if self.retry_at.is_some() || self.link.stalled_since().is_some() {
            return;
        }
        if self.site.outbox.is_full() {
            return self.retry_later();
        }
        let mut facts = Facts::new();
        while (self.wants(Stream::Inbox) || self.wants(Stream::Timeline)) && self.link.unsent_bytes() < BATCH_MAX_BYTES
        {
            if let Err(error) = self.pull(&mut facts).await {
                self.site.metrics.store_failures.inc();
                debug!(app = %self.peer.app, device.id = %self.peer.device, %error, "streams cannot be read; later");
                self.retry_later();
                break;
            }
        }
        self.tell(&facts);
    }

    /// Writes what bells have handed over, as far as it follows the mark; the rest is left to be read.
    pub(crate) fn take_handed(&mut self) {
        let mut facts = Facts::new();
        for entry in self.presence.handle.handed() {
            if entry.seq <= self.session.mark(Stream::Inbox) {
                continue;
            }
            let taken = self.follows(&entry) && {
                let (version, format) = (self.link.version(), self.peer.format);
                let encoded = Encoded::new(&entry.message, Stream::Inbox, entry.seq, version, format);
                self.put(Stream::Inbox, entry.seq, &entry.message, encoded.as_ref().ok(), &mut facts)
            };
            self.behind[Stream::Inbox as usize] |= !taken;
        }
        self.tell(&facts);
    }

    /// Whether an entry is the next one, everything before it is dealt with, and it could be sent now.
    fn follows(&self, entry: &Entry) -> bool {
        let next = !self.behind[Stream::Inbox as usize] && entry.before == self.session.mark(Stream::Inbox);
        let now = self.site.deps.clock.now();
        let fresh = now.since(entry.at).max(entry.at.since(now)) < FRESH;
        next && fresh && self.retry_at.is_none() && self.link.stalled_since().is_none() && !self.site.outbox.is_full()
    }

    fn retry_later(&mut self) {
        self.retry_at = Some(Instant::now() + RETRY_PAUSE.mul_f64(rand::random_range(1.0..2.0)));
    }

    async fn pull(&mut self, facts: &mut Facts) -> Result<(), store::Error> {
        if self.wants(Stream::Inbox) {
            self.pull_inbox(facts).await?;
        }
        if self.wants(Stream::Timeline) {
            let most = if self.wants(Stream::Inbox) { 1 } else { usize::MAX };
            self.pull_timeline(most, facts).await?;
        }
        Ok(())
    }

    async fn pull_inbox(&mut self, facts: &mut Facts) -> Result<(), store::Error> {
        let head = self.presence.handle.inbox_head();
        let (mark, limit) = (self.session.mark(Stream::Inbox), self.session.room(Stream::Inbox).min(INBOX_TURN));
        let entries = self.site.deps.store.inbox_after(&self.peer.app, self.peer.ordinal, mark, limit).await?;
        let complete = entries.len() < limit;
        for entry in entries {
            let encoded = Encoded::new(&entry.message, Stream::Inbox, entry.seq, self.link.version(), self.peer.format);
            if !self.put(Stream::Inbox, entry.seq, &entry.message, encoded.as_ref().ok(), facts) {
                return Ok(());
            }
        }
        if complete {
            self.session.pass(Stream::Inbox, head);
            self.behind[Stream::Inbox as usize] = false;
        }
        Ok(())
    }

    async fn pull_timeline(&mut self, most: usize, facts: &mut Facts) -> Result<(), store::Error> {
        let limit = self.session.room(Stream::Timeline).max(TIMELINE_PAGE).min(most);
        let page = self.timeline.after(self.session.mark(Stream::Timeline), limit).await?;
        for entry in &page.entries {
            if !entry.is_for(self.peer.ordinal) || entry.message.env != self.peer.env {
                self.session.pass(Stream::Timeline, entry.seq);
                continue;
            }
            let encoded = entry.encoded(self.link.version(), self.peer.format);
            if !self.put(Stream::Timeline, entry.seq, &entry.message, encoded.ok(), facts) {
                return Ok(());
            }
        }
        if let Some(head) = page.complete_to {
            self.session.pass(Stream::Timeline, head);
            self.behind[Stream::Timeline as usize] = false;
        }
        Ok(())
    }

    /// Writes an entry if it is still wanted; false when there is no room for it, in the window or in this write.
    fn put(
        &mut self,
        stream: Stream,
        seq: Seq,
        message: &Message,
        encoded: Option<&Encoded>,
        facts: &mut Facts,
    ) -> bool {
        if self.link.unsent_bytes() >= BATCH_MAX_BYTES {
            return false;
        }
        let now = self.site.deps.clock.now();
        if message.is_expired(now) {
            self.site.metrics.delivered(message.lane, Delivered::Expired);
            self.session.pass(stream, seq);
            return true;
        }
        let Some(encoded) = encoded.filter(|encoded| encoded.len() <= self.peer.packet_max_bytes) else {
            debug!(device.id = %self.peer.device, message.id = %message.id, "too large for the device");
            self.site.metrics.delivered(message.lane, Delivered::Rejected);
            facts.push((message.id, Fact::Rejected));
            self.session.pass(stream, seq);
            return true;
        };
        let Message { id, lane, created_at, expires_at, trace, .. } = *message;
        let sent = Sent { message: id, lane, created_at, expires_at, trace };
        match self.session.offer(stream, seq, sent, Instant::now().into_std()) {
            Offer::Send { packet_id, dup } => {
                self.link.push_message(encoded, packet_id, dup, now);
                self.sent(&sent, dup, facts);
            }
            Offer::Received(_) => facts.push((message.id, Fact::Acked)),
            Offer::Past => {}
            Offer::Full => return false,
        }
        true
    }

    fn sent(&self, sent: &Sent, dup: bool, facts: &mut Facts) {
        facts.push((sent.message, Fact::Sent));
        self.site.metrics.delivered(sent.lane, Delivered::Sent);
        if dup {
            self.site.metrics.retransmits.inc();
        }
        debug!(
            app = %self.peer.app, device.id = %self.peer.device, message.id = %sent.message,
            trace.id = sent.trace.id(), dup, "sent"
        );
    }
}
