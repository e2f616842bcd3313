//! Several apps on one link: each with its own messages, acks, token and place, and none in the way of another.

use std::{sync::Arc, time::Duration};

use model::{App, AppId, Bell, Cursor, Env, Lane, Limits, Message, MessageId, Ordinal, Ordinals, Queue, Uplink};
use model::{record::Record as _, sign::DeviceToken};
use mqtt::{Packet, Reason, Version, packet::Connect, packet::PubAck, packet::Publish};
use serde_json::{Value, json};
use store::{InboxAppend, Registration, TimelineAppend};

use crate::{
    bench::{Bench, config, eventually},
    client::{Client, connect, number},
};

const SECRET: &str = "device-token-secret-of-other-0123456789";

/// Another app beside the bench's own, and a device of it.
struct Other {
    app: AppId,
    device: Ordinal,
}

impl Other {
    async fn of(bench: &Bench) -> Self {
        let app: AppId = "other".parse().unwrap();
        let limits = Limits::default();
        let new = App {
            id: app.clone(),
            created_at: bench.now(),
            device_secret: SECRET.into(),
            limits,
            uplink: model::UplinkRules::default(),
        };
        bench.store.create_app(new).await.unwrap();
        let device = Registration { id: "dev".parse().unwrap(), env: Env::Live, profile: None };
        let device = bench.store.register(&app, vec![device], bench.now()).await.unwrap()[0].0.ordinal;
        Self { app, device }
    }

    fn token(&self, bench: &Bench, lasts: Duration) -> String {
        let exp = (bench.now() + lasts).as_millis().div_ceil(1_000);
        let claims = DeviceToken { sub: "dev".parse().unwrap(), app: self.app.clone(), generation: 0, exp, env: None };
        claims.sign(SECRET)
    }

    async fn unicast(&self, bench: &Bench, n: usize) -> MessageId {
        let message = Arc::new(Message { app: self.app.clone(), ..bench.message(Lane::Unicast, n) });
        let (id, devices) = (message.id, Ordinals::from_iter([self.device]));
        let append = InboxAppend { message, devices: devices.clone() };
        bench.store.append_inbox(vec![append], bench.now()).await.unwrap();
        bench.ring(&Bell::Inbox { app: self.app.clone(), devices });
        id
    }

    async fn broadcast(&self, bench: &Bench, n: usize) {
        let message = Arc::new(Message { app: self.app.clone(), ..bench.message(Lane::Broadcast, n) });
        let append = TimelineAppend { message, audience: Ordinals::from_iter([self.device]) };
        bench.store.append_timeline(vec![append], bench.now()).await.unwrap();
        let head = bench.store.timeline_head(&self.app).await.unwrap();
        bench.ring(&Bell::Timeline { app: self.app.clone(), head });
    }

    async fn cursor(&self, bench: &Bench) -> Cursor {
        bench.store.cursor(&self.app, self.device).await.unwrap()
    }

    /// Waits until the inbox is acked up to its head.
    async fn caught_up(&self, bench: &Bench) {
        let head = bench.store.inbox_heads(&self.app, &[self.device]).await.unwrap()[0];
        eventually(Duration::from_secs(5), async || self.cursor(bench).await.inbox.prefix >= head).await;
    }
}

fn binding(token: &str) -> Packet {
    let payload = json!({ "app": "other", "token": token, "after": "i0.t0" }).to_string();
    Packet::Publish(Box::new(Publish { qos: 1, packet_id: 5, ..Publish::new("push/demo/bind", payload) }))
}

/// What the next message on `ctl` says.
async fn told(client: &mut Client) -> Value {
    let told = client.message().await;
    assert_eq!((told.topic.as_str(), told.qos), ("push/demo/ctl", 0));
    serde_json::from_slice(&told.payload).unwrap()
}

async fn bind(client: &mut Client, token: &str) -> Value {
    client.send(&binding(token)).await;
    assert_eq!(client.next().await, Some(Packet::PubAck(PubAck { packet_id: 5, reason: Reason::SUCCESS })));
    told(client).await
}

