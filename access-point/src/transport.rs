//! The bytes between a device and its session, whatever carries them: a socket, with TLS on it or not, and on that MQTT as
//! it is, or in the frames of WebSocket, or as events for a browser. Nothing here waits but for readiness, and no layer owns a buffer while nothing is under
//! way: an idle connection costs its keys and its state.

pub(crate) mod proxy;
pub(crate) mod tls;
pub(crate) mod websocket;

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead as _, AsyncWriteExt as _, Interest, ReadBuf, Ready},
    net::TcpStream,
    time::{Instant, timeout},
};

use self::{tls::Tls, websocket::WebSocket};
use crate::sse::Events;

/// How long, and for how many bytes, the last words wait for the device to have read them.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_MAX_BYTES: usize = 64 * 1024;

/// Read at a time, on the stack, of a request.
const FRESH_BYTES: usize = 2 * 1024;

/// Read away at a time, on the stack.
const DUST_BYTES: usize = 4 * 1024;

/// A socket, and TLS on it if the device speaks that.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: TcpStream,
    tls: Option<Box<Tls>>,
}

impl Stream {
    /// A socket as it is.
    pub(crate) fn plain(socket: TcpStream) -> Self {
        Self { socket, tls: None }
    }

    /// A socket on which TLS has been agreed.
    pub(crate) fn secured(socket: TcpStream, tls: Tls) -> Self {
        Self { socket, tls: Some(Box::new(tls)) }
    }

    /// The first byte that came, which stays where it is; `None` when there will be none.
    pub(crate) async fn first_byte(&mut self) -> io::Result<Option<u8>> {
        let Some(tls) = &mut self.tls else {
            let mut first = [0];
            let peeked = self.socket.peek(&mut first).await?;
            return Ok((peeked > 0).then_some(first[0]));
        };
        loop {
            match tls.first_byte(&self.socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.socket.readable().await?,
                first => return first,
            }
        }
    }

