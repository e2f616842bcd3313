//! The same request again is the same message.

use futures_util::future::join_all;
use model::{Clock as _, Limits, Ordinal, SystemClock};
use serde_json::json;
use store::InboxAppend;

use crate::sandbox::{Answer, Sandbox, Setup};

const SEND: &str = r#"{"to":{"devices":["dev-1"]},"payload":{"a":1,"b":2}}"#;

/// Passes when `again` is `first` once more.
#[track_caller]
fn assert_replay(again: &Answer, first: &Answer) {
    assert_eq!((again.status.as_u16(), again.header("idempotency-replayed")), (202, "true"), "{again:?}");
    assert_eq!((&again.body, again.header("location")), (&first.body, first.header("location")));
}

#[tokio::test]
async fn a_replay_gets_the_first_answer_and_makes_no_second_message() {
    let sandbox = Sandbox::start().await;
    sandbox.add_devices(1).await;
    let first = sandbox.post_once("\"order-1\"", SEND).await;
    assert_eq!((first.status.as_u16(), first.header("idempotency-replayed")), (202, ""));
    let reordered = r#"{ "payload": {"b":2,"a":1}, "to":{"devices":["dev-1"]}, "idempotency_key": "order-1" }"#;
    for again in [sandbox.post_once("order-1", SEND).await, sandbox.post("/v1/messages", reordered).await] {
        assert_replay(&again, &first);
    }
    let mut ids: Vec<_> = sandbox.queued().await.iter().map(|(_, e)| e.message.id.to_string()).collect();
    ids.dedup();
    assert_eq!(ids, [first.text("id")], "only ever published under its own id");
    assert_eq!(sandbox.get("/v1/messages").await.body["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_replay_costs_nothing() {
    let limits = Limits { recipients_per_s: 1, recipients_burst: 5 };
    let sandbox = Sandbox::with(Setup { limits, ..Setup::default() }).await;
    sandbox.add_devices(3).await;
    let send = r#"{"to":{"devices":["dev-1","dev-2","dev-3"]},"payload":1}"#;
    let first = sandbox.post_once("k", send).await;
    assert_eq!(first.status, 202, "{first:?}");
    for _ in 0..3 {
        assert_replay(&sandbox.post_once("k", send).await, &first);
    }
}

#[tokio::test]
async fn a_replay_is_answered_when_its_device_is_gone() {
    let sandbox = Sandbox::start().await;
    sandbox.add_devices(1).await;
    let send = SEND.replace("\"payload\"", "\"require_targets\":true,\"payload\"");
    let dispatched = sandbox.post_once("dispatched", &send).await;
    let (_, envelope) = sandbox.queued().await.remove(0);
    let append = InboxAppend { message: envelope.message.into(), devices: [Ordinal(0)].into_iter().collect() };
    sandbox.store.append_inbox(vec![append], SystemClock.now()).await.unwrap();
    let waiting = sandbox.post_once("waiting", &send).await;
    assert_eq!(sandbox.delete("/v1/devices/dev-1").await.status, 204);

    sandbox.post_once("new", &send).await.assert_problem(422, "audience_empty");
    assert_replay(&sandbox.post_once("dispatched", &send).await, &dispatched);
    assert_replay(&sandbox.post_once("waiting", &send).await, &waiting);
    sandbox.post_once("dispatched", SEND).await.assert_problem(422, "idempotency_key_reused");
    let in_a_batch = send.replace("\"payload\"", "\"idempotency_key\":\"dispatched\",\"payload\"");
    let batch = sandbox.post("/v1/messages/batch", &format!(r#"{{"messages":[{in_a_batch}]}}"#)).await;
    assert_eq!((batch.statuses(), &batch.body["results"][0]["id"]), (vec![202], &dispatched.body["id"]));
    assert_eq!(sandbox.queued().await.len(), 2, "none of it was published again");
}

#[tokio::test]
async fn a_key_cannot_mean_something_else() {
    let sandbox = Sandbox::start().await;
    sandbox.add_devices(1).await;
    assert_eq!(sandbox.post_once("k", SEND).await.status, 202);
    let other = SEND.replace("\"b\":2", "\"b\":3");
    sandbox.post_once("k", &other).await.assert_problem(422, "idempotency_key_reused");
    assert_eq!(sandbox.queued().await.len(), 1);
    let body = SEND.replace("\"payload\"", "\"idempotency_key\":\"other\",\"payload\"");
    let answer = sandbox.post_once("k", &body).await;
    assert_eq!(answer.faults(), [("#/idempotency_key".into(), "contradiction".into())]);
    for bad in ["\"open", "", "a\\b"] {
        sandbox.post_once(bad, SEND).await.assert_problem(400, "idempotency_key_invalid");
    }
    sandbox.post_once(&"x".repeat(129), SEND).await.assert_problem(400, "idempotency_key_invalid");
    assert_eq!(sandbox.post_once(&"x".repeat(128), SEND).await.status, 202);
}

#[tokio::test]
async fn apps_and_environments_do_not_share_keys() {
    let sandbox = Sandbox::start().await;
    sandbox.add_devices(1).await;
    let first = sandbox.post_once("k", SEND).await;
    let strangers =
        [sandbox.add_app("other").await, sandbox.add_key("demo", model::Env::Live, &model::Scope::PRODUCT).await];
    for key in &strangers {
        let answer = sandbox.ask("POST", "/v1/messages", key, &[("idempotency-key", "k")], SEND).await;
        assert_eq!((answer.status.as_u16(), answer.header("idempotency-replayed")), (202, ""));
        assert_ne!(answer.text("id"), first.text("id"));
    }
}

#[tokio::test]
async fn many_at_once_with_one_key_make_one_message() {
    let sandbox = Sandbox::start().await;
    sandbox.add_devices(1).await;
    let answers = join_all((0..50).map(|_| sandbox.post_once("k", SEND))).await;
    let mut ids = std::collections::BTreeSet::new();
    for answer in &answers {
        if answer.status == 202 {
            ids.insert(answer.text("id").to_owned());
        } else {
            answer.assert_problem(409, "idempotency_in_progress");
            assert_eq!(answer.header("retry-after"), "1");
        }
    }
    assert_eq!(ids.len(), 1);
    let queued = sandbox.queued().await;
    assert!(queued.iter().all(|(_, envelope)| ids.contains(&envelope.message.id.to_string())));
}

#[tokio::test]
async fn each_message_of_a_batch_has_its_own_key() {
    let sandbox = Sandbox::start().await;
    sandbox.add_devices(1).await;
    let item =
        |key: &str, payload: u8| json!({"to": {"devices": ["dev-1"]}, "payload": payload, "idempotency_key": key});
    let body = json!({"messages": [item("a", 1), item("b", 2), item("a", 1)]}).to_string();
    let answer = sandbox.post("/v1/messages/batch", &body).await;
    assert_eq!(answer.statuses(), [202, 202, 409]);
    let again =
        sandbox.post("/v1/messages/batch", &json!({"messages": [item("b", 2), item("a", 9)]}).to_string()).await;
    assert_eq!(again.body["results"][0]["id"], answer.body["results"][1]["id"]);
    assert_eq!(again.body["results"][1]["problem"]["code"], "idempotency_key_reused");
}
