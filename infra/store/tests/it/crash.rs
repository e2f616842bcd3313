//! Whatever was confirmed is there after the process was killed, and nothing is there by halves.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::process::ExitStatusExt as _,
    sync::Arc,
};

use engine::Engine;
use model::{Cursor, Epoch, Ordinal, Position, Seq};
use store::{
    Appended, CursorWrite, Cursors as _, Inbox as _, Messages as _, Receipts as _, Timeline as _, embedded::Embedded,
};

use crate::{
    child,
    make::{NOW, app, message, set, to_inboxes, to_timeline},
    place::Directory,
};

const WRITERS: u32 = 8;

/// Each round, the child goes on with numbers of its own.
const ROUND: u32 = 1_000_000;

/// The two devices of a message: so many that no inbox fills up.
fn devices(n: u32) -> [u32; 2] {
    [n / 50 * 2, n / 50 * 2 + 1]
}

#[tokio::test]
async fn what_was_confirmed_outlives_kill_nine() {
    let place = Directory::new();
    let mut confirmed = Confirmed::default();
    for (round, kill_after) in [40, 700, 1, 300].into_iter().enumerate() {
        std::fs::write(place.path().join("round"), round.to_string()).unwrap();
        let (mut child, told) = child::start("crash::write_until_killed", place.path());
        for (count, line) in told.enumerate() {
            confirmed.note(&line);
            if count == kill_after {
                child.kill().unwrap();
            }
        }
        assert_eq!(child.wait().unwrap().signal(), Some(9), "it was killed, at work");
        confirmed.check(&Embedded::open(place.engine()).unwrap()).await;
    }
}

/// The parent's own record of what the child was told.
#[derive(Default)]
struct Confirmed {
    inbox: BTreeSet<u32>,
    timeline: BTreeSet<u32>,
    cursors: BTreeMap<u32, u64>,
}

impl Confirmed {
    fn note(&mut self, line: &str) {
        let mut words = line.split(' ');
        let (kind, first) = (words.next().unwrap(), words.next().unwrap().parse().unwrap());
        match kind {
            "inbox" => assert!(self.inbox.insert(first)),
            "timeline" => assert!(self.timeline.insert(first)),
            _ => drop(self.cursors.insert(first, words.next().unwrap().parse().unwrap())),
        }
    }

    async fn check(&self, store: &Embedded) {
        for n in &self.inbox {
            let [one, other] = devices(*n);
            let both = (entries(store, one).await, entries(store, other).await);
            assert!(both.0.contains(n) && both.1.contains(n), "message {n} was confirmed");
            assert_eq!(both.0, both.1, "a message is in both inboxes or in none");
            self.check_message(store, *n).await;
        }
        let mut listed = BTreeSet::new();
        let mut mark = Seq::ZERO;
        loop {
            let page = store.timeline_after(&app(), mark, 500).await.unwrap();
            let Some(last) = page.last() else { break };
            mark = last.seq;
            listed.extend(page.iter().map(|entry| entry.message.trace.trace_id as u32 - 1));
        }
        assert!(self.timeline.is_subset(&listed));
        assert!(store.timeline_head(&app()).await.unwrap() >= mark);
        for n in &listed {
            self.check_message(store, *n).await;
        }
        for (device, prefix) in &self.cursors {
            let cursor = store.cursor(&app(), Ordinal(*device)).await.unwrap();
            assert!(cursor.inbox.prefix >= Seq(*prefix));
        }
    }

    async fn check_message(&self, store: &Embedded, n: u32) {
        let id = message(n).id;
        assert!(store.entry(&app(), id).await.unwrap().unwrap().dispatched_at.is_some());
        assert_eq!(store.tally(&app(), id).await.unwrap().unwrap().targeted, set(devices(n)));
    }
}

async fn entries(store: &Embedded, device: u32) -> BTreeSet<u32> {
    let entries = store.inbox_after(&app(), Ordinal(device), Seq::ZERO, usize::MAX).await.unwrap();
    assert!(entries.is_sorted_by(|a, b| a.seq < b.seq));
    entries.iter().map(|entry| entry.message.trace.trace_id as u32 - 1).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the process that is killed"]
async fn write_until_killed() {
    let dir = child::dir();
    let round: u32 = std::fs::read_to_string(dir.join("round")).unwrap().parse().unwrap();
    let store = Embedded::open(Engine::open(&dir).unwrap()).unwrap();
    let writers = (0..WRITERS).map(|writer| tokio::spawn(write(Arc::clone(&store), round * ROUND + writer)));
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}

async fn write(store: Arc<Embedded>, start: u32) {
    for n in (start..start + ROUND / 2).step_by(WRITERS as usize) {
        if n % 3 == 0 {
            let append = to_timeline(message(n), set(devices(n)));
            assert_eq!(store.append_timeline(vec![append], NOW).await.unwrap(), [Appended::New]);
            child::tell(format_args!("timeline {n}"));
        } else {
            let append = to_inboxes(message(n), set(devices(n)));
            assert_eq!(store.append_inbox(vec![append], NOW).await.unwrap(), [Appended::New]);
            child::tell(format_args!("inbox {n}"));
        }
        let device = u32::MAX - start % ROUND;
        let cursor = Cursor::at(Position { inbox: Seq(n.into()), timeline: Seq::ZERO });
        let write = CursorWrite { app: app(), device: Ordinal(device), epoch: Epoch(1), cursor };
        assert_eq!(store.save_cursors(vec![write]).await.unwrap(), [true]);
        child::tell(format_args!("cursor {device} {n}"));
    }
}
