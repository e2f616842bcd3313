//! The store does not answer: devices come in on their token, and are themselves again when it does.

use std::time::{Duration, Instant};

use model::{Bell, Placed, Queue, Seq, Uplink, record::Record as _};
use mqtt::{
    Packet, Reason, Version,
    packet::{PubAck, Publish, SubAck, Subscribe},
};
use store::{
    contract::private::Private,
    redis::{self, Durability, Redis},
};

use crate::{
    bench::{Bench, config, eventually},
    carried::{caught_up, ring_with},
    client::{Client, connect, number},
};

/// A device is let in by then, whatever the store does.
const LET_IN_MAX: Duration = Duration::from_secs(1);

/// Devices have their sessions by then when the store is back.
const RECOVERY_MAX: Duration = Duration::from_secs(10);

/// An access point that knows its app, on a store that can be frozen.
async fn bench(server: &Private) -> Bench {
    let store = redis::Config { durability: Durability::Trusted, ..redis::Config::new(server.url()) };
    let bench = Bench::start_with(config(), Redis::connect(store).await.unwrap()).await;
    Client::open(&bench, "first").await.send(&Packet::PingReq).await;
    bench
}

async fn waiting(bench: &Bench, count: f64) {
    eventually(RECOVERY_MAX, async || bench.metric("fanfare_waiting") == count).await;
}

async fn let_in(bench: &Bench, device: &str) -> Client {
    let asked = Instant::now();
    let mut client = Client::dial(bench.address, connect(bench, device, Version::V5)).await;
    let answer = client.connack().await;
    assert_eq!(answer.reason, Reason::SUCCESS);
    assert!(asked.elapsed() < LET_IN_MAX, "after {:?}", asked.elapsed());
    assert!(answer.user_properties.iter().all(|(name, _)| name != "latest"), "nobody can know it");
    client
}

