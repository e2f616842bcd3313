//! Who runs, as people, devices and the limits of apps see it.

use std::time::{Duration, Instant};

use model::{
    Bell, Clock as _, Drain, DrainState, Endpoint, Env, Lane, Limits, Node, Scope, SystemClock, Tier, Timestamp,
    record::Record as _, sign::DeviceToken,
};
use serde_json::json;

use crate::sandbox::{DEVICE_SECRET, Sandbox, Setup, until};

fn node(id: &str, tier: Tier, connections: Option<u64>) -> Node {
    let now = SystemClock.now();
    let at = |connections| Endpoint {
        address: format!("{id}.example:1883"),
        tls_address: Some(format!("{id}.example:8883")),
        connections,
        connections_max: 100,
    };
    Node {
        id: id.parse().unwrap(),
        boot: now,
        tiers: vec![tier],
        endpoint: connections.map(at),
        filter: None,
        version: "1.2.3".into(),
        seen_at: now,
        drain: None,
    }
}

/// Every way to such a node.
fn urls(id: &str) -> [String; 4] {
    let way = |scheme, port, path| format!("{scheme}://{id}.example:{port}{path}");
    [way("mqtts", 8_883, ""), way("wss", 8_883, "/mqtt"), way("mqtt", 1_883, ""), way("ws", 1_883, "/mqtt")]
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
    let endpoint = json!({
        "address": "ap-1.example:1883", "urls": urls("ap-1"), "connections": 25, "connections_max": 100, "load": 0.25
    });
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
        {"node": "calm", "address": "calm.example:1883", "urls": urls("calm"), "load": 0.1},
        {"node": "busy", "address": "busy.example:1883", "urls": urls("busy"), "load": 0.9},
    ]);
    assert_eq!((&answer.body["endpoints"], &answer.body["ttl_s"]), (&expected, &json!(60)));
    let forged = token(&sandbox, "a-secret-that-is-not-that-of-the-app-0123", 60);
    for bad in [&forged, &token(&sandbox, DEVICE_SECRET, 0), &sandbox.key, "nonsense"] {
        sandbox.ask("GET", "/v1/endpoints", bad, &[], "").await.assert_problem(401, "unauthenticated");
    }
    let from_a_page = [("GET", 401), ("OPTIONS", 204)];
    for (method, status) in from_a_page {
        let answer = sandbox.ask(method, "/v1/endpoints", "", &[("origin", "https://shop.example")], "").await;
        assert_eq!(
            (answer.status.as_u16(), &answer.headers["access-control-allow-origin"]),
            (status, &"*".parse().unwrap())
        );
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

#[tokio::test]
async fn a_send_to_many_is_paid_for_on_every_ingest_node_though_their_number_changes() {
    let limits = Limits { recipients_per_s: 1, recipients_burst: 12 };
    let sandbox = Sandbox::with(Setup { limits, ..Setup::default() }).await;
    sandbox.add_devices(12).await;
    let nodes = ["in-1", "in-2", "in-3"].map(|id| node(id, Tier::Ingest, None));
    for node in &nodes {
        sandbox.store.beat(node.clone()).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let ids: Vec<_> = (1..=12).map(|number| format!("dev-{number}")).collect();
    let body = json!({ "to": { "devices": ids }, "payload": 1 }).to_string();
    let send = async || sandbox.post("/v1/messages", &body).await;
    assert_eq!(send().await.status, 202);
    for gone in &nodes {
        let refused = send().await;
        refused.assert_problem(429, "quota_exceeded");
        let wait: u64 = refused.header("retry-after").parse().unwrap();
        assert!((20..=37).contains(&wait), "36 s after the first: {wait}");
        sandbox.store.depart(&gone.id, gone.boot).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2_500)).await;
    }
}

fn drain(ordered_at: Timestamp, permille: u16) -> Drain {
    Drain {
        ordered_at,
        rate_per_s: 200,
        permille,
        state: DrainState::Draining,
        sessions: 40,
        evicted: 30,
        moved: 20,
        unacked: 3,
        lost: 0,
        longest_gap_ms: 250,
    }
}

