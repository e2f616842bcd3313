//! A terminal that does what a test tells it, packet by packet.

use std::time::Duration;

use lab::{
    Api,
    api::{Profile, Token},
};
use mqtt::{
    Packet, Reason, Version,
    packet::{Connect, PubAck, Publish},
    wire,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::sandbox::Sandbox;

/// Longer than anything that is to come takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Long enough for what is on its way.
const SILENCE: Duration = Duration::from_millis(1_500);

pub(crate) struct Terminal {
    stream: TcpStream,
    version: Version,
    bytes: Vec<u8>,
    packet_id: u16,
}

impl Terminal {
    /// Registers a device and opens a session for it.
    pub(crate) async fn open(sandbox: &Sandbox, api: &Api, device: &str, version: Version) -> Self {
        let id = device.parse().unwrap();
        api.register(&id, &Profile::default()).await.unwrap();
        let Token { token, app } = api.token(&id, 600).await.unwrap();
        let stream = TcpStream::connect(sandbox.mqtt).await.unwrap();
        let mut terminal = Self { stream, version, bytes: Vec::new(), packet_id: 0 };
        let (username, password) = (Some(app.to_string()), Some(token.into_bytes()));
        let connect = Connect { username, password, keep_alive_s: 60, ..Connect::new(version, device) };
        terminal.send(&Packet::Connect(Box::new(connect))).await;
        match terminal.next().await {
            Packet::ConnAck(ack) => assert_eq!(ack.reason, Reason::SUCCESS),
            other => panic!("instead of CONNACK: {other:?}"),
        }
        terminal
    }

    /// Publishes with QoS 1; the answer's reason. Nothing else may come before it.
    pub(crate) async fn publish(&mut self, publish: Publish) -> Reason {
        self.packet_id += 1;
        self.send(&Packet::Publish(Box::new(Publish { qos: 1, packet_id: self.packet_id, ..publish }))).await;
        match self.next().await {
            Packet::PubAck(ack) if ack.packet_id == self.packet_id => ack.reason,
            other => panic!("instead of PUBACK: {other:?}"),
        }
    }

    /// The next message, acked.
    pub(crate) async fn take(&mut self) -> Publish {
        let message = self.next().await;
        self.ack(message).await
    }

    async fn ack(&mut self, message: Packet) -> Publish {
        match message {
            Packet::Publish(publish) => {
                let ack = PubAck { packet_id: publish.packet_id, reason: Reason::SUCCESS };
                self.send(&Packet::PubAck(ack)).await;
                *publish
            }
            other => panic!("instead of a message: {other:?}"),
        }
    }

    /// Pings: the message that waited for the device to be awake comes with the answer, before or after it. It is acked.
    pub(crate) async fn take_pinging(&mut self) -> Publish {
        self.send(&Packet::PingReq).await;
        let packets = [self.next().await, self.next().await];
        assert!(packets.contains(&Packet::PingResp), "{packets:?}");
        let message = packets.into_iter().find(|packet| *packet != Packet::PingResp).unwrap();
        self.ack(message).await
    }

    /// Nothing comes.
    pub(crate) async fn hears_nothing(&mut self) {
        let heard = timeout(SILENCE, self.read()).await;
        assert!(heard.is_err(), "heard {heard:?}");
    }

    async fn next(&mut self) -> Packet {
        timeout(PATIENCE, self.read()).await.expect("nothing came")
    }

    async fn send(&mut self, packet: &Packet) {
        let mut bytes = Vec::new();
        wire::encode(packet, self.version, &mut bytes).unwrap();
        self.stream.write_all(&bytes).await.unwrap();
    }

    async fn read(&mut self) -> Packet {
        loop {
            let len = wire::frame_len(&self.bytes, usize::MAX).unwrap();
            if let Some(len) = len.filter(|len| *len <= self.bytes.len()) {
                let frame: Vec<u8> = self.bytes.drain(..len).collect();
                return wire::decode(&frame, self.version).unwrap();
            }
            assert!(self.stream.read_buf(&mut self.bytes).await.unwrap() > 0, "the link is closed");
        }
    }
}
