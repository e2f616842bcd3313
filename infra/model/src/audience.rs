//! Whom a message is for, before it is resolved to a set of devices.

use serde::{Deserialize, Serialize};

use crate::{GroupId, Ordinal, Ordinals};

/// Whom a message is for, as it travels on the broker.
///
/// Ingest has turned the ids it was given into ordinals (it must, to answer which are unknown); what has to be
/// looked up as a set is resolved by the dispatcher and frozen there as [`Ordinals`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    /// One device.
    One(Ordinal),
    /// These devices.
    Devices(Ordinals),
    /// The members of a static group.
    Group(GroupId),
    /// Whoever the expression selects; its text is known only to the filter tier.
    Filter(String),
    /// Every device registered when the message was accepted: those with an ordinal below this count.
    All {
        /// The registry's count at that moment.
        below: u32,
    },
}
