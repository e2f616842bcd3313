//! Requests of devices, their answers, and uplinks as they come.

use std::time::Duration;

use broker::Publication;
use futures_util::future::join_all;
use http_body_util::BodyExt as _;
use model::{
    Bell, Class, Clock as _, Env, Queue, Reply, Scope, SystemClock, TraceParent, Uplink, UplinkId, record::Record as _,
    sign::ApiKey,
};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::sandbox::{PATIENCE, Sandbox, until};

async fn send_up(sandbox: &Sandbox, kind: &str, reply: Option<Reply>) -> UplinkId {
    let received_at = SystemClock.now();
    let uplink = Uplink {
        id: UplinkId::new(received_at, rand::random()),
        app: sandbox.app.clone(),
        env: Env::Test,
        device: "dev-1".parse().unwrap(),
        user: None,
        kind: kind.into(),
        answers: None,
        reply,
        content_type: None,
        payload: "{\"n\":\n1}".into(),
        received_at,
        trace: TraceParent::start(7, 9),
    };
    let publication = Publication { queue: Queue::Uplink, body: uplink.encode().into() };
    sandbox.broker.publish(vec![publication]).await.unwrap();
    uplink.id
}

#[tokio::test]
async fn a_request_is_answered_with_what_it_says() {
    let sandbox = Sandbox::start().await;
    sandbox.add_devices(1).await;
    let reply = Reply { to: "r-1".parse().unwrap(), correlation: Some(vec![0, 0xFF].into()) };
    send_up(&sandbox, "ask", Some(reply.clone())).await;
    until(|| async { sandbox.get("/v1/uplink").await.body["data"][0].is_object() }).await;
    let asked = sandbox.get("/v1/uplink").await.body["data"][0].clone();
    assert_eq!(asked["reply"], json!({"to": "r-1", "correlation_base64": "AP8="}));
    let body = json!({"to": {"devices": [asked["device_id"]]}, "reply": asked["reply"], "payload": 42});
    let answer = sandbox.post("/v1/messages", &body.to_string()).await;
    assert_eq!((answer.status.as_u16(), answer.text("mode")), (202, "unicast"));
    assert_eq!(sandbox.queued().await[0].1.message.class, Class::Answer(reply));
    let known = sandbox.get(&format!("/v1/messages/{}", answer.text("id"))).await;
    assert_eq!(known.text("class"), "answer");
}

