//! Where a device is connected: soft state, true only at the access point itself.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{NodeId, Timestamp};

/// The number of a session among all sessions of its device: the greater one wins everywhere.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch after `self` for a session that opens `now`: grows even when the route store forgot the last one.
    pub fn next(self, now: Timestamp) -> Self {
        Self(crate::Seq(self.0).next(now).0)
    }

    /// When the session was opened; later than that when two sessions of the device were opened in one moment.
    pub fn opened_at(self) -> Timestamp {
        crate::Seq(self.0).at()
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Which access point holds a device's session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The access point.
    pub node: NodeId,
    /// The session.
    pub epoch: Epoch,
}
