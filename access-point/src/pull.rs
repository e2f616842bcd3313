//! Reads a device's streams after its session's marks and writes what is for it. Catching up after an absence and
//! following a bell are the same thing; only what a bell hands over and is next need not be read. Nothing that the
//! window has no room for is kept: it is read again later.

use std::sync::Arc;

use model::{Lane, Message, MessageId, Seq, Stream, Timestamp, TraceParent};
use mqtt::{Coding, Encoded, Format, Offer};
use tokio::time::Duration;
use tracing::debug;

use crate::{
    connection::Connection,
    errand::{self, InboxPage},
    fetch::{Page as Fetched, Sight},
    metrics::Delivered,
    outbox::Fact,
    registry::Entry,
    timeline::{Page, Shared},
    worker::Turn,
};

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

impl Connection {
    /// Whether there may be something to send and nothing stands against it.
    pub(crate) fn can_deliver(&self) -> bool {
        self.wants_any() && self.link.stalled_since().is_none() && self.retry_at.is_none()
    }

    /// What is being read of the inbox goes before more of the timeline.
    fn wants(&self, stream: Stream) -> bool {
        let reads = self.reading[stream as usize] || self.reading[Stream::Inbox as usize];
        let wanted = self.fetch.as_ref().is_none_or(|fetch| fetch.wants(stream));
        self.behind[stream as usize] && wanted && !reads && self.session.room(stream) > 0
    }

    pub(crate) fn wants_any(&self) -> bool {
        self.wants(Stream::Inbox) || self.wants(Stream::Timeline)
    }

    /// Whether a stream is being read.
    pub(crate) fn reads(&self) -> bool {
        self.reading.contains(&true)
    }

    /// Writes pending entries, inbox first, as many as the window and one write take. While the device has not taken
    /// what was written before, it does nothing.
    pub(crate) fn deliver(&mut self, turn: &mut Turn) {
        if !self.can_deliver() {
            return;
        }
        if turn.site.outbox.is_full() {
            return self.retry_later(turn);
        }
        if self.wants(Stream::Inbox) {
            return self.read_inbox(turn);
        }
        while self.wants(Stream::Timeline) && self.link.unsent_bytes() < BATCH_MAX_BYTES {
            self.pull_timeline(usize::MAX, turn);
        }
    }

    /// Writes what bells have handed over, as far as it follows the mark; the rest is left to be read.
    pub(crate) fn take_handed(&mut self, handed: Vec<Entry>, turn: &mut Turn) {
        for entry in handed {
            if entry.seq <= self.session.mark(Stream::Inbox) {
                continue;
            }
            let taken = self.fetch.is_none()
                && self.follows(&entry, turn)
                && (self.holds(Stream::Inbox, [&*entry.message].into_iter(), turn)
                    || self.put_inbox(entry.seq, &entry.message, turn));
            self.behind[Stream::Inbox as usize] |= !taken;
        }
    }

    /// Whether an entry is the next one, everything before it is dealt with, and it could be sent now.
    fn follows(&self, entry: &Entry, turn: &Turn) -> bool {
        let inbox = Stream::Inbox as usize;
        let caught_up = !self.behind[inbox] && !self.reading[inbox];
        let next = caught_up && entry.before == self.session.mark(Stream::Inbox);
        let fresh = turn.now.since(entry.at).max(entry.at.since(turn.now)) < FRESH;
        next && fresh && self.retry_at.is_none() && self.link.stalled_since().is_none() && !turn.site.outbox.is_full()
    }

    fn retry_later(&mut self, turn: &Turn) {
        self.retry_at = Some(turn.instant + RETRY_PAUSE.mul_f64(rand::random_range(1.0..2.0)));
    }

    fn put_off(&mut self, error: &store::Error, turn: &Turn) {
        turn.site.metrics.store_failures.inc();
        debug!(app = %self.peer.app, device.id = %self.peer.device, %error, "streams cannot be read; later");
        self.retry_later(turn);
    }

    /// Sends for the next entries of the inbox. What is rung from now on is not among them for certain.
    fn read_inbox(&mut self, turn: &Turn) {
        let inbox = Stream::Inbox as usize;
        (self.behind[inbox], self.reading[inbox]) = (false, true);
        let most = self.page().map_or(INBOX_TURN, Fetched::left);
        let limit = self.session.room(Stream::Inbox).min(most);
        errand::read_inbox(&turn.site, self.home(), self.session.mark(Stream::Inbox), limit);
    }

