//! Bad input gets a problem that names every mistake.

use axum::{Router, routing::get};
use serde_json::json;

use crate::sandbox::{Sandbox, Setup};

const TO: &str = r#""to":{"devices":["dev-1"]}"#;

#[tokio::test]
async fn malformed_json_is_told_with_its_place() {
    let sandbox = Sandbox::start().await;
    let answer = sandbox.post("/v1/messages", "{\n  \"to\": }").await;
    answer.assert_problem(400, "malformed_json");
    assert!(answer.text("detail").contains("line 2 column 9"), "{answer:?}");
    assert_eq!(answer.text("type"), "https://push.example/problems/malformed_json");
    for body in ["{", "nonsense", "{}x", "{\"a\":01}", "{\"payload\":\"\u{1}\"}"] {
        sandbox.post("/v1/messages", body).await.assert_problem(400, "malformed_json");
    }
    let answer = sandbox.post("/v1/messages", "[]").await;
    answer.assert_problem(422, "invalid_request");
    assert_eq!(answer.faults(), [("#".into(), "invalid_type".into())]);
}

#[tokio::test]
async fn every_mistake_is_named_at_once() {
    let sandbox = Sandbox::start().await;
    let body = json!({
        "to": {"devices": ["dev-1", "a/b", "#", "$SYS", ""]}, "payload": 1, "ttl_s": 864_001, "type": "No",
        "priority": "urgent", "collapse_key": "", "metadata": {"a": 1}, "idempotency_key": "a\"b", "tll_s": 5,
    });
    let answer = sandbox.post("/v1/messages", &body.to_string()).await;
    answer.assert_problem(422, "invalid_request");
    let mut faults = answer.faults();
    faults.sort();
    let expected = [
        ("#/collapse_key", "invalid_format"),
        ("#/idempotency_key", "invalid_format"),
        ("#/metadata", "invalid_type"),
        ("#/priority", "invalid_type"),
        ("#/tll_s", "unknown_field"),
        ("#/to/devices/1", "invalid_format"),
        ("#/to/devices/2", "invalid_format"),
        ("#/to/devices/3", "invalid_format"),
        ("#/to/devices/4", "invalid_format"),
        ("#/ttl_s", "out_of_range"),
        ("#/type", "invalid_format"),
    ];
    assert_eq!(faults, expected.map(|(pointer, code)| (pointer.to_owned(), code.to_owned())));
    assert_eq!(answer.text("detail"), "11 fields are invalid");
    assert!(sandbox.queued().await.is_empty());
}

