//! Devices connect here: MQTT 3.1.1 and 5 over TCP, TLS and WebSocket. An access point knows who is connected, reads their streams after
//! a bell or a sweep, and tells how far each has come.
//!
//! It keeps marks, not messages: whatever a device has not acked is read again from the store. Sessions stay open
//! while the broker or the store is away.

mod address;
mod admit;
mod arrival;
mod auth;
mod bell;
mod bind;
mod calm;
mod certificates;
mod close;
mod connection;
mod control;
mod doze;
mod drain;
mod entry;
mod errand;
mod fetch;
mod flap;
mod heartbeat;
mod inbound;
mod line;
mod link;
mod listen;
mod metrics;
mod open;
mod outbox;
mod pace;
mod packed;
mod parting;
mod peer;
mod pull;
mod pulse;
mod quota;
mod registry;
mod revocation;
mod routes;
mod rung;
mod sightings;
mod sse;
mod sweep;
#[cfg(test)]
mod testing;
mod timeline;
mod transport;
mod uplink;
mod wait;
mod worker;

use std::{
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
    time::Duration,
};

use broker::SharedBroker;
use model::{Clock, Endpoint, Lane, NodeId};
use prometheus_client::registry::Registry as MetricsRegistry;
use store::SharedStore;
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore},
    task::JoinSet,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use crate::{
    arrival::Arrivals,
    auth::Apps,
    calm::Calm,
    close::Close,
    drain::Drains,
    entry::{Arrived, Door},
    heartbeat::Heartbeats,
    metrics::Metrics,
    outbox::Outbox,
    packed::Packed,
    parting::Partings,
    pulse::Pulses,
    quota::Types,
    registry::Registry,
    sightings::Sightings,
    sse::Inlets,
    timeline::Timelines,
    worker::Workers,
};
pub use crate::{
    certificates::{CertificateError, Certificates, TlsFiles},
    transport::proxy::{InvalidNetwork, Network},
};

/// How often devices must be heard, in seconds; a link is dead after one and a half times as long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// Told to MQTT 5 devices that ask for none, or for more than the longest.
    pub default_s: u16,
    /// The shortest.
    pub min_s: u16,
    /// The longest; also what a 3.1.1 device has that asks for none.
    pub max_s: u16,
}

/// How devices are moved to other access points when this one stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// How long it is announced before no connection is taken any more.
    pub wait: Duration,
    /// Devices told to go, a second; more when they would not all be told in time.
    pub per_s: NonZeroU32,
    /// The time for that.
    pub within: Duration,
}

/// What can be set about an access point.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its name: bells and routes lead to it.
    pub node: NodeId,
    /// Open connections; beyond it new ones are closed at once.
    pub connections_max: usize,
    /// Open connections of one address (of an IPv6 network of 64 bits); absent: any number. Behind a proxy all have one.
    pub connections_per_address_max: Option<NonZeroUsize>,
    /// Connections let in a second; the others stand in line, up to twenty seconds. Four times as many are taken from the
    /// system a second, and four times as many closed that are lost. Absent: any number.
    pub connects_per_s: Option<NonZeroU32>,
    /// The largest packet that a device may send once it is known, in bytes.
    pub packet_max_bytes: usize,
    /// How often devices must be heard.
    pub keep_alive: KeepAlive,
    /// A device that does not ack for this long is cut off.
    pub ack_timeout: Duration,
    /// A device that reads nothing for this long, though there is something, is cut off.
    pub write_timeout: Duration,
    /// A connection must have sent CONNECT by then.
    pub connect_deadline: Duration,
    /// Whether a device is registered by its first connection with a valid token.
    pub auto_register: bool,
    /// Shards among which unicasts are divided: as ingest does, or a device's messages overtake each other.
    pub unicast_shards: u8,
    /// How often marks are compared with the streams' heads: bounds the delay after a lost bell.
    pub sweep: Duration,
    /// How devices are moved elsewhere when it stops.
    pub drain: Drain,
    /// Proxies that say who is behind them by the PROXY protocol, version 1 or 2: what comes from there must begin with it.
    pub proxies: Vec<Network>,
}

impl Config {
    /// The defaults, for the access point `node`.
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            connections_max: 18_000,
            connections_per_address_max: None,
            connects_per_s: calm::connects_per_s(),
            packet_max_bytes: 256 * 1024,
            keep_alive: KeepAlive { default_s: 300, min_s: 15, max_s: 1_200 },
            ack_timeout: Duration::from_secs(20),
            write_timeout: Duration::from_secs(20),
            connect_deadline: Duration::from_secs(5),
            auto_register: true,
            unicast_shards: 1,
            sweep: Duration::from_secs(30),
            drain: Drain {
                wait: Duration::from_secs(3),
                per_s: NonZeroU32::new(500).unwrap_or(NonZeroU32::MIN),
                within: Duration::from_secs(10),
            },
            proxies: Vec::new(),
        }
    }
}

