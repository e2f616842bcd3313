//! Groups: lists of devices that products send to, kept here or fetched from where the product keeps them.

use serde::{Deserialize, Serialize};

use crate::{Env, GroupId, Timestamp, record::Record};

/// A named list of devices; the members of one that is kept here lie beside it as [`Ordinals`](crate::Ordinals).
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
    /// Where its members are.
    #[serde(default, skip_serializing_if = "Source::is_static")]
    pub source: Source,
}

/// Where the members of a group are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Here.
    #[default]
    Static,
    /// At the product, which is asked when the group is sent to.
    Callback {
        /// Where to ask.
        url: String,
        /// How long an answer counts, in seconds.
        cache_s: u64,
    },
}

impl Source {
    /// Whether the members are kept here.
    pub fn is_static(&self) -> bool {
        *self == Self::Static
    }
}

impl Record for Group {
    const VERSION: u8 = 2;

    /// The second version says where members are fetched from. Who does not know that would find a group of nobody.
    fn version(&self) -> u8 {
        if self.source.is_static() { 1 } else { 2 }
    }
}
