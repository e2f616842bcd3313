//! What a dispatcher counts. Nothing else here names Prometheus.

use model::Lane;
use prometheus_client::{
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use store::Appended;

type Labels = [(&'static str, &'static str); 1];
type ResultLabels = [(&'static str, &'static str); 2];

/// The families, by lane.
pub(crate) struct Metrics {
    dispatched: Family<ResultLabels, Counter>,
    dead_letters: Family<Labels, Counter>,
    resolve_seconds: Family<Labels, Histogram, fn() -> Histogram>,
}

/// One lane's figures, looked up once.
pub(crate) struct LaneMetrics {
    new: Counter,
    again: Counter,
    cancelled: Counter,
    pub(crate) dead_letters: Counter,
    pub(crate) resolve_seconds: Histogram,
}

/// From 50 µs, what a single device takes, to about 3 s.
fn resolve_buckets() -> Histogram {
    Histogram::new(exponential_buckets(50e-6, 3.0, 11))
}

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            dispatched: Family::default(),
            dead_letters: Family::default(),
            resolve_seconds: Family::new_with_constructor(resolve_buckets),
        };
        let Self { dispatched, dead_letters, resolve_seconds } = &metrics;
        registry.register("fanfare_dispatched", "Envelopes brought into streams", dispatched.clone());
        registry.register("fanfare_dead_letters", "Envelopes set aside", dead_letters.clone());
        let help = "Time to find out who is meant";
        registry.register("fanfare_dispatch_resolve_seconds", help, resolve_seconds.clone());
        metrics
    }

    pub(crate) fn of(&self, lane: Lane) -> LaneMetrics {
        let lane = ("lane", lane.as_str());
        let counter = |result| self.dispatched.get_or_create(&[lane, ("result", result)]).clone();
        LaneMetrics {
            new: counter("new"),
            again: counter("again"),
            cancelled: counter("cancelled"),
            dead_letters: self.dead_letters.get_or_create(&[lane]).clone(),
            resolve_seconds: self.resolve_seconds.get_or_create(&[lane]).clone(),
        }
    }
}

impl LaneMetrics {
    pub(crate) fn count(&self, appended: Appended) {
        match appended {
            Appended::New => self.new.inc(),
            Appended::Again => self.again.inc(),
            Appended::Cancelled => self.cancelled.inc(),
        };
    }
}