async fn bound(bench: &Bench, version: Version) -> (Ordinal, Other, Client) {
    let (device, other) = (bench.register("dev").await, Other::of(bench).await);
    let mut client = Client::open_with(bench.address, connect(bench, "dev", version)).await;
    let token = other.token(bench, Duration::from_secs(3_600));
    let told = bind(&mut client, &token).await;
    assert_eq!((&told["op"], &told["app"], &told["latest"]), (&json!("bind"), &json!("other"), &json!("i0.t0")));
    (device, other, client)
}

#[tokio::test]
async fn each_app_has_its_topics_and_its_cursor_on_one_link_in_both_versions() {
    for version in [Version::V5, Version::V311] {
        let bench = Bench::start(config()).await;
        let (device, other, mut client) = bound(&bench, version).await;
        let id = other.unicast(&bench, 1).await;
        let message = client.message().await;
        assert_eq!((message.topic.as_str(), number(&message)), ("push/other/msg/order", 1));
        bench.unicast(device, 2).await;
        let own = client.take().await;
        assert_eq!((own.topic.as_str(), number(&own)), ("push/demo/msg/order", 2));
        assert_ne!(own.packet_id, message.packet_id);
        bench.caught_up(device).await;
        let head = bench.store.inbox_heads(&other.app, &[other.device]).await.unwrap()[0];
        assert!(other.cursor(&bench).await.inbox.prefix < head, "not acked");
        client.ack(&message).await;
        other.caught_up(&bench).await;
        other.broadcast(&bench, 3).await;
        assert_eq!(number(&client.take().await), 3);
        let receipts = bench.broker.depth(Queue::Receipts).await.unwrap().ready;
        assert!(receipts > 0, "receipts of {id} are told");
        client.send(&Packet::PingReq).await;
        assert_eq!(client.next().await, Some(Packet::PingResp));
        client.hears_nothing().await;
    }
}

#[tokio::test]
async fn one_app_that_is_not_acked_does_not_delay_the_other() {
    let bench = Bench::start(config()).await;
    let (device, other, mut client) = bound(&bench, Version::V5).await;
    for n in 0..40 {
        other.unicast(&bench, n).await;
    }
    for n in 0..31 {
        assert_eq!(number(&client.message().await), n);
    }
    client.hears_nothing().await;
    bench.unicast(device, 99).await;
    assert_eq!(number(&client.take().await), 99);
}

