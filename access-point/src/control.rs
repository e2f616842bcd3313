//! What the platform tells a device about its link: JSON on `push/{app}/ctl`.

use model::{AppId, Position};
use mqtt::{
    Packet, Version,
    packet::{Disconnect, Publish},
    topic,
};
use serde::Serialize;

use crate::{close::Close, link::Link};

#[derive(Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
enum Control<'a> {
    Kick {
        reason: &'a str,
    },
    Reconnect {
        reason: &'a str,
        #[serde(skip_serializing_if = "<[String]>::is_empty")]
        endpoints: &'a [String],
    },
    Resync {
        reason: &'a str,
        latest: String,
    },
    Keepalive {
        keepalive_s: u16,
    },
    Bind {
        app: &'a AppId,
        latest: String,
    },
    Unbind {
        app: &'a AppId,
        reason: &'a str,
    },
}

/// The last word to a device; `None` when there is nothing to say. MQTT 3.1.1 has no packet for it, so it is an order.
pub(crate) fn farewell(link: &Link, app: &AppId, close: &Close) -> Option<Packet> {
    let elsewhere = close.elsewhere(link.transport());
    if link.version() == Version::V5 {
        let server_reference = (!elsewhere.is_empty()).then(|| elsewhere.join(" "));
        let disconnect = |reason| Disconnect { reason, reason_string: None, server_reference };
        return close.reason().map(disconnect).map(Packet::Disconnect);
    }
    let (reason, endpoints) = (close.as_str(), elsewhere.as_slice());
    match close.order()? {
        "reconnect" => Some(packet(app, &Control::Reconnect { reason, endpoints })),
        _ => Some(packet(app, &Control::Kick { reason })),
    }
}

/// Tells a device that the store lost what it has seen: nothing is rewound.
pub(crate) fn resync(app: &AppId, latest: Position) -> Packet {
    packet(app, &Control::Resync { reason: "store_lost", latest: latest.to_string() })
}

/// Tells a device how often it need be heard.
pub(crate) fn keep_alive(app: &AppId, keepalive_s: u16) -> Packet {
    packet(app, &Control::Keepalive { keepalive_s })
}

/// Tells a device that another app is on its link, and how far its streams go.
pub(crate) fn bound(app: &AppId, other: &AppId, latest: Position) -> Packet {
    packet(app, &Control::Bind { app: other, latest: latest.to_string() })
}

/// Tells a device that another app is not on its link, or not any more.
pub(crate) fn unbound(app: &AppId, other: &AppId, reason: &str) -> Packet {
    packet(app, &Control::Unbind { app: other, reason })
}

fn packet(app: &AppId, control: &Control<'_>) -> Packet {
    let json = serde_json::to_vec(control).unwrap_or_default();
    Packet::Publish(Box::new(Publish::new(topic::control(app), json)))
}