/// Where devices come in. On each, the first byte tells MQTT from WebSocket at `/mqtt`.
#[derive(Debug, Default)]
pub struct Listeners {
    /// As it is.
    pub plain: Option<TcpListener>,
    /// Under TLS, and who the server is.
    pub tls: Option<(TcpListener, Arc<Certificates>)>,
}

impl From<TcpListener> for Listeners {
    fn from(plain: TcpListener) -> Self {
        Self { plain: Some(plain), tls: None }
    }
}

/// What an access point works with.
#[derive(Clone)]
pub struct Deps {
    /// Where bells come from, and receipts, uplinks and reports go to.
    pub broker: SharedBroker,
    /// Where streams and cursors are.
    pub store: SharedStore,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// Why an access point stopped.
#[derive(Debug, Error)]
pub enum Error {
    /// The listener is of no use any more.
    #[error("access point: {0}")]
    Listener(#[from] std::io::Error),
    /// TLS cannot be offered.
    #[error("access point: {0}")]
    Tls(#[from] rustls::Error),
    /// A worker is gone, and its sessions with it.
    #[error("access point: a worker has panicked")]
    Worker,
}

/// Sessions that are looked for at the same time: bounds what a storm of devices asks of the store, and what all of them
/// ask when it is back.
const OPENING_MAX: usize = 256;

/// Reads of streams at the same time: the same for sessions that are open.
const READING_MAX: usize = 256;

/// How long sessions have to say goodbye when the access point stops.
const GOODBYE_MAX: Duration = Duration::from_secs(5);

/// What every connection of an access point works with.
pub(crate) struct Site {
    pub(crate) config: Config,
    pub(crate) deps: Deps,
    pub(crate) metrics: Metrics,
    pub(crate) apps: Apps,
    pub(crate) calm: Calm,
    pub(crate) drains: Drains,
    pub(crate) partings: Partings,
    pub(crate) heartbeats: Arc<Heartbeats>,
    pub(crate) arrivals: Arrivals,
    pub(crate) inlets: Inlets,
    pub(crate) registry: Registry,
    pub(crate) timelines: Timelines,
    pub(crate) packed: Packed,
    pub(crate) outbox: Outbox,
    pub(crate) sightings: Sightings,
    pub(crate) types: Types,
    pub(crate) pulses: Pulses,
    /// There are sessions whose routes nobody could be told.
    pub(crate) untold: AtomicBool,
    /// Bells may have been rung that nobody heard.
    pub(crate) unheard: Notify,
    /// The marks of every session were compared.
    pub(crate) swept: Notify,
    /// How often sessions were looked through for revoked tokens: whoever enters meanwhile may have been missed.
    pub(crate) looks: AtomicU64,
    pub(crate) opening: Semaphore,
    pub(crate) reading: Semaphore,
    pub(crate) workers: Workers,
    pub(crate) connections: TaskTracker,
    pub(crate) places: Arc<Semaphore>,
    pub(crate) shutdown: CancellationToken,
}

impl Site {
    /// Open connections.
    pub(crate) fn connections(&self) -> usize {
        self.config.connections_max.saturating_sub(self.places.available_permits())
    }

    /// How full it is here.
    pub(crate) fn endpoint(&self) -> Endpoint {
        let (connections, connections_max) = (self.connections() as u64, self.config.connections_max as u64);
        Endpoint { address: String::new(), tls_address: None, connections, connections_max }
    }
}

/// How an access point is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Open connections.
    pub connections: usize,
    /// The last order to move devices away, and what has come of it.
    pub drain: Option<model::Drain>,
}

/// The access point tier.
pub struct AccessPoint {
    site: Arc<Site>,
}

impl AccessPoint {
    /// Prepares an access point; its metrics go to `registry`.
    pub fn new(config: Config, deps: Deps, registry: &mut MetricsRegistry) -> Self {
        let metrics = Metrics::new(registry);
        let site = Site {
            places: Arc::new(Semaphore::new(config.connections_max)),
            calm: Calm::new(config.connects_per_s, config.connections_per_address_max, metrics.clone()),
            drains: Drains::default(),
            partings: Partings::new(config.connects_per_s),
            sightings: Sightings::new(config.connects_per_s, metrics.sightings_lost.clone()),
            heartbeats: Arc::default(),
            config,
            apps: Apps::new(deps.store.clone()),
            timelines: Timelines::new(deps.store.clone()),
            packed: Packed::new(metrics.clone()),
            outbox: Outbox::new(metrics.clone()),
            deps,
            metrics,
            arrivals: Arrivals::default(),
            inlets: Inlets::default(),
            registry: Registry::default(),
            types: Types::default(),
            pulses: Pulses::default(),
            untold: AtomicBool::new(false),
            unheard: Notify::new(),
            swept: Notify::new(),
            looks: AtomicU64::new(0),
            opening: Semaphore::new(OPENING_MAX),
            reading: Semaphore::new(READING_MAX),
            workers: Workers::new(),
            connections: TaskTracker::new(),
            shutdown: CancellationToken::new(),
        };
        Self { site: Arc::new(site) }
    }

