//! A device that says as little as the contract allows.

use std::collections::VecDeque;

use model::DeviceId;
use mqtt::{
    Coding, Packet, Reason, Version,
    packet::{Connect, PubAck, Publish},
    publish::CONTENT_ENCODING,
    wire,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::line::{BINARY, Line};
use crate::{Error, api::Token};

/// The largest packet, and the largest page when it is unpacked.
const PACKET_MAX_BYTES: usize = 256 * 1_024;

/// What a device asks for at a time; fewer come when they are large.
const LIMIT: usize = 100;

/// A connected device.
pub(super) struct Terminal {
    line: Line,
    version: Version,
    bytes: Vec<u8>,
    packets: VecDeque<Packet>,
    app: String,
}

/// What was fetched.
pub(super) struct Page {
    pub(super) count: u32,
    pub(super) position: String,
    /// Whether there is more to be fetched.
    pub(super) more: bool,
}

impl Terminal {
    pub(super) async fn connect(
        line: Line,
        version: Version,
        id: &DeviceId,
        token: &Token,
        options: &str,
    ) -> Result<Self, Error> {
        let app = token.app.to_string();
        let mut terminal = Self { line, version, bytes: Vec::new(), packets: VecDeque::new(), app };
        let connect = Connect {
            username: Some(format!("{}?{options}", token.app)),
            password: Some(token.token.clone().into_bytes()),
            keep_alive_s: 300,
            ..Connect::new(version, id.as_str())
        };
        terminal.send(&Packet::Connect(Box::new(connect))).await?;
        match terminal.next().await? {
            Packet::ConnAck(ack) if ack.reason == Reason::SUCCESS => Ok(terminal),
            other => Err(unexpected(&other)),
        }
    }

    /// Receives a message and acks it.
    pub(super) async fn receive(&mut self) -> Result<(), Error> {
        match self.next().await? {
            Packet::Publish(publish) if publish.qos == 1 => self.ack(&publish).await,
            other => Err(unexpected(&other)),
        }
    }

    /// Is told that there is something.
    pub(super) async fn noticed(&mut self) -> Result<(), Error> {
        match self.next().await? {
            Packet::Publish(publish) if publish.qos == 0 => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Fetches what comes after a position. The message that asks is QoS 0: the page is the answer.
    pub(super) async fn fetch(&mut self, after: &str) -> Result<Page, Error> {
        let ask = Publish::new(format!("push/{}/sync", self.app), format!(r#"{{"after":"{after}","limit":{LIMIT}}}"#));
        self.send(&Packet::Publish(Box::new(ask))).await?;
        loop {
            match self.next().await? {
                Packet::Publish(publish) if publish.topic.ends_with("/notify") => {}
                Packet::Publish(publish) => {
                    if publish.qos > 0 {
                        self.ack(&publish).await?;
                    }
                    return page(&publish);
                }
                other => return Err(unexpected(&other)),
            }
        }
    }

    pub(super) async fn ping(&mut self) -> Result<(), Error> {
        self.send(&Packet::PingReq).await?;
        loop {
            match self.next().await? {
                Packet::PingResp => return Ok(()),
                Packet::Publish(publish) if publish.qos == 0 => {}
                other => return Err(unexpected(&other)),
            }
        }
    }

    async fn ack(&mut self, publish: &Publish) -> Result<(), Error> {
        self.send(&Packet::PubAck(PubAck { packet_id: publish.packet_id, reason: Reason::SUCCESS })).await
    }

    async fn send(&mut self, packet: &Packet) -> Result<(), Error> {
        let mut bytes = Vec::new();
        wire::encode(packet, self.version, &mut bytes).map_err(broken)?;
        self.line.send(BINARY, &bytes).await
    }

    async fn next(&mut self) -> Result<Packet, Error> {
        loop {
            if let Some(packet) = self.packets.pop_front() {
                return Ok(packet);
            }
            self.line.receive(&mut self.bytes).await?;
            while let Some(len) = wire::frame_len(&self.bytes, PACKET_MAX_BYTES).map_err(broken)?
                && len <= self.bytes.len()
            {
                let frame: Vec<u8> = self.bytes.drain(..len).collect();
                self.packets.push_back(wire::decode(&frame, self.version).map_err(broken)?);
            }
        }
    }
}

fn page(publish: &Publish) -> Result<Page, Error> {
    #[derive(Deserialize)]
    struct Given<'a> {
        #[serde(borrow)]
        messages: Vec<&'a RawValue>,
        position: String,
        more: bool,
    }
    let coding = publish.property(CONTENT_ENCODING).and_then(Coding::best_of);
    let body = match coding {
        Some(coding) => {
            coding.unpack(&publish.payload, PACKET_MAX_BYTES).map_err(|error| Error::Corrupt(error.to_string()))?
        }
        None => publish.payload.clone(),
    };
    let Given { messages, position, more } =
        serde_json::from_slice(&body).map_err(|error| Error::Corrupt(error.to_string()))?;
    Ok(Page { count: u32::try_from(messages.len()).unwrap_or(u32::MAX), position, more })
}

fn unexpected(packet: &Packet) -> Error {
    Error::Corrupt(format!("a server sends {packet:?}"))
}

fn broken(error: wire::Error) -> Error {
    Error::Corrupt(error.to_string())
}
