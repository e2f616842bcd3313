//! Packets come back as they were written, and no bytes do harm.

use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::packet::{ConnAck, Connect, Disconnect, Packet, PubAck, Publish, SubAck, Subscribe, Unsubscribe};

const MAX: usize = 8 * 1024;

fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V311), Just(Version::V5)]
}

fn reason(codes: &'static [u8]) -> impl Strategy<Value = Reason> {
    prop::sample::select(codes).prop_map(Reason)
}

fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
    vec(("[a-z]{1,8}", "[ -~]{0,16}"), 0..3)
}

fn connect() -> impl Strategy<Value = Packet> {
    let who = ("[A-Za-z0-9_-]{1,64}", option::of("[a-z?=&.]{1,40}"), option::of(vec(any::<u8>(), 1..300)));
    let v5 = (1..=u16::MAX, option::of(1..=u32::MAX), option::of(any::<u32>()), pairs());
    (who, any::<u16>(), any::<bool>(), v5).prop_map(|(who, keep_alive_s, clean_start, v5)| {
        let (receive_maximum, maximum_packet_size, session_expiry_s, user_properties) = v5;
        let password = who.2.filter(|_| who.1.is_some());
        let mut connect = Connect::new(Version::V5, who.0);
        connect = Connect { username: who.1, password, keep_alive_s, clean_start, receive_maximum, ..connect };
        Packet::Connect(Box::new(Connect { maximum_packet_size, session_expiry_s, user_properties, ..connect }))
    })
}

fn connack() -> impl Strategy<Value = Packet> {
    let numbers = (option::of(1..=u16::MAX), option::of(1..=u32::MAX), option::of(any::<u16>()));
    (reason(&[0, 0x84, 0x85, 0x86, 0x87]), numbers, option::of("[ -~]{0,16}"), pairs()).prop_map(
        |(reason, (receive_maximum, maximum_packet_size, server_keep_alive_s), reason_string, user_properties)| {
            let mut ack = ConnAck { reason, receive_maximum, maximum_packet_size, ..ConnAck::default() };
            ack = ConnAck { server_keep_alive_s, reason_string, user_properties, ..ack };
            Packet::ConnAck(Box::new(ack))
        },
    )
}

fn publish() -> impl Strategy<Value = Packet> {
    let header = ("[a-z/]{1,64}", 0..=2u8, any::<bool>(), any::<bool>(), 1..=u16::MAX);
    let v5 = (option::of("[a-z/]{1,20}"), option::of(any::<u32>()), option::of("[a-z/]{1,20}"), pairs());
    (header, v5, vec(any::<u8>(), 0..600)).prop_map(|(header, v5, payload)| {
        let (topic, qos, dup, retain, packet_id) = header;
        let (content_type, expiry_s, response_topic, user_properties) = v5;
        let (dup, packet_id) = (dup && qos > 0, if qos > 0 { packet_id } else { 0 });
        let correlation_data = response_topic.as_ref().map(|_| vec![1, 2, 3]);
        let plain = Publish { qos, dup, retain, packet_id, ..Publish::new(topic, payload) };
        let plain = Publish { content_type, expiry_s, response_topic, correlation_data, ..plain };
        Packet::Publish(Box::new(Publish { user_properties, ..plain }))
    })
}

fn packet() -> impl Strategy<Value = Packet> {
    let id = || 1..=u16::MAX;
    let codes = || vec(reason(&[0, 1, 0x87]), 1..4);
    prop_oneof![
        connect(),
        connack(),
        publish(),
        (id(), reason(&[0, 0x10, 0x80, 0x87, 0x97]))
            .prop_map(|(packet_id, reason)| Packet::PubAck(PubAck { packet_id, reason })),
        (id(), vec(("[a-z/]{1,20}", 0..=2u8), 1..4))
            .prop_map(|(packet_id, filters)| Packet::Subscribe(Subscribe { packet_id, filters })),
        (id(), codes()).prop_map(|(packet_id, reasons)| Packet::SubAck(SubAck { packet_id, reasons })),
        (id(), vec("[a-z/]{1,20}", 1..4))
            .prop_map(|(packet_id, filters)| Packet::Unsubscribe(Unsubscribe { packet_id, filters })),
        (id(), vec(reason(&[0, 0x11]), 1..4))
            .prop_map(|(packet_id, reasons)| Packet::UnsubAck(SubAck { packet_id, reasons })),
        Just(Packet::PingReq),
        Just(Packet::PingResp),
        (reason(&[0, 0x8B, 0x8E, 0x9C]), option::of("[ -~]{0,16}"), option::of("[ -~]{0,16}")).prop_map(
            |(reason, reason_string, server_reference)| {
                Packet::Disconnect(Disconnect { reason, reason_string, server_reference })
            }
        ),
    ]
}

