//! Opens sessions: from the first byte of a connection to CONNACK. Whoever cannot come in for good is told; whoever
//! cannot come in now finds the link closed, since many clients never come back after a refusal.

use std::{sync::Arc, time::Duration};

use broker::Ring;
use model::{Bell, Cursor, Device, Lane, NodeId, Position, Seq, record::Record as _, sign::DeviceToken};
use mqtt::{
    Limits, Login, Packet, Reason, Session, Version,
    login::InvalidLogin,
    packet::{ConnAck, Connect},
    publish::written,
    session::WINDOW_MAX,
};
use prometheus_client::metrics::gauge::Gauge;
use store::{Claim, Registration};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tracing::debug;

use crate::{
    KeepAlive, Site,
    auth::Refused,
    bell,
    close::Close,
    connection::{Connection, Peer},
    control,
    link::Link,
    pull::Sent,
    registry::{Entered, Handle},
    timeline::Timeline,
};

/// The largest CONNECT, in bytes: nothing larger is kept for somebody unknown.
const CONNECT_MAX_BYTES: usize = 8 * 1024;

/// How long a device waits for an answer at most: every known client takes it, and it is how a storm is paced.
const ANSWER_MAX: Duration = Duration::from_secs(4);

/// Pause before the store is asked again, with as much again at random.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// How long the session before may take to tell what it knows.
const HANDOVER_MAX: Duration = Duration::from_secs(1);

/// A session's place among those of this access point; it is given up when this is dropped.
pub(crate) struct Presence {
    site: Arc<Site>,
    pub(crate) handle: Arc<Handle>,
    open: Gauge,
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.site.registry.leave(&self.handle);
        self.handle.set_gone();
        self.open.dec();
    }
}

/// Serves a connection from its first byte to its last.
pub(crate) async fn serve(site: Arc<Site>, stream: TcpStream) {
    let mut link = Link::new(stream, CONNECT_MAX_BYTES);
    let mut packets = Vec::new();
    let opened = tokio::select! {
        () = site.shutdown.cancelled() => Err(Refused::ForNow("shutting_down")),
        opened = Box::pin(open(&site, &mut link, &mut packets)) => opened,
    };
    match opened {
        Ok(opened) => {
            site.metrics.connect("accepted");
            link.packet_max_bytes = site.config.packet_max_bytes;
            Connection::new(site, link, opened).run(packets).await;
        }
        Err(refused) => refuse(&site, link, refused).await,
    }
}

/// A session that is open, and what its device must still be told.
pub(crate) struct Opened {
    pub(crate) peer: Peer,
    pub(crate) presence: Presence,
    pub(crate) session: Session<Sent>,
    pub(crate) timeline: Arc<Timeline>,
    pub(crate) token_ends: Instant,
    pub(crate) greetings: Vec<Packet>,
}

