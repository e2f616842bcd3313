//! Moving devices away from an access point, as it is ordered and told.

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// All of a node's devices, in thousandths.
pub const ALL_PERMILLE: u16 = 1_000;

/// What moving devices away from an access point has come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// When it was ordered, which also names the order.
    pub ordered_at: Timestamp,
    /// Devices told to go, a second.
    pub rate_per_s: u32,
    /// The part of the devices that is to go, in thousandths. When all are, none is let in any more.
    pub permille: u16,
    /// How far it is.
    pub state: DrainState,
    /// Devices that are to go.
    pub sessions: u64,
    /// Of them: told to go.
    pub evicted: u64,
    /// Of those: at another access point.
    pub moved: u64,
    /// Messages that they had not acked, left to whoever serves them next.
    pub unacked: u64,
    /// Of these: neither acked since nor there any more, though they have not expired.
    pub lost: u64,
    /// The longest that one of those who moved was nowhere, in milliseconds.
    pub longest_gap_ms: u64,
}

impl Drain {
    /// Whether no device is let in any more.
    pub fn closes(&self) -> bool {
        self.permille >= ALL_PERMILLE && self.state != DrainState::Revoked
    }
}

/// How far a drain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DrainState {
    /// Devices are told to go.
    Draining,
    /// All are told; where they come to is looked at.
    Watching,
    /// All have come to another place, or are given up.
    Done,
    /// The order was taken back.
    Revoked,
}
