//! The task of a queue that talks to the broker: takes in what is delivered, hands it out, and tells what is settled.
//!
//! Suspects go before all others, in whatever process: while the retry queue is not known to be empty, nothing fresh is
//! handed out here. What comes back from a process that died is moved there before it is handed out again.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use lapin::{
    Channel,
    message::Delivery,
    options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use super::{
    chunk::Chunk,
    hands::{PARCELS_MIN, Verdicts},
    intake::{Intake, Wish},
    link::{Link, Session, Taking, answer, unavailable},
    mover::{Moved, Mover},
    topology::{self, count},
};
use crate::{Depth, Error, delivery::Settle};

/// How often the retry queue is looked at while it is not known to be empty.
const LOOK: Duration = Duration::from_millis(25);

/// Looks that must find the retry queue empty. What the broker sent before it answered the first may arrive after that
/// answer, but not after the answer to the second.
const LOOKS: u8 = 2;

/// How long the pump waits before it tries again what has failed.
const PAUSE: Duration = Duration::from_millis(200);

/// How long nothing fresh is handed out while the suspects that wait do not become fewer: their one consumer hangs, and
/// the broker may take half a minute to notice.
const HUNG: Duration = Duration::from_secs(5);

/// Runs for as long as there may be a connection; takes from the queue while somebody consumes.
pub(super) async fn run(intake: Arc<Intake>, link: Link, mut wishes: mpsc::Receiver<Wish>) {
    loop {
        let session = tokio::select! {
            session = wanted(&intake, &link) => session,
            Some(_refused) = wishes.recv() => continue,
        };
        let Some(session) = session else {
            return intake.end();
        };
        let ended = attend(&intake, &link, &session, &mut wishes).await;
        intake.hands.lock().lost();
        intake.attended.send_replace(false);
        if let Err(error) = ended {
            tracing::warn!(queue = %intake.queue, %error, "a queue is left, to be taken up again");
            sleep(PAUSE).await;
            // The queue may be gone. When it cannot be declared either, the next try tells.
            let _ = topology::declare(&intake.site, &session).await;
            session.doubt().await;
        }
    }
}

/// Waits until somebody consumes, and there is a connection.
async fn wanted(intake: &Intake, link: &Link) -> Option<Arc<Session>> {
    while intake.hands.lock().consumers.is_empty() {
        intake.changed.notified().await;
    }
    link.next_session().await
}

/// Takes from the queue until nobody consumes any more, or something goes wrong.
async fn attend(
    intake: &Arc<Intake>,
    link: &Link,
    session: &Arc<Session>,
    wishes: &mut mpsc::Receiver<Wish>,
) -> Result<(), Error> {
    let mut pump = Pump::open(intake, session).await?;
    intake.attended.send_replace(true);
    loop {
        while pump.serve().await? == Served::More {}
        // What was settled meanwhile has notified, and is served in the next turn.
        if pump.is_over() {
            return pump.close().await;
        }
        let looks = pump.empty < LOOKS;
        let wake = if looks { Some(pump.look_at) } else { pump.mover.stalled() };
        tokio::select! {
            biased;
            () = link.lost(session) => return Err(Error::Unavailable("the connection is over".into())),
            delivery = pump.retry.next() => pump.take_suspect(delivered(delivery)?).await?,
            delivery = next(&mut pump.main) => pump.take_all(delivered(delivery)?).await?,
            moved = pump.mover.moved() => pump.moved(moved),
            () = intake.changed.notified() => {}
            Some(wish) = wishes.recv() => pump.grant(wish).await?,
            () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => if looks {
                pump.look().await?;
            },
        }
    }
}

async fn next(main: &mut Option<lapin::Consumer>) -> Option<lapin::Result<Delivery>> {
    match main {
        Some(main) => main.next().await,
        None => std::future::pending().await,
    }
}

/// A stream that ends was ended by the broker: the queue is gone, or the connection.
fn delivered(delivery: Option<lapin::Result<Delivery>>) -> Result<Delivery, Error> {
    match delivery {
        Some(Ok(delivery)) => Ok(delivery),
        Some(Err(error)) => Err(unavailable(error)),
        None => Err(Error::Unavailable("RabbitMQ hands out nothing more".into())),
    }
}

/// Whether there is more to do at once.
#[derive(PartialEq, Eq)]
enum Served {
    All,
    More,
}

struct Pump<'a> {
    intake: &'a Arc<Intake>,
    settle: Weak<dyn Settle>,
    channel: Taking,
    retry: lapin::Consumer,
    /// What was never handed out, or not from here. Not subscribed to while there are suspects from a process that
    /// died: what it had here when it dies too would be suspected next.
    main: Option<lapin::Consumer>,
    /// How many AMQP messages it may have here.
    window: u16,
    /// Something came back from a process that died.
    came_back: bool,
    /// A suspect was given back to the retry queue, of which this is the consumer: it comes again, though the broker
    /// may say meanwhile that nothing waits.
    returning: bool,
    /// How often in a row the retry queue was found empty.
    empty: u8,
    look_at: Instant,
    /// How many suspects waited when it was last looked at, and since when it is so many.
    waiting: (u64, Instant),
    mover: Mover,
}

