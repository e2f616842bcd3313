//! What devices send up is what their app lets them send, and no faster.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use broker::contract::Flaky;
use model::{Bell, Queue, UplinkRules};
use mqtt::{Packet, Reason, Version, packet::Publish};

use crate::{
    bench::{Bench, config, eventually},
    client::{Client, connect},
};

/// Rules under which a device may send `burst` at once, and then so many a second.
fn rules(device_per_s: u32, device_burst: u32) -> UplinkRules {
    UplinkRules { device_per_s, device_burst, ..UplinkRules::default() }
}

async fn bench_with(rules: UplinkRules) -> Bench {
    let mut bench = Bench::start(config()).await;
    bench.rule(rules).await;
    bench.restart().await;
    bench
}

/// Says so many messages in one segment.
async fn burst(client: &mut Client, version: Version, packet_ids: std::ops::RangeInclusive<u16>) {
    let mut bytes = Vec::new();
    for packet_id in packet_ids {
        let publish = Publish { qos: 1, packet_id, ..Publish::new("push/demo/up/gps", "{}") };
        mqtt::wire::encode(&Packet::Publish(Box::new(publish)), version, &mut bytes).unwrap();
    }
    client.send_bytes(&bytes).await;
}

async fn acked(client: &mut Client, packet_id: u16) {
    match client.next().await {
        Some(Packet::PubAck(ack)) => assert_eq!(ack.packet_id, packet_id),
        other => panic!("instead of the ack of {packet_id}: {other:?}"),
    }
}

