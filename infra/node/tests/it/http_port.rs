//! Devices on the HTTP port: by WebSocket and by events, beside products and on connections that have asked for other
//! things before.

use std::time::Duration;

use lab::{
    Audience,
    api::{Profile, Send},
};
use model::DeviceId;
use mqtt::{Packet, Reason, Version, packet::Connect, wire};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::timeout,
};

use crate::{clients::acked, sandbox::Sandbox};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

const UPGRADE: &str = "GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Protocol: mqtt\r\n\r\n";

/// A connection to the HTTP port.
struct Wire(BufReader<TcpStream>);

impl Wire {
    async fn open(sandbox: &Sandbox) -> Self {
        Self(BufReader::new(TcpStream::connect(sandbox.http).await.unwrap()))
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        timeout(PATIENCE, self.0.read_line(&mut line)).await.expect("nothing came").unwrap();
        line.trim_end().to_owned()
    }

    /// The head of an answer, and its body if that has a length.
    async fn answer(&mut self) -> (String, Vec<u8>) {
        let (mut head, mut length) = (self.line().await, 0);
        loop {
            let line = self.line().await.to_lowercase();
            if line.is_empty() {
                break;
            }
            length = line.strip_prefix("content-length: ").map_or(length, |length| length.parse().unwrap());
            head = format!("{head}\n{line}");
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.unwrap();
        (head, body)
    }

    /// A packet in a frame of the server.
    async fn packet(&mut self) -> Packet {
        let mut header = [0; 2];
        timeout(PATIENCE, self.0.read_exact(&mut header)).await.expect("nothing came").unwrap();
        let length = match header[1] {
            126 => usize::from(self.0.read_u16().await.unwrap()),
            length => usize::from(length),
        };
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).await.unwrap();
        wire::decode(&payload, Version::V5).unwrap()
    }
}

/// A packet in a frame of a client.
fn framed(packet: &Packet) -> Vec<u8> {
    let mut payload = Vec::new();
    wire::encode(packet, Version::V5, &mut payload).unwrap();
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mask = [0; 4];
    [&[0x82, 0x80 | 126][..], &length, &mask, &payload].concat()
}

async fn token(sandbox: &Sandbox, id: &DeviceId) -> String {
    sandbox.api().register(id, &Profile::default()).await.unwrap();
    sandbox.api().token(id, 600).await.unwrap().token
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_comes_in_by_websocket_on_a_connection_that_has_asked_for_other_things() {
    let sandbox = Sandbox::new();
    let server = sandbox.start().await;
    let id: DeviceId = "dev-1".parse().unwrap();
    let mut connect = Connect::new(Version::V5, id.as_str());
    (connect.username, connect.password) = (Some("demo".into()), Some(token(&sandbox, &id).await.into_bytes()));

    let mut wire = Wire::open(&sandbox).await;
    wire.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(wire.answer().await.0.starts_with("HTTP/1.1 200 "));
    // It does not wait for the answer, as some do.
    wire.write(&[UPGRADE.as_bytes(), &framed(&Packet::Connect(Box::new(connect)))].concat()).await;
    let (switched, _) = wire.answer().await;
    assert!(switched.starts_with("HTTP/1.1 101 ") && switched.contains("sec-websocket-protocol: mqtt"), "{switched}");
    assert!(matches!(wire.packet().await, Packet::ConnAck(ack) if ack.reason == Reason::SUCCESS));
    sandbox.api().send(&Send::named("hello", Audience::device(&id), 60)).await.unwrap();
    let Packet::Publish(message) = wire.packet().await else { panic!("not a message") };
    assert_eq!(Send::name_in(&message.payload), Some("hello"));
    server.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_listens_to_events_and_acks_on_the_same_port_as_products() {
    let sandbox = Sandbox::new();
    let server = sandbox.start().await;
    let id: DeviceId = "dev-1".parse().unwrap();
    let token = token(&sandbox, &id).await;
    let mut stream = Wire::open(&sandbox).await;
    stream.write(format!("GET /v1/stream?token={token} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await;
    let (opened, _) = stream.answer().await;
    assert!(opened.starts_with("HTTP/1.1 200 ") && opened.contains("text/event-stream"), "{opened}");
    let sent = sandbox.api().send(&Send::named("hello", Audience::device(&id), 60)).await.unwrap();
    let position = loop {
        if let Some(id) = stream.line().await.strip_prefix("id: ") {
            break id.to_owned();
        }
    };
    let mut posts = Wire::open(&sandbox).await;
    let ack = format!(r#"{{"up_to":"{position}"}}"#);
    let head = format!("POST /v1/stream/ack?token={token} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    posts.write(format!("{head}{:x}\r\n{ack}\r\n0\r\n\r\n", ack.len()).as_bytes()).await;
    assert!(posts.answer().await.0.starts_with("HTTP/1.1 204 "));
    acked(&sandbox, &sandbox.api(), &[sent.id], &id).await;
    server.kill().await.unwrap();
}