    /// Writes entries of the inbox that are here now.
    pub(crate) fn take_inbox(&mut self, page: Result<InboxPage, store::Error>, turn: &mut Turn) {
        self.reading[Stream::Inbox as usize] = false;
        let complete = match page {
            Ok(page) if self.only_looks() => {
                let to = page.complete_to.or(page.entries.last().map(|entry| entry.seq));
                let ours = page.entries.iter().map(|entry| (entry.seq, &*entry.message)).collect();
                let (to, is_all) = (to.unwrap_or_default(), page.complete_to.is_some());
                return self.look(&Sight { stream: Stream::Inbox, ours, to, is_all }, turn);
            }
            // A page that is not the last is enough to wake a device for.
            Ok(page)
                if page.complete_to.is_some()
                    && self.holds(Stream::Inbox, page.entries.iter().map(|entry| &*entry.message), turn) =>
            {
                true
            }
            Ok(page) => {
                let taken = page.entries.iter().all(|entry| self.put_inbox(entry.seq, &entry.message, turn));
                self.complete(Stream::Inbox, page.complete_to.filter(|_| taken))
            }
            Err(error) => {
                self.put_off(&error, turn);
                false
            }
        };
        self.behind[Stream::Inbox as usize] |= !complete;
        if self.wants(Stream::Inbox) && self.wants(Stream::Timeline) {
            self.pull_timeline(1, turn);
        }
    }

    /// Passes the end of a stream, if everything up to it was taken; says whether it was.
    fn complete(&mut self, stream: Stream, end: Option<Seq>) -> bool {
        end.inspect(|end| self.session.pass(stream, *end)).is_some()
    }

    /// How the bodies of messages are packed. Envelopes are not: each has another number in it.
    fn coding(&self) -> Option<Coding> {
        self.peer.coding.filter(|_| self.peer.format == Format::Raw)
    }

    fn put_inbox(&mut self, seq: Seq, message: &Message, turn: &mut Turn) -> bool {
        let packed = self.coding().and_then(|coding| turn.site.packed.encoded(message, Stream::Inbox, seq, coding));
        let plain = || Encoded::new(message, Stream::Inbox, seq, self.link.version(), self.peer.format);
        let encoded = packed.unwrap_or_else(plain);
        self.put(Stream::Inbox, seq, message, encoded.as_ref().ok(), turn)
    }

    /// Writes the next entries of the timeline if they are kept here, else sends for them.
    fn pull_timeline(&mut self, most: usize, turn: &mut Turn) {
        let timeline = Stream::Timeline as usize;
        self.behind[timeline] = false;
        let mark = self.session.mark(Stream::Timeline);
        let newest = self.timeline.newest();
        let complete = if let Some(entries) = newest.after(mark) {
            if self.only_looks() {
                return self.look_at_timeline(entries, Some(newest.head), turn);
            }
            if self.holds_timeline(entries, turn) {
                return;
            }
            let some = &entries[..entries.len().min(most)];
            let taken = some.iter().all(|entry| self.put_timeline(entry, turn));
            let is_all = taken && some.len() == entries.len();
            self.complete(Stream::Timeline, is_all.then_some(newest.head))
        } else {
            self.reading[timeline] = true;
            let limit = self.session.room(Stream::Timeline).max(TIMELINE_PAGE).min(most);
            errand::read_timeline(&turn.site, self.home(), &self.timeline, mark, limit);
            true
        };
        self.behind[timeline] |= !complete;
    }

    /// Whether the newest entries of the timeline can wait, as far as they are for this device.
    fn holds_timeline(&mut self, entries: &[Arc<Shared>], turn: &Turn) -> bool {
        if entries.iter().all(|entry| entry.message.due_at.is_none()) {
            return false;
        }
        let ours = self.ours(entries);
        self.holds(Stream::Timeline, ours.map(|entry| &*entry.message), turn)
    }

