//! Devices that fall silent, though nobody closes their sockets: when the server notices, and whether they get what was
//! sent meanwhile once they are back.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde::Serialize;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Options, Progress, Target, herd::HerdOptions, muster::Muster};
use crate::{Error, Verdict, fault::Blackhole, metrics};

/// How often the server is asked how many it thinks are there.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// Over one and a half keep alives, for the server's timers and for the question.
const SLACK: Duration = Duration::from_secs(2);
/// How long devices may take to be back with everything.
const PATIENCE: Duration = Duration::from_secs(120);

/// How large it is.
#[derive(Clone, Debug)]
pub struct SilentOptions {
    /// Devices.
    pub devices: u32,
    /// Their keep alive, in seconds.
    pub keep_alive_s: u16,
    /// The address of loopback that they connect from, and whose packets are then dropped, both ways; absent: their
    /// process is stopped where it is.
    pub dropped: Option<IpAddr>,
    /// Where the server tells its metrics.
    pub metrics: SocketAddr,
    /// The command that runs [`generate`](super::generate) in a process of its own.
    pub generator: Vec<String>,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct SilentReport {
    /// Devices.
    pub devices: u32,
    /// By when every one of them must be noticed.
    pub limit: Duration,
    /// From the silence until the server had noticed the first of them.
    pub first: Duration,
    /// From the silence until it had noticed all.
    pub last: Duration,
    /// From the end of the silence until all were back with everything.
    pub back: Duration,
    /// The judgement.
    pub verdict: Verdict,
}

impl SilentReport {
    /// Whether every promise was kept, and the silence noticed in time.
    pub fn holds(&self) -> bool {
        self.verdict.holds() && self.last <= self.limit + SLACK
    }
}

impl fmt::Display for SilentReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { devices, limit, first, last, back, verdict } = self;
        let [limit, first, last, back] = [limit, first, last, back].map(Duration::as_secs_f64);
        writeln!(f, "silent     {devices} devices fall silent; one and a half keep alives are {limit:.1} s")?;
        writeln!(f, "  noticed    the first after {first:.1} s, the last after {last:.1} s")?;
        writeln!(f, "  back       with everything {back:.1} s after the silence")?;
        writeln!(f, "{verdict}")?;
        write!(f, "silent     {}", if self.holds() { "holds" } else { "BROKEN" })
    }
}

/// Stops the devices' process, or drops their packets; sends to them, and lets them go on.
///
/// # Errors
/// [`Error::Corrupt`] when the silence is never noticed, or devices do not come back; a broken promise is not an error
/// but in the report.
pub async fn silent(target: &Target, options: &SilentOptions, progress: Progress<'_>) -> Result<SilentReport, Error> {
    let SilentOptions { devices, keep_alive_s, dropped, metrics, generator } = options;
    let (size, all) = (Options { devices: *devices, probes: 0 }, *devices as usize);
    let shape = |usual| HerdOptions { keep_alive_s: *keep_alive_s, source: *dropped, ..usual };
    let mut muster = Muster::begin(target, generator, size, shape, progress).await?;
    muster.connect().await?;
    let keep_alive = Duration::from_secs((*keep_alive_s).into());
    sleep(keep_alive).await; // so that they have pinged
    progress("connected", all, all);

    let (silence, limit) = (Instant::now(), keep_alive.mul_f32(1.5));
    let hole = match dropped {
        Some(address) => Some(Blackhole::of(*address).await?),
        None => muster.herd.signal("STOP").await.map(|()| None)?,
    };
    // Late enough that it is the keep alive which is missed first, and not an ack.
    let noticing = notice(*metrics, f64::from(*devices), silence, limit * 2);
    let sending = async {
        sleep_until(silence + keep_alive.mul_f32(0.5)).await;
        muster.broadcast(0).await?;
        muster.unicast_to_each().await
    };
    let ((first, last), ()) = tokio::try_join!(noticing, sending)?;
    progress("noticed", all, all);
    muster.broadcast(0).await?;
    let (due, heard) = (muster.due, Instant::now());
    match hole {
        Some(hole) => drop(hole),
        None => muster.herd.signal("CONT").await?,
    }
    let is_back = |count: &super::generator::Count| count.delivered >= due && count.connected == all;
    muster.herd.wait("back", PATIENCE, is_back).await?;
    let back = heard.elapsed();
    Ok(SilentReport { devices: *devices, limit, first, last, back, verdict: muster.end().await?.verdict })
}

/// When the server had noticed the first, and the last.
async fn notice(
    server: SocketAddr,
    devices: f64,
    since: Instant,
    patience: Duration,
) -> Result<(Duration, Duration), Error> {
    let mut first = None;
    loop {
        let open = metrics::sum(&[server], "fanfare_connections", "").await?;
        let elapsed = since.elapsed();
        if open < devices {
            first.get_or_insert(elapsed);
        }
        match first {
            Some(first) if open < 1.0 => return Ok((first, elapsed)),
            _ if elapsed > patience => {
                return Err(Error::Corrupt(format!("the server still thinks that {open} are there after {elapsed:?}")));
            }
            _ => sleep(ASK_EVERY).await,
        }
    }
}
