//! The transport under the session of a browser: what the session writes as MQTT leaves as events, and what a device would
//! send comes from here: CONNECT at first, a ping at every heartbeat, acks, and what the browser posts elsewhere. Like
//! every layer of a transport it owns no buffer while nothing is under way.

use std::{
    fmt,
    future::poll_fn,
    io::{self, IoSlice},
    task::{Context, Poll},
    time::Duration,
};

use mqtt::{
    Packet, Reason, Version,
    packet::{Connect, PubAck},
    wire,
};
use tokio::time::{Instant, sleep_until};

use super::{
    Opening,
    inlet::Place,
    script::{Means, Script},
};
use crate::transport::{Stream, pour, take_front};

/// How often a comment is written while nothing else is: proxies close what is silent for half a minute or a minute.
const BEAT_EVERY: Duration = Duration::from_secs(20);

/// The same after a message that counts as received once a heartbeat was written behind it.
const BEAT_SOON: Duration = Duration::from_secs(2);

/// What the session is told about how often it hears something: two heartbeats.
const KEEP_ALIVE_S: u16 = 40;

/// Taken from the session at a time, so that no more than this waits here for a slow browser; a packet is always taken whole.
const TAKEN_MAX_BYTES: usize = 16 * 1024;

/// Read away at a time, on the stack: a browser has nothing to say behind its request.
const DUST_BYTES: usize = 512;

/// Events on a stream that is kept elsewhere.
pub(crate) struct Events {
    place: Place,
    script: Script,
    /// For the session to read.
    up: Vec<u8>,
    /// The beginning of a packet whose rest was not written yet.
    partial: Vec<u8>,
    /// Written as text and not taken by the stream.
    unsent: Vec<u8>,
    beat_at: Instant,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("unsent", &self.unsent.len()).finish_non_exhaustive()
    }
}

impl Events {
    /// A stream whose session is to be opened: it will read CONNECT.
    pub(crate) fn new(opening: Opening) -> Self {
        let Opening { login, inlet, ack_auto } = opening;
        let script = Script::new(login.after, ack_auto);
        let connect = Connect {
            username: Some(login.app.to_string()),
            password: Some(login.token.into_bytes()),
            keep_alive_s: KEEP_ALIVE_S,
            user_properties: vec![("after".into(), login.after.to_string()), ("fmt".into(), "envelope".into())],
            ..Connect::new(Version::V5, login.device.as_str())
        };
        let (up, partial, unsent) = (Vec::new(), Vec::new(), Vec::new());
        let beat_at = Instant::now() + BEAT_EVERY;
        let mut events = Self { place: inlet, script, up, partial, unsent, beat_at };
        events.say(&Packet::Connect(Box::new(connect)));
        events
    }

    /// Whether something can be read without the stream.
    pub(crate) fn has_read(&self) -> bool {
        !self.up.is_empty() || !self.place.inlet.is_empty() || Instant::now() >= self.beat_at
    }

    /// Returns when something can be read without the stream.
    pub(crate) async fn woken(&self) {
        tokio::select! {
            () = poll_fn(|context| self.poll_posted(context)) => {}
            () = sleep_until(self.beat_at) => {}
        }
    }

    /// Wakes `context` when the browser has posted something.
    pub(crate) fn poll_posted(&self, context: &mut Context<'_>) -> Poll<()> {
        self.place.inlet.poll_filled(context)
    }

    /// When there will be a ping to be read.
    pub(crate) fn beat_at(&self) -> Instant {
        self.beat_at
    }

    /// Reads what a device would have sent; 0 when the browser is gone.
    pub(crate) fn try_read(&mut self, stream: &mut Stream, bytes: &mut [u8]) -> io::Result<usize> {
        let now = Instant::now();
        if now >= self.beat_at {
            self.beat_at = now + BEAT_EVERY;
            self.say(&Packet::PingReq);
        }
        if let Some(up_to) = self.place.inlet.take(&mut self.up) {
            let received = self.script.received(up_to);
            self.acknowledge(received);
        }
        if !self.up.is_empty() {
            return Ok(pour(&mut self.up, bytes));
        }
        let mut dust = [0; DUST_BYTES];
        while stream.try_read(&mut dust)? > 0 {}
        Ok(0)
    }

    /// Takes packets from the session and writes them as events.
    pub(crate) fn try_write_vectored(&mut self, stream: &mut Stream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.flush(stream)?;
        if self.has_unsent() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut taken = 0;
        for slice in slices {
            if taken >= TAKEN_MAX_BYTES {
                break;
            }
            self.partial.extend_from_slice(slice);
            taken += slice.len();
        }
        self.tell()?;
        self.flush(stream)?;
        Ok(taken)
    }

    pub(crate) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Gives the stream what it takes of what is unsent; says whether it took anything.
    pub(crate) fn flush(&mut self, stream: &mut Stream) -> io::Result<bool> {
        let mut moved = false;
        while self.has_unsent() {
            match stream.try_write_vectored(&[IoSlice::new(&self.unsent)]) {
                Ok(written) => take_front(&mut self.unsent, written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            moved = true;
        }
        Ok(moved)
    }

    /// Tells a browser that was never let in when to come back, if the stream takes that at once.
    pub(crate) fn say_goodbye(&mut self, stream: &mut Stream) {
        self.script.end(&mut self.unsent);
        let _ = self.flush(stream);
    }

    /// Writes the whole packets that are there.
    fn tell(&mut self) -> io::Result<()> {
        let mut used = 0;
        loop {
            let rest = &self.partial[used..];
            let Some(len) = wire::frame_len(rest, usize::MAX).map_err(broken)?.filter(|len| *len <= rest.len()) else {
                break;
            };
            let packet = wire::decode(&rest[..len], Version::V5).map_err(broken)?;
            used += len;
            match self.script.tell(packet, &mut self.unsent) {
                Means::Nothing => {}
                Means::Acks(packet_ids) => self.acknowledge(packet_ids),
                Means::BeatSoon => self.beat_at = self.beat_at.min(Instant::now() + BEAT_SOON),
                Means::Answer(ack) => self.place.inlet.answered(ack),
            }
        }
        take_front(&mut self.partial, used);
        Ok(())
    }

    fn acknowledge(&mut self, packet_ids: Vec<u16>) {
        for packet_id in packet_ids {
            self.say(&Packet::PubAck(PubAck { packet_id, reason: Reason::SUCCESS }));
        }
    }

    /// Says something to the session, as a device would. All of it can be written in MQTT 5.
    fn say(&mut self, packet: &Packet) {
        let _ = wire::encode(packet, Version::V5, &mut self.up);
    }
}

fn broken(error: wire::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
