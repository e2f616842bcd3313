//! What devices send up is kept before it is acked, and nothing else is taken.

use std::sync::Arc;

use broker::{Delivery, contract::Flaky};
use model::{
    Clock as _, Env, Node, Queue, Report, Reported, Run, Sighting, SystemClock, Tier, Uplink, record::Record as _,
};
use mqtt::{
    Packet, Reason, Version,
    packet::{PubAck, Publish},
};

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
async fn what_a_device_names_and_sends_again_has_the_id_that_it_had() {
    let bench = Bench::start(config()).await;
    let named = |name: &str, packet_id| Publish {
        qos: 1,
        packet_id,
        user_properties: vec![("id".into(), name.into())],
        ..Publish::new("push/demo/up/order", "{}")
    };
    for device in ["dev", "other"] {
        let mut client = Client::open_with(bench.address, connect(&bench, device, Version::V5)).await;
        for (packet_id, name) in (1..).zip(["a", "a", "b"]) {
            client.send(&Packet::Publish(Box::new(named(name, packet_id)))).await;
            assert_eq!(client.next().await, Some(Packet::PubAck(PubAck { packet_id, reason: Reason::SUCCESS })));
        }
        client.send(&Packet::Publish(Box::new(named("not/a/name", 9)))).await;
        let refused = PubAck { packet_id: 9, reason: Reason::BAD_PAYLOAD };
        assert_eq!(client.next().await, Some(Packet::PubAck(refused)));
    }
    let deliveries = taken(&bench, Queue::Uplink).await;
    let ids: Vec<_> = deliveries.iter().map(|delivery| Uplink::decode(delivery.body()).unwrap().id).collect();
    assert_eq!((ids.len(), ids[0], ids[3]), (6, ids[1], ids[4]));
    let distinct: std::collections::BTreeSet<_> = ids.into_iter().collect();
    assert_eq!(distinct.len(), 4);
    deliveries.into_iter().for_each(Delivery::ack);
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
    for topic in ["push/other/up/order", "push/demo/msg/order", "push/demo/up/Bad", "anything", "push/demo/event"] {
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

/// Whatever was seen of devices until one of them satisfies `until`, and in how many publications.
async fn seen(bench: &Bench, until: impl Fn(&[Sighting]) -> bool) -> (Vec<Sighting>, usize) {
    let mut consumer = bench.broker.consume(Queue::Reports, 100).await.unwrap();
    let (mut seen, mut publications) = (Vec::new(), 0);
    while !until(&seen) {
        for delivery in consumer.next(100).await {
            let Reported::Seen(sightings) = Reported::decode(delivery.body()).unwrap() else { panic!("a report") };
            assert_eq!(sightings.app, bench.app);
            seen.extend(sightings.devices);
            publications += 1;
            delivery.ack();
        }
    }
    (seen, publications)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_and_who_goes_is_told_for_many_at_once() {
    const DEVICES: usize = 300;
    let bench = Bench::start(config()).await;
    let (id, now) = ("ap-1".parse().unwrap(), SystemClock.now());
    let run = Run { node: "ap-1".parse().unwrap(), boot: now };
    let node = Node {
        id,
        boot: now,
        tiers: vec![Tier::AccessPoint],
        endpoint: None,
        filter: None,
        version: "0".into(),
        seen_at: now,
        drain: None,
    };
    assert!(bench.store.beat(node).await.unwrap());
    let mut clients = Vec::new();
    for number in 0..DEVICES {
        clients.push(Client::open(&bench, &format!("dev-{number}")).await);
    }
    let (came, publications) = seen(&bench, |seen| seen.len() >= DEVICES).await;
    assert!(came.iter().all(|sighting| sighting.seen.run.as_ref() == Some(&run)));
    assert!(came.iter().all(|sighting| sighting.seen.transport == "tcp" && sighting.seen.ip_prefix == "127.0.0.0/24"));
    assert!(publications < DEVICES / 10, "{publications} publications");
    drop(clients);
    let (gone, publications) = seen(&bench, |seen| seen.len() >= DEVICES).await;
    assert!(gone.iter().all(|sighting| sighting.seen.run.is_none()));
    assert!(publications < DEVICES / 10, "{publications} publications");
    let epoch = |seen: &[Sighting], name: &str| seen.iter().find(|one| one.device.as_str() == name).unwrap().seen.epoch;
    assert_eq!(epoch(&came, "dev-7"), epoch(&gone, "dev-7"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_told_of_devices_before_it_is_known_which_run_has_them() {
    let bench = Bench::start(config()).await;
    let _client = Client::open(&bench, "dev").await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(bench.broker.depth(Queue::Reports).await.unwrap().ready, 0);
}
