//! The delivery state of one connected device: which entries of its two streams are on the wire, which are acked, and
//! when the link must be given up. It neither reads streams nor writes packets: it is told what comes next in a
//! stream and says what to do with it.
//!
//! The cursor is the acked prefix of a stream plus those acked beyond a hole. Entries go out at most a window past
//! the oldest unacked one, so holes stay within the window, and each goes out once a link: what is not acked in time
//! closes the link and goes out again on the next.

mod stream;

use std::time::{Duration, Instant};

use model::{Cursor, Position, Seq, Stream};

use crate::{Reason, wire::Version};
use stream::{Entry, Progressing};

/// Unacked messages at a time at most: enough to fill a mobile link's round trip, few enough to repeat after a loss.
pub const WINDOW_MAX: u16 = 32;

/// The same for MQTT 3.1.1, whose clients cannot say how many they take.
pub const WINDOW_V311: u16 = 16;

/// The same for a device that fetches: two pages of messages, of which each is one packet.
pub const WINDOW_FETCHED: u16 = 200;

/// The packet ids of a link's own session; the others are for sessions of other apps that share it.
pub const OWN_IDS: (u16, u16) = (1, 0x7FFF);

/// Sessions of other apps that may share a link.
pub const BOUND_MAX: u16 = 8;

/// The packet ids of the so-many-th session of another app on a link, more than a window; after 128 others they come
/// again.
pub const fn bound_ids(session: u16) -> (u16, u16) {
    let first = 0x8000 | (session % 0x80) << 8;
    (first, first | 0xFF)
}

/// One of this many slots is kept free for the inbox, so that a full timeline never delays a unicast.
const RESERVED_ONE_OF: u16 = 4;

/// A link is dead after this many halves of its keep alive (MQTT 3.1.2.10: one and a half times).
const KEEP_ALIVE_HALVES: u32 = 3;

/// What bounds a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Unacked messages at a time.
    pub window: u16,
    /// An ack that takes longer than this closes the link.
    pub ack_timeout: Duration,
    /// How often the device must be heard.
    pub keep_alive: Duration,
}

impl Limits {
    /// The window for a device that takes `receive_maximum` unacked messages.
    pub fn window(version: Version, receive_maximum: u16) -> u16 {
        let most = match version {
            Version::V311 => WINDOW_V311,
            Version::V5 => WINDOW_MAX,
        };
        most.min(receive_maximum.max(1))
    }

    /// The window of each session of another app on a link; none when the client takes too few messages for that.
    pub fn window_bound(version: Version, receive_maximum: u16) -> u16 {
        match version {
            Version::V311 => WINDOW_V311,
            Version::V5 => WINDOW_MAX.min(receive_maximum.saturating_sub(WINDOW_MAX) / BOUND_MAX),
        }
    }

    /// A link on which nothing was heard for this long is dead.
    pub fn silence_max(&self) -> Duration {
        self.keep_alive * KEEP_ALIVE_HALVES / 2
    }
}

/// What to do with the next entry of a stream that is for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer<T> {
    /// Write it under this packet id.
    Send {
        /// Names it until it is acked.
        packet_id: u16,
        /// Whether an earlier session may have written it.
        dup: bool,
    },
    /// The device has it already: count it as acked.
    Received(T),
    /// No room: offer it again after an ack.
    Full,
    /// It lies behind the mark: somebody was faster.
    Past,
}

/// An entry that is done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered<T> {
    /// What the entry was offered with.
    pub tag: T,
    /// Its stream.
    pub stream: Stream,
    /// Its place there.
    pub seq: Seq,
    /// When it was written.
    pub sent_at: Instant,
    /// Whether the device refused it.
    pub rejected: bool,
}

/// Why a link must be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// Nothing was heard for one and a half times the keep alive.
    KeepAlive,
    /// A message was not acked in time. It must not be sent again on this link (MQTT-4.4.0-1).
    Ack,
}

/// How much the cursor has moved since it was last saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Not at all.
    Nothing,
    /// Only past entries for others: a saved cursor without it costs no repetition, so it can wait for the session's
    /// end.
    Passed,
    /// Something was sent or acked.
    Moved,
}

