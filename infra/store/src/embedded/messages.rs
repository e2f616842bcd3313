//! Messages as their senders see them: the entry, the body, the audience, the idempotency key.

use async_trait::async_trait;
use model::{AppId, Message, MessageId, Ordinals, Seq, Timestamp, record::Record};
use serde::{Deserialize, Serialize};

use super::{
    Embedded, inbox, key, receipts,
    table::{Draft, Read as _, Set, Span},
    timeline,
};
use crate::{
    Accepted, Appended, Cancelled, Entry, Error, Messages, Once, Promise,
    messages::{KEPT, ONCE_KEPT},
    receipts::open,
};

/// Where a dispatched message was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stream {
    /// To the inboxes of its audience.
    Inboxes,
    /// To its app's timeline, here.
    Timeline(Seq),
}

/// What is kept of a message besides its body.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) entry: Entry,
    pub(super) stream: Option<Stream>,
}

impl Record for Kept {
    const VERSION: u8 = 1;
}

impl Record for Promise {
    const VERSION: u8 = 1;
}

#[async_trait]
impl Messages for Embedded {
    async fn accept(&self, app: &AppId, entry: Entry, once: Option<Once>) -> Result<Accepted, Error> {
        self.engine.room()?;
        let app = app.clone();
        self.write(move |draft| {
            if let Some(once) = once
                && let Some(before) = promise(draft, &app, &entry, once)?
            {
                return Ok(before);
            }
            let key = key::Entry { app, message: entry.id };
            let kept = match draft.get(&key)? {
                Some(before) => merge(entry, before),
                None => Kept { entry, stream: None },
            };
            keep(draft, key, &kept);
            Ok(Accepted::New)
        })
        .await
    }

    async fn promised(&self, app: &AppId, key: &str, now: Timestamp) -> Result<Option<Promise>, Error> {
        Ok(self.view().get(&once_key(app, key)?)?.filter(|promise| promise.counts(now)))
    }

    async fn entry(&self, app: &AppId, id: MessageId) -> Result<Option<Entry>, Error> {
        let kept = self.view().get(&key::Entry { app: app.clone(), message: id })?;
        Ok(kept.map(|kept| kept.entry))
    }

    async fn entries(&self, app: &AppId, before: Option<MessageId>, limit: usize) -> Result<Vec<Entry>, Error> {
        let all = Span::of(&[app]);
        let span = match before {
            Some(message) => all.before(&key::Entry { app: app.clone(), message }),
            None => all,
        };
        self.view().scan(span).rev().take(limit).map(|row| Ok(row?.1.entry)).collect()
    }

    async fn cancel(&self, app: &AppId, id: MessageId, now: Timestamp) -> Result<Option<Cancelled>, Error> {
        let key = key::Entry { app: app.clone(), message: id };
        self.write(move |draft| cancel(draft, &key, now)).await
    }

    async fn fail(&self, app: &AppId, id: MessageId, reason: String) -> Result<(), Error> {
        let key = key::Entry { app: app.clone(), message: id };
        self.write(move |draft| {
            if let Some(mut kept) = draft.get(&key)?.filter(|kept| kept.stream.is_none()) {
                kept.entry.failed = Some(reason);
                draft.put(&key, &kept);
            }
            Ok(())
        })
        .await
    }
}

/// Where it lies what an idempotency key was used for.
fn once_key(app: &AppId, text: &str) -> Result<key::Once, Error> {
    Ok(key::Once { app: app.clone(), key: key::Text::new(text, "an idempotency key")? })
}

/// Keeps a sender's promise, unless there is one of this key: then says what was said to it.
fn promise(draft: &mut Draft<'_, '_>, app: &AppId, entry: &Entry, once: Once) -> Result<Option<Accepted>, Error> {
    let key = once_key(app, &once.key)?;
    if let Some(before) = draft.get(&key)?.filter(|before| before.counts(entry.created_at)) {
        let same = before.fingerprint == once.fingerprint;
        return Ok(Some(if same { Accepted::Before(before.message, before.answer) } else { Accepted::Reused }));
    }
    let until = entry.created_at + ONCE_KEPT;
    draft.schedule(&key::OnceDue { at: until, app: app.clone(), key: key.key.clone() });
    draft.put(&key, &Promise { message: entry.id, fingerprint: once.fingerprint, answer: once.answer, until });
    Ok(None)
}

