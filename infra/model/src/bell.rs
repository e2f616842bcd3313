//! Doorbells to access points: go and look. Losing one costs latency, never a message.

use serde::{Deserialize, Serialize};

use crate::{AppId, Epoch, MessageId, Ordinal, Ordinals, Seq, record::Record};

/// What a bell says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bell {
    /// The inboxes of these devices have grown.
    Inbox {
        /// Their app.
        app: AppId,
        /// The devices.
        devices: Ordinals,
    },
    /// The app's timeline has grown up to here.
    Timeline {
        /// The app.
        app: AppId,
        /// Its newest entry.
        head: Seq,
    },
    /// This message must not start on its way to anybody any more.
    Cancelled {
        /// Its app.
        app: AppId,
        /// The message.
        message: MessageId,
    },
    /// A newer session of this device exists: the older one must go.
    Superseded {
        /// The device's app.
        app: AppId,
        /// The device.
        device: Ordinal,
        /// The newer session; older ones close.
        epoch: Epoch,
    },
    /// Tokens of this device older than `generation` are revoked: a session opened with one must go.
    Revoked {
        /// The device's app.
        app: AppId,
        /// The device.
        device: Ordinal,
        /// The first generation that is still good.
        generation: u32,
    },
    /// Apps or their secrets have changed.
    Apps,
}

impl Record for Bell {
    const VERSION: u8 = 1;
}
