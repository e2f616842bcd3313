//! What must go when its time is over, found by lists of what is due and when.

use async_trait::async_trait;
use model::Timestamp;

use super::{
    Embedded,
    key::{self, Due},
    messages, shelves,
    table::{Draft, Read as _, Span},
    uplinks,
};
use crate::{Error, PAGE_MAX, Retention};

/// Removes what a key of a list of what is due names; returns how many entries of streams it touched.
type Over<K> = fn(&mut Draft<'_, '_>, &K) -> Result<usize, Error>;

#[async_trait]
impl Retention for Embedded {
    async fn expire(&self, now: Timestamp) -> Result<usize, Error> {
        let expired = self.sweep::<key::ExpiryDue>(now, |draft, due| messages::expire(draft, &due.app, due.message));
        let entries = self.sweep::<key::EntryDue>(now, |draft, due| messages::forget(draft, &due.app, due.message));
        let onces = self.sweep::<key::OnceDue>(now, forget_once);
        let uplinks = self.sweep::<key::UplinkDue>(now, uplinks::forget);
        let notes = self.sweep::<key::NoteDue>(now, shelves::forget);
        Ok(expired.await? + entries.await? + onces.await? + uplinks.await? + notes.await?)
    }
}

impl Embedded {
    /// Works off a list of what is due, one page at most.
    async fn sweep<K: Due + Send + 'static>(&self, now: Timestamp, over: Over<K>) -> Result<usize, Error> {
        self.write(move |draft| {
            let from = draft.tables.worked_off::<K>();
            if from > now {
                return Ok(0);
            }
            let due: Vec<K> =
                draft.scan(Span::due(from, now)).take(PAGE_MAX).map(|row| Ok(row?.0)).collect::<Result<_, Error>>()?;
            let (mut removed, mut touched) = (0, 0);
            for key in &due {
                if touched >= PAGE_MAX {
                    break;
                }
                touched += over(draft, key)?;
                draft.remove(key);
                draft.apply();
                draft.tables.work_off::<K>(key.at());
                removed += 1;
            }
            if due.is_empty() {
                draft.tables.work_off::<K>(now);
            }
            Ok(removed)
        })
        .await
    }
}

/// The key may have been used again since: then it goes later.
fn forget_once(draft: &mut Draft<'_, '_>, due: &key::OnceDue) -> Result<usize, Error> {
    let key = key::Once { app: due.app.clone(), key: due.key.clone() };
    if draft.get(&key)?.is_some_and(|promise| promise.until <= due.at) {
        draft.remove(&key);
    }
    Ok(0)
}
