//! What became of messages: receipts into tallies, figures of the queues, and what is over removed.
//!
//! Nothing here is on a message's way: this tier may fail without changing any answer but its own. The funnel is
//! derived from the tallies it keeps (see [`model::Tally`]), so telling twice or late never makes it wrong.

mod metrics;
mod queues;
mod receipts;
mod retention;

use std::sync::Arc;

use broker::SharedBroker;
use model::{Clock, NodeId};
use prometheus_client::registry::Registry;
use store::SharedStore;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

pub use metrics::router;

/// What can be set.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name of this node: of several, one at a time removes what is over.
    pub node: NodeId,
}

/// What stats works with.
#[derive(Clone)]
pub struct Deps {
    /// Where receipts come from.
    pub broker: SharedBroker,
    /// Where tallies are.
    pub store: SharedStore,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// Why stats stopped.
#[derive(Debug, Error)]
#[error("stats: {0}")]
pub struct Error(#[from] broker::Error);

/// The stats tier.
pub struct Stats {
    config: Config,
    deps: Deps,
    queues: queues::Gauges,
    receipts: receipts::Counters,
}

impl Stats {
    /// Prepares the tier; its metrics go to `registry`.
    pub fn new(config: Config, deps: Deps, registry: &mut Registry) -> Self {
        Self { config, deps, queues: queues::Gauges::new(registry), receipts: receipts::Counters::new(registry) }
    }

    /// Works until `shutdown`.
    ///
    /// # Errors
    /// When the broker's data cannot be trusted.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let Self { config, deps, queues, receipts } = self;
        let others = async {
            tokio::join!(queues::watch(&deps, &queues, &shutdown), retention::run(&deps, &config.node, &shutdown));
            Ok(())
        };
        // Receipts that nobody keeps end the tier, whatever else goes on.
        tokio::try_join!(receipts::keep(&deps, &receipts, &shutdown), others)?;
        Ok(())
    }
}
