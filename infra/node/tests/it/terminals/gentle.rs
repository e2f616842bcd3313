//! The terminal SDKs where they are gentle to batteries and networks: told instead of pushed, packed, several apps on one link.

use std::time::Duration;

use lab::{Api, Audience, api::Profile, metrics};
use model::{DeviceId, Stage};
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::{Device, LINE_PATIENCE, Sdk, send, uplinks};
use crate::{
    clients::{acked, tools},
    sandbox::Sandbox,
};

/// It is told, fetches page by page, and unpacks them; what it has it is not told of again.
async fn fetches_what_it_is_told_of(sdk: Sdk) {
    let Some(tools) = tools() else { return };
    let sandbox = Sandbox::new();
    let server = sandbox.start().await;
    let (api, platform) = (sandbox.api(), format!("mqtt://{}", sandbox.mqtt));
    let id: DeviceId = "dev-1".parse().unwrap();
    api.register(&id, &Profile::default()).await.unwrap();
    let token = api.token(&id, 600).await.unwrap().token;
    let memory = sandbox.dir.path().join("device");
    let start = || {
        let mut command = sdk.example(&tools, &platform, &token, &memory);
        command.arg("notify");
        Device::run(command)
    };
    // More than fit on one page.
    let mut names: Vec<_> = (0..70).map(|n| n.to_string()).collect();
    let mut sent = Vec::new();
    for name in &names {
        sent.push(send(&api, name, Audience::device(&id)).await);
    }
    let mut device = start();
    device.until(|device| device.names.len() == names.len()).await;
    sent.push(send(&api, "all", Audience::All).await);
    names.push("all".to_owned());
    device.until(|device| device.names.len() == names.len()).await;
    acked(&sandbox, &sent, &id).await;
    assert_eq!(device.end().await, names);
    let pages = metrics::sum(&[sandbox.metrics], "fanfare_pages_total", "").await.unwrap();
    assert!((3.0..6.0).contains(&pages), "{pages} pages");

    send(&api, "late", Audience::device(&id)).await;
    let mut device = start();
    device.until(|device| device.names.len() == 1).await;
    assert_eq!(device.end().await, ["late"]);
    server.kill().await.unwrap();
}

/// A body that is worth it comes packed, and is whole in the application.
async fn unpacks_what_comes_packed(sdk: Sdk) {
    let Some(tools) = tools() else { return };
    let sandbox = Sandbox::new();
    let server = sandbox.start().await;
    let (api, platform) = (sandbox.api(), format!("mqtt://{}", sandbox.mqtt));
    let id: DeviceId = "dev-1".parse().unwrap();
    api.register(&id, &Profile::default()).await.unwrap();
    let token = api.token(&id, 600).await.unwrap().token;
    let mut device = sdk.start(&tools, &platform, &token, &sandbox.dir.path().join("device"));
    let long = "again ".repeat(300);
    let message = json!({"to": "all", "payload": {"msg": long}});
    api.post("/v1/messages", &message).await.unwrap();
    device.until(|device| device.names.len() == 1).await;
    assert_eq!(device.end().await, [long]);
    assert!(metrics::sum(&[sandbox.metrics], "fanfare_pack_packed_bytes_total", "").await.unwrap() > 0.0);
    server.kill().await.unwrap();
}

/// Each app has its own messages, position and uplinks on one link; one whose token is no good does not disturb the other.
async fn shares_its_link(sdk: Sdk) {
    let Some(tools) = tools() else { return };
    let sandbox = Sandbox::new();
    let (other_key, third_key) = (sandbox.create_app("other"), sandbox.create_app("third"));
    let server = sandbox.start().await;
    let platform = format!("http://{}", sandbox.http);
    let (api, other) = (sandbox.api(), Api::new(&platform, &other_key));
    let id: DeviceId = "dev-1".parse().unwrap();
    let mut tokens = Vec::new();
    for of in [&api, &other, &Api::new(&platform, &third_key)] {
        of.register(&id, &Profile::default()).await.unwrap();
        tokens.push(of.token(&id, 600).await.unwrap().token);
    }
    let memory = sandbox.dir.path().join("device");
    let start = || {
        let mut command = sdk.example(&tools, &platform, &tokens[0], &memory);
        command.arg(format!("other={}", tokens[1])).arg(format!("third={}", tokens[1]));
        Device::run(command)
    };
    let mut device = start();
    let is_bound = |device: &Device, app: &str, state: &str| {
        device.events.iter().any(|line| line["app"] == app && line["event"] == "bound" && line["state"] == state)
    };
    device.until(|device| is_bound(device, "other", "online") && is_bound(device, "third", "stopped")).await;
    send(&api, "1", Audience::device(&id)).await;
    device.until(|device| device.names.len() == 1).await;
    send(&other, "2", Audience::All).await;
    device.until(|device| device.names.len() == 2).await;
    device.send(r#"other:gps {"n":1}"#).await;
    device.until(|device| device.told("taken") == 1).await;
    uplinks(&other, "/v1/uplink", &[json!({"n": 1})]).await;

    server.kill().await.unwrap();
    device.until(|device| is_bound(device, "other", "waiting")).await;
    device.events.clear();
    let server = sandbox.start().await;
    device.until(|device| is_bound(device, "other", "online")).await;
    send(&other, "3", Audience::device(&id)).await;
    device.until(|device| device.names.len() == 3).await;
    assert_eq!(device.end().await, ["1", "other 2", "other 3"]);

    let last = send(&other, "4", Audience::device(&id)).await;
    let mut device = start();
    device.until(|device| device.names.len() == 1).await;
    let shows = async {
        while other.stage(last, &id).await.unwrap() != Stage::Acked {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LINE_PATIENCE, shows).await.expect("the ack does not show in the receipts");
    assert_eq!(device.end().await, ["other 4"]);
    server.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_js_sdk_fetches_what_it_is_told_of() {
    fetches_what_it_is_told_of(Sdk::Js).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_sdk_fetches_what_it_is_told_of() {
    fetches_what_it_is_told_of(Sdk::Python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_js_sdk_unpacks_what_comes_packed() {
    unpacks_what_comes_packed(Sdk::Js).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_sdk_unpacks_what_comes_packed() {
    unpacks_what_comes_packed(Sdk::Python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_js_sdk_shares_its_link_with_other_apps() {
    shares_its_link(Sdk::Js).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_sdk_shares_its_link_with_other_apps() {
    shares_its_link(Sdk::Python).await;
}
