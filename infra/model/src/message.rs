//! What a product sends.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{AppId, Class, Env, Lane, MessageId, Timestamp, TraceParent, record::Record};

/// Order of service within a lane and an app.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// After the rest.
    Low,
    /// In turn.
    #[default]
    Normal,
    /// Before the rest.
    High,
}

/// What a product sends, ready to be delivered to whoever it is for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Its id, made when it was accepted.
    pub id: MessageId,
    /// Whose devices it is for.
    pub app: AppId,
    /// Which of them it can reach.
    pub env: Env,
    /// The kind of sending.
    pub lane: Lane,
    /// Business type: the last level of the topic, `[a-z0-9_-]{1,32}`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it is beyond its body.
    #[serde(default, skip_serializing_if = "Class::is_message")]
    pub class: Class,
    /// The body, as devices get it.
    pub payload: Bytes,
    /// MIME type of the body; `application/json` for inline JSON.
    pub content_type: String,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// Not delivered after this.
    pub expires_at: Timestamp,
    /// It can wait until its device is awake anyway, but not longer than this; absent: it goes at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at: Option<Timestamp>,
    /// Order of service.
    pub priority: Priority,
    /// The newest pending message with this key replaces the older ones.
    pub collapse_key: Option<String>,
    /// The product's own notes; never sent to devices.
    pub metadata: BTreeMap<String, String>,
    /// The journey it belongs to.
    pub trace: TraceParent,
}

impl Message {
    /// Whether it must not be delivered any more.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now >= self.expires_at
    }
}

impl Record for Message {
    const VERSION: u8 = 1;
}
