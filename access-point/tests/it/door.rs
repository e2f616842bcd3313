//! Who comes in, and what the others are told.

use std::time::Duration;

use access_point::{Config, KeepAlive};
use model::{Env, sign::DeviceToken};
use mqtt::{Reason, Version, packet::Connect};

use crate::{
    bench::{Bench, SECRET, config},
    client::{Client, connect},
};

async fn answer(bench: &Bench, connect: Connect) -> Reason {
    let mut client = Client::dial(bench.address, connect).await;
    let reason = client.connack().await.reason;
    if reason.is_error() {
        assert_eq!(client.next().await, None, "a refusal closes the link");
    }
    reason
}

fn with_token(bench: &Bench, token: &DeviceToken, secret: &str) -> Connect {
    Connect { password: Some(token.sign(secret).into_bytes()), ..connect(bench, "dev", Version::V5) }
}

#[tokio::test]
async fn forged_expired_and_foreign_tokens_are_refused_in_both_versions() {
    let bench = Bench::start(config()).await;
    let good = bench.claims("dev");
    let forged = with_token(&bench, &good, "another-secret-another-secret-another");
    let expired = with_token(&bench, &DeviceToken { exp: 1, ..good.clone() }, SECRET);
    let of_another = with_token(&bench, &bench.claims("dev-2"), SECRET);
    let of_another_app = with_token(&bench, &DeviceToken { app: "other".parse().unwrap(), ..good.clone() }, SECRET);
    let none = Connect { password: None, ..connect(&bench, "dev", Version::V5) };
    for bad in [forged, expired, of_another, of_another_app, none] {
        assert_eq!(answer(&bench, bad.clone()).await, Reason::NOT_AUTHORIZED);
        assert_eq!(answer(&bench, Connect { version: Version::V311, ..bad }).await, Reason::NOT_AUTHORIZED);
    }
    assert_eq!(answer(&bench, with_token(&bench, &good, SECRET)).await, Reason::SUCCESS);
}

#[tokio::test]
async fn what_is_wrong_with_a_login_is_told() {
    let bench = Bench::start(config()).await;
    let good = connect(&bench, "dev", Version::V5);
    assert_eq!(answer(&bench, Connect { client_id: "a/b".into(), ..good.clone() }).await, Reason::BAD_CLIENT_ID);
    for username in [None, Some("demo?after=here"), Some("nobody"), Some("")] {
        let username = username.filter(|name| !name.is_empty()).map(Into::into);
        assert_eq!(answer(&bench, Connect { username, ..good.clone() }).await, Reason::BAD_CREDENTIALS);
    }
    let scram = Connect { auth_method: Some("SCRAM".into()), ..good };
    assert_eq!(answer(&bench, scram).await, Reason::BAD_AUTH_METHOD);
}

#[tokio::test]
async fn an_unknown_device_with_a_good_token_is_registered_unless_that_is_off() {
    let bench = Bench::start(config()).await;
    assert_eq!(answer(&bench, connect(&bench, "fresh", Version::V5)).await, Reason::SUCCESS);
    let device = bench.store.devices(&bench.app, &["fresh".parse().unwrap()]).await.unwrap()[0].clone().unwrap();
    assert_eq!(device.env, Env::Live);
    let wrong = DeviceToken { env: Some(Env::Test), ..bench.claims("fresh") };
    let wrong = Connect { client_id: "fresh".into(), ..with_token(&bench, &wrong, SECRET) };
    assert_eq!(answer(&bench, wrong).await, Reason::NOT_AUTHORIZED);
    let closed = Bench::start(Config { auto_register: false, ..config() }).await;
    assert_eq!(answer(&closed, connect(&closed, "fresh", Version::V5)).await, Reason::NOT_AUTHORIZED);
}

#[tokio::test]
async fn connack_tells_limits_and_places() {
    let bench = Bench::start(config()).await;
    let asks = Connect { keep_alive_s: 0, session_expiry_s: Some(600), ..connect(&bench, "dev", Version::V5) };
    let ack = Client::dial(bench.address, asks).await.connack().await;
    assert_eq!((ack.receive_maximum, ack.server_keep_alive_s, ack.session_expiry_s), (Some(32), Some(300), Some(0)));
    assert!(!ack.session_present);
    let names: Vec<&str> = ack.user_properties.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["node", "latest", "server_time"]);
}

#[tokio::test]
async fn a_token_that_ends_ends_its_session() {
    let bench = Bench::start(config()).await;
    let exp = bench.now().as_millis() / 1_000 + 2;
    let brief = with_token(&bench, &DeviceToken { exp, ..bench.claims("dev") }, SECRET);
    let mut client = Client::open_with(bench.address, brief).await;
    assert_eq!(client.dismissed().await, Some(Reason::TOKEN_ENDED));
}

#[tokio::test]
async fn a_silent_device_is_dropped_after_one_and_a_half_keep_alives() {
    let keep_alive = KeepAlive { default_s: 1, min_s: 1, max_s: 1 };
    let bench = Bench::start(Config { keep_alive, ..config() }).await;
    let mut client = Client::open(&bench, "dev").await;
    let opened = std::time::Instant::now();
    assert_eq!(client.dismissed().await, Some(Reason::KEEP_ALIVE_TIMEOUT));
    assert!((1_400..4_000).contains(&opened.elapsed().as_millis()));
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_come_in_when_there_is_room() {
    let bench = Bench::start(Config { connections_max: 2, ..config() }).await;
    let one = Client::open(&bench, "one").await;
    let _two = Client::open(&bench, "two").await;
    assert_eq!(Client::silent(bench.address).await.next().await, None);
    drop(one);
    crate::bench::eventually(Duration::from_secs(5), async || {
        bench.metric("fanfare_disconnects_total{reason=\"lost\"}") > 0.0
    })
    .await;
    crate::bench::eventually(Duration::from_secs(5), async || {
        let mut three = Client::dial(bench.address, connect(&bench, "three", Version::V5)).await;
        three.next().await.is_some()
    })
    .await;
}
