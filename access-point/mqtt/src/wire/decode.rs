//! Bytes to packets. Strict where the protocol is, lenient about what Fanfare only has to answer (QoS 2, wills).

use bytes::Bytes;
use flowsdk::mqtt_serde::{
    control_packet::MqttPacket,
    mqttv3::{connectv3, publishv3},
    mqttv5::{Property, connackv5, connectv5, disconnectv5, publishv5},
    parser::{ParseError, ParseOk},
};

use super::{Error, Version};
use crate::packet::{ConnAck, Connect, Disconnect, Packet, PubAck, Publish, Reason, SubAck, Subscribe, Unsubscribe};

/// First byte of a PUBACK.
const PUBACK: u8 = 0x40;

/// The packet in a whole frame, as [`frame_len`](super::frame_len) cut it out.
///
/// # Errors
/// [`Error::Malformed`] when it is against the protocol, [`Error::Unexpected`] for a packet that Fanfare never asks
/// for.
pub fn decode(frame: &[u8], version: Version) -> Result<Packet, Error> {
    // Nearly all that devices send, and the same in both versions.
    if let [PUBACK, 2, high, low] = *frame {
        return Ok(Packet::PubAck(PubAck { packet_id: u16::from_be_bytes([high, low]), reason: Reason::SUCCESS }));
    }
    match MqttPacket::from_bytes_with_version(frame, version.level()).map_err(malformed)? {
        ParseOk::Packet(packet, consumed) if consumed == frame.len() => packet_of(packet),
        _ => Err(Error::Malformed("its lengths do not add up".into())),
    }
}

fn malformed(error: ParseError) -> Error {
    Error::Malformed(error.to_string())
}

fn reasons(codes: Vec<u8>) -> Vec<Reason> {
    codes.into_iter().map(Reason).collect()
}

fn packet_of(packet: MqttPacket) -> Result<Packet, Error> {
    use MqttPacket as P;
    Ok(match packet {
        P::Connect5(connect) => Packet::Connect(Box::new(connect_v5(connect))),
        P::Connect3(connect) => Packet::Connect(Box::new(connect_v311(connect))),
        P::ConnAck5(ack) => Packet::ConnAck(Box::new(connack(ack))),
        P::ConnAck3(ack) => {
            let reason = Reason::from_connack_v311(ack.return_code);
            Packet::ConnAck(Box::new(ConnAck { reason, session_present: ack.session_present, ..ConnAck::default() }))
        }
        P::Publish5(publish) => Packet::Publish(Box::new(publish_v5(publish)?)),
        P::Publish3(publish) => Packet::Publish(Box::new(publish_v311(publish))),
        P::PubAck5(ack) => Packet::PubAck(PubAck { packet_id: ack.packet_id, reason: Reason(ack.reason_code) }),
        P::PubAck3(ack) => Packet::PubAck(PubAck { packet_id: ack.message_id, reason: Reason::SUCCESS }),
        P::Subscribe5(subscribe) => {
            let filters = subscribe.subscriptions.into_iter().map(|s| (s.topic_filter, s.qos)).collect();
            Packet::Subscribe(Subscribe { packet_id: subscribe.packet_id, filters })
        }
        P::Subscribe3(subscribe) => {
            let filters = subscribe.subscriptions.into_iter().map(|s| (s.topic_filter, s.qos)).collect();
            Packet::Subscribe(Subscribe { packet_id: subscribe.message_id, filters })
        }
        P::SubAck5(ack) => Packet::SubAck(SubAck { packet_id: ack.packet_id, reasons: reasons(ack.reason_codes) }),
        P::SubAck3(ack) => Packet::SubAck(SubAck { packet_id: ack.message_id, reasons: reasons(ack.return_codes) }),
        P::Unsubscribe5(packet) => {
            Packet::Unsubscribe(Unsubscribe { packet_id: packet.packet_id, filters: packet.topic_filters })
        }
        P::Unsubscribe3(packet) => {
            Packet::Unsubscribe(Unsubscribe { packet_id: packet.message_id, filters: packet.topic_filters })
        }
        P::UnsubAck5(ack) => Packet::UnsubAck(SubAck { packet_id: ack.packet_id, reasons: reasons(ack.reason_codes) }),
        P::UnsubAck3(ack) => Packet::UnsubAck(SubAck { packet_id: ack.message_id, reasons: Vec::new() }),
        P::PingReq5(_) | P::PingReq3(_) => Packet::PingReq,
        P::PingResp5(_) | P::PingResp3(_) => Packet::PingResp,
        P::Disconnect5(packet) => Packet::Disconnect(disconnect(packet)),
        P::Disconnect3(_) => Packet::Disconnect(Disconnect::default()),
        P::PubRec5(_) | P::PubRec3(_) => return Err(Error::Unexpected("PUBREC")),
        P::PubRel5(_) | P::PubRel3(_) => return Err(Error::Unexpected("PUBREL")),
        P::PubComp5(_) | P::PubComp3(_) => return Err(Error::Unexpected("PUBCOMP")),
        P::Auth(_) => return Err(Error::Unexpected("AUTH")),
    })
}

