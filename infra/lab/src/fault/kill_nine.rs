//! `kill -9` of the whole server at random moments under load, and the judgement over everything that happened.

use std::{fmt, time::Duration};

use tokio::time::sleep;

use super::{
    server::{Launch, Server},
    traffic::{Scene, Traffic},
};
use crate::{Error, Verdict, check};

/// How long the server is left alone before it is killed: short enough to hit every step of the pipeline.
const ALIVE_MS: std::ops::Range<u64> = 100..1_500;

/// The scenario.
#[derive(Clone, Debug)]
pub struct KillNine {
    /// How the server is started.
    pub launch: Launch,
    /// What is played, on that server alone.
    pub scene: Scene,
    /// How often the server is killed.
    pub kills: u32,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct KillNineReport {
    /// The judgement.
    pub verdict: Verdict,
    /// How long each start took, the first included.
    pub starts: Vec<Duration>,
}

impl fmt::Display for KillNineReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slowest = self.starts.iter().max().copied().unwrap_or_default();
        let kills = self.starts.len().saturating_sub(1);
        writeln!(f, "killed {kills} times; the slowest start took {:.1} s", slowest.as_secs_f64())?;
        self.verdict.fmt(f)
    }
}

/// Starts the server, kills it `kills` times under load, lets everything come to rest, and judges.
///
/// # Errors
/// [`Error::Corrupt`] when the server ends by itself or breaks the contract, [`Error::Unavailable`] when it does not
/// come back; a broken promise is not an error but in the verdict.
pub async fn kill_nine(scenario: &KillNine) -> Result<KillNineReport, Error> {
    let KillNine { launch, scene, kills } = scenario;
    let mut server = Server::start(launch, &scene.api).await?;
    let mut starts = vec![server.ready_after];
    let traffic = Traffic::begin(scene).await?;
    for _ in 0..*kills {
        sleep(Duration::from_millis(rand::random_range(ALIVE_MS))).await;
        server.kill().await?;
        server = Server::start(launch, &scene.api).await?;
        starts.push(server.ready_after);
    }
    let records = traffic.end(scene).await?;
    server.kill().await?;
    Ok(KillNineReport { verdict: check(&records), starts })
}
