//! How far each device has come.

use async_trait::async_trait;
use model::{AppId, Cursor, Epoch, Ordinal, record::Record};
use serde::{Deserialize, Serialize};

use super::{
    Embedded, key,
    table::{Draft, Read as _},
};
use crate::{CursorWrite, Cursors, Error};

/// A cursor and the session that wrote it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) epoch: Epoch,
    pub(super) cursor: Cursor,
}

impl Record for Kept {
    const VERSION: u8 = 1;
}

#[async_trait]
impl Cursors for Embedded {
    async fn cursor(&self, app: &AppId, device: Ordinal) -> Result<Cursor, Error> {
        Ok(self.view().get(&key::Cursor { app: app.clone(), device })?.unwrap_or_default().cursor)
    }

    async fn save_cursors(&self, writes: Vec<CursorWrite>) -> Result<Vec<bool>, Error> {
        self.write_few_at_a_time(writes, |draft, few| few.into_iter().map(|write| save(draft, write)).collect()).await
    }
}

fn save(draft: &mut Draft<'_, '_>, write: CursorWrite) -> Result<bool, Error> {
    let CursorWrite { app, device, epoch, cursor } = write;
    let key = key::Cursor { app: app.clone(), device };
    let kept = draft.get(&key)?.unwrap_or_default();
    if epoch < kept.epoch {
        return Ok(false);
    }
    let read_before = kept.cursor.inbox.prefix;
    let cursor = kept.cursor.further(cursor);
    // After a broadcast this is written for every device, and no inbox has changed.
    if cursor.inbox.prefix > read_before {
        let inbox = key::Inbox { app, device };
        if let Some(mut pending) = draft.get(&inbox)?
            && pending.acked(cursor.inbox.prefix)
        {
            draft.put(&inbox, &pending);
        }
    }
    draft.put(&key, &Kept { epoch, cursor });
    Ok(true)
}