    /// Waits until there is something to read, or room to write, as asked.
    pub(crate) async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        match &self.tls {
            Some(tls) if interest.is_readable() && tls.has_read() => Ok(Ready::READABLE),
            Some(tls) if tls.has_unsent() => self.socket.ready(interest | Interest::WRITABLE).await,
            _ => self.socket.ready(interest).await,
        }
    }

    /// Reads what is there; 0 is the end.
    pub(crate) fn try_read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => tls.try_read(&self.socket, bytes),
            None => self.socket.try_read(bytes),
        }
    }

    /// Writes what is taken now.
    pub(crate) fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => tls.try_write_vectored(&self.socket, slices),
            None => self.socket.try_write_vectored(slices),
        }
    }

    /// Adds what comes next to `bytes`.
    ///
    /// # Errors
    /// `UnexpectedEof` when nothing more comes.
    pub(crate) async fn read_more(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let mut fresh = [0; FRESH_BYTES];
        loop {
            self.ready(Interest::READABLE).await?;
            match self.try_read(&mut fresh) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    bytes.extend_from_slice(&fresh[..read]);
                    return Ok(());
                }
                Err(error) if must_wait(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes all of `bytes`, however long that takes.
    pub(crate) async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.ready(Interest::WRITABLE).await?;
            match self.try_write_vectored(&[IoSlice::new(bytes)]) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if must_wait(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn has_unsent(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.has_unsent())
    }

    fn flush(&mut self) -> io::Result<bool> {
        self.tls.as_mut().map_or(Ok(false), |tls| tls.flush(&self.socket))
    }
}

/// What a session reads from and writes to.
#[derive(Debug)]
pub(crate) struct Transport {
    stream: Stream,
    layer: Layer,
}

/// What carries MQTT on a stream.
#[derive(Debug)]
enum Layer {
    Nothing,
    WebSocket(Box<WebSocket>),
    Events(Box<Events>),
}

impl From<Stream> for Transport {
    fn from(stream: Stream) -> Self {
        Self { stream, layer: Layer::Nothing }
    }
}

impl Transport {
    /// A stream that was upgraded to WebSocket; `early` came behind the request.
    pub(crate) fn upgraded(stream: Stream, early: Vec<u8>) -> Self {
        Self { stream, layer: Layer::WebSocket(Box::new(WebSocket::new(early))) }
    }

    /// A stream that is to be answered with events.
    pub(crate) fn of_events(stream: Stream, events: Events) -> Self {
        Self { stream, layer: Layer::Events(Box::new(events)) }
    }

    /// Its name in metrics and filters.
    pub(crate) fn name(&self) -> &'static str {
        match (&self.layer, &self.stream.tls) {
            (Layer::Nothing, None) => "tcp",
            (Layer::Nothing, Some(_)) => "tls",
            (Layer::WebSocket(_), None) => "ws",
            (Layer::WebSocket(_), Some(_)) => "wss",
            (Layer::Events(_), _) => "sse",
        }
    }

    /// Waits until there is something to read, or room to write, as asked; for room in any case while something that was
    /// taken is unsent.
    pub(crate) async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        let stream = self.stream.ready(if self.has_unsent() { interest | Interest::WRITABLE } else { interest });
        match &self.layer {
            _ if interest.is_readable() && self.has_read() => Ok(Ready::READABLE),
            Layer::Events(events) if interest.is_readable() => tokio::select! {
                ready = stream => ready,
                () = events.woken() => Ok(Ready::READABLE),
            },
            _ => stream.await,
        }
    }

    /// Reads what is there; 0 is the end.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there now, `InvalidData` when the other end broke the rules of a layer.
    pub(crate) fn try_read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match &mut self.layer {
            Layer::Nothing => self.stream.try_read(bytes),
            Layer::WebSocket(websocket) => websocket.try_read(&mut self.stream, bytes),
            Layer::Events(events) => events.try_read(&mut self.stream, bytes),
        }
    }

    /// The same for a session without a task: wakes `context` when there is something to read.
    pub(crate) fn poll_read(&mut self, context: &mut Context<'_>, bytes: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.is_layered() {
            return Pin::new(&mut self.stream.socket).poll_read(context, bytes);
        }
        loop {
            match self.try_read(bytes.initialize_unfilled()) {
                Ok(read) => {
                    bytes.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if must_wait(&error) => ready!(self.poll_more(context))?,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_more(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let more = self.stream.socket.poll_read_ready(context);
        match &self.layer {
            Layer::Events(events) if more.is_pending() => events.poll_posted(context).map(Ok),
            _ => more,
        }
    }

    /// Whether there is something to read that no socket tells of.
    pub(crate) fn has_read(&self) -> bool {
        match &self.layer {
            Layer::Nothing => false,
            Layer::WebSocket(websocket) => websocket.has_read(),
            Layer::Events(events) => events.has_read(),
        }
    }

    /// When there will be something to read whatever happens.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        match &self.layer {
            Layer::Events(events) => Some(events.beat_at()),
            Layer::Nothing | Layer::WebSocket(_) => None,
        }
    }

    /// Wakes `context` when the socket takes more, or is broken.
    pub(crate) fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        self.stream.socket.poll_write_ready(context).map(drop)
    }

    /// Writes as much as is taken now of one slice.
    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_layered() {
            self.try_write_vectored(&[IoSlice::new(bytes)])
        } else {
            self.stream.socket.try_write(bytes)
        }
    }

    /// Writes as much as is taken now. What a layer has taken counts, though some of it may be unsent: no more than one
    /// frame or record of 16 KiB, or the events of as much and one packet.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is taken now.
    pub(crate) fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &mut self.layer {
            Layer::Nothing => self.stream.try_write_vectored(slices),
            Layer::WebSocket(websocket) => websocket.try_write_vectored(&mut self.stream, slices),
            Layer::Events(events) => events.try_write_vectored(&mut self.stream, slices),
        }
    }

    /// Whether there is anything on the socket that has a goodbye of its own.
    pub(crate) fn is_layered(&self) -> bool {
        !matches!(self.layer, Layer::Nothing) || self.stream.tls.is_some()
    }

    /// Whether something that was taken is unsent: then [`Transport::flush`] is to be called when there is room.
    pub(crate) fn has_unsent(&self) -> bool {
        let unsent = match &self.layer {
            Layer::Nothing => false,
            Layer::WebSocket(websocket) => websocket.has_unsent(),
            Layer::Events(events) => events.has_unsent(),
        };
        unsent || self.stream.has_unsent()
    }

    /// Gives the socket what it takes of what is unsent here; says whether it took anything.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        let moved = self.stream.flush()?;
        let moved_on = match &mut self.layer {
            Layer::Nothing => false,
            Layer::WebSocket(websocket) => websocket.flush(&mut self.stream)?,
            Layer::Events(events) => events.flush(&mut self.stream)?,
        };
        Ok(moved || moved_on)
    }

    /// Says in every layer that nothing more comes, and closes. The device gets a moment to read it: what it still sends
    /// is read away, or the system would cut the connection before its last words.
    pub(crate) async fn close(mut self) {
        match &mut self.layer {
            Layer::Nothing => {}
            Layer::WebSocket(websocket) => websocket.say_goodbye(&mut self.stream),
            Layer::Events(events) => events.say_goodbye(&mut self.stream),
        }
        let Stream { mut socket, tls } = self.stream;
        if let Some(mut tls) = tls {
            tls.say_goodbye(&socket);
        }
        if socket.shutdown().await.is_ok() {
            let _ = timeout(LINGER, read_away(&socket)).await;
        }
    }
}

async fn read_away(socket: &TcpStream) {
    let mut left = LINGER_MAX_BYTES;
    while socket.readable().await.is_ok() {
        let mut dust = [0; DUST_BYTES];
        match socket.try_read(&mut dust) {
            Ok(read) if read > 0 && read < left => left -= read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}

/// Whether an operation only has to wait.
fn must_wait(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

fn broken(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// Moves what fits from the front of `kept` to `bytes`; nothing is kept of what is empty.
pub(crate) fn pour(kept: &mut Vec<u8>, bytes: &mut [u8]) -> usize {
    let poured = kept.len().min(bytes.len());
    bytes[..poured].copy_from_slice(&kept[..poured]);
    take_front(kept, poured);
    poured
}

/// Takes bytes away from the front; nothing is kept of what is empty.
pub(crate) fn take_front(kept: &mut Vec<u8>, taken: usize) {
    if taken == kept.len() {
        *kept = Vec::new();
    } else {
        kept.drain(..taken);
    }
}

#[cfg(test)]
mod tests;
