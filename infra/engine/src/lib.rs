//! The embedded storage engine: one database in `data_dir`, written by one thread that commits in groups.
//!
//! The broker and the store each keep their keyspaces here, so one flush of the disk serves whatever both have
//! waiting. A write is a function run on the committer's thread inside the group's transaction: it reads what
//! earlier writes of the same group left, so a step that reads, decides and writes is atomic without any lock.
//! This is the only package that names the database underneath.

mod committer;
mod journal;
mod retired;

use std::{
    ops::{Bound, RangeBounds},
    path::{Path, PathBuf},
    sync::Arc,
};

use fjall::{KeyspaceCreateOptions, Readable as _, SingleWriterTxDatabase, SingleWriterTxKeyspace};
use thiserror::Error;

use committer::Committer;
pub use fjall::Slice;
use retired::Retired;

/// Journals kept before memtables must go to disk; bounds the time of recovery.
const JOURNAL_MAX_BYTES: u64 = 256 * 1024 * 1024;

/// A keyspace's part of memory before it goes to disk.
const MEMTABLE_BYTES: u64 = 16 * 1024 * 1024;

/// Disk that is kept for what makes room again, acks and the rewriting of tables: two full journals.
const DISK_RESERVE_BYTES: u64 = 2 * JOURNAL_MAX_BYTES;

/// Why the engine did not do what was asked.
#[derive(Clone, Debug, Error)]
pub enum Error {
    /// Another process has the directory open.
    #[error("{0} is in use by another process; one data_dir serves one process")]
    Locked(String),
    /// The disk or the database refused; nothing was written. Try again.
    #[error("storage: {0}")]
    Unavailable(String),
    /// What is on disk cannot be trusted: stop and restore.
    #[error("storage is damaged: {0}")]
    Corrupt(String),
}

impl From<fjall::Error> for Error {
    fn from(error: fjall::Error) -> Self {
        match error {
            fjall::Error::Io(error) => Self::Unavailable(error.to_string()),
            error => Self::Corrupt(error.to_string()),
        }
    }
}

/// One named, ordered map of bytes to bytes. Cheap to clone; reads see what is durable, each by itself: what belongs
/// together is read through a [`View`].
#[derive(Clone)]
pub struct Keyspace(SingleWriterTxKeyspace);

impl Keyspace {
    /// The value of `key`.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Slice>, Error> {
        Ok(self.0.get(key)?)
    }

    /// The entries whose key starts with `prefix`, in order of keys.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> impl DoubleEndedIterator<Item = Result<(Slice, Slice), Error>> {
        self.0.inner().prefix(prefix).map(pair)
    }

    /// The entries whose key is in `range`, in order of keys.
    pub fn range<K: AsRef<[u8]>>(
        &self,
        range: impl RangeBounds<K>,
    ) -> impl DoubleEndedIterator<Item = Result<(Slice, Slice), Error>> {
        self.0.inner().range(range).map(pair)
    }
}

/// Everything that was durable at one moment: of a group either all of it or nothing. Keep it only as long as it takes
/// to read.
pub struct View(fjall::Snapshot);

impl View {
    /// The value of `key`.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn get(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Slice>, Error> {
        Ok(self.0.get(&keyspace.0, key)?)
    }

    /// The entries whose key is in `range`, in order of keys.
    pub fn range<K: AsRef<[u8]>>(
        &self,
        keyspace: &Keyspace,
        range: impl RangeBounds<K>,
    ) -> impl DoubleEndedIterator<Item = Result<(Slice, Slice), Error>> {
        self.0.range(&keyspace.0, range).map(pair)
    }
}

fn pair(guard: fjall::Guard) -> Result<(Slice, Slice), Error> {
    Ok(guard.into_inner()?)
}

/// The transaction of a group, as one write sees it: everything durable, and what earlier writes of the group did.
///
/// A write that fails must fail before it first inserts or removes: the group around it is committed all the same.
pub struct Tx<'a>(fjall::SingleWriterWriteTx<'a>);

