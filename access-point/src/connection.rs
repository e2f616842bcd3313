//! One connected device, as a record of its worker: what is known of it, and what happens when its socket wakes, when it
//! is told something, and when its time is up. It waits for nothing.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
};

use model::{AppId, DeviceId, Env, Ordinal, Seq, Stream, UserId};
use mqtt::{Coding, Format, Packet, Session, login::Mode, session::Change};
use store::CursorWrite;
use tokio::time::Instant;
use tracing::debug;

use crate::{
    admit::{Admitted, Presence},
    bind::Bound,
    close::Close,
    control,
    doze::Doze,
    drain::Evicted,
    entry::Origin,
    errand::{Home, Outcome},
    fetch::Fetch,
    heartbeat::Heartbeat,
    link::Link,
    listen::Place,
    parting::{Parting, part},
    pull::Sent,
    quota::Bucket,
    timeline::Timeline,
    worker::{Held, Seat, Turn},
};

/// Reads in one turn, and after a link's end was decided: a window of acks fits one, and a device that never stops must
/// not hold up others.
const READS_MAX: usize = 8;

/// Writes in one turn: with each goes as much as should wait for a slow device.
const WRITES_MAX: usize = 4;

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) app: AppId,
    pub(crate) device: DeviceId,
    pub(crate) ordinal: Ordinal,
    pub(crate) env: Env,
    pub(crate) user: Option<UserId>,
    pub(crate) format: Format,
    pub(crate) mode: Mode,
    /// How bodies may be packed for it.
    pub(crate) coding: Option<Coding>,
    /// Unacked messages at a time of each app that comes to share its link.
    pub(crate) window_bound: u16,
    /// When it leaves its keep alive to us.
    pub(crate) heartbeat: Option<Arc<Heartbeat>>,
    /// Where it comes from.
    pub(crate) origin: Origin,
    /// The largest packet it takes.
    pub(crate) packet_max_bytes: usize,
}

/// A device that has been let in, on its way to its worker. It has been answered, or will read the answer first.
pub(crate) struct Entrant {
    pub(crate) link: Link,
    pub(crate) admitted: Admitted,
    /// Its token counts until then.
    pub(crate) token_ends: Instant,
    /// Packets that came before its session was found.
    pub(crate) early: Vec<Packet>,
    pub(crate) place: Place,
}

/// One connected device.
pub(crate) struct Connection {
    pub(crate) link: Link,
    pub(crate) peer: Peer,
    pub(crate) presence: Presence,
    pub(crate) session: Session<Sent>,
    pub(crate) timeline: Arc<Timeline>,
    /// The streams, by number, that may hold entries after the mark.
    pub(crate) behind: [bool; 2],
    /// The streams that are being read.
    pub(crate) reading: [bool; 2],
    /// How much of what it said is being dealt with; it is heard again after that.
    pub(crate) busy: usize,
    /// When to look at its streams again: the store was not there, or the device was told something a moment ago.
    pub(crate) retry_at: Option<Instant>,
    /// When a ping last made it look at its streams.
    pub(crate) looked_at: Instant,
    pub(crate) doze: Doze,
    /// What it has sent up.
    pub(crate) quota: Bucket,
    /// It has sent up more than it may, and is not heard before.
    pub(crate) held_until: Option<Instant>,
    /// When it fetches its messages itself. Few do, and others should hold nothing for it.
    pub(crate) fetch: Option<Box<Fetch>>,
    /// The apps that share its link.
    pub(crate) bound: Option<Box<Bound>>,
    token_ends: Instant,
    /// Its cursor has moved, and its worker knows.
    moved: bool,
    /// Its socket has woken its worker, which has not come yet.
    woken: bool,
    held: Held,
    seat: Seat,
    pub(crate) waker: Waker,
    place: Place,
}

impl Connection {
    /// A connection in its seat, whose socket wakes by `waker`; with what the device has said already.
    pub(crate) fn new(entrant: Entrant, seat: Seat, waker: Waker) -> (Self, Vec<Packet>) {
        let Entrant { link, admitted, token_ends, early, place } = entrant;
        let Admitted { peer, presence, session, timeline, latest } = admitted;
        let fetch = (peer.mode == Mode::Notify).then(Box::default);
        // Whatever was appended after `latest` was read has rung: the session was registered before.
        let behind = [session.mark(Stream::Inbox) < latest.inbox, true];
        presence.handle.seated(seat);
        let connection = Self {
            link,
            peer,
            presence,
            session,
            timeline,
            behind,
            reading: [false; 2],
            busy: 0,
            retry_at: None,
            looked_at: Instant::now(),
            doze: Doze::new(Instant::now()),
            quota: Bucket::new(Instant::now()),
            held_until: None,
            fetch,
            bound: None,
            token_ends,
            moved: false,
            woken: false,
            held: Held::default(),
            seat,
            waker,
            place,
        };
        (connection, early)
    }

