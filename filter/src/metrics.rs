//! What the filter tells about itself.

use std::{collections::HashMap, sync::Arc};

use model::AppId;
use parking_lot::Mutex;
use prometheus_client::{
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

type Labels = [(&'static str, &'static str); 1];

pub(crate) struct Metrics {
    reports: Family<Labels, Counter>,
    refused: Counter,
    pub(crate) select_seconds: Histogram,
    pub(crate) index_bytes: IndexBytes,
}

/// What each app's index takes in memory.
#[derive(Clone, Default)]
pub(crate) struct IndexBytes {
    gauges: Family<[(&'static str, String); 1], Gauge>,
    apps: Arc<Mutex<HashMap<AppId, usize>>>,
}

impl IndexBytes {
    /// An app's index takes so much; what all take now.
    pub(crate) fn set(&self, app: &AppId, bytes: usize) -> usize {
        self.gauges.get_or_create(&[("app", app.to_string())]).set(i64::try_from(bytes).unwrap_or(i64::MAX));
        let mut apps = self.apps.lock();
        apps.insert(app.clone(), bytes);
        apps.values().sum()
    }

    /// An app's index is gone.
    pub(crate) fn forget(&self, app: &AppId) {
        self.gauges.remove(&[("app", app.to_string())]);
        self.apps.lock().remove(app);
    }
}

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let select_seconds = Histogram::new(exponential_buckets(0.001, 4.0, 9));
        let (reports, refused) = (Family::default(), Counter::default());
        let metrics = Self { reports, refused, select_seconds, index_bytes: IndexBytes::default() };
        let help = "Reports of devices, and of access points about devices, by what became of them";
        registry.register("fanfare_device_reports", help, metrics.reports.clone());
        let help = "Attributes that a device must not write, or of another type, in its reports; left as they were";
        registry.register("fanfare_device_reports_refused_attributes", help, metrics.refused.clone());
        let help = "Time to select the devices that satisfy an expression";
        registry.register("fanfare_select_seconds", help, metrics.select_seconds.clone());
        let help = "Memory that the index of an app takes, in bytes";
        registry.register("fanfare_filter_index_bytes", help, metrics.index_bytes.gauges.clone());
        metrics
    }

    /// So many attributes were left as they were.
    pub(crate) fn refused(&self, count: u64) {
        self.refused.inc_by(count);
    }

    /// So many reports that came to this: `merged`, `seen` (what access points told), `invalid`, `stale` or `unreadable`.
    pub(crate) fn reports(&self, outcome: &'static str, count: u64) {
        self.reports.get_or_create(&[("outcome", outcome)]).inc_by(count);
    }
}
