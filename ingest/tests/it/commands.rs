//! Commands: one device, one deadline, one word on what came of it.

use std::time::Duration;

use broker::Publication;
use model::{
    Class, Clock as _, Env, Priority, Queue, Receipt, ReceiptBatch, Scope, SystemClock, TraceParent, Uplink, UplinkId,
    record::Record as _,
};
use serde_json::{Value, json};
use store::InboxAppend;

use crate::sandbox::{Sandbox, until};

/// Sends a command to `dev-1`; returns its id.
async fn sent(sandbox: &Sandbox, ttl_s: u64) -> String {
    let body = format!(r#"{{"class":"command","to":{{"devices":["dev-1"]}},"payload":"on","ttl_s":{ttl_s}}}"#);
    let answer = sandbox.post("/v1/messages", &body).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    answer.text("id").to_owned()
}

/// Has a device say what came of a command.
async fn tell(sandbox: &Sandbox, device: &str, command: &str, payload: &str) -> UplinkId {
    let received_at = SystemClock.now();
    let uplink = Uplink {
        id: UplinkId::new(received_at, rand::random()),
        app: sandbox.app.clone(),
        env: Env::Test,
        device: device.parse().unwrap(),
        user: None,
        kind: "result".into(),
        answers: Some(command.parse().unwrap()),
        reply: None,
        content_type: None,
        payload: payload.to_owned().into(),
        received_at,
        trace: TraceParent::start(7, 9),
    };
    let publication = Publication { queue: Queue::Uplink, body: uplink.encode().into() };
    sandbox.broker.publish(vec![publication]).await.unwrap();
    until(|| async {
        let depth = sandbox.broker.depth(Queue::Uplink).await.unwrap();
        depth.ready + depth.unacked == 0
    })
    .await;
    uplink.id
}

async fn result(sandbox: &Sandbox, command: &str) -> Value {
    sandbox.get(&format!("/v1/messages/{command}/result")).await.body
}

#[tokio::test]
async fn the_first_word_of_its_device_is_what_came_of_a_command() {
    let sandbox = Sandbox::start().await;
    sandbox.add_devices(2).await;
    let id = sent(&sandbox, 60).await;
    assert_eq!(result(&sandbox, &id).await["state"], "queued");
    tell(&sandbox, "dev-2", &id, r#"{"status":"failed"}"#).await;
    assert_eq!(result(&sandbox, &id).await["state"], "queued", "it is not for that device");

    let path = format!("/v1/messages/{id}/result?wait_s=5");
    let (waited, first) = tokio::join!(sandbox.get(&path), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        tell(&sandbox, "dev-1", &id, r#"{"status":"succeeded","result":{"volts":2.5}}"#).await
    });
    assert_eq!((waited.text("state"), &waited.body["result"]), ("succeeded", &json!({"volts": 2.5})));
    assert_eq!((&waited.body["device_id"], &waited.body["late"]), (&json!("dev-1"), &json!(false)));
    tell(&sandbox, "dev-1", &id, r#"{"status":"failed","reason":"again"}"#).await;
    assert_eq!(result(&sandbox, &id).await, waited.body, "and its last");
    let message = sandbox.get(&format!("/v1/messages/{id}")).await.body;
    assert_eq!((&message["class"], &message["command"]), (&json!("command"), &waited.body));

    let uplinks = sandbox.get("/v1/uplink?type=result").await.body["data"].clone();
    let told: Vec<_> = uplinks.as_array().unwrap().iter().map(|uplink| (&uplink["id"], &uplink["answers"])).collect();
    assert_eq!(told, [(&json!(first.to_string()), &json!(id))]);
}

#[tokio::test]
async fn a_command_goes_as_far_as_its_deadline() {
    let sandbox = Sandbox::start().await;
    sandbox.add_devices(1).await;
    let id = sent(&sandbox, 1).await;
    let (_, envelope) = sandbox.queued().await.remove(0);
    let message = envelope.message;
    assert_eq!(message.class, Class::Command { device: "dev-1".parse().unwrap() });
    assert_eq!((message.priority, message.expires_at.since(message.created_at).as_secs()), (Priority::High, 1));
    let (message_id, device) = (message.id, [model::Ordinal(0)]);
    let append = InboxAppend { message: message.into(), devices: device.into_iter().collect() };
    sandbox.store.append_inbox(vec![append], SystemClock.now()).await.unwrap();
    let targets: model::Ordinals = device.into_iter().collect();
    let receipt = Receipt { sent: targets.clone(), acked: targets, ..Receipt::new(message_id) };
    let batch = ReceiptBatch { app: sandbox.app.clone(), receipts: vec![receipt] };
    sandbox.store.add_receipts(vec![batch]).await.unwrap();
    assert_eq!(result(&sandbox, &id).await["state"], "acked");

    let waited = sandbox.get(&format!("/v1/messages/{id}/result?wait_s=5")).await;
    assert_eq!(waited.text("state"), "timed_out");
    tell(&sandbox, "dev-1", &id, r#"{"status":"succeeded"}"#).await;
    let late = result(&sandbox, &id).await;
    assert_eq!((&late["state"], &late["late"]), (&json!("succeeded"), &json!(true)), "better known late than never");
}

#[tokio::test]
async fn a_command_that_is_called_back_is_cancelled() {
    let sandbox = Sandbox::start().await;
    sandbox.add_devices(1).await;
    let id = sent(&sandbox, 60).await;
    assert_eq!(sandbox.post(&format!("/v1/messages/{id}/cancel"), "{}").await.status, 200);
    assert_eq!(result(&sandbox, &id).await["state"], "cancelled");
}

#[tokio::test]
async fn a_command_is_for_one_device_that_is_there_and_has_a_deadline() {
    let sandbox = Sandbox::start().await;
    sandbox.add_devices(2).await;
    let post = async |more: &str| sandbox.post("/v1/messages", &format!(r#"{{"payload":1,{more}}}"#)).await;
    for (more, pointer, code) in [
        (r#""class":"command","to":"all","ttl_s":9"#, "#/to", "contradiction"),
        (r#""class":"command","to":{"devices":["dev-1","dev-2"]},"ttl_s":9"#, "#/to", "contradiction"),
        (r#""class":"command","to":{"devices":["dev-1"]}"#, "#/ttl_s", "missing"),
        (r#""class":"command","to":{"devices":["dev-1"]},"ttl_s":0"#, "#/ttl_s", "out_of_range"),
        (r#""class":"command","to":{"devices":["dev-1"]},"ttl_s":86400"#, "#/ttl_s", "out_of_range"),
        (
            r#""class":"command","to":{"devices":["dev-1"]},"ttl_s":9,"delivery":"on_wake""#,
            "#/delivery",
            "contradiction",
        ),
        (r#""class":"order","to":{"devices":["dev-1"]}"#, "#/class", "invalid_format"),
    ] {
        let answer = post(more).await;
        answer.assert_problem(422, "invalid_request");
        assert_eq!(answer.faults(), [(pointer.to_owned(), code.to_owned())], "{more}");
    }
    post(r#""class":"command","to":{"devices":["nobody"]},"ttl_s":9"#).await.assert_problem(422, "audience_empty");
    let plain = post(r#""class":"message","to":{"devices":["dev-1"]}"#).await.text("id").to_owned();
    sandbox.get(&format!("/v1/messages/{plain}/result")).await.assert_problem(404, "not_found");
    let sender = sandbox.add_key("demo", Env::Test, &[Scope::Send]).await;
    let path = format!("/v1/messages/{plain}/result");
    sandbox.ask("GET", &path, &sender, &[], "").await.assert_problem(403, "forbidden");
}