async fn pings(client: &mut Client) {
    client.send(&Packet::PingReq).await;
    assert_eq!(client.next().await, Some(Packet::PingResp));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_comes_in_while_the_store_is_frozen_and_catches_up_when_it_is_back() {
    let Some(server) = Private::start(&[]) else { return };
    let bench = bench(&server).await;
    let device = bench.register("dev").await;
    bench.unicast(device, 1).await;
    server.freeze();
    let mut client = let_in(&bench, "dev").await;
    let mut unknown = let_in(&bench, "never-seen").await;
    pings(&mut client).await;
    client.hears_nothing().await;
    waiting(&bench, 2.0).await;
    server.thaw();
    assert_eq!(number(&client.take().await), 1);
    bench.unicast(device, 2).await;
    assert_eq!(number(&client.take().await), 2);
    pings(&mut unknown).await;
    waiting(&bench, 0.0).await;
    let registered = bench.store.devices(&bench.app, &["never-seen".parse().unwrap()]).await.unwrap();
    let ordinal = registered[0].clone().unwrap().ordinal;
    bench.broadcast(&[device, ordinal], 3..4).await;
    assert_eq!((number(&client.take().await), number(&unknown.take().await)), (3, 3));
    bench.stop().await;
}

/// Routes that nobody has lost, but of which one is too old.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_moves_while_routes_are_away_is_found_where_it_went_when_they_are_back() {
    let (Some(server), Some(volatile)) = (Private::start(&[]), Private::start(&[])) else { return };
    let store = redis::Config {
        durability: Durability::Trusted,
        routes_url: Some(volatile.url()),
        ..redis::Config::new(server.url())
    };
    let bench = Bench::start_with(config(), Redis::connect(store).await.unwrap()).await;
    let device = bench.register("dev").await;
    let there = bench.beside("ap-2").await;
    let led_to = async |node: &str| {
        eventually(RECOVERY_MAX, async || {
            let routes = bench.store.routes(&bench.app, &[device]).await;
            routes.is_ok_and(|routes| routes[0].as_ref().is_some_and(|route| route.node.as_str() == node))
        })
        .await;
    };
    let mut old = Client::open(&bench, "dev").await;
    led_to("ap-1").await;
    volatile.freeze();
    // After this there is no connection on which the claim would lie until the server goes on.
    assert!(bench.store.routes(&bench.app, &[device]).await.is_err());
    let mut new = Client::open_with(there, connect(&bench, "dev", Version::V5)).await;
    assert_eq!(old.dismissed().await, Some(Reason::TAKEN_OVER), "though nobody knows where it was");
    volatile.thaw();
    led_to("ap-2").await;
    bench.unicast(device, 1).await;
    assert_eq!(number(&new.take().await), 1);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_waiting_device_sends_up_waits_with_it_and_beyond_a_bound_is_refused() {
    let Some(server) = Private::start(&[]) else { return };
    let bench = bench(&server).await;
    server.freeze();
    let mut client = let_in(&bench, "dev").await;
    let subscribe = Subscribe { packet_id: 9, filters: vec![("push/demo/#".into(), 1)] };
    client.send(&Packet::Subscribe(subscribe)).await;
    assert_eq!(client.next().await, Some(Packet::SubAck(SubAck { packet_id: 9, reasons: vec![Reason(1)] })));
    for packet_id in 1..=17 {
        let publish = Publish { qos: 1, packet_id, ..Publish::new("push/demo/up/order", "{}") };
        client.send(&Packet::Publish(Box::new(publish))).await;
    }
    let ack = |packet_id, reason| Some(Packet::PubAck(PubAck { packet_id, reason }));
    assert_eq!(client.next().await, ack(17, Reason::IMPLEMENTATION), "16 are kept");
    server.thaw();
    for packet_id in 1..=16 {
        assert_eq!(client.next().await, ack(packet_id, Reason::SUCCESS));
    }
    let mut uplinks = bench.broker.consume(Queue::Uplink, 100).await.unwrap();
    let mut taken = 0;
    while taken < 16 {
        for uplink in uplinks.next(100).await {
            assert_eq!(Uplink::decode(uplink.body()).unwrap().device.as_str(), "dev");
            taken += 1;
        }
    }
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_later_of_two_connections_that_waited_wins_at_any_access_point() {
    let Some(server) = Private::start(&[]) else { return };
    let bench = bench(&server).await;
    let device = bench.register("dev").await;
    let there = bench.beside("ap-2").await;
    let mut known_there = Client::open_with(there, connect(&bench, "second", Version::V5)).await;
    pings(&mut known_there).await;
    for _ in 0..3 {
        server.freeze();
        let mut first = let_in(&bench, "dev").await;
        let mut second = let_in(&bench, "dev").await;
        assert_eq!(first.dismissed().await, Some(Reason::TAKEN_OVER), "it has no session, and gives way all the same");
        let mut elsewhere = Client::open_with(there, connect(&bench, "dev", Version::V5)).await;
        server.thaw();
        assert_eq!(second.dismissed().await, Some(Reason::TAKEN_OVER));
        elsewhere.hears_nothing().await;
        let route = bench.store.routes(&bench.app, &[device]).await.unwrap().remove(0).unwrap();
        assert_eq!(route.node.as_str(), "ap-2");
        bench.unicast(device, 7).await;
        assert_eq!(number(&elsewhere.take().await), 7);
    }
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_should_not_have_come_in_is_told_when_the_store_is_back() {
    let Some(server) = Private::start(&[]) else { return };
    let bench = bench(&server).await;
    bench.register("dev").await;
    bench.store.revoke(&bench.app, &"dev".parse().unwrap()).await.unwrap();
    server.freeze();
    let mut revoked = let_in(&bench, "dev").await;
    server.thaw();
    assert_eq!(revoked.dismissed().await, Some(Reason::NOT_AUTHORIZED));
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_devices_that_wait_all_get_their_sessions() {
    const DEVICES: u16 = 1_000;
    let Some(server) = Private::start(&[]) else { return };
    let bench = bench(&server).await;
    server.freeze();
    let mut clients = Vec::new();
    for n in 0..DEVICES {
        clients.push(Client::dial(bench.address, connect(&bench, &format!("dev-{n}"), Version::V5)).await);
    }
    for client in &mut clients {
        assert_eq!(client.connack().await.reason, Reason::SUCCESS);
    }
    server.thaw();
    waiting(&bench, 0.0).await;
    let everybody: Vec<_> = (0..u32::from(DEVICES) + 1).map(model::Ordinal).collect();
    bench.broadcast(&everybody, 5..6).await;
    for client in &mut clients {
        assert_eq!(number(&client.take().await), 5);
    }
    assert_eq!(bench.metric("fanfare_takeovers_total"), 0.0);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bells_do_not_wait_for_what_others_have_to_read() {
    let Some(server) = Private::start(&[]) else { return };
    let bench = bench(&server).await;
    let (device, mut client, head) = caught_up(&bench).await;
    client.hears_nothing().await;
    server.freeze();
    // It takes so long to find out that this cannot be read that what the next bell carries would not be fresh any more.
    for later in 1..=3 {
        let head = Seq::ZERO.next(bench.now() + Duration::from_secs(later));
        bench.ring(&Bell::Timeline { app: bench.app.clone(), head });
    }
    ring_with(&bench, 2, Placed { device, before: head, seq: Seq(head.0 + 1) }, bench.now());
    assert_eq!(number(&client.take().await), 2);
    server.thaw();
    bench.stop().await;
}
