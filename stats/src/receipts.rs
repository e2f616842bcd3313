//! From the receipts queue into the tallies: many batches in one step, acked when that is durable.

use std::time::Duration;

use broker::{Consumer, Delivery};
use model::{Queue, ReceiptBatch, record::Record as _};
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::Deps;

/// Receipt batches taken together: enough to gain from one flush, few enough to begin again cheaply.
const TAKEN_MAX: usize = 256;

/// Pause after a failure of the broker or the store; doubled up to [`PAUSE_MAX`] while the store fails, because what is
/// tried again may have been added already, and be added again.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(5);

pub(crate) struct Counters {
    batches: Counter,
    unreadable: Counter,
}

impl Counters {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let counters = Self { batches: Counter::default(), unreadable: Counter::default() };
        registry.register("fanfare_receipt_batches", "Receipt batches added to tallies", counters.batches.clone());
        let help = "Receipt batches set aside because nobody can read them";
        registry.register("fanfare_receipts_unreadable", help, counters.unreadable.clone());
        counters
    }
}

/// Keeps receipts until `shutdown`; only damage ends it earlier.
pub(crate) async fn keep(deps: &Deps, counters: &Counters, shutdown: &CancellationToken) -> Result<(), broker::Error> {
    while !shutdown.is_cancelled() {
        match deps.broker.consume(Queue::Receipts, TAKEN_MAX).await {
            Ok(consumer) => drain(deps, counters, consumer, shutdown).await,
            Err(damaged @ broker::Error::Corrupt(_)) => return Err(damaged),
            Err(error) => warn!(%error, "cannot take receipts; trying again"),
        }
        pause(PAUSE, shutdown).await;
    }
    Ok(())
}

async fn drain(deps: &Deps, counters: &Counters, mut consumer: Consumer, shutdown: &CancellationToken) {
    loop {
        let deliveries = tokio::select! {
            () = shutdown.cancelled() => return,
            deliveries = consumer.next(TAKEN_MAX) => deliveries,
        };
        if deliveries.is_empty() {
            return;
        }
        let (batches, deliveries) = read(counters, deliveries).await;
        let mut again_after = PAUSE;
        while let Err(error) = deps.store.add_receipts(batches.clone()).await {
            warn!(%error, "cannot keep receipts; holding them");
            pause(again_after, shutdown).await;
            if shutdown.is_cancelled() {
                return;
            }
            again_after = (again_after * 2).min(PAUSE_MAX);
        }
        counters.batches.inc_by(deliveries.len() as u64);
        deliveries.into_iter().for_each(Delivery::ack);
    }
}

async fn read(counters: &Counters, deliveries: Vec<Delivery>) -> (Vec<ReceiptBatch>, Vec<Delivery>) {
    let (mut batches, mut readable) = (Vec::with_capacity(deliveries.len()), Vec::with_capacity(deliveries.len()));
    for delivery in deliveries {
        match ReceiptBatch::decode(delivery.body()) {
            Ok(batch) => {
                batches.push(batch);
                readable.push(delivery);
            }
            Err(unreadable) => {
                counters.unreadable.inc();
                if let Err(error) = delivery.dead_letter(unreadable.to_string()).await {
                    warn!(%error, "cannot set a receipt batch aside now; it will come again");
                }
            }
        }
    }
    (batches, readable)
}

async fn pause(pause: Duration, shutdown: &CancellationToken) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = time::sleep(pause) => {}
    }
}
