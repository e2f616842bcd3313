//! What was measured, as plain values that print themselves.

use std::{fmt, time::Duration};

use serde::Serialize;

use crate::{Latency, Load};

/// `total` in microseconds for each of `count`, or a dash.
fn each(total: Option<Duration>, count: f64) -> String {
    total.map_or_else(|| "-".to_owned(), |total| format!("{:.1} us", total.as_secs_f64() * 1e6 / count.max(1.0)))
}

pub(super) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// A storm of connects.
#[derive(Clone, Debug, Serialize)]
pub struct ConnectReport {
    /// Devices that connected.
    pub devices: usize,
    /// Until the last of them had its CONNACK.
    pub took: Duration,
    /// What the server spent.
    pub server_cpu: Option<Duration>,
    /// What the server grew by, once at rest.
    pub server_rss_bytes: Option<u64>,
}

impl fmt::Display for ConnectReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.devices as f64;
        let rss = self.server_rss_bytes.map_or_else(|| "-".to_owned(), |rss| format!("{:.0} B", rss as f64 / count));
        let per_s = count / self.took.as_secs_f64().max(1e-9);
        write!(f, "connect    {} devices in {:.0} ms = {per_s:.0}/s; ", self.devices, ms(self.took))?;
        write!(f, "server CPU {} and memory {rss} a connection", each(self.server_cpu, count))
    }
}

/// Unicasts at a fixed rate.
#[derive(Clone, Debug, Serialize)]
pub struct UnicastReport {
    /// The rate.
    pub per_s: u32,
    /// Whether each had an idempotency key.
    pub keyed: bool,
    /// From the request to the answer.
    #[serde(serialize_with = "latency_of")]
    pub accepted: Load,
    /// From the request to the device.
    pub arrived: Latency,
    /// What the server spent.
    pub server_cpu: Option<Duration>,
}

fn latency_of<S: serde::Serializer>(load: &Load, serializer: S) -> Result<S::Ok, S::Error> {
    load.latency.serialize(serializer)
}

impl fmt::Display for UnicastReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.arrived.count();
        let (kind, cpu) = (if self.keyed { "keyed" } else { "unkeyed" }, each(self.server_cpu, count as f64));
        writeln!(f, "unicast    {count} {kind} at {}/s; server CPU {cpu} each", self.per_s)?;
        writeln!(f, "  to device  {}", self.arrived)?;
        write!(f, "  to answer  {}", self.accepted.latency)
    }
}

/// Broadcasts to everybody connected.
#[derive(Clone, Debug, Serialize)]
pub struct BroadcastReport {
    /// Devices that got each of them.
    pub devices: usize,
    /// Broadcasts that were sent at once.
    pub count: u32,
    /// Until the last device had the last of them.
    pub last: Duration,
    /// What the server spent.
    pub server_cpu: Option<Duration>,
}

impl fmt::Display for BroadcastReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let deliveries = self.devices as f64 * f64::from(self.count);
        let per_s = deliveries / self.last.as_secs_f64().max(1e-9);
        write!(f, "broadcast  {} to {} devices: last after {:.1} ms, ", self.count, self.devices, ms(self.last))?;
        write!(f, "{per_s:.0} deliveries/s; server CPU {} a delivery", each(self.server_cpu, deliveries))
    }
}

/// Unicasts, without and with broadcasts beside them.
#[derive(Clone, Debug, Serialize)]
pub struct IsolationReport {
    /// Devices that each broadcast went to.
    pub devices: usize,
    /// Without broadcasts.
    pub idle: UnicastReport,
    /// With broadcasts one after the other.
    pub loaded: UnicastReport,
    /// How long each of them took to the last device.
    pub broadcasts: Vec<Duration>,
    /// How long the second part took.
    pub took: Duration,
}

impl IsolationReport {
    /// By how much the broadcasts raised the unicasts' p99.
    pub fn p99_ratio(&self) -> f64 {
        let p99 = |report: &UnicastReport| report.arrived.quantile(0.99).as_secs_f64();
        p99(&self.loaded) / p99(&self.idle).max(1e-9)
    }
}

fn answer(report: &UnicastReport) -> String {
    format!("{:.2} ms", report.accepted.latency.quantile(0.99).as_secs_f64() * 1e3)
}

impl fmt::Display for IsolationReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let deliveries = self.broadcasts.len() as f64 * self.devices as f64;
        let per_s = deliveries / self.took.as_secs_f64().max(1e-9);
        writeln!(f, "isolation  unicasts at {}/s beside broadcasts to {} devices", self.idle.per_s, self.devices)?;
        writeln!(f, "  idle       {}; to answer p99 {}", self.idle.arrived, answer(&self.idle))?;
        writeln!(
            f,
            "  beside {:<4}{}; to answer p99 {}",
            self.broadcasts.len(),
            self.loaded.arrived,
            answer(&self.loaded)
        )?;
        write!(f, "  p99 ratio  {:.2}, while {per_s:.0} broadcast deliveries/s went out", self.p99_ratio())
    }
}

/// Unicasts by clients that wait for nothing but their answers.
#[derive(Clone, Debug, Serialize)]
pub struct IntakeReport {
    /// Clients at work.
    pub clients: u32,
    /// Messages of each request.
    pub batch: u32,
    /// Messages that were accepted; every one of them arrived and was acked.
    pub accepted: u64,
    /// From each request to its answer.
    #[serde(serialize_with = "latency_of")]
    pub answered: Load,
    /// Until the last answer.
    pub accepting: Duration,
    /// Until the last message arrived.
    pub delivering: Duration,
    /// The CPU that each process spent, by name.
    pub spent: Vec<(&'static str, Duration)>,
}

impl fmt::Display for IntakeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.accepted as f64;
        let [accepted, delivered] = [self.accepting, self.delivering].map(|took| count / took.as_secs_f64().max(1e-9));
        writeln!(
            f,
            "intake     {} by {} clients, {} a request: none is missing",
            self.accepted, self.clients, self.batch
        )?;
        writeln!(f, "  accepted   {accepted:.0}/s; delivered and acked {delivered:.0}/s")?;
        writeln!(f, "  to answer  {}", self.answered.latency)?;
        write!(f, "  CPU each  ")?;
        self.spent.iter().try_for_each(|(name, cpu)| write!(f, " {name} {}", each(Some(*cpu), count)))
    }
}

/// What the machine's sockets give without any platform.
#[derive(Clone, Debug, Serialize)]
pub struct FloorReport {
    /// Sockets written to.
    pub sockets: usize,
    /// Packets written to each.
    pub rounds: u32,
    /// Median time of a round, until the last answer is read.
    pub round: Duration,
    /// All rounds.
    pub took: Duration,
    /// What the writing process spent.
    pub cpu: Duration,
}

impl fmt::Display for FloorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let writes = self.sockets as f64 * f64::from(self.rounds);
        let per_s = writes / self.took.as_secs_f64().max(1e-9);
        write!(f, "floor      {} sockets: a round takes {:.1} ms, ", self.sockets, ms(self.round))?;
        write!(f, "{per_s:.0} packets/s with their answers; CPU {} a packet", each(Some(self.cpu), writes))
    }
}
