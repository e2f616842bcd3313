//! What sessions have to tell: receipts for the funnel, cursors for the next session. Gathered for a moment and sent
//! in batches, receipts first: a crash between the two repeats a message, and the funnel still balances. Cursors are
//! saved app by app, and those that cannot be saved now wait by themselves: they hold up neither receipts nor other apps.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use broker::Publication;
use futures_util::stream::{self, StreamExt as _};
use model::{AppId, Cursor, Epoch, MessageId, Ordinal, Ordinals, Queue, Receipt, ReceiptBatch, record::Record as _};
use parking_lot::Mutex;
use store::CursorWrite;
use tokio::{
    sync::{Notify, watch},
    time,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use crate::{Deps, close::Close, metrics::Metrics, registry::Registry};

/// How long facts are gathered: short beside a person's patience, long beside a group commit. A cursor that moves
/// several times meanwhile is written once.
const GATHER: Duration = Duration::from_millis(200);

/// Facts that end the gathering early: more than a broadcast to all devices of a node makes, so that none of its devices
/// waits for cursors of others to be written.
const GATHER_MAX: usize = 100_000;

/// What may be held of unreported facts; beyond it sessions stop sending. Some 650,000 unicasts, about a minute of a busy
/// node while the broker takes nothing, or hundreds of broadcasts to all of its devices.
const UNREPORTED_MAX_BYTES: usize = 256 * 1024 * 1024;

/// What is held for a message of which there are facts: its place in the table, and a bitmap with little in it each for
/// whom it was sent to and who acked it.
const MESSAGE_BYTES: usize = 400;

/// What a fact adds to a bitmap, at most but for the first ones.
const FACT_BYTES: usize = 2;

/// Bytes in one batch of receipts, unless it is a single one: keeps a publication well below what a broker takes.
const BATCH_MAX_BYTES: usize = 256 * 1024;

/// What travels with a receipt beside its bitmaps.
const RECEIPT_BYTES: usize = 80;

/// Batches that are published together: of what gathered while the broker took nothing, no more than this goes again when
/// some of it is refused.
const BATCHES_MAX: usize = 128;

/// Cursors in one call of the store: appends of unicasts wait for no more than this many of an app at a time.
const CURSORS_MAX: usize = 128;

/// Pause between two such calls for an app: after a broadcast there is a cursor to keep for every device, and the store
/// is also where unicasts wait to be appended.
const CURSORS_PAUSE: Duration = Duration::from_millis(4);

/// Apps whose cursors are saved side by side: one for which the store does not answer should not hold up the others, and
/// together they should stay a part of what the store does at once.
const APPS_MAX: usize = 8;

/// Cursors that may wait because they could not be saved: every device of a node many times over. One that is given up
/// costs a message that is sent again.
const CURSORS_WAITING_MAX: usize = 1_000_000;

/// Pause before a failed report is tried again, with as much again at random.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// Tries of the last report when the access point stops: then what is left is told again by the next session's acks.
const LAST_TRIES: usize = 8;

/// A fact about one entry and one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fact {
    Sent,
    Acked,
    Rejected,
}

/// Cursors of an app; in order, so that neighbours are written together.
type Cursors = BTreeMap<Ordinal, (Epoch, Cursor)>;

#[derive(Debug, Default)]
struct Gathered {
    receipts: HashMap<AppId, HashMap<MessageId, Receipt>>,
    cursors: HashMap<AppId, Cursors>,
    /// How many messages there are receipts of.
    messages: usize,
    facts: usize,
}

impl Gathered {
    /// About what is held of the facts. Those of one message share its bitmaps, also when nothing can be told for long.
    fn bytes(&self) -> usize {
        self.messages * MESSAGE_BYTES + self.facts * FACT_BYTES
    }

    fn publications(&self) -> Vec<Publication> {
        let mut publications = Vec::new();
        for (app, receipts) in &self.receipts {
            for receipts in parts(receipts.values()) {
                let batch = ReceiptBatch { app: app.clone(), receipts };
                publications.push(Publication { queue: Queue::Receipts, body: batch.encode().into() });
            }
        }
        publications
    }

    /// Takes a cursor back that could not be saved; a newer one may be here.
    fn put_back(&mut self, write: CursorWrite) {
        let CursorWrite { app, device, epoch, cursor } = write;
        let kept = self.cursors.entry(app).or_default().entry(device).or_insert_with(|| (epoch, cursor.clone()));
        if epoch > kept.0 {
            *kept = (epoch, cursor);
        }
    }

    fn cursor(&self, app: &AppId, device: Ordinal) -> Option<&Cursor> {
        self.cursors.get(app)?.get(&device).map(|(_, cursor)| cursor)
    }
}

#[derive(Debug, Default)]
struct State {
    gathering: Gathered,
    /// On its way; cursors are still looked up here.
    leaving: Arc<Gathered>,
}

