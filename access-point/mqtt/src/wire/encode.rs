//! Packets to bytes. Messages to devices take a shorter way: [`Encoded`](crate::Encoded).

use flowsdk::mqtt_serde::{
    control_packet::MqttPacket,
    mqttv3::{
        connackv3, connectv3, disconnectv3, pingreqv3, pubackv3, publishv3, subackv3, subscribev3, unsubackv3,
        unsubscribev3,
    },
    mqttv5::{
        Property, connackv5, connectv5, disconnectv5, pubackv5, publishv5, subackv5, subscribev5, unsubackv5,
        unsubscribev5,
    },
    parser::ParseError,
};

use super::{Error, Version};
use crate::packet::{ConnAck, Connect, Disconnect, Packet, Publish, SubAck, Subscribe, UserProperties};

/// A whole PINGRESP, the same in both versions.
const PINGRESP: [u8; 2] = [0xD0, 0];

/// First byte and length of a PUBACK that says no more than success.
const PUBACK: [u8; 2] = [0x40, 2];

/// The one answer to SUBSCRIBE by which 3.1.1 says no.
const SUBACK_FAILURE_V311: u8 = 0x80;

/// Appends the bytes of a packet to `out`.
///
/// # Errors
/// [`Error::Unwritable`] when the protocol has no bytes for it (a text over 64 KiB, a wildcard in a topic); `out` is
/// as it was.
pub fn encode(packet: &Packet, version: Version, out: &mut Vec<u8>) -> Result<(), Error> {
    match packet {
        Packet::PingResp => out.extend_from_slice(&PINGRESP),
        Packet::PubAck(ack) if version == Version::V311 || ack.reason.0 == 0 => {
            out.extend_from_slice(&PUBACK);
            out.extend_from_slice(&ack.packet_id.to_be_bytes());
        }
        packet => {
            let foreign = match version {
                Version::V311 => packet_v311(packet),
                Version::V5 => packet_v5(packet),
            };
            out.extend_from_slice(&foreign.to_bytes().map_err(unwritable)?);
        }
    }
    Ok(())
}

fn unwritable(error: ParseError) -> Error {
    Error::Unwritable(error.to_string())
}

fn packet_v311(packet: &Packet) -> MqttPacket {
    use MqttPacket as P;
    match packet {
        Packet::Connect(connect) => P::Connect3(connectv3::MqttConnect {
            username: connect.username.clone(),
            password: connect.password.clone(),
            ..connectv3::MqttConnect::new(connect.client_id.clone(), connect.keep_alive_s, connect.clean_start)
        }),
        Packet::ConnAck(ack) => {
            P::ConnAck3(connackv3::MqttConnAck::new(ack.session_present, ack.reason.connack_v311()))
        }
        Packet::Publish(publish) => P::Publish3(publishv3::MqttPublish::new(
            publish.topic.clone(),
            publish.qos,
            publish.payload.to_vec(),
            packet_id(publish),
            publish.retain,
            publish.dup,
        )),
        Packet::PubAck(ack) => P::PubAck3(pubackv3::MqttPubAck::new(ack.packet_id)),
        Packet::Subscribe(subscribe) => {
            let topic = |(topic_filter, qos): &(String, u8)| subscribev3::SubscriptionTopic {
                topic_filter: topic_filter.clone(),
                qos: *qos,
            };
            let filters = subscribe.filters.iter().map(topic).collect();
            P::Subscribe3(subscribev3::MqttSubscribe::new(subscribe.packet_id, filters))
        }
        Packet::SubAck(ack) => {
            let code = |reason: &crate::Reason| if reason.is_error() { SUBACK_FAILURE_V311 } else { reason.0 };
            P::SubAck3(subackv3::MqttSubAck::new(ack.packet_id, ack.reasons.iter().map(code).collect()))
        }
        Packet::Unsubscribe(unsubscribe) => P::Unsubscribe3(unsubscribev3::MqttUnsubscribe {
            message_id: unsubscribe.packet_id,
            topic_filters: unsubscribe.filters.clone(),
        }),
        Packet::UnsubAck(ack) => P::UnsubAck3(unsubackv3::MqttUnsubAck::new(ack.packet_id)),
        Packet::PingReq => P::PingReq3(pingreqv3::MqttPingReq::new()),
        Packet::PingResp => P::PingResp3(flowsdk::mqtt_serde::mqttv3::pingrespv3::MqttPingResp::new()),
        Packet::Disconnect(_) => P::Disconnect3(disconnectv3::MqttDisconnect::new()),
    }
}

