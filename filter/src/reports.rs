//! From the reports queue into the profiles of devices: many reports in one step, acked when that is durable. Of several
//! filter nodes one at a time does it: two would take turns with the reports of one device, and mix up their order.
//!
//! Reports are repeated when an ack is lost, which changes nothing: a merge patch is idempotent, and the reports of one
//! device stay in order. What access points saw of devices comes the same way, many devices at once.

mod merge;

use std::time::Duration;

use broker::{Consumer, Delivery};
use merge::merge;
use model::{NodeId, Queue, Reported, record::Record as _};
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{Deps, Error, Metrics};

/// Reports taken together: enough to gain from one flush, few enough to begin again cheaply.
const TAKEN_MAX: usize = 256;

/// Pause after a failure of the broker or the store, and between two looks whether this is now the node that keeps reports.
const PAUSE: Duration = Duration::from_millis(250);

/// The name of this duty.
const DUTY: &str = "reports";

/// How long the duty stays with a node that is not heard of: so long reports wait when it dies.
const LEASE: Duration = Duration::from_secs(3);

/// Between two signs that the node with the duty is there: three fit a lease.
const RENEW_EVERY: Duration = Duration::from_secs(1);

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

/// Keeps reports until `shutdown`, whenever that is the duty of this node; only damage ends it earlier.
pub(crate) async fn keep(
    deps: &Deps,
    node: &NodeId,
    metrics: &Metrics,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    while !shutdown.is_cancelled() {
        if has_duty(deps, node).await.is_ok_and(|has| has) {
            tokio::select! {
                taken = take(deps, metrics, shutdown) => taken?,
                // What is in hand goes back to the queue, for whoever has the duty now.
                () = duty_lost(deps, node) => debug!("another node keeps reports now"),
            }
        }
        pause(shutdown).await;
    }
    Ok(())
}

async fn has_duty(deps: &Deps, node: &NodeId) -> Result<bool, store::Error> {
    deps.store.hold(DUTY, node, deps.clock.now(), LEASE).await
}

/// Keeps the duty; ends when another node has it, or nobody can say so for as long as it would take.
async fn duty_lost(deps: &Deps, node: &NodeId) {
    let mut held = time::Instant::now();
    while held.elapsed() < LEASE {
        time::sleep(RENEW_EVERY).await;
        match has_duty(deps, node).await {
            Ok(true) => held = time::Instant::now(),
            Ok(false) => return,
            Err(error) => debug!(%error, "cannot say that this node keeps reports"),
        }
    }
}

async fn take(deps: &Deps, metrics: &Metrics, shutdown: &CancellationToken) -> Result<(), Error> {
    match deps.broker.consume(Queue::Reports, TAKEN_MAX).await {
        Ok(consumer) => drain(deps, metrics, consumer, shutdown).await?,
        Err(damaged @ broker::Error::Corrupt(_)) => return Err(damaged.into()),
        Err(error) => warn!(%error, "cannot take reports; trying again"),
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
        let (reports, deliveries) = read(metrics, deliveries, shutdown).await;
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

/// Reads reports; what cannot be read is set aside. When the broker refuses that, the rest of it goes back unasked, and
/// there is a pause: in this queue it is the first to be handed out again.
async fn read(
    metrics: &Metrics,
    deliveries: Vec<Delivery>,
    shutdown: &CancellationToken,
) -> (Vec<Reported>, Vec<Delivery>) {
    let (mut reports, mut readable) = (Vec::with_capacity(deliveries.len()), Vec::with_capacity(deliveries.len()));
    let mut refused = false;
    for delivery in deliveries {
        match Reported::decode(delivery.body()) {
            Ok(report) => {
                reports.push(report);
                readable.push(delivery);
            }
            Err(unreadable) => {
                metrics.reports("unreadable", 1);
                if !refused && let Err(error) = delivery.dead_letter(unreadable.to_string()).await {
                    warn!(%error, "cannot set a report aside now; it will come again");
                    refused = true;
                }
            }
        }
    }
    if refused {
        pause(shutdown).await;
    }
    (reports, readable)
}

async fn pause(shutdown: &CancellationToken) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = time::sleep(PAUSE) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use broker::{
        Broker as _, Publication,
        embedded::{Embedded, Limits},
    };
    use engine::Engine;
    use model::SystemClock;
    use prometheus_client::registry::Registry;

    use super::*;

    #[tokio::test]
    async fn what_cannot_be_set_aside_is_not_taken_again_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path()).unwrap();
        let broker = Embedded::open(engine, Arc::new(SystemClock), Limits::default()).unwrap();
        let unreadable = Publication { queue: Queue::Reports, body: "\u{7f}?".into() };
        broker.publish(vec![unreadable]).await.unwrap();
        let mut consumer = broker.consume(Queue::Reports, TAKEN_MAX).await.unwrap();
        let taken = consumer.next(TAKEN_MAX).await;
        // What went back with its consumer is not set aside.
        drop(consumer);
        let (metrics, began) = (Metrics::new(&mut Registry::default()), time::Instant::now());
        let (reports, readable) = read(&metrics, taken, &CancellationToken::new()).await;
        assert!(reports.is_empty() && readable.is_empty());
        assert!(broker.dead_letters(1).await.unwrap().is_empty());
        assert!(began.elapsed() >= PAUSE, "{:?}", began.elapsed());
    }
}
