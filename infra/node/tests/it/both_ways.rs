//! Commands and what comes of them, requests and answers, and news from device to device: through the whole platform,
//! on both pairs of back ends.

use std::time::{Duration, Instant};

use lab::{Api, Error};
use mqtt::{Reason, Version, packet::Publish};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    sandbox::{On, Sandbox},
    terminal::Terminal,
};

/// What was said is known by then.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks until the answer is as wanted.
async fn until(api: &Api, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let started = Instant::now();
    loop {
        let answer = api.get(path).await;
        match answer {
            Ok(answer) if wanted(&answer) => return answer,
            Ok(_) | Err(Error::Unavailable(_)) => {}
            Err(error) => panic!("{error}"),
        }
        assert!(started.elapsed() < PATIENCE, "{path}: {answer:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn send(api: &Api, body: Value) -> String {
    api.post("/v1/messages", &body).await.unwrap()["id"].as_str().unwrap().to_owned()
}

/// A command is carried out once and answered once; one whose deadline has passed never arrives.
async fn commands(sandbox: &Sandbox, api: &Api) {
    let order = |ttl_s: u64, n: u64| json!({"class": "command", "type": "valve", "to": {"devices": ["one"]}, "ttl_s": ttl_s, "payload": n});
    let mut one = Terminal::open(sandbox, api, "one", Version::V5).await;
    let id = send(api, order(60, 1)).await;
    let command = one.take().await;
    assert_eq!((command.property("id"), &command.payload[..]), (Some(id.as_str()), &b"1"[..]));
    let topic = command.response_topic.unwrap();
    for account in [r#"{"status":"succeeded","result":{"open":true}}"#, r#"{"status":"failed"}"#] {
        assert_eq!(one.publish(Publish::new(topic.clone(), account)).await, Reason::SUCCESS);
    }
    let known = until(api, &format!("/v1/messages/{id}/result?wait_s=5"), |known| known["result"].is_object()).await;
    assert_eq!((&known["state"], &known["result"]), (&json!("succeeded"), &json!({"open": true})));
    drop(one);

    let late = send(api, order(1, 2)).await;
    until(api, &format!("/v1/messages/{late}/result?wait_s=5"), |known| known["state"] == "timed_out").await;
    let mut one = Terminal::open(sandbox, api, "one", Version::V311).await;
    one.hears_nothing().await;
    let third = send(api, order(60, 3)).await;
    let envelope: Value = serde_json::from_slice(&one.take().await.payload).unwrap();
    assert_eq!((&envelope["id"], &envelope["class"]), (&json!(third), &json!("command")));
    assert_eq!(
        one.publish(Publish::new(format!("push/demo/result/{third}"), r#"{"status":"rejected"}"#)).await,
        Reason::SUCCESS
    );
    until(api, &format!("/v1/messages/{third}/result"), |known| known["state"] == "rejected").await;
    assert_eq!(api.get(&format!("/v1/messages/{id}")).await.unwrap()["command"]["state"], "succeeded");
}

/// What a device asks a product answers, to that device and under its own names.
async fn requests(sandbox: &Sandbox, api: &Api) {
    let mut two = Terminal::open(sandbox, api, "two", Version::V5).await;
    let asked = Publish {
        response_topic: Some("push/demo/res/r-1".to_owned()),
        correlation_data: Some(vec![0, 255]),
        ..Publish::new("push/demo/up/price", r#"{"item":7}"#)
    };
    assert_eq!(two.publish(asked).await, Reason::SUCCESS);
    let page = until(api, "/v1/uplink?type=price", |page| page["data"][0].is_object()).await;
    let uplink = &page["data"][0];
    send(api, json!({"to": {"devices": [uplink["device_id"]]}, "reply": uplink["reply"], "payload": 42})).await;
    let answer = two.take().await;
    assert_eq!((answer.topic.as_str(), &answer.payload[..]), ("push/demo/res/r-1", &b"42"[..]));
    assert_eq!(answer.correlation_data, Some(vec![0, 255]));
}

/// What a device sends again, because it heard no answer, products read once if the device names it.
async fn repeated(sandbox: &Sandbox, api: &Api) {
    let mut five = Terminal::open(sandbox, api, "five", Version::V5).await;
    for (name, n) in [("first", 1), ("first", 1), ("second", 2), ("first", 1), ("third", 3)] {
        let publish = Publish::new("push/demo/up/step", n.to_string());
        let named = Publish { user_properties: vec![("id".to_owned(), name.to_owned())], ..publish };
        assert_eq!(five.publish(named).await, Reason::SUCCESS);
    }
    let is_there = |page: &Value| page["data"].as_array().unwrap().iter().any(|uplink| uplink["payload"] == 3);
    let page = until(api, "/v1/uplink?type=step", is_there).await;
    let payloads: Vec<_> = page["data"].as_array().unwrap().iter().map(|uplink| &uplink["payload"]).collect();
    assert_eq!(payloads, [&json!(1), &json!(2), &json!(3)]);
}

/// Where the app lets them, devices send to each other.
async fn peers(sandbox: &Sandbox, api: &Api) {
    let mut three = Terminal::open(sandbox, api, "three", Version::V5).await;
    let mut four = Terminal::open(sandbox, api, "four", Version::V311).await;
    let hello = || Publish::new("push/demo/peer/four/chat", r#"{"text":"hello"}"#);
    assert_eq!(three.publish(hello()).await, Reason::NOT_AUTHORIZED);
    let granted = api.patch("/v1/apps/demo", &json!({"uplink": {"peers": true}})).await.unwrap();
    assert_eq!(granted["uplink"]["peers"], true);
    let started = Instant::now();
    while three.publish(hello()).await != Reason::SUCCESS {
        assert!(started.elapsed() < PATIENCE, "the access point does not hear of it");
        sleep(Duration::from_millis(50)).await;
    }
    let told: Value = serde_json::from_slice(&four.take().await.payload).unwrap();
    assert_eq!((&told["from"], &told["payload"]), (&json!("three"), &json!({"text": "hello"})));
    let path = format!("/v1/messages/{}", told["id"].as_str().unwrap());
    until(api, &path, |message| message["stats"]["acked"] == 1 && message["class"] == "peer").await;
}

async fn both_ways(back_ends: On) {
    let Some(sandbox) = Sandbox::on(back_ends) else { return };
    let server = sandbox.start().await;
    let api = sandbox.api();
    commands(&sandbox, &api).await;
    requests(&sandbox, &api).await;
    repeated(&sandbox, &api).await;
    peers(&sandbox, &api).await;
    server.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_requests_and_news_of_devices_arrive_once_and_in_time() {
    both_ways(On::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_requests_and_news_of_devices_arrive_once_on_rabbitmq_and_redis() {
    both_ways(On::Servers).await;
}
