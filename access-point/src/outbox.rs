//! What sessions have to tell: receipts for the funnel, cursors for the next session. Gathered for a moment and sent
//! in batches, receipts first: a crash between the two repeats a message, and the funnel still balances.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use broker::Publication;
use model::{AppId, Cursor, Epoch, MessageId, Ordinal, Queue, Receipt, ReceiptBatch, record::Record as _};
use parking_lot::Mutex;
use store::CursorWrite;
use tokio::{
    sync::{Notify, watch},
    time,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::{Deps, close::Close, metrics::Metrics, registry::Registry};

/// How long facts are gathered: short beside a person's patience, long beside a group commit. A cursor that moves
/// several times meanwhile is written once.
const GATHER: Duration = Duration::from_millis(200);

/// Facts that end the gathering early: more than a broadcast to all devices of a node makes, so that none of its devices
/// waits for cursors of others to be written.
const GATHER_MAX: usize = 100_000;

/// Unreported facts beyond which sessions stop sending: about a minute of a busy node while the broker is away.
const UNREPORTED_MAX: usize = 1_000_000;

/// Messages in one batch of receipts: keeps a publication well below what a broker takes.
const BATCH_MESSAGES_MAX: usize = 2_000;

/// Cursors in one call of the store: appends of unicasts wait for no more than this many at a time.
const CURSORS_MAX: usize = 128;

/// Pause between two such calls: after a broadcast there is a cursor to keep for every device, and the store is also
/// where unicasts wait to be appended.
const CURSORS_PAUSE: Duration = Duration::from_millis(4);

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

#[derive(Debug, Default)]
struct Gathered {
    receipts: HashMap<AppId, HashMap<MessageId, Receipt>>,
    /// In order, so that neighbours are written together.
    cursors: HashMap<AppId, BTreeMap<Ordinal, (Epoch, Cursor)>>,
    facts: usize,
}

impl Gathered {
    fn publications(&self) -> Vec<Publication> {
        let mut publications = Vec::new();
        for (app, receipts) in &self.receipts {
            let receipts: Vec<Receipt> = receipts.values().cloned().collect();
            for part in receipts.chunks(BATCH_MESSAGES_MAX) {
                let batch = ReceiptBatch { app: app.clone(), receipts: part.to_vec() };
                publications.push(Publication { queue: Queue::Receipts, body: batch.encode().into() });
            }
        }
        publications
    }

    fn writes(&self) -> Vec<CursorWrite> {
        let of_app = |(app, cursors): (&AppId, &BTreeMap<_, (Epoch, Cursor)>)| {
            let write = |(device, (epoch, cursor)): (&Ordinal, &(Epoch, Cursor))| CursorWrite {
                app: app.clone(),
                device: *device,
                epoch: *epoch,
                cursor: cursor.clone(),
            };
            cursors.iter().map(write).collect::<Vec<_>>()
        };
        self.cursors.iter().flat_map(of_app).collect()
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
    /// How many facts are gathered or on their way.
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
        self.unreported.load(Ordering::Relaxed) > UNREPORTED_MAX
    }

    /// Tells facts about devices of an app.
    pub(crate) fn tell(&self, app: &AppId, facts: &[(Ordinal, MessageId, Fact)]) {
        let mut state = self.state.lock();
        let gathering = &mut state.gathering;
        let receipts = match gathering.receipts.get_mut(app) {
            Some(receipts) => receipts,
            None => gathering.receipts.entry(app.clone()).or_default(),
        };
        // What is told together is mostly about one message.
        for of_message in facts.chunk_by(|one, next| one.1 == next.1) {
            let message = of_message[0].1;
            let receipt = receipts.entry(message).or_insert_with(|| Receipt::new(message));
            for (device, _, fact) in of_message {
                let devices = match fact {
                    Fact::Sent => &mut receipt.sent,
                    Fact::Acked => &mut receipt.acked,
                    Fact::Rejected => &mut receipt.rejected,
                };
                devices.insert(*device);
            }
        }
        gathering.facts += facts.len();
        self.unreported.store(gathering.facts + state.leaving.facts, Ordering::Relaxed);
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

    /// Returns when a device's cursor has reached the store, so that a session elsewhere goes on from there.
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
        loop {
            tokio::select! {
                () = time::sleep(GATHER) => {}
                () = self.full.notified() => {}
                () = done.cancelled() => {}
            }
            // Before it is taken: what is told while this leaves goes in another turn.
            let is_last = done.is_cancelled();
            let leaving = self.take();
            let told = self.insist(&done, || publish(&leaving, deps)).await
                && self.insist(&done, || save(&leaving, deps, registry)).await;
            if !told {
                error!(facts = leaving.facts, "stopping with receipts and cursors not told");
                return;
            }
            let mut state = self.state.lock();
            state.leaving = Arc::default();
            self.unreported.store(state.gathering.facts, Ordering::Relaxed);
            drop(state);
            self.reports.send_modify(|reports| *reports += 1);
            if is_last {
                return;
            }
        }
    }

    /// Tries until it works; false when the access point stops and it still does not.
    async fn insist<F>(&self, done: &CancellationToken, report: impl Fn() -> F) -> bool
    where
        F: Future<Output = Result<(), String>>,
    {
        let mut tries = 0;
        while let Err(problem) = report().await {
            tries += 1;
            if done.is_cancelled() && tries >= LAST_TRIES {
                return false;
            }
            warn!(problem, "receipts and cursors must wait");
            self.metrics.store_failures.inc();
            time::sleep(RETRY_PAUSE.mul_f64(rand::random_range(1.0..2.0))).await;
        }
        true
    }

    fn take(&self) -> Arc<Gathered> {
        let mut state = self.state.lock();
        state.leaving = Arc::new(std::mem::take(&mut state.gathering));
        let facts = i64::try_from(state.leaving.facts).unwrap_or(i64::MAX);
        self.metrics.unreported.set(facts);
        state.leaving.clone()
    }
}

async fn publish(leaving: &Gathered, deps: &Deps) -> Result<(), String> {
    let publications = leaving.publications();
    if publications.is_empty() {
        return Ok(());
    }
    deps.broker.publish(publications).await.map_err(|error| error.to_string())
}

async fn save(leaving: &Gathered, deps: &Deps, registry: &Registry) -> Result<(), String> {
    for (at, writes) in leaving.writes().chunks(CURSORS_MAX).enumerate() {
        if at > 0 {
            time::sleep(CURSORS_PAUSE).await;
        }
        let taken = deps.store.save_cursors(writes.to_vec()).await.map_err(|error| error.to_string())?;
        for (write, _) in writes.iter().zip(taken).filter(|(_, taken)| !taken) {
            let session = registry.get(&write.app, write.device).filter(|handle| handle.epoch == write.epoch);
            session.inspect(|handle| handle.close(Close::TakenOver));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use broker::{SharedBroker, contract::Flaky, embedded::Embedded};
    use engine::Engine;
    use model::{Clock as _, SystemClock};
    use prometheus_client::registry::Registry as Measured;

    use super::*;

    #[tokio::test]
    async fn what_is_told_while_a_report_leaves_is_told_before_the_end() {
        let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::new(SystemClock));
        let engine = Engine::open(dir.path()).unwrap();
        let broker: SharedBroker =
            Embedded::open(engine.clone(), clock.clone(), broker::embedded::Limits::default()).unwrap();
        // The second report fails at first.
        let broker = Arc::new(Flaky::new(broker, 2));
        let deps = Deps { broker, store: store::embedded::Embedded::open(engine).unwrap(), clock };
        let outbox = Outbox::new(Metrics::new(&mut Measured::default()));
        let (registry, done, app) = (Registry::default(), CancellationToken::new(), "demo".parse().unwrap());
        let tell = |n| outbox.tell(&app, &[(Ordinal(1), MessageId::new(SystemClock.now(), n), Fact::Acked)]);
        let mut reports = outbox.reports.subscribe();
        let told = async {
            tell(1);
            reports.changed().await.unwrap();
            tell(2);
            // Long enough to be seen here: the second report is tried again.
            while outbox.state.lock().leaving.facts == 0 {
                time::sleep(Duration::from_millis(1)).await;
            }
            tell(3);
            done.cancel();
        };
        tokio::join!(outbox.run(&deps, &registry, done.clone()), told);
        assert_eq!(outbox.state.lock().gathering.facts, 0);
    }
}
