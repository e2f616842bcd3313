//! Bodies are packed for whoever asked, once for all of them, and for nobody else.

use std::sync::Arc;

use bytes::Bytes;
use model::{Bell, Lane, Message, Ordinals};
use mqtt::{Coding, Version, packet::Connect, packet::Publish, publish::CONTENT_ENCODING};
use store::{InboxAppend, TimelineAppend};

use crate::{
    bench::{Bench, config},
    client::{Client, connect},
};

/// More than the largest body in these tests.
const BODY_MAX_BYTES: usize = 64 * 1024;

async fn asking(bench: &Bench, device: &str, enc: &str) -> Client {
    let username = Some(format!("demo?enc={enc}"));
    Client::open_with(bench.address, Connect { username, ..connect(bench, device, Version::V5) }).await
}

fn large(bench: &Bench, lane: Lane) -> Message {
    let item = |n| format!(r#"{{"order_id":"ord-{n:06}","status":"shipped","city":"Shenzhen"}}"#);
    let payload = format!("[{}]", (0..40).map(item).collect::<Vec<_>>().join(","));
    Message { payload: payload.into(), ..bench.message(lane, 0) }
}

/// The body as the product sent it, and how it was packed.
fn whole(message: &Publish) -> (Option<&str>, Bytes) {
    let encoding = message.property(CONTENT_ENCODING);
    let coding = encoding.map(|name| Coding::best_of(name).unwrap());
    let body = coding.map(|coding| coding.unpack(&message.payload, BODY_MAX_BYTES).unwrap());
    (encoding, body.unwrap_or_else(|| message.payload.clone()))
}

#[tokio::test]
async fn each_device_gets_the_same_body_in_the_way_it_asked_for() {
    let bench = Bench::start(config()).await;
    let mut devices = Ordinals::new();
    for device in ["z", "g", "plain", "foreign"] {
        devices.insert(bench.register(device).await);
    }
    let mut clients = vec![
        (Some("zstd"), asking(&bench, "z", "zstd,gzip").await),
        (Some("gzip"), asking(&bench, "g", "br,gzip").await),
        (None, Client::open(&bench, "plain").await),
        (None, asking(&bench, "foreign", "br").await),
    ];
    for stream in ["timeline", "inbox"] {
        let message = Arc::new(large(&bench, if stream == "inbox" { Lane::Multicast } else { Lane::Broadcast }));
        if stream == "inbox" {
            let append = InboxAppend { message: message.clone(), devices: devices.clone() };
            bench.store.append_inbox(vec![append], bench.now()).await.unwrap();
            bench.ring(&Bell::Inbox { app: bench.app.clone(), devices: devices.clone() });
        } else {
            let append = TimelineAppend { message: message.clone(), audience: devices.clone() };
            bench.store.append_timeline(vec![append], bench.now()).await.unwrap();
            let head = bench.store.timeline_head(&bench.app).await.unwrap();
            bench.ring(&Bell::Timeline { app: bench.app.clone(), head });
        }
        for (wanted, client) in &mut clients {
            let got = client.take().await;
            assert_eq!(whole(&got), (*wanted, message.payload.clone()), "{stream}");
            assert!(wanted.is_none() || got.payload.len() * 3 < message.payload.len());
        }
    }
}

#[tokio::test]
async fn a_list_is_packed_once_for_all_its_devices() {
    let bench = Bench::start(config()).await;
    let (mut devices, mut clients) = (Ordinals::new(), Vec::new());
    for n in 0..5 {
        devices.insert(bench.register(&format!("dev-{n}")).await);
        clients.push(asking(&bench, &format!("dev-{n}"), "zstd").await);
    }
    let message = Arc::new(large(&bench, Lane::Multicast));
    let append = InboxAppend { message: message.clone(), devices: devices.clone() };
    bench.store.append_inbox(vec![append], bench.now()).await.unwrap();
    bench.ring(&Bell::Inbox { app: bench.app.clone(), devices });
    for client in &mut clients {
        assert_eq!(whole(&client.take().await), (Some("zstd"), message.payload.clone()));
    }
    assert_eq!(bench.metric("fanfare_pack_whole_bytes_total"), message.payload.len() as f64);
    assert!(bench.metric("fanfare_pack_packed_bytes_total") * 3.0 < message.payload.len() as f64);
}

#[tokio::test]
async fn small_bodies_and_envelopes_stay_as_they_are() {
    let bench = Bench::start(config()).await;
    let device = bench.register("dev").await;
    let mut client = asking(&bench, "dev", "zstd").await;
    bench.unicast(device, 1).await;
    assert_eq!(whole(&client.take().await).0, None);
    let username = Some("demo?enc=zstd".into());
    let older = Connect { username, ..connect(&bench, "dev", Version::V311) };
    let mut older = Client::open_with(bench.address, older).await;
    let message = large(&bench, Lane::Unicast);
    bench.send_unicast(device, message).await;
    let envelope: serde_json::Value = serde_json::from_slice(&older.take().await.payload).unwrap();
    assert_eq!(envelope["payload"][39]["status"], "shipped");
}

#[tokio::test]
async fn a_page_is_packed_as_a_whole() {
    let bench = Bench::start(config()).await;
    let device = bench.register("dev").await;
    let mut client = asking(&bench, "dev", "gzip&mode=notify").await;
    for n in 0..40 {
        bench.unicast(device, n).await;
    }
    assert_eq!(client.message().await.topic, "push/demo/notify");
    let sync = Publish::new("push/demo/sync", r#"{"after":"i0.t0"}"#);
    client.send(&mqtt::Packet::Publish(Box::new(sync))).await;
    let page = client.take().await;
    let (encoding, body) = whole(&page);
    assert_eq!(encoding, Some("gzip"));
    let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(json["messages"].as_array().unwrap().len(), 40);
    assert!(page.payload.len() * 3 < body.len(), "{} of {}", page.payload.len(), body.len());
}
