//! What browsers post comes over other connections than their streams: here it finds the stream's session, and its answer
//! the way back.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
};

use model::{AppId, DeviceId, Position};
use mqtt::{
    Packet, Reason, Version,
    packet::{PubAck, Publish},
    wire,
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Posts of one browser that wait for answers: browsers open six connections to a server.
const WAITING_MAX: usize = 8;

type Who = (AppId, DeviceId);

/// The streams that are open here, the latest of each device.
#[derive(Default)]
pub(crate) struct Inlets(Arc<Mutex<HashMap<Who, Arc<Inlet>>>>);

impl Inlets {
    /// A place for a stream, instead of an older one of the device.
    pub(super) fn place(&self, app: &AppId, device: &DeviceId) -> Place {
        let (who, inlet) = ((app.clone(), device.clone()), Arc::<Inlet>::default());
        let before = self.0.lock().insert(who.clone(), inlet.clone());
        Place { among: self.0.clone(), who, inlet, before: before.as_ref().map(Arc::downgrade).unwrap_or_default() }
    }

    /// The stream of a device.
    pub(super) fn get(&self, app: &AppId, device: &DeviceId) -> Option<Arc<Inlet>> {
        self.0.lock().get(&(app.clone(), device.clone())).cloned()
    }
}

/// A stream's place among those that are open; it is given up when this is dropped.
pub(super) struct Place {
    among: Arc<Mutex<HashMap<Who, Arc<Inlet>>>>,
    who: Who,
    pub(super) inlet: Arc<Inlet>,
    /// The older one in whose place it is. That goes on when this one is never let in.
    before: Weak<Inlet>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut among = self.among.lock();
        if among.get(&self.who).is_some_and(|inlet| Arc::ptr_eq(inlet, &self.inlet)) {
            match self.before.upgrade() {
                Some(before) => among.insert(self.who.clone(), before),
                None => among.remove(&self.who),
            };
        }
    }
}

#[derive(Default)]
struct State {
    /// Packets for the session, as a device would send them.
    packets: Vec<u8>,
    /// What the browser said that it has received, and the session was not told.
    received: Option<Position>,
    waiting: HashMap<u16, oneshot::Sender<Reason>>,
    last_packet_id: u16,
    waker: Option<Waker>,
}

impl State {
    fn is_empty(&self) -> bool {
        self.packets.is_empty() && self.received.is_none()
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// The way from posts to the session of one stream.
#[derive(Default)]
pub(super) struct Inlet(Mutex<State>);

impl Inlet {
    /// Publishes for the browser; `None` when too much of it waits for answers. The answer never comes if the stream ends.
    pub(super) fn publish(&self, publish: Publish) -> Option<oneshot::Receiver<Reason>> {
        let mut state = self.0.lock();
        state.waiting.retain(|_, answer| !answer.is_closed());
        if state.waiting.len() >= WAITING_MAX {
            return None;
        }
        let packet_id = state.last_packet_id.wrapping_add(1).max(1);
        let packet = Packet::Publish(Box::new(Publish { packet_id, ..publish }));
        wire::encode(&packet, Version::V5, &mut state.packets).ok()?;
        state.last_packet_id = packet_id;
        let (answer, answered) = oneshot::channel();
        state.waiting.insert(packet_id, answer);
        state.wake();
        Some(answered)
    }

    /// Says that the browser has received everything up to this position.
    pub(super) fn acknowledge(&self, received: Position) {
        let mut state = self.0.lock();
        let before = state.received.unwrap_or_default();
        state.received = Some(Position {
            inbox: before.inbox.max(received.inbox),
            timeline: before.timeline.max(received.timeline),
        });
        state.wake();
    }

    /// The session has answered.
    pub(super) fn answered(&self, ack: PubAck) {
        if let Some(answer) = self.0.lock().waiting.remove(&ack.packet_id) {
            let _ = answer.send(ack.reason);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// Moves everything that was published to the end of `bytes`; what the browser has received since the last time.
    pub(super) fn take(&self, bytes: &mut Vec<u8>) -> Option<Position> {
        let mut state = self.0.lock();
        bytes.append(&mut state.packets);
        state.received.take()
    }

    /// Ready when something was posted.
    pub(super) fn poll_filled(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if !state.is_empty() {
            return Poll::Ready(());
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_whose_successor_goes_away_is_posted_to_again() {
        let (inlets, app, device) = (Inlets::default(), "demo".parse().unwrap(), "dev".parse().unwrap());
        let first = inlets.place(&app, &device);
        let second = inlets.place(&app, &device);
        assert!(Arc::ptr_eq(&inlets.get(&app, &device).unwrap(), &second.inlet));
        drop(second);
        assert!(Arc::ptr_eq(&inlets.get(&app, &device).unwrap(), &first.inlet));
        let third = inlets.place(&app, &device);
        drop(first);
        assert!(inlets.get(&app, &device).is_some(), "the latest stays");
        drop(third);
        assert!(inlets.get(&app, &device).is_none());
    }
}
