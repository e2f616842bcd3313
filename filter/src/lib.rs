//! Who is meant: keeps what devices report about themselves, and answers which of them satisfy an expression.
//!
//! The store has the truth about every device; this tier holds nothing of its own.

mod attributes;
mod metrics;
mod reports;
mod saved;
mod scan;

use std::sync::Arc;

use audience::Select;
use broker::SharedBroker;
use model::Clock;
use prometheus_client::registry::Registry;
use store::SharedStore;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use metrics::Metrics;

/// What a filter works with.
#[derive(Clone)]
pub struct Deps {
    /// Where reports come from.
    pub broker: SharedBroker,
    /// Where devices are.
    pub store: SharedStore,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// Why the filter stopped: what is kept cannot be trusted.
#[derive(Debug, Error)]
pub enum Error {
    /// By the broker.
    #[error("filter: {0}")]
    Broker(#[from] broker::Error),
    /// By the store.
    #[error("filter: {0}")]
    Store(#[from] store::Error),
}

/// The filter tier.
pub struct Filter {
    deps: Deps,
    metrics: Metrics,
}

impl Filter {
    /// Prepares the tier; its metrics go to `registry`.
    pub fn new(deps: Deps, registry: &mut Registry) -> Self {
        Self { deps, metrics: Metrics::new(registry) }
    }

    /// Answers expressions in this process, whether or not the tier runs. See [`Select`] for what is promised.
    pub fn select(&self) -> Arc<dyn Select> {
        let store = self.deps.store.clone();
        let inner = Arc::new(scan::Scan { store: store.clone(), seconds: self.metrics.select_seconds.clone() });
        Arc::new(saved::WithSaved { inner, store })
    }

    /// Keeps reports until `shutdown`.
    ///
    /// # Errors
    /// When the data of the broker or the store cannot be trusted.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        reports::keep(&self.deps, &self.metrics, &shutdown).await
    }
}
