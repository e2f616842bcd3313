//! What a send becomes on the broker and in the store.

use std::sync::Arc;

use async_trait::async_trait;
use audience::{Invalid, Select, SelectError};
use model::{
    AppId, Audience, Clock as _, Env, Envelope, Lane, Limits, Ordinal, Ordinals, Queue, Shard, SystemClock, Timestamp,
};
use serde_json::json;

use crate::sandbox::{Sandbox, Setup};

/// Whatever is asked: devices 1 and 3.
struct Odd;

#[async_trait]
impl Select for Odd {
    async fn select(&self, _: &AppId, _: Env, _: &str, _: Timestamp) -> Result<Ordinals, SelectError> {
        Ok([Ordinal(1), Ordinal(3)].into_iter().collect())
    }

    fn check(&self, _: &AppId, _: &str) -> Result<(), Invalid> {
        Ok(())
    }
}

#[tokio::test]
async fn each_way_to_name_an_audience_takes_its_lane() {
    let select: Arc<dyn Select> = Arc::new(Odd);
    let sandbox = Sandbox::with(Setup { select: Some(select), ..Setup::default() }).await;
    sandbox.add_devices(3).await;
    for number in [1, 3] {
        sandbox.put(&format!("/v1/devices/dev-{number}"), r#"{"user_id":"u-1"}"#).await;
    }
    let group = sandbox.post("/v1/groups", r#"{"name":"g"}"#).await.text("id").to_owned();
    sandbox.post(&format!("/v1/groups/{group}/members"), r#"{"add":["dev-2"]}"#).await;
    let set = |ordinals: &[u32]| Audience::Devices(ordinals.iter().copied().map(Ordinal).collect());
    for (to, mode, audience) in [
        (json!({"devices": ["dev-2"]}), Lane::Unicast, Audience::One(Ordinal(1))),
        (json!({"devices": ["dev-3", "dev-1", "dev-3"]}), Lane::Multicast, set(&[0, 2])),
        (json!({"users": ["u-1"]}), Lane::Multicast, set(&[0, 2])),
        (json!({"group": group}), Lane::Multicast, Audience::Group(group.parse().unwrap())),
        (json!({"filter": "tag('odd')"}), Lane::Broadcast, Audience::Filter(r#"tag("odd")"#.into())),
        (json!({"filter": {"tag": "odd"}}), Lane::Broadcast, Audience::Filter(r#"tag("odd")"#.into())),
        (json!("all"), Lane::Broadcast, Audience::All { below: 3 }),
    ] {
        let answer = sandbox.post("/v1/messages", &json!({"to": to, "payload": {"n": 1}}).to_string()).await;
        assert_eq!((answer.status.as_u16(), answer.text("mode")), (202, mode.as_str()), "{answer:?}");
        assert_eq!(answer.body["warnings"], json!([]));
        let id = answer.text("id");
        assert_eq!(answer.header("location"), format!("/v1/messages/{id}"));
        let shard = match audience {
            Audience::One(device) => Shard::of_device(&sandbox.app, device, 1),
            _ => Shard::of_app(&sandbox.app),
        };
        let queued = sandbox.queued().await;
        let (queue, envelope) = queued.into_iter().find(|(_, queued)| queued.message.id.to_string() == id).unwrap();
        assert_eq!((queue, envelope.audience), (Queue::Push(mode, shard), audience));
        assert_eq!((envelope.message.lane, envelope.message.env), (mode, Env::Test));
    }
    let answer = sandbox.post("/v1/messages", r#"{"to":{"filter":"tga('odd')"},"payload":1}"#).await;
    answer.assert_problem(422, "invalid_request");
    assert_eq!(answer.faults(), [("#/to/filter".into(), "unknown_function".into())]);
    assert_eq!(answer.body["errors"][0]["detail"], "column 1: tga is no function");
}

#[tokio::test]
async fn a_message_is_what_its_sender_said() {
    let sandbox = Sandbox::start().await;
    sandbox.add_devices(1).await;
    let payload = r#"{ "z":1, "a":18446744073709551617,"text":"\u00e9" }"#;
    let body = format!(
        r#"{{"to":{{"devices":["dev-1"]}},"type":"order","payload":{payload},"ttl_s":60,"priority":"low",
            "collapse_key":"order-1","metadata":{{"campaign":"ops"}}}}"#
    );
    let trace = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let answer = sandbox.ask("POST", "/v1/messages", &sandbox.key, &[trace, ("x-request-id", "mine-1")], &body).await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.header("x-request-id"), "mine-1");
    assert!(answer.header("traceparent").starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
    let (_, envelope) = sandbox.queued().await.pop().unwrap();
    let message = envelope.message;
    assert_eq!(message.payload, payload.as_bytes(), "the payload is kept byte for byte");
    assert_eq!((message.kind.as_str(), message.content_type.as_str()), ("order", "application/json"));
    assert_eq!(message.expires_at.since(message.created_at).as_secs(), 60);
    assert_eq!(message.priority, model::Priority::Low);
    assert_eq!(message.collapse_key.as_deref(), Some("order-1"));
    assert_eq!(message.metadata["campaign"], "ops");
    assert_eq!(message.trace.to_string(), answer.header("traceparent"));
    let entry = sandbox.store.entry(&sandbox.app, message.id).await.unwrap().unwrap();
    assert_eq!((entry.trace, entry.expires_at), (message.trace, message.expires_at));
}

#[tokio::test]
async fn bytes_travel_as_base64_and_defaults_are_those_of_the_contract() {
    let sandbox = Sandbox::start().await;
    sandbox.add_devices(1).await;
    sandbox.post("/v1/messages", r#"{"to":"all","payload_base64":"AP8=","content_type":"image/png","ttl_s":0}"#).await;
    let (_, Envelope { message, .. }) = sandbox.queued().await.pop().unwrap();
    assert_eq!((&message.payload[..], message.content_type.as_str()), (&[0, 255][..], "image/png"));
    assert_eq!(message.expires_at.since(message.created_at).as_secs(), 10, "only if online now");
    let answer = sandbox.post("/v1/messages", r#"{"to":{"devices":["dev-1"]},"payload_base64":"AP8="}"#).await;
    let queued = sandbox.queued().await;
    let of_answer = |(_, envelope): &&(Queue, Envelope)| envelope.message.id.to_string() == answer.text("id");
    let message = &queued.iter().find(of_answer).unwrap().1.message;
    assert_eq!((message.kind.as_str(), message.content_type.as_str()), ("default", "application/octet-stream"));
    assert_eq!(message.expires_at.since(message.created_at).as_secs(), 86_400);
    assert_eq!(message.priority, model::Priority::Normal);
}

#[tokio::test]
async fn unknown_recipients_are_a_warning_and_nobody_at_all_is_a_message_that_is_complete() {
    let sandbox = Sandbox::start().await;
    sandbox.add_devices(1).await;
    let body = r#"{"to":{"devices":["dev-1","dev-8","dev-9"]},"payload":1}"#;
    let answer = sandbox.post("/v1/messages", body).await;
    let warning = json!({"code": "unknown_recipients", "count": 2, "sample": ["dev-8", "dev-9"]});
    assert_eq!((answer.status.as_u16(), &answer.body["warnings"]), (202, &json!([warning])));
    assert_eq!(sandbox.queued().await.len(), 1);
    for to in [r#"{"devices":["dev-9"]}"#, r#"{"users":["u-9"]}"#] {
        let answer = sandbox.post("/v1/messages", &format!(r#"{{"to":{to},"payload":1}}"#)).await;
        assert_eq!((answer.status.as_u16(), &answer.body["warnings"][0]["count"]), (202, &json!(1)));
        let message = sandbox.get(&format!("/v1/messages/{}", answer.text("id"))).await;
        assert_eq!((message.text("status"), &message.body["stats"]["targeted"]), ("completed", &json!(0)));
        let body = format!(r#"{{"to":{to},"payload":1,"require_targets":true}}"#);
        sandbox.post("/v1/messages", &body).await.assert_problem(422, "audience_empty");
    }
    assert_eq!(sandbox.queued().await.len(), 1, "a message for nobody was published");
}

#[tokio::test]
async fn a_dry_run_counts_and_sends_nothing() {
    let select: Arc<dyn Select> = Arc::new(Odd);
    let sandbox = Sandbox::with(Setup { select: Some(select), ..Setup::default() }).await;
    sandbox.add_devices(3).await;
    for (to, mode, targeted) in [
        (json!("all"), "broadcast", 3),
        (json!({"filter": "tag('odd')"}), "broadcast", 2),
        (json!({"devices": ["dev-1", "dev-9"]}), "multicast", 1),
    ] {
        let body = json!({"to": to, "payload": 1}).to_string();
        let answer = sandbox.post("/v1/messages?dry_run=true", &body).await;
        assert_eq!((answer.status.as_u16(), answer.text("mode")), (200, mode));
        assert_eq!(answer.body["estimate"]["targeted"], targeted);
    }
    sandbox.post("/v1/messages?dry_run=true", "{}").await.assert_problem(422, "invalid_request");
    assert!(sandbox.queued().await.is_empty());
    assert_eq!(sandbox.get("/v1/messages").await.body["data"], json!([]));
}

/// Knows nobody yet, or whoever this is.
struct Counts(Result<u64, SelectError>);

#[async_trait]
impl Select for Counts {
    async fn select(&self, _: &AppId, _: Env, _: &str, _: Timestamp) -> Result<Ordinals, SelectError> {
        Err(SelectError::Unavailable("only counts are asked for".into()))
    }

    async fn count(&self, _: &AppId, _: Env, _: &str, _: Timestamp) -> Result<u64, SelectError> {
        self.0.clone()
    }

    fn check(&self, _: &AppId, _: &str) -> Result<(), Invalid> {
        Ok(())
    }
}

#[tokio::test]
async fn a_filtered_send_costs_whom_it_means_and_everybody_while_nobody_can_say() {
    let limits = Limits { recipients_per_s: 1, recipients_burst: 100 };
    let filtered = r#"{"to":{"filter":"tag('vip')"},"payload":1}"#;
    for (known, left) in [(Ok(2), 98), (Ok(0), 99), (Err(SelectError::Unavailable("being made".into())), 93)] {
        let select: Arc<dyn Select> = Arc::new(Counts(known));
        let sandbox = Sandbox::with(Setup { select: Some(select), limits, ..Setup::default() }).await;
        sandbox.add_devices(7).await;
        let answer = sandbox.post("/v1/messages", filtered).await;
        assert_eq!(answer.status, 202);
        assert!(answer.header("ratelimit").starts_with(&format!("\"send\";r={left};")), "{answer:?}");
        assert_eq!(sandbox.queued().await.len(), 1, "whom it means is decided when it is dispatched");
    }
    let nobody: Arc<dyn Select> = Arc::new(Counts(Ok(0)));
    let sandbox = Sandbox::with(Setup { select: Some(nobody), ..Setup::default() }).await;
    sandbox.add_devices(7).await;
    let required = r#"{"to":{"filter":"tag('vip')"},"payload":1,"require_targets":true}"#;
    sandbox.post("/v1/messages", required).await.assert_problem(422, "audience_empty");
}

#[tokio::test]
async fn a_batch_answers_for_each_message_and_keeps_their_order() {
    let sandbox = Sandbox::start().await;
    sandbox.add_devices(1).await;
    let item = |n: usize| json!({"to": {"devices": ["dev-1"]}, "payload": n});
    let mut items: Vec<_> = (0..50).map(item).collect();
    items[7] = json!({"to": {"devices": ["dev-1"]}, "payload": 7, "ttl_s": -1});
    let answer = sandbox.post("/v1/messages/batch", &json!({ "messages": items }).to_string()).await;
    assert_eq!(answer.status, 202);
    assert_eq!((&answer.body["accepted"], &answer.body["rejected"]), (&json!(49), &json!(1)));
    let bad = &answer.body["results"][7];
    assert_eq!(
        (&bad["index"], &bad["status"], &bad["problem"]["code"]),
        (&json!(7), &json!(422), &json!("invalid_request"))
    );
    assert_eq!(bad["problem"]["errors"][0]["pointer"], "#/messages/7/ttl_s");
    let payloads: Vec<_> = sandbox.queued().await.into_iter().map(|(_, e)| e.message.payload).collect();
    let expected: Vec<_> = (0..50).filter(|n| *n != 7).map(|n: usize| n.to_string().into_bytes()).collect();
    assert_eq!(payloads, expected);
    let answer = sandbox.post("/v1/messages/batch", r#"{"messages":[{},{"to":"all"}]}"#).await;
    assert_eq!((answer.status.as_u16(), &answer.body["accepted"]), (422, &json!(0)));
    for body in [r#"{"messages":[]}"#, r#"{"messages":1}"#, "{}"] {
        sandbox.post("/v1/messages/batch", body).await.assert_problem(422, "invalid_request");
    }
    let header = ("idempotency-key", "k");
    let answer = sandbox.ask("POST", "/v1/messages/batch", &sandbox.key, &[header], r#"{"messages":[]}"#).await;
    answer.assert_problem(400, "idempotency_key_invalid");
}

#[tokio::test]
async fn recipients_are_what_is_limited() {
    let limits = Limits { recipients_per_s: 1, recipients_burst: 5 };
    let sandbox = Sandbox::with(Setup { limits, ..Setup::default() }).await;
    sandbox.add_devices(9).await;
    let body = r#"{"to":{"devices":["dev-1","dev-2","dev-3"]},"payload":1}"#;
    let answer = sandbox.post("/v1/messages", body).await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.header("ratelimit-policy"), "\"send\";q=5;w=5");
    assert!(answer.header("ratelimit").starts_with("\"send\";r=2;t=3"), "{answer:?}");
    let answer = sandbox.post("/v1/messages", r#"{"to":"all","payload":1}"#).await;
    answer.assert_problem(429, "quota_exceeded");
    assert_eq!(answer.text("type"), "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!(answer.body["violated-policies"], json!(["send"]));
    assert!(answer.header("ratelimit").starts_with("\"send\";r=0;"));
    let wait: u64 = answer.header("retry-after").parse().unwrap();
    assert!((1..=4).contains(&wait), "{wait}");
    let other = sandbox.add_app("other").await;
    let answer = sandbox.ask("POST", "/v1/messages", &other, &[], body).await;
    assert_eq!(answer.status, 202, "another app has a budget of its own");
    // A broadcast costs the burst at most: it is refused for a while, never for good.
    let deadline = SystemClock.now() + std::time::Duration::from_secs(20);
    while sandbox.post("/v1/messages", r#"{"to":"all","payload":1}"#).await.status != 202 {
        assert!(SystemClock.now() < deadline);
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn what_happens_is_counted() {
    let sandbox = Sandbox::start().await;
    sandbox.add_devices(1).await;
    sandbox.post("/v1/messages", r#"{"to":"all","payload":1}"#).await;
    sandbox.get("/nowhere").await;
    let metrics = sandbox.metrics();
    for line in [
        "fanfare_ingest_requests_total{route=\"/v1/messages\",code=\"202\"} 1",
        "fanfare_ingest_requests_total{route=\"unmatched\",code=\"404\"} 1",
        "fanfare_ingest_requests_total{route=\"/v1/devices/{id}\",code=\"201\"} 1",
        "fanfare_messages_accepted_total{app=\"demo\",lane=\"broadcast\"} 1",
        "fanfare_broker_confirm_seconds_count 1",
        "fanfare_ingest_duration_seconds_count 3",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn a_message_may_wait_for_its_device_to_be_awake_but_not_until_it_is_worth_nothing() {
    let sandbox = Sandbox::start().await;
    sandbox.add_devices(1).await;
    let send = async |more: &str| {
        let body = format!(r#"{{"to":{{"devices":["dev-1"]}},"payload":1,"ttl_s":3600{more}}}"#);
        sandbox.post("/v1/messages", &body).await
    };
    for (more, waits_s) in [
        ("", None),
        (r#","delivery":"immediate""#, None),
        (r#","delivery":"on_wake""#, Some(600)),
        (r#","delivery":"on_wake","max_delay_s":60"#, Some(60)),
    ] {
        assert_eq!(send(more).await.status, 202);
        let (_, envelope) = sandbox.queued().await.pop().unwrap();
        let waits = envelope.message.due_at.map(|due| due.since(envelope.message.created_at).as_secs());
        assert_eq!(waits, waits_s, "{more}");
    }
    for (more, field) in [
        (r#","delivery":"soon""#, "delivery"),
        (r#","max_delay_s":60"#, "max_delay_s"),
        (r#","delivery":"on_wake","max_delay_s":3600"#, "max_delay_s"),
    ] {
        assert_eq!(send(more).await.faults()[0].0, format!("#/{field}"), "{more}");
    }
}
