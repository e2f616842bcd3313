//! Every device cut off at once: how soon all are back with what was sent meanwhile, and whether others notice.

use std::{fmt, pin::pin, time::Duration};

use serde::Serialize;
use tokio::time::Instant;

use super::{
    Options, Others, Progress, Target, Unicasts, UnrestOptions, generator::Command, muster::Muster, probe::Probe,
};
use crate::{Error, Latency, Verdict};

/// How soon all must be back, and synced.
const BACK_MAX: Duration = Duration::from_secs(60);
/// How long the storm is watched.
const PATIENCE: Duration = Duration::from_secs(120);
/// Unicasts are measured for so long at a time, until the storm is over.
const SLICE: Duration = Duration::from_millis(500);
/// How long the herd may take to notice that its links are cut.
const CUT_PATIENCE: Duration = Duration::from_secs(5);

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct StormReport {
    /// Devices that were cut off.
    pub devices: u32,
    /// From the cut until all were connected again.
    pub back: Duration,
    /// From the cut until all had what was sent meanwhile.
    pub synced: Duration,
    /// Unicasts to others until all were synced, and before and after.
    pub others: Others,
    /// The judgement.
    pub verdict: Verdict,
}

impl StormReport {
    /// Whether every promise was kept, all were back in time, and others did not notice.
    pub fn holds(&self) -> bool {
        self.verdict.holds() && self.back.max(self.synced) <= BACK_MAX && self.others.are_well()
    }
}

impl fmt::Display for StormReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { devices, back, synced, others, verdict } = self;
        let [back, synced] = [back, synced].map(Duration::as_secs_f64);
        writeln!(
            f,
            "storm      {devices} devices cut off at once: connected after {back:.1} s, synced after {synced:.1} s"
        )?;
        writeln!(f, "{others}")?;
        writeln!(f, "{verdict}")?;
        write!(f, "storm      {}", if self.holds() { "holds" } else { "BROKEN" })
    }
}

/// Cuts all devices off, sends to them, and lets them come back as the terminal SDKs do.
///
/// # Errors
/// [`Error::Corrupt`] when they do not come back, or unicasts to others do not arrive; a broken promise is not an error
/// but in the report.
pub async fn storm(target: &Target, options: &UnrestOptions, progress: Progress<'_>) -> Result<StormReport, Error> {
    let UnrestOptions { devices, probes, per_s, lasting, generator } = options;
    let (size, all) = (Options { devices: *devices, probes: *probes }, *devices as usize);
    let mut muster = Muster::begin(target, generator, size, |usual| usual, progress).await?;
    muster.connect().await?;
    progress("connected", all, all);
    let probe = muster.probe.clone();
    let apart = Unicasts::unkeyed(*per_s, *lasting);
    let mut without = probe.run(apart).await?.arrived;

    let (opened, begun) = (muster.herd.count().opened, Instant::now());
    muster.herd.order(Command::Storm).await?;
    // Whoever is connected has come back since.
    muster.herd.wait("cut off", CUT_PATIENCE, |count| count.connected <= count.opened - opened).await?;
    muster.broadcast(0).await?;
    let (due, herd) = (muster.due, &mut muster.herd);
    let returning = async {
        herd.wait("back", PATIENCE, |count| count.opened >= opened + all && count.connected == all).await?;
        let back = begun.elapsed();
        herd.wait("synced", PATIENCE, |count| count.delivered >= due).await?;
        Ok((back, begun.elapsed()))
    };
    let ((back, synced), with) = beside(&probe, *per_s, returning).await?;
    progress("back", all, all);
    // Once more: a machine that is not ours alone is slower at one time than at another.
    without.merge(&probe.run(apart).await?.arrived);
    let (devices, verdict) = (*devices, muster.end().await?.verdict);
    Ok(StormReport { devices, back, synced, others: Others { without, with }, verdict })
}

/// Measures unicasts, once at least, until something else is over.
async fn beside<T>(
    probe: &Probe,
    per_s: u32,
    other: impl Future<Output = Result<T, Error>>,
) -> Result<(T, Latency), Error> {
    let (mut other, mut over, mut latency) = (pin!(other), None, Latency::default());
    loop {
        let mut slice = pin!(probe.run(Unicasts::unkeyed(per_s, SLICE)));
        let measured = loop {
            tokio::select! {
                measured = &mut slice => break measured?,
                outcome = &mut other, if over.is_none() => over = Some(outcome?),
            }
        };
        latency.merge(&measured.arrived);
        if let Some(over) = over {
            return Ok((over, latency));
        }
    }
}
