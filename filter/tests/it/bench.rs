//! A filter between an embedded broker and an embedded store, and devices that report.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use audience::{Select, SelectError};
use broker::{Publication, SharedBroker};
use engine::Engine;
use filter::{Config, Deps, Filter};
use model::{AppId, Clock as _, Device, Env, Profile, Queue, Report, SystemClock, record::Record as _};
use prometheus_client::registry::Registry;
use serde_json::Value;
use store::{Registration, SharedStore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest wait for what must happen.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks whether it has happened.
const LOOK_EVERY: Duration = Duration::from_millis(5);

pub(crate) struct Bench {
    pub(crate) app: AppId,
    pub(crate) broker: SharedBroker,
    pub(crate) store: SharedStore,
    pub(crate) select: Arc<dyn Select>,
    /// Whose answers `select` gives.
    filter: Filter,
    config: Config,
    pub(crate) deps: Deps,
}

/// A filter at work.
pub(crate) struct Running {
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), filter::Error>>,
}

impl Running {
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }
}

impl Bench {
    pub(crate) async fn open(dir: &Path) -> Self {
        Self::with_memory(dir, 1 << 30).await
    }

    /// With so many bytes for indexes.
    pub(crate) async fn with_memory(dir: &Path, memory_max_bytes: usize) -> Self {
        let engine = unlocked(dir).await;
        let clock = Arc::new(SystemClock);
        let limits = broker::embedded::Limits::default();
        let broker: SharedBroker = broker::embedded::Embedded::open(engine.clone(), clock.clone(), limits).unwrap();
        let store: SharedStore = store::embedded::Embedded::open(engine).unwrap();
        let deps = Deps { broker: broker.clone(), store: store.clone(), clock };
        let config = Config { node: "filter1".parse().unwrap(), snapshots: dir.join("filter"), memory_max_bytes };
        let filter = Filter::new(config.clone(), deps.clone(), &mut Registry::default());
        Self { app: "demo".parse().unwrap(), broker, store, select: filter.select(), filter, config, deps }
    }

    pub(crate) fn run(&self) -> Running {
        self.run_as("filter1")
    }

    /// As the node of this name.
    pub(crate) fn run_as(&self, node: &str) -> Running {
        let shutdown = CancellationToken::new();
        let config = Config { node: node.parse().unwrap(), ..self.config.clone() };
        let filter = Filter::new(config, self.deps.clone(), &mut Registry::default());
        Running { task: tokio::spawn(filter.run(shutdown.clone())), shutdown }
    }

    /// Lets the indexes follow the store.
    pub(crate) fn follow(&self) -> Running {
        let shutdown = CancellationToken::new();
        Running { task: tokio::spawn(self.filter.follow(shutdown.clone())), shutdown }
    }

    /// Where the index of the app is kept.
    pub(crate) fn snapshot(&self) -> PathBuf {
        self.config.snapshots.join(format!("{}.index", self.app))
    }

    pub(crate) async fn register(
        &self,
        app: &AppId,
        env: Env,
        names: &[String],
        profile: Option<Profile>,
    ) -> Vec<Device> {
        let registration = |name: &String| Registration { id: name.parse().unwrap(), env, profile: profile.clone() };
        let registrations = names.iter().map(registration).collect();
        let registered = self.store.register(app, registrations, SystemClock.now()).await.unwrap();
        registered.into_iter().map(|(device, _)| device).collect()
    }

    pub(crate) async fn device(&self, name: &str) -> Device {
        self.register(&self.app, Env::Live, &[name.to_owned()], None).await.remove(0)
    }

    /// Publishes what devices report, in one batch.
    pub(crate) async fn report(&self, reports: &[(&Device, Value)]) {
        let publication = |(device, patch): &(&Device, Value)| {
            let report = Report {
                app: self.app.clone(),
                device: device.id.clone(),
                ordinal: device.ordinal,
                patch: patch.to_string().into(),
                at: SystemClock.now(),
            };
            Publication { queue: Queue::Reports, body: report.encode().into() }
        };
        self.broker.publish(reports.iter().map(publication).collect()).await.unwrap();
    }

    /// Waits until every report is settled.
    pub(crate) async fn settled(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let depth = self.broker.depth(Queue::Reports).await.unwrap();
            if depth.ready + depth.unacked == 0 {
                return;
            }
            assert!(Instant::now() < deadline, "{depth:?} after {PATIENCE:?}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    pub(crate) async fn profile(&self, device: &Device) -> Profile {
        let found = self.store.devices(&self.app, std::slice::from_ref(&device.id)).await.unwrap();
        found.into_iter().next().flatten().unwrap().profile
    }

    /// How many live devices satisfy `expression`.
    pub(crate) async fn count(&self, expression: &str) -> Result<u64, SelectError> {
        self.select.count(&self.app, Env::Live, expression, SystemClock.now()).await
    }

    /// Waits until there is a snapshot of the app's index.
    pub(crate) async fn snapshotted(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.snapshot().exists() {
            assert!(Instant::now() < deadline, "no snapshot after {PATIENCE:?}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The names of the live devices that satisfy `expression`, in order of registration.
    pub(crate) async fn selected(&self, expression: &str) -> Result<Vec<String>, SelectError> {
        let ordinals = self.select.select(&self.app, Env::Live, expression, SystemClock.now()).await?;
        let names = self.store.names(&self.app, &ordinals.iter().collect::<Vec<_>>()).await.unwrap();
        Ok(names.into_iter().flatten().map(|name| name.to_string()).collect())
    }
}

/// Opens the engine; one that was dropped a moment ago lets go when its last task has ended.
async fn unlocked(dir: &Path) -> Arc<Engine> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Engine::open(dir) {
            Err(engine::Error::Locked(_)) if Instant::now() < deadline => tokio::time::sleep(LOOK_EVERY).await,
            opened => return opened.unwrap(),
        }
    }
}
