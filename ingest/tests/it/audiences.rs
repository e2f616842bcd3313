//! Saved audiences, what narrows a send, and who gets nothing.

use std::sync::Arc;

use async_trait::async_trait;
use audience::{Expr, Facts, Invalid, Select, SelectError, holds};
use futures_util::future::join_all;
use model::{
    Aim, AppId, Audience, Clock as _, Env, Envelope, Except, Excluded, Exclusion, Members, OptOut, Ordinal, Ordinals,
    Receipt, ReceiptBatch, Scope, SystemClock, Terms, Timestamp,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use store::{PAGE_MAX, SharedStore, TimelineAppend, shelves};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::{
    connections::{answer, connect},
    sandbox::{Sandbox, Setup},
};

/// Looks at every device, one by one; knows no groups and no saved audiences.
#[derive(Default)]
struct Looking {
    store: Mutex<Option<SharedStore>>,
}

#[async_trait]
impl Select for Looking {
    async fn select(&self, app: &AppId, env: Env, text: &str, now: Timestamp) -> Result<Ordinals, SelectError> {
        let (expr, store): (Expr, _) = (text.parse()?, self.store.lock().clone().unwrap());
        let devices = store.list(app, env, None, PAGE_MAX).await.unwrap();
        let satisfying = devices.iter().filter(|device| holds(&expr, &Facts { device, now, online: false }));
        Ok(satisfying.map(|device| device.ordinal).collect())
    }

    fn check(&self, _: &AppId, text: &str) -> Result<(), Invalid> {
        text.parse::<Expr>().map(drop)
    }
}

pub(crate) async fn sandbox() -> Sandbox {
    let looking = Arc::new(Looking::default());
    let sandbox = Sandbox::with(Setup { select: Some(looking.clone()), ..Setup::default() }).await;
    *looking.store.lock() = Some(sandbox.store.clone());
    sandbox
}

/// Six devices: three platforms, vip or not, staff or not; a city for some.
async fn people(sandbox: &Sandbox) {
    for (number, profile) in [
        (1, json!({"platform": "ios", "tags": ["vip"], "attributes": {"city": "深圳", "level": 3}})),
        (2, json!({"platform": "android", "tags": ["vip"], "attributes": {"city": "北京"}})),
        (3, json!({"platform": "android", "tags": ["vip", "staff"], "attributes": {"city": "深圳"}})),
        (4, json!({"platform": "android", "tags": ["vip"], "attributes": {"city": "深圳"}, "user_id": "u-4"})),
        (5, json!({"platform": "toaster", "tags": ["vip"]})),
        (6, json!({"platform": "ios"})),
    ] {
        sandbox.put(&format!("/v1/devices/dev-{number}"), &profile.to_string()).await;
    }
}

async fn sent(sandbox: &Sandbox, to: Value) -> Envelope {
    let answer = sandbox.post("/v1/messages", &json!({"to": to, "payload": 1}).to_string()).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let id = answer.text("id").to_owned();
    let queued = sandbox.queued().await.into_iter().map(|(_, envelope)| envelope);
    queued.into_iter().find(|envelope| envelope.message.id.to_string() == id).unwrap()
}

#[tokio::test]
async fn a_preview_says_who_and_why_not() {
    let sandbox = sandbox().await;
    people(&sandbox).await;
    sandbox.post("/v1/suppressions", r#"{"user_id":"u-4"}"#).await;
    let to = json!({"filter": "tag('vip') && attr.city != '北京'", "exclude": {"tags": ["staff"]}});
    let preview = sandbox.post("/v1/audiences/preview", &json!({ "to": to }).to_string()).await;
    assert_eq!(preview.status, 200, "{preview:?}");
    let body = &preview.body;
    assert_eq!((&body["count"], &body["sample"], &body["mode"]), (&json!(1), &json!(["dev-1"]), &json!("broadcast")));
    assert_eq!((&body["online"], &body["exact"]), (&json!(0), &json!(true)));
    assert_eq!((&body["excluded"], &body["excluded_by"]), (&json!(2), &json!({"tags": 1, "suppressions": 1})));
    assert_eq!(body["by_platform"], json!({"ios": 1}));
    assert_eq!(body["missing"], json!([{"field": "attr.city", "devices": 2, "treated_as": "no match"}]));
    assert_eq!(body["filter_text"], r#"tag("vip") && attr.city != "北京""#);
    assert_eq!(body["filter_json"]["all"][1], json!({"field": "attr.city", "op": "ne", "value": "北京"}));
    assert!(body["eval_ms"].is_number());
    let everybody = sandbox.post("/v1/audiences/preview", r#"{"to":{"filter":"!tag('staff')"}}"#).await;
    assert_eq!(
        (&everybody.body["count"], &everybody.body["warnings"][0]["code"]),
        (&json!(4), &json!("matches_unknown"))
    );
    assert_eq!(everybody.body["by_platform"], json!({"android": 1, "ios": 2, "other": 1}));
    let dry = json!({"to": to, "payload": 1}).to_string();
    let dry = sandbox.post("/v1/messages?dry_run=true", &dry).await;
    assert_eq!(
        dry.body["estimate"],
        json!({"targeted": 1, "excluded": 2, "excluded_by": {"tags": 1, "suppressions": 1}})
    );
    assert!(sandbox.queued().await.is_empty());
}

#[tokio::test]
async fn devices_are_listed_by_filter_in_pages() {
    let sandbox = sandbox().await;
    people(&sandbox).await;
    let names = |body: &Value| -> Vec<String> {
        body["data"].as_array().unwrap().iter().map(|device| device["id"].as_str().unwrap().to_owned()).collect()
    };
    let path = "/v1/devices?limit=2&filter=platform%20%3D%3D%20%22android%22";
    let first = sandbox.get(path).await;
    assert_eq!(names(&first.body), ["dev-2", "dev-3"]);
    let next = sandbox.get(&format!("{path}&cursor={}", first.text("next_cursor"))).await;
    assert_eq!((names(&next.body), &next.body["next_cursor"]), (vec!["dev-4".to_owned()], &Value::Null));
    let wrong = sandbox.get("/v1/devices?filter=platfrom").await;
    assert_eq!(wrong.faults(), [("?filter".into(), "unknown_attribute".into())]);
}

#[tokio::test]
async fn mistakes_in_filters_are_shown_where_they_are() {
    let sandbox = sandbox().await;
    people(&sandbox).await;
    for (to, pointer, code, detail) in [
        (
            json!({"filter": "tag('vip') && attr.levle >= 5"}),
            "#/to/filter",
            "unknown_attribute",
            "column 15: attr.levle is not declared; did you mean attr.level?",
        ),
        (
            json!({"filter": {"all": [{"tag": "vip"}, {"field": "attr.level", "op": "gte", "value": "5"}]}}),
            "#/to/filter/all/1",
            "type_mismatch",
            "attr.level is a number; \"5\" is not",
        ),
        (
            json!({"filter": "tag('a')", "exclude": {"filter": "city == 1"}}),
            "#/to/exclude/filter",
            "unknown_attribute",
            "column 1: city is no field; an attribute of your own is written attr.city",
        ),
        (
            json!({"filter": "group('grp_01JD7Q2Z4M8V6T3K5N9R0WXYEC')"}),
            "#/to/filter",
            "unknown_group",
            "there is no such group",
        ),
        (
            json!({"filter": "tag('a')", "exclude": {"audiences": ["aud_01JD7Q2Z4M8V6T3K5N9R0WXYEC"]}}),
            "#/to/exclude/audiences/0",
            "unknown_audience",
            "there is no such audience",
        ),
        (
            json!({"filter": "tag('a')", "sample": {"percent": 200, "salt": "x"}}),
            "#/to/sample",
            "out_of_range",
            "a sample is 0.01 to 100 percent, in steps of 0.01",
        ),
        (
            json!({"audience": "aud_01JD7Q2Z4M8V6T3K5N9R0WXYEC"}),
            "#/to/audience",
            "unknown_audience",
            "there is no such audience",
        ),
        (json!({"filter": 7}), "#/to/filter", "invalid_type", "must be an expression or a tree"),
    ] {
        let answer = sandbox.post("/v1/messages", &json!({"to": to, "payload": 1}).to_string()).await;
        answer.assert_problem(422, "invalid_request");
        let fault = &answer.body["errors"][0];
        assert_eq!(
            (&fault["pointer"], &fault["code"], &fault["detail"]),
            (&json!(pointer), &json!(code), &json!(detail))
        );
    }
}

#[tokio::test]
async fn what_narrows_an_audience_travels_with_the_message() {
    let sandbox = sandbox().await;
    people(&sandbox).await;
    let group = sandbox.post("/v1/groups", r#"{"name":"g"}"#).await.text("id").to_owned();
    let envelope = sent(
        &sandbox,
        json!({
            "devices": ["dev-1", "dev-2", "dev-6"], "platforms": ["ios", "web"], "sample": {"percent": 50, "salt": "s"},
            "exclude": {"devices": ["dev-6", "nobody"], "users": ["u-4"], "tags": ["staff"], "groups": [group],
                "filter": {"field": "attr.level", "op": "gt", "value": 5}},
        }),
    )
    .await;
    assert_eq!(envelope.audience, Audience::Devices([0, 1, 5].map(Ordinal).into_iter().collect()));
    let listed = |ordinal| Excluded::Listed(std::iter::once(Ordinal(ordinal)).collect());
    let filter = |text: &str| Excluded::Filter(text.to_owned());
    let except = [
        (Exclusion::Devices, listed(5)),
        (Exclusion::Users, listed(3)),
        (Exclusion::Tags, filter(r#"tag("staff")"#)),
        (Exclusion::Groups, filter(&format!("group(\"{group}\")"))),
        (Exclusion::Filter, filter("attr.level > 5")),
    ];
    let except = except.into_iter().map(|(why, who)| Except { why, who }).collect();
    let only = Some(r#"platform in ["ios", "web"] && sample(50, "s")"#.to_owned());
    assert_eq!(envelope.terms, Terms { only, except });
    assert_eq!(sent(&sandbox, json!("all")).await.terms, Terms::default());
}

#[tokio::test]
async fn a_saved_audience_is_a_filter_or_a_list_and_takes_the_lane_of_its_kind() {
    let sandbox = sandbox().await;
    people(&sandbox).await;
    let created = sandbox.post("/v1/audiences", r#"{"name":"VIP","filter":{"tag":"vip"}}"#).await;
    assert_eq!(
        (created.status.as_u16(), created.text("kind"), created.text("filter_text")),
        (201, "filter", r#"tag("vip")"#)
    );
    let path = created.header("location").to_owned();
    assert_eq!(sandbox.get(&path).await.body, created.body);
    let id = created.text("id").to_owned();
    let changed = sandbox.ask("PATCH", &path, &sandbox.key, &[], r#"{"filter":"tag('vip') && !tag('staff')"}"#).await;
    assert_eq!((changed.text("name"), changed.text("filter_text")), ("VIP", r#"tag("vip") && !tag("staff")"#));
    let itself = json!({"filter": {"audience": id}}).to_string();
    sandbox.ask("PATCH", &path, &sandbox.key, &[], &itself).await.assert_problem(422, "invalid_request");
    let envelope = sent(&sandbox, json!({ "audience": id })).await;
    assert_eq!(envelope.audience, Audience::Filter(format!("audience(\"{id}\")")));
    assert_eq!(envelope.message.lane, model::Lane::Broadcast);

    let list = sandbox.post("/v1/audiences", r#"{"name":"file","kind":"list"}"#).await;
    let (list, path) = (list.text("id").to_owned(), list.header("location").to_owned());
    let csv = "device_id,name\ndev-1,Ann\n\"dev-2\",Bob\n\nnobody,x\n";
    let csv_type = [("content-type", "text/csv")];
    let uploaded = sandbox.ask("PUT", &format!("{path}/members"), &sandbox.key, &csv_type, csv).await;
    assert_eq!(uploaded.body, json!({"members": 2, "rows": 3, "unknown": 1}), "{uploaded:?}");
    let rows = "{\"user_id\":\"u-4\"}\n\"dev-1\"\n{\"device_id\":\"dev-6\"}\n{\"x\":1}";
    let nd_type = [("content-type", "application/x-ndjson")];
    let uploaded = sandbox.ask("PUT", &format!("{path}/members"), &sandbox.key, &nd_type, rows).await;
    assert_eq!(uploaded.body, json!({"members": 3, "rows": 4, "unknown": 1}));
    assert_eq!(sandbox.get(&path).await.body["members"], 3);
    let envelope = sent(&sandbox, json!({ "audience": list })).await;
    assert_eq!(envelope.message.lane, model::Lane::Multicast);
    assert_eq!(sandbox.get("/v1/audiences").await.body["data"].as_array().unwrap().len(), 2);
    // A key without the scope of broadcasts sends to the list and not to the filter.
    let key = sandbox.add_key("demo", Env::Test, &[Scope::Send]).await;
    for (id, status) in [(&list, 202), (&id, 403)] {
        let body = json!({"to": {"audience": id}, "payload": 1}).to_string();
        assert_eq!(sandbox.ask("POST", "/v1/messages", &key, &[], &body).await.status, status);
    }
    assert_eq!(sandbox.delete(&path).await.status, 204);
    sandbox.get(&path).await.assert_problem(404, "not_found");
    for body in [r#"{"name":"x"}"#, r#"{"filter":"tag('a')"}"#, r#"{"name":"x","kind":"list","filter":"tag('a')"}"#] {
        sandbox.post("/v1/audiences", body).await.assert_problem(422, "invalid_request");
    }
}

#[tokio::test]
async fn an_upload_may_be_longer_than_any_other_body() {
    let sandbox = sandbox().await;
    people(&sandbox).await;
    let list = sandbox.post("/v1/audiences", r#"{"name":"file","kind":"list"}"#).await;
    let members = format!("{}/members", list.header("location"));
    let rows: String = (0..100_000).map(|n| format!("dev-{}\n", n % 7)).collect();
    let uploaded = sandbox.ask("PUT", &members, &sandbox.key, &[("content-type", "text/csv")], &rows).await;
    assert_eq!((&uploaded.body["members"], &uploaded.body["rows"]), (&json!(6), &json!(100_000)));
    let long = "x".repeat(70_000);
    let refused = sandbox.ask("PUT", &members, &sandbox.key, &[("content-type", "text/csv")], &long).await;
    refused.assert_problem(422, "invalid_request");
    assert_eq!(sandbox.get(list.header("location")).await.body["members"], 6, "what was there stays");
    sandbox.ask("PUT", &members, "", &[], "dev-1").await.assert_problem(401, "unauthenticated");
}

/// An upload to a list that has begun and not ended.
async fn begun_upload(sandbox: &Sandbox, path: &str) -> TcpStream {
    let head = format!("PUT {path}/members HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n", sandbox.key);
    let upload = connect(sandbox, &format!("{head}Transfer-Encoding: chunked\r\n\r\n6\r\ndev-1\n\r\n")).await;
    // It has found its audience by then; nothing outside shows that.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    upload
}

#[tokio::test]
async fn an_upload_undoes_nothing_that_was_done_meanwhile() {
    let sandbox = sandbox().await;
    sandbox.add_devices(1).await;
    let list = async || sandbox.post("/v1/audiences", r#"{"name":"file","kind":"list"}"#).await;
    let (removed, renamed) = (list().await, list().await);
    let [gone, stays] = [&removed, &renamed].map(|list| list.header("location"));
    let [mut to_gone, mut to_stays] = [begun_upload(&sandbox, gone).await, begun_upload(&sandbox, stays).await];
    assert_eq!(sandbox.delete(gone).await.status, 204);
    assert_eq!(sandbox.ask("PATCH", stays, &sandbox.key, &[], r#"{"name":"other"}"#).await.status, 200);
    for (upload, status) in [(&mut to_gone, 404), (&mut to_stays, 200)] {
        upload.write_all(b"0\r\n\r\n").await.unwrap();
        let told = answer(upload).await;
        assert!(told.starts_with(&format!("HTTP/1.1 {status}")), "{told}");
    }
    sandbox.get(gone).await.assert_problem(404, "not_found");
    let (store, id) = (&*sandbox.store, removed.text("id"));
    assert_eq!(shelves::find::<Members>(store, &sandbox.app, Env::Test, id).await.unwrap(), None);
    let kept = sandbox.get(stays).await;
    assert_eq!((kept.text("name"), &kept.body["members"]), ("other", &json!(1)));
}

#[tokio::test]
async fn suppressions_and_opt_outs_are_kept_until_they_are_taken_back() {
    let sandbox = sandbox().await;
    people(&sandbox).await;
    let added = sandbox.post("/v1/suppressions", r#"{"device_id":"dev-1","expires_at":"2999-01-01T00:00:00Z"}"#).await;
    assert_eq!((added.status.as_u16(), added.text("expires_at")), (201, "2999-01-01T00:00:00.000Z"));
    sandbox.post("/v1/suppressions", r#"{"user_id":"u-4"}"#).await;
    let listed = sandbox.get("/v1/suppressions?limit=1").await;
    assert_eq!(listed.body["data"][0]["device_id"], "dev-1");
    let next = sandbox.get(&format!("/v1/suppressions?limit=1&cursor={}", listed.text("next_cursor"))).await;
    assert_eq!(next.body["data"][0]["user_id"], "u-4");
    for body in ["{}", r#"{"device_id":"a","user_id":"b"}"#, r#"{"device_id":"a","expires_at":"2000-01-01T00:00:00Z"}"#]
    {
        sandbox.post("/v1/suppressions", body).await.assert_problem(422, "invalid_request");
    }
    sandbox.put("/v1/devices/dev-2/opt-outs/promo", "").await;
    assert_eq!(sandbox.get("/v1/devices/dev-2/opt-outs").await.body, json!({"types": ["promo"]}));
    sandbox.put("/v1/devices/nobody/opt-outs/promo", "").await.assert_problem(404, "not_found");
    let estimate = async |kind: &str| {
        let body = json!({"to": "all", "type": kind, "payload": 1}).to_string();
        sandbox.post("/v1/messages?dry_run=true", &body).await.body["estimate"].clone()
    };
    let promo = json!({"targeted": 3, "excluded": 3, "excluded_by": {"suppressions": 2, "opt_outs": 1}});
    assert_eq!(estimate("promo").await, promo);
    assert_eq!(estimate("order").await["targeted"], 4);
    let capped = sandbox.put("/v1/frequency-caps/promo", r#"{"max":3,"per_s":86400}"#).await;
    assert_eq!(capped.body, json!({"type": "promo", "max": 3, "per_s": 86_400}));
    assert_eq!(sandbox.get("/v1/frequency-caps").await.body["data"], json!([capped.body]));
    assert_eq!(estimate("promo").await, promo, "nobody has had three");
    sandbox.put("/v1/frequency-caps/promo", r#"{"max":11}"#).await.assert_problem(422, "invalid_request");
    assert_eq!(sandbox.delete("/v1/frequency-caps/promo").await.status, 204);
    assert_eq!(sandbox.delete("/v1/suppressions?device_id=dev-1").await.status, 204);
    sandbox.delete("/v1/suppressions?device_id=dev-1").await.assert_problem(404, "not_found");
    assert_eq!(sandbox.delete("/v1/devices/dev-2/opt-outs/promo").await.status, 204);
    assert_eq!(estimate("promo").await["targeted"], 5);
}

#[tokio::test]
async fn all_who_opt_out_at_the_same_moment_have_opted_out() {
    const DEVICES: usize = 50;
    let sandbox = sandbox().await;
    sandbox.add_devices(DEVICES).await;
    let paths: Vec<_> = (1..=DEVICES).map(|number| format!("/v1/devices/dev-{number}/opt-outs/promo")).collect();
    let answers = join_all(paths.iter().map(|path| sandbox.put(path, ""))).await;
    assert!(answers.iter().all(|answer| answer.status == 204), "{answers:?}");
    let kept = shelves::find::<OptOut>(&*sandbox.store, &sandbox.app, Env::Test, "promo").await.unwrap();
    assert_eq!(kept.unwrap().0.len(), DEVICES as u64);
}

#[tokio::test]
async fn a_receipt_says_why_a_device_did_not_get_the_message() {
    let set = |ordinals: &[u32]| ordinals.iter().copied().map(Ordinal).collect::<Ordinals>();
    let sandbox = sandbox().await;
    people(&sandbox).await;
    let saved = sandbox.post("/v1/audiences", r#"{"name":"VIP","filter":"tag('vip') && has(attr.city)"}"#).await;
    let envelope = sent(&sandbox, json!({"audience": saved.text("id"), "platforms": ["ios", "android"]})).await;
    let (message, now) = (Arc::new(envelope.message), SystemClock.now());
    // What a dispatcher decides and notes.
    let wanted = Some(format!("audience(\"{}\") && platform in [\"ios\", \"android\"]", saved.text("id")));
    let aim = Aim { wanted, excluded: vec![(Exclusion::Tags, set(&[2]))], at: now };
    let (of, name) = ((&sandbox.app, Env::Test), message.id.to_string());
    shelves::note(&*sandbox.store, of, &name, &aim, message.expires_at).await.unwrap();
    let append = TimelineAppend { message: message.clone(), audience: set(&[0, 1, 3]) };
    sandbox.store.append_timeline(vec![append], now).await.unwrap();
    let receipt = Receipt { sent: set(&[0, 1]), acked: set(&[1]), ..Receipt::new(message.id) };
    let batch = ReceiptBatch { app: sandbox.app.clone(), receipts: vec![receipt] };
    sandbox.store.add_receipts(vec![batch]).await.unwrap();
    sandbox.put("/v1/devices/dev-6", r#"{"platform":"toaster","tags":["vip"],"attributes":{"city":"x"}}"#).await;
    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    sandbox.put("/v1/devices/dev-7", r#"{"platform":"ios"}"#).await;
    for (device, state, reason, key, value) in [
        ("dev-1", "sent", "unanswered", "", Value::Null),
        ("dev-3", "not_targeted", "excluded", "excluded_by", json!("tags")),
        ("dev-4", "queued", "offline", "", Value::Null),
        ("dev-5", "not_targeted", "clause", "clause", json!("has(attr.city)")),
        ("dev-6", "not_targeted", "clause", "clause", json!(r#"platform in ["ios", "android"]"#)),
        ("dev-7", "not_targeted", "registered_later", "", Value::Null),
    ] {
        let answer = sandbox.get(&format!("/v1/messages/{name}/receipts/{device}")).await;
        let why = &answer.body["why"];
        assert_eq!((answer.text("state"), &why["reason"], &why[key]), (state, &json!(reason), &value), "{answer:?}");
        assert!(!why["detail"].as_str().unwrap().is_empty());
    }
    let acked = sandbox.get(&format!("/v1/messages/{name}/receipts/dev-2")).await;
    assert_eq!(acked.body, json!({"device_id": "dev-2", "state": "acked"}));
    let stats = &sandbox.get(&format!("/v1/messages/{name}")).await.body["stats"];
    assert_eq!((&stats["excluded"], &stats["excluded_by"]), (&json!(1), &json!({"tags": 1})));
    sandbox.get(&format!("/v1/messages/{name}/receipts/nobody")).await.assert_problem(404, "not_found");
}

#[tokio::test]
async fn whoever_changes_what_another_has_changed_meanwhile_is_told() {
    let sandbox = sandbox().await;
    let group = sandbox.post("/v1/groups", r#"{"name":"club"}"#).await;
    let audience = sandbox.post("/v1/audiences", r#"{"name":"VIP","kind":"filter","filter":"tag('vip')"}"#).await;
    for (path, body) in [
        (format!("/v1/audiences/{}", audience.text("id")), r#"{"name":"Very important"}"#),
        (format!("/v1/groups/{}", group.text("id")), r#"{"name":"circle"}"#),
    ] {
        let read = sandbox.get(&path).await;
        let seen = read.header("etag").to_owned();
        assert!(seen.starts_with('"') && seen.ends_with('"'), "{seen}");
        let patch = async |tag: &str| {
            let headers = [("content-type", "application/merge-patch+json"), ("if-match", tag)];
            sandbox.ask("PATCH", &path, &sandbox.key, &headers, body).await
        };
        let changed = patch(&format!("\"0\", {seen}")).await;
        assert_eq!(changed.status, 200, "{changed:?}");
        assert_ne!(changed.header("etag"), seen);
        assert_eq!(sandbox.get(&path).await.header("etag"), changed.header("etag"));
        patch(&seen).await.assert_problem(412, "precondition_failed");
        assert_eq!(patch("*").await.status, 200);
    }
    let path = format!("/v1/audiences/{}", audience.text("id"));
    let stale = sandbox.ask("DELETE", &path, &sandbox.key, &[("if-match", "\"0\"")], "").await;
    stale.assert_problem(412, "precondition_failed");
    assert_eq!(sandbox.delete(&path).await.status, 204);
}
