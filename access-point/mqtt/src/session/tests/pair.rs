//! The pair: streams, a session, a link, and a device that follows the client rule.

use std::{
    collections::{BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use model::{Cursor, Position, Seq, Stream};
use proptest::sample::Index;

use crate::{
    Reason,
    session::{Limits, Offer, Session},
};

pub(super) const ACK_TIMEOUT: Duration = Duration::from_secs(20);
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(300);

/// What can happen next.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Append { stream: Stream, wanted: bool },
    Pull { stream: Stream, most: usize },
    Arrive { most: usize },
    Ack { which: Index },
    LoseAck { which: Index },
    Refuse { which: Index },
    Save,
    Sync,
    Break { states: bool },
    Crash { states: bool },
    Wait { millis: u64 },
}

/// An entry on its way to the device, and what it says when it arrives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) stream: Stream,
    pub(super) seq: Seq,
    pub(super) packet_id: u16,
    pub(super) dup: bool,
}

#[derive(Default)]
struct Device {
    greatest: Position,
    inbox: Vec<Seq>,
    timeline: Vec<Seq>,
}

impl Device {
    /// The client rule: what is not greater than the greatest is dropped, but acked.
    fn handle(&mut self, arrival: Arrival) {
        let (greatest, seen) = match arrival.stream {
            Stream::Inbox => (&mut self.greatest.inbox, &mut self.inbox),
            Stream::Timeline => (&mut self.greatest.timeline, &mut self.timeline),
        };
        if arrival.seq > *greatest {
            *greatest = arrival.seq;
            seen.push(arrival.seq);
        }
    }

    fn has(&self, stream: Stream, seq: Seq) -> bool {
        match stream {
            Stream::Inbox => self.inbox.contains(&seq),
            Stream::Timeline => self.timeline.contains(&seq),
        }
    }
}

pub(super) struct Pair {
    limits: Limits,
    now: Instant,
    last: u64,
    inbox: Vec<(Seq, bool)>,
    timeline: Vec<(Seq, bool)>,
    session: Session<Seq>,
    saved: Cursor,
    down: VecDeque<Arrival>,
    up: Vec<u16>,
    written: BTreeSet<(Stream, Seq)>,
    device: Device,
    arrived: Vec<Arrival>,
}

impl Pair {
    pub(super) fn new(window: u16) -> Self {
        let limits = Limits { window, ack_timeout: ACK_TIMEOUT, keep_alive: KEEP_ALIVE };
        let now = Instant::now();
        Self {
            limits,
            now,
            last: 0,
            inbox: Vec::new(),
            timeline: Vec::new(),
            session: Session::new(Cursor::default(), Position::default(), limits, now),
            saved: Cursor::default(),
            down: VecDeque::new(),
            up: Vec::new(),
            written: BTreeSet::new(),
            device: Device::default(),
            arrived: Vec::new(),
        }
    }

    pub(super) fn step(&mut self, step: Step) {
        match step {
            Step::Append { stream, wanted } => {
                self.last += 3;
                let seq = Seq(self.last);
                self.entries_mut(stream).push((seq, wanted));
            }
            Step::Pull { stream, most } => self.pull(stream, most),
            Step::Arrive { most } => self.arrive(most),
            Step::Ack { which } => self.ack(which, Reason::SUCCESS),
            Step::Refuse { which } => self.ack(which, Reason::UNSPECIFIED),
            Step::LoseAck { which } => {
                if !self.up.is_empty() {
                    self.lose_ack(which.index(self.up.len()));
                }
            }
            Step::Save => self.saved = self.session.cursor(),
            Step::Sync => drop(self.session.state(self.device.greatest)),
            Step::Break { states } => {
                self.saved = self.session.cursor();
                self.reconnect(states);
            }
            Step::Crash { states } => self.reconnect(states),
            Step::Wait { millis } => {
                self.now += Duration::from_millis(millis);
                self.close_if_overdue();
            }
        }
        self.check();
    }

    /// A link that works, for as long as anything is open.
    pub(super) fn settle(&mut self) {
        loop {
            for stream in [Stream::Inbox, Stream::Timeline] {
                self.pull(stream, usize::MAX);
            }
            self.arrive(usize::MAX);
            self.ack_all();
            self.check();
            let marks = (self.session.mark(Stream::Inbox), self.session.mark(Stream::Timeline));
            let last = |entries: &[(Seq, bool)]| entries.last().map_or(Seq::ZERO, |(seq, _)| *seq);
            if marks == (last(&self.inbox), last(&self.timeline)) {
                if self.session.in_flight() == 0 {
                    return;
                }
                self.step(Step::Wait { millis: 20_000 });
            } else if self.session.room(Stream::Timeline) == 0 || self.session.room(Stream::Inbox) == 0 {
                self.step(Step::Wait { millis: 20_000 });
            }
        }
    }

