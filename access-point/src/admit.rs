//! Finds a device's session: who it is in its app, that no later session is there, and where its streams go on. While the
//! store is away it asks again and again, a few devices at a time.

use std::{
    slice,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use broker::Ring;
use model::{
    AppId, Bell, Cursor, Device, Epoch, Lane, Position, Route, Seq, Timestamp, record::Record as _, sign::DeviceToken,
};
use mqtt::{Format, Limits, Login, Reason, Session, Version, login::Mode, packet::Connect, session::WINDOW_FETCHED};
use prometheus_client::metrics::gauge::Gauge;
use store::{Claim, Registration};
use tokio::{
    sync::SemaphorePermit,
    time::{Instant, sleep, timeout},
};
use tracing::debug;

use crate::{
    Site,
    arrival::Arrival,
    auth::Refused,
    bell,
    close::Close,
    connection::Peer,
    entry::Origin,
    heartbeat::Heartbeat,
    pull::Sent,
    registry::{Entered, Handle},
    revocation,
    timeline::Timeline,
};

/// Shortest and longest pause before the store is asked again, each with as much again at random: soon after a moment's
/// trouble, and seconds after a long one, for thousands may be waiting.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(200);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);

/// How long the session before may take to tell what it knows.
const HANDOVER_MAX: Duration = Duration::from_secs(1);

/// A device that has proven who it is.
pub(crate) struct Guest {
    pub(crate) connect: Connect,
    pub(crate) login: Login,
    pub(crate) token: DeviceToken,
    pub(crate) token_ends: Instant,
    pub(crate) limits: Limits,
    /// The packet ids that are its own on its link.
    pub(crate) packet_ids: (u16, u16),
    /// When it came. Its session is numbered by it, so that one that had to wait does not win over one that came later.
    pub(crate) since: Timestamp,
    pub(crate) arrival: Arrival,
    pub(crate) origin: Origin,
    /// When it leaves its keep alive to us.
    pub(crate) heartbeat: Option<Arc<Heartbeat>>,
}

/// A session that is found.
pub(crate) struct Admitted {
    pub(crate) peer: Peer,
    pub(crate) presence: Presence,
    pub(crate) session: Session<Sent>,
    pub(crate) timeline: Arc<Timeline>,
    /// The last entries of its streams.
    pub(crate) latest: Position,
}

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

/// Why a session is not found.
enum Denied {
    /// The store does not say; it may later.
    Away(String),
    For(Refused),
}

impl From<store::Error> for Denied {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Unavailable(reason) => Self::Away(reason),
            store::Error::Rejected(reason) => {
                debug!(reason, "the store takes no such device");
                Self::For(Refused::ForGood(Reason::NOT_AUTHORIZED, "rejected"))
            }
            store::Error::Corrupt(_) => Self::For(Refused::ForNow("store")),
        }
    }
}

impl From<Refused> for Denied {
    fn from(refused: Refused) -> Self {
        Self::For(refused)
    }
}

/// Finds the session of a guest, however long the store is away.
pub(crate) async fn admit(site: &Arc<Site>, guest: &Guest) -> Result<Admitted, Refused> {
    let (mut pause, mut waited) = (RETRY_PAUSE_MIN, false);
    loop {
        match ask(site, guest, waited).await {
            Ok(admitted) => return Ok(admitted),
            Err(Denied::For(refused)) => return Err(refused),
            Err(Denied::Away(reason)) => debug!(reason, "a device waits for the store"),
        }
        waited = true;
        sleep(pause.mul_f64(rand::random_range(1.0..2.0))).await;
        pause = (pause * 2).min(RETRY_PAUSE_MAX);
    }
}

/// Asks the store once. Devices that wait for the timeline of their app, which after a restart are all it has, take no turns
/// from those of other apps.
async fn ask(site: &Arc<Site>, guest: &Guest, waited: bool) -> Result<Admitted, Denied> {
    let timeline = timeline(site, &guest.login.app).await?;
    let _turn = turn(site).await?;
    find(site, guest, timeline, waited).await
}

async fn turn(site: &Site) -> Result<SemaphorePermit<'_>, Refused> {
    site.opening.acquire().await.map_err(|_| Refused::ForNow("shutting_down"))
}

