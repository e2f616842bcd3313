//! Small records that people keep by name: saved audiences, suppressions, what attributes there are, and notes of what
//! was decided.
//!
//! A shelf holds records of one type, for one environment of an app. The store looks inside none of them;
//! [`find`], [`put`] and the like are the same calls with types.

use async_trait::async_trait;
use model::{
    AppId, Env, Timestamp,
    shelved::{Shelf, Shelved},
};

use crate::{Error, Patience, Store};

/// Which records: of what kind, and whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// Whose.
    pub app: &'a AppId,
    /// For which of its devices.
    pub env: Env,
    /// Of what kind.
    pub shelf: Shelf,
}

/// Small records, by name. Durable when a call returns. A name has 1 to 255 bytes.
#[async_trait]
pub trait Shelves: Send + Sync {
    /// Puts a record under its name in place of what is there. With an `edition` only while the shelf still has that
    /// one: false when it was changed meanwhile, and nothing was written.
    async fn put_record(
        &self,
        place: Place<'_>,
        name: &str,
        record: Vec<u8>,
        edition: Option<u64>,
    ) -> Result<bool, Error>;

    /// Puts a record that nobody lists, in place of what is there, and keeps it until then; it goes some time after.
    async fn note(&self, place: Place<'_>, name: &str, record: Vec<u8>, until: Timestamp) -> Result<(), Error>;

    /// The same, only where nothing is: gives back what is there then.
    async fn note_once(
        &self,
        place: Place<'_>,
        name: &str,
        record: Vec<u8>,
        until: Timestamp,
    ) -> Result<Vec<u8>, Error>;

    /// What lies under these names, in the order given.
    async fn records(&self, place: Place<'_>, names: &[String]) -> Result<Vec<Option<Vec<u8>>>, Error>;

    /// At most `limit` records after the one named `after`, in the order of names' bytes.
    async fn list_records(
        &self,
        place: Place<'_>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, Error>;

    /// Removes a record; false when there was none.
    async fn remove_record(&self, place: Place<'_>, name: &str) -> Result<bool, Error>;

    /// A number that every change of the shelf raises; notes do not.
    async fn edition(&self, place: Place<'_>) -> Result<u64, Error>;
}

fn place<T: Shelved>(app: &AppId, env: Env) -> Place<'_> {
    Place { app, env, shelf: T::SHELF }
}

fn read<T: Shelved>(name: &str, record: &[u8]) -> Result<T, Error> {
    T::decode(record).map_err(|error| Error::Corrupt(format!("{:?} {name:?}: {error}", T::SHELF)))
}

/// The record of this name.
pub async fn find<T: Shelved>(store: &dyn Store, app: &AppId, env: Env, name: &str) -> Result<Option<T>, Error> {
    let found = store.records(place::<T>(app, env), &[name.to_owned()]).await?.pop().flatten();
    found.map(|record| read(name, &record)).transpose()
}

/// Puts a record under its name in place of what is there.
pub async fn put<T: Shelved>(store: &dyn Store, app: &AppId, env: Env, name: &str, record: &T) -> Result<(), Error> {
    store.put_record(place::<T>(app, env), name, record.encode(), None).await.map(drop)
}

/// Keeps a record that nobody lists until then.
pub async fn note<T: Shelved>(
    store: &dyn Store,
    (app, env): (&AppId, Env),
    name: &str,
    record: &T,
    until: Timestamp,
) -> Result<(), Error> {
    store.note(place::<T>(app, env), name, record.encode(), until).await
}

/// Keeps a record that nobody lists until then, unless there is one: gives back the one that is there then.
pub async fn note_once<T: Shelved>(
    store: &dyn Store,
    (app, env): (&AppId, Env),
    name: &str,
    record: &T,
    until: Timestamp,
) -> Result<T, Error> {
    read(name, &store.note_once(place::<T>(app, env), name, record.encode(), until).await?)
}

/// A page of records with their names.
pub async fn list<T: Shelved>(
    store: &dyn Store,
    (app, env): (&AppId, Env),
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<(String, T)>, Error> {
    let page = store.list_records(place::<T>(app, env), after, limit).await?;
    page.into_iter().map(|(name, record)| read(&name, &record).map(|record| (name, record))).collect()
}

/// Removes a record; false when there was none.
pub async fn remove<T: Shelved>(store: &dyn Store, app: &AppId, env: Env, name: &str) -> Result<bool, Error> {
    store.remove_record(place::<T>(app, env), name).await
}

/// Changes a record as it is at that moment, `None` when there is none; returns what is there then. `change` may be
/// called again, and leaves things as they are by returning `None`.
///
/// # Errors
/// Unavailable when others are quicker for some seconds; whatever the store says.
pub async fn change<T: Shelved>(
    store: &dyn Store,
    (app, env): (&AppId, Env),
    name: &str,
    mut change: impl FnMut(Option<T>) -> Option<T> + Send,
) -> Result<Option<T>, Error> {
    let place = place::<T>(app, env);
    let mut patience = Patience::begin();
    loop {
        let edition = store.edition(place).await?;
        let before: Option<T> = find(store, app, env, name).await?;
        let Some(after) = change(before) else { return find(store, app, env, name).await };
        if store.put_record(place, name, after.encode(), Some(edition)).await? {
            return Ok(Some(after));
        }
        patience.again().await?;
    }
}
