//! Reading and changing tables: typed keys in, typed records out, damage found where it is read.

use std::{
    collections::HashMap,
    marker::PhantomData,
    ops::Bound::{self, Excluded, Included},
};

use engine::{Engine, Keyspace, Slice, Tx};
use model::{Ordinals, Timestamp, record::Record};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::key::{Due, Key, Part, Space};
use crate::Error;

/// What lies behind a key that says everything itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Nothing;

impl Record for Nothing {
    const VERSION: u8 = 1;
}

/// A set of devices, by itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Set(pub(super) Ordinals);

impl Record for Set {
    const VERSION: u8 = 1;
}

impl From<engine::Error> for Error {
    fn from(error: engine::Error) -> Self {
        match error {
            engine::Error::Corrupt(_) => Self::Corrupt(error.to_string()),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

/// The keyspaces, and how far each list of what is due has been worked off.
pub(super) struct Tables {
    spaces: HashMap<Space, Keyspace>,
    /// By table: nothing lies before this, so that a sweep does not wade through what earlier ones removed. Known
    /// only to steps, which run one at a time.
    worked_off: Mutex<HashMap<u8, Timestamp>>,
}

impl Tables {
    pub(super) fn open(engine: &Engine) -> Result<Self, Error> {
        let open = |space: Space| Ok((space, engine.keyspace(space.name())?));
        let spaces = Space::ALL.into_iter().map(open).collect::<Result<_, Error>>()?;
        Ok(Self { spaces, worked_off: Mutex::default() })
    }

    fn space(&self, space: Space) -> &Keyspace {
        &self.spaces[&space]
    }

    /// Nothing of this table is due before this.
    pub(super) fn worked_off<K: Due>(&self) -> Timestamp {
        self.worked_off.lock().get(&K::NUMBER).copied().unwrap_or_default()
    }

    /// Notes that nothing of this table is due before `until` any more.
    pub(super) fn work_off<K: Due>(&self, until: Timestamp) {
        self.worked_off.lock().insert(K::NUMBER, until);
    }
}

/// Keys of one table that begin alike, or a part of them.
pub(super) struct Span<K> {
    lower: Bound<Vec<u8>>,
    upper: Bound<Vec<u8>>,
    table: PhantomData<K>,
}

impl<K: Key> Span<K> {
    /// Every key that begins with these fields.
    pub(super) fn of(fields: &[&dyn Part]) -> Self {
        let mut prefix = vec![K::NUMBER];
        fields.iter().for_each(|field| field.write(&mut prefix));
        let mut end = prefix.clone();
        while end.pop_if(|last| *last == u8::MAX).is_some() {}
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        Self { lower: Included(prefix), upper: Excluded(end), table: PhantomData }
    }

    /// Whether `key` is one of them.
    #[cfg(test)]
    pub(super) fn contains(&self, key: &K) -> bool {
        std::ops::RangeBounds::contains(&(self.lower.clone(), self.upper.clone()), &key.encode())
    }

    /// Only those after `key`.
    pub(super) fn after(self, key: &K) -> Self {
        Self { lower: Excluded(key.encode()), ..self }
    }

    /// Only those from `key` on.
    pub(super) fn starting(self, key: &K) -> Self {
        Self { lower: Included(key.encode()), ..self }
    }

    /// Only those before `key`.
    pub(super) fn before(self, key: &K) -> Self {
        Self { upper: Excluded(key.encode()), ..self }
    }
}

impl<K: Due> Span<K> {
    /// What is due from `from` to `now`.
    pub(super) fn due(from: Timestamp, now: Timestamp) -> Self {
        let after = Timestamp::from_millis(now.as_millis().saturating_add(1));
        Self { lower: Included(K::from(from)), upper: Excluded(K::from(after)), table: PhantomData }
    }
}

fn corrupt<K: Key>(what: &dyn std::fmt::Debug, why: impl std::fmt::Display) -> Error {
    Error::Corrupt(format!("table {} at {what:?}: {why}", K::NUMBER))
}

/// Reads tables, as of one moment.
pub(super) trait Read {
    /// The bytes behind a key.
    fn bytes(&self, space: Space, key: &[u8]) -> Result<Option<Slice>, Error>;

    /// The bytes in a range, in order of keys.
    fn rows(
        &self,
        space: Space,
        range: (Bound<Vec<u8>>, Bound<Vec<u8>>),
    ) -> impl DoubleEndedIterator<Item = Result<(Slice, Slice), engine::Error>>;

    /// What lies behind `key`.
    fn get<K: Key>(&self, key: &K) -> Result<Option<K::Value>, Error> {
        let Some(bytes) = self.bytes(K::SPACE, &key.encode())? else { return Ok(None) };
        K::Value::decode(&bytes).map(Some).map_err(|error| corrupt::<K>(key, error))
    }

    /// What lies behind `key`, which other records say is there.
    fn expect<K: Key>(&self, key: &K) -> Result<K::Value, Error> {
        self.get(key)?.ok_or_else(|| corrupt::<K>(key, "missing"))
    }

    /// Whether anything lies behind `key`.
    fn has<K: Key>(&self, key: &K) -> Result<bool, Error> {
        Ok(self.bytes(K::SPACE, &key.encode())?.is_some())
    }

    /// Keys and what lies behind them, in order.
    fn scan<K: Key>(&self, span: Span<K>) -> impl DoubleEndedIterator<Item = Result<(K, K::Value), Error>> {
        self.rows(K::SPACE, (span.lower, span.upper)).map(|row| {
            let (key, value) = row?;
            let key = K::decode(&key).ok_or_else(|| corrupt::<K>(&&*key, "not a key of this table"))?;
            let value = K::Value::decode(&value).map_err(|error| corrupt::<K>(&key, error))?;
            Ok((key, value))
        })
    }
}

/// What is durable, as of one moment.
pub(super) struct View<'a> {
    view: engine::View,
    tables: &'a Tables,
}

impl<'a> View<'a> {
    pub(super) fn new(engine: &Engine, tables: &'a Tables) -> Self {
        Self { view: engine.view(), tables }
    }
}

impl Read for View<'_> {
    fn bytes(&self, space: Space, key: &[u8]) -> Result<Option<Slice>, Error> {
        Ok(self.view.get(self.tables.space(space), key)?)
    }

    fn rows(
        &self,
        space: Space,
        range: (Bound<Vec<u8>>, Bound<Vec<u8>>),
    ) -> impl DoubleEndedIterator<Item = Result<(Slice, Slice), engine::Error>> {
        self.view.range(self.tables.space(space), range)
    }
}

/// Changes that take effect together or, when the step that makes them fails, not at all.
///
/// What the draft changed is seen by `get`, `has` and `expect`, but not by `scan`: that sees what was applied before.
pub(super) struct Draft<'a, 'tx> {
    tx: &'a mut Tx<'tx>,
    /// The tables.
    pub(super) tables: &'a Tables,
    changes: HashMap<Vec<u8>, (Space, Option<Slice>)>,
}

impl<'a, 'tx> Draft<'a, 'tx> {
    pub(super) fn new(tx: &'a mut Tx<'tx>, tables: &'a Tables) -> Self {
        Self { tx, tables, changes: HashMap::new() }
    }

