//! The same request again is the same message.

use futures_util::future::join_all;
use serde_json::json;

use crate::sandbox::Sandbox;

const SEND: &str = r#"{"to":{"devices":["dev-1"]},"payload":{"a":1,"b":2}}"#;

#[tokio::test]
async fn a_replay_gets_the_first_answer_and_makes_no_second_message() {
    let sandbox = Sandbox::start().await;
    sandbox.add_devices(1).await;
    let first = sandbox.post_once("\"order-1\"", SEND).await;
    assert_eq!((first.status.as_u16(), first.header("idempotency-replayed")), (202, ""));
    let reordered = r#"{ "payload": {"b":2,"a":1}, "to":{"devices":["dev-1"]}, "idempotency_key": "order-1" }"#;
    for again in [sandbox.post_once("order-1", SEND).await, sandbox.post("/v1/messages", reordered).await] {
        assert_eq!((again.status.as_u16(), again.header("idempotency-replayed")), (202, "true"), "{again:?}");
        assert_eq!((&again.body, again.header("location")), (&first.body, first.header("location")));
    }
    let mut ids: Vec<_> = sandbox.queued().await.iter().map(|(_, e)| e.message.id.to_string()).collect();
    ids.dedup();
    assert_eq!(ids, [first.text("id")], "only ever published under its own id");
    assert_eq!(sandbox.get("/v1/messages").await.body["data"].as_array().unwrap().len(), 1);
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
    let statuses: Vec<_> = answer.body["results"].as_array().unwrap().iter().map(|r| r["status"].clone()).collect();
    assert_eq!(statuses, [202, 202, 409]);
    let again =
        sandbox.post("/v1/messages/batch", &json!({"messages": [item("b", 2), item("a", 9)]}).to_string()).await;
    assert_eq!(again.body["results"][0]["id"], answer.body["results"][1]["id"]);
    assert_eq!(again.body["results"][1]["problem"]["code"], "idempotency_key_reused");
}
