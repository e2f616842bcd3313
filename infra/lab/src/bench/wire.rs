//! Bytes on the wire: what a push with its ack and an idle hour cost a device, over each transport and in each way to get
//! messages, and the same for JSON over WebSocket. Counted where TCP takes them; what its headers add is estimated.

mod counted;
mod json;
mod line;
mod report;
mod terminal;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use model::DeviceId;
use mqtt::{Coding, Version};
use serde_json::{Value, json};
use tokio::time::sleep;

pub use report::WireReport;

use crate::{Api, Audience, Error, api::Profile, api::Send, api::Token};
use counted::{Each, Traffic};
use json::Peer;
use line::{Line, Via};
use report::Row;
use terminal::Terminal;

/// Messages of each size, one after the other.
const MESSAGES: u32 = 20;
/// Messages that a device fetches in one go.
const FETCHED: u32 = 50;
/// Until all that was accepted stands in the inbox.
const REST: Duration = Duration::from_secs(1);
/// Pings that are counted.
const PINGS: u32 = 10;
/// How long the messages and the tokens live, in seconds.
const TTL_S: u64 = 600;

/// Bytes of the two bodies, about: a notification, and an order with its items.
const SMALL_BYTES: usize = 200;
const LARGE_BYTES: usize = 2_000;

/// How often a device pings, in seconds: as it is told by default, and as it may learn in the end.
const KEEP_ALIVES_S: [u32; 2] = [300, 590];
/// The same for what others do: proxies close what is silent for a minute.
const JSON_PING_S: u32 = 30;

/// The server under test.
#[derive(Clone, Debug)]
pub struct WireTarget {
    /// Its API.
    pub api: Api,
    /// Its MQTT listener.
    pub mqtt: SocketAddr,
    /// Its listener under TLS, and the certificate to trust; without it that is left out.
    pub tls: Option<(SocketAddr, PathBuf)>,
}

/// How a device gets its messages.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    via: Via,
    version: Version,
    coding: Option<Coding>,
}

const WAYS: [Way; 6] = [
    Way { name: "MQTT 3.1.1", via: Via::Tcp, version: Version::V311, coding: None },
    Way { name: "MQTT 5", via: Via::Tcp, version: Version::V5, coding: None },
    Way { name: "MQTT 5, enc=gzip", via: Via::Tcp, version: Version::V5, coding: Some(Coding::Gzip) },
    Way { name: "MQTT 5, enc=zstd", via: Via::Tcp, version: Version::V5, coding: Some(Coding::Zstd) },
    Way { name: "MQTT 5 over WebSocket", via: Via::WebSocket, version: Version::V5, coding: None },
    Way { name: "MQTT 5 over TLS 1.3", via: Via::Tls, version: Version::V5, coding: None },
];

const FETCHES: [Way; 3] = [
    Way { name: "notify, 3.1.1, 50 fetched", via: Via::Tcp, version: Version::V311, coding: None },
    Way { name: "notify, 5, 50 fetched", via: Via::Tcp, version: Version::V5, coding: None },
    Way { name: "notify, 5, 50, enc=zstd", via: Via::Tcp, version: Version::V5, coding: Some(Coding::Zstd) },
];

/// Counts everything.
///
/// # Errors
/// When something does not connect or does not arrive: then there is nothing to report.
pub async fn wire(target: &WireTarget) -> Result<WireReport, Error> {
    let mut rows = vec![json_row().await?];
    for way in WAYS.into_iter().filter(|way| way.via != Via::Tls || target.tls.is_some()) {
        rows.push(pushed(target, way).await?);
    }
    for way in FETCHES {
        rows.push(fetched(target, way).await?);
    }
    Ok(WireReport {
        small_bytes: body(SMALL_BYTES).to_string().len(),
        large_bytes: body(LARGE_BYTES).to_string().len(),
        rows,
    })
}

/// A body as a product would send it, of about this many bytes.
fn body(bytes: usize) -> Value {
    let mut items = Vec::new();
    let order =
        |items: &[Value]| json!({ "title": "Your order has left", "order": "ord-20261121-4711", "items": items });
    while order(&items).to_string().len() + 60 < bytes {
        let n = items.len();
        items.push(json!({ "sku": format!("SKU-{:05}", n * 7_919 % 100_000), "count": n % 4 + 1, "cents": 990 + n * 1_730 % 9_000 }));
    }
    order(&items)
}

/// A device of its own, and the token for it.
async fn registered(api: &Api) -> Result<(DeviceId, Token), Error> {
    let id = format!("wire-{:08x}", rand::random::<u32>());
    let id: DeviceId = id.parse().map_err(|error| Error::Corrupt(format!("{error}")))?;
    api.register(&id, &Profile::default()).await?;
    let token = api.token(&id, TTL_S).await?;
    Ok((id, token))
}

