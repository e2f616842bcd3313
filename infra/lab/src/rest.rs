//! The end of a recorded run: wait until nothing is under way any more, and write down what the platform says then.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use model::{DeviceId, Funnel, Status};
use tokio::time::{Instant, sleep};

use crate::{Api, Error, History, Kind, Op, api::Report, sender::Sent};

/// Messages asked about at a time.
const UNDER_WAY: usize = 16;
/// Pause before those that are not at rest are asked about again.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// Nothing must have happened for so long, so that what comes too often has time to come.
const SILENCE: Duration = Duration::from_secs(1);

/// Waits until every message is over, its funnel balanced with nothing pending, and no device has received anything for a second,
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
    let mut open: Vec<&Sent> = sent.iter().collect();
    loop {
        let asked = stream::iter(open).map(async |sent| (sent, api.message(sent.id).await));
        let answers: Vec<_> = asked.buffer_unordered(UNDER_WAY).collect().await;
        open = Vec::new();
        for (sent, answer) in answers {
            match answer {
                Ok(report) if is_at_rest(&report) => {}
                Ok(_) | Err(Error::Unavailable(_)) => open.push(sent),
                Err(error) => return Err(error),
            }
        }
        progress(sent.len() - open.len());
        if open.is_empty() || Instant::now() >= deadline {
            break;
        }
        sleep(ASK_EVERY).await;
    }
    wait_for_silence(history, deadline).await;
    for dev in devices {
        history.record(0, Kind::Ok, Op::Synced { dev: dev.clone() });
    }
    // Asked again, for a cancelled message is over before the last acks of those who have it are in.
    let told = stream::iter(sent).map(async |sent| {
        let funnel = api.message(sent.id).await?.stats;
        history.record(0, Kind::Ok, Op::Funnel { msg: sent.msg.clone(), funnel });
        Ok((sent.clone(), funnel))
    });
    told.buffered(UNDER_WAY).try_collect().await
}

/// A message that is not dispatched yet has nothing pending either.
fn is_at_rest(report: &Report) -> bool {
    let over = !matches!(report.status, Status::Queued | Status::Delivering);
    over && report.stats.balances() && report.stats.pending == 0
}

/// Until nothing has happened for a second, or the deadline.
pub(crate) async fn wait_for_silence(history: &History, deadline: Instant) {
    let mut events = history.len();
    let mut since = Instant::now();
    while since.elapsed() < SILENCE && Instant::now() < deadline + SILENCE {
        sleep(ASK_EVERY).await;
        if history.len() != events {
            (events, since) = (history.len(), Instant::now());
        }
    }
}
