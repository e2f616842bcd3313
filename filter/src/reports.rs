//! From the reports queue into the profiles of devices: many reports in one step, acked when that is durable.
//!
//! Reports are repeated when an ack is lost, which changes nothing: a merge patch is idempotent, and the reports of one
//! device stay in order. What access points saw of devices comes the same way, many devices at once.

mod merge;

use std::time::Duration;

use broker::{Consumer, Delivery};
use merge::merge;
use model::{Queue, Reported, record::Record as _};
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{Deps, Error, Metrics};

/// Reports taken together: enough to gain from one flush, few enough to begin again cheaply.
const TAKEN_MAX: usize = 256;

/// Pause after a failure of the broker or the store.
const PAUSE: Duration = Duration::from_millis(250);

/// What became of the reports of a batch.
#[derive(Default)]
struct Outcomes {
    merged: u64,
    /// What access points told.
    seen: u64,
    invalid: u64,
    stale: u64,
    /// Attributes that were left as they are: not the device's to write, or of another type.
    refused: u64,
}

impl Outcomes {
    fn add(&mut self, other: &Self) {
        self.merged += other.merged;
        self.seen += other.seen;
        self.invalid += other.invalid;
        self.stale += other.stale;
        self.refused += other.refused;
    }
}

/// Keeps reports until `shutdown`; only damage ends it earlier.
pub(crate) async fn keep(deps: &Deps, metrics: &Metrics, shutdown: &CancellationToken) -> Result<(), Error> {
    while !shutdown.is_cancelled() {
        match deps.broker.consume(Queue::Reports, TAKEN_MAX).await {
            Ok(consumer) => drain(deps, metrics, consumer, shutdown).await?,
            Err(damaged @ broker::Error::Corrupt(_)) => return Err(damaged.into()),
            Err(error) => warn!(%error, "cannot take reports; trying again"),
        }
        pause(shutdown).await;
    }
    Ok(())
}

async fn drain(
    deps: &Deps,
    metrics: &Metrics,
    mut consumer: Consumer,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    loop {
        let deliveries = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            deliveries = consumer.next(TAKEN_MAX) => deliveries,
        };
        if deliveries.is_empty() {
            return Ok(());
        }
        let (reports, deliveries) = read(metrics, deliveries).await;
        let outcomes = loop {
            match merge(deps, &reports).await {
                Ok(outcomes) => break outcomes,
                Err(damaged @ store::Error::Corrupt(_)) => return Err(damaged.into()),
                Err(error) => warn!(%error, "cannot keep reports; holding them"),
            }
            pause(shutdown).await;
            if shutdown.is_cancelled() {
                return Ok(());
            }
        };
        deliveries.into_iter().for_each(Delivery::ack);
        metrics.reports("merged", outcomes.merged);
        metrics.reports("seen", outcomes.seen);
        metrics.reports("invalid", outcomes.invalid);
        metrics.reports("stale", outcomes.stale);
        metrics.refused(outcomes.refused);
    }
}

async fn read(metrics: &Metrics, deliveries: Vec<Delivery>) -> (Vec<Reported>, Vec<Delivery>) {
    let (mut reports, mut readable) = (Vec::with_capacity(deliveries.len()), Vec::with_capacity(deliveries.len()));
    for delivery in deliveries {
        match Reported::decode(delivery.body()) {
            Ok(report) => {
                reports.push(report);
                readable.push(delivery);
            }
            Err(unreadable) => {
                metrics.reports("unreadable", 1);
                if let Err(error) = delivery.dead_letter(unreadable.to_string()).await {
                    warn!(%error, "cannot set a report aside now; it will come again");
                }
            }
        }
    }
    (reports, readable)
}

async fn pause(shutdown: &CancellationToken) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = time::sleep(PAUSE) => {}
    }
}
