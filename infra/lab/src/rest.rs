//! The end of a recorded run: wait until nothing is under way any more, and write down what the platform says then.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use model::{DeviceId, Funnel};
use tokio::time::{Instant, sleep};

use crate::{Api, Error, History, Kind, Op, sender::Sent};

/// Messages asked about at a time.
const UNDER_WAY: usize = 16;
/// Pause before those that are not at rest are asked about again.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// Nothing must have happened for so long, so that what comes too often has time to come.
const SILENCE: Duration = Duration::from_secs(1);

/// Waits until every message's funnel balances with nothing pending and no device has received anything for a second,
/// or until `patience` ends; then records that `devices` had time to sync, and every funnel. `progress` hears how many
/// messages are at rest.
///
/// # Errors
/// [`Error::Unavailable`] when a funnel cannot be had at all, [`Error::Corrupt`] when it is none.
pub async fn rest(
    api: &Api,
    history: &History,
    sent: &[Sent],
    devices: &[DeviceId],
    patience: Duration,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Vec<(Sent, Funnel)>, Error> {
    let deadline = Instant::now() + patience;
    let mut funnels: Vec<Option<Funnel>> = vec![None; sent.len()];
    loop {
        let is_open = |&n: &usize| funnels[n].is_none_or(|funnel| !is_at_rest(&funnel));
        let open: Vec<_> = (0..sent.len()).filter(is_open).collect();
        let asked = stream::iter(open).map(async |n| (n, api.message(sent[n].id).await));
        let mut asked = std::pin::pin!(asked.buffer_unordered(UNDER_WAY));
        while let Some((n, report)) = asked.next().await {
            match report {
                Ok(report) => funnels[n] = Some(report.stats),
                Err(Error::Unavailable(_)) if Instant::now() < deadline => {}
                Err(error) => return Err(error),
            }
        }
        let resting = funnels.iter().flatten().filter(|funnel| is_at_rest(funnel)).count();
        progress(resting);
        if resting == sent.len() || Instant::now() >= deadline {
            break;
        }
        sleep(ASK_EVERY).await;
    }
    wait_for_silence(history, deadline).await;
    for dev in devices {
        history.record(0, Kind::Ok, Op::Synced { dev: dev.clone() });
    }
    let mut told = Vec::new();
    for (sent, funnel) in sent.iter().zip(funnels) {
        let funnel = funnel.ok_or_else(|| Error::unavailable("no_funnel", &sent.msg))?;
        history.record(0, Kind::Ok, Op::Funnel { msg: sent.msg.clone(), funnel });
        told.push((sent.clone(), funnel));
    }
    Ok(told)
}

fn is_at_rest(funnel: &Funnel) -> bool {
    funnel.balances() && funnel.pending == 0
}

async fn wait_for_silence(history: &History, deadline: Instant) {
    let mut events = history.len();
    let mut since = Instant::now();
    while since.elapsed() < SILENCE && Instant::now() < deadline + SILENCE {
        sleep(ASK_EVERY).await;
        if history.len() != events {
            (events, since) = (history.len(), Instant::now());
        }
    }
}
