//! Decides who gets a message: takes envelopes from the lane queues, resolves their audience, appends them to inboxes
//! or the timeline, rings the access points, and acks last.
//!
//! Every step may be done again: an append knows the message it had before, a bell is only a doorbell, and the
//! delivery comes back until it is acked. It holds no state of its own, so there may be any number of dispatchers.

mod blocked;
mod metrics;
mod parts;
mod resolve;
mod ring;
mod worker;

use std::{sync::Arc, time::Duration};

use audience::Select;
use broker::SharedBroker;
use model::{Clock, Lane, Queue, Shard};
use prometheus_client::registry::Registry;
use store::SharedStore;
use thiserror::Error;
use tokio::{task::JoinSet, time};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, error, info_span};

use crate::{blocked::Blocked, metrics::Metrics, worker::Worker};

/// What can be set about a dispatcher.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Unsettled deliveries of one queue; also what one append takes at most.
    pub prefetch: usize,
    /// How often a message may be begun before it is set aside. It takes that many crashes or panics while it is
    /// being handled: errors of the store are waited out and do not count.
    pub attempts_max: u32,
}

impl Default for Config {
    /// 256 in flight: where group commit has reached most of its gain.
    fn default() -> Self {
        Self { prefetch: 256, attempts_max: 3 }
    }
}

/// What a dispatcher works with.
#[derive(Clone)]
pub struct Deps {
    /// Where envelopes come from and bells go to.
    pub broker: SharedBroker,
    /// Where streams are.
    pub store: SharedStore,
    /// Who answers filters.
    pub select: Arc<dyn Select>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// Why a dispatcher stopped.
#[derive(Debug, Error)]
#[error("dispatcher: {0}")]
pub struct Error(#[from] broker::Error);

/// Pause before a worker that failed starts again; also how long a consumer lost to the broker stays lost.
const RESTART_PAUSE: Duration = Duration::from_millis(200);

/// The dispatcher tier.
pub struct Dispatcher {
    config: Config,
    deps: Deps,
    metrics: Metrics,
}

impl Dispatcher {
    /// Prepares a dispatcher; its metrics go to `registry`.
    pub fn new(config: Config, deps: Deps, registry: &mut Registry) -> Self {
        Self { config, deps, metrics: Metrics::new(registry) }
    }

    /// Works on every lane and shard until `shutdown`, then finishes what is in hand.
    ///
    /// # Errors
    /// When the broker's data cannot be trusted.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let mut workers = JoinSet::new();
        let blocked = Arc::new(Blocked::default());
        for lane in Lane::ALL {
            for queue in Shard::all().map(|shard| Queue::Push(lane, shard)) {
                let worker = Worker {
                    queue,
                    lane,
                    config: self.config,
                    deps: self.deps.clone(),
                    blocked: blocked.clone(),
                    metrics: self.metrics.of(lane),
                };
                let span = info_span!("dispatch", queue = %queue);
                workers.spawn(keep_running(worker, shutdown.clone()).instrument(span));
            }
        }
        while let Some(ended) = workers.join_next().await {
            if let Ok(Err(damaged)) = ended {
                shutdown.cancel();
                return Err(damaged.into());
            }
        }
        Ok(())
    }
}

/// Runs a worker again whenever it fails or panics: what it held goes back to its queue and comes again, counted.
async fn keep_running(worker: Worker, shutdown: CancellationToken) -> Result<(), broker::Error> {
    let worker = Arc::new(worker);
    while !shutdown.is_cancelled() {
        let run = tokio::spawn(worker.clone().run(shutdown.clone()).in_current_span());
        match run.await {
            Ok(Err(damaged @ broker::Error::Corrupt(_))) => return Err(damaged),
            Ok(Err(error)) => error!(%error, "cannot consume; trying again"),
            Ok(Ok(())) => {}
            Err(panic) => error!(%panic, "a worker panicked; starting it again"),
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = time::sleep(RESTART_PAUSE) => {}
        }
    }
    Ok(())
}
