//! The newest entries of each app's timeline, read once for all sessions: with their audience, and with the packets
//! that sessions share. Sessions far behind read the store in pages instead; nothing is kept for them.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use model::{AppId, Message, MessageId, Ordinal, Ordinals, Seq, Stream, Timestamp};
use mqtt::{Coding, Encoded, Format, Version, wire};
use parking_lot::{Mutex, RwLock};
use store::{SharedStore, TimelineEntry};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::{
    packed::Packed,
    rung::{CANCELLED_MAX, Rung},
};

/// Entries kept of an app: a device that was away for a moment needs no read of the store.
const KEPT_MAX: usize = 1_000;

/// Entries that are shown to every session: more than a burst has.
const NEWEST_MAX: usize = 64;

/// Bytes of bodies and audiences kept of an app, however few entries that is.
const KEPT_MAX_BYTES: usize = 16 * 1024 * 1024;

/// How far back entries are read when the first device of an app comes: as long as a restart may take.
const WARM: Duration = Duration::from_hours(1);

/// How long a timeline is kept that no session holds: devices that come back soon find it.
const UNHELD_MAX: Duration = Duration::from_mins(5);

/// How long a head that a bell has told and the store does not know is looked for: longer than a Redis that was replaced
/// goes on answering. Later the store has forgotten it.
const MISSED: Duration = Duration::from_secs(10);

/// Entries read at once when a timeline has grown.
const REFRESH_PAGE: usize = 200;

/// Bytes that an entry is taken for besides its bodies and audience: names, properties, encoded heads.
const ENTRY_BYTES: usize = 2 * 1024;

/// A body is kept as it came, in the envelope, and packed in two ways that each come to less than half of it.
const BODIES: usize = 3;

/// An entry, shared by all sessions that send it.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) seq: Seq,
    pub(crate) message: Arc<Message>,
    audience: Arc<Ordinals>,
    cancelled: AtomicBool,
    /// Who still gets it after it was called back; nobody as long as that is not known.
    left: OnceLock<Arc<Ordinals>>,
    encoded: [OnceLock<Result<Encoded, wire::Error>>; 4],
    /// With the body packed; nothing where it is better sent as it is.
    packed: [OnceLock<Option<Encoded>>; Coding::ALL.len()],
}

impl Shared {
    fn new(entry: TimelineEntry) -> Arc<Self> {
        let left = if entry.cancelled { entry.audience.clone().into() } else { OnceLock::new() };
        Arc::new(Self {
            seq: entry.seq,
            message: entry.message,
            audience: entry.audience,
            cancelled: AtomicBool::new(entry.cancelled),
            left,
            encoded: Default::default(),
            packed: Default::default(),
        })
    }

    /// Whether a device is to have it: not any more when it was called back before it was sent.
    pub(crate) fn is_for(&self, device: Ordinal) -> bool {
        if self.cancelled.load(Ordering::Acquire) {
            return self.left.get().is_some_and(|left| left.contains(device));
        }
        self.audience.contains(device)
    }

    /// It was called back; `left` still get it, if that is known.
    fn cancel(&self, left: Option<Arc<Ordinals>>) {
        if let Some(left) = left {
            self.left.get_or_init(|| left);
        }
        self.cancelled.store(true, Ordering::Release);
    }

    /// The packet for devices of this version and format, encoded by the first that needs it.
    pub(crate) fn encoded(&self, version: Version, format: Format) -> Result<&Encoded, wire::Error> {
        let slot = &self.encoded[version as usize * 2 + format as usize];
        let encode = || Encoded::new(&self.message, Stream::Timeline, self.seq, version, format);
        slot.get_or_init(encode).as_ref().map_err(Clone::clone)
    }

    /// The same with the body packed; `None` when it is better sent as it is.
    pub(crate) fn packed(&self, coding: Coding, packed: &Packed) -> Option<&Encoded> {
        let encode = || packed.encoded(&self.message, Stream::Timeline, self.seq, coding)?.ok();
        self.packed[coding as usize].get_or_init(encode).as_ref()
    }

    fn bytes(&self) -> usize {
        self.message.payload.len() * BODIES + self.audience.bytes_len() + ENTRY_BYTES
    }
}

/// The newest entries of a timeline, as they were at some moment.
#[derive(Debug)]
pub(crate) struct Newest {
    /// Every entry after this one, up to `head`, is in `entries`.
    floor: Seq,
    pub(crate) head: Seq,
    entries: Vec<Arc<Shared>>,
}

impl Newest {
    /// All entries after `mark`; `None` when not all of them are here.
    pub(crate) fn after(&self, mark: Seq) -> Option<&[Arc<Shared>]> {
        let start = self.entries.partition_point(|entry| entry.seq <= mark);
        (mark >= self.floor).then(|| &self.entries[start..])
    }
}

#[derive(Debug)]
struct Kept {
    /// Every entry after this one, up to `head`, is in `entries`.
    floor: Seq,
    head: Seq,
    entries: VecDeque<Arc<Shared>>,
    bytes: usize,
    newest: Arc<Newest>,
}

