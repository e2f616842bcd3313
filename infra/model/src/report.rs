//! What devices report about themselves.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{AppId, DeviceId, Ordinal, Timestamp, record::Record};

/// Longest patch a device may report, in bytes: room for every attribute and tag at its usual length.
pub const PATCH_MAX_BYTES: usize = 64 * 1024;

/// What a device published to `push/{app}/attr`: a change of its profile, on its way to the filter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Whose device sent it.
    pub app: AppId,
    /// Which one.
    pub device: DeviceId,
    /// Its number; a device that was removed and came back has another one, and this report is not about that one.
    pub ordinal: Ordinal,
    /// A JSON merge patch (RFC 7396) of its profile, as it came: nobody has looked inside.
    pub patch: Bytes,
    /// When it arrived.
    pub at: Timestamp,
}

impl Record for Report {
    const VERSION: u8 = 1;
}