fn packet_v5(packet: &Packet) -> MqttPacket {
    use MqttPacket as P;
    match packet {
        Packet::Connect(connect) => P::Connect5(connect_v5(connect)),
        Packet::ConnAck(ack) => P::ConnAck5(connack_v5(ack)),
        Packet::Publish(publish) => P::Publish5(publish_v5(publish)),
        Packet::PubAck(ack) => P::PubAck5(pubackv5::MqttPubAck::new(ack.packet_id, ack.reason.0, Vec::new())),
        Packet::Subscribe(subscribe) => P::Subscribe5(subscribe_v5(subscribe)),
        Packet::SubAck(ack) => P::SubAck5(subackv5::MqttSubAck::new(ack.packet_id, codes(ack), Vec::new())),
        Packet::Unsubscribe(unsubscribe) => P::Unsubscribe5(unsubscribev5::MqttUnsubscribe {
            packet_id: unsubscribe.packet_id,
            topic_filters: unsubscribe.filters.clone(),
            properties: Vec::new(),
        }),
        Packet::UnsubAck(ack) => P::UnsubAck5(unsubackv5::MqttUnsubAck {
            packet_id: ack.packet_id,
            reason_codes: codes(ack),
            properties: Vec::new(),
        }),
        Packet::PingReq | Packet::PingResp => packet_v311(packet),
        Packet::Disconnect(disconnect) => P::Disconnect5(disconnect_v5(disconnect)),
    }
}

fn codes(ack: &SubAck) -> Vec<u8> {
    ack.reasons.iter().map(|reason| reason.0).collect()
}

fn packet_id(publish: &Publish) -> Option<u16> {
    (publish.qos > 0).then_some(publish.packet_id)
}

fn user(properties: &UserProperties) -> impl Iterator<Item = Property> + '_ {
    properties.iter().map(|(key, value)| Property::UserProperty(key.clone(), value.clone()))
}

fn connect_v5(connect: &Connect) -> connectv5::MqttConnect {
    let known = [
        (connect.receive_maximum < u16::MAX).then_some(Property::ReceiveMaximum(connect.receive_maximum)),
        connect.maximum_packet_size.map(Property::MaximumPacketSize),
        connect.session_expiry_s.map(Property::SessionExpiryInterval),
        connect.auth_method.clone().map(Property::AuthenticationMethod),
    ];
    connectv5::MqttConnect::new(
        connect.client_id.clone(),
        connect.username.clone(),
        connect.password.clone(),
        None,
        connect.keep_alive_s,
        connect.clean_start,
        known.into_iter().flatten().chain(user(&connect.user_properties)).collect(),
    )
}

fn connack_v5(ack: &ConnAck) -> connackv5::MqttConnAck {
    let known = [
        ack.receive_maximum.map(Property::ReceiveMaximum),
        ack.maximum_packet_size.map(Property::MaximumPacketSize),
        ack.server_keep_alive_s.map(Property::ServerKeepAlive),
        ack.session_expiry_s.map(Property::SessionExpiryInterval),
        ack.reason_string.clone().map(Property::ReasonString),
    ];
    let not_offered = [
        Property::MaximumQoS(1),
        Property::RetainAvailable(0),
        Property::SubscriptionIdentifierAvailable(0),
        Property::SharedSubscriptionAvailable(0),
    ];
    let succeeds = !ack.reason.is_error();
    let offer = not_offered.into_iter().filter(|_| succeeds);
    let properties = known.into_iter().flatten().chain(offer).chain(user(&ack.user_properties)).collect();
    connackv5::MqttConnAck::new(ack.session_present, ack.reason.0, Some(properties))
}

fn publish_v5(publish: &Publish) -> publishv5::MqttPublish {
    let known = [
        publish.content_type.clone().map(Property::ContentType),
        publish.expiry_s.map(Property::MessageExpiryInterval),
        publish.response_topic.clone().map(Property::ResponseTopic),
        publish.correlation_data.clone().map(Property::CorrelationData),
    ];
    publishv5::MqttPublish::new_with_prop(
        publish.qos,
        publish.topic.clone(),
        packet_id(publish),
        publish.payload.to_vec(),
        publish.retain,
        publish.dup,
        known.into_iter().flatten().chain(user(&publish.user_properties)).collect(),
    )
}

fn subscribe_v5(subscribe: &Subscribe) -> subscribev5::MqttSubscribe {
    let topic = |(filter, qos): &(String, u8)| subscribev5::TopicSubscription::new_simple(filter.clone(), *qos);
    subscribev5::MqttSubscribe::new_simple(subscribe.packet_id, subscribe.filters.iter().map(topic).collect())
}

fn disconnect_v5(disconnect: &Disconnect) -> disconnectv5::MqttDisconnect {
    let text = disconnect.reason_string.clone().map(Property::ReasonString);
    let elsewhere = disconnect.server_reference.clone().map(Property::ServerReference);
    disconnectv5::MqttDisconnect::new(disconnect.reason.0, text.into_iter().chain(elsewhere).collect())
}
