//! A message seen again: its funnel, its receipts, its cancellation. The streams are filled through the store, as a
//! dispatcher and access points would.

use std::sync::Arc;

use model::{
    Bell, Clock as _, Lane, NodeId, Ordinal, Ordinals, Receipt, ReceiptBatch, SystemClock, record::Record as _,
};
use serde_json::{Value, json};
use store::InboxAppend;

use crate::sandbox::Sandbox;

fn set(ordinals: &[u32]) -> Ordinals {
    ordinals.iter().copied().map(Ordinal).collect()
}

/// A message to `dev-1` to `dev-4`; returns its id.
async fn sent(sandbox: &Sandbox) -> String {
    let body = r#"{"to":{"devices":["dev-1","dev-2","dev-3","dev-4"]},"payload":1,"metadata":{"campaign":"ops"}}"#;
    sandbox.post("/v1/messages", body).await.text("id").to_owned()
}

async fn dispatch(sandbox: &Sandbox, id: &str) {
    let queued = sandbox.queued().await;
    let (_, envelope) = queued.into_iter().find(|(_, envelope)| envelope.message.id.to_string() == id).unwrap();
    let append = InboxAppend { message: Arc::new(envelope.message), devices: set(&[0, 1, 2, 3]) };
    sandbox.store.append_inbox(vec![append], SystemClock.now()).await.unwrap();
}

async fn receipt(sandbox: &Sandbox, id: &str, sent: &[u32], acked: &[u32]) {
    let message = id.parse().unwrap();
    let receipt = Receipt { sent: set(sent), acked: set(acked), ..Receipt::new(message) };
    let batch = ReceiptBatch { app: sandbox.app.clone(), receipts: vec![receipt] };
    sandbox.store.add_receipts(vec![batch]).await.unwrap();
}

