//! Takes connections, as many as are allowed, and hands each to a task.

use std::{io, net::UdpSocket, sync::Arc, time::Duration};

use futures_util::future::try_join_all;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::OwnedSemaphorePermit,
    time,
};
use tokio_util::{sync::CancellationToken, task::task_tracker::TaskTrackerToken};
use tracing::{debug, warn};

use crate::{
    Site,
    address::Share,
    entry::{Arrived, Door},
    open,
};

/// Pause when the process is out of descriptors: accepting at once again would only burn a core.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// When the system begins to ask whether a silent peer is there, and how often: a 3.1.1 device may choose a keep
/// alive of twenty minutes, and a dead one should not hold a place for that long.
const PROBE_AFTER: Duration = Duration::from_secs(60);
const PROBE_EVERY: Duration = Duration::from_secs(15);

/// A connection's place among as many as are allowed. The access point does not stop before it is given up.
pub(crate) struct Place {
    _permit: Option<OwnedSemaphorePermit>,
    _open: TaskTrackerToken,
    /// Its part of what its address may have, if that is bounded.
    pub(crate) share: Option<Box<Share>>,
}

impl Place {
    fn take(site: &Site) -> Option<Self> {
        let permit = site.places.clone().try_acquire_owned().ok()?;
        Some(Self { _permit: Some(permit), _open: site.connections.token(), share: None })
    }

    /// That of a session which shares a connection.
    pub(crate) fn beside(site: &Site) -> Self {
        Self { _permit: None, _open: site.connections.token(), share: None }
    }
}

/// A descriptor to be given up when there are no others, so that a connection can be taken and closed: left alone it
/// would wait in the backlog for ever.
struct Spare(Option<UdpSocket>);

impl Spare {
    fn new() -> Self {
        Self(UdpSocket::bind("127.0.0.1:0").ok())
    }

    async fn refuse(&mut self, listener: &TcpListener) {
        self.0 = None;
        let _ = time::timeout(EXHAUSTED_PAUSE, listener.accept()).await.map(drop);
        *self = Self::new();
    }
}

/// Takes connections at every door until `shutdown`, or until one of them is of no use any more; then no door is open.
pub(crate) async fn accept_all(
    doors: Vec<(TcpListener, Door)>,
    site: &Arc<Site>,
    shutdown: &CancellationToken,
) -> io::Result<()> {
    let accept = |(listener, door)| async move { accept(&listener, &door, site, shutdown).await };
    try_join_all(doors.into_iter().map(accept)).await.map(drop)
}

async fn accept(listener: &TcpListener, door: &Door, site: &Arc<Site>, shutdown: &CancellationToken) -> io::Result<()> {
    let mut spare = Spare::new();
    loop {
        let accept = async {
            site.calm.taking().await;
            listener.accept().await
        };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            accepted = accept => accepted,
        };
        match accepted {
            Ok((socket, from)) => take(site, Arrived { socket, from, door: door.clone() }),
            Err(error) if is_of_the_connection(&error) => debug!(%error, "a connection was lost before it was taken"),
            Err(error) if is_fatal(&error) => return Err(error),
            Err(error) => {
                warn!(%error, "cannot take a connection");
                site.metrics.connect("exhausted");
                spare.refuse(listener).await;
                time::sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
}

/// Gives a connection its place and its task, if there is room.
pub(crate) fn take(site: &Arc<Site>, arrived: Arrived) {
    let Some(place) = Place::take(site) else { return site.metrics.connect("full") };
    prepare(&arrived.socket);
    tokio::spawn(open::open(site.clone(), arrived, place));
}

/// Messages are small and must not wait for an ack of the one before.
fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let probes = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY);
    let _ = SockRef::from(stream).set_tcp_keepalive(&probes);
}

fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::ConnectionRefused | K::ConnectionAborted | K::ConnectionReset | K::Interrupted)
}

fn is_fatal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotConnected)
}
