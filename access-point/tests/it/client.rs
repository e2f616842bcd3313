//! A device that does exactly what a test tells it.

use std::{net::SocketAddr, time::Duration};

use model::{Position, Seq};
use mqtt::{
    Packet, Reason, Version,
    packet::{ConnAck, Connect, Disconnect, PubAck, Publish},
    wire,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::{bench::Bench, via::Duplex};

/// Longer than anything a test waits for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Long enough that a packet on its way would have come.
const SILENCE: Duration = Duration::from_millis(300);

pub(crate) struct Client {
    stream: Box<dyn Duplex>,
    version: Version,
    bytes: Vec<u8>,
}

/// The CONNECT of a device with a good token.
pub(crate) fn connect(bench: &Bench, device: &str, version: Version) -> Connect {
    let username = Some("demo".into());
    let password = Some(bench.token(device).into_bytes());
    Connect { username, password, keep_alive_s: 60, ..Connect::new(version, device) }
}

impl Client {
    /// A socket on which nothing was said.
    pub(crate) async fn silent(address: SocketAddr) -> Self {
        Self::on(Box::new(TcpStream::connect(address).await.unwrap()))
    }

    /// The same on a stream of any kind.
    pub(crate) fn on(stream: Box<dyn Duplex>) -> Self {
        Self { stream, version: Version::V5, bytes: Vec::new() }
    }

    /// Says CONNECT from another loopback address.
    pub(crate) async fn dial_from(source: [u8; 4], address: SocketAddr, connect: Connect) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        let stream = socket.connect(address).await.unwrap();
        let mut client = Self { stream: Box::new(stream), version: connect.version, bytes: Vec::new() };
        client.send(&Packet::Connect(Box::new(connect))).await;
        client
    }

    /// Says CONNECT.
    pub(crate) async fn dial(address: SocketAddr, connect: Connect) -> Self {
        Self::silent(address).await.said(connect).await
    }

    /// Having said CONNECT.
    pub(crate) async fn said(mut self, connect: Connect) -> Self {
        self.version = connect.version;
        self.send(&Packet::Connect(Box::new(connect))).await;
        self
    }

    /// An open session.
    pub(crate) async fn open(bench: &Bench, device: &str) -> Self {
        Self::open_with(bench.address, connect(bench, device, Version::V5)).await
    }

    pub(crate) async fn open_with(address: SocketAddr, connect: Connect) -> Self {
        let mut client = Self::dial(address, connect).await;
        assert_eq!(client.connack().await.reason, Reason::SUCCESS);
        client
    }

    pub(crate) async fn connack(&mut self) -> ConnAck {
        match self.next().await {
            Some(Packet::ConnAck(ack)) => *ack,
            other => panic!("instead of CONNACK: {other:?}"),
        }
    }

    pub(crate) async fn send(&mut self, packet: &Packet) {
        let mut bytes = Vec::new();
        wire::encode(packet, self.version, &mut bytes).unwrap();
        self.send_bytes(&bytes).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// The next packet; `None` when the link is closed.
    pub(crate) async fn next(&mut self) -> Option<Packet> {
        timeout(PATIENCE, self.read()).await.expect("nothing came")
    }

    /// The next message.
    pub(crate) async fn message(&mut self) -> Publish {
        match self.next().await {
            Some(Packet::Publish(publish)) => *publish,
            other => panic!("instead of a message: {other:?}"),
        }
    }

    /// The next message, acked.
    pub(crate) async fn take(&mut self) -> Publish {
        let message = self.message().await;
        self.ack(&message).await;
        message
    }

    pub(crate) async fn ack(&mut self, message: &Publish) {
        self.ack_with(message, Reason::SUCCESS).await;
    }

    pub(crate) async fn ack_with(&mut self, message: &Publish, reason: Reason) {
        self.send(&Packet::PubAck(PubAck { packet_id: message.packet_id, reason })).await;
    }

    /// Nothing comes, and the link stays open.
    pub(crate) async fn hears_nothing(&mut self) {
        let heard = timeout(SILENCE, self.read()).await;
        assert!(heard.is_err(), "heard {heard:?}");
    }

    /// The DISCONNECT that comes next.
    pub(crate) async fn disconnect(&mut self) -> Disconnect {
        match self.next().await {
            Some(Packet::Disconnect(disconnect)) => disconnect,
            other => panic!("instead of DISCONNECT: {other:?}"),
        }
    }

    /// The reason of the DISCONNECT that comes next; `None` when the link just closes.
    pub(crate) async fn dismissed(&mut self) -> Option<Reason> {
        match self.next().await {
            None => None,
            Some(Packet::Disconnect(disconnect)) => {
                assert_eq!(self.next().await, None, "after a DISCONNECT the link is closed");
                Some(disconnect.reason)
            }
            other => panic!("instead of the end: {other:?}"),
        }
    }

    /// Publishes with QoS 1 and returns the answer's reason.
    pub(crate) async fn publish(&mut self, topic: &str, payload: impl Into<bytes::Bytes>) -> Reason {
        let publish = Publish { qos: 1, packet_id: 77, ..Publish::new(topic, payload) };
        self.send(&Packet::Publish(Box::new(publish))).await;
        match self.next().await {
            Some(Packet::PubAck(ack)) => {
                assert_eq!(ack.packet_id, 77);
                ack.reason
            }
            other => panic!("instead of PUBACK: {other:?}"),
        }
    }

    /// Raw bytes, for answers to what is not MQTT 5.
    pub(crate) async fn read_exactly(&mut self, bytes: &mut [u8]) {
        timeout(PATIENCE, self.stream.read_exact(bytes)).await.expect("nothing came").unwrap();
    }

    async fn read(&mut self) -> Option<Packet> {
        loop {
            if let Some(len) = wire::frame_len(&self.bytes, usize::MAX).unwrap().filter(|len| *len <= self.bytes.len())
            {
                let frame: Vec<u8> = self.bytes.drain(..len).collect();
                return Some(wire::decode(&frame, self.version).unwrap());
            }
            if self.stream.read_buf(&mut self.bytes).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }
}

/// The number in a message's payload.
pub(crate) fn number(message: &Publish) -> usize {
    let json: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
    let number = json.get("n").or_else(|| json.get("payload")?.get("n"));
    number.and_then(serde_json::Value::as_u64).unwrap().try_into().unwrap()
}

/// The position after a message.
pub(crate) fn seq(message: &Publish) -> Seq {
    Seq(message.property("seq").unwrap()[1..].parse().unwrap())
}

/// As a device states it.
pub(crate) fn stated(inbox: Seq, timeline: Seq) -> String {
    Position { inbox, timeline }.to_string()
}