/// What sessions have to tell.
#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    /// What is held of facts that are gathered or on their way, in bytes.
    unreported: AtomicUsize,
    full: Notify,
    /// Counts reports that went through.
    reports: watch::Sender<u64>,
    metrics: Metrics,
}

impl Outbox {
    pub(crate) fn new(metrics: Metrics) -> Self {
        let (state, full, reports) = (Mutex::default(), Notify::new(), watch::Sender::new(0));
        Self { state, unreported: AtomicUsize::new(0), full, reports, metrics }
    }

    /// Whether so much is unreported that nothing more should be sent to devices.
    pub(crate) fn is_full(&self) -> bool {
        self.unreported.load(Ordering::Relaxed) > UNREPORTED_MAX_BYTES
    }

    /// Tells facts about devices of an app.
    pub(crate) fn tell(&self, app: &AppId, facts: &[(Ordinal, MessageId, Fact)]) {
        let mut state = self.state.lock();
        let gathering = &mut state.gathering;
        let receipts = match gathering.receipts.get_mut(app) {
            Some(receipts) => receipts,
            None => gathering.receipts.entry(app.clone()).or_default(),
        };
        let (mut messages, mut new) = (0, 0);
        // What is told together is mostly about one message.
        for of_message in facts.chunk_by(|one, next| one.1 == next.1) {
            let message = of_message[0].1;
            let receipt = receipts.entry(message).or_insert_with(|| {
                messages += 1;
                Receipt::new(message)
            });
            for (device, _, fact) in of_message {
                let devices = match fact {
                    Fact::Sent => &mut receipt.sent,
                    Fact::Acked => &mut receipt.acked,
                    Fact::Rejected => &mut receipt.rejected,
                };
                new += usize::from(devices.insert(*device));
            }
        }
        gathering.messages += messages;
        gathering.facts += new;
        self.unreported.store(state.gathering.bytes() + state.leaving.bytes(), Ordering::Relaxed);
        if state.gathering.facts >= GATHER_MAX {
            self.full.notify_one();
        }
    }

    /// Takes over cursors of sessions, after the facts they cover.
    pub(crate) fn keep(&self, cursors: Vec<CursorWrite>) {
        let mut state = self.state.lock();
        for CursorWrite { app, device, epoch, cursor } in cursors {
            let kept = state.gathering.cursors.entry(app).or_default().entry(device).or_default();
            if epoch >= kept.0 {
                *kept = (epoch, cursor);
            }
        }
    }

    /// The cursor of a device that has not reached the store yet.
    pub(crate) fn cursor(&self, app: &AppId, device: Ordinal) -> Option<Cursor> {
        let state = self.state.lock();
        state.gathering.cursor(app, device).or_else(|| state.leaving.cursor(app, device)).cloned()
    }

    /// Returns when a device's cursor has reached the store, so that a session elsewhere goes on from there, or is given
    /// up.
    pub(crate) async fn kept(&self, app: &AppId, device: Ordinal) {
        let mut reports = self.reports.subscribe();
        while self.cursor(app, device).is_some() {
            if reports.changed().await.is_err() {
                return;
            }
        }
    }

    /// Reports until `done` is cancelled and everything is told, or cannot be.
    pub(crate) async fn run(&self, deps: &Deps, registry: &Registry, done: CancellationToken) {
        let (mut all_saved, mut last_tries) = (true, 0);
        loop {
            let pause = if all_saved { GATHER } else { retry_pause() };
            tokio::select! {
                () = time::sleep(pause) => {}
                () = self.full.notified() => {}
                () = done.cancelled(), if all_saved => {}
            }
            // Before it is taken: what is told while this leaves goes in another turn.
            let is_last = done.is_cancelled();
            let leaving = self.take();
            // Before any cursor: each covers facts that were told before it was taken over.
            if !self.publish(&leaving, deps, &done).await {
                error!(facts = leaving.facts, "stopping with receipts and cursors not told");
                return;
            }
            let unsaved = self.save(&leaving, deps, registry).await;
            let waiting = unsaved.len();
            all_saved = waiting == 0;
            self.conclude(unsaved);
            last_tries += usize::from(is_last);
            match (is_last, all_saved) {
                (true, true) => return,
                (true, false) if last_tries == LAST_TRIES => {
                    error!(cursors = waiting, "stopping with cursors not saved");
                    return;
                }
                (_, true) => {}
                (_, false) => warn!(cursors = waiting, "cursors must wait"),
            }
        }
    }

    fn take(&self) -> Arc<Gathered> {
        let mut state = self.state.lock();
        state.leaving = Arc::new(std::mem::take(&mut state.gathering));
        self.measure(&state);
        state.leaving.clone()
    }

    fn measure(&self, state: &State) {
        let facts = i64::try_from(state.gathering.facts + state.leaving.facts);
        self.metrics.unreported.set(facts.unwrap_or(i64::MAX));
    }