/// Makes the device's session the one that counts, then finds out where it goes on.
async fn find(site: &Arc<Site>, guest: &Guest, timeline: Arc<Timeline>, waited: bool) -> Result<Admitted, Denied> {
    let (store, app) = (&site.deps.store, &guest.login.app);
    let looks = site.looks.load(Ordering::Acquire);
    let device = device(site, guest).await?;
    let claim = store.claim(app, device.ordinal, &site.config.node, guest.since).await?;
    if waited && let Some(later) = later_elsewhere(site, guest, &claim) {
        give_way(site, guest, &device, &claim, later).await?;
        return Err(Refused::Superseded.into());
    }
    let presence = enter(site, guest, &device, &claim).await?;
    // Whoever looked in between for revoked tokens has not found this session.
    if site.looks.load(Ordering::Acquire) != looks {
        revocation::check(site, app, slice::from_ref(&presence.handle)).await?;
    }
    let peer = peer(guest, device);
    let cursor = cursor(site, &peer).await?;
    let latest = heads(site, &peer).await?;
    presence.handle.note_inbox_head(latest.inbox);
    let session = session(guest, cursor, latest);
    Ok(Admitted { peer, presence, session, timeline, latest })
}

/// The device as it is registered, now if need be.
async fn device(site: &Site, guest: &Guest) -> Result<Device, Denied> {
    let Guest { login, token, .. } = guest;
    let known = site.deps.store.devices(&login.app, slice::from_ref(&login.device)).await?;
    let refused = |label| Err(Refused::ForGood(Reason::NOT_AUTHORIZED, label).into());
    match known.into_iter().next().flatten() {
        Some(device) if token.env.is_some_and(|env| env != device.env) => refused("environment"),
        Some(device) if token.generation < device.generation => refused("revoked"),
        Some(device) => Ok(device),
        None if !site.config.auto_register => refused("unknown_device"),
        None => {
            let env = token.env.unwrap_or(model::Env::Live);
            let registration = Registration { id: login.device.clone(), env, profile: None };
            let registered = site.deps.store.register(&login.app, vec![registration], site.deps.clock.now()).await?;
            registered.into_iter().next().map(|(device, _)| device).ok_or(Refused::ForNow("store").into())
        }
    }
}

/// The route of a session at another access point that was opened after this one, which waited for the store.
fn later_elsewhere<'a>(site: &Site, guest: &Guest, claim: &'a Claim) -> Option<&'a Route> {
    let is_later = |route: &&Route| route.node != site.config.node && route.epoch > Epoch(0).next(guest.since);
    claim.previous.as_ref().filter(is_later)
}

/// Gives a later session its route back.
async fn give_way(
    site: &Site,
    guest: &Guest,
    device: &Device,
    claim: &Claim,
    later: &Route,
) -> Result<(), store::Error> {
    let (store, app) = (&site.deps.store, &guest.login.app);
    store.release(app, device.ordinal, claim.epoch).await?;
    store.restore(app, &later.node, &[(device.ordinal, later.epoch)]).await.map(drop)
}

/// Enters the session before its first look at the streams: a bell from now on finds it.
async fn enter(site: &Arc<Site>, guest: &Guest, device: &Device, claim: &Claim) -> Result<Presence, Refused> {
    let app = &guest.login.app;
    let mailbox = site.workers.of(device.ordinal).clone();
    let handle = Arc::new(Handle::new(app.clone(), device.ordinal, claim.epoch, guest.token.generation, mailbox));
    let before = match site.registry.enter(&handle) {
        Entered::Here(before) => before,
        Entered::Late => return Err(Refused::Superseded),
    };
    let open = site.metrics.connections(app, guest.origin.transport, guest.connect.version);
    open.inc();
    let presence = Presence { site: site.clone(), handle, open };
    let elsewhere = claim.previous.as_ref().map(|route| &route.node).filter(|node| **node != site.config.node);
    if before.is_some() || elsewhere.is_some() {
        site.calm.taken_over(app, &device.id, guest.origin.address, elsewhere);
    }
    if let Some(before) = before {
        before.close(Close::TakenOver);
        site.metrics.takeovers.inc();
        let _ = timeout(HANDOVER_MAX, before.gone()).await;
    }
    if let Some(node) = elsewhere {
        supersede(site, &Ring::One(node.clone()), &presence.handle);
    }
    if !claim.routed {
        // It is entered, so whoever tells where devices are finds it. An older one may be anywhere.
        site.untold.store(true, Ordering::Release);
        supersede(site, &Ring::All, &presence.handle);
    }
    if site.shutdown.is_cancelled() { Err(Refused::ForNow("shutting_down")) } else { Ok(presence) }
}

fn supersede(site: &Site, at: &Ring, handle: &Handle) {
    let bell = Bell::Superseded { app: handle.app.clone(), device: handle.ordinal, epoch: handle.epoch };
    site.deps.broker.ring(Lane::Unicast, at, bell.encode().into());
}

