//! From an accepted socket to a transport that MQTT can be spoken on. A listener is plain or under TLS; on both the first
//! byte tells MQTT from HTTP, so that one port is enough, and 443 passes firewalls that stop 8883.

use std::{
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use rustls::ServerConfig;
use tokio::{
    io::Interest,
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tracing::debug;

use crate::{
    Site,
    auth::Refused,
    transport::{
        Stream, Transport, proxy,
        tls::Tls,
        websocket::upgrade::{self, Answer},
    },
};

/// The head of a request to upgrade; nothing larger is kept for somebody unknown.
const HEAD_MAX_BYTES: usize = 8 * 1024;

/// Read at a time, of a head.
const READ_BYTES: usize = 2 * 1024;

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
    let transport = of_first_byte(stream).await.map_err(|error| refused(&error, address, "http"))?;
    Ok(Entered { transport, address })
}

fn refused(error: &io::Error, address: IpAddr, label: &'static str) -> Refused {
    debug!(%error, %address, label, "a connection came to nothing");
    Refused::ForNow(if error.kind() == io::ErrorKind::InvalidData { label } else { "lost" })
}

async fn of_first_byte(mut stream: Stream) -> io::Result<Transport> {
    match stream.first_byte().await? {
        Some(first) if first.is_ascii_uppercase() => upgraded(stream).await,
        // Whatever else it is, MQTT says what is wrong with it.
        Some(_) => Ok(stream.into()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Reads the head of a request and answers it.
async fn upgraded(mut stream: Stream) -> io::Result<Transport> {
    let mut head = Vec::new();
    loop {
        match upgrade::answer(&head) {
            Answer::Unfinished if head.len() < HEAD_MAX_BYTES => read_more(&mut stream, &mut head).await?,
            Answer::Upgrade(answer, head_bytes) => {
                write(&mut stream, answer.as_bytes()).await?;
                return Ok(Transport::upgraded(stream, head.split_off(head_bytes)));
            }
            Answer::Unfinished => return Err(io::Error::new(io::ErrorKind::InvalidData, "a head without an end")),
            Answer::Refuse(answer) => {
                write(&mut stream, answer.as_bytes()).await?;
                Transport::from(stream).close().await;
                return Err(io::Error::new(io::ErrorKind::InvalidData, "not a request for WebSocket"));
            }
        }
    }
}

async fn read_more(stream: &mut Stream, head: &mut Vec<u8>) -> io::Result<()> {
    let mut fresh = [0; READ_BYTES];
    loop {
        stream.ready(Interest::READABLE).await?;
        match stream.try_read(&mut fresh) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                head.extend_from_slice(&fresh[..read]);
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

async fn write(stream: &mut Stream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.ready(Interest::WRITABLE).await?;
        match stream.try_write_vectored(&[IoSlice::new(bytes)]) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