impl Kept {
    fn new(start: Seq) -> Self {
        let newest = Arc::new(Newest { floor: start, head: start, entries: Vec::new() });
        Self { floor: start, head: start, entries: VecDeque::new(), bytes: 0, newest }
    }

    /// Shows sessions what is kept now.
    fn show(&mut self) {
        let older = self.entries.len().saturating_sub(NEWEST_MAX);
        let floor = older.checked_sub(1).map_or(self.floor, |last| self.entries[last].seq);
        let entries = self.entries.iter().skip(older).cloned().collect();
        self.newest = Arc::new(Newest { floor, head: self.head, entries });
    }

    fn push(&mut self, entry: Arc<Shared>) {
        self.head = entry.seq;
        self.bytes += entry.bytes();
        self.entries.push_back(entry);
        while self.entries.len() > KEPT_MAX || self.bytes > KEPT_MAX_BYTES {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= oldest.bytes();
            self.floor = oldest.seq;
        }
    }
}

/// Some entries after a mark.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) entries: Vec<Arc<Shared>>,
    /// When these are all there are: up to here nothing else stands in the timeline.
    pub(crate) complete_to: Option<Seq>,
}

/// The newest entries of one app's timeline.
pub(crate) struct Timeline {
    app: AppId,
    store: SharedStore,
    kept: Mutex<Kept>,
    /// Held while entries are read and added, and while one is cancelled: a cancel cannot fall between the two. In it is
    /// a head that could not be read up to, and until when it is looked for.
    reading: AsyncMutex<Option<(Seq, Instant)>>,
    /// What bells have told of it.
    pub(crate) rung: Rung,
}

impl Timeline {
    /// A timeline with its newest entries, up to what stands in the store now.
    async fn open(app: &AppId, store: &SharedStore, now: Timestamp) -> Result<Self, store::Error> {
        let head = store.timeline_head(app).await?;
        // Numbers grow with time, so this is where the entries of an hour ago stand.
        let start = Seq::ZERO.next(now - WARM).min(head);
        let (kept, reading) = (Mutex::new(Kept::new(start)), AsyncMutex::default());
        let timeline = Self { app: app.clone(), store: store.clone(), kept, reading, rung: Rung::default() };
        timeline.read_on(head, |_| {}).await?;
        Ok(timeline)
    }

    /// The last entry that is known here.
    pub(crate) fn head(&self) -> Seq {
        self.kept.lock().head
    }

    /// The newest entries: all that a session needs which is not far behind.
    pub(crate) fn newest(&self) -> Arc<Newest> {
        self.kept.lock().newest.clone()
    }

    /// At most `limit` entries after `mark`.
    pub(crate) async fn after(&self, mark: Seq, limit: usize) -> Result<Page, store::Error> {
        let known = {
            let kept = self.kept.lock();
            if mark >= kept.floor {
                let start = kept.entries.partition_point(|entry| entry.seq <= mark);
                let entries: Vec<_> = kept.entries.iter().skip(start).take(limit).cloned().collect();
                let complete_to = (start + entries.len() == kept.entries.len()).then_some(kept.head);
                return Ok(Page { entries, complete_to });
            }
            kept.head
        };
        let entries = self.store.timeline_after(&self.app, mark, limit).await?;
        let complete_to = (entries.len() < limit).then_some(known);
        Ok(Page { entries: entries.into_iter().map(Shared::new).collect(), complete_to })
    }

    /// Reads what was added up to `head`, which the store or a bell has told. Returns whom it is for, and whether that was
    /// all: the store may know of less, when it is one that was replaced. Then the next call reads as far as this one
    /// should have, whatever it is told.
    pub(crate) async fn refresh(&self, head: Seq) -> (Ordinals, Result<(), store::Error>) {
        let mut missed = self.reading.lock().await;
        let before = missed.filter(|(_, until)| Instant::now() < *until);
        let head = before.map_or(head, |(seq, _)| seq.max(head));
        let mut whom = Ordinals::new();
        let read = self.read_on(head, |entry| whom |= &entry.audience).await;
        *missed = match (&read, before) {
            (Ok(()), _) => None,
            (Err(_), Some((seq, until))) if seq == head => Some((seq, until)),
            (Err(_), _) => Some((head, Instant::now() + MISSED)),
        };
        (whom, read)
    }

    async fn read_on(&self, head: Seq, mut added: impl FnMut(&Shared)) -> Result<(), store::Error> {
        // What the store has said of its head before the page that is read: up to there a page leaves nothing out.
        let mut told = Seq::ZERO;
        loop {
            let known = self.head();
            if known >= head {
                return Ok(());
            }
            let page = self.store.timeline_after(&self.app, known, REFRESH_PAGE).await?;
            let complete = page.len() < REFRESH_PAGE;
            self.keep(page, complete.then_some(told), &mut added);
            if complete && self.head() < head {
                // Nothing stands there any more, or this store has not heard of it.
                told = self.store.timeline_head(&self.app).await?;
                if told < head {
                    return Err(store::Error::Unavailable(format!("it knows of nothing after {told:?}")));
                }
            }
        }
    }

