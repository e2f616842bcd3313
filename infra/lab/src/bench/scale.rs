//! As many devices as fit: on several access points of one machine, connected at once, and all of them get a broadcast.

use std::{fmt, net::SocketAddr, time::Duration};

use model::Timestamp;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::{Options, Progress, Target, herd::HerdOptions, muster::Muster, report::ms};
use crate::{Error, Op, Record, Usage, Verdict, history::Kind};

/// By then an access point has given back what the rush of devices had taken.
const GIVEN_BACK: Duration = Duration::from_secs(20);

/// How large it is.
#[derive(Clone, Debug)]
pub struct ScaleOptions {
    /// Devices.
    pub devices: u32,
    /// Each access point: its MQTT listener, and its process.
    pub access_points: Vec<(SocketAddr, u32)>,
    /// The command that runs [`generate`](super::generate) in a process of its own.
    pub generator: Vec<String>,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct ScaleReport {
    /// Devices.
    pub devices: u32,
    /// Until the last of them was connected and all had rested.
    pub connecting: Duration,
    /// What each access point grew by, for each of its devices, once at rest.
    pub bytes_each: Vec<f64>,
    /// What all access points spent on connecting.
    pub cpu: Duration,
    /// From the broadcast to its last device.
    pub last: Duration,
    /// What all access points spent on it.
    pub broadcast_cpu: Duration,
    /// The judgement.
    pub verdict: Verdict,
}

impl ScaleReport {
    /// Whether every device got the broadcast, once.
    pub fn holds(&self) -> bool {
        self.verdict.holds() && self.verdict.delivered == u64::from(self.devices)
    }
}

impl fmt::Display for ScaleReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { devices, connecting, bytes_each, cpu, last, broadcast_cpu, verdict } = self;
        let each = |cpu: &Duration| cpu.as_secs_f64() * 1e6 / f64::from(*devices).max(1.0);
        let (access_points, connecting) = (bytes_each.len(), connecting.as_secs_f64());
        writeln!(
            f,
            "scale      {devices} devices on {access_points} access points, connected after {connecting:.1} s"
        )?;
        let bytes: Vec<_> = bytes_each.iter().map(|bytes| format!("{bytes:.0}")).collect();
        writeln!(f, "  memory     {} B a device at each access point", bytes.join(", "))?;
        writeln!(f, "  CPU        {:.1} us a connection, {:.1} us a delivery", each(cpu), each(broadcast_cpu))?;
        writeln!(f, "  broadcast  the last device has it after {:.0} ms", ms(*last))?;
        writeln!(f, "{verdict}")?;
        write!(f, "scale      {}", if self.holds() { "holds" } else { "BROKEN" })
    }
}

/// Registers devices, connects all of them at once, sends one broadcast, and judges.
///
/// # Errors
/// [`Error::Corrupt`] when devices do not get as far as the broadcast; a broken promise is not an error but in the report.
pub async fn scale(target: &Target, options: &ScaleOptions, progress: Progress<'_>) -> Result<ScaleReport, Error> {
    let ScaleOptions { devices, access_points, generator } = options;
    let servers = access_points.iter().map(|(server, _)| *server).collect();
    let shape = |usual| HerdOptions { servers, ..usual };
    let size = Options { devices: *devices, probes: 0 };
    let mut muster = Muster::begin(target, generator, size, shape, progress).await?;
    let before = usages(access_points)?;
    let begun = Instant::now();
    muster.connect().await?;
    let connecting = begun.elapsed();
    progress("connected", *devices as usize, *devices as usize);
    let connected = usages(access_points)?;
    sleep(GIVEN_BACK).await;
    let rested = usages(access_points)?;
    let sent = muster.broadcast(0).await?;
    let due = muster.due;
    muster.herd.wait("reached", super::FANOUT_PATIENCE, |count| count.delivered >= due).await?;
    let reached = usages(access_points)?;
    let share = f64::from(*devices) / access_points.len() as f64;
    let grown = |(before, after): (&Usage, &Usage)| after.rss_bytes.saturating_sub(before.rss_bytes) as f64 / share;
    let outcome = muster.end().await?;
    Ok(ScaleReport {
        devices: *devices,
        connecting,
        bytes_each: before.iter().zip(&rested).map(grown).collect(),
        cpu: spent(&before, &connected),
        last: last_of(&outcome.records, &sent.msg),
        broadcast_cpu: spent(&rested, &reached),
        verdict: outcome.verdict,
    })
}

fn usages(access_points: &[(SocketAddr, u32)]) -> Result<Vec<Usage>, Error> {
    access_points.iter().map(|(_, pid)| Usage::of(*pid)).collect()
}

fn spent(before: &[Usage], after: &[Usage]) -> Duration {
    before.iter().zip(after).map(|(before, after)| after.cpu.saturating_sub(before.cpu)).sum()
}

/// From when a message was sent to when the last device received it.
fn last_of(records: &[Record], message: &str) -> Duration {
    let (mut sent_at, mut last): (Option<Timestamp>, Option<Timestamp>) = (None, None);
    for record in records {
        match &record.op {
            Op::Send { msg, .. } if record.kind == Kind::Invoke && msg == message => sent_at = Some(record.t),
            Op::Receive { msg, app: true, .. } if msg == message => last = last.max(Some(record.t)),
            _ => {}
        }
    }
    sent_at.zip(last).map(|(sent_at, last)| last.since(sent_at)).unwrap_or_default()
}
