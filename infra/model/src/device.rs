//! Terminals.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{DeviceId, Env, Ordinal, Seen, Timestamp, UserId, record::Record};

/// What is known about a device besides its name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Profile {
    /// Whose device it is.
    pub user_id: Option<UserId>,
    /// Built-in text attributes: `platform`, `app_version`, `os_version`, `sdk`, `lang`, `tz`, `country`.
    pub built_in: BTreeMap<String, String>,
    /// Labels.
    pub tags: BTreeSet<String>,
    /// The app's own attributes, as JSON; moments and versions are marked as such.
    pub attributes: BTreeMap<String, String>,
    /// Its latest session, as far as access points have told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen: Option<Seen>,
}

/// A registered terminal of an app.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// Its name, chosen by the app.
    pub id: DeviceId,
    /// Its number, given at registration.
    pub ordinal: Ordinal,
    /// The environment of the key or token that registered it.
    pub env: Env,
    /// Generation of its tokens: older ones are revoked.
    pub generation: u32,
    /// When it was first registered.
    pub first_seen: Timestamp,
    /// What is known about it.
    pub profile: Profile,
}

impl Record for Device {
    const VERSION: u8 = 1;
}
