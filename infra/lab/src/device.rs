//! A simulated terminal: speaks MQTT as a good client does, follows the client rule, and misbehaves only as ordered.
//!
//! It is light enough for 15,000 in one process: one task each, and no buffer while nothing is under way.

pub mod arrival;
mod direction;
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

/// Devices that are between SYN and CONNACK at a time, when nobody says: well below the server's listen backlog.
const CONNECTING_MAX: usize = 512;

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
    /// How long devices pause before they come back.
    pub pauses: Pauses,
    /// Devices of a fleet that are between SYN and CONNACK at a time.
    pub connecting_max: usize,
    /// What the system keeps for a device that does not read, in bytes, of which it makes the double; absent: as it likes.
    pub receive_buffer_bytes: Option<u32>,
}

impl Line {
    /// To these servers, with nothing special about it.
    pub fn to(servers: impl Into<Arc<[SocketAddr]>>, keep_alive_s: u16) -> Self {
        let (servers, source, receive_buffer_bytes) = (servers.into(), None, None);
        let (pauses, connecting_max) = (Pauses::SHORT, CONNECTING_MAX);
        Self { servers, source, keep_alive_s, pauses, connecting_max, receive_buffer_bytes }
    }
}

/// How long a device pauses before it comes back: anywhere up to a bound, which doubles with each failure in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pauses {
    /// The bound after a link that was open.
    pub first: Duration,
    /// The longest.
    pub longest: Duration,
}

impl Pauses {
    /// A server that restarts is found again soon enough for a test.
    pub const SHORT: Self = Self { first: Duration::from_millis(50), longest: Duration::from_secs(3) };
    /// As the terminal SDKs have it.
    pub const OF_SDKS: Self = Self { first: Duration::from_secs(2), longest: Duration::from_secs(60) };
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
    /// Counts the times that all links are cut without a word: one that was opened under another number is over.
    pub storm: u32,
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
        storm: 0,
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
        let Pauses { first, longest } = self.line.pauses;
        let mut bound = first;
        // `wait_for` alone takes the last value even when its sender is gone.
        while orders.wait_for(|orders| orders.online).await.is_ok() && orders.has_changed().is_ok() {
            bound = match self.session(&mut orders).await {
                End::Own | End::Cut | End::Lost => first,
                End::Refused => (bound * 2).min(longest),
            };
            let pause = rand::random_range(Duration::ZERO..=bound);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                gone = orders.wait_for(|orders| !orders.online) => drop(gone),
            }
        }
        self
    }

    /// The next connection is to this server, if it is one of those known.
    fn go_to(&mut self, server: SocketAddr) {
        self.turn = self.line.servers.iter().position(|known| *known == server).unwrap_or(self.turn);
    }

    /// Whether the next PUBACK is really sent.
    fn acks_next(&mut self, faults: &Faults) -> bool {
        self.acks_due = self.acks_due.wrapping_add(1);
        !faults.never_ack && faults.lose_ack_every.is_none_or(|n| self.acks_due % n != 0)
    }
}

#[cfg(test)]
pub(crate) mod tests;
