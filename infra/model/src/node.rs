//! The processes of the platform, as they tell of themselves.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{Drain, NodeId, Timestamp, record::Record};

/// A part of the platform that can run alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// Products push here.
    Ingest,
    /// Decides who gets a message.
    Dispatcher,
    /// Devices connect here.
    AccessPoint,
    /// Knows what devices report.
    Filter,
    /// Knows what became of messages.
    Stats,
}

impl Tier {
    /// Every tier.
    pub const ALL: [Self; 5] = [Self::Ingest, Self::Dispatcher, Self::AccessPoint, Self::Filter, Self::Stats];

    /// The name on the command line and in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Dispatcher => "dispatcher",
            Self::AccessPoint => "access-point",
            Self::Filter => "filter",
            Self::Stats => "stats",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The part of its places up to which an access point answers at once.
const AT_EASE: f64 = 0.8;

/// How much later it answers for every tenth of its places beyond.
const DELAY_OF_A_TENTH: Duration = Duration::from_millis(50);

/// Longest time that a device waits for an answer: of the clients there are, the least patient gives up after five seconds.
pub const ANSWER_DELAY_MAX: Duration = Duration::from_secs(4);

/// Where devices connect, and how full it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Host and port as devices reach them.
    pub address: String,
    /// The same under TLS, where that is offered.
    #[serde(default)]
    pub tls_address: Option<String>,
    /// Open connections.
    pub connections: u64,
    /// Open connections at most.
    pub connections_max: u64,
}

impl Endpoint {
    /// The part of its places that is taken, from 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "connections are far fewer than 2^52")]
    pub fn load(&self) -> f64 {
        self.connections as f64 / self.connections_max.max(1) as f64
    }

    /// Every way in, the safest first: MQTT and WebSocket under TLS, where that is offered, then without.
    pub fn urls(&self) -> Vec<String> {
        let Self { address, tls_address, .. } = self;
        let secure = tls_address.iter().flat_map(|at| [format!("mqtts://{at}"), format!("wss://{at}/mqtt")]);
        secure.chain([format!("mqtt://{address}"), format!("ws://{address}/mqtt")]).collect()
    }

    /// How much later devices are answered there than at an access point with room: whoever compares several goes to
    /// another, and nobody has to be refused.
    pub fn delay(&self) -> Duration {
        let beyond = (self.load() - AT_EASE).max(0.0) * 10.0;
        DELAY_OF_A_TENTH.mul_f64(beyond.min(f64::from(u16::MAX))).min(ANSWER_DELAY_MAX)
    }
}

/// A process, as it last told of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub id: NodeId,
    /// When this run of it began: of two runs with one name the later one counts.
    pub boot: Timestamp,
    /// What runs there.
    pub tiers: Vec<Tier>,
    /// Where devices connect, if they do.
    pub endpoint: Option<Endpoint>,
    /// Host and port where other nodes have filters answered, if they may.
    pub filter: Option<String>,
    /// What it is a build of.
    pub version: String,
    /// When it told this, by its own clock.
    pub seen_at: Timestamp,
    /// The last order to move devices away, if there was one since it began.
    #[serde(default)]
    pub drain: Option<Drain>,
}

impl Node {
    /// Whether it rings at access points when something is sent or called back, and so has a pulse.
    pub fn rings(&self) -> bool {
        self.tiers.iter().any(|tier| matches!(tier, Tier::Ingest | Tier::Dispatcher))
    }

    /// Where devices may come to, if they may.
    pub fn open_endpoint(&self) -> Option<&Endpoint> {
        self.endpoint.as_ref().filter(|_| !self.drain.as_ref().is_some_and(Drain::closes))
    }
}

impl Record for Node {
    const VERSION: u8 = 1;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DrainState;

    #[test]
    fn a_tier_is_written_as_it_is_called() {
        for tier in Tier::ALL {
            assert_eq!(serde_json::to_string(&tier).unwrap(), format!("\"{tier}\""));
        }
    }

    #[test]
    fn an_endpoint_without_places_is_not_divided_by() {
        let endpoint = |connections, connections_max| Endpoint {
            address: String::new(),
            tls_address: None,
            connections,
            connections_max,
        };
        assert_eq!(endpoint(5, 10).load(), 0.5);
        assert!(endpoint(5, 0).load() > 1.0);
    }

    #[test]
    fn answers_come_later_by_fifty_milliseconds_for_every_tenth_above_eight() {
        let delay = |connections| {
            Endpoint { address: String::new(), tls_address: None, connections, connections_max: 100 }.delay()
        };
        let millis = |connections| delay(connections).as_secs_f64() * 1_000.0;
        assert_eq!(delay(80), Duration::ZERO);
        for (connections, expected) in [(85, 25.0), (90, 50.0), (100, 100.0), (200, 600.0)] {
            assert!((millis(connections) - expected).abs() < 0.01, "{connections}: {}", millis(connections));
        }
        assert_eq!(delay(u64::MAX), ANSWER_DELAY_MAX);
    }

    #[test]
    fn an_endpoint_names_every_way_in_the_safest_first() {
        let open = Endpoint { address: "a:1".into(), tls_address: None, connections: 0, connections_max: 1 };
        assert_eq!(open.urls(), ["mqtt://a:1", "ws://a:1/mqtt"]);
        let secure = Endpoint { tls_address: Some("a:2".into()), ..open };
        assert_eq!(secure.urls(), ["mqtts://a:2", "wss://a:2/mqtt", "mqtt://a:1", "ws://a:1/mqtt"]);
    }

    #[test]
    fn a_node_of_an_earlier_build_has_no_drain_no_tls_and_a_closed_one_no_open_endpoint() {
        #[derive(Serialize)]
        struct EarlierEndpoint {
            address: String,
            connections: u64,
            connections_max: u64,
        }
        #[derive(Serialize)]
        struct Earlier {
            id: NodeId,
            boot: Timestamp,
            tiers: Vec<Tier>,
            endpoint: Option<EarlierEndpoint>,
            version: String,
            seen_at: Timestamp,
        }
        let endpoint = Some(EarlierEndpoint { address: "a:1".into(), connections: 0, connections_max: 1 });
        let at = Timestamp::from_millis(1);
        let (id, tiers) = ("ap-1".parse().unwrap(), vec![Tier::AccessPoint]);
        let earlier = Earlier { id, boot: at, tiers, endpoint, version: "0".into(), seen_at: at };
        let body = rmp_serde::to_vec_named(&earlier).unwrap();
        let mut node = Node::decode(&[&[Node::VERSION], body.as_slice()].concat()).unwrap();
        assert!(node.drain.is_none() && node.open_endpoint().is_some());
        let drain = |permille, state| Drain {
            ordered_at: at,
            rate_per_s: 500,
            permille,
            state,
            sessions: 0,
            evicted: 0,
            moved: 0,
            unacked: 0,
            lost: 0,
            longest_gap_ms: 0,
        };
        for (permille, state, open) in [
            (1_000, DrainState::Draining, false),
            (1_000, DrainState::Done, false),
            (1_000, DrainState::Revoked, true),
            (300, DrainState::Draining, true),
        ] {
            node.drain = Some(drain(permille, state));
            assert_eq!(node.open_endpoint().is_some(), open);
        }
    }
}