/// The delivery state of one connected device. `T` comes back with the ack of an entry.
#[derive(Debug)]
pub struct Session<T> {
    limits: Limits,
    inbox: Progressing<T>,
    timeline: Progressing<T>,
    packet_ids: (u16, u16),
    last_packet_id: u16,
    heard_at: Instant,
    change: Change,
    strays: u64,
}

impl<T> Session<T> {
    /// A session that goes on where `cursor` stands. What the device says it has, `stated`, counts as acked; a
    /// position ahead of a stream's head must be cut to the head before, or later entries would be taken for known.
    pub fn new(cursor: Cursor, stated: Position, limits: Limits, now: Instant) -> Self {
        Self {
            limits,
            inbox: Progressing::new(cursor.inbox, stated.inbox),
            timeline: Progressing::new(cursor.timeline, stated.timeline),
            packet_ids: OWN_IDS,
            last_packet_id: 0,
            heard_at: now,
            change: Change::Nothing,
            strays: 0,
        }
    }

    /// The same with these packet ids, from the first to the last, on a link with other sessions.
    pub fn numbered(self, packet_ids: (u16, u16)) -> Self {
        Self { packet_ids, last_packet_id: packet_ids.1, ..self }
    }

    /// How many entries of a stream can be offered before the next ack. The inbox may take all slots but one, the
    /// timeline all but those reserved for the inbox.
    pub fn room(&self, stream: Stream) -> usize {
        let window = self.limits.window;
        let reserved = match stream {
            Stream::Inbox => u16::from(window >= RESERVED_ONE_OF),
            Stream::Timeline => window / RESERVED_ONE_OF,
        };
        let most = usize::from(window - reserved);
        let free = usize::from(window).saturating_sub(self.in_flight());
        most.saturating_sub(self.stream(stream).span()).min(free)
    }

    /// Messages written and not acked.
    pub fn in_flight(&self) -> usize {
        self.inbox.waiting() + self.timeline.waiting()
    }

    /// What is written and not acked, by stream and place: another session goes on with it.
    pub fn unacked(&self) -> impl Iterator<Item = (Stream, Seq, &T)> {
        let of = |stream| self.stream(stream).unacked().map(move |(seq, tag)| (stream, seq, tag));
        of(Stream::Inbox).chain(of(Stream::Timeline))
    }

    /// Up to where a stream was gone through: read on after it.
    pub fn mark(&self, stream: Stream) -> Seq {
        self.stream(stream).mark
    }

    /// Goes past entries up to `seq` that are not for the device, or not any more.
    pub fn pass(&mut self, stream: Stream, seq: Seq) {
        if self.stream_mut(stream).pass(seq) {
            self.change = self.change.max(Change::Passed);
        }
    }

    /// The next entry of a stream that is for the device; entries must be offered in rising order.
    pub fn offer(&mut self, stream: Stream, seq: Seq, tag: T, now: Instant) -> Offer<T> {
        self.offer_in(None, (stream, seq), tag, now)
    }

    /// The same for an entry that goes out in one packet with others: the one with this id, or else a new one.
    pub fn offer_in(&mut self, packet_id: Option<u16>, (stream, seq): (Stream, Seq), tag: T, now: Instant) -> Offer<T> {
        if seq <= self.mark(stream) {
            return Offer::Past;
        }
        let known = self.stream(stream).is_known(seq);
        if known && self.stream(stream).span() < usize::from(self.limits.window) {
            self.stream_mut(stream).receive(seq);
            self.change = Change::Moved;
            return Offer::Received(tag);
        }
        if known || self.room(stream) == 0 {
            return Offer::Full;
        }
        let packet_id = packet_id.unwrap_or_else(|| self.next_packet_id());
        let dup = self.stream_mut(stream).send(Entry { seq, packet_id, sent_at: now, tag: Some(tag), acked: false });
        self.change = Change::Moved;
        Offer::Send { packet_id, dup }
    }

    /// An ack of the device. `None` when nothing waits under this packet id, which is counted and harmless.
    pub fn ack(&mut self, packet_id: u16, reason: Reason) -> Option<Answered<T>> {
        for stream in [Stream::Inbox, Stream::Timeline] {
            let Some(entry) = self.stream_mut(stream).ack(packet_id) else { continue };
            self.change = Change::Moved;
            let (seq, sent_at, rejected) = (entry.seq, entry.sent_at, reason.is_error());
            return entry.tag.map(|tag| Answered { tag, stream, seq, sent_at, rejected });
        }
        self.strays += 1;
        None
    }

