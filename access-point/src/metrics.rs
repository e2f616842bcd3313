//! What an access point counts. Nothing else here names Prometheus.

use std::time::Duration;

use model::{AppId, Lane};
use mqtt::Version;
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
type Delivery = [(&'static str, &'static str); 2];
type Connection = [(&'static str, String); 3];

/// What became of an entry for a device.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Delivered {
    Sent,
    Acked,
    Rejected,
    Expired,
}

impl Delivered {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Acked => "acked",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
        }
    }
}

/// The figures of one lane, looked up once.
#[derive(Clone, Debug)]
struct LaneFigures {
    delivered: [Counter; 4],
    accept_to_ack: Histogram,
}

#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    connections: Family<Connection, Gauge>,
    connects: Family<Labels, Counter>,
    disconnects: Family<Labels, Counter>,
    lanes: [LaneFigures; 3],
    pub(crate) takeovers: Counter,
    pub(crate) id_conflicts: Counter,
    pub(crate) answer_delay: Histogram,
    pub(crate) retransmits: Counter,
    pub(crate) stray_acks: Counter,
    pub(crate) resyncs: Counter,
    pub(crate) notices: Counter,
    pub(crate) pages: Counter,
    pub(crate) whole_bytes: Counter,
    pub(crate) packed_bytes: Counter,
    pub(crate) bells: Counter,
    pub(crate) in_line: Gauge,
    pub(crate) waiting: Gauge,
    pub(crate) unheard_nodes: Gauge,
    pub(crate) in_flight: Gauge,
    pub(crate) unsent_bytes: Gauge,
    pub(crate) unreported: Gauge,
    pub(crate) store_failures: Counter,
    pub(crate) cursors_lost: Counter,
    pub(crate) sightings_lost: Counter,
    pub(crate) uplinks_refused: Counter,
    pub(crate) uplinks_held: Counter,
}

/// From 1 ms, what one machine does at best, to about 17 minutes, a device that was offline for a while.
fn ack_buckets() -> Histogram {
    Histogram::new(exponential_buckets(1e-3, 2.0, 20))
}

/// From 1 ms, nobody has to wait, to 4 s, nobody waits longer.
fn delay_buckets() -> Histogram {
    Histogram::new(exponential_buckets(1e-3, 2.0, 13))
}

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let connections = Family::default();
        let connects = Family::default();
        let disconnects = Family::default();
        let deliver = Family::<Delivery, Counter>::default();
        let accept_to_ack = Family::<Labels, Histogram, fn() -> Histogram>::new_with_constructor(ack_buckets);
        registry.register("fanfare_connections", "Open sessions of devices", connections.clone());
        registry.register("fanfare_connects", "Attempts of devices to open a session", connects.clone());
        registry.register("fanfare_disconnects", "Sessions that ended", disconnects.clone());
        registry.register("fanfare_deliver", "Entries brought to devices", deliver.clone());
        registry.register("fanfare_accept_to_ack_seconds", "From accepted to acked", accept_to_ack.clone());
        let answer_delay = delay_buckets();
        let help = "How much later devices were answered than they came";
        registry.register("fanfare_connack_delay_seconds", help, answer_delay.clone());
        let lanes = Lane::ALL.map(|lane| {
            let lane = ("lane", lane.as_str());
            let results = [Delivered::Sent, Delivered::Acked, Delivered::Rejected, Delivered::Expired];
            let count = |result: Delivered| deliver.get_or_create(&[lane, ("result", result.as_str())]).clone();
            LaneFigures { delivered: results.map(count), accept_to_ack: accept_to_ack.get_or_create(&[lane]).clone() }
        });
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let takeovers = counter("fanfare_takeovers", "Sessions that gave way to a newer one of their device");
        let id_conflicts =
            counter("fanfare_device_id_conflicts", "Devices whose id two terminals began to use at once");
        let retransmits = counter("fanfare_retransmit", "Messages sent again, with the DUP flag");
        let stray_acks = counter("fanfare_stray_acks", "Acks of packet ids that nothing waited under");
        let resyncs = counter("fanfare_resyncs", "Devices whose position was ahead of a stream's head");
        let notices = counter("fanfare_notices", "Times that devices which fetch were told that there is something");
        let pages = counter("fanfare_pages", "Pages given to devices that fetch");
        let whole_bytes = counter("fanfare_pack_whole_bytes", "Bytes of bodies before they were packed");
        let packed_bytes = counter("fanfare_pack_packed_bytes", "The same bodies when they were packed");
        let bells = counter("fanfare_bells", "Bells heard, without pulses");
        let store_failures = counter("fanfare_access_point_store_failures", "Reads and writes put off for later");
        let help = "Cursors given up, as the store does not take them or too many waited";
        let cursors_lost = counter("fanfare_cursors_lost", help);
        let sightings_lost =
            counter("fanfare_sightings_lost", "Devices that came or went while too many waited to be told");
        let uplinks_refused =
            counter("fanfare_uplinks_refused", "Messages of devices that their app does not let them send");
        let help = "Times that a device was not heard for a while because it sent more than it may";
        let uplinks_held = counter("fanfare_uplinks_held", help);
        let [in_line, waiting, unheard_nodes, in_flight, unsent_bytes, unreported] = [(); 6].map(|()| Gauge::default());
        registry.register("fanfare_in_line", "Connections that wait for their turn", in_line.clone());
        registry.register("fanfare_waiting", "Devices let in that wait for the store", waiting.clone());
        registry.register("fanfare_unheard_nodes", "Nodes that ring and are not heard", unheard_nodes.clone());
        registry.register("fanfare_inflight", "Messages written and not acked", in_flight.clone());
        registry.register("fanfare_unsent_bytes", "Bytes that wait for slow devices", unsent_bytes.clone());
        registry.register("fanfare_receipts_unreported", "Facts about deliveries not yet reported", unreported.clone());
        Self {
            connections,
            connects,
            disconnects,
            lanes,
            takeovers,
            id_conflicts,
            answer_delay,
            retransmits,
            stray_acks,
            resyncs,
            notices,
            pages,
            whole_bytes,
            packed_bytes,
            bells,
            in_line,
            waiting,
            unheard_nodes,
            in_flight,
            unsent_bytes,
            unreported,
            store_failures,
            cursors_lost,
            sightings_lost,
            uplinks_refused,
            uplinks_held,
        }
    }

    /// The gauge of open sessions of an app, a transport and a version.
    pub(crate) fn connections(&self, app: &AppId, transport: &str, version: Version) -> Gauge {
        let labels = [("app", app.to_string()), ("transport", transport.into()), ("proto", version.as_str().into())];
        self.connections.get_or_create(&labels).clone()
    }

    pub(crate) fn connect(&self, result: &'static str) {
        self.connects.get_or_create(&[("result", result)]).inc();
    }

    pub(crate) fn disconnect(&self, reason: &'static str) {
        self.disconnects.get_or_create(&[("reason", reason)]).inc();
    }

    pub(crate) fn delivered(&self, lane: Lane, result: Delivered) {
        self.lanes[lane as usize].delivered[result as usize].inc();
    }

    pub(crate) fn acked_after(&self, lane: Lane, since_accepted: Duration) {
        self.lanes[lane as usize].accept_to_ack.observe(since_accepted.as_secs_f64());
    }
}