    /// Adds entries, and shows sessions that these are all there are up to `complete_to`.
    fn keep(&self, entries: Vec<TimelineEntry>, complete_to: Option<Seq>, mut added: impl FnMut(&Shared)) {
        let mut kept = self.kept.lock();
        for entry in entries.into_iter().map(Shared::new) {
            added(&entry);
            kept.push(entry);
        }
        kept.head = kept.head.max(complete_to.unwrap_or_default());
        kept.show();
    }

    /// Looks again which of the kept entries were called back, in case a bell was lost.
    pub(crate) async fn look_again(&self) -> Result<(), store::Error> {
        let floor = self.kept.lock().floor;
        let cancelled = self.store.timeline_cancelled(&self.app, floor).await?;
        for some in cancelled.chunks(CANCELLED_MAX) {
            self.cancel(some).await;
        }
        Ok(())
    }

    /// Messages were called back. When the store cannot say whom one had been sent to, nobody gets it for now.
    pub(crate) async fn cancel(&self, messages: &[MessageId]) {
        let _reading = self.reading.lock().await;
        // Side by side: none of them may be sent for much longer.
        join_all(messages.iter().map(|message| self.call_back(*message))).await;
    }

    /// As if somebody read it, until what comes back is dropped.
    #[cfg(test)]
    pub(crate) async fn is_read(&self) -> tokio::sync::MutexGuard<'_, Option<(Seq, Instant)>> {
        self.reading.lock().await
    }

    async fn call_back(&self, message: MessageId) {
        let known = self.kept.lock().entries.iter().find(|entry| entry.message.id == message).cloned();
        // The same is told in every lane, and more than once.
        let Some(known) = known.filter(|known| known.left.get().is_none()) else { return };
        let read = self.store.timeline_after(&self.app, Seq(known.seq.0 - 1), 1).await.unwrap_or_default();
        let found = read.into_iter().find(|entry| entry.cancelled && entry.seq == known.seq);
        known.cancel(found.map(|entry| entry.audience));
    }
}

/// A timeline that is kept.
struct Open {
    timeline: Arc<Timeline>,
    /// When somebody was last found to hold it.
    held_at: Instant,
}

/// The timelines of the apps that have sessions here, or had lately.
pub(crate) struct Timelines {
    store: SharedStore,
    open: RwLock<HashMap<AppId, Open>>,
    /// Held, by app, while one is opened: devices of an app come in crowds.
    opening: Mutex<HashMap<AppId, Arc<AsyncMutex<()>>>>,
}

impl Timelines {
    pub(crate) fn new(store: SharedStore) -> Self {
        Self { store, open: RwLock::default(), opening: Mutex::default() }
    }

    /// The timeline of an app, if one of its devices was here lately.
    pub(crate) fn get(&self, app: &AppId) -> Option<Arc<Timeline>> {
        self.open.read().get(app).map(|open| open.timeline.clone())
    }

    /// Lets go of the timelines that no session has held for a while.
    pub(crate) fn let_go(&self, now: Instant) {
        self.open.write().retain(|_, open| {
            // Every session holds its own from before its first look, and got it under this lock: none can come in between,
            // and then follow a timeline that nobody reads on.
            if Arc::strong_count(&open.timeline) > 1 {
                open.held_at = now;
            }
            now < open.held_at + UNHELD_MAX
        });
        self.opening.lock().retain(|_, turn| Arc::strong_count(turn) > 1);
    }

    /// Waits for whoever else opens the timeline of an app; nobody does while this is held.
    pub(crate) async fn turn(&self, app: &AppId) -> OwnedMutexGuard<()> {
        let turn = self.opening.lock().entry(app.clone()).or_default().clone();
        turn.lock_owned().await
    }

    /// Makes the timeline of an app known here, in a [`turn`](Self::turn). A bell that rang before was not heard: look once
    /// more after this.
    pub(crate) async fn open(&self, app: &AppId, now: Timestamp) -> Result<Arc<Timeline>, store::Error> {
        let timeline = Arc::new(Timeline::open(app, &self.store, now).await?);
        let open = Open { timeline: timeline.clone(), held_at: Instant::now() };
        self.open.write().insert(app.clone(), open);
        Ok(timeline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_timeline_goes_when_no_session_has_held_it_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine::Engine::open(dir.path()).unwrap();
        let timelines = Timelines::new(store::embedded::Embedded::open(engine).unwrap());
        let (app, begun) = ("demo".parse().unwrap(), Instant::now());
        let now = Timestamp::from_millis(1_800_000_000_000);
        let held = timelines.open(&app, now).await.unwrap();
        let left = begun + UNHELD_MAX * 2;
        timelines.let_go(left);
        assert!(Arc::ptr_eq(&timelines.get(&app).unwrap(), &held), "a session has it");
        drop(held);
        timelines.let_go(left + UNHELD_MAX / 2);
        assert!(timelines.get(&app).is_some(), "its device may come back");
        timelines.let_go(left + UNHELD_MAX);
        assert!(timelines.get(&app).is_none());
        timelines.open(&app, now).await.unwrap();
        assert!(timelines.get(&app).is_some(), "the next device brings it again");
    }
}
