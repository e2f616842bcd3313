//! Messages that can wait for their device to be awake, and how their senders see that: on both pairs of back ends.

use std::time::{Duration, Instant};

use lab::Api;
use model::{MessageId, Stage};
use mqtt::Version;
use serde_json::json;
use tokio::time::sleep;

use crate::{
    sandbox::{On, Sandbox},
    terminal::Terminal,
};

/// How long a device is awake after it was heard, and a little more.
const AWAKE: Duration = Duration::from_millis(3_200);

/// What happened is known by then.
const PATIENCE: Duration = Duration::from_secs(30);

async fn comes_to(api: &Api, id: MessageId, device: &str, wanted: Stage) {
    let (device, started) = (device.parse().unwrap(), Instant::now());
    loop {
        let stage = api.stage(id, &device).await;
        if stage.as_ref().is_ok_and(|stage| *stage == wanted) {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{device} is {stage:?}, not {wanted:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn a_message_is_held_for_a_dozing_device_until_it_pings(back_ends: On) {
    let Some(sandbox) = Sandbox::on(back_ends) else { return };
    let server = sandbox.start().await;
    let api = sandbox.api();
    let mut dozes = Terminal::open(&sandbox, &api, "dozes", Version::V5).await;
    drop(Terminal::open(&sandbox, &api, "away", Version::V5).await);
    sleep(AWAKE).await;
    for to in [json!("all"), json!({"devices": ["dozes", "away"]})] {
        let message = json!({"to": to, "payload": 1, "delivery": "on_wake", "max_delay_s": 600});
        let id: MessageId = api.post("/v1/messages", &message).await.unwrap()["id"].as_str().unwrap().parse().unwrap();
        comes_to(&api, id, "dozes", Stage::HeldOnWake).await;
        comes_to(&api, id, "away", Stage::Queued).await;
        dozes.hears_nothing().await;
        assert_eq!(dozes.take_pinging().await.property("id"), Some(id.to_string().as_str()));
        comes_to(&api, id, "dozes", Stage::Acked).await;
        sleep(AWAKE).await;
    }
    server.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_held_for_a_dozing_device_on_the_embedded_back_ends() {
    a_message_is_held_for_a_dozing_device_until_it_pings(On::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_held_for_a_dozing_device_on_rabbitmq_and_redis() {
    a_message_is_held_for_a_dozing_device_until_it_pings(On::Servers).await;
}
