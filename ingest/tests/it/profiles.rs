//! What backends report about devices: patches, tags, attributes, imports.

use serde_json::{Value, json};

use crate::sandbox::{Answer, Sandbox};

async fn patch(sandbox: &Sandbox, device: &str, body: Value) -> Answer {
    let merge = [("content-type", "application/merge-patch+json")];
    sandbox.ask("PATCH", &format!("/v1/devices/{device}"), &sandbox.key, &merge, &body.to_string()).await
}

#[tokio::test]
async fn a_patch_changes_what_it_names() {
    let sandbox = Sandbox::start().await;
    sandbox.put("/v1/devices/dev-1", r#"{"platform":"ios","tags":["a"],"attributes":{"level":3,"city":"x"}}"#).await;
    let patched = patch(&sandbox, "dev-1", json!({"lang": "zh-CN", "attributes": {"level": 4, "city": null}})).await;
    assert_eq!((patched.status.as_u16(), patched.text("platform"), patched.text("lang")), (200, "ios", "zh-CN"));
    assert_eq!((&patched.body["attributes"], &patched.body["tags"]), (&json!({"level": 4}), &json!(["a"])));
    assert_eq!(sandbox.get("/v1/devices/dev-1").await.body, patched.body);
    let wrong = patch(&sandbox, "dev-1", json!({"attributes": {"Level": 4}})).await;
    assert_eq!(wrong.faults(), [("#/attributes/Level".into(), "invalid_format".into())]);
    patch(&sandbox, "nobody", json!({})).await.assert_problem(404, "not_found");
}

#[tokio::test]
async fn tags_are_put_and_taken_one_by_one_and_on_many_devices_at_once() {
    let sandbox = Sandbox::start().await;
    sandbox.add_devices(3).await;
    let tags = async |number: u32| sandbox.get(&format!("/v1/devices/dev-{number}")).await.body["tags"].clone();
    assert_eq!(sandbox.put("/v1/devices/dev-1/tags/vip", "").await.status, 204);
    assert_eq!(sandbox.put("/v1/devices/dev-1/tags/beta", "").await.status, 204);
    assert_eq!(sandbox.delete("/v1/devices/dev-1/tags/beta").await.status, 204);
    assert_eq!(tags(1).await, json!(["vip"]));
    let body = r#"{"add":["dev-2","dev-3","nobody"],"remove":["dev-1"]}"#;
    let changed = sandbox.post("/v1/tags/vip/devices", body).await;
    assert_eq!((&changed.body["changed"], &changed.body["warnings"][0]["sample"]), (&json!(3), &json!(["nobody"])));
    assert_eq!((tags(1).await, tags(2).await, tags(3).await), (json!([]), json!(["vip"]), json!(["vip"])));
    sandbox.put(&format!("/v1/devices/dev-1/tags/{}", "x".repeat(65)), "").await.assert_problem(422, "invalid_request");
}

#[tokio::test]
async fn an_attribute_has_one_type_and_one_owner() {
    let sandbox = Sandbox::start().await;
    sandbox.put("/v1/devices/dev-1", r#"{"attributes":{"level":3}}"#).await;
    let level = sandbox.get("/v1/attributes/level").await;
    assert_eq!(level.body, json!({"name": "level", "type": "number", "owner": null, "declared": false}));
    let conflict = sandbox.put("/v1/devices/dev-2", r#"{"attributes":{"level":"high"}}"#).await;
    conflict.assert_problem(409, "type_conflict");
    assert_eq!(conflict.text("detail"), "attr.level is a number, not a string: the type of an attribute stays");
    patch(&sandbox, "dev-1", json!({"attributes": {"level": true}})).await.assert_problem(409, "type_conflict");
    sandbox.put("/v1/attributes/level", r#"{"type":"string"}"#).await.assert_problem(409, "type_conflict");
    let declared = sandbox.put("/v1/attributes/steps", r#"{"type":"number","owner":"device"}"#).await;
    assert_eq!(declared.body, json!({"name": "steps", "type": "number", "owner": "device", "declared": true}));
    let refused = sandbox.put("/v1/devices/dev-1", r#"{"attributes":{"steps":3}}"#).await;
    refused.assert_problem(422, "invalid_request");
    assert_eq!(refused.faults(), [("#/attributes/steps".into(), "owner_conflict".into())]);
    assert_eq!(sandbox.get("/v1/attributes").await.body["data"].as_array().unwrap().len(), 2);
    sandbox.get("/v1/attributes/nothing").await.assert_problem(404, "not_found");
    sandbox.put("/v1/attributes/Level", r#"{"type":"number"}"#).await.assert_problem(422, "invalid_request");
    sandbox.put("/v1/attributes/x", "{}").await.assert_problem(422, "invalid_request");
}

#[tokio::test]
async fn an_import_registers_row_by_row_and_says_which_rows_are_wrong() {
    let sandbox = Sandbox::start().await;
    sandbox.add_devices(1).await;
    let mut rows: Vec<String> = (1..=2_500)
        .map(|n| json!({"device_id": format!("dev-{n}"), "platform": "ios", "attributes": {"level": n}}).to_string())
        .collect();
    rows[7] = "not json".into();
    rows[1_200] = json!({"device_id": "dev-1201", "attributes": {"level": "high"}}).to_string();
    rows[1_300] = json!({"device_id": "a/b"}).to_string();
    rows[1_301] = json!({"device_id": "dev-1302", "platfrom": "ios"}).to_string();
    let nd = [("content-type", "application/x-ndjson")];
    let path = "/v1/devices/import?job=job_01JD7Q2Z4M8V6T3K5N9R0WXYEC";
    let done = sandbox.ask("POST", path, &sandbox.key, &nd, &rows.join("\n")).await;
    assert_eq!((done.status.as_u16(), done.text("state")), (202, "completed"), "{done:?}");
    let count = |name: &str| done.body[name].as_u64().unwrap();
    assert_eq!((count("rows"), count("created"), count("updated"), count("failed")), (2_500, 2_495, 1, 4));
    let faults: Vec<_> =
        done.body["faults"].as_array().unwrap().iter().map(|fault| fault["row"].as_u64().unwrap()).collect();
    assert_eq!(faults, [8, 1_301, 1_302, 1_201]);
    assert_eq!(sandbox.get(done.header("location")).await.body, done.body);
    assert_eq!(sandbox.get("/v1/devices/dev-2500").await.body["attributes"]["level"], 2_500);
    sandbox.get("/v1/devices/dev-1302").await.assert_problem(404, "not_found");
    sandbox.get("/v1/jobs/job_01JD7Q2Z4M8V6T3K5N9R0WXYED").await.assert_problem(404, "not_found");
}

#[tokio::test]
async fn of_many_rows_of_one_device_the_last_that_can_be_taken_counts() {
    let sandbox = Sandbox::start().await;
    sandbox.add_devices(1).await;
    let row = |device: &str, level: Value| json!({"device_id": device, "attributes": {"level": level}}).to_string();
    let mut rows: Vec<_> = (0..=8).flat_map(|n| ["dev-1", "dev-2"].map(|device| row(device, json!(n)))).collect();
    rows.push(row("dev-2", json!("high")));
    let nd = [("content-type", "application/x-ndjson")];
    let done = sandbox.ask("POST", "/v1/devices/import", &sandbox.key, &nd, &rows.join("\n")).await;
    assert_eq!((done.status.as_u16(), done.text("state")), (202, "completed"), "{done:?}");
    let count = |name: &str| done.body[name].as_u64().unwrap();
    assert_eq!((count("rows"), count("created"), count("updated"), count("failed")), (19, 1, 17, 1));
    for device in ["dev-1", "dev-2"] {
        assert_eq!(sandbox.get(&format!("/v1/devices/{device}")).await.body["attributes"]["level"], 8);
    }
}