fn states(page: &Value) -> Vec<(&str, &str)> {
    let rows = page["data"].as_array().unwrap().iter();
    rows.map(|row| (row["device_id"].as_str().unwrap(), row["state"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn a_funnel_balances_at_every_step() {
    let sandbox = Sandbox::start().await;
    sandbox.add_devices(5).await;
    let id = sent(&sandbox).await;
    let path = format!("/v1/messages/{id}");
    let queued = sandbox.get(&path).await;
    assert_eq!((queued.text("status"), queued.text("mode")), ("queued", "multicast"));
    assert_eq!(queued.body["metadata"], json!({"campaign": "ops"}));
    assert_eq!(queued.body["progress"], json!({"resolved": false, "fanout_done": false}));
    dispatch(&sandbox, &id).await;
    receipt(&sandbox, &id, &[0, 1], &[0]).await;
    let delivering = sandbox.get(&path).await;
    assert_eq!(delivering.text("status"), "delivering");
    let stats = json!({"targeted": 4, "acked": 1, "rejected": 0, "expired": 0, "cancelled": 0, "truncated": 0,
        "pending": 3, "pending_online": 1, "pending_offline": 2, "sent": 2, "excluded": 0, "excluded_by": {}});
    assert_eq!(delivering.body["stats"], stats);
    assert!(delivering.text("started_at") >= delivering.text("created_at"));
    receipt(&sandbox, &id, &[0, 1, 2, 3], &[0, 1, 2, 3]).await;
    let completed = sandbox.get(&path).await;
    assert_eq!((completed.text("status"), &completed.body["stats"]["acked"]), ("completed", &json!(4)));
    sandbox.post(&format!("{path}/cancel"), "{}").await.assert_problem(409, "already_completed");
}

#[tokio::test]
async fn receipts_answer_for_each_device() {
    let sandbox = Sandbox::start().await;
    sandbox.add_devices(5).await;
    let id = sent(&sandbox).await;
    let path = format!("/v1/messages/{id}/receipts");
    sandbox.get(&path).await.assert_problem(409, "not_resolved");
    dispatch(&sandbox, &id).await;
    receipt(&sandbox, &id, &[0, 1], &[0]).await;
    let all = sandbox.get(&path).await;
    assert_eq!(states(&all.body), [("dev-1", "acked"), ("dev-2", "sent"), ("dev-3", "queued"), ("dev-4", "queued")]);
    assert_eq!(states(&sandbox.get(&format!("{path}?state=sent")).await.body), [("dev-2", "sent")]);
    sandbox.get(&format!("{path}?state=lost")).await.assert_problem(422, "invalid_request");
    let first = sandbox.get(&format!("{path}?state=queued&limit=1")).await;
    assert_eq!(states(&first.body), [("dev-3", "queued")]);
    let next = first.text("next_cursor").to_owned();
    assert_eq!(first.header("link"), format!("<{path}?state=queued&limit=1&cursor={next}>; rel=\"next\""));
    let second = sandbox.get(&format!("{path}?state=queued&limit=1&cursor={next}")).await;
    assert_eq!((states(&second.body), &second.body["next_cursor"]), (vec![("dev-4", "queued")], &Value::Null));
    let asked = sandbox.post(&format!("{path}/query"), r#"{"device_ids":["dev-5","nobody","dev-1"]}"#).await;
    let expected = [("dev-5", "not_targeted"), ("nobody", "unknown_device"), ("dev-1", "acked")];
    assert_eq!(states(&asked.body), expected);
    sandbox.post(&format!("{path}/query"), "{}").await.assert_problem(422, "invalid_request");
    assert_eq!(sandbox.get(&format!("{path}/dev-2")).await.text("state"), "sent");
    sandbox.get(&format!("{path}/nobody")).await.assert_problem(404, "not_found");
}

#[tokio::test]
async fn what_waits_for_a_connected_device_to_be_awake_is_held_until_it_was_sent() {
    let sandbox = Sandbox::start().await;
    sandbox.add_devices(4).await;
    let node: NodeId = "ap-1".parse().unwrap();
    for device in [0, 1, 3] {
        sandbox.store.claim(&sandbox.app, Ordinal(device), &node, SystemClock.now()).await.unwrap();
    }
    let patient = r#"{"to":{"devices":["dev-1","dev-2","dev-3","dev-4"]},"payload":1,"delivery":"on_wake"}"#;
    let held = sandbox.post("/v1/messages", patient).await.text("id").to_owned();
    let urgent = sent(&sandbox).await;
    for id in [&held, &urgent] {
        dispatch(&sandbox, id).await;
        receipt(&sandbox, id, &[0], &[]).await;
    }
    let path = format!("/v1/messages/{held}/receipts");
    let all = [("dev-1", "sent"), ("dev-2", "held_on_wake"), ("dev-3", "queued"), ("dev-4", "held_on_wake")];
    assert_eq!(states(&sandbox.get(&path).await.body), all);
    assert_eq!(states(&sandbox.get(&format!("{path}?state=queued")).await.body), [all[2]]);
    let first = sandbox.get(&format!("{path}?state=held_on_wake&limit=1")).await;
    assert_eq!(states(&first.body), [all[1]]);
    let next = first.text("next_cursor");
    let second = sandbox.get(&format!("{path}?state=held_on_wake&limit=1&cursor={next}")).await;
    assert_eq!((states(&second.body), &second.body["next_cursor"]), (vec![all[3]], &Value::Null));
    let asked = sandbox.post(&format!("{path}/query"), r#"{"device_ids":["nobody","dev-4","dev-3"]}"#).await;
    assert_eq!(states(&asked.body), [("nobody", "unknown_device"), all[3], all[2]]);
    let one = sandbox.get(&format!("{path}/dev-2")).await.body;
    assert_eq!((&one["state"], &one["why"]["reason"]), (&json!("held_on_wake"), &json!("held_on_wake")));
    let stats = sandbox.get(&format!("/v1/messages/{held}")).await.body["stats"].clone();
    assert_eq!((&stats["pending"], &stats["pending_offline"]), (&json!(4), &json!(3)));
    let at_once = sandbox.get(&format!("/v1/messages/{urgent}/receipts?state=held_on_wake")).await;
    assert!(states(&at_once.body).is_empty());
}

#[tokio::test]
async fn a_cancel_stops_whom_it_was_not_sent_to_and_rings_everywhere() {
    let sandbox = Sandbox::start().await;
    sandbox.add_devices(4).await;
    let node: NodeId = "ap-1".parse().unwrap();
    let mut bells = Vec::new();
    for lane in Lane::ALL {
        bells.push(sandbox.broker.listen(&node, lane).await.unwrap());
    }
    let id = sent(&sandbox).await;
    dispatch(&sandbox, &id).await;
    receipt(&sandbox, &id, &[0, 1], &[0]).await;
    let path = format!("/v1/messages/{id}/cancel");
    let recall = sandbox.post(&path, r#"{"recall":true}"#).await;
    assert_eq!(recall.faults(), [("#/recall".into(), "not_supported".into())]);
    for body in ["", r#"{"recall":false}"#] {
        let cancelled = sandbox.post(&path, body).await;
        assert_eq!(cancelled.status, 200);
        assert_eq!(cancelled.body, json!({"id": id, "status": "cancelled", "stopped": 2}));
    }
    for bells in &mut bells {
        let bell = Bell::decode(&bells.heard().await.unwrap()).unwrap();
        assert_eq!(bell, Bell::Cancelled { app: sandbox.app.clone(), message: id.parse().unwrap() });
    }
    let message = sandbox.get(&format!("/v1/messages/{id}")).await;
    assert_eq!((message.text("status"), &message.body["stats"]["cancelled"]), ("cancelled", &json!(2)));
    let body = r#"{"to":"all","payload":1}"#;
    let broadcast = sandbox.post("/v1/messages", body).await.text("id").to_owned();
    let key = sandbox.add_key("demo", model::Env::Test, &[model::Scope::Send]).await;
    let path = format!("/v1/messages/{broadcast}/cancel");
    sandbox.ask("POST", &path, &key, &[], "").await.assert_problem(403, "forbidden");
}

#[tokio::test]
async fn messages_are_listed_newest_first_in_pages() {
    let sandbox = Sandbox::start().await;
    sandbox.add_devices(4).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.insert(0, sent(&sandbox).await);
        tokio::time::sleep(std::time::Duration::from_millis(2)).await; // ids of one millisecond have no order
    }
    let (mut listed, mut path) = (Vec::new(), "/v1/messages?limit=2".to_owned());
    loop {
        let page = sandbox.get(&path).await;
        let data = page.body["data"].as_array().unwrap().iter();
        listed.extend(data.map(|message| message["id"].as_str().unwrap().to_owned()));
        let Some(next) = page.body["next_cursor"].as_str() else { break };
        path = format!("/v1/messages?limit=2&cursor={next}");
    }
    assert_eq!(listed, ids);
}