impl<'a> Pump<'a> {
    async fn open(intake: &'a Arc<Intake>, session: &Session) -> Result<Self, Error> {
        let channel = session.taking().await?;
        let retry = subscribe(&channel, intake.site.names.retry(intake.queue), 1).await?;
        let settle: Weak<dyn Settle> = intake.me.clone();
        Ok(Self {
            intake,
            settle,
            channel,
            retry,
            main: None,
            window: intake.hands.lock().window(PARCELS_MIN),
            came_back: false,
            returning: false,
            empty: 0,
            look_at: Instant::now(),
            waiting: (0, Instant::now()),
            mover: Mover::new(intake.retry.clone()),
        })
    }

    /// Whether suspects may be waiting, here or anywhere.
    fn is_careful(&self) -> bool {
        if self.intake.queue.is_in_order() {
            return false;
        }
        let hands = self.intake.hands.lock();
        let waiting = self.empty < LOOKS && self.waiting.1.elapsed() < HUNG;
        waiting || self.returning || hands.has_back() || self.mover.is_busy(&hands)
    }

    /// Nobody consumes, and everything is told and moved.
    fn is_over(&self) -> bool {
        let hands = self.intake.hands.lock();
        hands.consumers.is_empty() && hands.is_told() && self.mover.is_done(&hands)
    }

    /// Does what can be done now.
    async fn serve(&mut self) -> Result<Served, Error> {
        let (verdicts, window) = {
            let mut hands = self.intake.hands.lock();
            (hands.verdicts(), hands.window(self.window))
        };
        self.tell(verdicts).await?;
        if self.intake.queue.is_in_order() {
            self.gather().await?;
        } else if self.came_back || window != self.window {
            self.window = window;
            self.unsubscribe().await?;
        }
        self.mover.start(&mut self.intake.hands.lock());
        let careful = self.is_careful();
        if self.main.is_none() && !careful {
            let name = self.intake.site.names.queue(self.intake.queue);
            self.main = Some(subscribe(&self.channel, name, self.window).await?);
            // What waited arrives before any of it is handed out: what is suspect among it must go first.
            self.depth().await?;
            return Ok(Served::More);
        }
        if self.mover.is_moving() {
            // A suspect that kills now would have the others moved twice.
            return Ok(Served::All);
        }
        let mut hands = self.intake.hands.lock();
        hands.hand_out(&self.settle, careful);
        Ok(if hands.window(self.window) == self.window { Served::All } else { Served::More })
    }

    /// Tells the broker what is settled.
    async fn tell(&mut self, verdicts: Verdicts) -> Result<(), Error> {
        for parcel in verdicts.back {
            answer(self.channel.basic_reject(parcel, BasicRejectOptions { requeue: true })).await?;
            self.returning = true;
            self.suspects_ahead();
        }
        if let Some(parcel) = verdicts.up_to {
            answer(self.channel.basic_ack(parcel, BasicAckOptions { multiple: true })).await?;
        }
        for parcel in verdicts.done {
            answer(self.channel.basic_ack(parcel, BasicAckOptions::default())).await?;
        }
        Ok(())
    }

    /// Stops what comes from the queue itself, and takes in what was under way.
    async fn unsubscribe(&mut self) -> Result<(), Error> {
        self.came_back = false;
        let Some(mut main) = self.main.take() else {
            return Ok(());
        };
        answer(self.channel.basic_cancel(main.tag(), BasicCancelOptions::default())).await?;
        while let Some(delivery) = main.next().await {
            self.take(delivered(Some(delivery))?).await?;
        }
        self.came_back = false;
        Ok(())
    }

    /// Takes in all that came back, when some of it did.
    async fn gather(&mut self) -> Result<(), Error> {
        if self.came_back {
            self.depth().await?;
            self.came_back = false;
        }
        Ok(())
    }

    /// Takes in what was delivered, and what else is there.
    async fn take_all(&mut self, delivery: Delivery) -> Result<(), Error> {
        self.take(delivery).await?;
        while let Some(delivery) = self.main.as_mut().and_then(|main| main.next().now_or_never()) {
            self.take(delivered(delivery)?).await?;
        }
        Ok(())
    }

    async fn take(&mut self, delivery: Delivery) -> Result<(), Error> {
        let parcel = delivery.delivery_tag;
        let before = redeliveries(&delivery);
        let body = Bytes::from(delivery.data);
        let Ok(chunk) = Chunk::decode(body.clone()) else {
            return self.set_aside(parcel, body).await;
        };
        self.intake.room.passed(chunk.parts.len());
        let mut hands = self.intake.hands.lock();
        if before > 0 {
            self.came_back = true;
            hands.came_back(parcel, chunk, before);
        } else {
            hands.arrived(parcel, chunk);
        }
        Ok(())
    }