async fn open(site: &Arc<Site>, link: &mut Link, packets: &mut Vec<Packet>) -> Result<Opened, Refused> {
    let first = timeout(site.config.connect_deadline, first_packet(link, packets)).await;
    let connect = first.map_err(|_| Refused::ForNow("connect_deadline"))??;
    if connect.auth_method.is_some() {
        return Err(Refused::ForGood(Reason::BAD_AUTH_METHOD, "auth_method"));
    }
    let login = Login::of(&connect).map_err(|invalid| match invalid {
        InvalidLogin::Device => Refused::ForGood(Reason::BAD_CLIENT_ID, "client_id"),
        InvalidLogin::Credentials | InvalidLogin::Option(_) => Refused::ForGood(Reason::BAD_CREDENTIALS, "username"),
    })?;
    let admitted = timeout(ANSWER_MAX, async {
        let _turn = site.opening.acquire().await.map_err(|_| Refused::ForNow("shutting_down"))?;
        let token = site.apps.check(&login, site.deps.clock.as_ref()).await?;
        admit(site, &connect, login, token).await
    });
    admitted.await.map_err(|_| Refused::ForNow("busy"))?
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

/// Makes the device's session the one that counts, then finds out where it goes on.
async fn admit(site: &Arc<Site>, connect: &Connect, login: Login, token: DeviceToken) -> Result<Opened, Refused> {
    let device = device(site, &login, &token).await?;
    if token.generation < device.generation {
        return Err(Refused::ForGood(Reason::NOT_AUTHORIZED, "revoked"));
    }
    let store = &site.deps.store;
    let claim = patiently(|| store.claim(&login.app, device.ordinal, &site.config.node, site.deps.clock.now())).await?;
    let presence = enter(site, connect.version, &login, &device, &token, &claim).await?;
    let peer = Peer {
        app: login.app,
        device: device.id,
        ordinal: device.ordinal,
        env: device.env,
        user: device.profile.user_id,
        format: login.format,
        packet_max_bytes: connect.maximum_packet_size.map_or(usize::MAX, |bytes| bytes as usize),
    };
    let timeline = timeline(site, &peer).await?;
    let cursor = match site.outbox.cursor(&peer.app, peer.ordinal) {
        Some(cursor) => cursor,
        None => patiently(|| store.cursor(&peer.app, peer.ordinal)).await?,
    };
    let latest = patiently(|| heads(site, &peer)).await?;
    presence.handle.note_inbox_head(latest.inbox);
    let (session, keep_alive) = session(site, connect, cursor, cut(login.after, latest));
    let mut greetings = vec![connack(site, connect, keep_alive, latest)];
    if is_ahead(login.after, latest) {
        site.metrics.resyncs.inc();
        greetings.push(control::resync(&peer.app, latest));
    }
    let lasts = Duration::from_secs(token.exp).saturating_sub(Duration::from_millis(site.deps.clock.now().as_millis()));
    let token_ends = Instant::now() + lasts.min(TOKEN_CHECKED_MAX);
    Ok(Opened { peer, presence, session, timeline, token_ends, greetings })
}

/// No link lasts so long that it would matter beyond.
const TOKEN_CHECKED_MAX: Duration = Duration::from_hours(365 * 24);

/// The device as it is registered, now if need be.
async fn device(site: &Site, login: &Login, token: &DeviceToken) -> Result<Device, Refused> {
    let store = &site.deps.store;
    let ids = [login.device.clone()];
    let known = patiently(|| store.devices(&login.app, &ids)).await?;
    let known = known.into_iter().next().flatten();
    match known {
        Some(device) if token.env.is_some_and(|env| env != device.env) => {
            Err(Refused::ForGood(Reason::NOT_AUTHORIZED, "environment"))
        }
        Some(device) => Ok(device),
        None if !site.config.auto_register => Err(Refused::ForGood(Reason::NOT_AUTHORIZED, "unknown_device")),
        None => {
            let env = token.env.unwrap_or(model::Env::Live);
            let register = || {
                let registration = Registration { id: login.device.clone(), env, profile: None };
                store.register(&login.app, vec![registration], site.deps.clock.now())
            };
            let registered = patiently(register).await?;
            registered.into_iter().next().map(|(device, _)| device).ok_or(Refused::ForNow("store"))
        }
    }
}

/// Enters the session before its first look at the streams: a bell from now on finds it.
async fn enter(
    site: &Arc<Site>,
    version: Version,
    login: &Login,
    device: &Device,
    token: &DeviceToken,
    claim: &Claim,
) -> Result<Presence, Refused> {
    let handle = Arc::new(Handle::new(login.app.clone(), device.ordinal, claim.epoch, token.generation));
    let before = match site.registry.enter(&handle) {
        Entered::Here(before) => before,
        Entered::Late => return Err(Refused::ForNow("superseded")),
    };
    let open = site.metrics.connections(&login.app, version);
    open.inc();
    let presence = Presence { site: site.clone(), handle, open };
    if let Some(before) = before {
        before.close(Close::TakenOver);
        site.metrics.takeovers.inc();
        let _ = timeout(HANDOVER_MAX, before.gone()).await;
    }
    let elsewhere = claim.previous.as_ref().map(|route| &route.node).filter(|node| **node != site.config.node);
    if let Some(node) = elsewhere {
        supersede(site, node, &presence.handle);
    }
    if site.shutdown.is_cancelled() { Err(Refused::ForNow("shutting_down")) } else { Ok(presence) }
}

/// The timeline of the device's app, which its first device brings here.
async fn timeline(site: &Site, peer: &Peer) -> Result<Arc<Timeline>, Refused> {
    if let Some(timeline) = site.timelines.get(&peer.app) {
        return Ok(timeline);
    }
    let timeline = patiently(|| site.timelines.open(&peer.app, site.deps.clock.now())).await?;
    let head = patiently(|| site.deps.store.timeline_head(&peer.app)).await?;
    bell::grown(site, &peer.app, head).await;
    Ok(timeline)
}

fn supersede(site: &Site, node: &NodeId, handle: &Handle) {
    let bell = Bell::Superseded { app: handle.app.clone(), device: handle.ordinal, epoch: handle.epoch };
    site.deps.broker.ring(Lane::Unicast, &Ring::One(node.clone()), bell.encode().into());
}

/// The last entries of a device's streams.
pub(crate) async fn heads(site: &Site, peer: &Peer) -> Result<Position, store::Error> {
    let inbox = site.deps.store.inbox_heads(&peer.app, &[peer.ordinal]).await?;
    let timeline = site.deps.store.timeline_head(&peer.app).await?;
    Ok(Position { inbox: inbox.first().copied().unwrap_or(Seq::ZERO), timeline })
}

/// Whether a device has seen what the store does not know: it lost data.
pub(crate) fn is_ahead(stated: Position, latest: Position) -> bool {
    stated.inbox > latest.inbox || stated.timeline > latest.timeline
}

/// The part of a stated position that the store can confirm.
pub(crate) fn cut(stated: Position, latest: Position) -> Position {
    Position { inbox: stated.inbox.min(latest.inbox), timeline: stated.timeline.min(latest.timeline) }
}

fn session(site: &Site, connect: &Connect, cursor: Cursor, stated: Position) -> (Session<Sent>, Option<u16>) {
    let (keep_alive_s, told) = keep_alive(site.config.keep_alive, connect);
    let limits = Limits {
        window: Limits::window(connect.version, connect.receive_maximum),
        ack_timeout: site.config.ack_timeout,
        keep_alive: Duration::from_secs(keep_alive_s.into()),
    };
    (Session::new(cursor, stated, limits, Instant::now().into_std()), told)
}

/// The keep alive that counts, and what an MQTT 5 device is told when that is not what it asked for.
fn keep_alive(bounds: KeepAlive, connect: &Connect) -> (u16, Option<u16>) {
    let asked = connect.keep_alive_s;
    let counts = match connect.version {
        Version::V311 if asked == 0 => bounds.max_s,
        Version::V5 if asked == 0 || asked > bounds.max_s => bounds.default_s,
        _ => asked.clamp(bounds.min_s, bounds.max_s),
    };
    (counts, (counts != asked).then_some(counts))
}

fn connack(site: &Site, connect: &Connect, keep_alive: Option<u16>, latest: Position) -> Packet {
    Packet::ConnAck(Box::new(ConnAck {
        reason: Reason::SUCCESS,
        session_present: false,
        receive_maximum: Some(WINDOW_MAX),
        maximum_packet_size: u32::try_from(site.config.packet_max_bytes).ok(),
        server_keep_alive_s: keep_alive,
        // Packet ids are forgotten with the link; what is undelivered is not part of the MQTT session.
        session_expiry_s: connect.session_expiry_s.map(|_| 0),
        reason_string: None,
        user_properties: vec![
            ("node".into(), site.config.node.to_string()),
            ("latest".into(), latest.to_string()),
            ("server_time".into(), written(site.deps.clock.now())),
        ],
    }))
}

/// Asks the store until it answers; the caller bounds how long.
async fn patiently<T, F>(mut ask: impl FnMut() -> F) -> Result<T, Refused>
where
    F: Future<Output = Result<T, store::Error>>,
{
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(store::Error::Unavailable(reason)) => debug!(reason, "a device waits for the store"),
            Err(store::Error::Rejected(reason)) => {
                debug!(reason, "the store takes no such device");
                return Err(Refused::ForGood(Reason::NOT_AUTHORIZED, "rejected"));
            }
            Err(store::Error::Corrupt(_)) => return Err(Refused::ForNow("store")),
        }
        sleep(RETRY_PAUSE.mul_f64(rand::random_range(1.0..2.0))).await;
    }
}

