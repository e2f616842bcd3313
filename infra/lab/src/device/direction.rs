//! Where an access point that moves a device away has it go: in MQTT 5 as the server reference, in 3.1.1 by an order.

use std::net::SocketAddr;

use mqtt::packet::{Disconnect, Publish};
use serde::Deserialize;

/// The order, as far as it is about that.
#[derive(Deserialize)]
struct Reconnect {
    endpoints: Vec<SocketAddr>,
}

/// The first of the places that a server names as it closes.
pub(super) fn of_disconnect(told: &Disconnect) -> Option<SocketAddr> {
    told.server_reference.as_deref()?.split(' ').next()?.parse().ok()
}

/// The first of the places in an order to connect elsewhere; other orders and hints name none.
pub(super) fn of_control(order: &Publish) -> Option<SocketAddr> {
    let reconnect: Reconnect = serde_json::from_slice(&order.payload).ok()?;
    reconnect.endpoints.first().copied()
}

#[cfg(test)]
mod tests {
    use mqtt::Reason;

    use super::*;

    #[test]
    fn the_first_place_counts_and_other_orders_name_none() {
        let told = |places: &str| Disconnect {
            reason: Reason::USE_ANOTHER_SERVER,
            reason_string: None,
            server_reference: Some(places.into()),
        };
        assert_eq!(of_disconnect(&told("127.0.0.1:1 127.0.0.1:2")), Some(([127, 0, 0, 1], 1).into()));
        assert_eq!(of_disconnect(&told("push.example")), None);
        let order = |json: &str| Publish::new("push/demo/ctl".to_owned(), json.as_bytes().to_vec());
        let reconnect = r#"{"op":"reconnect","reason":"moving","endpoints":["127.0.0.1:3"]}"#;
        assert_eq!(of_control(&order(reconnect)), Some(([127, 0, 0, 1], 3).into()));
        assert_eq!(of_control(&order(r#"{"op":"kick","reason":"revoked"}"#)), None);
    }
}