    /// Sets what lies behind `key`.
    pub(super) fn put<K: Key>(&mut self, key: &K, value: &K::Value) {
        self.changes.insert(key.encode(), (K::SPACE, Some(value.encode().into())));
    }

    /// Removes `key`.
    pub(super) fn remove<K: Key>(&mut self, key: &K) {
        self.changes.insert(key.encode(), (K::SPACE, None));
    }

    /// Sets down when something must go.
    pub(super) fn schedule<K: Due>(&mut self, key: &K) {
        let worked_off = self.tables.worked_off::<K>();
        self.tables.work_off::<K>(worked_off.min(key.at()));
        self.put(key, &Nothing);
    }

    /// Makes the changes part of the group; the draft goes on empty.
    pub(super) fn apply(&mut self) {
        for (key, (space, value)) in self.changes.drain() {
            match value {
                Some(value) => self.tx.insert(self.tables.space(space), key, value),
                None => self.tx.remove(self.tables.space(space), key),
            }
        }
    }
}

impl Read for Draft<'_, '_> {
    fn bytes(&self, space: Space, key: &[u8]) -> Result<Option<Slice>, Error> {
        match self.changes.get(key) {
            Some((_, value)) => Ok(value.clone()),
            None => Ok(self.tx.get(self.tables.space(space), key)?),
        }
    }

    fn rows(
        &self,
        space: Space,
        range: (Bound<Vec<u8>>, Bound<Vec<u8>>),
    ) -> impl DoubleEndedIterator<Item = Result<(Slice, Slice), engine::Error>> {
        self.tx.range(self.tables.space(space), range)
    }
}
