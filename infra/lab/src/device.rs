//! A simulated terminal: speaks MQTT as a good client does, follows the client rule, and misbehaves only as ordered.
//!
//! It is light enough for 15,000 in one process: one task each, and no buffer while nothing is under way.

pub mod arrival;
mod link;
pub mod reporter;
mod session;

use std::{net::IpAddr, net::SocketAddr, num::NonZeroU32, sync::Arc, time::Duration};

use model::{AppId, DeviceId, Position};
use mqtt::{Reason, Version};
use tokio::{
    net::TcpStream,
    sync::{Semaphore, watch},
};

pub use arrival::Arrival;

use crate::received::Received;

/// Shortest pause before a device comes back.
const BACK_OFF_MIN: Duration = Duration::from_millis(50);
/// Longest pause: a server that restarts is found again soon enough for a test.
const BACK_OFF_MAX: Duration = Duration::from_secs(3);

/// Who a device is and how it connects.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its number in the run: `proc` in the history.
    pub number: u32,
    /// Its id, also its MQTT client id.
    pub id: DeviceId,
    /// Its app.
    pub app: AppId,
    /// Its token, the MQTT password.
    pub token: String,
    /// The version it speaks.
    pub version: Version,
    /// Whether it states the position it has received up to when it connects.
    pub states_after: bool,
}

/// Where devices connect.
#[derive(Clone, Debug)]
pub struct Line {
    /// The access points' MQTT listeners: a device takes the next one in turn whenever it connects.
    pub servers: Arc<[SocketAddr]>,
    /// The address to connect from; one address has about 28,000 ports.
    pub source: Option<IpAddr>,
    /// The keep alive asked for, in seconds; zero for none.
    pub keep_alive_s: u16,
}

/// How a device misbehaves. The default is not at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Every so-many-th PUBACK is lost.
    pub lose_ack_every: Option<NonZeroU32>,
    /// Nothing is ever acked.
    pub never_ack: bool,
    /// PUBACKs are sent this long after the message came.
    pub ack_late: Option<Duration>,
    /// Nothing is read from the socket after CONNACK, though it stays open and PINGREQs go out.
    pub deaf: bool,
    /// The connection is cut without a word after a random time, this long on average.
    pub cut_after: Option<Duration>,
    /// What is cut stays open at this end until the next is cut, as when a phone changes networks: the server cannot
    /// know that nobody listens there any more.
    pub lingers: bool,
}

/// What a device is to do; it may change at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// Be connected, and come back when the connection ends.
    pub online: bool,
    /// Misbehave so.
    pub faults: Faults,
}

impl Orders {
    /// Be connected and behave.
    pub const ONLINE: Self = Self {
        online: true,
        faults: Faults {
            lose_ack_every: None,
            never_ack: false,
            ack_late: None,
            deaf: false,
            cut_after: None,
            lingers: false,
        },
    };
}

/// Who watches devices. Called from their tasks, so it must be quick and must not block.
pub trait Observer: Send + Sync {
    /// A message came off the wire.
    fn arrived(&self, arrival: &Arrival<'_>);

    /// The server took a device's CONNECT.
    fn connected(&self, _number: u32) {}

    /// The server took a CONNECT that stated this position: the device has everything up to it.
    fn stated(&self, _number: u32, _device: &DeviceId, _after: Position) {}

    /// A connection that [`connected`](Self::connected) told of is over.
    fn disconnected(&self, _number: u32) {}

    /// The server refused a CONNECT, or said why it closes.
    fn refused(&self, _number: u32, _reason: Reason) {}

    /// Something came that the contract does not know.
    fn strange(&self, number: u32, what: &str) {
        tracing::warn!(device.number = number, "{what}");
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The device was told to go.
    Own,
    /// The device cut it.
    Cut,
    /// The server or the network ended it after it had been open.
    Lost,
    /// It never came to be open.
    Refused,
}

/// A terminal. What it has received stays with it over all its connections.
pub struct Device {
    identity: Identity,
    line: Line,
    observer: Arc<dyn Observer>,
    /// Shared by a fleet, so that the server's backlog is not overrun.
    connecting: Arc<Semaphore>,
    received: Received,
    /// Which server is next.
    turn: usize,
    links: u32,
    acks_due: u32,
    /// A connection that it has given up without saying so.
    lingering: Option<TcpStream>,
}

impl Device {
    /// A device that has received nothing yet. At most as many devices as `connecting` has permits connect at a time.
    pub fn new(identity: Identity, line: Line, observer: Arc<dyn Observer>, connecting: Arc<Semaphore>) -> Self {
        let turn = usize::try_from(identity.number).unwrap_or(0); // a fleet begins at all of them
        let received = Received::default();
        Self { identity, line, observer, connecting, received, turn, links: 0, acks_due: 0, lingering: None }
    }

    /// Follows orders until their sender is gone; then hangs up and gives the device back with all it remembers.
    pub async fn run(mut self, mut orders: watch::Receiver<Orders>) -> Self {
        let mut back_off = BACK_OFF_MIN;
        // `wait_for` alone takes the last value even when its sender is gone.
        while orders.wait_for(|orders| orders.online).await.is_ok() && orders.has_changed().is_ok() {
            back_off = match self.session(&mut orders).await {
                End::Own | End::Cut | End::Lost => BACK_OFF_MIN,
                End::Refused => (back_off * 2).min(BACK_OFF_MAX),
            };
            let pause = rand::random_range(back_off / 2..=back_off);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                gone = orders.wait_for(|orders| !orders.online) => drop(gone),
            }
        }
        self
    }

    /// Whether the next PUBACK is really sent.
    fn acks_next(&mut self, faults: &Faults) -> bool {
        self.acks_due = self.acks_due.wrapping_add(1);
        !faults.never_ack && faults.lose_ack_every.is_none_or(|n| self.acks_due % n != 0)
    }
}

#[cfg(test)]
pub(crate) mod tests;
