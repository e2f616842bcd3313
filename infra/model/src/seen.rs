//! When devices were connected, where, and how: told by access points for many devices at once, and known about each since.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde::{Deserialize, Serialize};

use crate::{AppId, DeviceId, Epoch, NodeId, Ordinal, Timestamp};

/// One run of a node: what it held went with it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Run {
    /// Its name.
    pub node: NodeId,
    /// When this run of it began.
    pub boot: Timestamp,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.boot.as_millis())
    }
}

/// The latest session of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Its number.
    pub epoch: Epoch,
    /// When it ended; while it lasts, when it began.
    pub at: Timestamp,
    /// What held it, or holds it still if that runs; `None` when it is known to be over.
    pub run: Option<Run>,
    /// What carried it: `tcp`, `tls`, `ws`, `wss` or `sse`.
    pub transport: String,
    /// The network it came from.
    pub ip_prefix: String,
}

impl Seen {
    /// Whether this says more than what is known: facts come late, and more than once.
    pub fn is_news_after(&self, known: &Self) -> bool {
        self.epoch > known.epoch || self.epoch == known.epoch && known.run.is_some() && self.run.is_none()
    }
}

/// The network of an address, as in `203.0.113.0/24` or `2001:db8:7::/48`: who comes from it may be asked for, and no
/// single address is kept.
pub fn ip_prefix(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            format!("{}/24", Ipv4Addr::new(a, b, c, 0))
        }
        IpAddr::V6(address) => {
            let [a, b, c, ..] = address.segments();
            format!("{}/48", Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
    }
}

/// What an access point saw of some devices of one app, on its way to the filter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sightings {
    /// Whose devices.
    pub app: AppId,
    /// Which ones, and their latest sessions.
    pub devices: Vec<Sighting>,
}

/// What was seen of one device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sighting {
    /// Its name.
    pub device: DeviceId,
    /// Its number; a device that was removed and came back has another one, and this is not about that one.
    pub ordinal: Ordinal,
    /// Its latest session.
    pub seen: Seen,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_session_is_news_and_so_is_the_end_of_the_one_known() {
        let seen = |epoch, over: bool| Seen {
            epoch: Epoch(epoch),
            at: Timestamp::default(),
            run: (!over).then(|| Run { node: "ap-1".parse().unwrap(), boot: Timestamp::from_millis(7) }),
            transport: "tcp".into(),
            ip_prefix: "10.0.0.0/24".into(),
        };
        for (epoch, over, known_over, news) in [
            (6, false, false, true),
            (6, true, true, true),
            (5, true, false, true),
            (5, false, true, false),
            (5, true, true, false),
            (4, false, true, false),
            (4, true, false, false),
        ] {
            assert_eq!(seen(epoch, over).is_news_after(&seen(5, known_over)), news, "{epoch} {over} {known_over}");
        }
    }

    #[test]
    fn an_address_is_known_by_its_network() {
        for (address, prefix) in [
            ("203.0.113.77", "203.0.113.0/24"),
            ("::ffff:203.0.113.77", "203.0.113.0/24"),
            ("2001:db8:7:8::9", "2001:db8:7::/48"),
            ("::1", "::/48"),
        ] {
            assert_eq!(ip_prefix(address.parse().unwrap()), prefix);
        }
    }
}
