//! Who is meant: keeps what devices report about themselves, and answers which of them satisfy an expression.
//!
//! The store has the truth about every device. What this tier holds are copies, made for answering: an [`Index`] of
//! each app that is asked about.

mod attributes;
mod index;
mod indexes;
mod metrics;
mod remote;
mod reports;
mod saved;
mod select;
pub mod snapshot;

use std::{path::PathBuf, sync::Arc};

use broker::SharedBroker;
use model::{Clock, NodeId};
use prometheus_client::registry::Registry;
use store::SharedStore;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use audience::{Expr, Select};
pub use index::{Index, Part};
use indexes::Indexes;
use metrics::Metrics;
pub use remote::Remote;

/// What can be set.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name of this node: of several, one at a time keeps reports.
    pub node: NodeId,
    /// The folder for snapshots of indexes.
    pub snapshots: PathBuf,
    /// Most memory for all indexes together; who asks about an app whose index would go beyond gets no answer.
    pub memory_max_bytes: usize,
}

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
    node: NodeId,
    deps: Deps,
    indexes: Arc<Indexes>,
    metrics: Metrics,
}

impl Filter {
    /// Prepares the tier; its metrics go to `registry`.
    pub fn new(config: Config, deps: Deps, registry: &mut Registry) -> Self {
        let metrics = Metrics::new(registry);
        let node = config.node.clone();
        let indexes = Arc::new(Indexes::new(config, deps.store.clone(), metrics.index_bytes.clone()));
        Self { node, deps, indexes, metrics }
    }

    /// Answers expressions in this process, whether or not the tier runs. See [`Select`] for what is promised.
    pub fn select(&self) -> Arc<dyn Select> {
        let inner = select::FromIndexes {
            store: self.deps.store.clone(),
            indexes: self.indexes.clone(),
            seconds: self.metrics.select_seconds.clone(),
        };
        Arc::new(saved::WithSaved { inner: Arc::new(inner), store: self.deps.store.clone() })
    }

    /// Keeps what [`select`](Self::select) answers from close to the store, in memory and on disk, until `shutdown`;
    /// without it answers are as right, and take longer.
    pub fn follow(&self, shutdown: CancellationToken) -> impl Future<Output = Result<(), Error>> + 'static {
        self.indexes.clone().follow_all(shutdown)
    }

    /// Answers [`Remote`]s of other processes on `listener` until `shutdown`: those that show `secret`, when there is one.
    pub fn serve(
        &self,
        listener: TcpListener,
        secret: Option<String>,
        shutdown: CancellationToken,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        let select = self.select();
        async move {
            remote::serve(listener, select, secret.as_deref(), shutdown).await;
            Ok(())
        }
    }

    /// Keeps reports until `shutdown`, while no other node does.
    ///
    /// # Errors
    /// When the data of the broker or the store cannot be trusted.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        reports::keep(&self.deps, &self.node, &self.metrics, &shutdown).await
    }
}
