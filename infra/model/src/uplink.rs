//! What devices send up.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{AppId, DeviceId, Env, MessageId, Reply, Timestamp, TraceParent, UplinkId, UserId, record::Record};

/// Something a device published to `push/{app}/up/{type}`, or the outcome of a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Uplink {
    /// Its id; grows with the time of arrival.
    pub id: UplinkId,
    /// Whose device sent it.
    pub app: AppId,
    /// The environment of that device: a key of the other one does not see it.
    pub env: Env,
    /// Which one.
    pub device: DeviceId,
    /// Whose device that is.
    pub user: Option<UserId>,
    /// Business type: the last level of the topic.
    #[serde(rename = "type")]
    pub kind: String,
    /// The command whose outcome it tells, when it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<MessageId>,
    /// Where an answer goes, when the device asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<Reply>,
    /// MIME type, when the device said one.
    pub content_type: Option<String>,
    /// The body.
    pub payload: Bytes,
    /// When it arrived.
    pub received_at: Timestamp,
    /// The journey it starts.
    pub trace: TraceParent,
}

impl Record for Uplink {
    const VERSION: u8 = 1;
}
