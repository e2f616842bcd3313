//! Who may do what: keys, scopes, other apps and the other environment.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use model::{Clock as _, Env, Key, Scope, SystemClock, sign, sign::ApiKey};
use serde_json::json;

use crate::sandbox::Sandbox;

const SEND: &str = r#"{"to":{"devices":["dev-1"]},"payload":1}"#;

/// Every route behind the gate: method, path, body, the scope it needs, the status that a caller with it gets.
const ROUTES: [(&str, &str, &str, Scope, u16); 31] = [
    ("POST", "/v1/messages", SEND, Scope::Send, 202),
    ("POST", "/v1/messages", r#"{"to":"all","payload":1}"#, Scope::SendBroadcast, 202),
    ("POST", "/v1/messages?dry_run=true", SEND, Scope::Send, 200),
    ("POST", "/v1/messages/batch", r#"{"messages":[{"to":{"devices":["dev-1"]},"payload":1}]}"#, Scope::Send, 202),
    ("GET", "/v1/messages", "", Scope::Read, 200),
    ("GET", "/v1/messages/{message}", "", Scope::Read, 200),
    ("GET", "/v1/messages/{message}/receipts", "", Scope::Read, 409),
    ("POST", "/v1/messages/{message}/receipts/query", r#"{"device_ids":["dev-1"]}"#, Scope::Read, 409),
    ("GET", "/v1/messages/{message}/receipts/dev-1", "", Scope::Read, 409),
    ("POST", "/v1/messages/{message}/cancel", "{}", Scope::Send, 200),
    ("PUT", "/v1/devices/dev-1", "{}", Scope::Devices, 200),
    ("GET", "/v1/devices/dev-1", "", Scope::Devices, 200),
    ("GET", "/v1/messages/{message}/result", "", Scope::Read, 404),
    ("GET", "/v1/devices", "", Scope::Devices, 200),
    ("POST", "/v1/devices/dev-1/tokens", "{}", Scope::Devices, 201),
    ("DELETE", "/v1/devices/dev-1/tokens", "", Scope::Devices, 200),
    ("GET", "/v1/users/u-1/devices", "", Scope::Devices, 200),
    ("POST", "/v1/groups", r#"{"name":"g"}"#, Scope::Audiences, 201),
    ("GET", "/v1/groups", "", Scope::Audiences, 200),
    ("GET", "/v1/groups/{group}", "", Scope::Audiences, 200),
    ("PATCH", "/v1/groups/{group}", r#"{"name":"h"}"#, Scope::Audiences, 200),
    ("POST", "/v1/groups/{group}/members", r#"{"add":["dev-1"]}"#, Scope::Audiences, 200),
    ("GET", "/v1/groups/{group}/members", "", Scope::Audiences, 200),
    ("DELETE", "/v1/groups/{group}", "", Scope::Audiences, 204),
    ("GET", "/v1/uplink", "", Scope::Uplink, 200),
    ("POST", "/v1/apps", r#"{"id":"new"}"#, Scope::Admin, 201),
    ("GET", "/v1/apps/demo", "", Scope::Admin, 200),
    ("PATCH", "/v1/apps/demo", "{}", Scope::Admin, 200),
    ("POST", "/v1/apps/demo/keys", "{}", Scope::Admin, 201),
    ("DELETE", "/v1/apps/demo/keys/ak_test_01JD7Q2Z4M8V6T3K5N9R0WXYEC", "", Scope::Admin, 404),
    ("DELETE", "/v1/devices/dev-1", "", Scope::Devices, 204),
];

/// A message and a group of the sandbox's app, put into the paths.
async fn filled(sandbox: &Sandbox) -> impl Fn(&str) -> String {
    sandbox.add_devices(1).await;
    let message = sandbox.post("/v1/messages", SEND).await.text("id").to_owned();
    let group = sandbox.post("/v1/groups", r#"{"name":"first"}"#).await.text("id").to_owned();
    move |path: &str| path.replace("{message}", &message).replace("{group}", &group)
}

#[tokio::test]
async fn each_route_takes_its_scope_and_no_other() {
    let sandbox = Sandbox::start().await;
    let fill = filled(&sandbox).await;
    let scopes: Vec<_> = Scope::PRODUCT.into_iter().chain([Scope::Admin]).collect();
    let mut keys = Vec::new();
    for scope in &scopes {
        keys.push((*scope, sandbox.add_key("demo", Env::Test, &[*scope]).await));
    }
    for (method, path, body, needed, _) in ROUTES {
        for (scope, key) in keys.iter().filter(|(scope, _)| *scope != needed) {
            let answer = sandbox.ask(method, &fill(path), key, &[], body).await;
            if path == "/v1/messages/batch" {
                assert_eq!(answer.status, 403, "{scope:?}");
                assert_eq!(answer.body["results"][0]["problem"]["code"], "forbidden");
            } else {
                answer.assert_problem(403, "forbidden");
                assert!(answer.text("detail").contains(needed.as_str()), "{method} {path} {scope:?}: {answer:?}");
            }
        }
    }
    assert_eq!(sandbox.queued().await.len(), 1, "a refused send was published");
    for (method, path, body, needed, status) in ROUTES {
        let (_, key) = keys.iter().find(|(scope, _)| *scope == needed).unwrap();
        let answer = sandbox.ask(method, &fill(path), key, &[], body).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path}: {answer:?}");
    }
}

#[tokio::test]
async fn high_priority_to_everybody_takes_a_scope_of_its_own() {
    let sandbox = Sandbox::start().await;
    let key = sandbox.add_key("demo", Env::Test, &[Scope::SendBroadcast]).await;
    let body = r#"{"to":"all","payload":1,"priority":"high"}"#;
    sandbox.ask("POST", "/v1/messages", &key, &[], body).await.assert_problem(403, "forbidden");
    let key = sandbox.add_key("demo", Env::Test, &[Scope::SendBroadcast, Scope::SendHigh]).await;
    assert_eq!(sandbox.ask("POST", "/v1/messages", &key, &[], body).await.status, 202);
}

#[tokio::test]
async fn ids_of_another_app_and_of_the_other_environment_do_not_exist() {
    let sandbox = Sandbox::start().await;
    let fill = filled(&sandbox).await;
    let strangers = [sandbox.add_app("other").await, sandbox.add_key("demo", Env::Live, &Scope::PRODUCT).await];
    for key in &strangers {
        for (method, path, body, scope, _) in ROUTES {
            let names_ours = path.contains('{') || (path.contains("dev-1") && method != "PUT");
            if names_ours && scope != Scope::Admin {
                sandbox.ask(method, &fill(path), key, &[], body).await.assert_problem(404, "not_found");
            }
        }
        let answer = sandbox.ask("POST", "/v1/messages", key, &[], SEND).await;
        assert_eq!(answer.body["warnings"][0]["code"], "unknown_recipients", "{answer:?}");
        for path in ["/v1/messages?limit=1", "/v1/devices", "/v1/groups", "/v1/uplink"] {
            let answer = sandbox.ask("GET", path, key, &[], "").await;
            let ours = answer.body["data"].as_array().unwrap().iter().any(|thing| {
                [fill("{message}"), fill("{group}"), "dev-1".into()].contains(&thing["id"].as_str().unwrap().into())
            });
            assert!(!ours, "{path}: {answer:?}");
        }
    }
    assert_eq!(sandbox.queued().await.len(), 1, "a stranger's send reached our device");
    let answer = sandbox.ask("PUT", "/v1/devices/dev-1", &strangers[1], &[], "{}").await;
    answer.assert_problem(409, "environment_conflict");
}

#[tokio::test]
async fn every_bad_key_gets_the_same_answer() {
    let sandbox = Sandbox::start().await;
    let good = ApiKey::parse(&sandbox.key).unwrap();
    let wrong_secret = ApiKey { secret: sign::secret([7; 32]), ..good.clone() }.token();
    let unknown_id = sandbox.key.replace(&good.id.to_string(), "ak_test_01JD7Q2Z4M8V6T3K5N9R0WXYEC");
    let expired = ApiKey { id: model::KeyId::new(Env::Test, SystemClock.now(), 9), secret: sign::secret([9; 32]) };
    let key = Key {
        id: expired.id,
        app: sandbox.app.clone(),
        digest: sign::digest(&expired.secret),
        scopes: Scope::PRODUCT.to_vec(),
        created_at: SystemClock.now(),
        expires_at: Some(SystemClock.now()),
    };
    sandbox.store.put_key(key).await.unwrap();
    let truncated = &sandbox.key[..sandbox.key.len() - 1];
    for token in [wrong_secret.as_str(), &unknown_id, &expired.token(), truncated, "nonsense", ""] {
        let answer = sandbox.ask("GET", "/v1/messages", token, &[], "").await;
        answer.assert_problem(401, "unauthenticated");
        assert_eq!(answer.text("detail"), sandbox.ask("GET", "/v1/messages", "", &[], "").await.text("detail"));
        assert!(answer.header("www-authenticate").starts_with("Bearer"));
    }
}

#[tokio::test]
async fn a_key_can_be_shown_as_user_and_password() {
    let sandbox = Sandbox::start().await;
    let ApiKey { id, secret } = ApiKey::parse(&sandbox.key).unwrap();
    let basic = |pair: String| format!("Basic {}", STANDARD.encode(pair));
    let good = basic(format!("{id}:{secret}"));
    assert_eq!(sandbox.ask("GET", "/v1/messages", "", &[("authorization", &good)], "").await.status, 200);
    for bad in [basic(format!("{id}:wrong")), basic("x".into()), "Basic !".into(), "Digest x".into()] {
        let answer = sandbox.ask("GET", "/v1/messages", "", &[("authorization", &bad)], "").await;
        answer.assert_problem(401, "unauthenticated");
    }
}

#[tokio::test]
async fn fields_that_belong_to_the_platform_cannot_be_assigned() {
    let sandbox = Sandbox::start().await;
    for (path, body) in [
        ("/v1/devices/dev-1", json!({"env": "live"})),
        ("/v1/devices/dev-1", json!({"generation": 7})),
        ("/v1/devices/dev-1", json!({"ordinal": 0})),
        ("/v1/devices/dev-1", json!({"app": "other"})),
    ] {
        let answer = sandbox.put(path, &body.to_string()).await;
        answer.assert_problem(422, "invalid_request");
        assert_eq!(answer.faults()[0].1, "unknown_field");
    }
}

#[tokio::test]
async fn an_admin_makes_apps_and_keys_and_a_removed_key_is_refused_at_once() {
    let sandbox = Sandbox::start().await;
    let admin = sandbox.add_key("demo", Env::Live, &[Scope::Admin]).await;
    let body = r#"{"id":"shop","limits":{"recipients_per_s":10,"recipients_burst":20}}"#;
    let app = sandbox.ask("POST", "/v1/apps", &admin, &[], body).await;
    assert_eq!((app.status.as_u16(), &app.body["limits"]["recipients_burst"]), (201, &json!(20)));
    assert!(app.text("device_secret").len() >= sign::DEVICE_SECRET_MIN_CHARS);
    sandbox.ask("POST", "/v1/apps", &admin, &[], body).await.assert_problem(409, "already_exists");
    let body = r#"{"env":"test","scopes":["devices:write"]}"#;
    let key = sandbox.ask("POST", "/v1/apps/shop/keys", &admin, &[], body).await;
    assert_eq!((key.status.as_u16(), &key.body["scopes"]), (201, &json!(["devices:write"])));
    let token = key.text("key").to_owned();
    assert_eq!(sandbox.ask("PUT", "/v1/devices/d", &token, &[], "{}").await.status, 201);
    let path = format!("/v1/apps/shop/keys/{}", key.text("id"));
    sandbox.ask("DELETE", &path.replace("shop", "demo"), &admin, &[], "").await.assert_problem(404, "not_found");
    assert_eq!(sandbox.ask("DELETE", &path, &admin, &[], "").await.status, 204);
    sandbox.ask("GET", "/v1/devices/d", &token, &[], "").await.assert_problem(401, "unauthenticated");
    sandbox.ask("POST", "/v1/apps/none/keys", &admin, &[], "{}").await.assert_problem(404, "not_found");
    let body = r#"{"scopes":["everything"]}"#;
    sandbox.ask("POST", "/v1/apps/shop/keys", &admin, &[], body).await.assert_problem(422, "invalid_request");
}