/// The entry as its sender gave it, with what has happened to the message since.
fn merge(given: Entry, before: Kept) -> Kept {
    let Entry { dispatched_at, cancelled_at, failed, .. } = before.entry;
    Kept { entry: Entry { dispatched_at, cancelled_at, failed, ..given }, stream: before.stream }
}

/// Keeps an entry for its time.
fn keep(draft: &mut Draft<'_, '_>, key: key::Entry, kept: &Kept) {
    let at = (kept.entry.created_at + KEPT).max(kept.entry.expires_at);
    draft.put(&key, kept);
    draft.schedule(&key::EntryDue { at, app: key.app, message: key.message });
}

/// Notes that a message is appended to `stream` for `audience`, unless it was before or must not be; its entries are
/// then the caller's to append.
pub(super) fn dispatch(
    draft: &mut Draft<'_, '_>,
    message: &Message,
    audience: &Ordinals,
    stream: Stream,
    now: Timestamp,
) -> Result<Appended, Error> {
    let (app, id) = (message.app.clone(), message.id);
    let key = key::Entry { app: app.clone(), message: id };
    // Ingest keeps the entry while it publishes: the message may be here first.
    let mut entry = draft.get(&key)?.map_or_else(|| Entry::from(message), |kept| kept.entry);
    if entry.dispatched_at.is_some() {
        return Ok(Appended::Again);
    }
    if entry.cancelled_at.is_some() || message.is_expired(now) {
        return Ok(Appended::Cancelled);
    }
    entry.dispatched_at = Some(now);
    entry.failed = None;
    keep(draft, key, &Kept { entry, stream: Some(stream) });
    draft.put(&key::Body { app: app.clone(), message: id }, message);
    draft.put(&key::Audience { app: app.clone(), message: id }, &Set(audience.clone().compact()));
    draft.schedule(&key::ExpiryDue { at: message.expires_at, app, message: id });
    Ok(Appended::New)
}

fn cancel(draft: &mut Draft<'_, '_>, key: &key::Entry, now: Timestamp) -> Result<Option<Cancelled>, Error> {
    let Some(mut kept) = draft.get(key)? else { return Ok(None) };
    let mut tally = receipts::tally(draft, &key.app, key.message)?.unwrap_or_default();
    if kept.entry.cancelled_at.is_none() && now < kept.entry.expires_at {
        kept.entry.cancelled_at = Some(now);
        draft.put(key, &kept);
        let mut stopped = open(&tally);
        stopped -= &tally.sent;
        match kept.stream {
            Some(Stream::Inboxes) => inbox::take_out(draft, &key.app, &stopped, key.message)?,
            Some(Stream::Timeline(seq)) => timeline::mark_cancelled(draft, &key.app, seq)?,
            None => {}
        }
        if !stopped.is_empty() {
            tally.cancelled |= &stopped;
            receipts::put(draft, &key.app, key.message, tally.clone());
        }
    }
    let stopped = tally.funnel(kept.entry.expires_at, now).cancelled;
    Ok(Some(Cancelled { stopped, entry: kept.entry, tally }))
}

/// A message expires: its entries leave their streams, then its body goes. Returns how many entries there may have
/// been.
pub(super) fn expire(draft: &mut Draft<'_, '_>, app: &AppId, id: MessageId) -> Result<usize, Error> {
    let Some(kept) = draft.get(&key::Entry { app: app.clone(), message: id })? else { return Ok(0) };
    let entries = match kept.stream {
        Some(Stream::Inboxes) => {
            let Set(audience) = draft.expect(&key::Audience { app: app.clone(), message: id })?;
            inbox::take_out(draft, app, &audience, id)?;
            usize::try_from(audience.len()).unwrap_or(usize::MAX)
        }
        Some(Stream::Timeline(seq)) => {
            timeline::take_out(draft, app, seq)?;
            1
        }
        None => 0,
    };
    draft.remove(&key::Body { app: app.clone(), message: id });
    Ok(entries)
}

/// A message is forgotten; usually it expired long before.
pub(super) fn forget(draft: &mut Draft<'_, '_>, app: &AppId, id: MessageId) -> Result<usize, Error> {
    let entries = if draft.has(&key::Body { app: app.clone(), message: id })? { expire(draft, app, id)? } else { 0 };
    draft.remove(&key::Entry { app: app.clone(), message: id });
    draft.remove(&key::Audience { app: app.clone(), message: id });
    draft.remove(&key::Tally { app: app.clone(), message: id });
    Ok(entries)
}
