//! `fanfare bench`: what this build does on this machine, beside the machine's own floor.

mod audience;
mod filter;
mod many;
mod wire;

use std::{env, net::SocketAddr, process::ExitCode, time::Duration};

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand};
use lab::{
    Api,
    bench::{Bench, FloorOptions, IntakeOptions, Options as Size, Target, Unicasts, floor, generate, intake, sink},
    fault::{Drain, Launch, Server, drain, steady_address},
    usage::listener_on,
};
use model::{Env, Limits, NodeId};
use tempfile::TempDir;

use crate::{admin, backends, config::Config};

/// How long the server under test may take to be ready.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// How long it may take until every device has moved, and then until everything is at rest.
const MOVING_PATIENCE: Duration = Duration::from_secs(120);

/// Packets to each socket when the floor is measured.
const FLOOR_ROUNDS: u32 = 20;

/// Broadcasts of a burst.
const BURST: u32 = 20;

/// An app whose limits no bench reaches: a burst to every device is what is measured, not how it is refused.
const UNLIMITED: Limits = Limits { recipients_per_s: u32::MAX, recipients_burst: u32::MAX };

#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Connect devices at once: connections a second, CPU of each, memory of an idle one.
    Connect(Run),
    /// Unicasts from HTTP to the device's application.
    Unicast(Run),
    /// One broadcast to every device, then a burst of them; beside the bare loop on as many sockets.
    Broadcast(Run),
    /// Unicasts on an idle platform, then the same while broadcasts to every device follow each other.
    Isolation(Run),
    /// As much as goes through: clients post unicasts one request after the other, devices ack them.
    Intake(Clients),
    /// Move devices from one access point to another while messages go on; needs RabbitMQ and Redis.
    Drain(Moving),
    /// As many devices as fit, on several access points of one machine, and a broadcast to all; judged. Several need
    /// RabbitMQ and Redis.
    Scale(many::Scale),
    /// Devices that stop reading while broadcasts go on: their memory, others' latency, and what they get when they read
    /// again; judged.
    Stalled(many::Stalled),
    /// Devices that fall silent with their sockets open: when that is noticed, and what they get when they are back; judged.
    Silent(many::Silent),
    /// Every device cut off at once: how soon all are back and synced, and others' latency meanwhile; judged.
    Storm(many::Storm),
    /// A million devices by one upload, which tells meanwhile how far it is.
    Import(audience::Import),
    /// A filtered send to a hundredth of a million devices, few of them connected: judged, and counted on the broker.
    Audience(audience::Crowd),
    /// Filters over a large generated population, from the index alone; SQLite and PostgreSQL beside it.
    Filter(filter::Population),
    /// Bytes on the wire: a push with its ack and an idle hour, by transport and way, beside JSON over WebSocket.
    Wire,
    /// The bare loop: a small packet to each socket and its answer back.
    Floor {
        /// Sockets.
        #[arg(long, default_value_t = 15_000)]
        sockets: usize,
    },
    /// The far end of the bare loop.
    #[command(hide = true)]
    Sink {
        /// Where the loop listens.
        server: SocketAddr,
        /// Sockets.
        sockets: usize,
    },
    /// Devices of a bench, at its command.
    #[command(hide = true)]
    Generator,
}

#[derive(Args, Clone, Copy)]
struct Run {
    /// Connected devices.
    #[arg(long, default_value_t = 15_000)]
    devices: u32,
    /// Devices among which the unicasts go round.
    #[arg(long, default_value_t = 100)]
    probes: u32,
    /// Unicasts a second.
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// How long unicasts are sent.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Give each unicast an idempotency key: the store then answers before the broker is asked.
    #[arg(long)]
    keyed: bool,
}

impl Run {
    fn unicasts(self) -> Unicasts {
        Unicasts { per_s: self.rate, lasting: Duration::from_secs(self.seconds), keyed: self.keyed }
    }
}

#[derive(Args, Clone, Copy)]
struct Moving {
    /// Devices.
    #[arg(long, default_value_t = 10_000)]
    devices: u32,
    /// Devices told to go, a second.
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// The part of the devices that moves; the others stay.
    #[arg(long, default_value_t = 1.0)]
    fraction: f64,
}