#[tokio::test]
async fn a_bound_app_is_sent_to_and_an_unbound_one_is_not() {
    let bench = Bench::start(config()).await;
    let (_, other, mut client) = bound(&bench, Version::V5).await;
    assert_eq!(client.publish("push/other/up/order", "{}").await, Reason::SUCCESS);
    let taken = bench.broker.consume(Queue::Uplink, 1).await.unwrap().next(1).await.remove(0);
    assert_eq!(Uplink::decode(taken.body()).unwrap().app, other.app);
    taken.ack();
    let leave = Publish { qos: 1, packet_id: 6, ..Publish::new("push/demo/bind", r#"{"app":"other"}"#) };
    client.send(&Packet::Publish(Box::new(leave))).await;
    assert_eq!(client.next().await, Some(Packet::PubAck(PubAck { packet_id: 6, reason: Reason::SUCCESS })));
    assert_eq!(client.publish("push/other/up/order", "{}").await, Reason::NOT_AUTHORIZED);
    other.unicast(&bench, 1).await;
    client.hears_nothing().await;
    let again = bind(&mut client, &other.token(&bench, Duration::from_secs(60))).await;
    assert_eq!(again["op"], "bind");
    assert_eq!(number(&client.take().await), 1);
}

#[tokio::test]
async fn what_an_app_has_yet_to_read_costs_neither_the_acks_nor_the_messages_behind_it() {
    for version in [Version::V5, Version::V311] {
        let bench = Bench::start(config()).await;
        let (_, other, mut client) = bound(&bench, version).await;
        other.unicast(&bench, 1).await;
        let message = client.message().await;
        let ack = Packet::PubAck(PubAck { packet_id: message.packet_id, reason: Reason::SUCCESS });
        let up = |packet_id| {
            let publish = Publish { qos: 1, packet_id, ..Publish::new("push/other/up/order", vec![b'x'; 40 * 1_024]) };
            Packet::Publish(Box::new(publish))
        };
        let mut bytes = Vec::new();
        for packet in [up(1), ack, up(2), up(3)] {
            mqtt::wire::encode(&packet, version, &mut bytes).unwrap();
        }
        client.send_bytes(&bytes).await;
        for packet_id in 1..=3 {
            assert_eq!(client.next().await, Some(Packet::PubAck(PubAck { packet_id, reason: Reason::SUCCESS })));
        }
        other.caught_up(&bench).await;
    }
}

#[tokio::test]
async fn what_cannot_be_bound_is_said_and_the_link_goes_on() {
    let bench = Bench::start(config()).await;
    let (device, other) = (bench.register("dev").await, Other::of(&bench).await);
    let mut client = Client::open(&bench, "dev").await;
    let forged =
        DeviceToken { app: other.app.clone(), ..bench.claims("dev") }.sign("another-secret-0123456789-0123456789");
    let refused = bind(&mut client, &forged).await;
    assert_eq!((&refused["op"], &refused["reason"]), (&json!("unbind"), &json!("token")));
    for (payload, reason) in [
        (json!({ "app": "other", "token": bench.token("dev") }), Reason::NOT_AUTHORIZED),
        (json!({ "app": "demo", "token": bench.token("dev") }), Reason::NOT_AUTHORIZED),
        (json!({ "app": "other", "token": "x", "after": "7" }), Reason::BAD_PAYLOAD),
    ] {
        let publish = Publish { qos: 1, packet_id: 7, ..Publish::new("push/demo/bind", payload.to_string()) };
        client.send(&Packet::Publish(Box::new(publish))).await;
        if reason == Reason::NOT_AUTHORIZED {
            assert_eq!(told(&mut client).await["op"], "unbind");
        }
        assert_eq!(client.next().await, Some(Packet::PubAck(PubAck { packet_id: 7, reason })));
    }
    bench.unicast(device, 1).await;
    assert_eq!(number(&client.take().await), 1);
    let narrow = Connect { receive_maximum: 32, ..connect(&bench, "dev", Version::V5) };
    let mut narrow = Client::open_with(bench.address, narrow).await;
    narrow.send(&binding(&other.token(&bench, Duration::from_secs(60)))).await;
    assert_eq!(told(&mut narrow).await["reason"], "receive_maximum");
}

#[tokio::test]
async fn an_app_leaves_the_link_when_its_token_ends_or_its_device_comes_elsewhere() {
    let bench = Bench::start(config()).await;
    let (device, other) = (bench.register("dev").await, Other::of(&bench).await);
    let mut client = Client::open(&bench, "dev").await;
    bind(&mut client, &other.token(&bench, Duration::from_secs(1))).await;
    let ended = told(&mut client).await;
    assert_eq!((&ended["op"], &ended["reason"]), (&json!("unbind"), &json!("token_ended")));
    bind(&mut client, &other.token(&bench, Duration::from_secs(60))).await;
    let elsewhere = Connect {
        username: Some("other".into()),
        password: Some(other.token(&bench, Duration::from_secs(60)).into_bytes()),
        keep_alive_s: 60,
        ..Connect::new(Version::V5, "dev")
    };
    let _elsewhere = Client::open_with(bench.address, elsewhere).await;
    assert_eq!(told(&mut client).await["reason"], "taken_over");
    bench.unicast(device, 1).await;
    assert_eq!(number(&client.take().await), 1);
}

#[tokio::test]
async fn what_was_not_acked_comes_again_when_the_app_is_bound_on_the_next_link() {
    let bench = Bench::start(config()).await;
    let (_, other, mut client) = bound(&bench, Version::V5).await;
    other.unicast(&bench, 1).await;
    let first = client.message().await;
    drop(client);
    let open = r#"fanfare_connections{app="other",transport="tcp",proto="5"}"#;
    eventually(Duration::from_secs(5), async || bench.metric(open) == 0.0).await;
    let mut client = Client::open(&bench, "dev").await;
    bind(&mut client, &other.token(&bench, Duration::from_secs(60))).await;
    let again = client.take().await;
    assert!(again.dup);
    assert_eq!(again.property("seq"), first.property("seq"));
}
