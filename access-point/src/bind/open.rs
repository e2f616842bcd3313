//! Opens the session of an app that is to share a link: as any other, but that its bytes go through a pipe.

use std::{sync::Arc, time::Duration};

use model::{Position, sign::DeviceToken};
use mqtt::{Limits, Login, packet::Connect};
use tokio::time::{Instant, timeout};

use super::pipe::Far;
use crate::{
    Site,
    admit::{Admitted, Guest, admit},
    arrival::Arrival,
    auth::Refused,
    connection::{Entrant, Peer},
    link::Link,
    listen::Place,
    open::token_ends,
};

/// How long a session may take to be found: a device that asks while the store is away is to ask again.
const OPEN_MAX: Duration = Duration::from_secs(5);

/// The link tells whether the device is there; its end ends the session too.
const KEEP_ALIVE: Duration = Duration::from_hours(24 * 365);

/// What a device asks for, beside what is known of it.
pub(super) struct Wanted {
    pub(super) token: String,
    pub(super) after: Position,
    /// As the link's, as far as they are the same.
    pub(super) peer: Peer,
    pub(super) connect: Connect,
    pub(super) window: u16,
    /// Packet ids that no other session of the link uses.
    pub(super) packet_ids: (u16, u16),
}

/// Opens it, or says why not.
pub(super) fn open(site: &Arc<Site>, far: Far, wanted: Wanted) {
    let site = site.clone();
    tokio::spawn(async move {
        let version = wanted.connect.version;
        let opened = timeout(OPEN_MAX, Box::pin(find(&site, wanted))).await.unwrap_or(Err(Refused::ForNow("busy")));
        match opened {
            Ok((admitted, token_ends)) => {
                far.open(admitted.latest);
                let mailbox = admitted.presence.handle.mailbox().clone();
                let link = Link::shared(far, version, site.config.packet_max_bytes);
                let place = Place::beside(&site);
                mailbox.enter(Entrant { link, admitted, token_ends, early: Vec::new(), place });
            }
            Err(refused) => far.over(refused.as_str()),
        }
    });
}

async fn find(site: &Arc<Site>, wanted: Wanted) -> Result<(Admitted, Instant), Refused> {
    let Wanted { token, after, peer, connect, window, packet_ids } = wanted;
    let (app, device) = DeviceToken::claimed(&token).ok_or(Refused::ForNow("token"))?;
    let login =
        Login { device, app, token, after, format: peer.format, coding: peer.coding, network: None, mode: peer.mode };
    let token = site.apps.check(&login, site.deps.clock.as_ref()).await?;
    let since = site.deps.clock.now();
    let token_ends = token_ends(&token, since);
    let limits = Limits { window, ack_timeout: site.config.ack_timeout, keep_alive: KEEP_ALIVE };
    let arrival = Arrival::new(site, login.app.clone(), login.device.clone());
    let (origin, heartbeat) = (peer.origin, None);
    let guest = Guest { connect, login, token, token_ends, limits, packet_ids, since, arrival, origin, heartbeat };
    let admitted = tokio::select! {
        admitted = admit(site, &guest) => admitted?,
        () = guest.arrival.superseded() => return Err(Refused::Superseded),
        () = site.shutdown.cancelled() => return Err(Refused::ForNow("shutting_down")),
    };
    Ok((admitted, token_ends))
}
