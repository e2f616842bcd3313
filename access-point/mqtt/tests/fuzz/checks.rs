//! What must hold for any bytes at all: for the decoder, that nothing is kept beyond the cap, that packets do not depend
//! on how the bytes were cut, and that what was decoded comes back the same after encoding; for the session, that whatever
//! happens in whatever order, its window holds and nothing acked is sent again. Shared by the fuzz targets and the test.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use model::{Cursor, Position, Seq, Stream};
use mqtt::{Limits, Offer, Packet, Reason, Session, Version, wire};

/// The largest packet that is taken, as at an access point.
const PACKET_MAX_BYTES: usize = 8 * 1024;

/// Reads a stream of packets as a link does. The first byte says how it is cut, the second which version is spoken.
pub(crate) fn decode(bytes: &[u8]) {
    let [cut, version, bytes @ ..] = bytes else { return };
    let version = if version % 2 == 0 { Version::V5 } else { Version::V311 };
    let whole = packets(bytes, bytes.len().max(1), version);
    assert_eq!(whole, packets(bytes, usize::from(*cut).max(1), version), "cutting changes what is read");
    for packet in whole {
        let mut written = Vec::new();
        // A packet may hold what we would never write, such as a wildcard in a topic.
        if wire::encode(&packet, version, &mut written).is_ok() && !matches!(packet, Packet::Connect(_)) {
            let again = wire::decode(&written, version).expect("what we write can be read");
            assert_eq!(again, packet);
        }
    }
    let _ = wire::version_of_connect(bytes);
}

/// The packets up to the first that is refused, when the bytes come in pieces.
fn packets(bytes: &[u8], piece: usize, version: Version) -> Vec<Packet> {
    let (mut packets, mut kept) = (Vec::new(), Vec::new());
    for part in bytes.chunks(piece) {
        kept.extend_from_slice(part);
        loop {
            let len = match wire::frame_len(&kept, PACKET_MAX_BYTES) {
                Ok(Some(len)) if len <= kept.len() => len,
                Ok(_) => break,
                Err(_) => return packets,
            };
            match wire::decode(&kept[..len], version) {
                Ok(packet) => packets.push(packet),
                Err(_) => return packets,
            }
            kept.drain(..len);
        }
        assert!(kept.len() < PACKET_MAX_BYTES + piece, "more is kept than the largest packet");
    }
    packets
}

/// A session, what it was offered, and what became of that.
struct Course {
    session: Session<Seq>,
    limits: Limits,
    now: Instant,
    heads: BTreeMap<Stream, u64>,
    entries: BTreeSet<(Stream, Seq)>,
    /// On the wire: also what the device said it has, until it acks that.
    waiting: BTreeMap<u16, (Stream, Seq)>,
    acked: BTreeSet<(Stream, Seq)>,
    /// Passed over: not for the device, or not any more.
    passed: BTreeSet<(Stream, Seq)>,
}

/// Drives a session through what the bytes say, two a step: what happens, and to what.
pub(crate) fn session(bytes: &[u8]) {
    let [window, bytes @ ..] = bytes else { return };
    let (window, keep_alive) = (u16::from(window % 32) + 1, Duration::from_secs(300));
    let limits = Limits { window, ack_timeout: Duration::from_secs(20), keep_alive };
    let now = Instant::now();
    let session = Session::new(Cursor::default(), Position::default(), limits, now);
    let (heads, entries, waiting, acked, passed) = Default::default();
    let mut course = Course { session, limits, now, heads, entries, waiting, acked, passed };
    for step in bytes.chunks_exact(2) {
        course.step(step[0], step[1]);
        course.check();
    }
}

impl Course {
    fn step(&mut self, what: u8, which: u8) {
        let stream = if which.is_multiple_of(2) { Stream::Inbox } else { Stream::Timeline };
        match what % 8 {
            0 | 1 => self.offer(stream, which),
            2 => self.ack_waiting(which, Reason::SUCCESS),
            3 => self.ack_waiting(which, Reason::UNSPECIFIED),
            4 => self.ack(u16::from(which) * 257, Reason::SUCCESS),
            5 => self.state(which),
            6 => self.pass(stream, which),
            _ if which < 128 => self.resume(which),
            _ => self.time_passes(which),
        }
    }

    fn head(&self, stream: Stream) -> Seq {
        Seq(self.heads.get(&stream).copied().unwrap_or(0))
    }

    fn after(&mut self, stream: Stream, which: u8) -> Seq {
        let head = self.heads.entry(stream).or_default();
        *head += u64::from(which % 8) + 1;
        Seq(*head)
    }