#[tokio::test]
async fn an_audience_or_payload_that_is_missing_or_double_is_refused() {
    let sandbox = Sandbox::start().await;
    for (body, pointer, code) in [
        (r#"{"payload":1}"#, "#/to", "missing"),
        (r#"{"to":"everybody","payload":1}"#, "#/to", "invalid_format"),
        (r#"{"to":{},"payload":1}"#, "#/to", "missing"),
        (r#"{"to":{"devices":null},"payload":1}"#, "#/to", "missing"),
        (r#"{"to":{"devices":[]},"payload":1}"#, "#/to/devices", "out_of_range"),
        (r#"{"to":{"devices":["a"],"users":["b"]},"payload":1}"#, "#/to", "contradiction"),
        (r#"{"to":{"group":"grp_1"},"payload":1}"#, "#/to/group", "invalid_format"),
        (r#"{"to":{"group":"grp_01JD7Q2Z4M8V6T3K5N9R0WXYEC"},"payload":1}"#, "#/to/group", "unknown_group"),
        (r#"{"to":{"filter":"tag(\"vip\")"},"payload":1}"#, "#/to/filter", "not_supported"),
        (r#"{"to":{"devices":["a"],"platforms":["ios"]},"payload":1}"#, "#/to", "not_supported"),
        (r#"{"to":{"devices":["a"],"exclude":["b"]},"payload":1}"#, "#/to/exclude", "invalid_type"),
        (r#"{"to":{"devices":["a"],"exclude":{"device":["b"]}},"payload":1}"#, "#/to/exclude/device", "unknown_field"),
        (r#"{"to":{"devices":["a"],"audience":"aud_1"},"payload":1}"#, "#/to", "contradiction"),
        (r#"{"to":"all"}"#, "#/payload", "missing"),
        (r#"{"to":"all","payload":1,"payload_base64":"aGk="}"#, "#/payload_base64", "contradiction"),
        (r#"{"to":"all","payload_base64":"!"}"#, "#/payload_base64", "invalid_format"),
        (r#"{"to":"all","payload":1,"content_type":"text/plain"}"#, "#/content_type", "contradiction"),
        (r#"{"to":"all","to":"all","payload":1}"#, "#/to", "duplicate_field"),
    ] {
        let answer = sandbox.post("/v1/messages", body).await;
        answer.assert_problem(422, "invalid_request");
        assert!(answer.faults().contains(&(pointer.into(), code.into())), "{body}: {answer:?}");
    }
    let many: Vec<_> = (0..1_001).map(|number| format!("d{number}")).collect();
    let answer = sandbox.post("/v1/messages", &json!({"to": {"devices": many}, "payload": 1}).to_string()).await;
    assert_eq!(answer.faults(), [("#/to/devices".into(), "too_many".into())]);
}

#[tokio::test]
async fn what_is_not_built_yet_is_refused_and_not_ignored() {
    let sandbox = Sandbox::start().await;
    for field in ["app", "notification", "replaces", "pace", "send_at", "local_time", "receipts", "attachment_id"] {
        let answer = sandbox.post("/v1/messages", &format!(r#"{{{TO},"payload":1,"{field}":"x"}}"#)).await;
        answer.assert_problem(422, "invalid_request");
        assert_eq!(answer.faults(), [(format!("#/{field}"), "not_supported".to_owned())]);
    }
}

#[tokio::test]
async fn too_much_is_refused_with_what_would_fit() {
    let sandbox = Sandbox::start().await;
    let answer = sandbox.post("/v1/messages", &format!(r#"{{{TO},"payload":"{}"}}"#, "x".repeat(4_095))).await;
    answer.assert_problem(413, "payload_too_large");
    assert!(answer.text("detail").contains("4096"));
    sandbox.post("/v1/messages", &" ".repeat(65_537)).await.assert_problem(413, "payload_too_large");
    sandbox.post("/v1/messages/batch", &" ".repeat(1_048_577)).await.assert_problem(413, "payload_too_large");
    let answer = sandbox.post("/v1/messages", &format!(r#"{{{TO},"payload":"{}"}}"#, "x".repeat(4_094))).await;
    assert_eq!(answer.status, 202);
}

#[tokio::test]
async fn only_plain_json_is_read() {
    let sandbox = Sandbox::start().await;
    let body = format!(r#"{{{TO},"payload":1}}"#);
    for header in [("content-type", "text/plain"), ("content-encoding", "gzip")] {
        let answer = sandbox.ask("POST", "/v1/messages", &sandbox.key, &[header], &body).await;
        answer.assert_problem(415, "unsupported_media_type");
    }
    let header = ("content-type", "application/json; charset=utf-8");
    assert_eq!(sandbox.ask("POST", "/v1/messages", &sandbox.key, &[header], &body).await.status, 202);
}

#[tokio::test]
async fn wrong_paths_and_methods_are_problems_too() {
    let sandbox = Sandbox::start().await;
    sandbox.get("/v2/messages").await.assert_problem(404, "not_found");
    sandbox.get("/v1/messages/%ff").await.assert_problem(422, "invalid_request");
    let answer = sandbox.put("/v1/messages", "{}").await;
    answer.assert_problem(405, "method_not_allowed");
    assert!(answer.header("allow").contains("POST"), "{answer:?}");
    for id in ["msg_1", "%23", "+", "a%2Fb", "%24SYS", "%00", "msg_01JD7Q2Z4M8V6T3K5N9R0WXYEC"] {
        sandbox.get(&format!("/v1/messages/{id}")).await.assert_problem(404, "not_found");
        sandbox.get(&format!("/v1/devices/{id}")).await.assert_problem(404, "not_found");
    }
    sandbox.put("/v1/devices/a%2Fb", "{}").await.assert_problem(422, "invalid_request");
}

#[tokio::test]
async fn wrong_parameters_are_named() {
    let sandbox = Sandbox::start().await;
    for (path, pointer, code) in [
        ("/v1/messages?limit=501", "?limit", "out_of_range"),
        ("/v1/messages?limit=many", "?limit", "invalid_format"),
        ("/v1/messages?cursor=%23", "?cursor", "invalid_format"),
        ("/v1/messages?offset=1", "?offset", "unknown_parameter"),
        ("/v1/uplink?after=msg_1", "?after", "invalid_format"),
    ] {
        let answer = sandbox.get(path).await;
        answer.assert_problem(422, "invalid_request");
        assert_eq!(answer.faults(), [(pointer.to_owned(), code.to_owned())], "{path}");
    }
}

#[tokio::test]
async fn a_handler_that_panics_costs_its_own_request_only() {
    async fn broken() -> &'static str {
        panic!("made to fail")
    }
    let others = Router::new().route("/broken", get(broken)).route("/fine", get(|| async { "fine" }));
    let sandbox = Sandbox::with(Setup { others, beside_the_api: &["/broken", "/fine"], ..Setup::default() }).await;
    sandbox.get("/broken").await.assert_problem(500, "internal");
    assert_eq!(sandbox.get("/fine").await.status, 200);
}

#[tokio::test]
async fn a_body_full_of_mistakes_makes_no_larger_answer() {
    let sandbox = Sandbox::start().await;
    let fields: Vec<_> = (0..6_000).map(|number| format!("\"f{number}\":1")).collect();
    let answer = sandbox.post("/v1/messages", &format!("{{{}}}", fields.join(","))).await;
    answer.assert_problem(422, "invalid_request");
    assert_eq!(answer.faults().len(), 64);
    assert_eq!(answer.text("detail"), "64 fields or more are invalid");
}
