//! Commands: delivered in time or not at all, and their outcome is kept before it is acked.

use std::time::Duration;

use model::{Class, Lane, Message, MessageId, Ordinal, Outcome, Queue, Uplink, Verdict, record::Record as _};
use mqtt::{Reason, Version};

use crate::{
    bench::{Bench, config, eventually},
    client::{Client, connect, number},
};

/// Sends the device `dev` a command that must begin within this time.
async fn command(bench: &Bench, device: Ordinal, n: usize, within: Duration) -> MessageId {
    let class = Class::Command { device: "dev".parse().unwrap() };
    let expires_at = bench.now() + within;
    bench.send_unicast(device, Message { class, expires_at, ..bench.message(Lane::Unicast, n) }).await
}

#[tokio::test]
async fn a_device_is_told_what_it_needs_to_answer_a_command() {
    let bench = Bench::start(config()).await;
    let device = bench.register("dev").await;
    let mut client = Client::open(&bench, "dev").await;
    let id = command(&bench, device, 1, Duration::from_secs(60)).await;
    let taken = client.take().await;
    assert_eq!(taken.response_topic, Some(format!("push/demo/result/{id}")));
    assert_eq!(taken.correlation_data.as_deref(), Some(id.to_string().as_bytes()));
    assert_eq!(taken.property("class"), Some("command"));
    assert!(taken.property("deadline").is_some());
    drop(client);

    let mut older = Client::open_with(bench.address, connect(&bench, "dev", Version::V311)).await;
    let id = command(&bench, device, 2, Duration::from_secs(60)).await;
    let envelope: serde_json::Value = serde_json::from_slice(&older.take().await.payload).unwrap();
    assert_eq!((&envelope["id"], &envelope["class"]), (&id.to_string().into(), &"command".into()));
    assert!(envelope["deadline"].is_string());
}

#[tokio::test]
async fn a_device_that_comes_back_after_the_deadline_does_not_get_the_command() {
    let bench = Bench::start(config()).await;
    let device = bench.register("dev").await;
    let mut client = Client::open(&bench, "dev").await;
    let sent = command(&bench, device, 1, Duration::from_millis(600)).await;
    assert_eq!(number(&client.message().await), 1, "it was sent, but not acked");
    drop(client);
    eventually(Duration::from_secs(5), async || bench.status().connections == 0).await;
    let never_sent = command(&bench, device, 2, Duration::from_millis(500)).await;
    let deadline = bench.now() + Duration::from_millis(700);
    eventually(Duration::from_secs(5), async || bench.now() > deadline).await;

    let mut client = Client::open(&bench, "dev").await;
    client.hears_nothing().await;
    command(&bench, device, 3, Duration::from_secs(60)).await;
    assert_eq!(number(&client.take().await), 3);
    assert!(bench.tally(sent).await.sent.contains(device));
    assert!(!bench.tally(never_sent).await.sent.contains(device));
}

#[tokio::test]
async fn an_outcome_is_on_its_queue_when_it_is_acked_and_is_an_outcome() {
    let bench = Bench::start(config()).await;
    let device = bench.register("dev").await;
    let id = command(&bench, device, 1, Duration::from_secs(60)).await;
    let topic = format!("push/demo/result/{id}");
    for version in [Version::V5, Version::V311] {
        let mut client = Client::open_with(bench.address, connect(&bench, "dev", version)).await;
        client.take().await;
        assert_eq!(client.publish(&topic, r#"{"status":"failed","reason":"no power"}"#).await, Reason::SUCCESS);
        let mut consumer = bench.broker.consume(Queue::Uplink, 10).await.unwrap();
        let delivery = consumer.next(10).await.remove(0);
        let uplink = Uplink::decode(delivery.body()).unwrap();
        assert_eq!((uplink.device.as_str(), uplink.answers, uplink.kind.as_str()), ("dev", Some(id), "result"));
        let outcome = Outcome::read(&uplink.payload, uplink.id, uplink.received_at).unwrap();
        assert_eq!((outcome.verdict, outcome.reason.as_deref()), (Verdict::Failed, Some("no power")));
        delivery.ack();
        drop(client);
        command(&bench, device, 2, Duration::from_secs(60)).await;
    }
    let mut client = Client::open(&bench, "other").await;
    for bad in ["", "done", r#"{"status":"done"}"#] {
        assert_eq!(client.publish(&topic, bad).await, Reason::BAD_PAYLOAD, "{bad}");
    }
    assert_eq!(client.publish("push/demo/result/7", "{}").await, Reason::NOT_AUTHORIZED);
}