#[tokio::test]
async fn a_device_is_told_that_it_sends_more_than_it_may() {
    let bench = bench_with(rules(2, 3)).await;
    let mut client = Client::open(&bench, "dev").await;
    let mut reasons = Vec::new();
    for _ in 0..4 {
        reasons.push(client.publish("push/demo/up/gps", "{}").await);
    }
    assert_eq!(reasons, [Reason::SUCCESS, Reason::SUCCESS, Reason::SUCCESS, Reason::QUOTA_EXCEEDED]);
    assert_eq!(bench.broker.depth(Queue::Uplink).await.unwrap().ready, 3);
    assert_eq!(Client::open(&bench, "other").await.publish("push/demo/up/gps", "{}").await, Reason::SUCCESS);
    let started = Instant::now();
    while client.publish("push/demo/up/gps", "{}").await != Reason::SUCCESS {
        assert!(started.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(bench.metric("fanfare_uplinks_refused_total") >= 1.0);
}

#[tokio::test]
async fn reports_questions_and_bindings_count_by_device_and_for_no_type() {
    let bench = bench_with(UplinkRules { type_per_s: 1, ..rules(2, 3) }).await;
    for (name, payload) in [("attr", "{}"), ("sync", r#"{"after":"i0.t0"}"#), ("bind", r#"{"app":"other"}"#)] {
        let (mut client, topic) = (Client::open(&bench, name).await, format!("push/demo/{name}"));
        for reason in [Reason::SUCCESS, Reason::SUCCESS, Reason::SUCCESS, Reason::QUOTA_EXCEEDED] {
            assert_eq!(client.publish(&topic, payload).await, reason, "{name}");
        }
        let mut old = Client::open_with(bench.address, connect(&bench, &format!("old-{name}"), Version::V311)).await;
        for _ in 0..4 {
            assert_eq!(old.publish(&topic, payload).await, Reason::SUCCESS, "{name}");
        }
        let held = Instant::now();
        old.send(&Packet::PingReq).await;
        assert_eq!(old.next().await, Some(Packet::PingResp));
        assert!(held.elapsed() >= Duration::from_millis(100), "{name}: {:?}", held.elapsed());
    }
}

#[tokio::test]
async fn devices_of_an_app_share_the_rate_of_a_type() {
    let bench = bench_with(UplinkRules { type_per_s: 2, ..UplinkRules::default() }).await;
    let [mut one, mut two] = [Client::open(&bench, "one").await, Client::open(&bench, "two").await];
    assert_eq!(one.publish("push/demo/up/gps", "{}").await, Reason::SUCCESS);
    assert_eq!(two.publish("push/demo/up/gps", "{}").await, Reason::SUCCESS);
    assert_eq!(one.publish("push/demo/up/gps", "{}").await, Reason::QUOTA_EXCEEDED);
    assert_eq!(one.publish("push/demo/up/click", "{}").await, Reason::SUCCESS, "another type");
}

#[tokio::test]
async fn a_device_that_cannot_be_told_is_not_heard_until_it_was_not_too_fast() {
    let bench = bench_with(rules(4, 2)).await;
    let mut client = Client::open_with(bench.address, connect(&bench, "dev", Version::V311)).await;
    burst(&mut client, Version::V311, 1..=4).await;
    for packet_id in 1..=4 {
        acked(&mut client, packet_id).await;
    }
    let held = Instant::now();
    client.send(&Packet::PingReq).await;
    assert_eq!(client.next().await, Some(Packet::PingResp));
    assert!(held.elapsed() >= Duration::from_millis(300), "{:?}", held.elapsed());
    assert_eq!(client.publish("push/demo/up/gps", "{}").await, Reason::SUCCESS, "the link lasts");
    assert_eq!(bench.broker.depth(Queue::Uplink).await.unwrap().ready, 5);
    assert!(bench.metric("fanfare_uplinks_held_total") >= 1.0);
}

#[tokio::test]
async fn a_device_that_cannot_be_told_and_is_much_too_fast_is_cut_off() {
    let bench = bench_with(rules(1, 1)).await;
    let mut client = Client::open_with(bench.address, connect(&bench, "dev", Version::V311)).await;
    burst(&mut client, Version::V311, 1..=20).await;
    eventually(Duration::from_secs(5), async || bench.status().connections == 0).await;
}

#[tokio::test]
async fn a_device_that_cannot_be_told_is_not_heard_while_the_broker_takes_nothing() {
    let bench = Bench::start_on(config(), |broker| Arc::new(Flaky::new(broker, 2))).await;
    let mut client = Client::open_with(bench.address, connect(&bench, "dev", Version::V311)).await;
    for _ in 0..4 {
        assert_eq!(client.publish("push/demo/up/gps", "{}").await, Reason::SUCCESS);
    }
    assert!(bench.broker.depth(Queue::Uplink).await.unwrap().ready >= 4);
}

#[tokio::test]
async fn only_types_that_the_app_allows_are_taken() {
    let only_gps = UplinkRules { types: Some(["gps".to_owned()].into()), ..UplinkRules::default() };
    let bench = bench_with(only_gps).await;
    let mut client = Client::open(&bench, "dev").await;
    assert_eq!(client.publish("push/demo/up/gps", "{}").await, Reason::SUCCESS);
    assert_eq!(client.publish("push/demo/up/click", "{}").await, Reason::NOT_AUTHORIZED);
    bench.rule(UplinkRules::default()).await;
    bench.ring(&Bell::Apps);
    let started = Instant::now();
    while client.publish("push/demo/up/click", "{}").await != Reason::SUCCESS {
        assert!(started.elapsed() < Duration::from_secs(5), "the bell tells what is allowed now");
    }
}

#[tokio::test]
async fn what_is_said_to_be_json_and_is_not_is_refused_and_what_is_too_large() {
    let bench = Bench::start(config()).await;
    let mut client = Client::open(&bench, "dev").await;
    for (payload, mime, reason) in [
        ("{\"n\":1}", Some("application/json"), Reason::SUCCESS),
        ("{\"n\":", Some("application/json; charset=utf-8"), Reason::BAD_PAYLOAD),
        ("{\"n\":", Some("text/plain"), Reason::SUCCESS),
        ("{\"n\":", None, Reason::SUCCESS),
    ] {
        let content_type = mime.map(str::to_owned);
        let publish = Publish { qos: 1, packet_id: 7, content_type, ..Publish::new("push/demo/up/gps", payload) };
        client.send(&Packet::Publish(Box::new(publish))).await;
        match client.next().await {
            Some(Packet::PubAck(ack)) => assert_eq!(ack.reason, reason, "{payload} {mime:?}"),
            other => panic!("instead of PUBACK: {other:?}"),
        }
    }
    assert_eq!(client.publish("push/demo/up/gps", vec![b'x'; 64 * 1024 + 1]).await, Reason::BAD_PAYLOAD);
}
