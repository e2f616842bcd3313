//! The stream of one device, kept as one short record: its last number and what is pending.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use async_trait::async_trait;
use model::{AppId, Message, MessageId, Ordinal, Ordinals, Placed, Seq, Tally, Timestamp, record::Record};
use serde::{Deserialize, Serialize};

use super::{
    Embedded, key,
    messages::{self, Stream},
    receipts,
    table::{Draft, Read as _},
};
use crate::{Appended, Error, Inbox, InboxAppend, InboxAppended, InboxEntry, inbox::INBOX_MAX};

/// The inbox of a device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Pending {
    /// The last number given; stays when the entries go.
    head: Seq,
    /// Oldest first.
    entries: VecDeque<Item>,
}

impl Record for Pending {
    const VERSION: u8 = 1;
}

/// An entry: the body lies with the message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Packed", into = "Packed")]
struct Item {
    seq: Seq,
    message: MessageId,
    expires_at: Timestamp,
    collapse_key: Option<String>,
}

/// An entry as it is written: without the names of its fields, the id as its 16 bytes. An inbox is rewritten with every
/// change.
type Packed = (Seq, u128, Timestamp, Option<String>);

impl From<Packed> for Item {
    fn from((seq, message, expires_at, collapse_key): Packed) -> Self {
        Self { seq, message: MessageId::from_bytes(message.to_be_bytes()), expires_at, collapse_key }
    }
}

impl From<Item> for Packed {
    fn from(Item { seq, message, expires_at, collapse_key }: Item) -> Self {
        (seq, u128::from_be_bytes(message.to_bytes()), expires_at, collapse_key)
    }
}

impl Pending {
    /// Adds an entry at the end; what had to go for it is noted in `gone`.
    fn append(&mut self, device: Ordinal, message: &Message, now: Timestamp, gone: &mut Gone) -> Placed {
        self.entries.retain(|item| item.expires_at > now);
        if message.collapse_key.is_some() {
            self.entries.retain(|item| {
                let replaced = item.collapse_key == message.collapse_key;
                if replaced {
                    gone.collapsed.entry(item.message).or_default().insert(device);
                }
                !replaced
            });
        }
        let before = self.head;
        self.head = before.next(now);
        self.entries.push_back(Item {
            seq: self.head,
            message: message.id,
            expires_at: message.expires_at,
            collapse_key: message.collapse_key.clone(),
        });
        while self.entries.len() > INBOX_MAX {
            if let Some(oldest) = self.entries.pop_front() {
                gone.truncated.entry(oldest.message).or_default().insert(device);
            }
        }
        Placed { device, before, seq: self.head }
    }

    /// Removes everything up to `prefix`; whether that was anything.
    pub(super) fn acked(&mut self, prefix: Seq) -> bool {
        let before = self.entries.len();
        self.entries.retain(|item| item.seq > prefix);
        self.entries.len() < before
    }
}

/// Entries that left for others, by message: gathered so that each tally is changed once.
#[derive(Default)]
struct Gone {
    truncated: HashMap<MessageId, Ordinals>,
    collapsed: HashMap<MessageId, Ordinals>,
}

impl Gone {
    fn note(self, draft: &mut Draft<'_, '_>, app: &AppId) -> Result<(), Error> {
        let mut note = |gone: HashMap<_, _>, place: fn(&mut Tally) -> &mut Ordinals| {
            gone.into_iter().try_for_each(|(message, devices)| {
                receipts::amend(draft, app, message, |tally| *place(tally) |= &devices)
            })
        };
        note(self.truncated, |tally| &mut tally.truncated)?;
        note(self.collapsed, |tally| &mut tally.cancelled)
    }
}

#[async_trait]
impl Inbox for Embedded {
    async fn append_inbox(&self, appends: Vec<InboxAppend>, now: Timestamp) -> Result<Vec<InboxAppended>, Error> {
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

    async fn inbox_after(
        &self,
        app: &AppId,
        device: Ordinal,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<InboxEntry>, Error> {
        let view = self.view();
        let pending = view.get(&key::Inbox { app: app.clone(), device })?.unwrap_or_default();
        let wanted = pending.entries.into_iter().filter(|item| item.seq > after).take(limit);
        let entries = wanted.map(|item| {
            let message = view.expect(&key::Body { app: app.clone(), message: item.message })?;
            Ok(InboxEntry { seq: item.seq, message: Arc::new(message) })
        });
        entries.collect()
    }

    async fn inbox_heads(&self, app: &AppId, devices: &[Ordinal]) -> Result<Vec<Seq>, Error> {
        let view = self.view();
        let head = |&device| Ok(view.get(&key::Inbox { app: app.clone(), device })?.unwrap_or_default().head);
        devices.iter().map(head).collect()
    }
}

fn append(draft: &mut Draft<'_, '_>, append: &InboxAppend, now: Timestamp) -> Result<InboxAppended, Error> {
    let InboxAppend { message, devices } = append;
    let outcome = messages::dispatch(draft, message, devices, Stream::Inboxes, now)?;
    let mut places = Vec::new();
    if outcome == Appended::New {
        let mut gone = Gone::default();
        for device in devices.iter() {
            let key = key::Inbox { app: message.app.clone(), device };
            let mut pending = draft.get(&key)?.unwrap_or_default();
            places.push(pending.append(device, message, now, &mut gone));
            draft.put(&key, &pending);
        }
        gone.note(draft, &message.app)?;
    }
    Ok(InboxAppended { outcome, places })
}

/// Removes the entries of a message from these inboxes; their numbers stay given.
pub(super) fn take_out(
    draft: &mut Draft<'_, '_>,
    app: &AppId,
    devices: &Ordinals,
    message: MessageId,
) -> Result<(), Error> {
    for device in devices.iter() {
        let key = key::Inbox { app: app.clone(), device };
        let Some(mut pending) = draft.get(&key)? else { continue };
        let before = pending.entries.len();
        pending.entries.retain(|item| item.message != message);
        if pending.entries.len() < before {
            draft.put(&key, &pending);
        }
    }
    Ok(())
}