/// What is left of a packet that went through 3.1.1.
fn as_v311(packet: Packet) -> Packet {
    let plain = |reason: Reason| if reason.is_error() { Reason::UNSPECIFIED } else { reason };
    match packet {
        Packet::Connect(c) => Packet::Connect(Box::new(Connect {
            username: c.username,
            password: c.password,
            keep_alive_s: c.keep_alive_s,
            clean_start: c.clean_start,
            ..Connect::new(Version::V311, c.client_id)
        })),
        Packet::ConnAck(ack) => Packet::ConnAck(Box::new(ConnAck { reason: ack.reason, ..ConnAck::default() })),
        Packet::Publish(p) => Packet::Publish(Box::new(Publish {
            qos: p.qos,
            dup: p.dup,
            retain: p.retain,
            packet_id: p.packet_id,
            ..Publish::new(p.topic, p.payload)
        })),
        Packet::PubAck(ack) => Packet::PubAck(PubAck { reason: Reason::SUCCESS, ..ack }),
        Packet::SubAck(ack) => Packet::SubAck(SubAck { reasons: ack.reasons.into_iter().map(plain).collect(), ..ack }),
        Packet::UnsubAck(ack) => Packet::UnsubAck(SubAck { reasons: Vec::new(), ..ack }),
        Packet::Disconnect(_) => Packet::Disconnect(Disconnect::default()),
        same => same,
    }
}

proptest! {
    #[test]
    fn every_packet_comes_back_as_it_was_written(packet in packet(), version in version()) {
        let mut bytes = Vec::new();
        encode(&packet, version, &mut bytes).unwrap();
        prop_assert_eq!(frame_len(&bytes, MAX), Ok(Some(bytes.len())));
        let expected = if version == Version::V311 { as_v311(packet) } else { packet };
        if matches!(expected, Packet::Connect(_)) {
            prop_assert_eq!(version_of_connect(&bytes), Ok(version));
        }
        prop_assert_eq!(decode(&bytes, version), Ok(expected));
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..200), version in version()) {
        let _ = frame_len(&bytes, MAX);
        let _ = version_of_connect(&bytes);
        let _ = decode(&bytes, version);
    }

    #[test]
    fn mutated_packets_never_panic(
        packet in packet(),
        written in version(),
        read in version(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = Vec::new();
        encode(&packet, written, &mut bytes).unwrap();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _ = decode(&bytes, read);
        let _ = decode(&bytes[..cut.index(bytes.len())], read);
    }
}

#[test]
fn a_packet_that_announces_256_megabytes_is_refused_from_its_header() {
    let bytes = [0x30, 0xFF, 0xFF, 0xFF, 0x7F, 0, 1, 2, 3, 4];
    assert_eq!(frame_len(&bytes, MAX), Err(Error::TooLarge { declared: 268_435_460, max: MAX }));
    assert_eq!(frame_len(&bytes, MAX).unwrap_err().reason(), Reason::TOO_LARGE);
}

#[test]
fn a_length_is_known_as_soon_as_its_header_is_complete() {
    assert_eq!(frame_len(&[], MAX), Ok(None));
    assert_eq!(frame_len(&[0x30], MAX), Ok(None));
    assert_eq!(frame_len(&[0x30, 0x80], MAX), Ok(None));
    assert_eq!(frame_len(&[0x30, 0x80, 0x01], MAX), Ok(Some(131)));
    assert_eq!(frame_len(&[0xC0, 0], MAX), Ok(Some(2)));
    assert!(matches!(frame_len(&[0x30, 0x80, 0x80, 0x80, 0x80], MAX), Err(Error::Malformed(_))));
}

#[test]
fn other_versions_and_other_first_packets_are_told_apart() {
    let level = |name: &[u8], level: u8| [&[0x10, 12, 0, u8::try_from(name.len()).unwrap()], name, &[level]].concat();
    assert_eq!(version_of_connect(&level(b"MQTT", 4)), Ok(Version::V311));
    assert_eq!(version_of_connect(&level(b"MQTT", 5)), Ok(Version::V5));
    assert_eq!(version_of_connect(&level(b"MQTT", 6)), Err(Error::Version(6)));
    assert_eq!(version_of_connect(&level(b"MQIsdp", 3)), Err(Error::Version(3)));
    assert!(matches!(version_of_connect(&level(b"AMQP", 0)), Err(Error::Malformed(_))));
    assert!(matches!(version_of_connect(b"GET / HTTP/1.1"), Err(Error::Unexpected(_))));
}

#[test]
fn packets_of_qos_2_are_not_spoken_here() {
    assert_eq!(decode(&[0x62, 2, 0, 1], Version::V311), Err(Error::Unexpected("PUBREL")));
    assert_eq!(decode(&[0x50, 2, 0, 1], Version::V5), Err(Error::Unexpected("PUBREC")));
}