#[tokio::test]
async fn an_answer_is_for_one_device_and_is_nothing_else() {
    let sandbox = Sandbox::start().await;
    sandbox.add_devices(2).await;
    let large = "A".repeat(400);
    for (more, pointer, code) in [
        (r#""to":"all","reply":{"to":"r"}"#.to_owned(), "#/to", "contradiction"),
        (r#""to":{"devices":["dev-1","dev-2"]},"reply":{"to":"r"}"#.to_owned(), "#/to", "contradiction"),
        (r#""to":{"devices":["dev-1"]},"reply":{}"#.to_owned(), "#/reply/to", "missing"),
        (r#""to":{"devices":["dev-1"]},"reply":{"to":"a/b"}"#.to_owned(), "#/reply/to", "invalid_format"),
        (
            format!(r#""to":{{"devices":["dev-1"]}},"reply":{{"to":"r","correlation_base64":"{large}"}}"#),
            "#/reply/correlation_base64",
            "invalid_format",
        ),
        (
            r#""to":{"devices":["dev-1"]},"class":"command","ttl_s":9,"reply":{"to":"r"}"#.to_owned(),
            "#/class",
            "contradiction",
        ),
    ] {
        let answer = sandbox.post("/v1/messages", &format!(r#"{{"payload":1,{more}}}"#)).await;
        assert_eq!(answer.faults(), [(pointer.to_owned(), code.to_owned())], "{more}");
    }
}

/// The events of a stream until there are so many: ids, and data.
async fn events(sandbox: &Sandbox, path: &str, last: Option<&str>, count: usize) -> Vec<(String, Value)> {
    let mut body = sandbox.stream(path, last).await;
    let mut text = String::new();
    while text.matches("\ndata: ").count() < count || !text.ends_with("\n\n") {
        let frame = timeout(PATIENCE, body.frame()).await.unwrap().unwrap().unwrap();
        text.push_str(str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
    let (retry, events) = text.split_once("\n\n").unwrap();
    assert_eq!(retry, "retry: 1000");
    let field = |event: &str, name: &str| event.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
    let told = events.split_terminator("\n\n").filter(|event| !event.starts_with(':'));
    told.map(|event| (field(event, "id: "), serde_json::from_str(&field(event, "data: ")).unwrap())).collect()
}

#[tokio::test]
async fn uplinks_are_told_as_they_come_from_where_one_left_off() {
    let sandbox = Sandbox::start().await;
    let first = send_up(&sandbox, "gps", None).await;
    let told = events(&sandbox, "/v1/uplink/stream", None, 1).await;
    assert_eq!((&told[0].0, &told[0].1["payload"]), (&first.to_string(), &json!({"n": 1})));
    let (more, second) = tokio::join!(events(&sandbox, "/v1/uplink/stream?type=gps", Some(&told[0].0), 1), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        send_up(&sandbox, "click", None).await;
        send_up(&sandbox, "gps", None).await
    });
    assert_eq!(more.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>(), [second.to_string()]);
    let sender = sandbox.add_key("demo", Env::Test, &[Scope::Send]).await;
    sandbox.ask("GET", "/v1/uplink/stream", &sender, &[], "").await.assert_problem(403, "forbidden");
}

#[tokio::test]
async fn an_open_stream_does_not_hold_up_a_stop() {
    let sandbox = Sandbox::start().await;
    let mut body = sandbox.stream("/v1/uplink/stream", None).await;
    assert!(body.frame().await.is_some());
    sandbox.shutdown.cancel();
    assert!(timeout(Duration::from_secs(5), body.collect()).await.is_ok());
}

#[tokio::test]
async fn a_stream_ends_within_seconds_after_its_key_is_removed() {
    let mut sandbox = Sandbox::start().await;
    let mut ends = sandbox.stream("/v1/uplink/stream", None).await;
    assert!(ends.frame().await.is_some());
    let key = ApiKey::parse(&sandbox.key).unwrap().id;
    sandbox.key = sandbox.add_key("demo", Env::Test, &[Scope::Uplink]).await;
    let mut stays = sandbox.stream("/v1/uplink/stream", None).await;
    assert!(stays.frame().await.is_some());
    // As another node would: nobody tells this one.
    assert!(sandbox.store.remove_key(&key).await.unwrap());
    assert!(timeout(Duration::from_secs(10), ends.collect()).await.is_ok(), "it goes on without a key");
    assert!(timeout(Duration::from_secs(2), stays.collect()).await.is_err(), "its key was not removed");
}

#[tokio::test]
async fn an_app_leaves_streams_to_others() {
    let mut sandbox = Sandbox::start().await;
    let (mut open, mut refused) = (Vec::new(), None);
    while refused.is_none() && open.len() < 256 {
        let asked = sandbox.ask_for_stream("/v1/uplink/stream", None).await;
        match asked.status().as_u16() {
            200 => open.push(asked),
            status => refused = Some(status),
        }
    }
    assert_eq!((open.len(), refused), (128, Some(429)));
    sandbox.key = sandbox.add_app("other").await;
    assert_eq!(sandbox.ask_for_stream("/v1/uplink/stream", None).await.status(), 200);
}

#[tokio::test]
async fn all_who_change_an_app_at_the_same_moment_have_changed_it() {
    const FIELDS: [(&str, &str); 5] = [
        ("limits", "recipients_per_s"),
        ("limits", "recipients_burst"),
        ("uplink", "device_per_s"),
        ("uplink", "device_burst"),
        ("uplink", "type_per_s"),
    ];
    let sandbox = Sandbox::start().await;
    let admin = sandbox.add_key("demo", Env::Test, &[Scope::Admin]).await;
    for round in 1..=5 {
        let bodies = FIELDS.map(|(part, field)| format!(r#"{{"{part}":{{"{field}":{round}}}}}"#));
        let changes = bodies.iter().map(|body| sandbox.ask("PATCH", "/v1/apps/demo", &admin, &[], body));
        for changed in join_all(changes).await {
            assert_eq!(changed.status, 200, "{changed:?}");
        }
        let app = sandbox.ask("GET", "/v1/apps/demo", &admin, &[], "").await.body;
        for (part, field) in FIELDS {
            assert_eq!(app[part][field], json!(round), "{part} {field}");
        }
    }
}

#[tokio::test]
async fn what_devices_may_send_up_is_the_apps_and_access_points_are_told() {
    let sandbox = Sandbox::start().await;
    let admin = sandbox.add_key("demo", Env::Test, &[Scope::Admin]).await;
    let node = "ap-1".parse().unwrap();
    let mut bells = sandbox.broker.listen(&node, model::Lane::Unicast).await.unwrap();
    let patch = async |body: &str| sandbox.ask("PATCH", "/v1/apps/demo", &admin, &[], body).await;
    let changed = patch(r#"{"uplink":{"types":["gps"],"device_per_s":5,"peers":true}}"#).await;
    let rules = json!({"types": ["gps"], "device_per_s": 5, "device_burst": 200, "type_per_s": 10000, "peers": true});
    assert_eq!((changed.status.as_u16(), &changed.body["uplink"]), (200, &rules));
    assert_eq!(changed.body.get("device_secret"), None);
    let bell = timeout(PATIENCE, bells.heard()).await.unwrap().unwrap();
    assert_eq!(Bell::decode(&bell).unwrap(), Bell::Apps);
    let any = patch(r#"{"uplink":{"types":null},"limits":{"recipients_per_s":7}}"#).await.body;
    assert_eq!((&any["uplink"]["types"], &any["uplink"]["device_per_s"]), (&json!(null), &json!(5)));
    assert_eq!(sandbox.ask("GET", "/v1/apps/demo", &admin, &[], "").await.body, any);
    let bad = patch(r#"{"uplink":{"types":["A"],"device_per_s":0}}"#).await;
    let faults = [("#/uplink/types/0", "invalid_format"), ("#/uplink/device_per_s", "out_of_range")];
    assert_eq!(bad.faults(), faults.map(|(pointer, code)| (pointer.to_owned(), code.to_owned())));
    sandbox.ask("PATCH", "/v1/apps/none", &admin, &[], "{}").await.assert_problem(404, "not_found");
    sandbox.ask("PATCH", "/v1/apps/demo", &sandbox.key, &[], "{}").await.assert_problem(403, "forbidden");
}
