//! What cannot be promised is not answered with 202, and trying again is safe.

use std::sync::Arc;

use broker::{contract::Flaky, embedded::Limits as QueueLimits};
use model::Queue;

use crate::sandbox::{Sandbox, Setup, until};

const SEND: &str = r#"{"to":{"devices":["dev-1"]},"payload":1}"#;

#[tokio::test]
async fn a_broker_that_fails_is_told_and_a_retry_makes_the_same_message() {
    let wrap = |broker| Arc::new(Flaky::new(broker, 2)) as Arc<dyn broker::Broker>;
    let sandbox = Sandbox::with(Setup { wrap, ..Setup::default() }).await;
    sandbox.add_devices(1).await;
    let (mut accepted, mut refused) = (Vec::new(), 0);
    for number in 0..20 {
        let key = format!("order-{number}");
        let mut answer = sandbox.post_once(&key, SEND).await;
        while answer.status == 503 {
            answer.assert_problem(503, "broker_unavailable");
            assert_eq!(
                answer.text("type"),
                "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
            );
            assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
            refused += 1;
            answer = sandbox.post_once(&key, SEND).await;
        }
        assert_eq!(answer.status, 202, "{answer:?}");
        accepted.push(answer.text("id").to_owned());
    }
    assert_eq!(refused, 19, "every second publish failed");
    let on_broker: Vec<_> = sandbox.queued().await.iter().map(|(_, e)| e.message.id.to_string()).collect();
    assert!(accepted.iter().all(|id| on_broker.contains(id)), "accepted and not on the broker");
    assert!(on_broker.iter().all(|id| accepted.contains(id)), "a message nobody knows of");
}

#[tokio::test]
async fn a_full_queue_refuses_and_drops_nothing() {
    let queues = QueueLimits { messages_max: 3, ..QueueLimits::default() };
    let sandbox = Sandbox::with(Setup { queues, ..Setup::default() }).await;
    sandbox.add_devices(1).await;
    let mut accepted = Vec::new();
    for _ in 0..3 {
        accepted.push(sandbox.post("/v1/messages", SEND).await.text("id").to_owned());
    }
    let refused = sandbox.post("/v1/messages", SEND).await;
    refused.assert_problem(503, "broker_unavailable");
    assert!(!refused.header("retry-after").is_empty());
    let body = format!(r#"{{"messages":[{SEND},{SEND}]}}"#);
    assert_eq!(sandbox.post("/v1/messages/batch", &body).await.status, 503);
    let all = r#"{"to":"all","payload":1}"#;
    assert_eq!(sandbox.post("/v1/messages", all).await.status, 202, "other queues go on");
    let mixed = sandbox.post("/v1/messages/batch", &format!(r#"{{"messages":[{SEND},{all}]}}"#)).await;
    assert_eq!(mixed.statuses(), [503, 202], "also for messages of one batch");
    let queued = sandbox.queued().await;
    let unicasts = queued.iter().filter(|(queue, _)| queue.lane() == Some(model::Lane::Unicast));
    assert_eq!(unicasts.map(|(_, e)| e.message.id.to_string()).collect::<Vec<_>>(), accepted);
}

#[tokio::test]
async fn what_a_full_queue_refused_has_failed_unless_its_sender_can_go_on_with_it() {
    let queues = QueueLimits { messages_max: 1, ..QueueLimits::default() };
    let sandbox = Sandbox::with(Setup { queues, ..Setup::default() }).await;
    sandbox.add_devices(1).await;
    let accepted = sandbox.post("/v1/messages", SEND).await.text("id").to_owned();
    assert_eq!(sandbox.post("/v1/messages", SEND).await.status, 503);
    assert_eq!(sandbox.post_once("order-1", SEND).await.status, 503);
    let listed = sandbox.get("/v1/messages").await;
    let messages = listed.body["data"].as_array().unwrap();
    let (failed, waiting): (Vec<_>, Vec<_>) = messages.iter().partition(|message| message["status"] == "failed");
    assert_eq!((failed.len(), waiting.len()), (1, 2), "{messages:?}");
    assert_eq!(failed[0]["failed"], "its queue was full");
    assert!(waiting.iter().all(|message| message["status"] == "queued"));
    assert!(waiting.iter().any(|message| message["id"] == accepted.as_str()));

    assert_eq!(sandbox.queued().await.len(), 1);
    until(|| async { sandbox.post_once("order-1", SEND).await.status == 202 }).await;
    let on_broker = sandbox.queued().await;
    assert!(waiting.iter().any(|message| message["id"] == on_broker[1].1.message.id.to_string().as_str()));
}

#[tokio::test]
async fn a_node_that_can_serve_says_so() {
    let sandbox = Sandbox::start().await;
    let ready = sandbox.ask("GET", "/readyz", "", &[], "").await;
    assert_eq!((ready.status.as_u16(), &ready.body["ready"]), (200, &true.into()));
    assert_eq!(sandbox.ask("GET", "/healthz", "", &[], "").await.status, 200);
    assert_eq!(sandbox.broker.depth(Queue::Uplink).await.unwrap().ready, 0);
}
