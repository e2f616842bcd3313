//! The first level of routing: the kind of sending.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How many a message is for; kinds never block each other. Shown to users as `mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// One device.
    Unicast,
    /// A list, a user's devices, or a group.
    Multicast,
    /// Everybody, or whoever a filter selects.
    Broadcast,
}

impl Lane {
    /// All lanes, in order of service.
    pub const ALL: [Self; 3] = [Self::Unicast, Self::Multicast, Self::Broadcast];

    /// The lane's name in queue names, JSON and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unicast => "unicast",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
