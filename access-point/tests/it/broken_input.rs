//! Whatever comes in on a socket: a clear answer or a close, and nobody else notices.

use std::time::Duration;

use access_point::Config;
use mqtt::{
    Packet, Reason, Version,
    packet::{Connect, Publish, SubAck, Subscribe, Unsubscribe},
};

use crate::{
    bench::{Bench, config},
    client::{Client, connect},
};

#[tokio::test]
async fn what_does_not_begin_with_connect_is_closed() {
    let bench = Bench::start(config()).await;
    for bytes in [&[0xC0, 0][..], &[0; 64], &[0xFF; 64], b"\x16\x03\x01\x02\x00\x01"] {
        let mut client = Client::silent(bench.address).await;
        client.send_bytes(bytes).await;
        assert_eq!(client.next().await, None, "{bytes:?}");
    }
}

#[tokio::test]
async fn an_unknown_version_is_told_so() {
    let bench = Bench::start(config()).await;
    let mut client = Client::silent(bench.address).await;
    client.send_bytes(b"\x10\x12\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x04dev1").await;
    let mut bytes = [0; 4];
    client.read_exactly(&mut bytes).await;
    assert_eq!(bytes, [0x20, 2, 0, 1]);
}

#[tokio::test]
async fn an_oversized_connect_is_refused_from_its_header() {
    let bench = Bench::start(config()).await;
    let mut client = Client::silent(bench.address).await;
    client.send_bytes(&[0x10, 0xFF, 0xFF, 0xFF, 0x7F, 0, 4, b'M', b'Q', b'T']).await;
    assert_eq!(client.next().await, None);
}

#[tokio::test]
async fn an_oversized_or_malformed_packet_is_told_and_closes_the_link() {
    let bench = Bench::start(config()).await;
    for (bytes, reason) in [
        (&[0x32, 0xFF, 0xFF, 0xFF, 0x7F, 0, 4][..], Reason::TOO_LARGE),
        (&[0x32, 3, 0, 9, b'x'], Reason::MALFORMED),
        (&[0x36, 5, 0, 1, b'x', 0, 1], Reason::MALFORMED),
        (&[0x20, 3, 0, 0, 0], Reason::PROTOCOL_ERROR),
        (&[0xF0, 0], Reason::PROTOCOL_ERROR),
    ] {
        let mut client = Client::open(&bench, "dev").await;
        client.send_bytes(bytes).await;
        assert_eq!(client.dismissed().await, Some(reason), "{bytes:?}");
    }
    let mut old = Client::open_with(bench.address, connect(&bench, "old", Version::V311)).await;
    old.send_bytes(&[0x32, 3, 0, 9, b'x']).await;
    assert_eq!(old.dismissed().await, None);
}

#[tokio::test]
async fn a_second_connect_and_qos_2_break_the_rules_of_version_5() {
    let bench = Bench::start(config()).await;
    let mut client = Client::open(&bench, "dev").await;
    client.send(&Packet::Connect(Box::new(Connect::new(Version::V5, "dev")))).await;
    assert_eq!(client.dismissed().await, Some(Reason::PROTOCOL_ERROR));
    let mut client = Client::open(&bench, "dev").await;
    let exactly_once = Publish { qos: 2, packet_id: 1, ..Publish::new("push/demo/up/order", "{}") };
    client.send(&Packet::Publish(Box::new(exactly_once.clone()))).await;
    assert_eq!(client.dismissed().await, Some(Reason::QOS_UNSUPPORTED));
    let mut old = Client::open_with(bench.address, connect(&bench, "dev", Version::V311)).await;
    old.send(&Packet::Publish(Box::new(exactly_once))).await;
    assert!(matches!(old.next().await, Some(Packet::PubAck(ack)) if ack.packet_id == 1));
}

#[tokio::test]
async fn subscriptions_stay_inside_the_app() {
    let bench = Bench::start(config()).await;
    let mut client = Client::open(&bench, "dev").await;
    let filters = vec![("push/demo/#".into(), 2), ("#".into(), 1), ("push/other/msg/+".into(), 0)];
    client.send(&Packet::Subscribe(Subscribe { packet_id: 9, filters: filters.clone() })).await;
    let reasons = vec![Reason::GRANTED_QOS1, Reason::NOT_AUTHORIZED, Reason::NOT_AUTHORIZED];
    assert_eq!(client.next().await, Some(Packet::SubAck(SubAck { packet_id: 9, reasons })));
    client.send(&Packet::Unsubscribe(Unsubscribe { packet_id: 10, filters: vec!["push/demo/#".into()] })).await;
    let reasons = vec![Reason::SUCCESS];
    assert_eq!(client.next().await, Some(Packet::UnsubAck(SubAck { packet_id: 10, reasons })));
    let mut old = Client::open_with(bench.address, connect(&bench, "old", Version::V311)).await;
    old.send(&Packet::Subscribe(Subscribe { packet_id: 9, filters })).await;
    let reasons = vec![Reason::GRANTED_QOS1, Reason::UNSPECIFIED, Reason::UNSPECIFIED];
    assert_eq!(old.next().await, Some(Packet::SubAck(SubAck { packet_id: 9, reasons })));
}

#[tokio::test]
async fn half_open_connections_are_closed_in_time_and_disturb_nobody() {
    let bench = Bench::start(Config { connect_deadline: Duration::from_millis(500), ..config() }).await;
    let device = bench.register("dev").await;
    let mut client = Client::open(&bench, "dev").await;
    let mut half_open = Vec::new();
    for _ in 0..500 {
        let mut half = Client::silent(bench.address).await;
        half.send_bytes(&[0x10, 0x20, 0, 4]).await;
        half_open.push(half);
    }
    bench.unicast(device, 1).await;
    client.take().await;
    for mut half in half_open {
        assert_eq!(half.next().await, None);
    }
    client.hears_nothing().await;
}
