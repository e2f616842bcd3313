//! What devices send up is kept before it is acked, and nothing else is taken.

use std::sync::Arc;

use broker::{Delivery, contract::Flaky};
use model::{Env, Queue, Report, Uplink, record::Record as _};
use mqtt::{Packet, Reason, Version, packet::Publish};

use crate::{
    bench::{Bench, config},
    client::{Client, connect},
};

async fn taken(bench: &Bench, queue: Queue) -> Vec<Delivery> {
    bench.broker.consume(queue, 10).await.unwrap().next(10).await
}

#[tokio::test]
async fn an_uplink_is_on_its_queue_when_it_is_acked() {
    let bench = Bench::start(config()).await;
    for version in [Version::V5, Version::V311] {
        let mut client = Client::open_with(bench.address, connect(&bench, "dev", version)).await;
        assert_eq!(client.publish("push/demo/up/order", "{\"n\":1}").await, Reason::SUCCESS);
        assert!(bench.broker.depth(Queue::Uplink).await.unwrap().ready >= 1);
        let delivery = taken(&bench, Queue::Uplink).await.remove(0);
        let uplink = Uplink::decode(delivery.body()).unwrap();
        assert_eq!((uplink.app.as_str(), uplink.device.as_str(), uplink.kind.as_str()), ("demo", "dev", "order"));
        assert_eq!((uplink.env, &uplink.payload[..]), (Env::Live, &b"{\"n\":1}"[..]));
        delivery.ack();
    }
}

#[tokio::test]
async fn an_attribute_report_is_on_its_queue_when_it_is_acked() {
    let bench = Bench::start(config()).await;
    let ordinal = bench.register("dev").await;
    let mut client = Client::open(&bench, "dev").await;
    assert_eq!(client.publish("push/demo/attr", r#"{"tags":["vip"]}"#).await, Reason::SUCCESS);
    let delivery = taken(&bench, Queue::Reports).await.remove(0);
    let report = Report::decode(delivery.body()).unwrap();
    assert_eq!((report.device.as_str(), report.ordinal), ("dev", ordinal));
    assert_eq!(&report.patch[..], br#"{"tags":["vip"]}"#);
    delivery.ack();
    let large = vec![b' '; model::report::PATCH_MAX_BYTES + 1];
    assert_eq!(client.publish("push/demo/attr", large).await, Reason::BAD_PAYLOAD);
}

#[tokio::test]
async fn other_topics_are_refused_or_end_the_link() {
    let bench = Bench::start(config()).await;
    let mut client = Client::open(&bench, "dev").await;
    for topic in ["push/other/up/order", "push/demo/msg/order", "push/demo/up/Bad", "anything", "push/demo/bind"] {
        assert_eq!(client.publish(topic, "{}").await, Reason::NOT_AUTHORIZED, "{topic}");
    }
    assert_eq!(client.publish("push/demo/hb", "300").await, Reason::SUCCESS);
    client.send(&Packet::Publish(Box::new(Publish::new("push/other/up/order", "{}")))).await;
    assert_eq!(client.dismissed().await, Some(Reason::NOT_AUTHORIZED));
    let mut old = Client::open_with(bench.address, connect(&bench, "old", Version::V311)).await;
    let publish = Publish { qos: 1, packet_id: 5, ..Publish::new("push/other/up/order", "{}") };
    old.send(&Packet::Publish(Box::new(publish))).await;
    assert_eq!(old.dismissed().await, None);
    assert_eq!(bench.broker.depth(Queue::Uplink).await.unwrap().ready, 0);
}

#[tokio::test]
async fn many_uplinks_in_one_segment_are_all_acked() {
    let bench = Bench::start(config()).await;
    let mut client = Client::open(&bench, "dev").await;
    let mut bytes = Vec::new();
    for packet_id in 1..=20 {
        let publish = Publish { qos: 1, packet_id, ..Publish::new("push/demo/up/order", "{}") };
        mqtt::wire::encode(&Packet::Publish(Box::new(publish)), Version::V5, &mut bytes).unwrap();
    }
    mqtt::wire::encode(&Packet::Disconnect(mqtt::packet::Disconnect::default()), Version::V5, &mut bytes).unwrap();
    client.send_bytes(&bytes).await;
    crate::bench::eventually(std::time::Duration::from_secs(5), async || {
        bench.broker.depth(Queue::Uplink).await.unwrap().ready == 20
    })
    .await;
}

#[tokio::test]
async fn an_uplink_is_never_acked_as_taken_when_the_broker_has_not_confirmed_it() {
    let bench = Bench::start_on(config(), |broker| Arc::new(Flaky::new(broker, 2))).await;
    let mut client = Client::open(&bench, "dev").await;
    let mut taken = 0;
    for _ in 0..10 {
        match client.publish("push/demo/up/order", "{}").await {
            Reason::SUCCESS => taken += 1,
            reason => assert_eq!(reason, Reason::IMPLEMENTATION),
        }
    }
    assert_eq!(taken, 5);
    assert!(bench.broker.depth(Queue::Uplink).await.unwrap().ready >= taken);
}
