//! Messages as their senders see them: accepted once, dispatched once, cancelled, looked up.

use std::collections::BTreeMap;

use async_trait::async_trait;
use model::{AppId, Class, Env, Lane, Message, MessageId, Tally, Timestamp, TraceParent};
use serde::{Deserialize, Serialize};

use crate::Error;

/// How long a message's entry and tally are kept after it was created, if it does not expire later: 28 days.
pub const KEPT: std::time::Duration = std::time::Duration::from_hours(28 * 24);

/// What is kept of a message besides its body.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The message.
    pub id: MessageId,
    /// The kind of sending.
    pub lane: Lane,
    /// Whose devices it can reach.
    pub env: Env,
    /// Business type.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it is beyond its body.
    #[serde(default, skip_serializing_if = "Class::is_message")]
    pub class: Class,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// Not delivered after this.
    pub expires_at: Timestamp,
    /// Until then it can wait for its devices to be awake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at: Option<Timestamp>,
    /// The product's own notes.
    pub metadata: BTreeMap<String, String>,
    /// The journey it belongs to.
    pub trace: TraceParent,
    /// When its entries were appended to streams.
    pub dispatched_at: Option<Timestamp>,
    /// When it was cancelled.
    pub cancelled_at: Option<Timestamp>,
    /// Why it could not be dispatched, for people.
    pub failed: Option<String>,
}

impl From<&Message> for Entry {
    /// The entry of a message to which nothing has happened yet.
    fn from(message: &Message) -> Self {
        Self {
            id: message.id,
            lane: message.lane,
            env: message.env,
            kind: message.kind.clone(),
            class: message.class.clone(),
            created_at: message.created_at,
            expires_at: message.expires_at,
            due_at: message.due_at,
            metadata: message.metadata.clone(),
            trace: message.trace,
            dispatched_at: None,
            cancelled_at: None,
            failed: None,
        }
    }
}

/// A sender's promise to mean the same message whenever it uses this key within 24 hours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Once {
    /// The key; apps do not share keys.
    pub key: String,
    /// SHA-256 of the request's meaning.
    pub fingerprint: [u8; 32],
    /// The answer that was given, to be given again.
    pub answer: String,
}

/// What an idempotency key was used for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// The first message.
    pub message: MessageId,
    /// SHA-256 of what its request meant.
    pub fingerprint: [u8; 32],
    /// The answer that was given.
    pub answer: String,
    /// Forgotten from then on.
    pub until: Timestamp,
}

impl Promise {
    /// Whether it is remembered at this time.
    pub fn counts(&self, now: Timestamp) -> bool {
        now < self.until
    }
}

/// How long an idempotency key is remembered.
pub const ONCE_KEPT: std::time::Duration = std::time::Duration::from_hours(24);

/// What became of an attempt to accept a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It is a new one.
    New,
    /// The key was used for this message, with the same meaning; this was its answer.
    Before(MessageId, String),
    /// The key was used for a message with another meaning.
    Reused,
}

/// What a cancel did.
#[derive(Clone, Debug, PartialEq)]
pub struct Cancelled {
    /// How many devices will not get it any more because it was called back, as far as is known.
    pub stopped: u64,
    /// Its entry.
    pub entry: Entry,
    /// Its tally after the cancel.
    pub tally: Tally,
}

/// Messages as their senders see them. Durable when a call returns.
#[async_trait]
pub trait Messages: Send + Sync {
    /// Keeps a message's entry and, in the same step, its sender's idempotency key.
    ///
    /// The same key with the same fingerprint within [`ONCE_KEPT`] gives [`Accepted::Before`] with the first message
    /// and answer, with another fingerprint [`Accepted::Reused`]; in both cases nothing changes.
    async fn accept(&self, app: &AppId, entry: Entry, once: Option<Once>) -> Result<Accepted, Error>;

    /// What an idempotency key was used for, unless its time is over by now. Where this says nothing, whoever uses the
    /// key next may still be told [`Accepted::Before`]: somebody else may have come first.
    async fn promised(&self, app: &AppId, key: &str, now: Timestamp) -> Result<Option<Promise>, Error>;

    /// The entry of a message of this app.
    async fn entry(&self, app: &AppId, id: MessageId) -> Result<Option<Entry>, Error>;

    /// At most `limit` entries before the message `before` (or from the newest), newest first.
    async fn entries(&self, app: &AppId, before: Option<MessageId>, limit: usize) -> Result<Vec<Entry>, Error>;

    /// Calls a message back: whoever has not been sent it will not get it. Entries leave the inboxes (their numbers
    /// are not used again) and the timeline's entry is marked; a message still on the broker will not be appended.
    /// Devices it was not sent to are counted as cancelled. `None` when there is no such message; cancelling again, or
    /// when the message has expired, changes nothing.
    async fn cancel(&self, app: &AppId, id: MessageId, now: Timestamp) -> Result<Option<Cancelled>, Error>;

    /// Notes why a message could not be dispatched. Nothing when it was dispatched, or is not known.
    async fn fail(&self, app: &AppId, id: MessageId, reason: String) -> Result<(), Error>;
}