    async fn take_suspect(&mut self, delivery: Delivery) -> Result<(), Error> {
        self.returning = false;
        let (parcel, retried) = (delivery.delivery_tag, redeliveries(&delivery));
        let body = Bytes::from(delivery.data);
        let Ok(chunk) = Chunk::decode(body.clone()) else {
            return self.set_aside(parcel, body).await;
        };
        self.intake.hands.lock().suspect(parcel, chunk, retried);
        Ok(())
    }

    /// Sets aside what is not one of ours.
    async fn set_aside(&mut self, parcel: u64, body: Bytes) -> Result<(), Error> {
        tracing::error!(queue = %self.intake.queue, "an AMQP message of somebody else is set aside");
        self.intake.set_aside_unreadable(body).await?;
        answer(self.channel.basic_ack(parcel, BasicAckOptions::default())).await
    }

    /// The retry queue is not known to be empty any more.
    fn suspects_ahead(&mut self) {
        self.empty = 0;
        self.look_at = Instant::now();
        self.waiting.1 = self.look_at;
    }

    /// Looks whether suspects are waiting.
    async fn look(&mut self) -> Result<(), Error> {
        let (waiting, _) = count(&self.channel, &self.intake.site.names.retry(self.intake.queue)).await?;
        self.empty = if waiting == 0 { self.empty.saturating_add(1) } else { 0 };
        if waiting < self.waiting.0 {
            self.waiting.1 = Instant::now();
        }
        self.waiting.0 = waiting;
        self.look_at = Instant::now() + if self.empty == 0 || self.empty >= LOOKS { LOOK } else { Duration::ZERO };
        Ok(())
    }

    fn moved(&mut self, moved: Moved) {
        let why = self.mover.finish(moved, &mut self.intake.hands.lock());
        if let Some(error) = why {
            tracing::warn!(queue = %self.intake.queue, %error, "messages cannot be handed out again yet");
        }
        self.suspects_ahead();
    }

    async fn grant(&mut self, wish: Wish) -> Result<(), Error> {
        let depth = self.depth().await?;
        // Who wished may have gone away.
        match wish {
            Wish::Depth(granted) => drop(granted.send(depth)),
            Wish::Heard(granted) => drop(granted.send(())),
        }
        Ok(())
    }

    /// Counts. The broker has then heard of everything told before, and what it sent before has arrived.
    async fn depth(&mut self) -> Result<Depth, Error> {
        let (names, queue) = (&self.intake.site.names, self.intake.queue);
        let mut counted = (0, 0);
        for _ in 0..LOOKS {
            let (main, consumers) = count(&self.channel, &names.queue(queue)).await?;
            self.intake.room.looked(main, consumers, Instant::now());
            counted = (main, count(&self.channel, &names.retry(queue)).await?.0);
            while let Some(delivery) = self.retry.next().now_or_never() {
                self.take_suspect(delivered(delivery)?).await?;
            }
            while let Some(delivery) = self.main.as_mut().and_then(|main| main.next().now_or_never()) {
                self.take(delivered(delivery)?).await?;
            }
        }
        let hands = self.intake.hands.lock();
        let ((waiting, unacked), oldest) = (hands.counts(), hands.oldest());
        drop(hands);
        let ready = self.intake.room.messages_in(counted.0) + counted.1 + waiting;
        let oldest_age = oldest.map(|at| self.intake.site.config.clock.now().since(at)).unwrap_or_default();
        Ok(Depth { ready, unacked, oldest_age })
    }

    /// Leaves the queue: what is not settled goes back to the broker.
    async fn close(self) -> Result<(), Error> {
        answer(self.channel.close(200, "bye".into())).await
    }
}

async fn subscribe(channel: &Channel, queue: String, prefetch: u16) -> Result<lapin::Consumer, Error> {
    answer(channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
    let options = BasicConsumeOptions::default();
    answer(channel.basic_consume(queue.into(), "".into(), options, FieldTable::default())).await
}

/// How often the broker has handed out this message before and got it back, one way or another.
fn redeliveries(delivery: &Delivery) -> u32 {
    let headers = delivery.properties.headers().as_ref();
    let count = headers.and_then(|headers| headers.inner().get("x-delivery-count"));
    let count = match count {
        Some(AMQPValue::LongLongInt(count)) => u32::try_from(*count).ok(),
        Some(AMQPValue::LongInt(count)) => u32::try_from(*count).ok(),
        Some(AMQPValue::LongUInt(count)) => Some(*count),
        Some(AMQPValue::ShortInt(count)) => u32::try_from(*count).ok(),
        Some(AMQPValue::ShortShortUInt(count)) => Some((*count).into()),
        Some(AMQPValue::ShortShortInt(count)) => u32::try_from(*count).ok(),
        Some(AMQPValue::ShortUInt(count)) => Some((*count).into()),
        _ => None,
    };
    count.unwrap_or_default().max(delivery.redelivered.into())
}
