//! Who gets nothing, or nothing of some type.

use serde::{Deserialize, Serialize};

use crate::{
    DeviceId, Ordinals, Timestamp, UserId,
    record::Record,
    shelved::{Shelf, Shelved},
};

/// Who is meant by a suppression: names, so that a device that comes back is meant still.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Suppressed {
    /// A device.
    Device(DeviceId),
    /// Every device of a user.
    User(UserId),
}

impl Suppressed {
    /// The name on the shelf.
    pub fn name(&self) -> String {
        match self {
            Self::Device(id) => format!("device:{id}"),
            Self::User(id) => format!("user:{id}"),
        }
    }
}

/// Somebody who gets nothing from an app.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Suppression {
    /// Who.
    pub who: Suppressed,
    /// Since when.
    pub created_at: Timestamp,
    /// Until when; for good when there is none.
    pub expires_at: Option<Timestamp>,
}

impl Suppression {
    /// Whether it holds at this moment.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }
}

impl Record for Suppression {
    const VERSION: u8 = 1;
}

impl Shelved for Suppression {
    const SHELF: Shelf = Shelf::Suppressions;
}

/// The devices that want no messages of one type.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OptOut(pub Ordinals);

impl Record for OptOut {
    const VERSION: u8 = 1;
}

impl Shelved for OptOut {
    const SHELF: Shelf = Shelf::OptOuts;
}
