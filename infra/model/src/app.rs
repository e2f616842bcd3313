//! Tenants and their keys.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{AppId, KeyId, Timestamp, record::Record};

/// Which devices something belongs to: a test key can never reach a live device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Env {
    /// Real devices of real people.
    Live,
    /// Devices for trying things out.
    Test,
}

impl fmt::Display for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Live => "live",
            Self::Test => "test",
        })
    }
}

impl FromStr for Env {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "live" => Ok(Self::Live),
            "test" => Ok(Self::Test),
            other => Err(format!("{other:?} is neither `live` nor `test`")),
        }
    }
}

/// What an app may do at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Limits {
    /// Targeted devices per second, on average.
    pub recipients_per_s: u32,
    /// Targeted devices at once; a broadcast to more counts as this many.
    pub recipients_burst: u32,
}

impl Default for Limits {
    /// Roomy for one machine: what its access point delivers in about a second.
    fn default() -> Self {
        Self { recipients_per_s: 50_000, recipients_burst: 100_000 }
    }
}

/// What the devices of an app may send up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct UplinkRules {
    /// The types; any, when absent.
    pub types: Option<BTreeSet<String>>,
    /// Messages of one device per second, on average.
    pub device_per_s: u32,
    /// Messages of one device at once.
    pub device_burst: u32,
    /// Messages of one type per second, of all devices together.
    pub type_per_s: u32,
    /// Whether they may send to each other.
    #[serde(default)]
    pub peers: bool,
}

impl UplinkRules {
    /// Whether devices may send this type.
    pub fn allow(&self, kind: &str) -> bool {
        self.types.as_ref().is_none_or(|types| types.contains(kind))
    }
}

impl Default for UplinkRules {
    /// Roomy for a device that reports about itself, and within what one machine keeps.
    fn default() -> Self {
        Self { types: None, device_per_s: 100, device_burst: 200, type_per_s: 10_000, peers: false }
    }
}

/// A tenant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct App {
    /// Its name everywhere.
    pub id: AppId,
    /// When it was created.
    pub created_at: Timestamp,
    /// The secret that signs its devices' tokens (HS256); apps that mint tokens themselves know it.
    pub device_secret: String,
    /// Its limits.
    pub limits: Limits,
    /// What its devices may send up.
    #[serde(default)]
    pub uplink: UplinkRules,
}

impl Record for App {
    const VERSION: u8 = 1;
}

/// What a key allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Scope {
    /// Sends in the lanes unicast and multicast.
    #[serde(rename = "messages:send")]
    Send,
    /// Sends in the lane broadcast: apart, because a leaked send key must not be a broadcast to everybody.
    #[serde(rename = "messages:send:broadcast")]
    SendBroadcast,
    /// `priority: high` in the lane broadcast.
    #[serde(rename = "messages:send:high")]
    SendHigh,
    /// Message state and receipts.
    #[serde(rename = "messages:read")]
    Read,
    /// Devices and their tokens.
    #[serde(rename = "devices:write")]
    Devices,
    /// Groups and audiences.
    #[serde(rename = "audiences:write")]
    Audiences,
    /// What devices send up.
    #[serde(rename = "uplink:read")]
    Uplink,
    /// Figures.
    #[serde(rename = "stats:read")]
    Stats,
    /// Apps and keys.
    #[serde(rename = "admin")]
    Admin,
}

impl Scope {
    /// Every scope but [`Scope::Admin`]: what the first key of an app gets.
    pub const PRODUCT: [Self; 8] = [
        Self::Send,
        Self::SendBroadcast,
        Self::SendHigh,
        Self::Read,
        Self::Devices,
        Self::Audiences,
        Self::Uplink,
        Self::Stats,
    ];

    /// The name in configuration, answers and problems.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Send => "messages:send",
            Self::SendBroadcast => "messages:send:broadcast",
            Self::SendHigh => "messages:send:high",
            Self::Read => "messages:read",
            Self::Devices => "devices:write",
            Self::Audiences => "audiences:write",
            Self::Uplink => "uplink:read",
            Self::Stats => "stats:read",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = Self::PRODUCT.into_iter().chain([Self::Admin]);
        all.into_iter().find(|scope| scope.as_str() == text).ok_or_else(|| format!("{text:?} is not a scope"))
    }
}

/// An API key as the platform keeps it: without its secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Key {
    /// The public half.
    pub id: KeyId,
    /// Whose it is; the only source of the app of a request.
    pub app: AppId,
    /// SHA-256 of the secret half.
    pub digest: [u8; 32],
    /// What it allows.
    pub scopes: Vec<Scope>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends; `None` for one that lasts.
    pub expires_at: Option<Timestamp>,
}

impl Record for Key {
    const VERSION: u8 = 1;
}
