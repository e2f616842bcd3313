//! Names of things. A name that parses is safe in a topic, a queue name, a store key and a log line.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use thiserror::Error;
use ulid::{ULID_LEN, Ulid};

/// Longest name a caller may choose, in bytes.
pub const NAME_MAX_BYTES: usize = 64;

/// Why a text is not an id; the message says what would be.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InvalidId {
    /// A name outside `[A-Za-z0-9_-]{1,64}`.
    #[error("{kind} must be 1 to {NAME_MAX_BYTES} of A-Z a-z 0-9 _ -")]
    Name {
        /// What was being parsed.
        kind: &'static str,
    },
    /// Not the typed prefix followed by a ULID.
    #[error("{kind} must be `{prefix}` and 26 characters of a ULID")]
    Ulid {
        /// What was being parsed.
        kind: &'static str,
        /// The prefix that was expected.
        prefix: &'static str,
    },
}

/// Declares a name that callers choose: shared, cheap to clone, checked on the way in.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
                let sized = (1..=NAME_MAX_BYTES).contains(&text.len());
                if sized && text.bytes().all(legal) { Ok(Self(text.into())) } else { Err(InvalidId::Name { kind: $kind }) }
            }
        }

        impl_text!($name);
        impl_schema!($name, format!("^[A-Za-z0-9_-]{{1,{NAME_MAX_BYTES}}}$"));
    };
}

/// Declares an id that the platform makes: a typed prefix and a ULID.
macro_rules! ulid_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Ulid);

        impl $name {
            /// Makes the id of something that comes to be `at` this time; `random` must be fresh.
            pub fn new(at: crate::Timestamp, random: u128) -> Self {
                Self(Ulid::from_parts(at.as_millis(), random))
            }

            /// The 16 bytes that order like the ids themselves.
            pub fn to_bytes(self) -> [u8; 16] {
                self.0.to_bytes()
            }

            /// The id whose [`to_bytes`](Self::to_bytes) gave these.
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Ulid::from_bytes(bytes))
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let ulid = text.strip_prefix($prefix).and_then(|ulid| Ulid::from_string(ulid).ok());
                ulid.map(Self).ok_or(InvalidId::Ulid { kind: $kind, prefix: $prefix })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($prefix)?;
                f.write_str(self.0.array_to_str(&mut [0; ULID_LEN]))
            }
        }

        impl_serde!($name);
        impl_schema!($name, concat!("^", $prefix, "[0-7][0-9A-Za-z]{25}$"));
    };
}

macro_rules! impl_text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl_serde!($name);
    };
}

macro_rules! impl_serde {
    ($name:ident) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

/// Describes an id by what it matches.
macro_rules! impl_schema {
    ($name:ident, $pattern:expr) => {
        #[cfg(feature = "schema")]
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                use utoipa::openapi::{ObjectBuilder, Type};
                ObjectBuilder::new().schema_type(Type::String).pattern(Some($pattern)).into()
            }
        }

        #[cfg(feature = "schema")]
        impl utoipa::ToSchema for $name {}
    };
}

name! {
    /// A tenant of the platform.
    AppId, "an app id"
}
name! {
    /// A terminal of an app, named by the app; also its MQTT client id.
    DeviceId, "a device id"
}
name! {
    /// A device's name for something it asks: the last level of the topic that the answer comes by.
    ReplyTo, "a name for a request"
}
name! {
    /// A user of an app, named by the app; one user may have many devices.
    UserId, "a user id"
}
name! {
    /// A running process of Fanfare.
    NodeId, "a node id"
}
name! {
    /// What a device calls something that it sends up: the same name means the same thing for as long as uplinks are kept.
    UplinkName, "the id of an uplink"
}
ulid_id! {
    /// What a product sent; the same id always means the same message.
    MessageId, "a message id", "msg_"
}
ulid_id! {
    /// A static group of devices.
    GroupId, "a group id", "grp_"
}
ulid_id! {
    /// A saved audience: a filter, or a list of devices.
    AudienceId, "an audience id", "aud_"
}
ulid_id! {
    /// Work that takes longer than a request should, such as an import.
    JobId, "a job id", "job_"
}
ulid_id! {
    /// Something a device sent up.
    UplinkId, "an uplink id", "upl_"
}
ulid_id! {
    /// An HTTP request, for the support desk.
    RequestId, "a request id", "req_"
}

/// The public half of an API key: `ak_<env>_<ULID>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId {
    /// Which devices the key can reach.
    pub env: crate::Env,
    /// What makes it unique.
    pub ulid: Ulid,
}

impl KeyId {
    /// Makes the id of a key for `env`; `random` must be fresh.
    pub fn new(env: crate::Env, at: crate::Timestamp, random: u128) -> Self {
        Self { env, ulid: Ulid::from_parts(at.as_millis(), random) }
    }
}

impl FromStr for KeyId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let parse = || {
            let (env, ulid) = text.strip_prefix("ak_")?.split_once('_')?;
            Some(Self { env: env.parse().ok()?, ulid: Ulid::from_string(ulid).ok()? })
        };
        parse().ok_or(InvalidId::Ulid { kind: "a key id", prefix: "ak_live_` or `ak_test_" })
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ak_{}_{}", self.env, self.ulid)
    }
}

impl_serde!(KeyId);
impl_schema!(KeyId, "^ak_(live|test)_[0-7][0-9A-Za-z]{25}$");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Env, Timestamp};

    #[test]
    fn names_take_only_what_is_safe_everywhere() {
        for good in ["a", "dev-1", "A_b-9", &"x".repeat(64)] {
            assert_eq!(good.parse::<DeviceId>().unwrap().as_str(), good);
        }
        for bad in ["", "a/b", "a.b", "#", "+", "a b", "é", "$SYS", "a\0", &"x".repeat(65)] {
            assert!(bad.parse::<DeviceId>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn made_ids_print_and_parse_and_order_by_time() {
        let early = MessageId::new(Timestamp::from_millis(1_000), 7);
        let late = MessageId::new(Timestamp::from_millis(2_000), 3);
        assert!(early < late && early.to_bytes() < late.to_bytes());
        assert_eq!(early.to_string().parse::<MessageId>(), Ok(early));
        assert_eq!(MessageId::from_bytes(late.to_bytes()), late);
        assert!("grp_01JD7Q2Z4M8V6T3K5N9R0WXYEC".parse::<MessageId>().is_err());
    }

    #[test]
    fn a_key_id_names_its_environment() {
        let id: KeyId = "ak_test_01JD7Q2Z4M8V6T3K5N9R0WXYEC".parse().unwrap();
        assert_eq!(id.env, Env::Test);
        assert_eq!(id.to_string(), "ak_test_01JD7Q2Z4M8V6T3K5N9R0WXYEC");
        assert!("ak_prod_01JD7Q2Z4M8V6T3K5N9R0WXYEC".parse::<KeyId>().is_err());
    }
}
