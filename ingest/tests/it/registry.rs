//! Devices, their tokens, users and groups.

use futures_util::future::join_all;
use model::{Bell, Clock as _, Lane, NodeId, Ordinal, SystemClock, record::Record as _, sign::DeviceToken};
use serde_json::{Map, json};

use crate::sandbox::{Answer, DEVICE_SECRET, Sandbox};

const PROFILE: &str = r#"{"user_id":"u-77","platform":"android","app_version":"2.11.0","lang":"zh-CN","tags":["vip","beta"],
    "attributes":{"level":7,"city":"深圳","langs":["zh","en"],"pro":true}}"#;

#[tokio::test]
async fn a_device_is_registered_replaced_and_removed() {
    let sandbox = Sandbox::start().await;
    let created = sandbox.put("/v1/devices/dev-1", PROFILE).await;
    assert_eq!(created.status, 201);
    let device = sandbox.get("/v1/devices/dev-1").await;
    assert_eq!(device.body, created.body);
    assert_eq!((device.text("user_id"), device.text("platform"), device.text("env")), ("u-77", "android", "test"));
    assert_eq!(device.body["attributes"], json!({"level": 7, "city": "深圳", "langs": ["zh", "en"], "pro": true}));
    assert_eq!(device.body["tags"], json!(["beta", "vip"]));
    let replaced = sandbox.put("/v1/devices/dev-1", r#"{"platform":"ios"}"#).await;
    assert_eq!((replaced.status.as_u16(), &replaced.body["tags"]), (200, &json!([])));
    assert_eq!(replaced.body["first_seen"], device.body["first_seen"]);
    assert_eq!(sandbox.delete("/v1/devices/dev-1").await.status, 204);
    sandbox.get("/v1/devices/dev-1").await.assert_problem(404, "not_found");
    sandbox.delete("/v1/devices/dev-1").await.assert_problem(404, "not_found");
}

#[tokio::test]
async fn a_profile_has_limits() {
    let sandbox = Sandbox::start().await;
    sandbox.put("/v1/devices/dev-2", "{}").await;
    let tags: Vec<_> = (0..1_001).map(|n| n.to_string()).collect();
    for (body, pointer) in [
        (json!({"tags": tags}), "#/tags"),
        (json!({"tags": ["x".repeat(65)]}), "#/tags"),
        (json!({"platform": "x".repeat(257)}), "#/platform"),
        (json!({"user_id": "a b"}), "#/user_id"),
        (json!({"attributes": {"Level": 1}}), "#/attributes/Level"),
        (json!({"attributes": {"a/b": 1}}), "#/attributes/a~1b"),
        (json!({"attributes": {"a": {"b": 1}}}), "#/attributes/a"),
        (json!({"attributes": {"a": [1]}}), "#/attributes/a"),
        (json!({"attributes": []}), "#/attributes"),
        (json!({"attributes": {"a": "x".repeat(257)}}), "#/attributes/a"),
        (json!({"attributes": (0..101).map(|n| (format!("a{n}"), n.into())).collect::<Map<_, _>>()}), "#/attributes"),
        (json!({"lang": ""}), "#/lang"),
        (json!({"tags": "vip"}), "#/tags"),
    ] {
        let answer = sandbox.put("/v1/devices/dev-1", &body.to_string()).await;
        answer.assert_problem(422, "invalid_request");
        assert_eq!(answer.faults()[0].0, pointer, "{answer:?}");
        let merge = [("content-type", "application/merge-patch+json")];
        let patched = sandbox.ask("PATCH", "/v1/devices/dev-2", &sandbox.key, &merge, &body.to_string()).await;
        assert_eq!(patched.body["errors"], answer.body["errors"], "a change says the same");
    }
}

#[tokio::test]
async fn devices_are_listed_in_pages_and_by_user() {
    let sandbox = Sandbox::start().await;
    sandbox.add_devices(5).await;
    for number in [2, 4] {
        sandbox.put(&format!("/v1/devices/dev-{number}"), r#"{"user_id":"u-1"}"#).await;
    }
    let names = |body: &serde_json::Value| -> Vec<String> {
        body["data"].as_array().unwrap().iter().map(|device| device["id"].as_str().unwrap().to_owned()).collect()
    };
    let first = sandbox.get("/v1/devices?limit=3").await;
    assert_eq!(names(&first.body), ["dev-1", "dev-2", "dev-3"]);
    let next = sandbox.get(&format!("/v1/devices?limit=3&cursor={}", first.text("next_cursor"))).await;
    assert_eq!((names(&next.body), next.body["next_cursor"].is_null()), (vec!["dev-4".into(), "dev-5".into()], true));
    assert_eq!(names(&sandbox.get("/v1/users/u-1/devices").await.body), ["dev-2", "dev-4"]);
    assert_eq!(names(&sandbox.get("/v1/users/u-2/devices").await.body), Vec::<String>::new());
}

#[tokio::test]
async fn a_token_is_signed_for_one_device_until_it_is_revoked() {
    let sandbox = Sandbox::start().await;
    sandbox.add_devices(1).await;
    let mut bells = sandbox.broker.listen(&"ap-1".parse::<NodeId>().unwrap(), Lane::Unicast).await.unwrap();
    let minted = sandbox.post("/v1/devices/dev-1/tokens", r#"{"ttl_s":120}"#).await;
    assert_eq!((minted.status.as_u16(), minted.text("client_id"), minted.text("username")), (201, "dev-1", "demo"));
    let (device, now) = ("dev-1".parse().unwrap(), SystemClock.now());
    let claims = DeviceToken::verify(minted.text("token"), DEVICE_SECRET, &sandbox.app, &device, now).unwrap();
    assert_eq!((claims.generation, claims.env), (0, Some(model::Env::Test)));
    assert!((115..=120).contains(&(claims.exp - now.as_millis() / 1_000)));
    let revoked = sandbox.delete("/v1/devices/dev-1/tokens").await;
    assert_eq!((revoked.status.as_u16(), &revoked.body), (200, &json!({"generation": 1})));
    let app = sandbox.app.clone();
    let bell = Bell::decode(&bells.heard().await.unwrap()).unwrap();
    assert_eq!(bell, Bell::Revoked { app: app.clone(), device: Ordinal(0), generation: 1 });
    let minted = sandbox.post("/v1/devices/dev-1/tokens", "").await;
    let claims = DeviceToken::verify(minted.text("token"), DEVICE_SECRET, &app, &device, now).unwrap();
    assert_eq!(claims.generation, 1);
    sandbox.delete("/v1/devices/dev-1").await;
    let bell = Bell::decode(&bells.heard().await.unwrap()).unwrap();
    assert_eq!(bell, Bell::Revoked { app, device: Ordinal(0), generation: u32::MAX });
    sandbox.post("/v1/devices/dev-1/tokens", "{}").await.assert_problem(404, "not_found");
    for ttl in ["0", "59", "31536001", "\"1h\""] {
        let answer = sandbox.post("/v1/devices/dev-9/tokens", &format!(r#"{{"ttl_s":{ttl}}}"#)).await;
        answer.assert_problem(422, "invalid_request");
    }
}

#[tokio::test]
async fn a_group_is_kept_and_its_members_change_in_one_step() {
    let sandbox = Sandbox::start().await;
    sandbox.add_devices(4).await;
    let created = sandbox.post("/v1/groups", r#"{"name":"crew","source":{"type":"static"}}"#).await;
    assert_eq!((created.status.as_u16(), created.text("name")), (201, "crew"));
    let path = created.header("location").to_owned();
    assert_eq!(sandbox.get(&path).await.body, created.body);
    let members = format!("{path}/members");
    let changed = sandbox.post(&members, r#"{"add":["dev-1","dev-2","dev-3","nobody"]}"#).await;
    assert_eq!((&changed.body["members"], &changed.body["warnings"][0]["sample"]), (&json!(3), &json!(["nobody"])));
    let changed = sandbox.post(&members, r#"{"add":["dev-4"],"remove":["dev-2"]}"#).await;
    assert_eq!(changed.body, json!({"members": 3, "warnings": []}));
    let page = sandbox.get(&format!("{members}?limit=2")).await;
    assert_eq!(page.body["data"], json!(["dev-1", "dev-3"]));
    let page = sandbox.get(&format!("{members}?limit=2&cursor={}", page.text("next_cursor"))).await;
    assert_eq!(page.body["data"], json!(["dev-4"]));
    let renamed = sandbox.ask("PATCH", &path, &sandbox.key, &[], r#"{"name":"staff"}"#).await;
    assert_eq!((renamed.status.as_u16(), renamed.text("name")), (200, "staff"));
    assert_eq!(sandbox.get("/v1/groups").await.body["data"], json!([renamed.body]));
    assert_eq!(sandbox.delete(&path).await.status, 204);
    sandbox.get(&path).await.assert_problem(404, "not_found");
    for body in [r#"{"name":""}"#, "{}", r#"{"name":"x","source":{"type":"callback","url":"http://x"}}"#] {
        sandbox.post("/v1/groups", body).await.assert_problem(422, "invalid_request");
    }
    let many: Vec<_> = (0..5_001).map(|n| format!("d{n}")).collect();
    let body = json!({"add": many}).to_string();
    sandbox.post(&members, &body).await.assert_problem(404, "not_found");
}

/// Several rename a group at the same time, each while it is as he has seen it, if he has.
async fn rename(sandbox: &Sandbox, path: &str, names: std::ops::Range<u32>, seen: Option<&str>) -> Vec<Answer> {
    let headers: Vec<_> = seen.map(|seen| ("if-match", seen)).into_iter().collect();
    let bodies: Vec<_> = names.map(|name| json!({ "name": format!("name {name}") }).to_string()).collect();
    join_all(bodies.iter().map(|body| sandbox.ask("PATCH", path, &sandbox.key, &headers, body))).await
}

#[tokio::test]
async fn of_those_who_rename_what_they_have_seen_at_the_same_moment_one_does() {
    let sandbox = Sandbox::start().await;
    let path = sandbox.post("/v1/groups", r#"{"name":"crew"}"#).await.header("location").to_owned();
    let seen = sandbox.get(&path).await.header("etag").to_owned();
    let (done, told): (Vec<_>, Vec<_>) =
        rename(&sandbox, &path, 0..16, Some(&seen)).await.into_iter().partition(|answer| answer.status == 200);
    assert_eq!((done.len(), told.len()), (1, 15), "{done:?}");
    told.iter().for_each(|answer| answer.assert_problem(412, "precondition_failed"));
    assert_eq!(sandbox.get(&path).await.text("name"), done[0].text("name"));
    let answers = rename(&sandbox, &path, 0..16, None).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "who did not look wins: {answers:?}");
}

#[tokio::test]
async fn a_group_that_is_removed_while_others_rename_it_stays_away() {
    let sandbox = Sandbox::start().await;
    for _ in 0..20 {
        let path = sandbox.post("/v1/groups", r#"{"name":"crew"}"#).await.header("location").to_owned();
        let (before, removed, after) = tokio::join!(
            rename(&sandbox, &path, 0..4, None),
            sandbox.delete(&path),
            rename(&sandbox, &path, 4..8, None)
        );
        assert_eq!(removed.status, 204);
        for answer in before.iter().chain(&after) {
            assert!([200, 404].contains(&answer.status.as_u16()), "{answer:?}");
        }
        sandbox.get(&path).await.assert_problem(404, "not_found");
    }
}
