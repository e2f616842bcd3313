//! What the filter tells about itself.

use prometheus_client::{
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

type Labels = [(&'static str, &'static str); 1];

pub(crate) struct Metrics {
    reports: Family<Labels, Counter>,
    refused: Counter,
    pub(crate) select_seconds: Histogram,
}

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let select_seconds = Histogram::new(exponential_buckets(0.001, 4.0, 9));
        let metrics = Self { reports: Family::default(), refused: Counter::default(), select_seconds };
        let help = "Reports of devices, by what became of them";
        registry.register("fanfare_device_reports", help, metrics.reports.clone());
        let help = "Attributes that a device must not write, or of another type, in its reports; left as they were";
        registry.register("fanfare_device_reports_refused_attributes", help, metrics.refused.clone());
        let help = "Time to select the devices that satisfy an expression";
        registry.register("fanfare_select_seconds", help, metrics.select_seconds.clone());
        metrics
    }

    /// So many attributes were left as they were.
    pub(crate) fn refused(&self, count: u64) {
        self.refused.inc_by(count);
    }

    /// So many reports that came to this: `merged`, `invalid`, `stale` or `unreadable`.
    pub(crate) fn reports(&self, outcome: &'static str, count: u64) {
        self.reports.get_or_create(&[("outcome", outcome)]).inc_by(count);
    }
}
