//! A terminal that only reports about itself, and waits for the ack of each report. What comes to it stays unacked.

use std::{net::SocketAddr, time::Duration};

use model::AppId;
use mqtt::{
    Packet, Reason, Version,
    packet::{Connect, Publish},
};
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};

use super::{Identity, link::Link};
use crate::Error;

/// Longest wait for a CONNACK or a PUBACK.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that reports go over.
pub struct Reporter {
    link: Link,
    app: AppId,
    packet_id: u16,
}

impl Reporter {
    /// Connects.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the server is not there or does not let the device in.
    pub async fn connect(identity: &Identity, server: SocketAddr) -> Result<Self, Error> {
        let link = Link::new(TcpStream::connect(server).await?, Version::V5);
        let mut reporter = Self { link, app: identity.app.clone(), packet_id: 0 };
        let mut connect = Connect::new(Version::V5, identity.id.as_str());
        connect.username = Some(identity.app.to_string());
        connect.password = Some(identity.token.clone().into_bytes());
        let let_in = |packet: &Packet| match packet {
            Packet::ConnAck(ack) => Some(ack.reason),
            _ => None,
        };
        reporter.exchange(&Packet::Connect(Box::new(connect)), let_in).await?;
        Ok(reporter)
    }

    /// Reports a JSON merge patch of what is known about the device; it is durable when this returns.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: it may have been taken all the same; connect again.
    pub async fn report(&mut self, patch: &Value) -> Result<(), Error> {
        self.packet_id = self.packet_id.checked_add(1).unwrap_or(1);
        let packet_id = self.packet_id;
        let mut publish = Publish::new(format!("push/{}/attr", self.app), patch.to_string());
        (publish.qos, publish.packet_id) = (1, packet_id);
        let acked = move |packet: &Packet| match packet {
            Packet::PubAck(ack) if ack.packet_id == packet_id => Some(ack.reason),
            _ => None,
        };
        self.exchange(&Packet::Publish(Box::new(publish)), acked).await
    }

    /// Sends a packet and waits for its answer.
    async fn exchange(&mut self, packet: &Packet, answer: impl Fn(&Packet) -> Option<Reason>) -> Result<(), Error> {
        let link = &mut self.link;
        let exchange = async {
            link.push(packet)?;
            link.flush()?;
            let mut reason = None;
            while reason.is_none() {
                if link.has_unsent() {
                    link.stream.writable().await?;
                    link.flush()?;
                    continue;
                }
                link.stream.readable().await?;
                link.read(|packet| reason = reason.or_else(|| answer(&packet)))?;
            }
            Ok::<_, Error>(reason)
        };
        let late = |_| Error::unavailable("no_answer", format!("none within {ANSWER_TIMEOUT:?}"));
        match timeout(ANSWER_TIMEOUT, exchange).await.map_err(late)?? {
            Some(Reason::SUCCESS) | None => Ok(()),
            Some(reason) => Err(Error::unavailable("refused", format!("{reason:?}"))),
        }
    }
}
