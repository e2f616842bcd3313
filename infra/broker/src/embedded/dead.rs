//! Dead letters: the newest few thousand. Past that the oldest leaves, with an error in the log that names it and a
//! counter. Refusing instead would keep poison in its queue, where each of its turns holds up what waits behind it.

use std::sync::atomic::{AtomicU64, Ordering};

use engine::{Keyspace, Tx};
use model::record::Record;

use super::key;
use crate::{DeadLetter, Error};

/// Dead letters kept: more than people will read one by one, and 640 MB of the largest.
pub(super) const KEPT_MAX: u64 = 10_000;

impl Record for DeadLetter {
    const VERSION: u8 = 1;
}

pub(super) struct DeadLetters {
    space: Keyspace,
    /// The number of the next one. Changed by steps only, which run one at a time.
    next: AtomicU64,
    dropped: AtomicU64,
}

impl DeadLetters {
    pub(super) fn open(space: Keyspace) -> Result<Self, Error> {
        let last = space.prefix([]).next_back().transpose()?;
        let next = last.map_or(Ok(1), |(key, _)| key::dead_number(&key).map(|last| last + 1))?;
        Ok(Self { space, next: next.into(), dropped: AtomicU64::new(0) })
    }

    /// Writes one down. Part of a step.
    pub(super) fn insert(&self, tx: &mut Tx<'_>, letter: &DeadLetter) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        tx.insert(&self.space, key::dead(number), letter.encode());
        if number > KEPT_MAX {
            let oldest = number - KEPT_MAX;
            tx.remove(&self.space, key::dead(oldest));
            self.dropped.fetch_add(1, Ordering::Relaxed);
            tracing::error!(number = oldest, kept = KEPT_MAX, "the oldest dead letter was dropped to keep a newer one");
        }
    }

    /// The oldest, `limit` at most.
    pub(super) fn list(&self, limit: usize) -> Result<Vec<DeadLetter>, Error> {
        let oldest = self.next.load(Ordering::Relaxed).saturating_sub(KEPT_MAX);
        let entries = self.space.range(key::dead(oldest)..).take(limit);
        let decode = |value: &[u8]| DeadLetter::decode(value).map_err(|error| Error::Corrupt(error.to_string()));
        entries.map(|entry| decode(&entry?.1)).collect()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}