    /// Where the outcomes of its errands go.
    pub(crate) fn home(&self) -> Home {
        Home { handle: self.presence.handle.clone(), seat: self.seat }
    }

    /// Its first turn.
    pub(crate) fn begin(&mut self, early: Vec<Packet>, turn: &mut Turn) -> Result<(), Close> {
        debug!(app = %self.peer.app, device.id = %self.peer.device, "a device is connected");
        turn.site.sightings.note(&self.peer, self.presence.handle.epoch, false, turn.now);
        self.with_buffer(turn, |connection, turn| {
            connection.take(early, turn)?;
            connection.hear(turn)?;
            connection.go_on(turn)
        })
    }

    /// It was told something.
    pub(crate) fn called(&mut self, turn: &mut Turn) -> Result<(), Close> {
        self.with_buffer(turn, |connection, turn| {
            connection.hear(turn)?;
            connection.send(turn)
        })
    }

    /// Its socket has woken its worker, which will come to it.
    pub(crate) fn woken(&mut self) {
        self.woken = true;
    }

    /// Its socket can be read or written.
    pub(crate) fn ready(&mut self, turn: &mut Turn) -> Result<(), Close> {
        self.woken = false;
        self.with_buffer(turn, Self::go_on)
    }

    /// Its timeline has grown; says whether it can follow now. One that does not read, or has too much to ack, follows when
    /// it can, and must not cost those who are passed with it. One whose socket has woken follows when its worker comes to
    /// it: it may be over, and a crowd of those is not written to.
    pub(crate) fn grown(&mut self) -> bool {
        self.behind[Stream::Timeline as usize] = true;
        !self.woken && self.can_deliver()
    }

    /// Follows its timeline.
    pub(crate) fn follow(&mut self, turn: &mut Turn) -> Result<(), Close> {
        self.with_buffer(turn, Self::send)
    }

    /// Something it needed is here.
    pub(crate) fn conclude(&mut self, outcome: Outcome, turn: &mut Turn) -> Result<(), Close> {
        self.with_buffer(turn, |connection, turn| {
            match outcome {
                Outcome::Inbox(page) => connection.take_inbox(page, turn),
                Outcome::Timeline(page) => connection.take_timeline(page, turn),
                Outcome::Heads { stated, latest } => connection.synced(stated, latest, turn)?,
                Outcome::Uploaded(answers) => connection.uploaded(answers)?,
            }
            connection.go_on(turn)
        })
    }

    /// Its time may be up.
    pub(crate) fn check(&mut self, turn: &mut Turn) -> Result<(), Close> {
        let now = turn.instant;
        if self.retry_at.is_some_and(|at| now >= at) {
            self.retry_at = None;
        }
        if self.held_until.is_some_and(|until| now >= until) {
            self.held_until = None;
        }
        let overdue = self.doze.overdue(now);
        self.look_for(overdue);
        match self.late(turn).filter(|_| now >= turn.patient_until) {
            Some(close) => Err(close),
            None if now >= self.token_ends => Err(Close::TokenEnded),
            None => self.with_buffer(turn, Self::go_on),
        }
    }

    /// Why the device would be given up: something that is waited for has not come in time.
    fn late(&self, turn: &Turn) -> Option<Close> {
        let now = turn.instant;
        let stalled = self.link.stalled_since().is_some_and(|since| now >= since + turn.site.config.write_timeout);
        stalled.then_some(Close::Stalled).or_else(|| self.session.overdue(now.into_std()).map(Close::Overdue))
    }

    /// When something must happen even if nothing does.
    pub(crate) fn wake_at(&self, turn: &Turn) -> Instant {
        let stalled = self.link.stalled_since().map(|since| since + turn.site.config.write_timeout);
        let session = Instant::from_std(self.session.deadline());
        [stalled, self.retry_at, self.held_until, self.doze.due(), self.link.wake_at()]
            .into_iter()
            .flatten()
            .fold(session.min(self.token_ends), Instant::min)
    }

    fn with_buffer(
        &mut self,
        turn: &mut Turn,
        serve: impl FnOnce(&mut Self, &mut Turn) -> Result<(), Close>,
    ) -> Result<(), Close> {
        self.link.lend(std::mem::take(&mut turn.buffer));
        let served = serve(self, turn);
        turn.buffer = self.link.give_back();
        self.settle(turn);
        served
    }

    /// In these streams, by number, there may be something to send.
    pub(crate) fn look_for(&mut self, streams: [bool; 2]) {
        for stream in [Stream::Inbox, Stream::Timeline] {
            self.behind[stream as usize] |= streams[stream as usize];
        }
    }

    /// Hears what it was told.
    fn hear(&mut self, turn: &mut Turn) -> Result<(), Close> {
        let told = self.presence.handle.told();
        self.look_for(told.rung);
        self.take_handed(told.handed, turn);
        told.order.map_or(Ok(()), Err)
    }

