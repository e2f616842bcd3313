//! What a message is beyond its body: news, or something that wants or gives an answer.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{DeviceId, ReplyTo};

/// Longest correlation data, in bytes: enough for any id, and small beside a message.
pub const CORRELATION_MAX_BYTES: usize = 256;

/// What a message is beyond its body.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// News: whoever gets it need not answer.
    #[default]
    Message,
    /// An order to one device, which says what came of it. Its message's id names its only execution, and the message's
    /// end is the deadline: it is never begun later.
    Command {
        /// Who is to carry it out: nobody else's word on it counts.
        device: DeviceId,
    },
    /// The answer to what a device has asked.
    Answer(Reply),
    /// News from another device of the app.
    Peer {
        /// Who sent it, as the platform knows it.
        from: DeviceId,
    },
}

/// Where the answer to a device's request goes, as the device said it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The device's name for its request.
    pub to: ReplyTo,
    /// What the answer repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation: Option<Bytes>,
}

impl Class {
    /// Whether it is news, as most are.
    pub fn is_message(&self) -> bool {
        *self == Self::Message
    }

    /// The name in requests, answers, and what devices are told.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Command { .. } => "command",
            Self::Answer(_) => "answer",
            Self::Peer { .. } => "peer",
        }
    }
}
