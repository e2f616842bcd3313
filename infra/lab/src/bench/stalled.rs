//! Devices that stop reading while broadcasts go on: what they cost the server, whether others notice, and what they get
//! when they read again.

use std::{fmt, fs, pin::pin, time::Duration};

use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{
    Options, Others, Progress, Target, Unicasts, UnrestOptions, generator::Command, herd::HerdOptions, muster::Muster,
};
use crate::{Error, Latency, Verdict};

/// Between two broadcasts.
const BROADCAST_EVERY: Duration = Duration::from_millis(250);
/// Their size, in bytes: the largest that is usual on mobile links.
const BODY_BYTES: usize = 4_000;
/// Broadcasts that are more than a window.
const FILLING: usize = 40;
/// What the system keeps for such a device, in bytes: little, so that the server soon has the rest.
const RECEIVE_BUFFER_BYTES: u32 = 4_096;
/// What one of them may cost the server, in bytes.
const EACH_MAX: f64 = 100.0 * 1_024.0;
/// How long they may take to have everything, once they read again.
const PATIENCE: Duration = Duration::from_secs(120);
/// The kernel counts what sockets hold in pages.
const PAGE_BYTES: u64 = 4_096;

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct StalledReport {
    /// Devices that stopped reading.
    pub devices: u32,
    /// What each of them cost the server at most, in bytes; nothing is known of a server elsewhere.
    pub bytes_each: Option<f64>,
    /// What the kernel of this machine held for each at most, both ends of the socket together, in bytes.
    pub kernel_bytes_each: f64,
    /// Unicasts to others while broadcasts went on, before those devices came and while they did not read.
    pub others: Others,
    /// From reading again to having everything.
    pub caught_up: Duration,
    /// The judgement.
    pub verdict: Verdict,
}

impl StalledReport {
    /// Whether every promise was kept, memory within its bound, and others did not notice.
    pub fn holds(&self) -> bool {
        let is_lean = self.bytes_each.is_none_or(|bytes| bytes < EACH_MAX);
        self.verdict.holds() && is_lean && self.others.are_well()
    }
}

impl fmt::Display for StalledReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { devices, bytes_each, kernel_bytes_each, others, caught_up, verdict } = self;
        let kib = |bytes: f64| format!("{:.1} KiB", bytes / 1_024.0);
        let server = bytes_each.map_or_else(|| "-".to_owned(), kib);
        writeln!(f, "stalled    {devices} devices do not read while broadcasts of {BODY_BYTES} bytes go on")?;
        writeln!(f, "  memory     {server} of the server each, {} of the kernel", kib(*kernel_bytes_each))?;
        writeln!(f, "{others}")?;
        writeln!(f, "  again      all have everything {:.1} s after they read again", caught_up.as_secs_f64())?;
        writeln!(f, "{verdict}")?;
        write!(f, "stalled    {}", if self.holds() { "holds" } else { "BROKEN" })
    }
}

/// Has devices stop reading, and read again.
///
/// # Errors
/// [`Error::Corrupt`] when messages do not arrive at all; a broken promise is not an error but in the report.
pub async fn stalled(target: &Target, options: &UnrestOptions, progress: Progress<'_>) -> Result<StalledReport, Error> {
    let UnrestOptions { devices, probes, generator, .. } = options;
    let (size, all) = (Options { devices: *devices, probes: *probes }, *devices as usize);
    let shape = |usual| HerdOptions { receive_buffer_bytes: Some(RECEIVE_BUFFER_BYTES), ..usual };
    let mut muster = Muster::begin(target, generator, size, shape, progress).await?;
    let (without, _) = beside_broadcasts(&mut muster, target, options).await?;
    muster.connect().await?;
    progress("connected", all, all);

    let before = Held::now(target)?;
    muster.herd.order(Command::StopReading).await?;
    // First all that a device may be sent before it acks: what goes out then is no matter of not reading.
    for _ in 0..FILLING {
        muster.broadcast(BODY_BYTES).await?;
    }
    target.rest().await?;
    let filled = Held::now(target)?;
    let (with, most) = beside_broadcasts(&mut muster, target, options).await?;
    let most = most.max(filled);
    muster.herd.order(Command::Connect).await?;
    let (due, begun) = (muster.due, Instant::now());
    muster.herd.wait("caught up", PATIENCE, |count| count.delivered >= due).await?;
    let caught_up = begun.elapsed();
    let grown = |before: u64, most: u64| most.saturating_sub(before) as f64 / f64::from(*devices).max(1.0);
    Ok(StalledReport {
        devices: *devices,
        bytes_each: before.server.zip(most.server).map(|(before, most)| grown(before, most)),
        kernel_bytes_each: grown(before.kernel, most.kernel),
        others: Others { without, with },
        caught_up,
        verdict: muster.end().await?.verdict,
    })
}

/// Measures unicasts while broadcasts go on, and looks what is held at most.
async fn beside_broadcasts(
    muster: &mut Muster,
    target: &Target,
    options: &UnrestOptions,
) -> Result<(Latency, Held), Error> {
    let mut ticks = interval(BROADCAST_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut most = Held::default();
    let probe = muster.probe.clone();
    let mut measuring = pin!(probe.run(Unicasts::unkeyed(options.per_s, options.lasting)));
    loop {
        tokio::select! {
            measured = &mut measuring => return Ok((measured?.arrived, most)),
            _ = ticks.tick() => {
                muster.broadcast(BODY_BYTES).await?;
                most = most.max(Held::now(target)?);
            }
        }
    }
}

/// Memory.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    /// Resident memory of the server, if it runs here.
    server: Option<u64>,
    /// What the kernel holds for all TCP sockets.
    kernel: u64,
}

impl Held {
    fn now(target: &Target) -> Result<Self, Error> {
        let server = target.usage()?.map(|usage| usage.rss_bytes);
        let kernel = pages_of_tcp(&fs::read_to_string("/proc/net/sockstat")?).unwrap_or_default() * PAGE_BYTES;
        Ok(Self { server, kernel })
    }

    fn max(self, other: Self) -> Self {
        Self { server: self.server.max(other.server), kernel: self.kernel.max(other.kernel) }
    }
}

/// `TCP: inuse 5 orphan 0 tw 0 alloc 7 mem 3`.
fn pages_of_tcp(sockstat: &str) -> Option<u64> {
    let fields = sockstat.lines().find_map(|line| line.strip_prefix("TCP: "))?;
    fields.split(' ').skip_while(|field| *field != "mem").nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sockets_hold_is_read_as_the_kernel_tells_it() {
        let sockstat = "sockets: used 3\nTCP: inuse 5 orphan 0 tw 0 alloc 7 mem 31\nUDP: inuse 0 mem 2\n";
        assert_eq!(pages_of_tcp(sockstat), Some(31));
        assert_eq!(pages_of_tcp("sockets: used 3\n"), None);
    }
}
