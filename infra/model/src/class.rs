//! What a message is beyond its body: news, or something that wants an answer.

use serde::{Deserialize, Serialize};

use crate::DeviceId;

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
        }
    }
}
