//! A transport and what is under way on it. It owns no buffer while nothing is: bytes are read onto the stack, and only
//! the beginning of an unfinished packet is kept.

mod way;

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    mem::MaybeUninit,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use model::Timestamp;
use mqtt::{Encoded, Packet, Version, wire};
use tokio::{
    io::{Interest, ReadBuf},
    time::Instant,
};

use self::way::Way;
use crate::{bind::Far, close::Close, transport::Transport};

/// Read at a time, on the stack: most packets of devices are a few bytes.
const READ_BYTES: usize = 4 * 1024;

/// Bodies up to this size are copied behind their head: cheaper than another slice of a vectored write.
const COPY_MAX_BYTES: usize = 1024;

/// Slices in one write.
const SLICES_MAX: usize = 64;

/// Unsent bytes beyond which nothing more is read: a device that does not take answers asks no more questions.
const UNSENT_MAX_BYTES: usize = 32 * 1024;

/// A transport and what is under way on it.
#[derive(Debug)]
pub(crate) struct Link {
    way: Way,
    /// Known from CONNECT on.
    version: Option<Version>,
    /// The largest packet the device may send, in bytes.
    pub(crate) packet_max_bytes: usize,
    /// The beginning of a packet whose rest has not come.
    partial: Vec<u8>,
    unsent: VecDeque<Bytes>,
    /// Behind `unsent`, still growing.
    tail: Vec<u8>,
    unsent_bytes: usize,
    /// Something may have come that was not read because too much was unsent: the socket does not tell of it again.
    put_off: bool,
    /// Since when the socket has taken nothing though there is something.
    stalled_since: Option<Instant>,
}

impl Link {
    pub(crate) fn new(transport: Transport, packet_max_bytes: usize) -> Self {
        Self::on(Way::Own(transport), None, packet_max_bytes)
    }

    /// Through the link of another app, on which this version is spoken.
    pub(crate) fn shared(far: Far, version: Version, packet_max_bytes: usize) -> Self {
        Self::on(Way::Shared(far), Some(version), packet_max_bytes)
    }

    fn on(way: Way, version: Option<Version>, packet_max_bytes: usize) -> Self {
        Self {
            way,
            version,
            packet_max_bytes,
            partial: Vec::new(),
            unsent: VecDeque::new(),
            tail: Vec::new(),
            unsent_bytes: 0,
            put_off: false,
            stalled_since: None,
        }
    }

