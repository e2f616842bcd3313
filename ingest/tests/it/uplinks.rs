//! What devices send up reaches products through the broker and the store.

use broker::Publication;
use model::{Clock as _, Env, Queue, Scope, SystemClock, TraceParent, Uplink, UplinkId, record::Record as _};
use serde_json::json;

use crate::sandbox::{Sandbox, until};

fn uplink(sandbox: &Sandbox, kind: &str, payload: &'static [u8]) -> Uplink {
    let received_at = SystemClock.now();
    Uplink {
        id: UplinkId::new(received_at, rand::random()),
        app: sandbox.app.clone(),
        env: Env::Test,
        device: "dev-1".parse().unwrap(),
        user: Some("u-77".parse().unwrap()),
        kind: kind.into(),
        answers: None,
        reply: None,
        content_type: None,
        payload: payload.into(),
        received_at,
        trace: TraceParent::start(7, 9),
    }
}

async fn publish(sandbox: &Sandbox, bodies: Vec<Vec<u8>>) {
    let publication = |body: Vec<u8>| Publication { queue: Queue::Uplink, body: body.into() };
    sandbox.broker.publish(bodies.into_iter().map(publication).collect()).await.unwrap();
}

#[tokio::test]
async fn uplinks_are_kept_once_and_read_from_where_one_left_off() {
    let sandbox = Sandbox::start().await;
    let all = [
        uplink(&sandbox, "gps", br#"{"lat":22.5}"#),
        uplink(&sandbox, "click", b"\x00\xff"),
        uplink(&sandbox, "gps", b"[1]"),
    ];
    publish(&sandbox, all.iter().chain([&all[0]]).map(Uplink::encode).collect()).await;
    until(|| async { sandbox.get("/v1/uplink").await.body["data"].as_array().unwrap().len() == 3 }).await;
    until(|| async { sandbox.broker.depth(Queue::Uplink).await.unwrap().unacked == 0 }).await;
    let first = &sandbox.get("/v1/uplink?limit=1").await.body["data"][0];
    assert_eq!(first["id"], all[0].id.to_string());
    assert_eq!(
        (&first["device_id"], &first["user_id"], &first["type"]),
        (&json!("dev-1"), &json!("u-77"), &json!("gps"))
    );
    assert_eq!((&first["payload"], first.get("payload_base64")), (&json!({"lat": 22.5}), None));
    assert_eq!(first["trace_id"], all[0].trace.id());
    let rest = sandbox.get(&format!("/v1/uplink?after={}", all[0].id)).await.body;
    assert_eq!(rest["data"].as_array().unwrap().len(), 2);
    assert_eq!(rest["data"][0]["payload_base64"], "AP8=");
    let clicks = sandbox.get("/v1/uplink?type=click").await.body;
    assert_eq!(clicks["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_key_reads_what_devices_of_its_environment_sent_up() {
    let sandbox = Sandbox::start().await;
    let live = Uplink { env: Env::Live, ..uplink(&sandbox, "gps", b"1") };
    let test = uplink(&sandbox, "gps", b"2");
    publish(&sandbox, vec![live.encode(), test.encode()]).await;
    let live_key = sandbox.add_key("demo", Env::Live, &[Scope::Uplink]).await;
    for (key, expected) in [(&live_key, &live), (&sandbox.key, &test)] {
        for path in ["/v1/uplink", "/v1/uplink?type=gps"] {
            until(|| async { sandbox.ask("GET", path, key, &[], "").await.body["data"][0].is_object() }).await;
            let data = sandbox.ask("GET", path, key, &[], "").await.body["data"].clone();
            let ids: Vec<_> = data.as_array().unwrap().iter().map(|uplink| uplink["id"].clone()).collect();
            assert_eq!(ids, [json!(expected.id.to_string())], "{path}");
        }
    }
}

#[tokio::test]
async fn an_uplink_that_cannot_be_read_is_set_aside_and_holds_up_nobody() {
    let sandbox = Sandbox::start().await;
    let good = uplink(&sandbox, "gps", b"1");
    publish(&sandbox, vec![vec![99, 1, 2], good.encode(), Vec::new()]).await;
    until(|| async { sandbox.get("/v1/uplink").await.body["data"].as_array().unwrap().len() == 1 }).await;
    until(|| async { sandbox.broker.dead_letters(10).await.unwrap().len() == 2 }).await;
    let letters = sandbox.broker.dead_letters(10).await.unwrap();
    assert!(letters.iter().any(|letter| letter.reason.contains("version 99")), "{letters:?}");
}