async fn opened(target: &WireTarget, way: Way, mode: &str) -> Result<(DeviceId, Terminal, Arc<counted::Tally>), Error> {
    let (id, token) = registered(&target.api).await?;
    let (line, tally) = Line::open(target, way.via).await?;
    let terminal = Terminal::connect(line, way.version, &id, &token, &options(way, mode)).await?;
    Ok((id, terminal, tally))
}

fn options(way: Way, mode: &str) -> String {
    let enc = way.coding.map(|coding| format!("&enc={}", coding.as_str())).unwrap_or_default();
    format!("mode={mode}{enc}")
}

async fn send(api: &Api, to: &DeviceId, bytes: usize) -> Result<(), Error> {
    let key = format!("wire-{:032x}", rand::random::<u128>());
    let send = Send { key, to: Audience::device(to), payload: body(bytes), ttl_s: TTL_S };
    api.send_until_known(&send, 3).await.map(drop)
}

/// Messages as they come, each acked.
async fn pushed(target: &WireTarget, way: Way) -> Result<Row, Error> {
    let (id, mut terminal, tally) = opened(target, way, "push").await?;
    let connect = tally.take();
    let mut pushes = [Traffic::default(); 2];
    for (push, bytes) in pushes.iter_mut().zip([SMALL_BYTES, LARGE_BYTES]) {
        for _ in 0..MESSAGES {
            send(&target.api, &id, bytes).await?;
            terminal.receive().await?;
        }
        *push = tally.take().with_bare_acks(MESSAGES);
    }
    row(way, connect, pushes.map(|push| push.each(MESSAGES)), (terminal, &tally)).await
}

/// What was counted, with the pings that are counted last.
async fn row(
    way: Way,
    connect: Traffic,
    pushes: [Each; 2],
    (mut terminal, tally): (Terminal, &counted::Tally),
) -> Result<Row, Error> {
    for _ in 0..PINGS {
        terminal.ping().await?;
    }
    let ping = tally.take().with_bare_acks(PINGS).each(PINGS);
    let connect = connect.with_bare_acks(1).each(1);
    Ok(Row { name: way.name.to_owned(), connect, pushes, ping, pings_s: KEEP_ALIVES_S.to_vec() })
}

/// Messages of which the device is told, and which it fetches when there are some.
async fn fetched(target: &WireTarget, way: Way) -> Result<Row, Error> {
    let (id, mut terminal, tally) = opened(target, way, "notify").await?;
    let connect = tally.take();
    let mut pushes = [Traffic::default(); 2];
    let mut position = "i0.t0".to_owned();
    for (push, bytes) in pushes.iter_mut().zip([SMALL_BYTES, LARGE_BYTES]) {
        for _ in 0..FETCHED {
            send(&target.api, &id, bytes).await?;
        }
        // What was accepted is on its way: a device that fetched at once would be told several times.
        sleep(REST).await;
        terminal.noticed().await?;
        let (mut got, mut exchanges) = (0, 1);
        while got < FETCHED {
            let page = terminal.fetch(&position).await?;
            got += page.count;
            exchanges += 2;
            position = page.position;
            if !page.more && got < FETCHED {
                terminal.noticed().await?;
                exchanges += 1;
            }
        }
        *push = tally.take().with_bare_acks(exchanges);
    }
    row(way, connect, pushes.map(|push| push.each(FETCHED)), (terminal, &tally)).await
}

/// The same with JSON over WebSocket.
async fn json_row() -> Result<Row, Error> {
    let (mut peer, tally) = Peer::start().await?;
    let connect = tally.take();
    let mut pushes = [Traffic::default(); 2];
    for (push, bytes) in pushes.iter_mut().zip([SMALL_BYTES, LARGE_BYTES]) {
        for _ in 0..MESSAGES {
            peer.push(&body(bytes)).await?;
        }
        *push = tally.take().with_bare_acks(MESSAGES);
    }
    for _ in 0..PINGS {
        peer.ping().await?;
    }
    let ping = tally.take().with_bare_acks(PINGS);
    Ok(Row {
        name: "JSON over WebSocket".to_owned(),
        connect: connect.with_bare_acks(1).each(1),
        pushes: pushes.map(|push| push.each(MESSAGES)),
        ping: ping.each(PINGS),
        pings_s: vec![JSON_PING_S],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_as_large_as_they_are_said_to_be() {
        for bytes in [SMALL_BYTES, LARGE_BYTES] {
            let len = body(bytes).to_string().len();
            assert!(len.abs_diff(bytes) < 70, "{len} for {bytes}");
        }
    }

    #[tokio::test]
    async fn json_over_websocket_is_counted_frame_by_frame() {
        let row = json_row().await.unwrap();
        let small = body(SMALL_BYTES).to_string().len() as f64;
        assert!(row.pushes[0].down_bytes > small && row.pushes[0].up_bytes > 30.0, "{:?}", row.pushes[0]);
        assert!((row.ping.up_bytes, row.ping.down_bytes) == (6.0, 2.0), "{:?}", row.ping);
    }
}