async fn refuse(site: &Site, link: Link, refused: Refused) {
    let (reason, label) = match refused {
        Refused::ForGood(reason, label) => (Some(reason), label),
        Refused::ForNow(label) => (None, label),
    };
    site.metrics.connect(label);
    debug!(label, "a connection was refused");
    let sayable = |reason: &Reason| link.version() == Version::V5 || reason.is_of_connack_v311();
    let answer = reason.filter(sayable).map(|reason| ConnAck { reason, ..ConnAck::default() });
    let last: Vec<Packet> = answer.into_iter().map(|answer| Packet::ConnAck(Box::new(answer))).collect();
    link.close(&last).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keep_alives_are_bounded_and_mqtt_5_is_told() {
        let bounds = KeepAlive { default_s: 300, min_s: 15, max_s: 1_200 };
        let of = |version, keep_alive_s| keep_alive(bounds, &Connect { keep_alive_s, ..Connect::new(version, "d") });
        assert_eq!(of(Version::V5, 60), (60, None));
        assert_eq!(of(Version::V5, 0), (300, Some(300)));
        assert_eq!(of(Version::V5, 2), (15, Some(15)));
        assert_eq!(of(Version::V5, 9_000), (300, Some(300)));
        assert_eq!(of(Version::V311, 0).0, 1_200);
        assert_eq!(of(Version::V311, 9_000).0, 1_200);
    }

    #[test]
    fn a_stated_position_counts_up_to_the_heads() {
        let position = |inbox, timeline| Position { inbox: Seq(inbox), timeline: Seq(timeline) };
        assert!(is_ahead(position(5, 1), position(4, 9)));
        assert!(!is_ahead(position(4, 9), position(4, 9)));
        assert_eq!(cut(position(5, 1), position(4, 9)), position(4, 1));
    }
}
