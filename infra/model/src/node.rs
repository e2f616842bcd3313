//! The processes of the platform, as they tell of themselves.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{NodeId, Timestamp, record::Record};

/// A part of the platform that can run alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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

/// Where devices connect, and how full it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Host and port as devices reach them.
    pub address: String,
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
}

impl Record for Node {
    const VERSION: u8 = 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_is_written_as_it_is_called() {
        for tier in Tier::ALL {
            assert_eq!(serde_json::to_string(&tier).unwrap(), format!("\"{tier}\""));
        }
    }

    #[test]
    fn an_endpoint_without_places_is_not_divided_by() {
        let endpoint = |connections, connections_max| Endpoint { address: String::new(), connections, connections_max };
        assert_eq!(endpoint(5, 10).load(), 0.5);
        assert!(endpoint(5, 0).load() > 1.0);
    }
}