/// An access point that takes the order the second time it hears it.
async fn obey(sandbox: &Sandbox) {
    let mut bells = sandbox.broker.listen(&"ap-1".parse().unwrap(), Lane::Unicast).await.unwrap();
    let store = sandbox.store.clone();
    tokio::spawn(async move {
        bells.heard().await;
        while let Some(bell) = bells.heard().await {
            let told = match Bell::decode(&bell).unwrap() {
                Bell::Drain { ordered_at, rate_per_s: 200, permille, .. } => drain(ordered_at, permille),
                Bell::Undrain { .. } => Drain { state: DrainState::Revoked, ..drain(SystemClock.now(), 1_000) },
                other => panic!("{other:?}"),
            };
            let now = Node { drain: Some(told), ..node("ap-1", Tier::AccessPoint, Some(25)) };
            store.beat(now).await.unwrap();
        }
    });
}

#[tokio::test]
async fn an_order_to_drain_is_rung_until_the_access_point_has_it_and_can_be_taken_back() {
    let sandbox = Sandbox::start().await;
    let admin = sandbox.add_key("demo", Env::Live, &[Scope::Admin]).await;
    let ask = async |method, path: &str, body| sandbox.ask(method, path, &admin, &[], body).await;
    sandbox.post("/v1/nodes/ap-1/drain", "{}").await.assert_problem(403, "forbidden");
    ask("POST", "/v1/nodes/ap-1/drain", "{}").await.assert_problem(404, "not_found");
    sandbox.store.beat(node("ap-1", Tier::AccessPoint, Some(25))).await.unwrap();
    ask("DELETE", "/v1/nodes/ap-1/drain", "").await.assert_problem(404, "not_found");
    for bad in [r#"{"target_fraction":0}"#, r#"{"target_fraction":1.5}"#, r#"{"rate_per_s":0}"#, r#"{"rate":1}"#] {
        ask("POST", "/v1/nodes/ap-1/drain", bad).await.assert_problem(422, "invalid_request");
    }
    obey(&sandbox).await;
    let ordered = ask("POST", "/v1/nodes/ap-1/drain", r#"{"rate_per_s":200,"target_fraction":0.25}"#).await;
    assert_eq!(ordered.status, 202, "{ordered:?}");
    let shown = ask("GET", "/v1/nodes/ap-1", "").await.body["drain"].clone();
    assert_eq!(shown, ordered.body);
    assert_eq!((&shown["state"], &shown["target_fraction"]), (&json!("draining"), &json!(0.25)));
    assert_eq!((&shown["moved"], &shown["longest_gap_ms"], &shown["lost"]), (&json!(20), &json!(250), &json!(0)));
    assert_eq!(ask("DELETE", "/v1/nodes/ap-1/drain", "").await.status, 204);
    assert_eq!(ask("GET", "/v1/nodes/ap-1", "").await.body["drain"]["state"], "revoked");
}

#[tokio::test]
async fn an_access_point_that_does_not_hear_is_told_of() {
    let sandbox = Sandbox::start().await;
    let admin = sandbox.add_key("demo", Env::Live, &[Scope::Admin]).await;
    sandbox.store.beat(node("ap-1", Tier::AccessPoint, Some(25))).await.unwrap();
    let answer = sandbox.ask("POST", "/v1/nodes/ap-1/drain", &admin, &[], "{}").await;
    answer.assert_problem(503, "deadline_exceeded");
}

#[tokio::test]
async fn a_ping_is_answered_the_later_the_fuller_the_access_point_is() {
    let sandbox = Sandbox::start().await;
    let good = token(&sandbox, DEVICE_SECRET, 60);
    let closed = Node { drain: Some(drain(SystemClock.now(), 1_000)), ..node("closed", Tier::AccessPoint, Some(0)) };
    sandbox.store.beat(closed).await.unwrap();
    for (id, connections) in [("full", 150), ("calm", 10)] {
        sandbox.store.beat(node(id, Tier::AccessPoint, Some(connections))).await.unwrap();
    }
    let ping = async |query: &str| sandbox.ask("GET", &format!("/v1/ping{query}"), &good, &[], "").await;
    until(|| async { ping("").await.status == 200 }).await;
    let least = ping("").await;
    let calm = json!({"node": "calm", "address": "calm.example:1883", "urls": urls("calm"), "load": 0.1});
    assert_eq!(least.body, calm);
    let begun = Instant::now();
    assert_eq!(ping("?node=full").await.body["load"], 1.5);
    assert!(begun.elapsed() >= Duration::from_millis(350), "{:?}", begun.elapsed());
    ping("?node=closed").await.assert_problem(404, "not_found");
    sandbox.ask("GET", "/v1/ping", "nonsense", &[], "").await.assert_problem(401, "unauthenticated");
}
