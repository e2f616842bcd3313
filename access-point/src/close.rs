//! Why a link ends, and what its device is told.

use std::sync::Arc;

use model::Endpoint;
use mqtt::{Overdue, Reason, wire};

use crate::auth::Refused;

/// Why a link ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Close {
    /// The device said goodbye.
    Goodbye,
    /// The socket is closed or broken.
    Lost,
    /// Nothing was heard in time, or an ack is missing.
    Overdue(Overdue),
    /// The device does not read.
    Stalled,
    /// A newer session of the device exists.
    TakenOver,
    /// The token's generation is revoked.
    Revoked,
    /// The token has ended.
    TokenEnded,
    /// The device is to go to one of these access points; without one, it will find its way.
    Moving(Arc<[Endpoint]>),
    /// This access point stops.
    ShuttingDown,
    /// The device broke the rules.
    Broken(Reason),
    /// It was let in on its token, and should not have been.
    Refused(Refused),
}

impl Close {
    /// The label in metrics and logs.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::Goodbye => "goodbye",
            Self::Lost => "lost",
            Self::Overdue(Overdue::KeepAlive) => "keep_alive",
            Self::Overdue(Overdue::Ack) => "ack_timeout",
            Self::Stalled => "stalled",
            Self::TakenOver => "taken_over",
            Self::Revoked => "revoked",
            Self::TokenEnded => "token_ended",
            Self::Moving(_) => "moving",
            Self::ShuttingDown => "shutting_down",
            Self::Broken(_) => "protocol",
            Self::Refused(refused) => refused.as_str(),
        }
    }

    /// What a device of MQTT 5 is told; nothing where it would not hear it.
    pub(crate) const fn reason(&self) -> Option<Reason> {
        match self {
            Self::Goodbye | Self::Lost | Self::Stalled => None,
            Self::Overdue(_) => Some(Reason::KEEP_ALIVE_TIMEOUT),
            Self::TakenOver => Some(Reason::TAKEN_OVER),
            Self::Revoked => Some(Reason::ADMINISTRATIVE),
            Self::TokenEnded => Some(Reason::TOKEN_ENDED),
            Self::Moving(_) => Some(Reason::USE_ANOTHER_SERVER),
            Self::ShuttingDown => Some(Reason::SHUTTING_DOWN),
            Self::Broken(reason) | Self::Refused(Refused::ForGood(reason, _)) => Some(*reason),
            Self::Refused(_) => None,
        }
    }

    /// The order on `ctl` by which a device of MQTT 3.1.1 is told, which has no packet for it.
    pub(crate) const fn order(&self) -> Option<&'static str> {
        match self {
            Self::TakenOver | Self::Revoked | Self::TokenEnded | Self::Refused(Refused::ForGood(..)) => Some("kick"),
            Self::Moving(_) | Self::ShuttingDown => Some("reconnect"),
            _ => None,
        }
    }

    /// Where a device that came by this transport is to go, the best place first. Whoever came under TLS is not sent to a
    /// place without.
    pub(crate) fn elsewhere(&self, transport: &str) -> Vec<String> {
        let Self::Moving(places) = self else { return Vec::new() };
        let way = |at: &Endpoint| match (transport, &at.tls_address) {
            ("tls", Some(secured)) => Some(format!("mqtts://{secured}")),
            ("wss", Some(secured)) => Some(format!("wss://{secured}/mqtt")),
            ("tls" | "wss", None) => None,
            _ => Some(at.address.clone()),
        };
        places.iter().filter_map(way).collect()
    }
}

impl From<Refused> for Close {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Superseded => Self::TakenOver,
            refused => Self::Refused(refused),
        }
    }
}

impl From<wire::Error> for Close {
    fn from(error: wire::Error) -> Self {
        Self::Broken(error.reason())
    }
}

impl From<std::io::Error> for Close {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::InvalidData => Self::Broken(Reason::PROTOCOL_ERROR),
            _ => Self::Lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_came_under_tls_is_sent_only_where_it_is_offered() {
        let at = |name: &str, tls_address: Option<&str>| Endpoint {
            address: format!("{name}:1"),
            tls_address: tls_address.map(Into::into),
            connections: 0,
            connections_max: 1,
        };
        let moving = Close::Moving([at("a", None), at("b", Some("b:2"))].into());
        for (transport, places) in [
            ("tcp", &["a:1", "b:1"][..]),
            ("ws", &["a:1", "b:1"]),
            ("tls", &["mqtts://b:2"]),
            ("wss", &["wss://b:2/mqtt"]),
        ] {
            assert_eq!(moving.elsewhere(transport), places, "{transport}");
        }
        assert!(Close::Stalled.elsewhere("tcp").is_empty());
    }
}
