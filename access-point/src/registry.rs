//! Who is connected here: the truth about it. At most one session of a device, the one with the greatest epoch.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
};

use model::{AppId, Epoch, Message, Ordinal, Seq, Stream, Timestamp};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::close::Close;

/// Locks of an app's sessions: enough that bells and connects rarely meet at one.
const SHARDS: u32 = 64;

/// Entries that wait for a session to wake up: as many as may be rung in that time, and little to hold.
const HANDED_MAX: usize = 4;

/// An entry of a device's inbox, handed over by a bell.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) message: Arc<Message>,
    /// The last number that was given in the inbox before.
    pub(crate) before: Seq,
    pub(crate) seq: Seq,
    /// When the bell was rung.
    pub(crate) at: Timestamp,
}

/// How a session is reached from outside its task.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) app: AppId,
    pub(crate) ordinal: Ordinal,
    pub(crate) epoch: Epoch,
    pub(crate) generation: u32,
    wake: Notify,
    rung: AtomicU8,
    handed: Mutex<Vec<Entry>>,
    order: OnceLock<Close>,
    marks: [AtomicU64; 2],
    inbox_head: AtomicU64,
    gone: CancellationToken,
}

impl Handle {
    pub(crate) fn new(app: AppId, ordinal: Ordinal, epoch: Epoch, generation: u32) -> Self {
        Self {
            app,
            ordinal,
            epoch,
            generation,
            wake: Notify::new(),
            rung: AtomicU8::new(0),
            handed: Mutex::default(),
            order: OnceLock::new(),
            marks: Default::default(),
            inbox_head: AtomicU64::new(0),
            gone: CancellationToken::new(),
        }
    }

    /// Wakes the session to look for entries of a stream.
    pub(crate) fn ring(&self, stream: Stream) {
        self.rung.fetch_or(1 << stream as u8, Ordering::AcqRel);
        self.wake.notify_one();
    }

    /// Hands the session an entry of its inbox, or wakes it to look when too many wait.
    pub(crate) fn hand(&self, entry: Entry) {
        let mut handed = self.handed.lock();
        if handed.len() >= HANDED_MAX {
            drop(handed);
            return self.ring(Stream::Inbox);
        }
        handed.push(entry);
        drop(handed);
        self.wake.notify_one();
    }

    /// What was handed over since the last call, in the order of the bells.
    pub(crate) fn handed(&self) -> Vec<Entry> {
        std::mem::take(&mut self.handed.lock())
    }

    /// Which streams were rung since the last call.
    pub(crate) fn heard(&self) -> [bool; 2] {
        let rung = self.rung.swap(0, Ordering::AcqRel);
        [Stream::Inbox, Stream::Timeline].map(|stream| rung & (1 << stream as u8) != 0)
    }

    /// Tells the session to go; the first order counts.
    pub(crate) fn close(&self, why: Close) {
        let _ = self.order.set(why);
        self.wake.notify_one();
    }

    /// Why the session was told to go.
    pub(crate) fn order(&self) -> Option<Close> {
        self.order.get().cloned()
    }

    /// Returns when something was rung or ordered since the last time.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// The session says how far it is.
    pub(crate) fn set_mark(&self, stream: Stream, mark: Seq) {
        self.marks[stream as usize].store(mark.0, Ordering::Relaxed);
    }

    /// How far the session last said it was.
    pub(crate) fn mark(&self, stream: Stream) -> Seq {
        Seq(self.marks[stream as usize].load(Ordering::Relaxed))
    }

    /// Notes the head of the device's inbox, as the store told it.
    pub(crate) fn note_inbox_head(&self, head: Seq) {
        self.inbox_head.fetch_max(head.0, Ordering::AcqRel);
    }

    /// The greatest head of the inbox that was noted.
    pub(crate) fn inbox_head(&self) -> Seq {
        Seq(self.inbox_head.load(Ordering::Acquire))
    }

    /// Says that the session has told all it knows and is over.
    pub(crate) fn set_gone(&self) {
        self.gone.cancel();
    }

    /// Returns when the session is over.
    pub(crate) async fn gone(&self) {
        self.gone.cancelled().await;
    }
}

