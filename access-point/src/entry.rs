//! From an accepted socket to a transport that MQTT can be spoken on. A listener is plain or under TLS; on both the first
//! byte tells MQTT from HTTP, so that one port is enough, and 443 passes firewalls that stop 8883.

use std::{
    future::pending,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use futures_util::FutureExt as _;
use rustls::ServerConfig;
use tokio::{
    io::{Interest, Ready},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};
use tracing::debug;

use crate::{
    Site,
    auth::Refused,
    calm::Newcomer,
    sse,
    transport::{
        Stream, Transport, proxy,
        tls::Tls,
        websocket::upgrade::{self, Answer},
    },
};

/// The head of a request; nothing larger is kept for somebody unknown.
const HEAD_MAX_BYTES: usize = 8 * 1024;

/// How a listener is spoken to.
#[derive(Clone, Debug)]
pub(crate) enum Door {
    Plain,
    Tls(Arc<ServerConfig>),
    /// Somebody else's, who has read this of a request.
    Http(Vec<u8>),
}

/// An accepted socket.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) socket: TcpStream,
    /// The other end, as the system says.
    pub(crate) from: SocketAddr,
    pub(crate) door: Door,
}

/// Where a device comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    /// As far as trusted proxies say.
    pub(crate) address: IpAddr,
    /// The name of its transport.
    pub(crate) transport: &'static str,
}

/// A connection whose turn it was, and what is spoken on it.
pub(crate) struct Entered {
    pub(crate) transport: Transport,
    pub(crate) origin: Origin,
    pub(crate) newcomer: Newcomer,
    /// It must have said by then who it is.
    pub(crate) until: Instant,
}

/// Waits for a connection's turn and finds out what it speaks.
pub(crate) async fn enter(site: &Site, arrived: Arrived) -> Result<Entered, Refused> {
    let (deadline, late) = (site.config.connect_deadline, |_| Refused::ForNow("connect_deadline"));
    let address = timeout(deadline, address(site, &arrived)).await.map_err(late)??;
    let newcomer = tokio::select! {
        biased;
        newcomer = site.calm.turn(address, || wanted(site, &arrived.socket)) => Some(newcomer?),
        () = opens_nothing(&arrived) => None,
    };
    let until = Instant::now() + deadline;
    let (transport, origin) = timeout_at(until, speak(site, arrived, address)).await.map_err(late)??;
    let newcomer = newcomer.ok_or(Refused::ForNow("answered"))?;
    Ok(Entered { transport, origin, newcomer, until })
}

/// Whether its turn would still be of use to a connection, and the connection to the site.
fn wanted(site: &Site, socket: &TcpStream) -> Result<(), Refused> {
    if site.drains.is_closed() {
        return Err(Refused::ForNow("draining"));
    }
    let seen = socket.ready(Interest::READABLE).now_or_never();
    if seen.is_some_and(|seen| seen.is_ok_and(Ready::is_read_closed)) { Err(Refused::ForNow("lost")) } else { Ok(()) }
}

/// Returns when a connection begins with a request that opens no session, as all do but GET: what browsers post, and what
/// they ask beforehand. That takes no turn: it is for those who are in, and acks would come too late. Under TLS it is not
/// known before the handshake, which is most of what turns are for.
async fn opens_nothing(arrived: &Arrived) {
    let first = match &arrived.door {
        Door::Plain => {
            let mut first = [0];
            let peeked = arrived.socket.peek(&mut first).await;
            peeked.is_ok_and(|peeked| peeked > 0).then_some(first[0])
        }
        Door::Tls(_) => None,
        Door::Http(read) => read.first().copied(),
    };
    if !first.is_some_and(|first| first.is_ascii_uppercase() && first != b'G') {
        pending::<()>().await;
    }
}

/// Where a connection comes from, as far as trusted proxies say.
async fn address(site: &Site, arrived: &Arrived) -> Result<IpAddr, Refused> {
    let address = arrived.from.ip().to_canonical();
    let read_before = matches!(arrived.door, Door::Http(_));
    if read_before || !site.config.proxies.iter().any(|proxy| proxy.contains(address)) {
        return Ok(address);
    }
    let told = proxy::read(&arrived.socket).await.map_err(|error| refused(&error, address, "proxy"))?;
    Ok(told.map_or(address, |told| told.ip().to_canonical()))
}

async fn speak(site: &Site, arrived: Arrived, address: IpAddr) -> Result<(Transport, Origin), Refused> {
    let Arrived { socket, door, .. } = arrived;
    let transport = match door {
        Door::Plain => of_first_byte(site, Stream::plain(socket)).await,
        Door::Tls(config) => {
            let tls = Tls::accept(&socket, config).await.map_err(|error| refused(&error, address, "tls"))?;
            of_first_byte(site, Stream::secured(socket, tls)).await
        }
        Door::Http(read) => of_request(site, Stream::plain(socket), read).await,
    };
    let transport = transport.map_err(|error| refused(&error, address, "http"))?;
    let transport = transport.ok_or(Refused::ForNow("answered"))?;
    let origin = Origin { address, transport: transport.name() };
    Ok((transport, origin))
}

fn refused(error: &io::Error, address: IpAddr, label: &'static str) -> Refused {
    debug!(%error, %address, label, "a connection came to nothing");
    Refused::ForNow(if error.kind() == io::ErrorKind::InvalidData { label } else { "lost" })
}

async fn of_first_byte(site: &Site, mut stream: Stream) -> io::Result<Option<Transport>> {
    match stream.first_byte().await? {
        Some(first) if first.is_ascii_uppercase() => of_request(site, stream, Vec::new()).await,
        // Whatever else it is, MQTT says what is wrong with it.
        Some(_) => Ok(Some(stream.into())),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Reads the head of a request, of which some may be there, and answers it; `None` when that was all that was wanted.
async fn of_request(site: &Site, mut stream: Stream, mut head: Vec<u8>) -> io::Result<Option<Transport>> {
    loop {
        match upgrade::answer(&head) {
            Answer::Unfinished if head.len() < HEAD_MAX_BYTES => stream.read_more(&mut head).await?,
            Answer::Unfinished => return Err(io::Error::new(io::ErrorKind::InvalidData, "a head without an end")),
            Answer::Upgrade(answer, head_bytes) => {
                stream.write_all(answer.as_bytes()).await?;
                return Ok(Some(Transport::upgraded(stream, head.split_off(head_bytes))));
            }
            Answer::Refuse(answer) => {
                stream.write_all(answer.as_bytes()).await?;
                Transport::from(stream).close().await;
                return Err(io::Error::new(io::ErrorKind::InvalidData, "not a request for WebSocket"));
            }
            Answer::Elsewhere => return sse::serve(site, stream, head).await,
        }
    }
}
