//! Devices are moved to another access point, and what they had not acked goes with them.

use std::{
    net::SocketAddr,
    num::NonZeroU32,
    time::{Duration, Instant},
};

use access_point::{Config, Drain};
use model::{Bell, DrainState, Endpoint, Timestamp};
use mqtt::{Packet, Reason, Version};

use crate::{
    bench::{Bench, config, eventually},
    client::{Client, connect, number},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// An access point, and another beside it that devices may go to.
async fn two(config: Config) -> (Bench, SocketAddr) {
    let bench = Bench::start(config).await;
    let there = bench.beside("ap-2").await;
    bench.beat("ap-2", there).await;
    (bench, there)
}

fn drain(bench: &Bench, at: Timestamp, permille: u16) {
    let node = "ap-1".parse().unwrap();
    bench.ring(&Bell::Drain { node, ordered_at: at, rate_per_s: 100, permille });
}

async fn is_in(bench: &Bench, state: DrainState) {
    eventually(PATIENCE, async || bench.status().drain.is_some_and(|drain| drain.state == state)).await;
}

#[tokio::test]
async fn all_devices_move_and_take_along_what_they_had_not_acked() {
    let (bench, there) = two(config()).await;
    let mut clients = Vec::new();
    for n in 0..10 {
        let device = bench.register(&format!("dev-{n}")).await;
        let version = if n % 2 == 0 { Version::V5 } else { Version::V311 };
        let mut client = Client::open_with(bench.address, connect(&bench, &format!("dev-{n}"), version)).await;
        bench.unicast(device, n).await;
        let message = client.message().await;
        if n >= 4 {
            client.ack(&message).await;
        }
        clients.push((n, version, client));
    }
    drain(&bench, bench.now(), 1_000);
    for (n, version, client) in &mut clients {
        match version {
            Version::V5 => {
                let told = client.disconnect().await;
                assert_eq!(told.reason, Reason::USE_ANOTHER_SERVER);
                assert_eq!(told.server_reference, Some(there.to_string()));
            }
            Version::V311 => {
                let told = client.message().await;
                let expected =
                    serde_json::json!({"op": "reconnect", "reason": "moving", "endpoints": [there.to_string()]});
                assert_eq!(serde_json::from_slice::<serde_json::Value>(&told.payload).unwrap(), expected);
            }
        }
        assert_eq!(client.next().await, None);
        *client = Client::open_with(there, connect(&bench, &format!("dev-{n}"), *version)).await;
        if *n < 4 {
            let again = client.take().await;
            assert!(again.dup && number(&again) == *n);
        }
        client.send(&Packet::PingReq).await;
        assert_eq!(client.next().await, Some(Packet::PingResp), "nothing else is sent again");
    }
    is_in(&bench, DrainState::Done).await;
    let told = bench.status().drain.unwrap();
    assert_eq!((told.sessions, told.evicted, told.moved, told.unacked, told.lost), (10, 10, 10, 4, 0));
    assert!(told.longest_gap_ms < 5_000, "{told:?}");
}

#[tokio::test]
async fn a_drained_access_point_takes_nobody_until_the_order_is_taken_back() {
    let (bench, _) = two(config()).await;
    let ordered_at = bench.now();
    eventually(PATIENCE, async || {
        drain(&bench, ordered_at, 1_000);
        bench.status().drain.is_some()
    })
    .await;
    is_in(&bench, DrainState::Done).await;
    let dial = async || Client::dial(bench.address, connect(&bench, "dev", Version::V5)).await.next().await;
    assert_eq!(dial().await, None);
    bench.ring(&Bell::Undrain { node: "ap-1".parse().unwrap() });
    is_in(&bench, DrainState::Revoked).await;
    drain(&bench, ordered_at, 1_000);
    assert!(matches!(dial().await, Some(Packet::ConnAck(ack)) if ack.reason == Reason::SUCCESS));
}

#[tokio::test]
async fn whoever_stands_in_line_goes_elsewhere_at_once() {
    let (bench, _) = two(Config { connects_per_s: NonZeroU32::new(1), ..config() }).await;
    let mut clients = Vec::new();
    for n in 0..10 {
        clients.push(Client::dial(bench.address, connect(&bench, &format!("dev-{n}"), Version::V5)).await);
    }
    eventually(PATIENCE, async || bench.metric("fanfare_in_line") >= 8.0).await;
    drain(&bench, bench.now(), 1_000);
    let begun = Instant::now();
    let mut last = clients.pop().unwrap();
    assert_eq!(last.next().await, None);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(bench.metric("fanfare_connects_total{result=\"draining\"}") >= 6.0);
}

#[tokio::test]
async fn a_part_of_the_devices_moves_and_the_rest_does_not_notice() {
    let (bench, there) = two(config()).await;
    let mut clients = Vec::new();
    for n in 0..10 {
        clients.push(Client::open(&bench, &format!("dev-{n}")).await);
    }
    drain(&bench, bench.now(), 300);
    eventually(PATIENCE, async || bench.status().connections == 7).await;
    let mut moved = 0;
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(&Packet::PingReq).await;
        match client.next().await {
            Some(Packet::PingResp) => {}
            Some(Packet::Disconnect(told)) if told.reason == Reason::USE_ANOTHER_SERVER => {
                *client = Client::open_with(there, connect(&bench, &format!("dev-{n}"), Version::V5)).await;
                moved += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(moved, 3);
    is_in(&bench, DrainState::Done).await;
    assert_eq!(bench.status().drain.unwrap().moved, 3);
    Client::open(&bench, "another").await;
}

#[tokio::test]
async fn a_part_of_the_devices_goes_where_there_is_more_room_and_stays_there() {
    let bench = Bench::start(Config { connections_max: 20, ..config() }).await;
    let [cool, hot] = [bench.beside("ap-2").await, bench.beside("ap-3").await];
    for (node, at, connections) in [("ap-2", cool, 100), ("ap-3", hot, 900)] {
        let endpoint = Endpoint { address: at.to_string(), tls_address: None, connections, connections_max: 1_000 };
        bench.beat_at(node, endpoint).await;
    }
    let mut clients = Vec::new();
    for n in 0..10 {
        clients.push(Client::open(&bench, &format!("dev-{n}")).await);
    }
    drain(&bench, bench.now(), 500);
    eventually(PATIENCE, async || bench.status().connections == 5).await;
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(&Packet::PingReq).await;
        if let Some(Packet::Disconnect(told)) = client.next().await {
            assert_eq!(told.server_reference, Some(cool.to_string()), "the other one is fuller than here");
            *client = Client::open_with(cool, connect(&bench, &format!("dev-{n}"), Version::V5)).await;
        }
    }
    is_in(&bench, DrainState::Done).await;
    let told = bench.status().drain.unwrap();
    assert_eq!((told.moved, told.lost, bench.status().connections), (5, 0, 5));
    for client in &mut clients {
        client.send(&Packet::PingReq).await;
        assert_eq!(client.next().await, Some(Packet::PingResp), "it is sent on");
    }
}

#[tokio::test]
async fn whoever_stops_sends_devices_elsewhere_first() {
    let drain =
        Drain { wait: Duration::from_millis(100), per_s: NonZeroU32::new(50).unwrap(), within: Duration::from_secs(5) };
    let (bench, there) = two(Config { drain, ..config() }).await;
    let mut client = Client::open(&bench, "dev").await;
    let moving = async {
        let told = client.disconnect().await;
        assert_eq!((told.reason, told.server_reference), (Reason::USE_ANOTHER_SERVER, Some(there.to_string())));
    };
    tokio::join!(bench.stop(), moving);
    let told = bench.status().drain.unwrap();
    assert_eq!((told.evicted, told.lost), (1, 0));
}
