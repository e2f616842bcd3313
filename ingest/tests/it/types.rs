//! Attributes that are times and versions: declared, written, asked about, refused.

use serde_json::{Value, json};

use crate::{audiences::sandbox, sandbox::Sandbox};

async fn count(sandbox: &Sandbox, filter: impl Into<Value>) -> u64 {
    let to = json!({ "to": { "filter": filter.into() } }).to_string();
    let preview = sandbox.post("/v1/audiences/preview", &to).await;
    assert_eq!(preview.status, 200, "{preview:?}");
    preview.body["count"].as_u64().unwrap()
}

#[tokio::test]
async fn times_and_versions_are_declared_written_and_compared() {
    let sandbox = sandbox().await;
    for (name, kind) in [("firmware", "version"), ("renewed", "time")] {
        let declared =
            sandbox.put(&format!("/v1/attributes/{name}"), &json!({ "type": kind, "owner": null }).to_string()).await;
        assert_eq!((declared.status.as_u16(), declared.text("type")), (200, kind));
    }
    for (number, firmware, renewed) in [
        (1, "2.9.9", "2001-01-01"),
        (2, "2.10.0-rc.1", "2999-01-01T00:00:00Z"),
        (3, "2.10", "2999-06-01T00:00:00+08:00"),
    ] {
        let attributes = json!({ "firmware": firmware, "renewed": renewed });
        let put =
            sandbox.put(&format!("/v1/devices/dev-{number}"), &json!({ "attributes": attributes }).to_string()).await;
        assert_eq!((put.status.as_u16(), &put.body["attributes"]), (201, &attributes), "read back as it was written");
        assert_eq!(sandbox.get(&format!("/v1/devices/dev-{number}")).await.body["attributes"], attributes);
    }
    assert_eq!(count(&sandbox, r#"attr.firmware >= "2.10""#).await, 1);
    assert_eq!(count(&sandbox, r#"attr.firmware > "2.9.9" && attr.renewed > -7d"#).await, 2);
    assert_eq!(count(&sandbox, r#"between(attr.firmware, "2.9", "2.10.0-rc.9")"#).await, 2);
    let tree = |field: &str, op: &str, value: &str| json!({ "field": field, "op": op, "value": value });
    assert_eq!(count(&sandbox, tree("attr.renewed", "lt", "-7d")).await, 1);
    assert_eq!(count(&sandbox, tree("attr.renewed", "gte", "2999-01-02")).await, 1);
    let saved = json!({ "name": "new", "kind": "filter", "filter": r#"attr.firmware < "2.10" && attr.renewed < -7d"# });
    let saved = sandbox.post("/v1/audiences", &saved.to_string()).await;
    assert_eq!(saved.text("filter_text"), r#"attr.firmware < "2.10" && attr.renewed < -7d"#);
    let leaves = [tree("attr.firmware", "lt", "2.10"), tree("attr.renewed", "lt", "-7d")];
    assert_eq!(saved.body["filter_json"], json!({ "all": leaves }));
}

#[tokio::test]
async fn what_is_no_time_or_no_version_is_refused_where_it_stands() {
    let sandbox = sandbox().await;
    sandbox.put("/v1/attributes/firmware", r#"{"type":"version"}"#).await;
    sandbox.put("/v1/devices/dev-1", r#"{"attributes":{"renewed":"2026-11-21T08:30:00Z","firmware":"1.0"}}"#).await;
    assert_eq!(sandbox.get("/v1/attributes/renewed").await.text("type"), "time", "by its first value");
    for attributes in [json!({"firmware": "two"}), json!({"firmware": 2.1}), json!({"renewed": "yesterday"})] {
        let body = json!({ "attributes": attributes }).to_string();
        sandbox.put("/v1/devices/dev-1", &body).await.assert_problem(409, "type_conflict");
        let merge = [("content-type", "application/merge-patch+json")];
        sandbox
            .ask("PATCH", "/v1/devices/dev-1", &sandbox.key, &merge, &body)
            .await
            .assert_problem(409, "type_conflict");
    }
    let forged = sandbox.put("/v1/devices/dev-1", r#"{"attributes":{"firmware":{"version":"1.0"}}}"#).await;
    assert_eq!(forged.faults(), [("#/attributes/firmware".into(), "invalid_type".into())]);
    for (filter, detail) in [
        (json!(r#"attr.firmware > "v2""#), r#"column 17: attr.firmware is a version, as in "2.10.0"; "v2" is not"#),
        (json!("attr.firmware > -7d"), r#"column 17: attr.firmware is a version, as in "2.10.0"; -7d is not"#),
        (
            json!({"field": "attr.renewed", "op": "gt", "value": "soon"}),
            r#"attr.renewed is a time, as in "2026-11-21T08:30:00Z" or -7d; "soon" is not"#,
        ),
    ] {
        let refused = sandbox.post("/v1/audiences/preview", &json!({ "to": { "filter": filter } }).to_string()).await;
        assert_eq!(refused.faults(), [("#/to/filter".into(), "type_mismatch".into())]);
        assert_eq!(refused.body["errors"][0]["detail"], detail);
    }
}
