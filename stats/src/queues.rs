//! How long the queues are, and how old: looked at every few seconds.

use std::{sync::atomic::AtomicU64, time::Duration};

use model::Queue;
use prometheus_client::{
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::Deps;

/// Between two looks; finer than any scrape.
const LOOK_EVERY: Duration = Duration::from_secs(2);

type Labels = [(&'static str, String); 1];

pub(crate) struct Gauges {
    depth: Family<Labels, Gauge<u64, AtomicU64>>,
    unacked: Family<Labels, Gauge<u64, AtomicU64>>,
    oldest_age: Family<Labels, Gauge<f64, AtomicU64>>,
}

impl Gauges {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let gauges = Self { depth: Family::default(), unacked: Family::default(), oldest_age: Family::default() };
        registry.register("fanfare_queue_depth", "Messages waiting in a queue", gauges.depth.clone());
        registry.register("fanfare_queue_unacked", "Messages taken and not settled", gauges.unacked.clone());
        let help = "Time the oldest message has been in a queue";
        registry.register("fanfare_queue_oldest_age_seconds", help, gauges.oldest_age.clone());
        gauges
    }
}

pub(crate) async fn watch(deps: &Deps, gauges: &Gauges, shutdown: &CancellationToken) {
    let mut looks = time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = looks.tick() => {}
        }
        for queue in Queue::all() {
            match deps.broker.depth(queue).await {
                Ok(depth) => {
                    let labels = [("queue", queue.to_string())];
                    gauges.depth.get_or_create(&labels).set(depth.ready);
                    gauges.unacked.get_or_create(&labels).set(depth.unacked);
                    gauges.oldest_age.get_or_create(&labels).set(depth.oldest_age.as_secs_f64());
                }
                Err(error) => debug!(%queue, %error, "cannot look at a queue"),
            }
        }
    }
}
