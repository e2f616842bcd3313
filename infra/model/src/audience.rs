//! Whom a message is for: as its sender says it, and as it was decided when it was frozen.

use serde::{Deserialize, Serialize};

use crate::{
    AudienceId, GroupId, Ordinal, Ordinals, Timestamp,
    record::Record,
    shelved::{Shelf, Shelved},
};

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

/// What narrows an audience when it is frozen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Terms {
    /// Only devices that this expression selects.
    pub only: Option<String>,
    /// Who is taken out then, in this order.
    pub except: Vec<Except>,
}

impl Terms {
    /// Whether they change nothing.
    pub fn are_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Devices that are taken out of an audience.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Except {
    /// Why.
    pub why: Exclusion,
    /// Which.
    pub who: Excluded,
}

/// Why a device is taken out of an audience.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Exclusion {
    /// The sender named it.
    Devices,
    /// The sender named its user.
    Users,
    /// It has a tag that the sender named.
    Tags,
    /// It is in a group that the sender named.
    Groups,
    /// It is in a saved audience that the sender named.
    Audiences,
    /// It satisfies the sender's expression.
    Filter,
    /// It, or its user, gets nothing from this app.
    Suppressions,
    /// It wants no messages of this type.
    OptOuts,
    /// It has had as many of this type as it may in this span of time.
    FrequencyCap,
    /// Where it is, these are hours in which it is left in peace.
    QuietHours,
}

impl Exclusion {
    /// The name in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Devices => "devices",
            Self::Users => "users",
            Self::Tags => "tags",
            Self::Groups => "groups",
            Self::Audiences => "audiences",
            Self::Filter => "filter",
            Self::Suppressions => "suppressions",
            Self::OptOuts => "opt_outs",
            Self::FrequencyCap => "frequency_cap",
            Self::QuietHours => "quiet_hours",
        }
    }
}

/// Which devices are taken out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Excluded {
    /// These.
    Listed(Ordinals),
    /// Whoever the expression selects.
    Filter(String),
}

/// What was decided when an audience was frozen: a note that answers why a device did not get a message.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Aim {
    /// The expression that a device had to satisfy; `None` when none was asked for.
    pub wanted: Option<String>,
    /// Who was taken out, and why; each device once.
    pub excluded: Vec<(Exclusion, Ordinals)>,
    /// When.
    pub at: Timestamp,
}

impl Record for Aim {
    const VERSION: u8 = 1;
}

impl Shelved for Aim {
    const SHELF: Shelf = Shelf::Aims;
}

/// An audience that people keep to send to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedAudience {
    /// Its id.
    pub id: AudienceId,
    /// What people call it.
    pub name: String,
    /// Whom it means.
    pub means: Means,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed, its list included.
    pub updated_at: Timestamp,
}

/// Whom a saved audience means.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Means {
    /// Whoever this expression selects at the time.
    Filter(String),
    /// Its [`Members`]: this many.
    List(u64),
}

impl Record for SavedAudience {
    const VERSION: u8 = 1;
}

impl Shelved for SavedAudience {
    const SHELF: Shelf = Shelf::Audiences;
}

/// The devices of a saved list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Members(pub Ordinals);

impl Record for Members {
    const VERSION: u8 = 1;
}

impl Shelved for Members {
    const SHELF: Shelf = Shelf::Members;
}
