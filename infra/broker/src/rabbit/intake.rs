//! One queue as this process takes from it: who joins and leaves, and where deliveries are settled.
//!
//! Lock order: a queue's hands are the only lock taken here, and never while waiting.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use model::{Queue, record::Record};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::{chunk::Load, hands::Hands, link::Site, publisher::Publisher, room::Room};
use crate::{
    Consumer, DeadLetter, Depth, Error,
    consumers::{ConsumerId, PREFETCH_MAX},
    delivery::{Settle, Tag},
};

/// Wishes that wait for the pump.
const WISHES_MAX: usize = 64;

/// What others ask of the pump, which alone may use the queue's channel. A wish that cannot be granted is dropped.
pub(super) enum Wish {
    /// Count what waits and what is out.
    Depth(oneshot::Sender<Depth>),
    /// Tell when the broker has heard of everything settled so far.
    Heard(oneshot::Sender<()>),
}

/// One queue as this process takes from it.
pub(super) struct Intake {
    pub(super) queue: Queue,
    pub(super) site: Arc<Site>,
    pub(super) hands: Mutex<Hands>,
    /// Something changed that may let a message be handed out or settled.
    pub(super) changed: Notify,
    pub(super) room: Arc<Room>,
    pub(super) retry: Publisher,
    dead: Publisher,
    wishes: mpsc::Sender<Wish>,
    /// Whether the pump has a channel open.
    pub(super) attended: watch::Sender<bool>,
    pub(super) me: Weak<Self>,
}

impl Intake {
    /// A queue that nobody takes from yet, and the wishes for its pump.
    pub(super) fn new(
        queue: Queue,
        site: Arc<Site>,
        room: Arc<Room>,
        retry: Publisher,
        dead: Publisher,
    ) -> (Arc<Self>, mpsc::Receiver<Wish>) {
        let (wishes, wished) = mpsc::channel(WISHES_MAX);
        let (hands, changed) = (Mutex::new(Hands::of(queue)), Notify::new());
        let intake = Arc::new_cyclic(|me| Self {
            queue,
            site,
            hands,
            changed,
            room,
            retry,
            dead,
            wishes,
            attended: watch::Sender::new(false),
            me: me.clone(),
        });
        (intake, wished)
    }

    /// Lets a consumer in.
    pub(super) fn join(&self, prefetch: usize) -> Result<Consumer, Error> {
        let prefetch = prefetch.clamp(1, PREFETCH_MAX);
        let (deliveries, taken) = mpsc::channel(prefetch);
        let mut hands = self.hands.lock();
        hands.open()?;
        let id = hands.consumers.join(prefetch, deliveries);
        drop(hands);
        self.changed.notify_one();
        Ok(Consumer::new(taken, Box::new(Place { intake: self.me.clone(), id })))
    }

    fn leave(&self, id: ConsumerId) {
        let mut hands = self.hands.lock();
        hands.give_back_all(id);
        let sender = hands.consumers.leave(id);
        drop(hands);
        drop(sender);
        self.changed.notify_one();
    }

    /// Nothing is handed out from now on; consumers hear what they were handed, then nothing.
    pub(super) fn end(&self) {
        let mut hands = self.hands.lock();
        hands.end(Error::Unavailable("shutting down".into()));
        let senders = hands.consumers.leave_all();
        drop(hands);
        drop(senders);
        self.changed.notify_one();
    }

    /// Waits until the pump has told the broker everything and closed its channel.
    pub(super) async fn left(&self) {
        // It cannot fail: the sender is here.
        let _ = self.attended.subscribe().wait_for(|attended| !attended).await;
    }

    /// What the pump, if it has a channel open, counts.
    pub(super) async fn depth(&self) -> Option<Depth> {
        if !*self.attended.borrow() {
            return None;
        }
        let (granted, depth) = oneshot::channel();
        self.wishes.send(Wish::Depth(granted)).await.ok()?;
        depth.await.ok()
    }

    /// Sets aside what nobody can settle: it is not one of ours.
    pub(super) async fn set_aside_unreadable(&self, body: Bytes) -> Result<(), Error> {
        self.bury(body, "not published by this platform".into()).await
    }

    async fn bury(&self, body: Bytes, reason: String) -> Result<(), Error> {
        let at = self.site.config.clock.now();
        let letter = DeadLetter { queue: self.queue, body, reason, at };
        self.dead.publish(Load { attempts: 0, at, parts: vec![letter.encode().into()] }).await
    }
}

#[async_trait]
impl Settle for Intake {
    fn ack(&self, tag: Tag) {
        if self.hands.lock().ack(tag) {
            self.changed.notify_one();
        }
    }

    fn give_back(&self, tag: Tag) {
        if self.hands.lock().give_back(tag) {
            self.changed.notify_one();
        }
    }

    async fn dead_letter(&self, tag: Tag, reason: String) -> Result<(), Error> {
        let held = self.hands.lock().held(tag);
        let message = held.ok_or_else(|| Error::Unavailable("the message is handed out again".into()))?;
        self.bury(message.body, reason).await?;
        self.ack(tag);
        let (granted, heard) = oneshot::channel();
        // When it is not granted, the message may come again, and be buried again: at least once.
        let _ = self.wishes.send(Wish::Heard(granted)).await;
        let _ = heard.await;
        Ok(())
    }
}

/// A consumer's place in a queue, given up when it is dropped.
struct Place {
    intake: Weak<Intake>,
    id: ConsumerId,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(intake) = self.intake.upgrade() {
            intake.leave(self.id);
        }
    }
}