    pub(super) fn ack_all(&mut self) {
        for packet_id in std::mem::take(&mut self.up) {
            self.session.ack(packet_id, Reason::SUCCESS);
        }
    }

    pub(super) fn lose_ack(&mut self, at: usize) {
        self.up.remove(at);
    }

    pub(super) fn acks_under_way(&self) -> &[u16] {
        &self.up
    }

    pub(super) fn seq_of(&self, packet_id: u16) -> Seq {
        self.arrived.iter().find(|arrival| arrival.packet_id == packet_id).unwrap().seq
    }

    pub(super) fn arrivals(&self) -> &[Arrival] {
        &self.arrived
    }

    pub(super) fn seen(&self, stream: Stream) -> Vec<Seq> {
        match stream {
            Stream::Inbox => self.device.inbox.clone(),
            Stream::Timeline => self.device.timeline.clone(),
        }
    }

    pub(super) fn wanted(&self, stream: Stream) -> Vec<Seq> {
        self.entries(stream).iter().filter(|(_, wanted)| *wanted).map(|(seq, _)| *seq).collect()
    }

    fn pull(&mut self, stream: Stream, most: usize) {
        let mark = self.session.mark(stream);
        let next: Vec<_> = self.entries(stream).iter().filter(|(seq, _)| *seq > mark).take(most).copied().collect();
        for (seq, wanted) in next {
            if !wanted {
                self.session.pass(stream, seq);
                continue;
            }
            match self.session.offer(stream, seq, seq, self.now) {
                Offer::Send { packet_id, dup } => {
                    assert!(self.written.insert((stream, seq)), "{seq:?} went out twice on a link");
                    self.down.push_back(Arrival { stream, seq, packet_id, dup });
                }
                Offer::Received(tag) => assert!(self.device.has(stream, tag), "{tag:?} taken for received"),
                Offer::Full => break,
                Offer::Past => panic!("{seq:?} lies behind the mark"),
            }
        }
    }

    fn arrive(&mut self, most: usize) {
        for _ in 0..most {
            let Some(arrival) = self.down.pop_front() else { break };
            assert!(!self.up.contains(&arrival.packet_id), "packet id {} is in use", arrival.packet_id);
            self.device.handle(arrival);
            self.arrived.push(arrival);
            self.up.push(arrival.packet_id);
        }
    }

    fn ack(&mut self, which: Index, reason: Reason) {
        if self.up.is_empty() {
            return;
        }
        let packet_id = self.up.remove(which.index(self.up.len()));
        self.session.ack(packet_id, reason);
    }

    fn close_if_overdue(&mut self) {
        self.session.touched(self.now);
        let overdue = self.session.overdue(self.now).is_some();
        assert_eq!(overdue, self.now >= self.session.deadline());
        if overdue {
            self.saved = self.session.cursor();
            self.reconnect(false);
        }
    }

    /// What is under way is lost, in both directions.
    fn reconnect(&mut self, states: bool) {
        self.down.clear();
        self.up.clear();
        self.written.clear();
        let stated = if states { self.device.greatest } else { Position::default() };
        self.session = Session::new(self.saved.clone(), stated, self.limits, self.now);
    }

    fn check(&self) {
        let cursor = self.session.cursor();
        for (stream, progress) in [(Stream::Inbox, &cursor.inbox), (Stream::Timeline, &cursor.timeline)] {
            let done = |seq: &Seq| *seq <= progress.prefix || progress.beyond.contains(seq);
            let passed = self.wanted(stream).into_iter().filter(done).find(|seq| !self.device.has(stream, *seq));
            assert_eq!(passed, None, "the cursor passed what the device has not");
            assert!(progress.beyond.len() < usize::from(self.limits.window), "more holes than the window");
            assert!(progress.beyond.is_sorted() && progress.beyond.first().is_none_or(|seq| *seq > progress.prefix));
            assert!(progress.sent >= progress.prefix);
        }
        assert!(self.session.in_flight() <= usize::from(self.limits.window), "more in flight than the window");
    }

    fn entries(&self, stream: Stream) -> &[(Seq, bool)] {
        match stream {
            Stream::Inbox => &self.inbox,
            Stream::Timeline => &self.timeline,
        }
    }

    fn entries_mut(&mut self, stream: Stream) -> &mut Vec<(Seq, bool)> {
        match stream {
            Stream::Inbox => &mut self.inbox,
            Stream::Timeline => &mut self.timeline,
        }
    }
}