    /// The same for a packet that holds many entries.
    pub fn ack_all(&mut self, packet_id: u16, reason: Reason) -> Vec<Answered<T>> {
        let (mut answered, mut settled) = (Vec::new(), 0);
        for stream in [Stream::Inbox, Stream::Timeline] {
            while let Some(Entry { seq, sent_at, tag, .. }) = self.stream_mut(stream).ack(packet_id) {
                settled += 1;
                let rejected = reason.is_error();
                answered.extend(tag.map(|tag| Answered { tag, stream, seq, sent_at, rejected }));
            }
        }
        match settled {
            0 => self.strays += 1,
            _ => self.change = Change::Moved,
        }
        answered
    }

    /// The device says what it has: everything up to `stated` counts as acked, what is on the wire among it too. A
    /// position ahead of a stream's head must be cut to the head before.
    pub fn state(&mut self, stated: Position) -> Vec<Answered<T>> {
        let mut answered = Vec::new();
        for stream in [Stream::Inbox, Stream::Timeline] {
            for (seq, sent_at, tag) in self.stream_mut(stream).state(stated.get(stream)) {
                answered.push(Answered { tag, stream, seq, sent_at, rejected: false });
            }
        }
        if !answered.is_empty() {
            self.change = Change::Moved;
        }
        answered
    }

    /// What the device has acked, to be saved: another session can go on from here.
    pub fn cursor(&self) -> Cursor {
        Cursor { inbox: self.inbox.progress(), timeline: self.timeline.progress() }
    }

    /// How much [`cursor`](Self::cursor) has moved since the last [`saved`](Self::saved).
    pub fn change(&self) -> Change {
        self.change
    }

    /// The cursor is in safe hands.
    pub fn saved(&mut self) {
        self.change = Change::Nothing;
    }

    /// Acks of packet ids that nothing waited under.
    pub fn strays(&self) -> u64 {
        self.strays
    }

    /// The device was heard.
    pub fn touched(&mut self, now: Instant) {
        self.heard_at = now;
    }

    /// The device will be heard as often as this from now on.
    pub fn set_keep_alive(&mut self, keep_alive: Duration) {
        self.limits.keep_alive = keep_alive;
    }

    /// When to ask [`overdue`](Self::overdue) next, if nothing happens before.
    pub fn deadline(&self) -> Instant {
        let ack = self.ack_deadline();
        ack.map_or(self.keep_alive_deadline(), |ack| ack.min(self.keep_alive_deadline()))
    }

    /// Whether the link must be given up, and why.
    pub fn overdue(&self, now: Instant) -> Option<Overdue> {
        match () {
            () if now >= self.keep_alive_deadline() => Some(Overdue::KeepAlive),
            () if self.ack_deadline().is_some_and(|ack| now >= ack) => Some(Overdue::Ack),
            () => None,
        }
    }

    fn keep_alive_deadline(&self) -> Instant {
        self.heard_at + self.limits.silence_max()
    }

    fn ack_deadline(&self) -> Option<Instant> {
        let oldest = self.inbox.oldest_waiting().into_iter().chain(self.timeline.oldest_waiting()).min();
        oldest.map(|sent_at| sent_at + self.limits.ack_timeout)
    }

    /// Any id that nothing waits under; a window is far smaller than the ids there are.
    fn next_packet_id(&mut self) -> u16 {
        loop {
            let (first, last) = self.packet_ids;
            self.last_packet_id =
                if self.last_packet_id >= last { first } else { self.last_packet_id.max(first - 1) + 1 };
            let id = self.last_packet_id;
            if !self.inbox.uses(id) && !self.timeline.uses(id) {
                return id;
            }
        }
    }

    fn stream(&self, stream: Stream) -> &Progressing<T> {
        match stream {
            Stream::Inbox => &self.inbox,
            Stream::Timeline => &self.timeline,
        }
    }

    fn stream_mut(&mut self, stream: Stream) -> &mut Progressing<T> {
        match stream {
            Stream::Inbox => &mut self.inbox,
            Stream::Timeline => &mut self.timeline,
        }
    }
}

#[cfg(test)]
mod tests;
