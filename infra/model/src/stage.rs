//! The life of a message: as a whole, and for one device.

use serde::{Deserialize, Serialize};

/// How far a message has come for one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Waits for the device, or for its turn.
    Queued,
    /// Can wait until the device, which is connected, is awake anyway. Never kept: `Queued` of a message that can wait.
    HeldOnWake,
    /// Was written to the device, which has not answered.
    Sent,
    /// The device has it.
    Acked,
    /// The device refused it, or could not have taken it.
    Rejected,
    /// Its time was over before the device had it.
    Expired,
    /// It was called back before the device had it.
    Cancelled,
    /// It fell off the end of a stream before the device came.
    Truncated,
    /// The device was not in the audience.
    NotTargeted,
    /// No such device.
    UnknownDevice,
}

impl Stage {
    /// Whether nothing more can happen.
    pub fn is_terminal(self) -> bool {
        !matches!(self, Self::Queued | Self::HeldOnWake | Self::Sent)
    }
}

/// How far a message has come as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Accepted, and durable on the broker.
    Queued,
    /// In the streams of its audience.
    Delivering,
    /// Every target is acked, rejected, expired, cancelled or truncated.
    Completed,
    /// Called back.
    Cancelled,
    /// Its time was over before it reached a stream.
    Expired,
    /// It could not be dispatched; it lies with the dead letters.
    Failed,
}
