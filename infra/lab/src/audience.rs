//! Whom a sender asks for, in the words of the API. The checker works out from it who must get the message.

use model::{DeviceId, GroupId, UserId};
use serde::{Deserialize, Serialize};

/// The field `to` of a send.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    /// Every registered device.
    All,
    /// These devices.
    Devices(Vec<DeviceId>),
    /// The devices of these users.
    Users(Vec<UserId>),
    /// The members of a static group.
    Group(GroupId),
    /// Whoever carries this tag: the one filter whose answer the lab knows without asking the filter tier.
    #[serde(rename = "filter", with = "tag_filter")]
    Tag(String),
}

impl Audience {
    /// One device.
    pub fn device(device: &DeviceId) -> Self {
        Self::Devices(vec![device.clone()])
    }
}

/// A tag as the audience language writes it: `tag("vip")`.
mod tag_filter {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(tag: &str, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("tag(\"{tag}\")"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
        let text = String::deserialize(deserializer)?;
        let tag = text.strip_prefix("tag(\"").and_then(|rest| rest.strip_suffix("\")"));
        tag.map(str::to_owned).ok_or_else(|| D::Error::custom("the lab filters by one tag only"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_audience_is_written_as_the_api_wants_it() {
        let json = |audience: &Audience| serde_json::to_string(audience).unwrap();
        let device: DeviceId = "dev-1".parse().unwrap();
        assert_eq!(json(&Audience::All), r#""all""#);
        assert_eq!(json(&Audience::device(&device)), r#"{"devices":["dev-1"]}"#);
        let tagged = Audience::Tag("vip".into());
        assert_eq!(json(&tagged), r#"{"filter":"tag(\"vip\")"}"#);
        assert_eq!(serde_json::from_str::<Audience>(&json(&tagged)).unwrap(), tagged);
    }
}
