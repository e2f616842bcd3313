//! Lets devices in: from the first byte of a connection to CONNACK. Whoever cannot come in for good is told; whoever
//! cannot come in now finds the link closed, since many clients never come back after a refusal. A device whose session
//! is not found at once, because the store is slow or away, is let in on its token and waits inside.

use std::{pin::Pin, sync::Arc, time::Duration};

use model::{Position, Timestamp, sign::DeviceToken};
use mqtt::{
    Limits, Login, Packet, Reason, Version,
    login::{InvalidLogin, Mode},
    packet::{ConnAck, Connect},
    publish::written,
    session::{OWN_IDS, WINDOW_FETCHED, WINDOW_MAX},
};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use crate::{
    KeepAlive, Site,
    admit::{Admitted, Guest, admit, is_ahead},
    arrival::Arrival,
    auth::Refused,
    calm::Newcomer,
    close::Close,
    connection::Entrant,
    control,
    entry::{Arrived, Entered, Origin, enter},
    heartbeat::Heartbeat,
    link::Link,
    listen::Place,
    wait::Waiting,
};

/// The largest CONNECT, in bytes: nothing larger is kept for somebody unknown.
const CONNECT_MAX_BYTES: usize = 8 * 1024;

/// How long a device waits for an answer at most: longer than a store in good health takes, shorter than people notice.
const ANSWER_MAX: Duration = Duration::from_millis(500);

/// No link lasts so long that it would matter beyond.
const TOKEN_CHECKED_MAX: Duration = Duration::from_hours(365 * 24);

/// Lets a connection in and hands it to its worker, or turns it away.
pub(crate) async fn open(site: Arc<Site>, arrived: Arrived, mut place: Place) {
    let entered = tokio::select! {
        () = site.shutdown.cancelled() => Err(Refused::ForNow("shutting_down")),
        entered = Box::pin(enter(&site, arrived)) => entered,
    };
    let Entered { transport, origin, mut newcomer, until } = match entered {
        Ok(entered) => entered,
        Err(refused) => return site.metrics.connect(refused.as_str()),
    };
    place.share = newcomer.share.take();
    let mut link = Link::new(transport, CONNECT_MAX_BYTES);
    let mut packets = Vec::new();
    let guest = tokio::select! {
        () = site.shutdown.cancelled() => Err(Refused::ForNow("shutting_down")),
        guest = Box::pin(heard(&site, &newcomer, (&mut link, origin), &mut packets, until)) => guest,
    };
    let guest = match guest {
        Ok(guest) => Arc::new(guest),
        Err(refused) => return refuse(&site, link, refused).await,
    };
    debug!(app = %guest.login.app, device.id = %guest.login.device, address = %origin.address, "a device says who it is");
    link.packet_max_bytes = site.config.packet_max_bytes;
    let token_ends = guest.token_ends;
    if let Some((admitted, link, early)) = Box::pin(let_in(&site, guest, link, packets)).await {
        let mailbox = admitted.presence.handle.mailbox().clone();
        mailbox.enter(Entrant { link, admitted, token_ends, early, place });
    }
}

type Admission = Pin<Box<dyn Future<Output = Result<Admitted, Refused>> + Send>>;

/// Answers a guest as soon as its session is found, or without it, and then waits for it; `None` when the link is over.
async fn let_in(
    site: &Arc<Site>,
    guest: Arc<Guest>,
    mut link: Link,
    early: Vec<Packet>,
) -> Option<(Admitted, Link, Vec<Packet>)> {
    let mut admission: Admission = Box::pin({
        let (site, guest) = (site.clone(), guest.clone());
        async move { admit(&site, &guest).await }
    });
    let soon = tokio::select! {
        soon = timeout(ANSWER_MAX, &mut admission) => soon.ok(),
        () = guest.arrival.superseded() => Some(Err(Refused::Superseded)),
        () = site.shutdown.cancelled() => Some(Err(Refused::ForNow("shutting_down"))),
    };
    match soon {
        Some(Err(refused)) => {
            drop(admission);
            refuse(site, link, refused).await;
            None
        }
        Some(Ok(admitted)) => {
            answer(site, &guest, &mut link, Some(admitted.latest));
            tell_lost(site, &guest, &mut link, admitted.latest);
            Some((admitted, link, early))
        }
        None => {
            answer(site, &guest, &mut link, None);
            let (admitted, mut link, held) = Waiting::new(site, &guest, link).until(admission, early).await?;
            tell_lost(site, &guest, &mut link, admitted.latest);
            Some((admitted, link, held))
        }
    }
}