impl Tx<'_> {
    /// The value of `key`.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn get(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Slice>, Error> {
        Ok(self.0.get(&keyspace.0, key)?)
    }

    /// The entries whose key starts with `prefix`, in order of keys.
    pub fn prefix(
        &self,
        keyspace: &Keyspace,
        prefix: impl AsRef<[u8]>,
    ) -> impl DoubleEndedIterator<Item = Result<(Slice, Slice), Error>> {
        self.0.prefix(&keyspace.0, prefix).map(pair)
    }

    /// The entries whose key is in `range`, in order of keys.
    pub fn range<K: AsRef<[u8]>>(
        &self,
        keyspace: &Keyspace,
        range: impl RangeBounds<K>,
    ) -> impl DoubleEndedIterator<Item = Result<(Slice, Slice), Error>> {
        self.0.range(&keyspace.0, range).map(pair)
    }

    /// Sets `key` to `value`.
    pub fn insert(&mut self, keyspace: &Keyspace, key: impl Into<Slice>, value: impl Into<Slice>) {
        self.0.insert(&keyspace.0, key, value);
    }

    /// Removes `key`.
    pub fn remove(&mut self, keyspace: &Keyspace, key: impl Into<Slice>) {
        self.0.remove(&keyspace.0, key);
    }
}

/// The smallest range that holds every key after `key`.
pub fn after(key: &[u8]) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Bound::Excluded(key), Bound::Unbounded)
}

/// An open database and its committer. Dropping it waits for what is under way.
pub struct Engine {
    dir: PathBuf,
    db: SingleWriterTxDatabase,
    committer: Committer,
    retired: Retired,
}

impl Engine {
    /// Opens the database in `dir`, creating it when it is not there, and recovers what a crash left: a group that was
    /// being written when the process or the power went is cut, since nobody was told of it.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process has it, [`Error::Corrupt`] when it cannot be trusted: nothing that was
    /// confirmed is ever left out silently.
    pub fn open(dir: &Path) -> Result<Arc<Self>, Error> {
        std::fs::create_dir_all(dir)
            .map_err(|error| Error::Unavailable(format!("cannot create {}: {error}", dir.display())))?;
        journal::examine(dir)?;
        let open = SingleWriterTxDatabase::builder(dir).max_journaling_size(JOURNAL_MAX_BYTES).open();
        let db = open.map_err(|error| match error {
            fjall::Error::Locked => Error::Locked(dir.display().to_string()),
            error => error.into(),
        })?;
        let committer = Committer::start(db.clone());
        Ok(Arc::new(Self { dir: dir.to_owned(), db, committer, retired: Retired::start() }))
    }

    /// The keyspace of this name, created when it is not there.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn keyspace(&self, name: &str) -> Result<Keyspace, Error> {
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let keyspace = self.db.keyspace(name, options)?;
        self.retired.look_after(keyspace.clone());
        Ok(Keyspace(keyspace))
    }

    /// What is durable now.
    pub fn view(&self) -> View {
        View(self.db.read_tx())
    }

    /// That there is disk for more, since a group that finds the disk full ends the process. What lets something new in
    /// asks first: a publication, the entry of a message, the registration of a device. Whoever goes on with what is in,
    /// or takes it out, does not ask: that is what the reserve is for.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no more should be taken in until some has been freed.
    pub fn room(&self) -> Result<(), Error> {
        room(&self.dir, DISK_RESERVE_BYTES)
    }

    /// Runs `step` in the next group and returns what it returned once the group is on disk. Steps run in the order
    /// they were submitted, one at a time.
    ///
    /// A group that cannot be made durable ends the process: what the disk holds then is known only after recovery.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the engine is shutting down.
    pub async fn write<T: Send + 'static>(
        &self,
        step: impl FnOnce(&mut Tx<'_>) -> T + Send + 'static,
    ) -> Result<T, Error> {
        self.committer.submit(step, |result| result).await
    }

    /// Like [`write`](Engine::write), with `then` run once the group is on disk: on the committer's thread, in the
    /// order of the steps, and also when the caller has stopped waiting. It must be short, since everybody waits for
    /// it, and must not own the engine.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the engine is shutting down.
    pub async fn write_then<T: Send + 'static, U: Send + 'static>(
        &self,
        step: impl FnOnce(&mut Tx<'_>) -> T + Send + 'static,
        then: impl FnOnce(T) -> U + Send + 'static,
    ) -> Result<U, Error> {
        self.committer.submit(step, then).await
    }
}

fn room(dir: &Path, reserve_bytes: u64) -> Result<(), Error> {
    let disk = rustix::fs::statvfs(dir).map_err(|error| Error::Unavailable(error.to_string()))?;
    let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free_bytes < reserve_bytes {
        let what = format!("the disk is almost full: {free_bytes} bytes are left, {reserve_bytes} are kept in reserve");
        return Err(Error::Unavailable(what));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_without_its_reserve_has_no_room() {
        let dir = tempfile::tempdir().unwrap();
        assert!(room(dir.path(), 0).is_ok());
        assert!(matches!(room(dir.path(), u64::MAX), Err(Error::Unavailable(_))));
    }
}
