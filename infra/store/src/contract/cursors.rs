//! What [`Cursors`](crate::Cursors) promises.

use model::{Cursor, Epoch, Ordinal, Progress, Seq};

use super::{NOW, Place, demo, demo_2, message, set, to_inboxes};
use crate::CursorWrite;

fn write(device: u32, epoch: u64, inbox: Progress, timeline: Progress) -> CursorWrite {
    let cursor = Cursor { inbox, timeline };
    CursorWrite { app: demo(), device: Ordinal(device), epoch: Epoch(epoch), cursor }
}

fn progress(prefix: u64, beyond: &[u64], sent: u64) -> Progress {
    Progress { prefix: Seq(prefix), beyond: beyond.iter().copied().map(Seq).collect(), sent: Seq(sent) }
}

/// A device of which nothing was kept begins at the start of both streams.
pub async fn a_cursor_starts_at_the_beginning(place: &mut dyn Place) {
    let store = place.open().await;
    assert_eq!(store.cursor(&demo(), Ordinal(7)).await.unwrap(), Cursor::default());
}

/// What was saved is read back as it was, also after a restart, and only for its device and app.
pub async fn a_saved_cursor_outlives_a_restart(place: &mut dyn Place) {
    let store = place.open().await;
    let first = write(1, 5, progress(10, &[12, 14], 15), progress(20, &[], 23));
    let second = write(2, 5, progress(0, &[], 0), progress(9, &[11], 11));
    assert_eq!(store.save_cursors(vec![first.clone(), second.clone()]).await.unwrap(), [true, true]);
    drop(store);
    let store = place.open().await;
    assert_eq!(store.cursor(&demo(), Ordinal(1)).await.unwrap(), first.cursor);
    assert_eq!(store.cursor(&demo(), Ordinal(2)).await.unwrap(), second.cursor);
    assert_eq!(store.cursor(&demo_2(), Ordinal(1)).await.unwrap(), Cursor::default());
}

/// A write of an older session is refused and changes nothing; the same session and later ones are taken.
pub async fn an_older_session_is_refused(place: &mut dyn Place) {
    let store = place.open().await;
    let newer = write(1, 8, progress(10, &[], 10), progress(0, &[], 0));
    let older = write(1, 7, progress(99, &[], 99), progress(99, &[], 99));
    let other = write(2, 1, progress(1, &[], 1), progress(0, &[], 0));
    let taken = store.save_cursors(vec![newer.clone(), older.clone(), other]).await.unwrap();
    assert_eq!(taken, [true, false, true]);
    assert_eq!(store.save_cursors(vec![older]).await.unwrap(), [false]);
    assert_eq!(store.cursor(&demo(), Ordinal(1)).await.unwrap(), newer.cursor);
    let same = write(1, 8, progress(11, &[], 11), progress(0, &[], 0));
    let later = write(1, 9, progress(12, &[], 12), progress(0, &[], 0));
    assert_eq!(store.save_cursors(vec![same, later.clone()]).await.unwrap(), [true, true]);
    assert_eq!(store.cursor(&demo(), Ordinal(1)).await.unwrap(), later.cursor);
}

/// A prefix stays where it is when less is told, in the same session and in a later one; `sent` is never below it.
pub async fn a_prefix_never_goes_back(place: &mut dyn Place) {
    let store = place.open().await;
    store.save_cursors(vec![write(1, 5, progress(10, &[], 12), progress(30, &[], 30))]).await.unwrap();
    for epoch in [5, 6] {
        let less = write(1, epoch, progress(4, &[7], 7), progress(31, &[], 31));
        assert_eq!(store.save_cursors(vec![less]).await.unwrap(), [true]);
        let kept = store.cursor(&demo(), Ordinal(1)).await.unwrap();
        assert_eq!((kept.inbox.prefix, kept.timeline.prefix), (Seq(10), Seq(31)));
        assert!(kept.inbox.beyond.iter().all(|seq| *seq > Seq(10)), "what the prefix covers is not beyond it");
        assert!(kept.inbox.sent >= kept.inbox.prefix && kept.timeline.sent >= kept.timeline.prefix);
    }
}

/// Inbox entries up to the prefix are removed, those beyond it stay.
pub async fn what_is_acked_leaves_the_inbox(place: &mut dyn Place) {
    let store = place.open().await;
    let appends = (0..3).map(|n| to_inboxes(&message(n), set([1, 2]))).collect();
    store.append_inbox(appends, NOW).await.unwrap();
    let seqs: Vec<_> = entries(&*store, 1).await;
    let prefix = progress(seqs[1].0, &[], seqs[2].0);
    let refused = write(2, 0, prefix.clone(), progress(0, &[], 0));
    store.save_cursors(vec![write(2, 1, progress(0, &[], 0), progress(0, &[], 0)), refused]).await.unwrap();
    store.save_cursors(vec![write(1, 1, prefix, progress(0, &[], 0))]).await.unwrap();
    assert_eq!(entries(&*store, 1).await, seqs[2..]);
    assert_eq!(entries(&*store, 2).await.len(), 3, "a refused write removes nothing");
    assert_eq!(store.inbox_heads(&demo(), &[Ordinal(1)]).await.unwrap(), [seqs[2]]);
}

async fn entries(store: &dyn crate::Store, device: u32) -> Vec<Seq> {
    let entries = store.inbox_after(&demo(), Ordinal(device), Seq::ZERO, 10).await.unwrap();
    entries.into_iter().map(|entry| entry.seq).collect()
}
