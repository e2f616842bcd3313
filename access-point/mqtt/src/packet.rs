//! The packets that Fanfare exchanges with devices, the same values on both sides of the link and in both versions.
//! What a version cannot say is left out when it is written.

use bytes::Bytes;

use crate::wire::Version;

/// The 3.1.1 return code for everything that may pass.
const CONNACK_V311_UNAVAILABLE: u8 = 3;

/// An MQTT 5 reason code. MQTT 3.1.1 knows only a few of them, and says those in its own numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Reason(pub u8);

impl Reason {
    /// Done.
    pub const SUCCESS: Self = Self(0x00);
    /// Granted with QoS 1.
    pub const GRANTED_QOS1: Self = Self(0x01);
    /// Taken, though nobody waits for it.
    pub const NO_SUBSCRIBERS: Self = Self(0x10);
    /// Failed, no more to say.
    pub const UNSPECIFIED: Self = Self(0x80);
    /// Not a packet of the protocol.
    pub const MALFORMED: Self = Self(0x81);
    /// A packet that should not have come here and now.
    pub const PROTOCOL_ERROR: Self = Self(0x82);
    /// Not now.
    pub const IMPLEMENTATION: Self = Self(0x83);
    /// Another version of MQTT.
    pub const UNSUPPORTED_VERSION: Self = Self(0x84);
    /// Not a device id.
    pub const BAD_CLIENT_ID: Self = Self(0x85);
    /// Not the form of credentials, or an unknown app.
    pub const BAD_CREDENTIALS: Self = Self(0x86);
    /// Not allowed.
    pub const NOT_AUTHORIZED: Self = Self(0x87);
    /// Not wanted here.
    pub const BANNED: Self = Self(0x8A);
    /// The server goes down; come back.
    pub const SHUTTING_DOWN: Self = Self(0x8B);
    /// Enhanced authentication is not offered.
    pub const BAD_AUTH_METHOD: Self = Self(0x8C);
    /// Nothing was heard for too long.
    pub const KEEP_ALIVE_TIMEOUT: Self = Self(0x8D);
    /// A newer session of the same device exists.
    pub const TAKEN_OVER: Self = Self(0x8E);
    /// Not a topic to publish to.
    pub const TOPIC_INVALID: Self = Self(0x90);
    /// Larger than allowed.
    pub const TOO_LARGE: Self = Self(0x95);
    /// More than allowed.
    pub const QUOTA_EXCEEDED: Self = Self(0x97);
    /// An administrator's doing: a revoked token.
    pub const ADMINISTRATIVE: Self = Self(0x98);
    /// The payload is not what the topic asks for.
    pub const BAD_PAYLOAD: Self = Self(0x99);
    /// Come back at another server, for now.
    pub const USE_ANOTHER_SERVER: Self = Self(0x9C);
    /// Only QoS 0 and 1 are offered.
    pub const QOS_UNSUPPORTED: Self = Self(0x9B);
    /// The token with which the link was opened has ended: come back with another.
    pub const TOKEN_ENDED: Self = Self(0xA0);

    /// Whether it says that something failed.
    pub const fn is_error(self) -> bool {
        self.0 >= 0x80
    }

    /// Whether a 3.1.1 CONNACK can say it; it has a code for each, and one for everything that may pass.
    pub const fn is_of_connack_v311(self) -> bool {
        self.connack_v311() != CONNACK_V311_UNAVAILABLE
    }

    /// The return code of a 3.1.1 CONNACK that says the same.
    pub(crate) const fn connack_v311(self) -> u8 {
        match self {
            Self::SUCCESS => 0,
            Self::UNSUPPORTED_VERSION => 1,
            Self::BAD_CLIENT_ID => 2,
            Self::BAD_CREDENTIALS => 4,
            Self::NOT_AUTHORIZED | Self::BANNED => 5,
            _ => CONNACK_V311_UNAVAILABLE,
        }
    }

    /// What a 3.1.1 CONNACK's return code says.
    pub(crate) const fn from_connack_v311(code: u8) -> Self {
        match code {
            0 => Self::SUCCESS,
            1 => Self::UNSUPPORTED_VERSION,
            2 => Self::BAD_CLIENT_ID,
            4 => Self::BAD_CREDENTIALS,
            5 => Self::NOT_AUTHORIZED,
            _ => Self::IMPLEMENTATION,
        }
    }
}

/// Pairs that an MQTT 5 packet carries for its receiver's own use; a name may come more than once.
pub type UserProperties = Vec<(String, String)>;

/// A packet, whoever sends it.
#[derive(Clone, Debug, PartialEq)]
pub enum Packet {
    /// A device opens a session.
    Connect(Box<Connect>),
    /// The answer to it.
    ConnAck(Box<ConnAck>),
    /// A message, down or up.
    Publish(Box<Publish>),
    /// The answer to a message of QoS 1.
    PubAck(PubAck),
    /// A device asks for topics.
    Subscribe(Subscribe),
    /// The answer: one reason for each filter.
    SubAck(SubAck),
    /// A device asks for topics no more.
    Unsubscribe(Unsubscribe),
    /// The answer to it: one reason for each filter; MQTT 3.1.1 has none.
    UnsubAck(SubAck),
    /// A device is still there.
    PingReq,
    /// So is the server.
    PingResp,
    /// The last packet of a link.
    Disconnect(Disconnect),
}

