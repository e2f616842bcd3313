//! Who is connected, as expressions ask for it: from the first session to a process that was killed.

use std::time::{Duration, Instant};

use lab::{
    Api, Error,
    api::{Profile, Token},
    device::{Identity, reporter::Reporter},
};
use mqtt::Version;
use serde_json::json;

use crate::sandbox::{On, Sandbox};

/// What is seen of devices is in answers by then, also when a lease must end first.
const PATIENCE: Duration = Duration::from_secs(40);

/// Waits until so many devices satisfy the filter.
async fn satisfied(api: &Api, filter: &str, by: u64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = match api.post("/v1/audiences/preview", &json!({ "to": { "filter": filter } })).await {
            Ok(preview) if preview["count"] == by => return,
            Ok(preview) => preview["count"].clone(),
            Err(Error::Unavailable(_)) => json!(null),
            Err(error) => panic!("{filter}: {error}"),
        };
        assert!(Instant::now() < deadline, "{filter}: {found} instead of {by}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn identity(api: &Api, name: &str) -> Identity {
    let id = name.parse().unwrap();
    api.register(&id, &Profile::default()).await.unwrap();
    let Token { token, app } = api.token(&id, 3_600).await.unwrap();
    Identity { number: 0, id, app, token, version: Version::V5, states_after: false }
}

async fn presence(back_ends: On) {
    let Some(sandbox) = Sandbox::on(back_ends) else { return };
    let server = sandbox.start().await;
    let api = sandbox.api();
    let (one, two) = (identity(&api, "one").await, identity(&api, "two").await);
    satisfied(&api, "online == false && missing(last_seen)", 2).await;
    let first = Reporter::connect(&one, sandbox.mqtt).await.unwrap();
    let _second = Reporter::connect(&two, sandbox.mqtt).await.unwrap();
    satisfied(&api, r#"online == true && transport == "tcp" && ip_prefix == "127.0.0.0/24""#, 2).await;
    satisfied(&api, "last_seen > -1s", 2).await;
    drop(first);
    satisfied(&api, "online == false && last_seen > -1h", 1).await;
    server.kill().await.unwrap();
    let server = sandbox.start().await;
    satisfied(&api, "online == true", 0).await;
    satisfied(&api, "last_seen > -1h", 2).await;
    let _again = Reporter::connect(&two, sandbox.mqtt).await.unwrap();
    satisfied(&api, "online == true", 1).await;
    server.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_connected_is_online_until_he_goes_or_his_access_point_does() {
    presence(On::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_connected_is_online_until_he_goes_on_rabbitmq_and_redis() {
    presence(On::Servers).await;
}