/// Who is at the other end, some time after he has said so: the longer the fuller it is here.
async fn heard(
    site: &Arc<Site>,
    newcomer: &Newcomer,
    (link, origin): (&mut Link, Origin),
    packets: &mut Vec<Packet>,
    until: Instant,
) -> Result<Guest, Refused> {
    let guest = introduced(site, (link, origin), packets, until).await?;
    let (here, login) = (site.endpoint(), &guest.login);
    tokio::select! {
        () = site.calm.hesitate(newcomer, &here, &login.app, &login.device) => Ok(guest),
        () = guest.arrival.superseded() => Err(Refused::Superseded),
    }
}

/// Who is at the other end, by its token; packets behind its CONNECT stay in `packets`.
async fn introduced(
    site: &Arc<Site>,
    (link, origin): (&mut Link, Origin),
    packets: &mut Vec<Packet>,
    until: Instant,
) -> Result<Guest, Refused> {
    let first = timeout_at(until, first_packet(link, packets)).await;
    let connect = first.map_err(|_| Refused::ForNow("connect_deadline"))??;
    if connect.auth_method.is_some() {
        return Err(Refused::ForGood(Reason::BAD_AUTH_METHOD, "auth_method"));
    }
    let login = Login::of(&connect).map_err(|invalid| match invalid {
        InvalidLogin::Device => Refused::ForGood(Reason::BAD_CLIENT_ID, "client_id"),
        InvalidLogin::Credentials | InvalidLogin::Option(_) => Refused::ForGood(Reason::BAD_CREDENTIALS, "username"),
    })?;
    let checked = timeout(ANSWER_MAX, site.apps.check(&login, site.deps.clock.as_ref())).await;
    let token = checked.map_err(|_| Refused::ForNow("busy"))??;
    let since = site.deps.clock.now();
    let token_ends = token_ends(&token, since);
    let heartbeat = login.network.map(|network| {
        let (app, device) = (login.app.clone(), login.device.clone());
        Arc::new(site.heartbeats.connected(app, device, network, Instant::now()))
    });
    let (keep_alive_s, _) = keep_alive(site.config.keep_alive, &connect, heartbeat.as_deref());
    let limits = Limits {
        window: match login.mode {
            Mode::Push => Limits::window(connect.version, connect.receive_maximum),
            Mode::Notify => WINDOW_FETCHED,
        },
        ack_timeout: site.config.ack_timeout,
        keep_alive: Duration::from_secs(keep_alive_s.into()),
    };
    let arrival = Arrival::new(site, login.app.clone(), login.device.clone());
    let packet_ids = OWN_IDS;
    Ok(Guest { connect, login, token, token_ends, limits, packet_ids, since, arrival, origin, heartbeat })
}

/// Until when a token counts that is shown at `since`.
pub(crate) fn token_ends(token: &DeviceToken, since: Timestamp) -> Instant {
    let lasts = Duration::from_secs(token.exp).saturating_sub(Duration::from_millis(since.as_millis()));
    Instant::now() + lasts.min(TOKEN_CHECKED_MAX)
}

/// The CONNECT that a link must begin with; what came behind it stays in `packets`.
async fn first_packet(link: &mut Link, packets: &mut Vec<Packet>) -> Result<Connect, Refused> {
    while packets.is_empty() {
        link.ready().await.map_err(|_| Refused::ForNow("lost"))?;
        link.read(packets).map_err(|close| match close {
            Close::Broken(reason) => Refused::ForGood(reason, "protocol"),
            _ => Refused::ForNow("lost"),
        })?;
    }
    match packets.remove(0) {
        Packet::Connect(connect) => Ok(*connect),
        _ => Err(Refused::ForGood(Reason::PROTOCOL_ERROR, "protocol")),
    }
}

/// The keep alive that counts, and what an MQTT 5 device is told when that is not what it asked for. MQTT 3.1.1 cannot be
/// told here: whoever is told otherwise (`hb`) may be heard as seldom as what was learned.
fn keep_alive(bounds: KeepAlive, connect: &Connect, heartbeat: Option<&Heartbeat>) -> (u16, Option<u16>) {
    let asked = connect.keep_alive_s;
    let learned = heartbeat.map(|heartbeat| heartbeat.told_s.clamp(bounds.min_s, bounds.max_s));
    let counts = match (connect.version, learned) {
        (Version::V5, Some(learned)) => learned,
        (Version::V311, _) if asked == 0 => bounds.max_s,
        (Version::V311, Some(learned)) => asked.clamp(bounds.min_s, bounds.max_s).max(learned),
        (Version::V5, None) if asked == 0 || asked > bounds.max_s => bounds.default_s,
        _ => asked.clamp(bounds.min_s, bounds.max_s),
    };
    (counts, (counts != asked).then_some(counts))
}

