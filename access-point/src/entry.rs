//! From an accepted socket to a transport that MQTT can be spoken on. A listener is plain or under TLS; on both the first
//! byte tells MQTT from HTTP, so that one port is enough, and 443 passes firewalls that stop 8883.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use rustls::ServerConfig;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tracing::debug;

use crate::{
    Site,
    auth::Refused,
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
}

/// An accepted socket.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) socket: TcpStream,
    /// The other end, as the system says.
    pub(crate) from: SocketAddr,
    pub(crate) door: Door,
}

/// Somebody who has said something.
pub(crate) struct Entered {
    pub(crate) transport: Transport,
    /// Where it came from, as far as trusted proxies say.
    pub(crate) address: IpAddr,
}

/// Finds out by `until` what somebody speaks.
pub(crate) async fn enter(site: &Site, arrived: Arrived, until: Instant) -> Result<Entered, Refused> {
    let entered = timeout_at(until, speak(site, arrived)).await;
    entered.map_err(|_| Refused::ForNow("connect_deadline"))?
}

async fn speak(site: &Site, arrived: Arrived) -> Result<Entered, Refused> {
    let Arrived { socket, from, door } = arrived;
    let mut address = from.ip().to_canonical();
    if site.config.proxies.iter().any(|proxy| proxy.contains(address)) {
        let told = proxy::read(&socket).await.map_err(|error| refused(&error, address, "proxy"))?;
        address = told.map_or(address, |told| told.ip().to_canonical());
    }
    let stream = match door {
        Door::Plain => Stream::plain(socket),
        Door::Tls(config) => {
            let tls = Tls::accept(&socket, config).await.map_err(|error| refused(&error, address, "tls"))?;
            Stream::secured(socket, tls)
        }
    };
    let transport = of_first_byte(site, stream).await.map_err(|error| refused(&error, address, "http"))?;
    Ok(Entered { transport: transport.ok_or(Refused::ForNow("answered"))?, address })
}

fn refused(error: &io::Error, address: IpAddr, label: &'static str) -> Refused {
    debug!(%error, %address, label, "a connection came to nothing");
    Refused::ForNow(if error.kind() == io::ErrorKind::InvalidData { label } else { "lost" })
}

async fn of_first_byte(site: &Site, mut stream: Stream) -> io::Result<Option<Transport>> {
    match stream.first_byte().await? {
        Some(first) if first.is_ascii_uppercase() => of_request(site, stream).await,
        // Whatever else it is, MQTT says what is wrong with it.
        Some(_) => Ok(Some(stream.into())),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Reads the head of a request and answers it; `None` when that was all that was wanted.
async fn of_request(site: &Site, mut stream: Stream) -> io::Result<Option<Transport>> {
    let mut head = Vec::new();
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
