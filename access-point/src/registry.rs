//! Who is connected here: the truth about it. At most one session of a device, the one with the greatest epoch.

use std::{
    collections::HashMap,
    ptr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use model::{AppId, Epoch, Message, Ordinal, Seq, Stream, Timestamp};
use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;

use crate::{
    close::Close,
    worker::{Mailbox, Seat},
};

/// Locks of an app's sessions: enough that bells and connects rarely meet at one.
const SHARDS: u32 = 64;

/// Entries that wait for a session's turn: as many as may be rung in that time, and little to hold.
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

/// What a session was told since it last looked.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// The streams, by number, that were rung.
    pub(crate) rung: [bool; 2],
    /// Entries, in the order of the bells.
    pub(crate) handed: Vec<Entry>,
    /// To go, and why; the first order counts.
    pub(crate) order: Option<Close>,
}

#[derive(Debug, Default)]
struct Post {
    told: Told,
    /// Where its worker keeps the session, once it does.
    seat: Option<Seat>,
    /// Whether its worker was called and has not come.
    called: bool,
    gone: bool,
    /// Who waits for the session's end.
    waits: Option<oneshot::Sender<()>>,
}

/// How a session is reached from outside its worker.
pub(crate) struct Handle {
    pub(crate) app: AppId,
    pub(crate) ordinal: Ordinal,
    pub(crate) epoch: Epoch,
    /// That of its token.
    generation: u32,
    mailbox: Arc<Mailbox>,
    post: Mutex<Post>,
    marks: [AtomicU64; 2],
    inbox_head: AtomicU64,
}

impl Handle {
    pub(crate) fn new(app: AppId, ordinal: Ordinal, epoch: Epoch, generation: u32, mailbox: Arc<Mailbox>) -> Self {
        let (post, marks, inbox_head) = Default::default();
        Self { app, ordinal, epoch, generation, mailbox, post, marks, inbox_head }
    }

    /// Has the session look for entries of a stream.
    pub(crate) fn ring(&self, stream: Stream) {
        self.tell(|told| told.rung[stream as usize] = true);
    }

    /// Hands the session an entry of its inbox, or has it look when too many wait.
    pub(crate) fn hand(&self, entry: Entry) {
        self.tell(|told| match told.handed.len() {
            ..HANDED_MAX => told.handed.push(entry),
            _ => told.rung[Stream::Inbox as usize] = true,
        });
    }

    /// Tells the session to go; the first order counts.
    pub(crate) fn close(&self, why: Close) {
        self.tell(|told| {
            told.order.get_or_insert(why);
        });
    }

    /// Tells the session to go if its token is of an older generation than this one.
    pub(crate) fn revoke(&self, generation: u32) {
        if self.generation < generation {
            self.close(Close::Revoked);
        }
    }

    /// Whether the session was told to go and has not heard it.
    pub(crate) fn is_leaving(&self) -> bool {
        self.post.lock().told.order.is_some()
    }

    fn tell(&self, tell: impl FnOnce(&mut Told)) {
        let mut post = self.post.lock();
        tell(&mut post.told);
        let seat = post.seat.filter(|_| !post.called);
        post.called |= seat.is_some();
        drop(post);
        seat.into_iter().for_each(|seat| self.mailbox.call(seat));
    }

    /// From now on its worker is called to this seat when the session is told something.
    pub(crate) fn seated(&self, seat: Seat) {
        self.post.lock().seat = Some(seat);
    }

    /// What the session was told since the last look.
    pub(crate) fn told(&self) -> Told {
        let mut post = self.post.lock();
        post.called = false;
        std::mem::take(&mut post.told)
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

    /// Its worker, to which the session's connection goes.
    pub(crate) fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// Says that the session has told all it knows and is over.
    pub(crate) fn set_gone(&self) {
        let mut post = self.post.lock();
        (post.gone, post.seat, post.waits) = (true, None, None);
    }

    /// Returns when the session is over, or when somebody else waits for it, who came later.
    pub(crate) async fn gone(&self) {
        let over = {
            let mut post = self.post.lock();
            let (waits, over) = oneshot::channel();
            post.waits = (!post.gone).then_some(waits);
            over
        };
        let _ = over.await;
    }
}

type Shard = Mutex<HashMap<Ordinal, Arc<Handle>>>;

/// The sessions of one app.
struct Sessions(Vec<Shard>);

impl Sessions {
    fn shard(&self, ordinal: Ordinal) -> &Shard {
        &self.0[(ordinal.0 % SHARDS) as usize]
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|shard| shard.lock().is_empty())
    }
}

/// What happened to a session that wanted to enter.
pub(crate) enum Entered {
    /// It is the one session of its device now; the one before must go.
    Here(Option<Arc<Handle>>),
    /// A newer one is there already.
    Late,
}

/// Every session of this access point.
#[derive(Default)]
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
        // Not by its epoch: while routes are gone, two that came in the same millisecond have one.
        if shard.get(&handle.ordinal).is_some_and(|there| ptr::eq(&**there, handle)) {
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

    /// Whether an app has any session now.
    pub(crate) fn has_sessions(&self, app: &AppId) -> bool {
        self.of(app).is_some_and(|sessions| !sessions.is_empty())
    }

    /// The apps that have a session here, and some that had.
    pub(crate) fn apps(&self) -> Vec<AppId> {
        self.apps.read().keys().cloned().collect()
    }

    /// Forgets apps without sessions, except those to be kept.
    pub(crate) fn let_go(&self, keep: impl Fn(&AppId) -> bool) {
        self.apps.write().retain(|app, sessions| {
            // Whoever is about to enter holds them, and got them under this lock.
            Arc::strong_count(sessions) > 1 || !sessions.is_empty() || keep(app)
        });
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
        Arc::new(Handle::new("demo".parse().unwrap(), Ordinal(7), Epoch(epoch), 0, Arc::default()))
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
    fn an_app_is_forgotten_when_its_sessions_are_gone_and_nothing_is_kept_of_it() {
        let (registry, session) = (Registry::default(), handle(1));
        registry.enter(&session);
        registry.let_go(|_| false);
        assert!(registry.get(&session.app, Ordinal(7)).is_some());
        registry.leave(&session);
        registry.let_go(|app| *app == session.app);
        assert_eq!(registry.apps(), std::slice::from_ref(&session.app));
        let about_to_enter = registry.of(&session.app);
        registry.let_go(|_| false);
        assert_eq!(registry.apps(), std::slice::from_ref(&session.app));
        drop(about_to_enter);
        registry.let_go(|_| false);
        assert!(registry.apps().is_empty());
        registry.enter(&session);
        assert!(registry.get(&session.app, Ordinal(7)).is_some());
    }

    #[test]
    fn a_ring_is_heard_once_and_the_first_order_counts() {
        let handle = handle(1);
        handle.ring(Stream::Timeline);
        handle.ring(Stream::Timeline);
        assert_eq!(handle.told().rung, [false, true]);
        assert_eq!(handle.told().rung, [false, false]);
        handle.close(Close::TakenOver);
        handle.close(Close::ShuttingDown);
        assert_eq!(handle.told().order, Some(Close::TakenOver));
    }
}
