//! What `fanfare bench` measures: latency, throughput, fan-out, isolation, connecting, and the bare floor of the
//! machine beside it.
//!
//! The server runs in a process of its own, and the limits of its app must allow the load. Unicasts are measured by a
//! thread of their own, so that the crowd of devices next door delays the server but not the measurement.

mod audience;
mod client;
mod crowd;
mod floor;
mod generator;
mod herd;
mod intake;
mod muster;
mod others;
pub mod population;
pub mod postgres;
mod probe;
mod report;
mod rows;
mod scale;
mod silent;
pub mod sqlite;
mod stalled;
mod storm;
mod wire;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use model::DeviceId;
use mqtt::Version;
use tokio::time::{Instant, sleep};

pub use audience::{AudienceOptions, AudienceReport, audience, device_row};
pub use floor::{FloorOptions, floor, sink};
pub use generator::generate;
pub use intake::{IntakeOptions, intake};
pub use others::{Others, UnrestOptions};
pub use probe::Unicasts;
pub use report::{BroadcastReport, ConnectReport, FloorReport, IntakeReport, IsolationReport, UnicastReport};
pub use rows::Asked;
pub use scale::{ScaleOptions, ScaleReport, scale};
pub use silent::{SilentOptions, SilentReport, silent};
pub use stalled::{StalledReport, stalled};
pub use storm::{StormReport, storm};
pub use wire::{WireReport, WireTarget, wire};

use crate::{
    Api, Audience, Error, Fleet, Orders, Usage,
    api::{self, Profile},
    device::Line,
    enrol::{Plan, enrol},
};
use crowd::Crowd;
use probe::Probe;

/// How long all devices may take to connect, for each 1,000 of them.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// How long a broadcast may take to reach the last device, whatever its size.
const FANOUT_PATIENCE: Duration = Duration::from_secs(60);
/// Pause that lets everything under way come to rest.
const REST: Duration = Duration::from_secs(2);
/// What a server at rest uses of a core: who came is told and kept for seconds after a crowd is connected, and that would
/// be measured with whatever comes next.
const IDLE_CORES: f64 = 0.05;
/// A server that uses more than that all the time is measured as it is.
const IDLE_PATIENCE: Duration = Duration::from_secs(30);
/// The keep alive of idle devices: so long that it disturbs no measurement.
const KEEP_ALIVE_S: u16 = 1_200;
/// How long the messages of a bench live, in seconds.
const TTL_S: u64 = 300;

/// The server under test.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its API, with a key that may register devices and broadcast.
    pub api: Api,
    /// Its MQTT listener.
    pub mqtt: SocketAddr,
    /// Its process, when it runs on this machine; without it nothing is said about CPU and memory.
    pub pid: Option<u32>,
    /// The processes on this machine that it relies on, by name: their CPU is told too.
    pub behind: Vec<(&'static str, u32)>,
}

impl Target {
    /// Lets everything under way come to rest.
    async fn rest(&self) -> Result<(), Error> {
        let begun = Instant::now();
        let mut before = self.usage()?;
        loop {
            sleep(REST).await;
            let now = self.usage()?;
            let is_idle = cpu(before, now).is_none_or(|used| used <= REST.mul_f64(IDLE_CORES));
            if is_idle || begun.elapsed() > IDLE_PATIENCE {
                return Ok(());
            }
            before = now;
        }
    }

    fn usage(&self) -> Result<Option<Usage>, Error> {
        self.pid.map(Usage::of).transpose()
    }
}

/// How large a bench is.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Idle devices that receive broadcasts.
    pub devices: u32,
    /// Devices that receive the measured unicasts (and the broadcasts as well).
    pub probes: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { devices: 15_000, probes: 100 }
    }
}

/// What a prepared bench tells about its progress: what is going on, how much of it is done, and of how much.
pub type Progress<'a> = &'a (dyn Fn(&str, usize, usize) + Sync);

/// Registered devices, ready for measurements in any order (but [`connect`](Self::connect) comes first).
pub struct Bench {
    target: Target,
    /// Sets the names of this bench apart from those of others against the same server.
    run: String,
    crowd: Arc<Crowd>,
    fleet: Fleet,
    probe: Probe,
}

impl Bench {
    /// Registers the devices and starts the probes.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Rejected`] when the server does not register them.
    pub async fn prepare(target: Target, options: Options, progress: Progress<'_>) -> Result<Self, Error> {
        let run = name_of_run();
        let total = (options.devices + options.probes) as usize;
        let plans = (0..options.devices + options.probes).map(|n| plan(&run, n)).collect::<Result<_, _>>()?;
        let mut identities = enrol(&target.api, plans, None, &|done| progress("registering", done, total)).await?;
        let probes = identities.split_off(options.devices as usize);
        let line = Line::to([target.mqtt], KEEP_ALIVE_S);
        let crowd = Arc::new(Crowd::new());
        let fleet = Fleet::new(identities, line.clone(), crowd.clone());
        let probe = Probe::start(target.api.apart(), &run, probes, line, None)?;
        Ok(Self { target, run, crowd, fleet, probe })
    }

