//! Quiet hours as products set them, and whom they keep from a message now.

use jiff::{Timestamp, Zoned, tz::TimeZone};
use serde_json::json;

use crate::audiences::sandbox;

/// Two hours around what a clock shows there now.
fn around(zone: &str) -> (String, String) {
    let now: Zoned = Timestamp::now().to_zoned(TimeZone::get(zone).unwrap());
    let hour = |away: i8| format!("{:02}:30", (now.hour() + 24 + away) % 24);
    (hour(-2), hour(1))
}

#[tokio::test]
async fn devices_are_left_in_peace_by_their_own_clock_unless_it_is_urgent() {
    let sandbox = sandbox().await;
    for (number, tz) in [(1, json!("Asia/Shanghai")), (2, json!("America/Lima")), (3, json!(null)), (4, json!("Mars"))]
    {
        sandbox.put(&format!("/v1/devices/dev-{number}"), &json!({ "tz": tz }).to_string()).await;
    }
    let (from, to) = around("Asia/Shanghai");
    let hours = json!({"from": from, "to": to, "tz": "America/Lima"});
    let put = sandbox.put("/v1/quiet-hours", &hours.to_string()).await;
    assert_eq!(put.body, json!({"type": "*", "from": from, "to": to, "tz": "America/Lima"}));
    let estimate = async |kind: &str, priority: &str| {
        let body = json!({"to": {"filter": "has(first_seen)"}, "type": kind, "priority": priority}).to_string();
        let preview = sandbox.post("/v1/audiences/preview", &body).await;
        assert_eq!(preview.status, 200, "{preview:?}");
        (preview.body["count"].clone(), preview.body["excluded_by"].clone())
    };
    assert_eq!(estimate("promo", "normal").await, (json!(3), json!({"quiet_hours": 1})), "as in Shanghai");
    assert_eq!(estimate("promo", "high").await, (json!(4), json!({})), "what is urgent does not wait");
    sandbox.put("/v1/quiet-hours/otp", r#"{"off":true}"#).await;
    assert_eq!(estimate("otp", "normal").await, (json!(4), json!({})), "this type has none");
    let hours = json!({"from": from, "to": to, "tz": "Asia/Shanghai"});
    sandbox.put("/v1/quiet-hours/promo", &hours.to_string()).await;
    let expected = (json!(1), json!({"quiet_hours": 3}));
    assert_eq!(estimate("promo", "normal").await, expected, "those who name no zone are taken to be in Shanghai too");
    let listed = sandbox.get("/v1/quiet-hours").await;
    let types: Vec<_> = listed.body["data"].as_array().unwrap().iter().map(|one| one["type"].clone()).collect();
    assert_eq!(types, ["*", "otp", "promo"]);
    assert_eq!(sandbox.delete("/v1/quiet-hours/promo").await.status, 204);
    assert_eq!(sandbox.delete("/v1/quiet-hours").await.status, 204);
    assert_eq!(estimate("promo", "normal").await.0, json!(4));
    sandbox.delete("/v1/quiet-hours").await.assert_problem(404, "not_found");
}

#[tokio::test]
async fn hours_that_are_none_are_refused_where_they_stand() {
    let sandbox = sandbox().await;
    for (path, body, pointer, code) in [
        ("/v1/quiet-hours", json!({"from": "22:00", "to": "22:00"}), "#/to", "contradiction"),
        ("/v1/quiet-hours", json!({"from": "24:00", "to": "08:00"}), "#/from", "invalid_format"),
        ("/v1/quiet-hours", json!({"from": "22:00", "to": "8"}), "#/to", "invalid_format"),
        ("/v1/quiet-hours", json!({"from": "22:00", "to": "08:00", "tz": "Mars"}), "#/tz", "invalid_format"),
        ("/v1/quiet-hours", json!({"from": "22:00"}), "#", "missing"),
        ("/v1/quiet-hours", json!({"off": true}), "#/off", "contradiction"),
        ("/v1/quiet-hours/otp", json!({"off": false}), "#/off", "contradiction"),
        ("/v1/quiet-hours/otp", json!({"off": true, "from": "22:00"}), "#/from", "unknown_field"),
    ] {
        let refused = sandbox.put(path, &body.to_string()).await;
        assert_eq!(refused.faults(), [(pointer.to_owned(), code.to_owned())], "{body}");
    }
}