    /// Tells at any time how it is.
    pub fn status(&self) -> impl Fn() -> Status + Send + Sync + 'static {
        let site = self.site.clone();
        move || Status { connections: site.connections(), drain: site.drains.told() }
    }

    /// Lets connections in that came to another listener.
    pub fn entrance(&self) -> Entrance {
        Entrance { site: self.site.clone() }
    }

    /// Serves devices until `shutdown`; then moves them to other access points if there are any, and tells receipts and
    /// cursors.
    ///
    /// # Errors
    /// When a listener is of no use any more, or sessions are not served any more.
    pub async fn run(self, listeners: impl Into<Listeners>, shutdown: CancellationToken) -> Result<(), Error> {
        let site = self.site;
        let (background, mut workers) = (TaskTracker::new(), JoinSet::new());
        let doors = doors(listeners.into(), &site, &background)?;
        site.workers.start(&site, &mut workers);
        for lane in Lane::ALL {
            background.spawn(until(site.shutdown.clone(), bell::listen(site.clone(), lane)));
        }
        background.spawn(until(site.shutdown.clone(), sweep::run(site.clone())));
        background.spawn(until(site.shutdown.clone(), revocation::run(site.clone())));
        background.spawn(until(site.shutdown.clone(), pulse::watch(site.clone())));
        background.spawn(until(site.shutdown.clone(), routes::keep(site.clone())));
        background.spawn(until(site.shutdown.clone(), drain::follow(site.clone())));
        background.spawn(parting::run(site.clone()));
        let apps = site.clone();
        background.spawn(until(site.shutdown.clone(), async move { apps.apps.keep_fresh().await }));
        let (told, teller) = (CancellationToken::new(), site.clone());
        let done = told.clone();
        background.spawn(sightings::tell(site.clone(), told.clone()));
        let outbox = tokio::spawn(async move { teller.outbox.run(&teller.deps, &teller.registry, done).await });

        let (closing, closed) = (site.clone(), CancellationToken::new());
        let close = closed.clone();
        background.spawn(until(site.shutdown.clone(), async move {
            drain::announced(&closing, shutdown.cancelled()).await;
            close.cancel();
        }));
        let served = tokio::select! {
            served = listen::accept_all(doors, &site, &closed) => served.map_err(Error::from),
            Some(_) = workers.join_next() => Err(Error::Worker),
        };
        drain::leave(&site).await;
        site.shutdown.cancel();
        for app in site.registry.apps() {
            site.registry.sessions(&app).iter().for_each(|session| session.close(Close::ShuttingDown));
        }
        site.connections.close();
        if timeout(GOODBYE_MAX, site.connections.wait()).await.is_err() {
            warn!(connections = site.connections.len(), "stopping without the goodbyes of some devices");
        }
        told.cancel();
        if let Err(panic) = outbox.await {
            warn!(%panic, "stopping with receipts and cursors not told");
        }
        background.close();
        background.wait().await;
        served
    }
}

/// Lets connections in that somebody else has accepted.
#[derive(Clone)]
pub struct Entrance {
    site: Arc<Site>,
}

impl Entrance {
    /// Takes a connection over on which somebody asks by HTTP: for WebSocket, for events, or with what a browser posts.
    /// `read` is what came on it, from the first byte of the request on.
    pub fn enter(&self, socket: TcpStream, from: SocketAddr, read: Vec<u8>) {
        listen::take(&self.site, Arrived { socket, from, door: Door::Http(read) });
    }
}

/// Each listener with how it is spoken to; certificates are kept fresh from here on.
fn doors(listeners: Listeners, site: &Arc<Site>, background: &TaskTracker) -> Result<Vec<(TcpListener, Door)>, Error> {
    let mut doors: Vec<(TcpListener, Door)> = listeners.plain.into_iter().map(|plain| (plain, Door::Plain)).collect();
    if let Some((listener, certificates)) = listeners.tls {
        doors.push((listener, Door::Tls(certificates.config()?)));
        background.spawn(until(site.shutdown.clone(), async move { certificates.keep_fresh().await }));
    }
    Ok(doors)
}

/// Runs something endless until the access point stops.
async fn until(shutdown: CancellationToken, endless: impl Future<Output = ()>) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = endless => {}
    }
}
