//! Static groups: lists of devices that products keep here to send to.

use serde::{Deserialize, Serialize};

use crate::{Env, GroupId, Timestamp, record::Record};

/// A named list of devices; its members are kept beside it as [`Ordinals`](crate::Ordinals).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Its id.
    pub id: GroupId,
    /// What people call it.
    pub name: String,
    /// Whose devices it may hold.
    pub env: Env,
    /// When it was created.
    pub created_at: Timestamp,
}

impl Record for Group {
    const VERSION: u8 = 1;
}
