//! Doorbells to access points: go and look. Losing one costs latency, never a message.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{AppId, Epoch, Message, MessageId, NodeId, Ordinal, Ordinals, Seq, Timestamp, record::Record};

/// Between two pulses of a node that rings: with two of them missed there is time left in the two seconds after which a
/// cancel has come everywhere.
pub const PULSE_EVERY: Duration = Duration::from_millis(500);

/// Where an entry stands in an inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// Whose inbox.
    pub device: Ordinal,
    /// The last number that was given in it before; zero when there was none.
    pub before: Seq,
    /// The entry's.
    pub seq: Seq,
}

/// A message that a bell carries, so that whoever was at the entry before it need not look.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Carried {
    /// The message.
    pub message: Message,
    /// Where it stands.
    pub places: Vec<Placed>,
}

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
    /// Inboxes have grown by these entries. It is good for a moment only, since entries leave inboxes too; after that it
    /// says no more than [`Bell::Inbox`].
    Entries {
        /// Their app.
        app: AppId,
        /// When it was rung.
        at: Timestamp,
        /// The entries.
        entries: Vec<Carried>,
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
    /// This node rings, and whoever hears this hears what it rings.
    Pulse {
        /// The node.
        node: NodeId,
        /// Bells that it could not ring so far.
        dropped: u64,
    },
    /// Apps or their secrets have changed.
    Apps,
    /// An access point must tell devices to go elsewhere.
    Drain {
        /// The access point.
        node: NodeId,
        /// When this was ordered: an order that is known already is not another one.
        ordered_at: Timestamp,
        /// Devices told to go, a second.
        rate_per_s: u32,
        /// The part of them that is to go, in thousandths.
        permille: u16,
    },
    /// An access point must let devices stay, and come in again.
    Undrain {
        /// The access point.
        node: NodeId,
    },
}

impl Record for Bell {
    const VERSION: u8 = 1;
}
