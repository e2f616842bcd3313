//! What devices sent up, in the order it was kept.

use async_trait::async_trait;
use model::{AppId, Env, Seq, Uplink, UplinkId, record::Record};
use serde::{Deserialize, Serialize};

use super::{
    Embedded,
    key::{self, Text},
    table::{Draft, Nothing, Read as _, Span},
};
use crate::{Error, Uplinks, uplinks::UPLINK_KEPT};

/// Where an uplink stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct At(Seq);

impl Record for At {
    const VERSION: u8 = 1;
}

#[async_trait]
impl Uplinks for Embedded {
    async fn keep_uplinks(&self, uplinks: Vec<Uplink>) -> Result<(), Error> {
        self.write(move |draft| uplinks.iter().try_for_each(|uplink| keep(draft, uplink))).await
    }

    async fn uplinks_after(
        &self,
        app: &AppId,
        env: Env,
        kind: Option<&str>,
        after: Option<UplinkId>,
        limit: usize,
    ) -> Result<Vec<Uplink>, Error> {
        let view = self.view();
        let known = match after {
            Some(id) => view.get(&key::UplinkById { app: app.clone(), env, id })?,
            None => None,
        };
        let first = view.get(&key::UplinkBounds { app: app.clone(), env })?.unwrap_or_default().first;
        let seq = known.map_or(first, |At(last)| Seq(last.0 + 1));
        let Some(kind) = kind else {
            let from = key::Uplink { app: app.clone(), env, seq };
            return view.scan(Span::of(&[app, &env]).starting(&from)).take(limit).map(|row| Ok(row?.1)).collect();
        };
        let kind = Text::new(kind, "a type")?;
        let from = key::UplinkOfType { app: app.clone(), env, kind: kind.clone(), seq };
        let of_type = view.scan(Span::of(&[app, &env, &kind]).starting(&from)).take(limit);
        of_type.map(|row| view.expect(&key::Uplink { app: app.clone(), env, seq: row?.0.seq })).collect()
    }
}

fn keep(draft: &mut Draft<'_, '_>, uplink: &Uplink) -> Result<(), Error> {
    let (app, env) = (&uplink.app, uplink.env);
    let by_id = key::UplinkById { app: app.clone(), env, id: uplink.id };
    if draft.has(&by_id)? {
        return Ok(());
    }
    let kind = Text::new(&uplink.kind, "a type")?;
    let ends = key::UplinkBounds { app: app.clone(), env };
    let mut bounds = draft.get(&ends)?.unwrap_or_default();
    let seq = Seq(bounds.head.0 + 1);
    bounds.push(seq);
    draft.put(&ends, &bounds);
    draft.put(&by_id, &At(seq));
    draft.put(&key::UplinkOfType { app: app.clone(), env, kind, seq }, &Nothing);
    draft.put(&key::Uplink { app: app.clone(), env, seq }, uplink);
    draft.schedule(&key::UplinkDue { at: uplink.received_at + UPLINK_KEPT, app: app.clone(), env, seq });
    Ok(())
}

/// An uplink's keeping time is over.
pub(super) fn forget(draft: &mut Draft<'_, '_>, due: &key::UplinkDue) -> Result<usize, Error> {
    let key::UplinkDue { ref app, env, seq, .. } = *due;
    let key = key::Uplink { app: app.clone(), env, seq };
    let uplink = draft.expect(&key)?;
    let ends = key::UplinkBounds { app: app.clone(), env };
    let mut bounds = draft.expect(&ends)?;
    bounds.removed(seq, || {
        let following = draft.scan(Span::of(&[app, &env]).after(&key)).next().transpose()?;
        Ok(following.map(|(key, _)| key.seq))
    })?;
    draft.put(&ends, &bounds);
    draft.remove(&key);
    draft.remove(&key::UplinkById { app: app.clone(), env, id: uplink.id });
    draft.remove(&key::UplinkOfType { app: app.clone(), env, kind: Text::new(&uplink.kind, "a type")?, seq });
    Ok(1)
}
