//! What changed in the registry: a stream beside it, written by the scripts that change it.

use async_trait::async_trait;
use deadpool_redis::redis::{Value, cmd};
use model::{AppId, Ordinal};

use super::{Redis, take};
use crate::{CHANGES_MAX, ChangeId, Changes, Error};

/// Where the milliseconds begin in the number of a change.
const MILLIS_SHIFT: u32 = u64::BITS;

#[async_trait]
impl Changes for Redis {
    async fn change_head(&self, app: &AppId) -> Result<ChangeId, Error> {
        let mut last = cmd("XREVRANGE");
        last.arg(self.of(app).changes()).arg("+").arg("-").arg("COUNT").arg(1);
        let last = listed(self.ask_one(last).await?)?;
        Ok(last.first().map_or_else(ChangeId::default, |(id, _)| *id))
    }

    async fn changes_after(
        &self,
        app: &AppId,
        after: ChangeId,
        limit: usize,
    ) -> Result<Option<Vec<(ChangeId, Ordinal)>>, Error> {
        let key = self.of(app).changes();
        let mut range = cmd("XRANGE");
        // With the change itself, whose absence says that it is not known.
        range.arg(&key).arg(id(after)).arg("+").arg("COUNT").arg(limit.saturating_add(1));
        let mut len = cmd("XLEN");
        len.arg(&key);
        let [range, len]: [Value; 2] = self
            .ask(vec![range, len])
            .await?
            .try_into()
            .map_err(|_| Error::Unavailable("Redis: an answer is missing".into()))?;
        let mut changes = listed(range)?;
        // As long as there are fewer than are kept, none was ever let go.
        let from_the_first = after == ChangeId::default() && take::value::<usize>(len)? < CHANGES_MAX;
        if !from_the_first {
            if changes.first().is_none_or(|(first, _)| *first != after) {
                return Ok(None);
            }
            changes.remove(0);
        }
        changes.truncate(limit);
        Ok(Some(changes))
    }
}

fn id(change: ChangeId) -> String {
    format!("{}-{}", change.0 >> MILLIS_SHIFT, change.0 as u64)
}

fn listed(answer: Value) -> Result<Vec<(ChangeId, Ordinal)>, Error> {
    let entries: Vec<(String, Vec<(String, u32)>)> = take::value(answer)?;
    let entry = |(id, fields): (String, Vec<(String, u32)>)| {
        let (millis, number) = id.split_once('-')?;
        let (millis, number): (u64, u64) = (millis.parse().ok()?, number.parse().ok()?);
        let (_, device) = fields.first()?;
        Some((ChangeId(u128::from(millis) << MILLIS_SHIFT | u128::from(number)), Ordinal(*device)))
    };
    let corrupt = || take::corrupt("the changes of a registry", &"not an entry");
    entries.into_iter().map(|written| entry(written).ok_or_else(corrupt)).collect()
}
