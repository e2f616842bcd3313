//! What ingest counts and times. Nothing else here touches Prometheus.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use model::{AppId, Lane};
use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

/// Apps with a label of their own; all others share one, so that tenants cannot blow up what Prometheus keeps.
const APP_LABELS_MAX: usize = 200;
/// Where the histograms part, in seconds: an fsync is some milliseconds, a deadline some seconds.
const SECONDS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    route: String,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Sent {
    app: String,
    lane: &'static str,
}

/// What ingest counts and times.
pub(crate) struct Metrics {
    requests: Family<Answered, Counter>,
    duration: Histogram,
    accepted: Family<Sent, Counter>,
    confirm: Histogram,
    uplinks: Counter,
    app_labels: Mutex<BTreeSet<AppId>>,
}

impl Metrics {
    /// Registers all of it.
    pub(crate) fn new(registry: &mut Registry) -> Arc<Self> {
        let metrics = Self {
            requests: Family::default(),
            duration: Histogram::new(SECONDS),
            accepted: Family::default(),
            confirm: Histogram::new(SECONDS),
            uplinks: Counter::default(),
            app_labels: Mutex::default(),
        };
        registry.register("fanfare_ingest_requests", "Requests answered", metrics.requests.clone());
        registry.register("fanfare_ingest_duration_seconds", "Time to answer a request", metrics.duration.clone());
        registry.register("fanfare_messages_accepted", "Messages answered with 202", metrics.accepted.clone());
        registry.register("fanfare_broker_confirm_seconds", "Time to the broker's confirm", metrics.confirm.clone());
        registry.register(
            "fanfare_uplinks_kept",
            "Uplinks moved from the broker to the store",
            metrics.uplinks.clone(),
        );
        Arc::new(metrics)
    }

    /// A request was answered.
    pub(crate) fn answered(&self, route: &str, code: u16, after: Duration) {
        self.requests.get_or_create(&Answered { route: route.to_owned(), code }).inc();
        self.duration.observe(after.as_secs_f64());
    }

    /// A message was answered with 202.
    pub(crate) fn accepted(&self, app: &AppId, lane: Lane) {
        let app = self.app_label(app);
        self.accepted.get_or_create(&Sent { app, lane: lane.as_str() }).inc();
    }

    /// The broker confirmed a publish.
    pub(crate) fn confirmed(&self, after: Duration) {
        self.confirm.observe(after.as_secs_f64());
    }

    /// Uplinks are in the store.
    pub(crate) fn kept_uplinks(&self, count: usize) {
        self.uplinks.inc_by(count as u64);
    }

    fn app_label(&self, app: &AppId) -> String {
        let mut labels = self.app_labels.lock();
        if labels.len() < APP_LABELS_MAX || labels.contains(app) {
            labels.insert(app.clone());
            return app.to_string();
        }
        "other".to_owned()
    }
}
