//! What a device sends to another, and what it asks.

use model::{Audience, Class, Envelope, Lane, Message, Queue, Shard, Uplink, UplinkRules, record::Record as _};
use mqtt::{Packet, Reason, Version, packet::Publish};

use crate::{
    bench::{Bench, config},
    client::{Client, connect},
};

async fn bench_with(peers: bool) -> Bench {
    let mut bench = Bench::start(config()).await;
    bench.rule(UplinkRules { peers, device_burst: 4, device_per_s: 1, ..UplinkRules::default() }).await;
    bench.restart().await;
    bench
}

#[tokio::test]
async fn what_a_device_sends_to_another_is_a_unicast_that_says_who_sent_it() {
    let bench = bench_with(true).await;
    let to = bench.register("dev-2").await;
    let shard = Shard::of_device(&bench.app, to, 1);
    for version in [Version::V5, Version::V311] {
        let mut client = Client::open_with(bench.address, connect(&bench, "dev-1", version)).await;
        assert_eq!(client.publish("push/demo/peer/dev-2/chat", r#"{"n":1}"#).await, Reason::SUCCESS);
        let mut consumer = bench.broker.consume(Queue::Push(Lane::Unicast, shard), 10).await.unwrap();
        let delivery = consumer.next(10).await.remove(0);
        let Envelope { message, audience, .. } = Envelope::decode(delivery.body()).unwrap();
        assert_eq!(audience, Audience::One(to));
        assert_eq!(message.class, Class::Peer { from: "dev-1".parse().unwrap() });
        assert_eq!((message.kind.as_str(), message.content_type.as_str()), ("chat", "application/json"));
        assert!(bench.store.entry(&bench.app, message.id).await.unwrap().is_some(), "its sender's funnel begins");
        delivery.ack();

        let mut other = Client::open(&bench, "dev-2").await;
        bench.send_unicast(to, message).await;
        let told = other.take().await;
        assert_eq!((told.topic.as_str(), told.property("from")), ("push/demo/msg/chat", Some("dev-1")));
        bench.caught_up(to).await;
    }
}

#[tokio::test]
async fn devices_send_to_each_other_only_where_the_app_lets_them_and_no_faster() {
    let bench = bench_with(false).await;
    bench.register("dev-2").await;
    let mut client = Client::open(&bench, "dev-1").await;
    assert_eq!(client.publish("push/demo/peer/dev-2/chat", "1").await, Reason::NOT_AUTHORIZED);

    let bench = bench_with(true).await;
    bench.register("dev-2").await;
    let mut client = Client::open(&bench, "dev-1").await;
    assert_eq!(client.publish("push/demo/peer/nobody/chat", "1").await, Reason::NO_SUBSCRIBERS);
    assert_eq!(client.publish("push/demo/peer/dev-2/chat", vec![b'1'; 4_097]).await, Reason::BAD_PAYLOAD);
    for _ in 0..3 {
        assert_eq!(client.publish("push/demo/peer/dev-2/chat", "1").await, Reason::SUCCESS);
    }
    assert_eq!(client.publish("push/demo/peer/dev-2/chat", "1").await, Reason::QUOTA_EXCEEDED);
}

#[tokio::test]
async fn a_request_says_where_its_answer_goes_and_the_answer_comes_there() {
    let bench = Bench::start(config()).await;
    let device = bench.register("dev").await;
    for version in [Version::V5, Version::V311] {
        let mut client = Client::open_with(bench.address, connect(&bench, "dev", version)).await;
        let (topic, asked) = match version {
            Version::V5 => ("push/demo/up/ask", Some(("push/demo/res/r-1".to_owned(), b"\x00\x07".to_vec()))),
            Version::V311 => ("push/demo/up/ask/r-1", None),
        };
        let (response_topic, correlation_data) = asked.unzip();
        let publish = Publish::new(topic, "{}");
        let publish = Publish { qos: 1, packet_id: 9, response_topic, correlation_data, ..publish };
        client.send(&Packet::Publish(Box::new(publish))).await;
        assert!(matches!(client.next().await, Some(Packet::PubAck(ack)) if ack.reason == Reason::SUCCESS));
        let mut uplinks = bench.broker.consume(Queue::Uplink, 10).await.unwrap();
        let delivery = uplinks.next(10).await.remove(0);
        let uplink = Uplink::decode(delivery.body()).unwrap();
        delivery.ack();
        let reply = uplink.reply.unwrap();
        assert_eq!((uplink.kind.as_str(), reply.to.as_str()), ("ask", "r-1"));

        let class = Class::Answer(reply);
        bench.send_unicast(device, Message { class, ..bench.message(Lane::Unicast, 1) }).await;
        let answer = client.take().await;
        assert_eq!(answer.topic, "push/demo/res/r-1");
        let repeated = (version == Version::V5).then(|| b"\x00\x07".to_vec());
        assert_eq!(answer.correlation_data, repeated);
        bench.caught_up(device).await;
    }
}

#[tokio::test]
async fn an_answer_can_go_to_its_device_only() {
    let bench = Bench::start(config()).await;
    let mut client = Client::open(&bench, "dev").await;
    for topic in ["push/other/res/r-1", "push/demo/msg/order", "push/demo/res/a/b"] {
        let response_topic = Some(topic.to_owned());
        let publish = Publish { qos: 1, packet_id: 9, response_topic, ..Publish::new("push/demo/up/ask", "{}") };
        client.send(&Packet::Publish(Box::new(publish))).await;
        assert!(
            matches!(client.next().await, Some(Packet::PubAck(ack)) if ack.reason == Reason::TOPIC_INVALID),
            "{topic}"
        );
    }
}