type Shard = Mutex<HashMap<Ordinal, Arc<Handle>>>;

/// The sessions of one app.
#[derive(Debug)]
struct Sessions(Vec<Shard>);

impl Sessions {
    fn shard(&self, ordinal: Ordinal) -> &Shard {
        &self.0[(ordinal.0 % SHARDS) as usize]
    }
}

/// What happened to a session that wanted to enter.
#[derive(Debug)]
pub(crate) enum Entered {
    /// It is the one session of its device now; the one before must go.
    Here(Option<Arc<Handle>>),
    /// A newer one is there already.
    Late,
}

/// Every session of this access point.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    apps: RwLock<HashMap<AppId, Arc<Sessions>>>,
}

impl Registry {
    /// Enters a session, in the place of an older one of its device.
    pub(crate) fn enter(&self, handle: &Arc<Handle>) -> Entered {
        let sessions = self.of(&handle.app).unwrap_or_else(|| self.open(&handle.app));
        let mut shard = sessions.shard(handle.ordinal).lock();
        if shard.get(&handle.ordinal).is_some_and(|there| there.epoch > handle.epoch) {
            return Entered::Late;
        }
        Entered::Here(shard.insert(handle.ordinal, handle.clone()))
    }

    /// Takes a session out, unless a newer one has taken its place.
    pub(crate) fn leave(&self, handle: &Handle) {
        let Some(sessions) = self.of(&handle.app) else { return };
        let mut shard = sessions.shard(handle.ordinal).lock();
        if shard.get(&handle.ordinal).is_some_and(|there| there.epoch == handle.epoch) {
            shard.remove(&handle.ordinal);
        }
    }

    /// The session of a device.
    pub(crate) fn get(&self, app: &AppId, device: Ordinal) -> Option<Arc<Handle>> {
        self.of(app)?.shard(device).lock().get(&device).cloned()
    }

    /// The sessions of an app as they are now.
    pub(crate) fn sessions(&self, app: &AppId) -> Vec<Arc<Handle>> {
        let Some(sessions) = self.of(app) else { return Vec::new() };
        sessions.0.iter().flat_map(|shard| shard.lock().values().cloned().collect::<Vec<_>>()).collect()
    }

    /// The apps that ever had a session here.
    pub(crate) fn apps(&self) -> Vec<AppId> {
        self.apps.read().keys().cloned().collect()
    }

    fn of(&self, app: &AppId) -> Option<Arc<Sessions>> {
        self.apps.read().get(app).cloned()
    }

    fn open(&self, app: &AppId) -> Arc<Sessions> {
        let new = || Arc::new(Sessions((0..SHARDS).map(|_| Shard::default()).collect()));
        self.apps.write().entry(app.clone()).or_insert_with(new).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle(epoch: u64) -> Arc<Handle> {
        Arc::new(Handle::new("demo".parse().unwrap(), Ordinal(7), Epoch(epoch), 0))
    }

    #[test]
    fn the_newest_session_stays_whoever_comes_and_goes() {
        let registry = Registry::default();
        let (old, new) = (handle(1), handle(2));
        assert!(matches!(registry.enter(&old), Entered::Here(None)));
        assert!(matches!(registry.enter(&new), Entered::Here(Some(before)) if before.epoch == Epoch(1)));
        assert!(matches!(registry.enter(&old), Entered::Late));
        registry.leave(&old);
        assert_eq!(registry.get(&new.app, Ordinal(7)).unwrap().epoch, Epoch(2));
        registry.leave(&new);
        assert!(registry.get(&new.app, Ordinal(7)).is_none());
    }

    #[test]
    fn a_ring_is_heard_once_and_the_first_order_counts() {
        let handle = handle(1);
        handle.ring(Stream::Timeline);
        handle.ring(Stream::Timeline);
        assert_eq!(handle.heard(), [false, true]);
        assert_eq!(handle.heard(), [false, false]);
        handle.close(Close::TakenOver);
        handle.close(Close::ShuttingDown);
        assert_eq!(handle.order(), Some(Close::TakenOver));
    }
}
