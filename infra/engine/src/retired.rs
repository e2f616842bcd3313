//! Frees the memory of tables that have gone to disk. The database gives such a table up under the lock that every reader
//! takes, and to free it, entry by entry, takes tens of milliseconds: so its last owner is here, and nobody waits.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use fjall::{AbstractTree as _, SingleWriterTxKeyspace};

/// How often it is looked which tables there are: much more often than one is filled.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Keyspaces that wait to be looked after: whoever opens more waits a moment.
const OPENED_MAX: usize = 16;

/// The thread that frees; it ends, and lets go of all keyspaces, when this is dropped.
pub(crate) struct Retired {
    keyspaces: Option<SyncSender<SingleWriterTxKeyspace>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Retired {
    pub(crate) fn start() -> Self {
        let (keyspaces, opened) = sync_channel(OPENED_MAX);
        let thread = thread::Builder::new().name("retired".into()).spawn(move || run(&opened));
        #[expect(clippy::expect_used, reason = "the committer's thread was given at start-up, and so is this one")]
        let thread = thread.expect("the system must give one thread at start-up");
        Self { keyspaces: Some(keyspaces), thread: Some(thread) }
    }

    /// Has it look after a keyspace.
    pub(crate) fn look_after(&self, keyspace: SingleWriterTxKeyspace) {
        if let Some(keyspaces) = &self.keyspaces {
            // The thread ends with this, so it is there.
            let _ = keyspaces.send(keyspace);
        }
    }
}

impl Drop for Retired {
    fn drop(&mut self) {
        self.keyspaces = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn run(opened: &Receiver<SingleWriterTxKeyspace>) {
    let (mut keyspaces, mut tables) = (Vec::new(), Vec::new());
    loop {
        match opened.recv_timeout(LOOK_EVERY) {
            Ok(keyspace) => keyspaces.push(keyspace),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        for keyspace in &keyspaces {
            let filled = keyspace.inner().tree.active_memtable();
            if !tables.iter().any(|table| Arc::ptr_eq(table, &filled)) {
                tables.push(filled);
            }
        }
        tables.retain(|table| Arc::strong_count(table) > 1);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use fjall::{KeyspaceCreateOptions, SingleWriterTxDatabase};

    use super::*;

    #[test]
    fn a_table_is_kept_while_the_database_has_it_and_freed_after_that() {
        let dir = tempfile::tempdir().unwrap();
        let db = SingleWriterTxDatabase::builder(dir.path()).open().unwrap();
        let space = db.keyspace("space", KeyspaceCreateOptions::default).unwrap();
        let retired = Retired::start();
        retired.look_after(space.clone());
        space.insert("key", "value").unwrap();
        let table = Arc::downgrade(&space.inner().tree.active_memtable());
        thread::sleep(LOOK_EVERY * 3);
        assert!(table.strong_count() > 1, "the database has it, and so have we");

        let deadline = Instant::now() + Duration::from_secs(20);
        for n in 0.. {
            // The database gives the old ones up when it makes new ones.
            space.insert(format!("{n}"), "value").unwrap();
            space.inner().rotate_memtable_and_wait().unwrap();
            thread::sleep(LOOK_EVERY);
            if table.upgrade().is_none() {
                break;
            }
            assert!(Instant::now() < deadline, "{} still have it", table.strong_count());
        }
        assert_eq!(space.get("key").unwrap().as_deref(), Some(&b"value"[..]));
    }
}