    /// Those entries of the timeline that are for this device and new to it.
    fn ours<'a>(&self, entries: &'a [Arc<Shared>]) -> impl Iterator<Item = &'a Arc<Shared>> + use<'a> {
        let (mark, device, env) = (self.session.mark(Stream::Timeline), self.peer.ordinal, self.peer.env);
        entries.iter().filter(move |entry| entry.seq > mark && entry.is_for(device) && entry.message.env == env)
    }

    fn look_at_timeline(&mut self, entries: &[Arc<Shared>], complete_to: Option<Seq>, turn: &Turn) {
        let ours = self.ours(entries).map(|entry| (entry.seq, &*entry.message)).collect();
        let to = complete_to.or(entries.last().map(|entry| entry.seq)).unwrap_or_default();
        self.look(&Sight { stream: Stream::Timeline, ours, to, is_all: complete_to.is_some() }, turn);
    }

    fn holds<'a>(&mut self, stream: Stream, messages: impl Iterator<Item = &'a Message>, turn: &Turn) -> bool {
        // Whoever fetches is awake.
        self.fetch.is_none() && self.doze.holds(stream, messages, (turn.now, turn.instant))
    }

    /// Writes entries of the timeline that are here now.
    pub(crate) fn take_timeline(&mut self, page: Result<Page, store::Error>, turn: &mut Turn) {
        self.reading[Stream::Timeline as usize] = false;
        let complete = match page {
            Ok(page) if self.only_looks() => return self.look_at_timeline(&page.entries, page.complete_to, turn),
            Ok(page) => {
                let taken = page.entries.iter().all(|entry| self.put_timeline(entry, turn));
                self.complete(Stream::Timeline, page.complete_to.filter(|_| taken))
            }
            Err(error) => {
                self.put_off(&error, turn);
                false
            }
        };
        self.behind[Stream::Timeline as usize] |= !complete;
    }

    fn put_timeline(&mut self, entry: &Shared, turn: &mut Turn) -> bool {
        if entry.seq <= self.session.mark(Stream::Timeline) {
            return true;
        }
        if !entry.is_for(self.peer.ordinal) || entry.message.env != self.peer.env {
            self.session.pass(Stream::Timeline, entry.seq);
            return true;
        }
        let packed = self.coding().and_then(|coding| entry.packed(coding, &turn.site.packed));
        let encoded = packed.or_else(|| entry.encoded(self.link.version(), self.peer.format).ok());
        self.put(Stream::Timeline, entry.seq, &entry.message, encoded, turn)
    }

    /// Writes an entry if it is still wanted; false when there is no room for it, in the window or in this write.
    fn put(&mut self, stream: Stream, seq: Seq, message: &Message, encoded: Option<&Encoded>, turn: &mut Turn) -> bool {
        if self.link.unsent_bytes() >= BATCH_MAX_BYTES {
            return false;
        }
        if message.is_expired(turn.now) {
            turn.site.metrics.delivered(message.lane, Delivered::Expired);
            self.session.pass(stream, seq);
            return true;
        }
        let Some(encoded) = encoded.filter(|encoded| self.bytes_of(encoded) <= self.peer.packet_max_bytes) else {
            debug!(device.id = %self.peer.device, message.id = %message.id, "too large for the device");
            turn.site.metrics.delivered(message.lane, Delivered::Rejected);
            turn.tell(&self.peer.app, self.peer.ordinal, message.id, Fact::Rejected);
            self.session.pass(stream, seq);
            return true;
        };
        if self.page_mut().is_some_and(|page| !page.takes(encoded.body().len())) {
            return false;
        }
        let Message { id, lane, created_at, expires_at, trace, .. } = *message;
        let sent = Sent { message: id, lane, created_at, expires_at, trace };
        let packet_id = self.page().and_then(Fetched::packet_id);
        match self.session.offer_in(packet_id, (stream, seq), sent, turn.instant.into_std()) {
            Offer::Send { packet_id, dup } => {
                match self.page_mut() {
                    Some(page) => page.add(packet_id, encoded.body()),
                    None => self.link.push_message(encoded, packet_id, dup, turn.now),
                }
                self.sent(&sent, dup, turn);
            }
            Offer::Received(_) => turn.tell(&self.peer.app, self.peer.ordinal, message.id, Fact::Acked),
            Offer::Past => {}
            Offer::Full => return false,
        }
        true
    }

    /// The packet that a message would at least need.
    fn bytes_of(&self, encoded: &Encoded) -> usize {
        match self.page() {
            Some(_) => Fetched::bytes_with(encoded.body().len()),
            None => encoded.len(),
        }
    }

    fn sent(&self, sent: &Sent, dup: bool, turn: &mut Turn) {
        turn.tell(&self.peer.app, self.peer.ordinal, sent.message, Fact::Sent);
        turn.wrote(sent.lane);
        turn.site.metrics.delivered(sent.lane, Delivered::Sent);
        if dup {
            turn.site.metrics.retransmits.inc();
        }
        debug!(
            app = %self.peer.app, device.id = %self.peer.device, message.id = %sent.message,
            trace.id = sent.trace.id(), dup, "sent"
        );
    }
}
