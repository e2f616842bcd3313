//! Who runs, as people, devices and the limits of apps see it.

use model::{Clock as _, Endpoint, Env, Limits, Node, Scope, SystemClock, Tier, sign::DeviceToken};
use serde_json::json;

use crate::sandbox::{DEVICE_SECRET, Sandbox, Setup, until};

fn node(id: &str, tier: Tier, connections: Option<u64>) -> Node {
    let now = SystemClock.now();
    let at = |connections| Endpoint { address: format!("{id}.example:1883"), connections, connections_max: 100 };
    Node {
        id: id.parse().unwrap(),
        boot: now,
        tiers: vec![tier],
        endpoint: connections.map(at),
        version: "1.2.3".into(),
        seen_at: now,
        drain: None,
    }
}

fn token(sandbox: &Sandbox, secret: &str, expires_in_s: u64) -> String {
    let exp = SystemClock.now().as_millis() / 1_000 + expires_in_s;
    let (sub, app) = ("dev-1".parse().unwrap(), sandbox.app.clone());
    DeviceToken { sub, app, generation: 0, exp, env: None }.sign(secret)
}

#[tokio::test]
async fn nodes_are_shown_to_whoever_runs_the_platform() {
    let sandbox = Sandbox::start().await;
    sandbox.store.beat(node("ap-1", Tier::AccessPoint, Some(25))).await.unwrap();
    sandbox.get("/v1/nodes").await.assert_problem(403, "forbidden");
    let admin = sandbox.add_key("demo", Env::Live, &[Scope::Admin]).await;
    let answer = sandbox.ask("GET", "/v1/nodes", &admin, &[], "").await;
    let shown = &answer.body["data"][0];
    assert_eq!(
        (&shown["id"], &shown["tiers"], &shown["version"]),
        (&json!("ap-1"), &json!(["access-point"]), &json!("1.2.3"))
    );
    let endpoint = json!({"address": "ap-1.example:1883", "connections": 25, "connections_max": 100, "load": 0.25});
    assert_eq!(shown["endpoint"], endpoint);
}

#[tokio::test]
async fn devices_are_shown_where_to_connect_the_least_loaded_first() {
    let sandbox = Sandbox::start().await;
    let good = token(&sandbox, DEVICE_SECRET, 60);
    for (id, tier, connections) in
        [("busy", Tier::AccessPoint, Some(90)), ("calm", Tier::AccessPoint, Some(10)), ("none", Tier::Stats, None)]
    {
        sandbox.store.beat(node(id, tier, connections)).await.unwrap();
    }
    until(|| async { sandbox.ask("GET", "/v1/endpoints", &good, &[], "").await.status == 200 }).await;
    let answer = sandbox.ask("GET", "/v1/endpoints", &good, &[], "").await;
    let expected = json!([
        {"node": "calm", "address": "calm.example:1883", "load": 0.1},
        {"node": "busy", "address": "busy.example:1883", "load": 0.9},
    ]);
    assert_eq!((&answer.body["endpoints"], &answer.body["ttl_s"]), (&expected, &json!(60)));
    let forged = token(&sandbox, "a-secret-that-is-not-that-of-the-app-0123", 60);
    for bad in [&forged, &token(&sandbox, DEVICE_SECRET, 0), &sandbox.key, "nonsense"] {
        sandbox.ask("GET", "/v1/endpoints", bad, &[], "").await.assert_problem(401, "unauthenticated");
    }
}

#[tokio::test]
async fn several_ingest_nodes_grant_together_what_an_app_may_send() {
    let limits = Limits { recipients_per_s: 1, recipients_burst: 12 };
    let sandbox = Sandbox::with(Setup { limits, ..Setup::default() }).await;
    sandbox.add_devices(1).await;
    for id in ["in-1", "in-2", "in-3"] {
        sandbox.store.beat(node(id, Tier::Ingest, None)).await.unwrap();
    }
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    let mut accepted = 0;
    while sandbox.post("/v1/messages", r#"{"to":{"devices":["dev-1"]},"payload":1}"#).await.status == 202 {
        accepted += 1;
    }
    assert!((4..=6).contains(&accepted), "a third of 12, and what comes back meanwhile: {accepted}");
}