    /// Connects all devices at once, 512 at a time, and lets them rest.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when not all of them get through.
    pub async fn connect(&self) -> Result<ConnectReport, Error> {
        let before = self.target.usage()?;
        let begun = Instant::now();
        self.fleet.order(0..self.fleet.len(), Orders::ONLINE);
        let thousands = u32::try_from(self.fleet.len() / 1_000).unwrap_or(u32::MAX);
        self.fleet.wait_connected(self.fleet.len(), CONNECT_PATIENCE * (thousands + 1)).await?;
        let took = begun.elapsed();
        let connected = self.target.usage()?;
        self.target.rest().await?;
        let rested = self.target.usage()?;
        let devices = self.fleet.len();
        Ok(ConnectReport {
            devices,
            took,
            server_cpu: cpu(before, connected),
            server_rss_bytes: before.zip(rested).map(|(a, b)| b.rss_bytes.saturating_sub(a.rss_bytes)),
        })
    }

    /// Sends unicasts and measures from the request to the device.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when some never arrive or cannot be sent: then there is nothing to report.
    pub async fn unicast(&self, unicasts: Unicasts) -> Result<UnicastReport, Error> {
        let before = self.target.usage()?;
        let measured = self.probe.run(unicasts).await?;
        let server_cpu = cpu(before, self.target.usage()?);
        Ok(UnicastReport {
            per_s: unicasts.per_s,
            keyed: unicasts.keyed,
            accepted: measured.accepted,
            arrived: measured.arrived,
            server_cpu,
        })
    }

    /// Sends `count` broadcasts at once and waits until the last device has the last of them.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when they do not all arrive.
    pub async fn broadcast(&self, count: u32) -> Result<BroadcastReport, Error> {
        let before = self.target.usage()?;
        let devices = self.fleet.len();
        let took = self.crowd.reach(&self.target.api, &self.run, count, devices, FANOUT_PATIENCE).await?;
        let server_cpu = cpu(before, self.target.usage()?);
        Ok(BroadcastReport { devices, count, last: took, server_cpu })
    }

    /// Sends unicasts to an idle platform, and then the same while broadcasts to every device follow each other.
    ///
    /// # Errors
    /// As [`unicast`](Self::unicast) and [`broadcast`](Self::broadcast).
    pub async fn isolation(&self, unicasts: Unicasts) -> Result<IsolationReport, Error> {
        let idle = self.unicast(unicasts).await?;
        self.target.rest().await?;
        let begun = Instant::now();
        let mut broadcasts = Vec::new();
        let mut loaded = std::pin::pin!(self.unicast(unicasts));
        let loaded = loop {
            let next = self.crowd.reach(&self.target.api, &self.run, 1, self.fleet.len(), FANOUT_PATIENCE);
            tokio::select! {
                measured = &mut loaded => break measured?,
                took = next => broadcasts.push(took?),
            }
        };
        let took = begun.elapsed();
        Ok(IsolationReport { devices: self.fleet.len(), idle, loaded, broadcasts, took })
    }

    /// Hangs up.
    pub async fn close(self) {
        self.fleet.close().await;
    }
}

fn cpu(before: Option<Usage>, after: Option<Usage>) -> Option<Duration> {
    before.zip(after).map(|(before, after)| after.cpu.saturating_sub(before.cpu))
}

fn name_of_run() -> String {
    format!("{:08x}", rand::random::<u32>())
}

/// Half of the devices speak either version.
fn plan(run: &str, n: u32) -> Result<Plan, Error> {
    let id: DeviceId = format!("bench-{run}-{n}").parse().map_err(|error| Error::Corrupt(format!("{error}")))?;
    let version = if n.is_multiple_of(2) { Version::V5 } else { Version::V311 };
    Ok(Plan { id, profile: Profile::default(), version, states_after: false })
}

/// A message of this bench, whose name says which it is.
fn message(run: &str, kind: char, n: u64, to: Audience) -> api::Send {
    api::Send::named(format!("{run}-{kind}{n}"), to, TTL_S)
}

/// The number in the name of a message of this bench and kind.
fn number_in(payload: &[u8], run: &str, kind: char) -> Option<usize> {
    let name = api::Send::name_in(payload)?;
    name.strip_prefix(run)?.strip_prefix('-')?.strip_prefix(kind)?.parse().ok()
}
