//! Many devices under one command, and how many of them are connected.

use std::{
    net::{IpAddr, Ipv4Addr},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use model::{DeviceId, Position};
use mqtt::Reason;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    Arrival, Device, Error, Observer, Orders,
    device::{Identity, Line},
};

/// Loopback addresses the devices share: each has about 28,000 ports, less those that linger in TIME_WAIT.
const SOURCES: u8 = 8;
/// Descriptors beside the devices' sockets.
const OTHER_DESCRIPTORS: u64 = 500;
/// How often a count is looked at while somebody waits for it.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Counts connections on the way to the real observer.
struct Counted {
    inner: Arc<dyn Observer>,
    connected: AtomicUsize,
    opened: AtomicUsize,
    refused: AtomicUsize,
}

impl Counted {
    fn new(inner: Arc<dyn Observer>) -> Self {
        let (connected, opened, refused) = Default::default();
        Self { inner, connected, opened, refused }
    }
}

impl Observer for Counted {
    fn arrived(&self, arrival: &Arrival<'_>) {
        self.inner.arrived(arrival);
    }

    fn connected(&self, number: u32) {
        self.connected.fetch_add(1, Relaxed);
        self.opened.fetch_add(1, Relaxed);
        self.inner.connected(number);
    }

    fn stated(&self, number: u32, device: &DeviceId, after: Position) {
        self.inner.stated(number, device, after);
    }

    fn disconnected(&self, number: u32) {
        self.connected.fetch_sub(1, Relaxed);
        self.inner.disconnected(number);
    }

    fn refused(&self, number: u32, reason: Reason) {
        self.refused.fetch_add(1, Relaxed);
        self.inner.refused(number, reason);
    }

    fn strange(&self, number: u32, what: &str) {
        self.inner.strange(number, what);
    }
}

/// Devices at the ready; they hang up when the fleet is dropped.
pub struct Fleet {
    orders: Vec<watch::Sender<Orders>>,
    counted: Arc<Counted>,
    tasks: JoinSet<Device>,
}

impl Fleet {
    /// Devices that stay offline until told otherwise. To loopback servers they connect from several addresses.
    pub fn new(identities: Vec<Identity>, line: Line, observer: Arc<dyn Observer>) -> Self {
        let wanted = u64::try_from(identities.len()).unwrap_or(u64::MAX).saturating_add(OTHER_DESCRIPTORS);
        drop(rlimit::increase_nofile_limit(wanted)); // too few show as refused connections
        let connecting = Arc::new(Semaphore::new(line.connecting_max));
        let counted = Arc::new(Counted::new(observer));
        let mut tasks = JoinSet::new();
        let start = |identity: Identity| {
            let (sender, receiver) = watch::channel(Orders::default());
            let source = line.source.or_else(|| source(&line, identity.number));
            let line = Line { source, ..line.clone() };
            let device = Device::new(identity, line, counted.clone(), connecting.clone());
            tasks.spawn(device.run(receiver));
            sender
        };
        let orders = identities.into_iter().map(start).collect();
        Self { orders, counted, tasks }
    }

    /// How many devices there are.
    pub fn len(&self) -> usize {
        self.orders.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.orders.is_empty()
    }

    /// Gives the devices in `range` (in the order they were given) new orders.
    pub fn order(&self, range: Range<usize>, orders: Orders) {
        for sender in &self.orders[range] {
            sender.send_if_modified(|old| std::mem::replace(old, orders) != orders);
        }
    }

    /// How many devices are connected now.
    pub fn connected(&self) -> usize {
        self.counted.connected.load(Relaxed)
    }

    /// How many connections have been opened so far.
    pub fn opened(&self) -> usize {
        self.counted.opened.load(Relaxed)
    }

    /// How many connections the server refused or ended with a reason.
    pub fn refused(&self) -> usize {
        self.counted.refused.load(Relaxed)
    }

    /// Waits until exactly `count` devices are connected.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when that is not so within `patience`.
    pub async fn wait_connected(&self, count: usize, patience: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + patience;
        while self.connected() != count {
            if Instant::now() >= deadline {
                let (connected, refused) = (self.connected(), self.refused());
                let detail = format!("{connected} of {count} devices after {patience:?}; {refused} refused");
                return Err(Error::unavailable("not_connected", detail));
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Hangs up and waits until every device has.
    pub async fn close(mut self) {
        self.orders.clear();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// The loopback address that a device connects from, when the servers are on loopback.
fn source(line: &Line, number: u32) -> Option<IpAddr> {
    let last = u8::try_from(number % u32::from(SOURCES)).unwrap_or(0) + 1;
    line.servers.iter().all(|server| server.ip() == Ipv4Addr::LOCALHOST).then(|| Ipv4Addr::new(127, 0, 0, last).into())
}

#[cfg(test)]
mod tests {
    use mqtt::Version;
    use tokio::net::TcpListener;

    use super::*;
    use crate::device::tests::Wire;

    struct Blind;

    impl Observer for Blind {
        fn arrived(&self, _: &Arrival<'_>) {}
    }

    fn identity(number: u32) -> Identity {
        Identity {
            number,
            id: format!("dev-{number}").parse().unwrap(),
            app: "demo".parse().unwrap(),
            token: String::new(),
            version: Version::V311,
            states_after: false,
        }
    }

    #[tokio::test]
    async fn a_fleet_counts_who_is_connected_and_follows_orders() {
        let patience = Duration::from_secs(10);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let line = Line::to([listener.local_addr().unwrap()], 0);
        let fleet = Fleet::new((0..3).map(identity).collect(), line, Arc::new(Blind));
        let server = tokio::spawn(async move {
            let mut wires = Vec::new();
            while wires.len() < 3 {
                wires.push(Wire::accept(&listener).await.0);
            }
            for wire in &mut wires {
                while wire.packet().await.is_some() {}
            }
        });
        fleet.order(0..2, Orders::ONLINE);
        fleet.wait_connected(2, patience).await.unwrap();
        assert!(fleet.wait_connected(3, Duration::from_millis(50)).await.is_err());
        fleet.order(0..3, Orders::ONLINE);
        fleet.wait_connected(3, patience).await.unwrap();
        fleet.order(1..3, Orders::default());
        fleet.wait_connected(1, patience).await.unwrap();
        fleet.close().await;
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_device_whose_server_is_gone_takes_the_next() {
        let [gone, there] =
            [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap()];
        let servers = [gone.local_addr().unwrap(), there.local_addr().unwrap()];
        drop(gone);
        let fleet = Fleet::new(vec![identity(0)], Line::to(servers, 0), Arc::new(Blind));
        fleet.order(0..1, Orders::ONLINE);
        let (_wire, connect) = Wire::accept(&there).await;
        assert_eq!(connect.client_id, "dev-0");
    }
}
