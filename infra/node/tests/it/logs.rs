//! What the log says of a message, and what it must not say.

use std::{collections::BTreeSet, time::Duration};

use lab::{
    Api, Audience, Fleet, History, Orders,
    api::{Profile, Send},
    device::{Identity, Line},
};
use model::SystemClock;
use mqtt::Version;
use serde_json::Value;

use crate::sandbox::{On, Sandbox};

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_id_is_in_every_hop_and_no_secret_anywhere() {
    trace(On::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_id_is_in_every_hop_over_rabbitmq_and_redis_and_no_secret_anywhere() {
    trace(On::Servers).await;
}

async fn trace(back_ends: On) {
    let Some(sandbox) = Sandbox::on(back_ends) else { return };
    let _server = sandbox.start().await;
    let api: Api = sandbox.api();
    let device = "dev-1".parse().unwrap();
    api.register(&device, &Profile::default()).await.unwrap();
    let token = api.token(&device, 60).await.unwrap();
    let identity = Identity {
        number: 0,
        id: device.clone(),
        app: token.app,
        token: token.token.clone(),
        version: Version::V5,
        states_after: false,
    };
    let line = Line::to([sandbox.mqtt], 30);
    let fleet = Fleet::new(vec![identity], line, std::sync::Arc::new(History::new(std::sync::Arc::new(SystemClock))));
    fleet.order(0..1, Orders::ONLINE);
    fleet.wait_connected(1, Duration::from_secs(20)).await.unwrap();
    let sent = api.send(&Send::named("hop-secret-payload", Audience::device(&device), 60)).await.unwrap();
    while api.message(sent.id).await.unwrap().stats.acked == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let log = std::fs::read_to_string(sandbox.log()).unwrap();
    let id = sent.id.to_string();
    let mut hops = BTreeSet::new();
    let mut traces = BTreeSet::new();
    for line in log.lines().filter(|line| line.contains(&id)) {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        if let Some(trace) = event["trace.id"].as_str() {
            traces.insert(trace.to_owned());
            hops.insert(event["target"].as_str().unwrap().split("::").next().unwrap().to_owned());
        }
    }
    let all: BTreeSet<String> = ["ingest", "dispatcher", "access_point"].map(String::from).into();
    assert_eq!(hops, all, "{log}");
    assert_eq!(traces.len(), 1, "one message has one trace: {traces:?}");
    let (_, secret) = sandbox.key.rsplit_once('_').unwrap();
    for hidden in [secret, &token.token, "hop-secret-payload"] {
        assert!(!log.contains(hidden), "{hidden} is in the log");
    }
}