fn peer(guest: &Guest, device: Device) -> Peer {
    let fetches = guest.login.mode == Mode::Notify;
    Peer {
        app: guest.login.app.clone(),
        device: device.id,
        ordinal: device.ordinal,
        env: device.env,
        user: device.profile.user_id,
        // A page is made of envelopes.
        format: if fetches { Format::Envelope } else { guest.login.format },
        mode: guest.login.mode,
        // Only MQTT 5 can say that a body is packed.
        coding: guest.login.coding.filter(|_| guest.connect.version == Version::V5),
        window_bound: match guest.login.mode {
            Mode::Push => Limits::window_bound(guest.connect.version, guest.connect.receive_maximum),
            Mode::Notify => WINDOW_FETCHED,
        },
        heartbeat: guest.heartbeat.clone(),
        origin: guest.origin,
        packet_max_bytes: guest.connect.maximum_packet_size.map_or(usize::MAX, |bytes| bytes as usize),
    }
}

/// The timeline of an app, which its first device brings here.
async fn timeline(site: &Site, app: &AppId) -> Result<Arc<Timeline>, Denied> {
    if let Some(timeline) = site.timelines.get(app) {
        return Ok(timeline);
    }
    let _first = site.timelines.turn(app).await;
    if let Some(timeline) = site.timelines.get(app) {
        return Ok(timeline);
    }
    let _turn = turn(site).await?;
    let timeline = site.timelines.open(app, site.deps.clock.now()).await?;
    // Bells that rang while it was read were not for anything known here.
    if let Err(error) = look_again(site, app, &timeline).await {
        debug!(%app, %error, "cannot look once more; the sweep will");
        site.unheard.notify_one();
    }
    Ok(timeline)
}

/// How far the device has come: what waits here to be saved may be behind what another access point has saved since. What
/// waits is looked up first, for it goes when it is in the store.
async fn cursor(site: &Site, peer: &Peer) -> Result<Cursor, store::Error> {
    let waiting = site.outbox.cursor(&peer.app, peer.ordinal);
    match (waiting, site.deps.store.cursor(&peer.app, peer.ordinal).await) {
        (Some(waiting), Ok(kept)) => Ok(kept.further(waiting)),
        (Some(waiting), Err(_)) => Ok(waiting),
        (None, kept) => kept,
    }
}

async fn look_again(site: &Site, app: &AppId, timeline: &Timeline) -> Result<(), store::Error> {
    let head = site.deps.store.timeline_head(app).await?;
    bell::grown(site, app, head).await;
    timeline.look_again().await
}

fn session(guest: &Guest, cursor: Cursor, latest: Position) -> Session<Sent> {
    Session::new(cursor, cut(guest.login.after, latest), guest.limits, Instant::now().into_std())
        .numbered(guest.packet_ids)
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use model::DeviceId;
    use mqtt::session::OWN_IDS;

    use super::*;
    use crate::{OPENING_MAX, testing};

    fn guest(site: &Arc<Site>, app: &str, device: usize) -> Guest {
        let (app, device): (AppId, DeviceId) = (app.parse().unwrap(), format!("dev-{device}").parse().unwrap());
        let hour = Duration::from_hours(1);
        Guest {
            connect: Connect::new(Version::V5, device.as_str()),
            login: Login {
                device: device.clone(),
                app: app.clone(),
                token: String::new(),
                after: Position::default(),
                format: Format::Envelope,
                coding: None,
                network: None,
                mode: Mode::Push,
            },
            token: DeviceToken { sub: device.clone(), app: app.clone(), generation: 0, exp: u64::MAX, env: None },
            token_ends: Instant::now() + hour,
            limits: Limits { window: 32, ack_timeout: hour, keep_alive: hour },
            packet_ids: OWN_IDS,
            since: site.deps.clock.now(),
            arrival: Arrival::new(site, app, device),
            origin: Origin { address: Ipv4Addr::LOCALHOST.into(), transport: "tcp" },
            heartbeat: None,
        }
    }

    #[tokio::test]
    async fn devices_that_wait_for_their_timeline_take_no_turns_of_other_apps() {
        let (site, _dir) = testing::site();
        for app in ["crowded", "demo"] {
            site.deps.store.create_app(testing::app(app)).await.unwrap();
        }
        let _reads = site.timelines.turn(&"crowded".parse().unwrap()).await;
        for device in 0..=OPENING_MAX {
            let (site, guest) = (site.clone(), guest(&site, "crowded", device));
            tokio::spawn(async move { admit(&site, &guest).await.map(drop) });
        }
        sleep(Duration::from_millis(100)).await;
        let guest = guest(&site, "demo", 0);
        let admitted = timeout(Duration::from_secs(5), admit(&site, &guest)).await;
        assert!(admitted.is_ok_and(|admitted| admitted.is_ok()), "it waits for another app");
    }

    #[test]
    fn a_stated_position_counts_up_to_the_heads() {
        let position = |inbox, timeline| Position { inbox: Seq(inbox), timeline: Seq(timeline) };
        assert!(is_ahead(position(5, 1), position(4, 9)));
        assert!(!is_ahead(position(4, 9), position(4, 9)));
        assert_eq!(cut(position(5, 1), position(4, 9)), position(4, 1));
    }
}