/// What a device says when it opens a session.
#[derive(Clone, Debug, PartialEq)]
pub struct Connect {
    /// The version it speaks.
    pub version: Version,
    /// The device's id.
    pub client_id: String,
    /// App and options.
    pub username: Option<String>,
    /// The device token.
    pub password: Option<Vec<u8>>,
    /// Seconds after which it will send something; zero for never.
    pub keep_alive_s: u16,
    /// Whether the device has forgotten its packet ids.
    pub clean_start: bool,
    /// Whether it leaves a will (which Fanfare does not keep).
    pub has_will: bool,
    /// How many unacked messages it takes at a time.
    pub receive_maximum: u16,
    /// The largest packet it takes, in bytes.
    pub maximum_packet_size: Option<u32>,
    /// Seconds for which it asks its session to be kept.
    pub session_expiry_s: Option<u32>,
    /// The enhanced authentication it asks for.
    pub auth_method: Option<String>,
    /// Options under the same names as in the username.
    pub user_properties: UserProperties,
}

impl Connect {
    /// A session without options.
    pub fn new(version: Version, client_id: impl Into<String>) -> Self {
        Self {
            version,
            client_id: client_id.into(),
            username: None,
            password: None,
            keep_alive_s: 0,
            clean_start: true,
            has_will: false,
            receive_maximum: u16::MAX,
            maximum_packet_size: None,
            session_expiry_s: None,
            auth_method: None,
            user_properties: Vec::new(),
        }
    }
}

/// The answer to [`Connect`]. One that succeeds also says what no Fanfare server offers: QoS 2, retained messages,
/// shared subscriptions, subscription identifiers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnAck {
    /// Success, or why not.
    pub reason: Reason,
    /// Whether the server still knows the packet ids of an earlier link.
    pub session_present: bool,
    /// How many unacked messages the server takes at a time.
    pub receive_maximum: Option<u16>,
    /// The largest packet the server takes, in bytes.
    pub maximum_packet_size: Option<u32>,
    /// The keep alive to use instead of the one asked for, in seconds.
    pub server_keep_alive_s: Option<u16>,
    /// Seconds for which the session is kept.
    pub session_expiry_s: Option<u32>,
    /// More about the reason, for people.
    pub reason_string: Option<String>,
    /// What else there is to say.
    pub user_properties: UserProperties,
}

/// A message.
#[derive(Clone, Debug, PartialEq)]
pub struct Publish {
    /// What it is about.
    pub topic: String,
    /// 0, 1, or 2 (which devices may send although it is not offered).
    pub qos: u8,
    /// Whether it was sent before.
    pub dup: bool,
    /// Whether the sender wants it kept for later subscribers.
    pub retain: bool,
    /// Names it until it is acked; zero with QoS 0.
    pub packet_id: u16,
    /// MIME type of the payload.
    pub content_type: Option<String>,
    /// Seconds after which it is worth nothing.
    pub expiry_s: Option<u32>,
    /// Where an answer goes.
    pub response_topic: Option<String>,
    /// What the answer repeats.
    pub correlation_data: Option<Vec<u8>>,
    /// What else there is to say.
    pub user_properties: UserProperties,
    /// The body.
    pub payload: Bytes,
}

impl Publish {
    /// A message of QoS 0 without properties.
    pub fn new(topic: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Self {
            topic: topic.into(),
            qos: 0,
            dup: false,
            retain: false,
            packet_id: 0,
            content_type: None,
            expiry_s: None,
            response_topic: None,
            correlation_data: None,
            user_properties: Vec::new(),
            payload: payload.into(),
        }
    }

    /// The packet id of its ack; `None` when it is not acked.
    pub fn acked_under(&self) -> Option<u16> {
        (self.qos > 0).then_some(self.packet_id)
    }

    /// The first user property of this name.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.user_properties.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// The answer to a message of QoS 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PubAck {
    /// Of the message.
    pub packet_id: u16,
    /// Success, or why not.
    pub reason: Reason,
}

/// A device asks for topics.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscribe {
    /// Names it until it is acked.
    pub packet_id: u16,
    /// Topic filters, each with the greatest QoS wanted.
    pub filters: Vec<(String, u8)>,
}

/// The answer to [`Subscribe`] or [`Unsubscribe`].
#[derive(Clone, Debug, PartialEq)]
pub struct SubAck {
    /// Of the request.
    pub packet_id: u16,
    /// One for each filter.
    pub reasons: Vec<Reason>,
}

/// A device asks for topics no more.
#[derive(Clone, Debug, PartialEq)]
pub struct Unsubscribe {
    /// Names it until it is acked.
    pub packet_id: u16,
    /// Topic filters.
    pub filters: Vec<String>,
}

/// The last packet of a link. A 3.1.1 server cannot send it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Disconnect {
    /// Why.
    pub reason: Reason,
    /// More about it, for people.
    pub reason_string: Option<String>,
    /// Where to go instead: addresses with a space between two.
    pub server_reference: Option<String>,
}
