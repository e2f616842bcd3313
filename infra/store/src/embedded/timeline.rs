//! The stream of one app: a key an entry, bodies and audiences with their messages.

use std::sync::Arc;

use async_trait::async_trait;
use model::{AppId, MessageId, Seq, Timestamp, record::Record};
use serde::{Deserialize, Serialize};

use super::{
    Embedded,
    bounds::Bounds,
    key,
    messages::{self, Stream},
    receipts,
    table::{Draft, Read, Set, Span, View},
};
use crate::{Appended, Error, Timeline, TimelineAppend, TimelineEntry, receipts::open, timeline::TIMELINE_MAX};

/// An entry of a timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Listed {
    message: MessageId,
    expires_at: Timestamp,
    cancelled: bool,
}

impl Record for Listed {
    const VERSION: u8 = 1;
}

#[async_trait]
impl Timeline for Embedded {
    async fn append_timeline(&self, appends: Vec<TimelineAppend>, now: Timestamp) -> Result<Vec<Appended>, Error> {
        self.write(move |draft| {
            let each = appends.iter().map(|append| {
                let appended = self::append(draft, append, now)?;
                draft.apply();
                Ok(appended)
            });
            each.collect()
        })
        .await
    }

    async fn timeline_after(&self, app: &AppId, after: Seq, limit: usize) -> Result<Vec<TimelineEntry>, Error> {
        let view = self.view();
        let entries = view.scan(entries_after(&view, app, after)?).take(limit).map(|row| {
            let (key::Timeline { app, seq }, listed) = row?;
            let body = view.expect(&key::Body { app: app.clone(), message: listed.message })?;
            let Set(mut audience) = view.expect(&key::Audience { app: app.clone(), message: listed.message })?;
            if listed.cancelled {
                let stopped = view.get(&key::Tally { app, message: listed.message })?.unwrap_or_default().cancelled;
                audience -= &stopped;
            }
            let (message, audience) = (Arc::new(body), Arc::new(audience));
            Ok(TimelineEntry { seq, message, audience, cancelled: listed.cancelled })
        });
        entries.collect()
    }

    async fn timeline_cancelled(&self, app: &AppId, after: Seq) -> Result<Vec<MessageId>, Error> {
        let view = self.view();
        let entries = view.scan(entries_after(&view, app, after)?);
        entries.filter_map(|row| row.map(|(_, entry)| entry.cancelled.then_some(entry.message)).transpose()).collect()
    }

    async fn timeline_head(&self, app: &AppId) -> Result<Seq, Error> {
        Ok(self.view().get(&key::TimelineBounds { app: app.clone() })?.unwrap_or_default().head)
    }
}

fn entries_after(view: &View, app: &AppId, after: Seq) -> Result<Span<key::Timeline>, Error> {
    let bounds = view.get(&key::TimelineBounds { app: app.clone() })?.unwrap_or_default();
    let first = key::Timeline { app: app.clone(), seq: bounds.first.max(Seq(after.0.saturating_add(1))) };
    Ok(Span::of(&[app]).starting(&first))
}

fn append(draft: &mut Draft<'_, '_>, append: &TimelineAppend, now: Timestamp) -> Result<Appended, Error> {
    let TimelineAppend { message, audience } = append;
    let app = &message.app;
    let key = key::TimelineBounds { app: app.clone() };
    let mut bounds = draft.get(&key)?.unwrap_or_default();
    let seq = bounds.head.next(now);
    let appended = messages::dispatch(draft, message, audience, Stream::Timeline(seq), now)?;
    if appended == Appended::New {
        if bounds.count == TIMELINE_MAX {
            truncate(draft, app, &mut bounds, now)?;
        }
        bounds.push(seq);
        let listed = Listed { message: message.id, expires_at: message.expires_at, cancelled: false };
        draft.put(&key::Timeline { app: app.clone(), seq }, &listed);
        draft.put(&key, &bounds);
    }
    Ok(appended)
}

/// Lets the oldest entry fall off.
fn truncate(draft: &mut Draft<'_, '_>, app: &AppId, bounds: &mut Bounds, now: Timestamp) -> Result<(), Error> {
    let first = key::Timeline { app: app.clone(), seq: bounds.first };
    let oldest = draft.scan(Span::of(&[app]).starting(&first)).next().transpose()?;
    let Some((key, listed)) = oldest else { return Ok(()) };
    remove(draft, &key, bounds)?;
    if now < listed.expires_at {
        let open = receipts::tally(draft, app, listed.message)?.map(|tally| open(&tally));
        receipts::amend(draft, app, listed.message, |tally| tally.truncated |= &open.unwrap_or_default())?;
    }
    Ok(())
}

fn remove(draft: &mut Draft<'_, '_>, key: &key::Timeline, bounds: &mut Bounds) -> Result<(), Error> {
    bounds.removed(key.seq, || {
        let following = draft.scan(Span::of(&[&key.app]).after(key)).next().transpose()?;
        Ok(following.map(|(key, _)| key.seq))
    })?;
    draft.remove(key);
    Ok(())
}

/// Marks the entry here as called back, if it is still there.
pub(super) fn mark_cancelled(draft: &mut Draft<'_, '_>, app: &AppId, seq: Seq) -> Result<(), Error> {
    let key = key::Timeline { app: app.clone(), seq };
    if let Some(listed) = draft.get(&key)? {
        draft.put(&key, &Listed { cancelled: true, ..listed });
    }
    Ok(())
}

/// Removes the entry here, if it is still there.
pub(super) fn take_out(draft: &mut Draft<'_, '_>, app: &AppId, seq: Seq) -> Result<(), Error> {
    let key = key::Timeline { app: app.clone(), seq };
    if draft.has(&key)? {
        let ends = key::TimelineBounds { app: app.clone() };
        let mut bounds = draft.expect(&ends)?;
        remove(draft, &key, &mut bounds)?;
        draft.put(&ends, &bounds);
    }
    Ok(())
}
