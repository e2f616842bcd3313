//! TLS: who the server is, what changes when that is renewed, and what is no TLS.

use std::time::Duration;

use access_point::{Certificates, Config, TlsFiles};
use mqtt::{Packet, Version};
use rustls::HandshakeKind;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    bench::{config, eventually},
    client::{Client, connect},
    via::{Identity, certify},
};

#[tokio::test]
async fn a_device_that_comes_back_resumes_and_the_ticket_outlives_a_renewal() {
    let identity = Identity::new();
    let bench = identity.bench(config()).await;
    for (wanted, renew) in
        [(HandshakeKind::Full, false), (HandshakeKind::Resumed, false), (HandshakeKind::Resumed, true)]
    {
        if renew {
            certify(identity.dir.path());
            identity.certificates.reload();
        }
        let tls = identity.secure(bench.tls.unwrap()).await;
        assert_eq!(tls.get_ref().1.handshake_kind(), Some(wanted));
        // The ticket comes behind the handshake, at the latest with CONNACK.
        let mut client = Client::on(Box::new(tls)).said(connect(&bench, "dev", Version::V5)).await;
        client.connack().await;
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_new_connections_and_closes_no_link() {
    let identity = Identity::new();
    let bench = identity.bench(config()).await;
    let shown = async || {
        // Trust without a memory: a session that is resumed shows no certificate.
        let mut trust = (*identity.trust).clone();
        trust.resumption = rustls::client::Resumption::disabled();
        let name = "localhost".try_into().unwrap();
        let socket = TcpStream::connect(bench.tls.unwrap()).await.unwrap();
        let tls = tokio_rustls::TlsConnector::from(std::sync::Arc::new(trust)).connect(name, socket).await.unwrap();
        tls.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let before = shown().await;
    let tls = identity.secure(bench.tls.unwrap()).await;
    let mut stays = Client::on(Box::new(tls)).said(connect(&bench, "dev", Version::V5)).await;
    stays.connack().await;
    certify(identity.dir.path());
    eventually(Duration::from_secs(30), async || shown().await != before).await;
    let renewed = shown().await;
    std::fs::write(identity.dir.path().join("key.pem"), "no key").unwrap();
    identity.certificates.reload();
    assert_eq!(shown().await, renewed, "what cannot be read changes nothing");
    stays.send(&Packet::PingReq).await;
    assert_eq!(stays.next().await, Some(Packet::PingResp));
}

#[tokio::test]
async fn certificates_that_cannot_be_used_are_named() {
    let (one, other) = (Identity::new(), Identity::new());
    let file = |identity: &Identity, name: &str| identity.dir.path().join(name);
    let error = |certificate, key| Certificates::load(TlsFiles { certificate, key }).unwrap_err().to_string();
    let none = error(file(&one, "none.pem"), file(&one, "key.pem"));
    assert!(none.contains("none.pem"), "{none}");
    let swapped = error(file(&one, "key.pem"), file(&one, "certificate.pem"));
    assert!(swapped.contains("key.pem"), "{swapped}");
    let foreign = error(file(&one, "certificate.pem"), file(&other, "key.pem"));
    assert!(foreign.contains("the certificate and its key"), "{foreign}");
}

#[tokio::test]
async fn what_is_no_tls_or_tls_where_there_is_none_is_closed() {
    let identity = Identity::new();
    let bench = identity.bench(config()).await;
    let tls = bench.tls.unwrap();
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let mut endless = b"\x16\x03\x01\x40\x00\x01\x00\xff\xff\x03\x03".to_vec();
    endless.extend((0..8).flat_map(|_| [&b"\x16\x03\x01\x40\x00"[..], &[0; 0x4000]].concat()));
    for (address, bytes) in [
        (tls, &b"GET /mqtt HTTP/1.1\r\n\r\n"[..]),
        (tls, b"\x10\x0e\0\x04MQTT\x05\x02\0\x3c\0\0\0\0\0\0\0"),
        (tls, &[0xFF; 100]),
        (tls, &endless),
        (bench.address, hello),
    ] {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let _ = socket.write_all(bytes).await;
        let mut rest = Vec::new();
        let read = timeout(Duration::from_secs(3), socket.read_to_end(&mut rest)).await;
        assert!(read.is_ok(), "{bytes:?} leaves the connection open");
        assert!(rest.len() < 64, "{rest:?}");
    }
}

#[tokio::test]
async fn handshakes_that_do_not_end_are_closed_in_time_and_disturb_nobody() {
    let identity = Identity::new();
    let bench = identity.bench(Config { connect_deadline: Duration::from_millis(500), ..config() }).await;
    let mut half_open = Vec::new();
    for _ in 0..200 {
        let mut socket = TcpStream::connect(bench.tls.unwrap()).await.unwrap();
        socket.write_all(b"\x16\x03\x01\x02\x00\x01").await.unwrap();
        half_open.push(socket);
    }
    let device = bench.register("dev").await;
    let tls = identity.secure(bench.tls.unwrap()).await;
    let mut client = Client::on(Box::new(tls)).said(connect(&bench, "dev", Version::V5)).await;
    client.connack().await;
    for mut socket in half_open {
        let mut rest = [0; 16];
        let end = timeout(Duration::from_secs(5), socket.read(&mut rest)).await.expect("it stays open");
        assert!(matches!(end, Ok(0) | Err(_)));
    }
    bench.unicast(device, 1).await;
    client.take().await;
}