    /// Publishes receipts until all are confirmed; false when the access point stops and they still are not. What is told
    /// meanwhile gathers by message.
    async fn publish(&self, leaving: &Gathered, deps: &Deps, done: &CancellationToken) -> bool {
        let publications = leaving.publications();
        let mut tries = 0;
        for some in publications.chunks(BATCHES_MAX) {
            while let Err(error) = deps.broker.publish(some.to_vec()).await {
                tries += 1;
                if done.is_cancelled() && tries >= LAST_TRIES {
                    return false;
                }
                warn!(%error, "receipts must wait, and cursors with them");
                self.metrics.store_failures.inc();
                self.measure(&self.state.lock());
                time::sleep(retry_pause()).await;
            }
        }
        true
    }

    /// Saves cursors whose receipts are confirmed; gives those that must wait.
    async fn save(&self, leaving: &Gathered, deps: &Deps, registry: &Registry) -> Vec<CursorWrite> {
        let of_apps = leaving.cursors.iter();
        let apps: Vec<_> = of_apps.map(|(app, cursors)| self.save_app(writes(app, cursors), deps, registry)).collect();
        stream::iter(apps).buffer_unordered(APPS_MAX).concat().await
    }

    /// Saves cursors of one app, a few at a time, until the store takes none now; gives those that are left. What it will
    /// never take is found by halves and given up.
    async fn save_app(&self, writes: Vec<CursorWrite>, deps: &Deps, registry: &Registry) -> Vec<CursorWrite> {
        let mut parts: VecDeque<&[CursorWrite]> = writes.chunks(CURSORS_MAX).collect();
        while let Some(part) = parts.pop_front() {
            match deps.store.save_cursors(part.to_vec()).await {
                Ok(taken) => dismiss(part, &taken, registry),
                Err(error @ store::Error::Unavailable(_)) => {
                    debug!(app = %part[0].app, %error, "cursors of an app must wait");
                    self.metrics.store_failures.inc();
                    parts.push_front(part);
                    return parts.into_iter().flatten().cloned().collect();
                }
                Err(error) => match part {
                    [] => {}
                    [CursorWrite { app, device, .. }] => {
                        warn!(%app, device.ordinal = device.0, %error, "a cursor is given up");
                        self.metrics.cursors_lost.inc();
                    }
                    some => {
                        let (one, other) = some.split_at(some.len() / 2);
                        parts.push_front(other);
                        parts.push_front(one);
                    }
                },
            }
            if !parts.is_empty() {
                time::sleep(CURSORS_PAUSE).await;
            }
        }
        Vec::new()
    }

    /// What was on its way is told; the cursors that were not saved go with the next ones.
    fn conclude(&self, mut unsaved: Vec<CursorWrite>) {
        let mut state = self.state.lock();
        state.leaving = Arc::default();
        let gathered: usize = state.gathering.cursors.values().map(BTreeMap::len).sum();
        let room = CURSORS_WAITING_MAX.saturating_sub(gathered);
        self.metrics.cursors_lost.inc_by(unsaved.len().saturating_sub(room) as u64);
        unsaved.truncate(room);
        unsaved.into_iter().for_each(|write| state.gathering.put_back(write));
        self.unreported.store(state.gathering.bytes(), Ordering::Relaxed);
        drop(state);
        self.reports.send_modify(|reports| *reports += 1);
    }
}

fn retry_pause() -> Duration {
    RETRY_PAUSE.mul_f64(rand::random_range(1.0..2.0))
}

/// Receipts, as many together as travel in one batch.
fn parts<'a>(receipts: impl Iterator<Item = &'a Receipt>) -> Vec<Vec<Receipt>> {
    let (mut parts, mut part, mut bytes) = (Vec::new(), Vec::new(), 0);
    for receipt in receipts {
        let bitmaps = [&receipt.sent, &receipt.acked, &receipt.rejected].map(Ordinals::bytes_len);
        let more = RECEIPT_BYTES + bitmaps.iter().sum::<usize>();
        if bytes + more > BATCH_MAX_BYTES && !part.is_empty() {
            parts.push(std::mem::take(&mut part));
            bytes = 0;
        }
        bytes += more;
        part.push(receipt.clone());
    }
    parts.extend((!part.is_empty()).then_some(part));
    parts
}

fn writes(app: &AppId, cursors: &Cursors) -> Vec<CursorWrite> {
    let write = |(device, (epoch, cursor)): (&Ordinal, &(Epoch, Cursor))| CursorWrite {
        app: app.clone(),
        device: *device,
        epoch: *epoch,
        cursor: cursor.clone(),
    };
    cursors.iter().map(write).collect()
}

/// Ends the sessions whose cursors were not taken: a later one has told its own.
fn dismiss(writes: &[CursorWrite], taken: &[bool], registry: &Registry) {
    for (write, _) in writes.iter().zip(taken).filter(|(_, taken)| !**taken) {
        let session = registry.get(&write.app, write.device).filter(|handle| handle.epoch == write.epoch);
        session.inspect(|handle| handle.close(Close::TakenOver));
    }
}

#[cfg(test)]
mod tests;