/// Says that the device is in, and how far its streams go if that is known.
fn answer(site: &Site, guest: &Guest, link: &mut Link, latest: Option<Position>) {
    site.metrics.connect("accepted");
    let (_, keep_alive) = keep_alive(site.config.keep_alive, &guest.connect, guest.heartbeat.as_deref());
    let mut user_properties = vec![("node".into(), site.config.node.to_string())];
    user_properties.extend(latest.map(|latest| ("latest".into(), latest.to_string())));
    user_properties.push(("server_time".into(), written(site.deps.clock.now())));
    push(
        link,
        &Packet::ConnAck(Box::new(ConnAck {
            reason: Reason::SUCCESS,
            session_present: false,
            receive_maximum: Some(WINDOW_MAX),
            maximum_packet_size: u32::try_from(site.config.packet_max_bytes).ok(),
            server_keep_alive_s: keep_alive,
            // Packet ids are forgotten with the link; what is undelivered is not part of the MQTT session.
            session_expiry_s: guest.connect.session_expiry_s.map(|_| 0),
            reason_string: None,
            user_properties,
        })),
    );
}

/// Tells a device that has seen what the store does not know.
fn tell_lost(site: &Site, guest: &Guest, link: &mut Link, latest: Position) {
    if is_ahead(guest.login.after, latest) {
        site.metrics.resyncs.inc();
        push(link, &control::resync(&guest.login.app, latest));
    }
}

fn push(link: &mut Link, packet: &Packet) {
    if let Err(error) = link.push(packet) {
        debug!(?error, "a greeting that cannot be written");
    }
}

async fn refuse(site: &Site, link: Link, refused: Refused) {
    site.metrics.connect(refused.as_str());
    debug!(label = refused.as_str(), "a connection was refused");
    let reason = match refused {
        Refused::ForGood(reason, _) => Some(reason),
        Refused::ForNow(_) | Refused::Superseded => None,
    };
    let sayable = |reason: &Reason| link.version() == Version::V5 || reason.is_of_connack_v311();
    let answer = reason.filter(sayable).map(|reason| ConnAck { reason, ..ConnAck::default() });
    let last: Vec<Packet> = answer.into_iter().map(|answer| Packet::ConnAck(Box::new(answer))).collect();
    link.close(&last).await;
}

#[cfg(test)]
mod tests {
    use mqtt::login::Network;

    use super::*;
    use crate::heartbeat::Heartbeats;

    #[test]
    fn keep_alives_are_bounded_and_mqtt_5_is_told() {
        let bounds = KeepAlive { default_s: 300, min_s: 15, max_s: 1_200 };
        let of =
            |version, keep_alive_s| keep_alive(bounds, &Connect { keep_alive_s, ..Connect::new(version, "d") }, None);
        assert_eq!(of(Version::V5, 60), (60, None));
        assert_eq!(of(Version::V5, 0), (300, Some(300)));
        assert_eq!(of(Version::V5, 2), (15, Some(15)));
        assert_eq!(of(Version::V5, 9_000), (300, Some(300)));
        assert_eq!(of(Version::V311, 0).0, 1_200);
        assert_eq!(of(Version::V311, 9_000).0, 1_200);
    }

    #[test]
    fn whoever_leaves_it_to_us_is_told_what_was_learned() {
        let bounds = KeepAlive { default_s: 300, min_s: 15, max_s: 1_200 };
        let beats: Arc<Heartbeats> = Arc::default();
        let (app, device) = ("demo".parse().unwrap(), "d".parse().unwrap());
        let beat = beats.connected(app, device, Network::FourG, Instant::now());
        let of = |version, keep_alive_s| {
            keep_alive(bounds, &Connect { keep_alive_s, ..Connect::new(version, "d") }, Some(&beat))
        };
        assert_eq!(of(Version::V5, 60), (270, Some(270)));
        assert_eq!(of(Version::V5, 270), (270, None));
        assert_eq!(of(Version::V311, 60).0, 270);
        assert_eq!(of(Version::V311, 600).0, 600);
        let narrow = KeepAlive { max_s: 100, ..bounds };
        assert_eq!(keep_alive(narrow, &Connect::new(Version::V5, "d"), Some(&beat)).0, 100);
    }
}
