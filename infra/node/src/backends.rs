//! The broker and the store that the configuration names: embedded in this process, or RabbitMQ and Redis.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use broker::{SharedBroker, rabbit::Rabbit};
use engine::Engine;
use model::{NodeId, SystemClock};
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use store::{SharedStore, redis::Redis};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::config::Config;

/// Between two signs of life in a store that others can make forget.
const SIGN_EVERY: Duration = Duration::from_secs(1);

/// For how long a process that starts asks again: after a power cut its servers start beside it, and read their logs first.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// Between two such questions.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// The back ends that tiers meet at.
pub(crate) struct Backends {
    pub(crate) broker: SharedBroker,
    pub(crate) store: SharedStore,
    rabbit: Option<Arc<Rabbit>>,
    redis: Option<Arc<Redis>>,
}

/// Opens the store alone, for commands that only administer.
pub(crate) async fn open_store(config: &Config) -> anyhow::Result<SharedStore> {
    match config.redis() {
        Some(redis) => Ok(Redis::connect(redis).await.context("cannot use store.url")?),
        None => {
            let engine = Engine::open(&config.data_dir).context(
                "a running Fanfare holds the data; use its API instead (POST /v1/apps with an admin key), or stop it",
            )?;
            Ok(store::embedded::Embedded::open(engine)?)
        }
    }
}

/// Opens the back ends that the configuration names.
pub(crate) async fn open(config: &Config) -> anyhow::Result<Backends> {
    let mut engine = None;
    let redis = match config.redis() {
        Some(redis) => Some(at_start(|| Redis::connect(redis.clone())).await.context("cannot use store.url")?),
        None => None,
    };
    let rabbit = match config.rabbit()? {
        Some(rabbit) => Some(Rabbit::connect(rabbit).await.context("cannot use broker.url")?),
        None => None,
    };
    for weakness in redis.iter().flat_map(|redis| redis.warnings()) {
        warn!("{weakness}");
    }
    let store: SharedStore = match &redis {
        Some(redis) => redis.clone(),
        None => store::embedded::Embedded::open(shared(&mut engine, config)?)?,
    };
    let broker: SharedBroker = match &rabbit {
        Some(rabbit) => rabbit.clone(),
        None => {
            let engine = shared(&mut engine, config)?;
            broker::embedded::Embedded::open(engine, Arc::new(SystemClock), config.queue_limits())?
        }
    };
    Ok(Backends { broker, store, rabbit, redis })
}

/// Asks the store what a start needs, until it answers or the patience of a start is over.
pub(crate) async fn at_start<T>(ask: impl AsyncFn() -> Result<T, store::Error>) -> Result<T, store::Error> {
    let deadline = Instant::now() + START_PATIENCE;
    loop {
        match ask().await {
            Err(error @ store::Error::Unavailable(_)) if Instant::now() < deadline => {
                warn!(%error, "cannot start yet; trying again");
                time::sleep(ASK_AGAIN_AFTER).await;
            }
            answer => return answer,
        }
    }
}

/// The engine of this process, opened by the first that needs it.
fn shared(opened: &mut Option<Arc<Engine>>, config: &Config) -> anyhow::Result<Arc<Engine>> {
    if let Some(engine) = opened {
        return Ok(engine.clone());
    }
    let failed = || format!("cannot open data_dir = {:?}", config.data_dir);
    let engine = Engine::open(&config.data_dir).with_context(failed)?;
    Ok(opened.insert(engine).clone())
}

impl Backends {
    /// Whether other processes can meet this one here.
    pub(crate) fn are_shared(&self) -> bool {
        self.rabbit.is_some() && self.redis.is_some()
    }

    /// What watches, beside the tiers, whether the store forgets what it was told; nothing where it cannot.
    pub(crate) fn watch(
        &self,
        node: NodeId,
        registry: &mut Registry,
        shutdown: CancellationToken,
    ) -> Option<impl Future<Output = anyhow::Result<()>> + Send + 'static> {
        let redis = self.redis.clone()?;
        let lost: Counter = Counter::default();
        registry.register("fanfare_store_lost_writes", "Signs of life that the store has forgotten", lost.clone());
        Some(async move {
            while !shutdown.is_cancelled() {
                match redis.sign_of_life(&node).await {
                    Ok(Some(forgotten)) => {
                        lost.inc_by(forgotten.signs);
                        error!(seconds = forgotten.signs, "the store has lost writes that it had confirmed");
                    }
                    Ok(None) => {}
                    Err(error) => info!(%error, "the store gives no sign of life"),
                }
                tokio::select! {
                    () = time::sleep(SIGN_EVERY) => {}
                    () = shutdown.cancelled() => {}
                }
            }
            Ok(())
        })
    }

    /// Lets the broker hear what was settled last.
    pub(crate) async fn close(self) {
        if let Some(rabbit) = self.rabbit {
            rabbit.close().await;
        }
    }
}
