//! What changed in the registry: a list beside it, written in the same step.

use async_trait::async_trait;
use model::{AppId, Ordinal, Seq, Timestamp, record::Record};
use serde::{Deserialize, Serialize};

use super::{
    Embedded, key,
    table::{Draft, Read, Span},
};
use crate::{CHANGES_MAX, ChangeId, Changes, Error};

/// Changes that are let go together, when there are so many more than are kept.
const LET_GO: usize = 1_000;

/// A device that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Changed {
    device: Ordinal,
}

impl Record for Changed {
    const VERSION: u8 = 1;
}

#[async_trait]
impl Changes for Embedded {
    async fn change_head(&self, app: &AppId) -> Result<ChangeId, Error> {
        let bounds = self.view().get(&key::ChangeBounds { app: app.clone() })?.unwrap_or_default();
        Ok(ChangeId(bounds.head.0.into()))
    }

    async fn changes_after(
        &self,
        app: &AppId,
        after: ChangeId,
        limit: usize,
    ) -> Result<Option<Vec<(ChangeId, Ordinal)>>, Error> {
        let view = self.view();
        let bounds = view.get(&key::ChangeBounds { app: app.clone() })?.unwrap_or_default();
        let Ok(seq) = u64::try_from(after.0).map(Seq) else { return Ok(None) };
        let after = key::Change { app: app.clone(), seq };
        // As long as there are fewer than are kept, none was ever let go.
        let known = if seq == Seq::ZERO { bounds.count < CHANGES_MAX } else { view.has(&after)? };
        if !known {
            return Ok(None);
        }
        let changes = view.scan(Span::<key::Change>::of(&[app]).after(&after)).take(limit);
        let change = |change: Result<(key::Change, Changed), Error>| {
            let (key, changed) = change?;
            Ok((ChangeId(key.seq.0.into()), changed.device))
        };
        changes.map(change).collect::<Result<_, _>>().map(Some)
    }
}

/// Notes that these devices changed.
pub(super) fn note(
    draft: &mut Draft<'_, '_>,
    app: &AppId,
    devices: impl IntoIterator<Item = Ordinal>,
    now: Timestamp,
) -> Result<(), Error> {
    let key = key::ChangeBounds { app: app.clone() };
    let mut bounds = draft.get(&key)?.unwrap_or_default();
    let before = bounds;
    for device in devices {
        let seq = bounds.head.next(now);
        draft.put(&key::Change { app: app.clone(), seq }, &Changed { device });
        bounds.push(seq);
    }
    if bounds.count >= CHANGES_MAX + LET_GO {
        let span = Span::<key::Change>::of(&[app]);
        let oldest: Vec<_> =
            draft.scan(span).take(LET_GO + 1).map(|row| row.map(|(key, _)| key)).collect::<Result<_, _>>()?;
        let Some((first, gone)) = oldest.split_last() else { return Ok(()) };
        gone.iter().for_each(|key| draft.remove(key));
        bounds.first = first.seq;
        bounds.count -= gone.len();
    }
    if bounds != before {
        draft.put(&key, &bounds);
    }
    Ok(())
}
