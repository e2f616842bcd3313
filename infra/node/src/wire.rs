//! Joins the tiers: binds the listeners, starts the chosen tiers, and stops them together.

use std::{net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use access_point::{Certificates, Entrance};
use anyhow::{Context as _, bail};
use filter::Select;
use model::{Clock, Endpoint, Node, SystemClock, Tier, sign};
use prometheus_client::registry::Registry;
use store::SharedStore;
use tokio::{
    net::{TcpListener, TcpSocket},
    runtime::Handle,
    signal::unix::{SignalKind, signal},
    task::{JoinError, JoinSet},
    time,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    backends::{self, Backends},
    config::Config,
    presence::{Presence, Status},
    telemetry, watchdog,
};

/// Connections that wait to be accepted: a storm of devices must not lose its first packets.
const BACKLOG: u32 = 4_096;

/// Descriptors beside the connections: the database's files, logs, listeners.
const OTHER_DESCRIPTORS: usize = 900;

/// Tiers that are running.
pub(crate) struct Running {
    /// Where products push to.
    pub(crate) ingest: Option<SocketAddr>,
    /// Where devices connect to.
    pub(crate) access_point: Option<SocketAddr>,
    /// The same under TLS.
    access_point_tls: Option<SocketAddr>,
    /// Where other nodes have filters answered.
    filter: Option<SocketAddr>,
    tiers: JoinSet<anyhow::Result<()>>,
    shutdown: CancellationToken,
}

impl Running {
    fn new(shutdown: CancellationToken) -> Self {
        let (ingest, access_point, access_point_tls, filter) = (None, None, None, None);
        Self { ingest, access_point, access_point_tls, filter, tiers: JoinSet::new(), shutdown }
    }

    fn spawn<E>(&mut self, tier: impl Future<Output = Result<(), E>> + Send + 'static)
    where
        anyhow::Error: From<E>,
    {
        self.tiers.spawn(async move { Ok(tier.await?) });
    }

    /// Whoever answers filters in this process: itself where the tier runs, or where it can meet no other process; else
    /// the filter nodes.
    fn start_filter(
        &mut self,
        tiers: &[Tier],
        config: &Config,
        backends: &Backends,
        registry: &mut Registry,
    ) -> anyhow::Result<Arc<dyn Select>> {
        let (broker, store, clock) = (backends.broker.clone(), backends.store.clone(), Arc::new(SystemClock));
        let (runs_here, secret) = (tiers.contains(&Tier::Filter), config.filter.secret.as_deref());
        if !runs_here && backends.are_shared() {
            return Ok(Arc::new(filter::Remote::new(store, clock, secret, registry)));
        }
        let filter = filter::Filter::new(config.filter(), filter::Deps { broker, store, clock }, registry);
        let (select, shutdown) = (filter.select(), self.shutdown.clone());
        self.spawn(filter.follow(shutdown.clone()));
        if runs_here && backends.are_shared() {
            let listener = bind(config.filter.listen, "filter.listen")?;
            self.filter = Some(listener.local_addr()?);
            self.spawn(filter.serve(listener, secret.map(str::to_owned), shutdown.clone()));
        }
        if runs_here {
            self.spawn(filter.run(shutdown));
        }
        Ok(select)
    }

    /// Waits until a tier fails, or `stop` is over; then stops all of them, for `grace` at most.
    pub(crate) async fn until(mut self, stop: impl Future<Output = ()>, grace: Duration) -> anyhow::Result<()> {
        let ended = tokio::select! {
            () = stop => None,
            ended = self.tiers.join_next() => ended,
        };
        self.shutdown.cancel();
        let mut outcome = ended.map_or(Ok(()), unwrap_task);
        let rest = async {
            while let Some(ended) = self.tiers.join_next().await {
                outcome = std::mem::replace(&mut outcome, Ok(())).and(unwrap_task(ended));
            }
        };
        if time::timeout(grace, rest).await.is_err() {
            warn!(grace_s = grace.as_secs(), "stopping with work in hand; it will be taken up again");
        }
        outcome
    }
}

fn unwrap_task(ended: Result<anyhow::Result<()>, JoinError>) -> anyhow::Result<()> {
    ended.context("a tier panicked")?
}

/// Starts tiers on back ends; their listeners are bound when this returns.
pub(crate) async fn start(tiers: &[Tier], config: &Config, backends: &Backends) -> anyhow::Result<Running> {
    let Backends { broker, store, .. } = backends;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut registry = Registry::default();
    registry.register_collector(Box::new(telemetry::Tasks(Handle::current())));
    let shutdown = CancellationToken::new();
    let mut running = Running::new(shutdown.clone());

    let select = running.start_filter(tiers, config, backends, &mut registry)?;
    let (mut status, mut entrance): (Option<Status>, Option<Entrance>) = (None, None);
    // Ingest comes after the access point, to which it leads devices.
    for tier in tiers.iter().rev() {
        let (broker, store, clock, shutdown) = (broker.clone(), store.clone(), clock.clone(), shutdown.clone());
        match tier {
            Tier::Filter => {}
            Tier::Stats => {
                let stats = stats::Stats::new(config.stats(), stats::Deps { broker, store, clock }, &mut registry);
                running.spawn(stats.run(shutdown));
            }
            Tier::Dispatcher => {
                let deps = dispatcher::Deps { broker, store, select: select.clone(), clock };
                let dispatcher = dispatcher::Dispatcher::new(config.dispatcher(), deps, &mut registry);
                running.spawn(dispatcher.run(shutdown));
            }
            Tier::AccessPoint => {
                let listeners = listeners(config, &mut running)?;
                let deps = access_point::Deps { broker, store, clock };
                let access_point = access_point::AccessPoint::new(config.access_point(), deps, &mut registry);
                status = Some(Box::new(access_point.status()));
                entrance = Some(access_point.entrance());
                running.spawn(access_point.run(listeners, shutdown));
            }
            Tier::Ingest => {
                let listener = bind(config.ingest.listen, "ingest.listen")?;
                running.ingest = Some(listener.local_addr()?);
                let (select, others) = (Some(select.clone()), axum::Router::new());
                let devices = entrance.take().map(passage);
                let deps = ingest::Deps { broker, store, clock, select, others, devices };
                let ingest = ingest::Ingest::new(config.ingest(), deps, &mut registry);
                running.spawn(ingest.run(listener, shutdown));
            }
        }
    }
    if let Some(watch) = backends.watch(config.node.clone(), &mut registry, shutdown.clone()) {
        running.tiers.spawn(watch);
    }
    let listener = bind(config.metrics.listen, "metrics.listen")?;
    running.spawn(serve_metrics(listener, registry, shutdown.clone()));
    let presence = Presence { node: node(config, tiers, &running), status };
    running.tiers.spawn(presence.run(store.clone(), broker.clone(), shutdown));
    Ok(running)
}

/// The way of devices from the HTTP port to the access point in the same process.
fn passage(entrance: Entrance) -> ingest::Passage {
    Arc::new(move |socket, from, request| entrance.enter(socket, from, request))
}

/// Where devices come in.
fn listeners(config: &Config, running: &mut Running) -> anyhow::Result<access_point::Listeners> {
    let plain = bind(config.access_point.listen, "access_point.listen")?;
    running.access_point = Some(plain.local_addr()?);
    let mut listeners = access_point::Listeners::from(plain);
    if let Some((address, files)) = config.tls() {
        let certificates = Certificates::load(files).context("access_point.tls_certificate, access_point.tls_key")?;
        running.spawn(reload_when_told(certificates.clone(), running.shutdown.clone()));
        let secured = bind(address, "access_point.tls_listen")?;
        running.access_point_tls = Some(secured.local_addr()?);
        listeners.tls = Some((secured, certificates));
    }
    Ok(listeners)
}

/// Reads certificates again on SIGHUP.
async fn reload_when_told(certificates: Arc<Certificates>, shutdown: CancellationToken) -> std::io::Result<()> {
    let mut told = signal(SignalKind::hangup())?;
    while shutdown.run_until_cancelled(told.recv()).await.flatten().is_some() {
        certificates.reload();
    }
    Ok(())
}

/// What this process says of itself at its start.
fn node(config: &Config, tiers: &[Tier], running: &Running) -> Node {
    let now = SystemClock.now();
    let told = |advertised: &Option<String>, bound: SocketAddr| advertised.clone().unwrap_or_else(|| bound.to_string());
    let endpoint = running.access_point.map(|bound| Endpoint {
        address: told(&config.access_point.advertise, bound),
        tls_address: running.access_point_tls.map(|bound| told(&config.access_point.tls_advertise, bound)),
        connections: 0,
        connections_max: config.access_point.connections_max as u64,
    });
    let filter = running.filter.map(|bound| told(&config.filter.advertise, bound));
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let (id, boot, tiers) = (config.node.clone(), now, tiers.to_vec());
    Node { id, boot, tiers, endpoint, filter, version, seen_at: now, drain: None }
}

async fn serve_metrics(listener: TcpListener, registry: Registry, shutdown: CancellationToken) -> std::io::Result<()> {
    let router = stats::router(Arc::new(registry));
    axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

fn bind(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bind().with_context(|| format!("cannot listen on {setting} = {address}"))
}

/// Runs tiers until the process is told to stop.
pub(crate) async fn serve(tiers: &[Tier], config: Config) -> anyhow::Result<ExitCode> {
    telemetry::start(&config.log)?;
    raise_descriptor_limit(&config);
    let backends = backends::open(&config).await?;
    guard(&config, &backends.store).await?;
    if tiers.len() < Tier::ALL.len() && !backends.are_shared() {
        warn!(
            "the embedded back ends serve this process only: what these tiers hand on waits until the others run here"
        );
    }
    let running = start(tiers, &config, &backends).await?;
    info!(
        node = %config.node, version = env!("CARGO_PKG_VERSION"),
        ingest = running.ingest.map(tracing::field::display), access_point = running.access_point.map(tracing::field::display),
        "serving"
    );
    watchdog::ready();
    let stop = async {
        told_to_stop().await;
        watchdog::stopping();
    };
    let outcome = running.until(stop, config.shutdown_grace()).await;
    backends.close().await;
    outcome?;
    info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Refuses to open a public listener that nobody could have a key for.
async fn guard(config: &Config, store: &SharedStore) -> anyhow::Result<()> {
    let (apps, keys) = backends::at_start(async || {
        let apps = store.apps().await?;
        let mut keys = 0;
        for app in &apps {
            keys += store.keys(&app.id).await?.len();
        }
        Ok((apps, keys))
    })
    .await?;
    let weak = apps.iter().find(|app| app.device_secret.len() < sign::DEVICE_SECRET_MIN_CHARS);
    if let Some(app) = weak {
        bail!("the device secret of app {} is shorter than {} characters", app.id, sign::DEVICE_SECRET_MIN_CHARS);
    }
    let public = config.public_listeners();
    if let (Some((name, address)), 0) = (public.first(), keys) {
        bail!(
            "{name} = {address} can be reached from other machines, but no app has a key: run `fanfare app create NAME` first"
        );
    }
    if keys == 0 {
        warn!("no app has a key yet: run `fanfare app create NAME` (with the embedded store, stop this first)");
    }
    Ok(())
}

/// Every connection takes a descriptor; a few more are for the database.
pub(crate) fn raise_descriptor_limit(config: &Config) {
    let wanted = (config.access_point.connections_max + config.ingest.connections_max + OTHER_DESCRIPTORS) as u64;
    match rlimit::increase_nofile_limit(wanted) {
        Ok(limit) if limit < wanted => warn!(limit, wanted, "fewer descriptors than connections; some will be refused"),
        Ok(_) => {}
        Err(error) => warn!(%error, "cannot raise the descriptor limit"),
    }
}

/// Ends when the process is told to stop, by SIGTERM or from the keyboard.
pub(crate) async fn told_to_stop() {
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        }
        Err(error) => {
            error!(%error, "cannot hear SIGTERM");
            drop(tokio::signal::ctrl_c().await);
        }
    }
}