    /// Reads what the device has sent, as long as there is something, and sends what can be sent.
    fn go_on(&mut self, turn: &mut Turn) -> Result<(), Close> {
        self.link.flush()?;
        let mut reads = 0;
        while self.is_heard() {
            let mut packets = Vec::new();
            let read = self.link.poll_read(&mut Context::from_waker(&self.waker), &mut packets);
            let taken = self.take(packets, turn);
            match read {
                _ if taken.is_err() => return taken,
                Poll::Ready(read) => read?,
                Poll::Pending => break,
            }
            reads += 1;
            if reads == READS_MAX {
                self.waker.wake_by_ref();
                break;
            }
        }
        self.carry()?;
        self.send(turn)
    }

    /// Whether what it says now can be dealt with.
    fn is_heard(&self) -> bool {
        let has_room = self.bound.as_ref().is_none_or(|bound| bound.has_room());
        has_room && self.busy == 0 && self.held_until.is_none()
    }

    /// Sends what can be sent.
    fn send(&mut self, turn: &mut Turn) -> Result<(), Close> {
        for _ in 0..WRITES_MAX {
            self.deliver(turn);
            self.write_fetched(turn)?;
            // Behind what waited for the ping, if that is here.
            if !self.reading[Stream::Inbox as usize] && std::mem::take(&mut self.doze.owes_pong) {
                self.link.push(&Packet::PingResp)?;
            }
            self.link.flush()?;
            self.wait_for_room()?;
            if !self.can_deliver() {
                if self.link.has_read() && self.is_heard() && self.link.stalled_since().is_none() {
                    self.waker.wake_by_ref();
                }
                return Ok(());
            }
        }
        self.waker.wake_by_ref();
        Ok(())
    }

    /// Has its socket wake it when there is room for what is unsent; writes while there is.
    fn wait_for_room(&mut self) -> Result<(), Close> {
        while self.link.has_unsent() {
            if self.link.poll_flushable(&mut Context::from_waker(&self.waker)).is_pending() {
                return Ok(());
            }
            self.link.flush()?;
        }
        Ok(())
    }

    /// Says how far it is, and what it holds.
    fn settle(&mut self, turn: &mut Turn) {
        for stream in [Stream::Inbox, Stream::Timeline] {
            // Whoever knows that there is something and does not fetch it need not be looked for.
            let knows = self.fetch.as_ref().is_some_and(|fetch| fetch.knows(stream));
            let mark = if knows { Seq(u64::MAX) } else { self.session.mark(stream) };
            self.presence.handle.set_mark(stream, mark);
        }
        let held = Held { in_flight: self.session.in_flight(), unsent_bytes: self.link.unsent_bytes() };
        turn.count(self.held, held);
        self.held = held;
    }

    /// Whether its cursor has moved, told once.
    pub(crate) fn has_moved(&mut self) -> bool {
        let told = self.moved;
        self.moved |= self.session.change() == Change::Moved;
        self.moved && !told
    }

    /// The cursor, when it has moved: it must reach the store after the receipts it covers.
    pub(crate) fn take_cursor(&mut self) -> Option<CursorWrite> {
        self.moved = false;
        (self.session.change() > Change::Nothing).then(|| {
            let cursor = self.session.cursor();
            self.session.saved();
            let handle = &self.presence.handle;
            CursorWrite { app: handle.app.clone(), device: handle.ordinal, epoch: handle.epoch, cursor }
        })
    }

    /// Takes what the device has sent and nobody has read: most of it are acks, and what they are for would come again.
    pub(crate) fn hear_out(&mut self, close: &Close, turn: &mut Turn) {
        if matches!(close, Close::Goodbye | Close::Broken(_)) {
            return;
        }
        for _ in 0..READS_MAX {
            let mut packets = Vec::new();
            let read = self.link.read(&mut packets);
            if packets.is_empty() || self.take(packets, turn).is_err() || read.is_err() {
                return;
            }
        }
    }

    /// The end. What there was to tell of it was told before, but for its cursor.
    pub(crate) fn end(mut self, close: &Close, turn: &mut Turn) {
        turn.site.outbox.keep(self.take_cursor().into_iter().collect());
        turn.count(self.held, Held::default());
        turn.site.metrics.stray_acks.inc_by(self.session.strays());
        turn.site.metrics.disconnect(close.as_str());
        debug!(app = %self.peer.app, device.id = %self.peer.device, reason = close.as_str(), "a device is gone");
        let last = match self.link.tell_over(close.as_str()) {
            true => None,
            false => control::farewell(&self.link, &self.peer.app, close),
        };
        let last: Vec<Packet> = last.into_iter().collect();
        let handle = self.presence.handle.clone();
        let evicted = matches!(close, Close::Moving(_)).then(|| Evicted::of(&handle, &self.session, turn.now));
        drop(self.presence);
        turn.site.sightings.note(&self.peer, handle.epoch, true, turn.now);
        let route = (*close != Close::TakenOver).then_some(handle);
        part(&turn.site, Parting { link: self.link, last, route, evicted, place: self.place });
    }
}
