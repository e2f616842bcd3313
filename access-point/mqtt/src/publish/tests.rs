//! What is encoded is what a device reads, byte by byte.

use std::{collections::BTreeMap, time::Duration};

use model::{Class, Env, Lane, MessageId, Priority, TraceParent};
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{packet::Packet, packet::Publish, wire};

const CREATED: Timestamp = Timestamp::from_millis(1_795_249_800_123);
const SEQ: Seq = Seq(7_353_343_181_303_808);

fn message(payload: impl Into<Bytes>, content_type: &str) -> Message {
    Message {
        id: MessageId::new(CREATED, 7),
        app: "demo".parse().unwrap(),
        env: Env::Live,
        lane: Lane::Unicast,
        kind: "order".into(),
        class: Class::Message,
        payload: payload.into(),
        content_type: content_type.into(),
        created_at: CREATED,
        expires_at: CREATED + Duration::from_secs(3_600),
        due_at: None,
        priority: Priority::Normal,
        collapse_key: None,
        metadata: BTreeMap::new(),
        trace: TraceParent::start(0x4bf9_2f35, 0xf067),
    }
}

/// As a device reads it.
fn read(encoded: &Encoded, version: Version, packet_id: u16, dup: bool, now: Timestamp) -> Publish {
    let mut bytes = b"before".to_vec();
    encoded.write_head(packet_id, dup, now, &mut bytes);
    bytes.extend_from_slice(encoded.body());
    let frame = bytes.strip_prefix(b"before").unwrap();
    assert_eq!(frame.len(), encoded.len());
    match wire::decode(frame, version) {
        Ok(Packet::Publish(publish)) => *publish,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn a_device_reads_what_was_encoded(
        payload in vec(any::<u8>(), 0..3_000),
        kind in "[a-z0-9_-]{1,32}",
        mime in "[a-z/+;=]{1,60}",
        packet_id in 1..=u16::MAX,
        dup in any::<bool>(),
        left_ms in 1..10_000_000u64,
    ) {
        let message = Message { kind: kind.clone(), ..message(payload.clone(), &mime) };
        let now = message.expires_at - Duration::from_millis(left_ms);
        let raw = Encoded::new(&message, Stream::Timeline, SEQ, Version::V5, Format::Raw).unwrap();
        let publish = read(&raw, Version::V5, packet_id, dup, now);
        prop_assert_eq!(&publish.topic, &format!("push/demo/msg/{kind}"));
        prop_assert_eq!((publish.qos, publish.dup, publish.retain), (1, dup, false));
        prop_assert_eq!(publish.packet_id, packet_id);
        prop_assert_eq!(publish.expiry_s, Some(u32::try_from(left_ms.div_ceil(1_000)).unwrap()));
        prop_assert_eq!(publish.content_type.as_deref(), Some(mime.as_str()));
        let (id, trace) = (message.id.to_string(), message.trace.to_string());
        prop_assert_eq!(publish.property("id"), Some(id.as_str()));
        prop_assert_eq!(publish.property("seq"), Some("t7353343181303808"));
        prop_assert_eq!(publish.property("type"), Some(kind.as_str()));
        prop_assert_eq!(publish.property("ts"), Some("2026-11-21T08:30:00.123Z"));
        prop_assert_eq!(publish.property("traceparent"), Some(trace.as_str()));
        prop_assert_eq!(publish.payload.as_ref(), payload.as_slice());
        let plain = Encoded::new(&message, Stream::Inbox, SEQ, Version::V311, Format::Raw).unwrap();
        let publish = read(&plain, Version::V311, packet_id, dup, now);
        prop_assert_eq!((publish.packet_id, publish.dup), (packet_id, dup));
        prop_assert_eq!(publish.payload.as_ref(), payload.as_slice());
    }
}

#[test]
fn a_packed_body_says_how_it_is_packed() {
    let message = message("the same again ".repeat(100), "text/plain");
    for coding in Coding::ALL {
        let body = coding.pack(&message.payload).unwrap();
        let packed = Encoded::packed(&message, Stream::Inbox, SEQ, coding, body).unwrap();
        let publish = read(&packed, Version::V5, 3, false, message.created_at);
        assert_eq!(publish.property(CONTENT_ENCODING), Some(coding.as_str()));
        assert_eq!((publish.property("seq"), publish.expiry_s), (Some("i7353343181303808"), Some(3_600)));
        assert_eq!(coding.unpack(&publish.payload, 4_096).unwrap(), message.payload);
        let plain = Encoded::new(&message, Stream::Inbox, SEQ, Version::V5, Format::Raw).unwrap();
        assert!(packed.len() < plain.len());
    }
}

fn envelope_of(message: &Message, version: Version) -> serde_json::Value {
    let encoded = Encoded::new(message, Stream::Inbox, SEQ, version, Format::Envelope).unwrap();
    let publish = read(&encoded, version, 9, false, message.created_at);
    if version == Version::V5 {
        assert_eq!(publish.content_type.as_deref(), Some("application/json"));
        assert_eq!(publish.expiry_s, Some(3_600));
    }
    serde_json::from_slice(&publish.payload).unwrap()
}

#[test]
fn an_envelope_holds_json_as_it_is_and_anything_else_as_base64() {
    for version in [Version::V311, Version::V5] {
        let json = envelope_of(&message(r#"{"title":"Shipped"}"#, JSON), version);
        assert_eq!(json["seq"], "i7353343181303808");
        assert_eq!(json["type"], "order");
        assert_eq!(json["ts"], "2026-11-21T08:30:00.123Z");
        assert_eq!(json["payload"]["title"], "Shipped");
        assert!(json.get("payload_base64").is_none());
        let bytes = envelope_of(&message(vec![0xFF, 0], "application/octet-stream"), version);
        assert_eq!(bytes["payload_base64"], "/wA=");
        let broken = envelope_of(&message("{", JSON), version);
        assert_eq!(broken["payload_base64"], "ew==");
    }
}

#[test]
fn a_command_says_where_its_outcome_goes_and_when_it_is_too_late() {
    let command = Class::Command { device: "dev-1".parse().unwrap() };
    let message = Message { class: command, ..message("{}", JSON) };
    let id = message.id.to_string();
    for format in [Format::Raw, Format::Envelope] {
        let encoded = Encoded::new(&message, Stream::Inbox, SEQ, Version::V5, format).unwrap();
        let publish = read(&encoded, Version::V5, 9, false, message.created_at);
        assert_eq!(publish.response_topic, Some(format!("push/demo/result/{id}")));
        assert_eq!(publish.correlation_data.as_deref(), Some(id.as_bytes()));
        let is_raw = format == Format::Raw;
        assert_eq!(publish.property("class"), is_raw.then_some("command"));
        assert_eq!(publish.property("deadline"), is_raw.then_some("2026-11-21T09:30:00.123Z"));
    }
    let envelope = envelope_of(&message, Version::V311);
    assert_eq!((&envelope["class"], &envelope["deadline"]), (&"command".into(), &"2026-11-21T09:30:00.123Z".into()));
}

#[test]
fn an_answer_goes_where_its_device_asked_and_repeats_what_it_said() {
    let reply = Reply { to: "r-1".parse().unwrap(), correlation: Some(Bytes::from_static(b"\x00\xff")) };
    let message = Message { class: Class::Answer(reply), ..message("{}", JSON) };
    for (version, correlation) in [(Version::V5, Some(&b"\x00\xff"[..])), (Version::V311, None)] {
        let encoded = Encoded::new(&message, Stream::Inbox, SEQ, version, Format::Raw).unwrap();
        let publish = read(&encoded, version, 9, false, message.created_at);
        assert_eq!((publish.topic.as_str(), publish.correlation_data.as_deref()), ("push/demo/res/r-1", correlation));
        assert_eq!(envelope_of(&message, version)["request"], "r-1");
    }
}

#[test]
fn news_from_a_device_says_which() {
    let message = Message { class: Class::Peer { from: "dev-9".parse().unwrap() }, ..message("{}", JSON) };
    let raw = Encoded::new(&message, Stream::Inbox, SEQ, Version::V5, Format::Raw).unwrap();
    let publish = read(&raw, Version::V5, 9, false, message.created_at);
    assert_eq!((publish.property("from"), publish.property("class")), (Some("dev-9"), None));
    assert_eq!(envelope_of(&message, Version::V311)["from"], "dev-9");
}

#[test]
fn what_the_protocol_has_no_bytes_for_is_refused() {
    let message = message("{}", &"x".repeat(70_000));
    let encoded = Encoded::new(&message, Stream::Inbox, SEQ, Version::V5, Format::Raw);
    assert!(matches!(encoded, Err(Error::Unwritable(_))));
}
