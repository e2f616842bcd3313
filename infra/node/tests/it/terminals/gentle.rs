//! The terminal SDKs where they are gentle to batteries and networks: told instead of pushed, packed, several apps on one link.

use lab::{Api, Audience, metrics};
use serde_json::json;

use super::{Device, Sdk, enrolled, send, uplinks};
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
    let (id, token) = enrolled(&api).await;
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
    acked(&sandbox, &api, &sent, &id).await;
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
    let (_, token) = enrolled(&api).await;
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
    let (id, own_token) = enrolled(&api).await;
    let (_, other_token) = enrolled(&other).await;
    enrolled(&Api::new(&platform, &third_key)).await;
    let memory = sandbox.dir.path().join("device");
    let start = || {
        let mut command = sdk.example(&tools, &platform, &own_token, &memory);
        command.arg(format!("other={other_token}")).arg(format!("third={other_token}"));
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
    acked(&sandbox, &other, &[last], &id).await;
    assert_eq!(device.end().await, ["other 4"]);
    server.kill().await.unwrap();
}

both_sdks! {
    fetches_what_it_is_told_of: the_js_sdk_fetches_what_it_is_told_of the_python_sdk_fetches_what_it_is_told_of;
    unpacks_what_comes_packed: the_js_sdk_unpacks_what_comes_packed the_python_sdk_unpacks_what_comes_packed;
    shares_its_link: the_js_sdk_shares_its_link_with_other_apps the_python_sdk_shares_its_link_with_other_apps;
}