#[derive(Args, Clone, Copy)]
struct Clients {
    /// Clients, each with one request under way on a connection that stays open.
    #[arg(long, default_value_t = 64)]
    clients: u32,
    /// Connected devices, among which the unicasts go round.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    devices: u32,
    /// How long new requests begin.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Messages of a request; more than one travel as a batch.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=500))]
    batch: u32,
}

/// A server of its own for a bench: a child process on throw-away data, so that its CPU can be told apart.
struct Subject {
    target: Target,
    node: NodeId,
    /// Where it tells its metrics.
    metrics: SocketAddr,
    launch: Launch,
    _server: Server,
    data: TempDir,
}

pub(crate) async fn run(options: Options, config: Config) -> anyhow::Result<ExitCode> {
    match options.what {
        What::Sink { server, sockets } => sink(server, sockets).await?,
        What::Generator => generate().await?,
        What::Floor { sockets } => println!("{}", bare(sockets).await?),
        What::Wire => wire::run(config).await?,
        What::Filter(population) => filter::run(population).await?,
        What::Import(wanted) => audience::register(wanted, config).await?,
        What::Audience(crowd) => audience::send(crowd, config).await?,
        What::Connect(run) => {
            let (bench, _subject) = prepare(run, config).await?;
            println!("{}", bench.connect().await?);
        }
        What::Unicast(run) => {
            let (bench, _subject) = prepare(Run { devices: 0, ..run }, config).await?;
            println!("{}", bench.unicast(run.unicasts()).await?);
        }
        What::Broadcast(run) => {
            let (bench, _subject) = prepare(run, config).await?;
            println!("{}", bench.connect().await?);
            println!("{}", bench.broadcast(1).await?);
            println!("{}", bench.broadcast(BURST).await?);
            bench.close().await;
            println!("{}", bare(run.devices as usize).await?);
        }
        What::Isolation(run) => {
            let (bench, _subject) = prepare(run, config).await?;
            bench.connect().await?;
            println!("{}", bench.isolation(run.unicasts()).await?);
        }
        What::Drain(moving) => return move_devices(moving, config).await,
        What::Scale(size) => return many::scale(size, config).await,
        What::Stalled(size) => return many::stalled(size, config).await,
        What::Silent(size) => return many::silent(size, config).await,
        What::Storm(size) => return many::storm(size, config).await,
        What::Intake(Clients { clients, devices, seconds, batch }) => {
            let subject = start(config).await?;
            let size = IntakeOptions { clients, devices, lasting: Duration::from_secs(seconds), batch };
            println!("{}", intake(&subject.target, size, &told).await?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn bare(sockets: usize) -> anyhow::Result<lab::bench::FloorReport> {
    let sink = ["bench", "sink"].map(String::from);
    let sink = [env::current_exe()?.display().to_string()].into_iter().chain(sink).collect();
    Ok(floor(FloorOptions { sockets, rounds: FLOOR_ROUNDS, sink }).await?)
}

async fn prepare(run: Run, config: Config) -> anyhow::Result<(Bench, Subject)> {
    let subject = start(config).await?;
    let size = Size { devices: run.devices, probes: run.probes };
    Ok((Bench::prepare(subject.target.clone(), size, &told).await?, subject))
}

fn told(what: &str, done: usize, total: usize) {
    if done == total {
        eprintln!("{what}: {total}");
    }
}

/// The servers that the one under test relies on, as far as they run on this machine.
fn behind(config: &Config) -> Vec<(&'static str, u32)> {
    let urls = [("RabbitMQ", &config.broker.url, 5_672), ("Redis", &config.store.url, 6_379)];
    let each = urls.into_iter().flat_map(|(name, urls, port)| {
        urls.iter().flat_map(|urls| urls.split(',')).map(move |url| (name, port_on_loopback(url, port)))
    });
    each.filter_map(|(name, port)| Some((name, listener_on(port?)?))).collect()
}

fn port_on_loopback(url: &str, usual: u16) -> Option<u16> {
    let authority = url.split_once("://")?.1.split('/').next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) =
        host.rsplit_once(':').map_or(Some((host, usual)), |(host, port)| Some((host, port.parse().ok()?)))?;
    ["127.0.0.1", "localhost"].contains(&host).then_some(port)
}

/// A subject that lets devices in as fast as it can: mostly that is what is measured.
async fn start(config: Config) -> anyhow::Result<Subject> {
    start_with(config, &[("ACCESS_POINT__CONNECTS_PER_S", "0")]).await
}

async fn start_with(mut config: Config, settings: &[(&str, &str)]) -> anyhow::Result<Subject> {
    let data = tempfile::tempdir().context("cannot make a folder for the bench's data")?;
    config.data_dir = data.path().to_owned();
    let store = backends::open_store(&config).await?;
    let key =
        admin::create(&store, &format!("bench-{:08x}", rand::random::<u32>()).parse()?, Env::Live, true, UNLIMITED)
            .await?;
    drop(store);
    let (http, mqtt, metrics) = (steady_address()?, steady_address()?, steady_address()?);
    let setting = |name: &str, value: String| (format!("FANFARE__{name}"), value);
    let own = [
        setting("DATA_DIR", data.path().display().to_string()),
        setting("INGEST__LISTEN", http.to_string()),
        setting("ACCESS_POINT__LISTEN", mqtt.to_string()),
        setting("FILTER__LISTEN", "127.0.0.1:0".to_owned()),
        setting("METRICS__LISTEN", metrics.to_string()),
        setting("LOG__FILTER", "error".to_owned()),
    ];
    let environment = own.into_iter().chain(settings.iter().map(|(name, value)| setting(name, (*value).to_owned())));
    let launch = Launch {
        program: env::current_exe()?,
        arguments: Vec::new(),
        environment: environment.collect(),
        log: None,
        patience: START_PATIENCE,
    };
    let api = Api::new(&format!("http://{http}"), &key);
    let server = Server::start(&launch, &api).await?;
    let target = Target { api, mqtt, pid: server.pid(), behind: behind(&config) };
    Ok(Subject { target, node: config.node, metrics, launch, _server: server, data })
}

/// An access point beside that of the subject, not started yet.
struct Beside {
    launch: Launch,
    node: NodeId,
    mqtt: SocketAddr,
    metrics: SocketAddr,
}

impl Subject {
    /// The `number`th access point, on the same servers.
    fn beside(&self, number: u8) -> anyhow::Result<Beside> {
        let (mqtt, metrics) = (steady_address()?, steady_address()?);
        let node: NodeId = format!("{}-{number}", self.node).parse()?;
        let own = [
            ("NODE", node.to_string()),
            ("DATA_DIR", self.data.path().join(number.to_string()).display().to_string()),
            ("ACCESS_POINT__LISTEN", mqtt.to_string()),
            ("METRICS__LISTEN", metrics.to_string()),
        ];
        let own = own.map(|(name, value)| (format!("FANFARE__{name}"), value));
        let environment = self.launch.environment.iter().cloned().chain(own).collect();
        let launch = Launch { arguments: vec!["access-point".to_owned()], environment, ..self.launch.clone() };
        Ok(Beside { launch, node, mqtt, metrics })
    }
}

/// Several access points meet at servers only.
fn ensure_shared(config: &Config) -> anyhow::Result<()> {
    let shared = config.broker.url.is_some() && config.store.url.is_some();
    ensure!(shared, "several access points need a broker and a store that all can reach: set broker.url and store.url");
    Ok(())
}

/// Two access points on the same servers, and the way from the first to the second.
async fn move_devices(Moving { devices, rate, fraction }: Moving, config: Config) -> anyhow::Result<ExitCode> {
    ensure_shared(&config)?;
    let subject = start(config).await?;
    let Beside { launch, node, mqtt, .. } = subject.beside(2)?;
    let scenario = Drain {
        api: subject.target.api.clone(),
        from: (subject.node.clone(), subject.target.mqtt),
        to: (launch, node, mqtt),
        devices,
        rate_per_s: rate,
        target_fraction: fraction,
        patience: MOVING_PATIENCE,
        history: None,
    };
    let report = drain(&scenario).await?;
    println!("{report}");
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
