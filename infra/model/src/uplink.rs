//! What devices send up.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    AppId, DeviceId, Env, MessageId, Reply, Timestamp, TraceParent, UplinkId, UplinkName, UserId, record::Record, sign,
};

/// Something a device published to `push/{app}/up/{type}`, or the outcome of a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Uplink {
    /// Its id; grows with the time of arrival, unless the device named it: then it follows from the name.
    pub id: UplinkId,
    /// Whose device sent it.
    pub app: AppId,
    /// The environment of that device: a key of the other one does not see it.
    pub env: Env,
    /// Which one.
    pub device: DeviceId,
    /// Whose device that is.
    pub user: Option<UserId>,
    /// Business type: the last level of the topic.
    #[serde(rename = "type")]
    pub kind: String,
    /// The command whose outcome it tells, when it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<MessageId>,
    /// Where an answer goes, when the device asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<Reply>,
    /// MIME type, when the device said one.
    pub content_type: Option<String>,
    /// The body.
    pub payload: Bytes,
    /// When it arrived.
    pub received_at: Timestamp,
    /// The journey it starts.
    pub trace: TraceParent,
}

impl Record for Uplink {
    const VERSION: u8 = 1;
}

impl UplinkName {
    /// The id of what a device of this app calls so: the same whenever it arrives, unlike that of anything else.
    pub fn id(&self, (app, env): (&AppId, Env), device: &DeviceId) -> UplinkId {
        let named = sign::digest(&format!("{app}/{env}/{device}/{self}"));
        let mut id = [0; 16];
        id.copy_from_slice(&named[..16]);
        UplinkId::from_bytes(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_uplink_of_one_device() {
        let id = |app: &str, env, device: &str, name: &str| {
            let name: UplinkName = name.parse().unwrap();
            name.id((&app.parse().unwrap(), env), &device.parse().unwrap())
        };
        let named = id("demo", Env::Live, "dev-1", "a");
        assert_eq!(named, id("demo", Env::Live, "dev-1", "a"));
        assert_eq!(named.to_string().parse(), Ok(named));
        for other in [
            id("other", Env::Live, "dev-1", "a"),
            id("demo", Env::Test, "dev-1", "a"),
            id("demo", Env::Live, "dev-2", "a"),
            id("demo", Env::Live, "dev-1", "b"),
        ] {
            assert_ne!(named, other);
        }
    }
}