    fn offer(&mut self, stream: Stream, which: u8) {
        let room = self.session.room(stream);
        let seq = self.next(stream, which);
        match self.session.offer(stream, seq, seq, self.now) {
            Offer::Send { packet_id, .. } => {
                assert!(room > 0 && packet_id > 0);
                assert!(!self.acked.contains(&(stream, seq)), "sent again after it was acked");
                assert_eq!(self.waiting.insert(packet_id, (stream, seq)), None, "a packet id is in use");
            }
            Offer::Received(tag) => assert!(tag == seq && self.acked.contains(&(stream, seq))),
            Offer::Full => assert!(room == 0 || self.acked.contains(&(stream, seq))),
            Offer::Past => panic!("it is the next one"),
        }
    }

    /// The next entry that there is after the mark, or a new one: what had no room before comes again, and what was passed
    /// is passed again. Numbers between entries are nobody's, and stay so.
    fn next(&mut self, stream: Stream, which: u8) -> Seq {
        loop {
            let after = (stream, Seq(self.session.mark(stream).0 + 1));
            let known = self.entries.range(after..).next().filter(|(of, _)| *of == stream).copied();
            let Some((_, seq)) = known else {
                let seq = self.after(stream, which);
                self.entries.insert((stream, seq));
                return seq;
            };
            if !self.passed.contains(&(stream, seq)) {
                return seq;
            }
            self.session.pass(stream, seq);
        }
    }

    fn ack_waiting(&mut self, which: u8, reason: Reason) {
        let ids: Vec<u16> = self.waiting.keys().copied().collect();
        if let Some(id) = ids.get(usize::from(which) % ids.len().max(1)) {
            self.ack(*id, reason);
        }
    }

    fn ack(&mut self, packet_id: u16, reason: Reason) {
        let answered = self.session.ack(packet_id, reason);
        let waiting = self.waiting.remove(&packet_id);
        let news = waiting.filter(|at| self.acked.insert(*at));
        assert_eq!(answered.map(|answered| (answered.stream, answered.seq)), news, "answered once, and only then");
    }

    fn state(&mut self, which: u8) {
        let stated = self.stated(which);
        for answered in self.session.state(stated) {
            let at = (answered.stream, answered.seq);
            assert!(self.waiting.values().any(|waiting| *waiting == at) && !self.acked.contains(&at));
        }
        self.has_all_to(stated);
    }

    fn stated(&self, which: u8) -> Position {
        let share = |stream| Seq(self.head(stream).0 * u64::from(which) / 255);
        Position { inbox: share(Stream::Inbox), timeline: share(Stream::Timeline) }
    }

    fn has_all_to(&mut self, stated: Position) {
        for stream in [Stream::Inbox, Stream::Timeline] {
            self.acked.extend((1..=stated.get(stream).0).map(|seq| (stream, Seq(seq))));
        }
    }

    fn pass(&mut self, stream: Stream, which: u8) {
        let mark = self.session.mark(stream);
        let seq = self.after(stream, which);
        self.passed.extend((mark.0 + 1..=seq.0).map(|seq| (stream, Seq(seq))));
        self.session.pass(stream, seq);
        assert_eq!(self.session.mark(stream), seq);
    }

    /// The link breaks, and another session goes on where this one was.
    fn resume(&mut self, which: u8) {
        let stated = if which < 64 { Position::default() } else { self.stated(which) };
        let (cursor, marks) = (self.session.cursor(), [Stream::Inbox, Stream::Timeline].map(|s| self.session.mark(s)));
        // What was only stated, and lies ahead of where the session was, is forgotten with it.
        let beyond = |stream, seq| match stream {
            Stream::Inbox => cursor.inbox.beyond.contains(&seq),
            Stream::Timeline => cursor.timeline.beyond.contains(&seq),
        };
        self.acked.retain(|(stream, seq)| *seq <= marks[*stream as usize] || beyond(*stream, *seq));
        self.session = Session::new(cursor, stated, self.limits, self.now);
        self.waiting.clear();
        self.has_all_to(stated);
    }

    fn time_passes(&mut self, which: u8) {
        self.now += Duration::from_secs(u64::from(which) - 127);
        assert_eq!(self.session.overdue(self.now).is_some(), self.now >= self.session.deadline());
        self.session.touched(self.now);
    }

    fn check(&self) {
        assert_eq!(self.session.in_flight(), self.waiting.len());
        assert!(self.waiting.len() <= usize::from(self.limits.window), "more is in flight than the window holds");
        let cursor = self.session.cursor();
        for (stream, progress) in [(Stream::Inbox, cursor.inbox), (Stream::Timeline, cursor.timeline)] {
            let covered = |seq: Seq| seq <= progress.prefix || progress.beyond.contains(&seq);
            let open = self.waiting.values().filter(|at| at.0 == stream && !self.acked.contains(at));
            open.for_each(|(_, seq)| assert!(!covered(*seq), "the cursor covers what is not acked"));
            assert!(
                progress.beyond.len() <= usize::from(self.limits.window),
                "more holes than the window has room for"
            );
        }
    }
}
