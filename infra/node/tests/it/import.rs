//! Devices by the ten thousand in one upload. `fanfare bench import` is the same with a million.

use lab::import;
use serde_json::json;

use crate::sandbox::{On, Sandbox};

const DEVICES: u64 = 50_000;

async fn all_are_there(back_ends: On) {
    let Some(sandbox) = Sandbox::on(back_ends) else { return };
    let server = sandbox.start().await;
    let api = sandbox.api();
    let row = |n: u64| json!({ "device_id": format!("dev-{n}"), "attributes": { "level": n % 100 } }).to_string();
    let imported = import(&api, DEVICES, row, &|_| ()).await.unwrap();
    println!("{imported}");
    assert_eq!(imported.devices, DEVICES);
    assert!(imported.told > 1, "its job told nothing meanwhile: {imported}");
    let to = json!({ "to": { "filter": "attr.level < 10" } });
    let preview = api.post("/v1/audiences/preview", &to).await.unwrap();
    assert_eq!(preview["count"], DEVICES / 10, "{preview}");
    server.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_of_many_devices_tells_how_far_it_is_and_leaves_out_none() {
    all_are_there(On::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_of_many_devices_tells_how_far_it_is_and_leaves_out_none_on_rabbitmq_and_redis() {
    all_are_there(On::Servers).await;
}