    /// The name of what carries it.
    pub(crate) fn transport(&self) -> &'static str {
        self.way.own().map_or("bound", Transport::name)
    }

    /// What the device speaks; the older version as long as it has not said.
    pub(crate) fn version(&self) -> Version {
        self.version.unwrap_or(Version::V311)
    }

    /// Waits until the socket can be read, or written if something is unsent. Never reads for a device that does not.
    pub(crate) async fn ready(&self) -> io::Result<()> {
        let interest = match self.unsent_bytes {
            0 => Interest::READABLE,
            bytes if bytes < UNSENT_MAX_BYTES => Interest::READABLE | Interest::WRITABLE,
            _ => Interest::WRITABLE,
        };
        self.way.ready(interest).await.map(drop)
    }

    /// Takes what the socket has, at most one read of it, and adds the whole packets in it to `packets`.
    pub(crate) fn read(&mut self, packets: &mut Vec<Packet>) -> Result<(), Close> {
        if self.unsent_bytes >= UNSENT_MAX_BYTES {
            return Ok(());
        }
        let mut fresh = [0; READ_BYTES];
        let read = match self.way.try_read(&mut fresh) {
            Ok(0) => return Err(Close::Lost),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        self.take_in(&fresh[..read], packets)
    }

    /// The same for a connection without a task: wakes `context` when there is something to read. Nothing is read for a
    /// device that does not take what is unsent; [`Link::has_read`] tells when it has.
    pub(crate) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        packets: &mut Vec<Packet>,
    ) -> Poll<Result<(), Close>> {
        self.put_off = self.unsent_bytes >= UNSENT_MAX_BYTES;
        if self.put_off {
            return Poll::Pending;
        }
        let mut fresh = [const { MaybeUninit::uninit() }; READ_BYTES];
        let mut fresh = ReadBuf::uninit(&mut fresh);
        ready!(self.way.poll_read(context, &mut fresh))?;
        Poll::Ready(match fresh.filled() {
            [] => Err(Close::Lost),
            filled => self.take_in(filled, packets),
        })
    }

    fn take_in(&mut self, fresh: &[u8], packets: &mut Vec<Packet>) -> Result<(), Close> {
        if self.partial.is_empty() {
            let used = self.decode(fresh, packets)?;
            self.partial.extend_from_slice(&fresh[used..]);
        } else {
            let mut bytes = std::mem::take(&mut self.partial);
            bytes.extend_from_slice(fresh);
            let used = self.decode(&bytes, packets)?;
            if used < bytes.len() {
                bytes.drain(..used);
                self.partial = bytes;
            }
        }
        Ok(())
    }

    /// Takes the whole packets at the beginning of `bytes` and says how many bytes they were.
    fn decode(&mut self, bytes: &[u8], packets: &mut Vec<Packet>) -> Result<usize, Close> {
        let mut used = 0;
        loop {
            let rest = &bytes[used..];
            let Some(len) = wire::frame_len(rest, self.packet_max_bytes)?.filter(|len| *len <= rest.len()) else {
                return Ok(used);
            };
            let frame = &rest[..len];
            let version = match self.version {
                Some(version) => version,
                None => *self.version.insert(wire::version_of_connect(frame)?),
            };
            packets.push(wire::decode(frame, version)?);
            used += len;
        }
    }

    /// Puts a packet behind what is unsent.
    pub(crate) fn push(&mut self, packet: &Packet) -> Result<(), Close> {
        let before = self.tail.len();
        wire::encode(packet, self.version(), &mut self.tail)?;
        self.unsent_bytes += self.tail.len() - before;
        Ok(())
    }

    /// Puts a whole packet of another session behind what is unsent.
    pub(crate) fn push_bytes(&mut self, packet: &[u8]) {
        self.tail.extend_from_slice(packet);
        self.unsent_bytes += packet.len();
    }

    /// Whether it goes through the link of another app.
    pub(crate) fn is_shared(&self) -> bool {
        self.way.own().is_none()
    }

    /// Tells the link that it goes through why it ends; false when it goes through none.
    pub(crate) fn tell_over(&self, why: &'static str) -> bool {
        if let Way::Shared(far) = &self.way {
            far.over(why);
        }
        self.is_shared()
    }

    /// Puts a message behind what is unsent; a large body is shared, not copied.
    pub(crate) fn push_message(&mut self, message: &Encoded, packet_id: u16, dup: bool, now: Timestamp) {
        message.write_head(packet_id, dup, now, &mut self.tail);
        self.unsent_bytes += message.len();
        if message.body().len() <= COPY_MAX_BYTES {
            self.tail.extend_from_slice(message.body());
        } else {
            self.unsent.push_back(std::mem::take(&mut self.tail).into());
            self.unsent.push_back(message.body().clone());
        }
    }

    /// Bytes that the socket has not taken.
    pub(crate) fn unsent_bytes(&self) -> usize {
        self.unsent_bytes
    }

    /// Since when the socket has taken nothing though there is something.
    pub(crate) fn stalled_since(&self) -> Option<Instant> {
        self.stalled_since
    }

    /// Lends it a buffer to write into.
    pub(crate) fn lend(&mut self, mut buffer: Vec<u8>) {
        buffer.extend_from_slice(&self.tail);
        self.tail = buffer;
    }

    /// Gives the buffer back; what is unsent is kept elsewhere.
    pub(crate) fn give_back(&mut self) -> Vec<u8> {
        let mut buffer = std::mem::take(&mut self.tail);
        if !buffer.is_empty() {
            self.unsent.push_back(Bytes::copy_from_slice(&buffer));
            buffer.clear();
        }
        buffer
    }

    /// Gives the transport what it takes now, as much as possible in one write.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.way.has_unsent() && self.way.flush()? {
            self.stalled_since = None;
        }
        while self.unsent_bytes > 0 {
            let written = if self.unsent.is_empty() {
                self.way.try_write(&self.tail)
            } else {
                let parts = self.unsent.iter().map(|part| &part[..]).chain([&self.tail[..]]);
                let slices: Vec<IoSlice<'_>> = parts.take(SLICES_MAX).map(IoSlice::new).collect();
                self.way.try_write_vectored(&slices)
            };
            match written {
                Ok(written) => self.sent(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if self.has_unsent() {
            self.stalled_since.get_or_insert_with(Instant::now);
        } else {
            // The transport may have got rid of the last of it by itself.
            self.stalled_since = None;
        }
        Ok(())
    }

    /// Whether the socket has yet to take something, be it in the transport's hands.
    pub(crate) fn has_unsent(&self) -> bool {
        self.unsent_bytes > 0 || self.way.has_unsent()
    }

    /// Whether there is, or may be, something to read that no socket tells of.
    pub(crate) fn has_read(&self) -> bool {
        (self.put_off && self.unsent_bytes < UNSENT_MAX_BYTES) || self.way.has_read()
    }

    /// When there will be something to read whatever happens.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.way.wake_at()
    }

    /// Waits, without a task, until the socket takes more; only of use while something is unsent.
    pub(crate) fn poll_flushable(&self, context: &mut Context<'_>) -> Poll<()> {
        self.way.poll_write_ready(context)
    }

    /// Says the last words and closes; the device gets a moment to read them.
    pub(crate) async fn close(mut self, last: &[Packet]) {
        for packet in last {
            let _ = self.push(packet);
        }
        let said = self.flush().is_ok() && self.stalled_since.is_none();
        if let Way::Own(transport) = self.way
            && said
            && (!last.is_empty() || transport.is_layered())
        {
            transport.close().await;
        }
    }

    fn sent(&mut self, mut written: usize) {
        self.stalled_since = None;
        self.unsent_bytes -= written;
        while let Some(part) = self.unsent.front_mut() {
            if part.len() > written {
                bytes::Buf::advance(part, written);
                return;
            }
            written -= part.len();
            self.unsent.pop_front();
        }
        self.unsent = VecDeque::new();
        self.tail.drain(..written);
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Waker};

    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::transport::Stream;

    #[tokio::test]
    async fn a_read_that_was_put_off_is_made_up_for_when_the_device_has_taken_what_was_unsent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut device = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        let mut link = Link::new(Stream::plain(socket).into(), 1_024);
        while link.unsent_bytes() < UNSENT_MAX_BYTES {
            link.push_bytes(&[0; 2 * UNSENT_MAX_BYTES]);
            link.flush().unwrap();
        }
        let read = |link: &mut Link| link.poll_read(&mut Context::from_waker(Waker::noop()), &mut Vec::new());
        assert!(read(&mut link).is_pending());
        assert!(!link.has_read(), "as long as the device takes nothing");
        tokio::spawn(async move { tokio::io::copy(&mut device, &mut tokio::io::sink()).await });
        while link.has_unsent() {
            poll_fn(|context| link.poll_flushable(context)).await;
            link.flush().unwrap();
        }
        assert!(link.has_read());
        let _ = read(&mut link);
        assert!(!link.has_read(), "the socket tells of it again");
    }
}
