//! Devices by the million in one upload.

use std::{
    sync::{Arc, Once},
    thread,
    time::{Duration, Instant},
};

use lab::{Api, Error, import};
use serde_json::{Value, json};
use store::contract::private::Private;

use crate::sandbox::{On, Sandbox};

/// How long an index of a million devices may take to be made: by a debug build on a busy machine.
const INDEX_PATIENCE: Duration = Duration::from_secs(120);
/// Between two questions.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// How long a store is silent: longer than a call of it may take.
const SILENCE: Duration = Duration::from_secs(4);

async fn all_are_there(back_ends: On, devices: u64) {
    let Some(sandbox) = Sandbox::on(back_ends) else { return };
    let server = sandbox.start().await;
    let api = sandbox.api();
    let imported = import(&api, devices, row, &|_| ()).await.unwrap();
    println!("{imported}");
    assert_eq!(imported.devices, devices);
    assert!(back_ends == On::Servers || imported.again == 0, "the embedded store answers always: {imported:?}");
    assert!(imported.told > 1, "its job told nothing meanwhile: {imported}");
    let preview = preview(&api, "attr.level < 10").await;
    assert_eq!(preview["count"], devices / 10, "{preview}");
    server.kill().await.unwrap();
}

/// The `n`-th device.
fn row(n: u64) -> String {
    json!({ "device_id": format!("dev-{n}"), "attributes": { "level": n % 100 } }).to_string()
}

/// Asks until there is an answer.
async fn preview(api: &Api, filter: &str) -> Value {
    let deadline = Instant::now() + INDEX_PATIENCE;
    loop {
        match api.post("/v1/audiences/preview", &json!({ "to": { "filter": filter } })).await {
            Err(Error::Unavailable(_)) if Instant::now() < deadline => tokio::time::sleep(ASK_EVERY).await,
            answered => return answered.unwrap(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes all the disk there is; infra/test runs it last, by itself"]
async fn an_import_of_a_million_devices_tells_how_far_it_is_and_leaves_out_none() {
    all_are_there(On::Embedded, 1_000_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_tells_how_far_it_is_and_leaves_out_none_on_rabbitmq_and_redis() {
    all_are_there(On::Servers, 50_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_outlasts_a_store_that_says_nothing_for_a_while() {
    let durable = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/redis/durable.conf");
    let Some(redis) = Private::start(&["--include", durable]).map(Arc::new) else { return };
    let Some(sandbox) = Sandbox::on_redis(redis.url()) else { return };
    let server = sandbox.start().await;
    let (api, devices, once) = (sandbox.api(), 20_000, Once::new());
    let silence = |_| {
        once.call_once(|| {
            redis.freeze();
            let redis = redis.clone();
            thread::spawn(move || {
                thread::sleep(SILENCE);
                redis.thaw();
            });
        });
    };
    let imported = import(&api, devices, row, &silence).await.unwrap();
    println!("{imported}");
    assert!(once.is_completed() && imported.took > SILENCE, "it was over before: {imported}");
    let last = api.device(&format!("dev-{}", devices - 1).parse().unwrap()).await.unwrap();
    assert_eq!(last["attributes"]["level"], (devices - 1) % 100, "{last}");
    server.kill().await.unwrap();
}