fn connect_v311(packet: connectv3::MqttConnect) -> Connect {
    Connect {
        username: packet.username,
        password: packet.password,
        keep_alive_s: packet.keep_alive,
        clean_start: packet.clean_session,
        has_will: packet.will.is_some(),
        ..Connect::new(Version::V311, packet.client_id)
    }
}

fn connect_v5(packet: connectv5::MqttConnect) -> Connect {
    let mut connect = Connect {
        username: packet.username,
        password: packet.password,
        keep_alive_s: packet.keep_alive,
        clean_start: packet.clean_start,
        has_will: packet.will.is_some(),
        ..Connect::new(Version::V5, packet.client_id)
    };
    for property in packet.properties {
        match property {
            Property::ReceiveMaximum(maximum) => connect.receive_maximum = maximum,
            Property::MaximumPacketSize(bytes) => connect.maximum_packet_size = Some(bytes),
            Property::SessionExpiryInterval(seconds) => connect.session_expiry_s = Some(seconds),
            Property::AuthenticationMethod(method) => connect.auth_method = Some(method),
            Property::UserProperty(key, value) => connect.user_properties.push((key, value)),
            _ => {}
        }
    }
    connect
}

fn connack(packet: connackv5::MqttConnAck) -> ConnAck {
    let reason = Reason(packet.reason_code);
    let mut ack = ConnAck { reason, session_present: packet.session_present, ..ConnAck::default() };
    for property in packet.properties.into_iter().flatten() {
        match property {
            Property::ReceiveMaximum(maximum) => ack.receive_maximum = Some(maximum),
            Property::MaximumPacketSize(bytes) => ack.maximum_packet_size = Some(bytes),
            Property::ServerKeepAlive(seconds) => ack.server_keep_alive_s = Some(seconds),
            Property::SessionExpiryInterval(seconds) => ack.session_expiry_s = Some(seconds),
            Property::ReasonString(text) => ack.reason_string = Some(text),
            Property::UserProperty(key, value) => ack.user_properties.push((key, value)),
            _ => {}
        }
    }
    ack
}

fn publish_v311(packet: publishv3::MqttPublish) -> Publish {
    Publish {
        qos: packet.qos,
        dup: packet.dup,
        retain: packet.retain,
        packet_id: packet.message_id.unwrap_or_default(),
        ..Publish::new(packet.topic_name, Bytes::from(packet.payload))
    }
}

fn publish_v5(packet: publishv5::MqttPublish) -> Result<Publish, Error> {
    let mut publish = Publish {
        qos: packet.qos,
        dup: packet.dup,
        retain: packet.retain,
        packet_id: packet.packet_id.unwrap_or_default(),
        ..Publish::new(packet.topic_name, Bytes::from(packet.payload))
    };
    for property in packet.properties {
        match property {
            Property::ContentType(mime) => publish.content_type = Some(mime),
            Property::MessageExpiryInterval(seconds) => publish.expiry_s = Some(seconds),
            Property::ResponseTopic(topic) => publish.response_topic = Some(topic),
            Property::CorrelationData(data) => publish.correlation_data = Some(data),
            Property::UserProperty(key, value) => publish.user_properties.push((key, value)),
            Property::TopicAlias(_) => return Err(Error::Malformed("a topic alias, none were offered".into())),
            _ => {}
        }
    }
    Ok(publish)
}

fn disconnect(packet: disconnectv5::MqttDisconnect) -> Disconnect {
    let mut disconnect = Disconnect { reason: Reason(packet.reason_code), ..Disconnect::default() };
    for property in packet.properties {
        match property {
            Property::ReasonString(text) => disconnect.reason_string = Some(text),
            Property::ServerReference(text) => disconnect.server_reference = Some(text),
            _ => {}
        }
    }
    disconnect
}
