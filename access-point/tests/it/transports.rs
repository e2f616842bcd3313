//! A device is a device whatever carries its bytes: the same promises over TCP, TLS, WebSocket and WebSocket under TLS,
//! and behind a proxy.

use std::time::Duration;

use access_point::Config;
use model::{Lane, Message, sign::DeviceToken};
use mqtt::{Packet, Reason, Version, packet::Connect};
use tokio::io::AsyncWriteExt as _;

use crate::{
    bench::{Bench, config, eventually},
    client::{Client, connect, number},
    via::{Identity, Via},
};

async fn open(identity: &Identity, bench: &Bench, via: Via, device: &str, version: Version) -> Client {
    let mut client = Client::on(identity.dial(bench, via).await).said(connect(bench, device, version)).await;
    assert_eq!(client.connack().await.reason, Reason::SUCCESS, "{via:?}");
    client
}

#[tokio::test]
async fn messages_go_both_ways_over_every_transport_in_both_versions() {
    let identity = Identity::new();
    let bench = identity.bench(config()).await;
    for (n, via) in Via::ALL.into_iter().enumerate() {
        for version in [Version::V5, Version::V311] {
            let name = format!("dev-{n}-{version:?}");
            let device = bench.register(&name).await;
            bench.unicast(device, 1).await;
            let mut client = open(&identity, &bench, via, &name, version).await;
            assert_eq!(number(&client.take().await), 1, "{via:?}");
            bench.broadcast(&[device], 2..4).await;
            assert_eq!((number(&client.take().await), number(&client.take().await)), (2, 3), "{via:?}");
            assert_eq!(client.publish("push/demo/up/order", vec![b'u'; 100]).await, Reason::SUCCESS, "{via:?}");
            client.send(&Packet::PingReq).await;
            assert_eq!(client.next().await, Some(Packet::PingResp), "{via:?}");
            bench.caught_up(device).await;
        }
    }
}

#[tokio::test]
async fn large_messages_and_hundreds_of_small_ones_pass_every_transport_whole() {
    let identity = Identity::new();
    let bench = identity.bench(config()).await;
    for (n, via) in Via::ALL.into_iter().enumerate() {
        let name = format!("dev-{n}");
        let device = bench.register(&name).await;
        let mut client = open(&identity, &bench, via, &name, Version::V5).await;
        let text: String = (0..200_000_u32).map(|n| char::from(b'a' + (n * 7 % 26) as u8)).collect();
        let payload = serde_json::to_vec(&serde_json::json!({ "n": 7, "x": text })).unwrap();
        let large = Message { payload: payload.clone().into(), ..bench.message(Lane::Unicast, 7) };
        bench.send_unicast(device, large).await;
        assert_eq!(client.take().await.payload, payload, "{via:?}");
        bench.broadcast(&[device], 0..300).await;
        for wanted in 0..300 {
            assert_eq!(number(&client.take().await), wanted, "{via:?}");
        }
        assert_eq!(client.publish("push/demo/up/photo", vec![b'u'; 60_000]).await, Reason::SUCCESS, "{via:?}");
    }
}

#[tokio::test]
async fn a_forged_token_opens_no_transport_and_a_newer_session_closes_any() {
    let identity = Identity::new();
    let bench = identity.bench(config()).await;
    for via in Via::ALL {
        let forged = bench.claims("dev").sign("another-secret-another-secret-another");
        let forged = Connect { password: Some(forged.into_bytes()), ..connect(&bench, "dev", Version::V5) };
        let mut client = Client::on(identity.dial(&bench, via).await).said(forged).await;
        assert_eq!(client.connack().await.reason, Reason::NOT_AUTHORIZED, "{via:?}");
        assert_eq!(client.next().await, None, "{via:?}");
        let mut older = open(&identity, &bench, via, "dev", Version::V5).await;
        let _newer = open(&identity, &bench, via, "dev", Version::V5).await;
        assert_eq!(older.dismissed().await, Some(Reason::TAKEN_OVER), "{via:?}");
    }
}

#[tokio::test]
async fn a_stop_and_the_end_of_a_token_are_told_over_every_transport() {
    let identity = Identity::new();
    let bench = identity.bench(config()).await;
    let mut clients = Vec::new();
    for (n, via) in Via::ALL.into_iter().enumerate() {
        clients.push(open(&identity, &bench, via, &format!("stays-{n}"), Version::V5).await);
        let token = DeviceToken { exp: bench.now().as_millis() / 1_000 + 2, ..bench.claims("brief") };
        let token = token.sign(crate::bench::SECRET).into_bytes();
        let brief = Connect { password: Some(token), ..connect(&bench, "brief", Version::V5) };
        let mut brief = Client::on(identity.dial(&bench, via).await).said(brief).await;
        assert_eq!(brief.connack().await.reason, Reason::SUCCESS);
        assert_eq!(brief.dismissed().await, Some(Reason::TOKEN_ENDED), "{via:?}");
    }
    bench.stop().await;
    for mut client in clients {
        assert_eq!(client.dismissed().await, Some(Reason::SHUTTING_DOWN));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_is_cut_off_over_every_transport() {
    let identity = Identity::new();
    let bench = identity.bench(Config { write_timeout: Duration::from_secs(1), ..config() }).await;
    let mut deaf = Vec::new();
    for (n, via) in Via::ALL.into_iter().enumerate() {
        let name = format!("deaf-{n}");
        let device = bench.register(&name).await;
        deaf.push(open(&identity, &bench, via, &name, Version::V5).await);
        for _ in 0..60 {
            let payload = serde_json::to_vec(&serde_json::json!({ "x": "y".repeat(200_000) })).unwrap();
            let large = Message { payload: payload.into(), ..bench.message(Lane::Unicast, 0) };
            bench.send_unicast(device, large).await;
        }
    }
    eventually(Duration::from_secs(30), async || {
        let gone = |reason| bench.metric(&format!("fanfare_disconnects_total{{reason=\"{reason}\"}}"));
        gone("stalled") + gone("ack_timeout") >= 4.0
    })
    .await;
}

#[tokio::test]
async fn a_trusted_proxy_must_say_who_is_behind_it_and_others_must_not() {
    let identity = Identity::new();
    let behind = Config { proxies: vec!["127.0.0.0/8".parse().unwrap()], ..config() };
    let bench = identity.bench(behind).await;
    let v2 = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &[192, 0, 2, 7, 127, 0, 0, 1, 0x12, 0x67, 7, 91]].concat();
    let v1 = &b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 1883\r\n"[..];
    for header in [v1, &v2, b"PROXY UNKNOWN\r\n"] {
        let mut socket = tokio::net::TcpStream::connect(bench.address).await.unwrap();
        // In pieces, as a network may cut it.
        for piece in header.chunks(5) {
            socket.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut client = Client::on(Box::new(socket)).said(connect(&bench, "dev", Version::V5)).await;
        assert_eq!(client.connack().await.reason, Reason::SUCCESS);
    }
    assert_eq!(Client::dial(bench.address, connect(&bench, "dev", Version::V5)).await.next().await, None);
    let open = identity.bench(config()).await;
    let mut socket = tokio::net::TcpStream::connect(open.address).await.unwrap();
    socket.write_all(&v2).await.unwrap();
    let mut client = Client::on(Box::new(socket)).said(connect(&open, "dev", Version::V5)).await;
    assert_eq!(client.next().await, None);
}
