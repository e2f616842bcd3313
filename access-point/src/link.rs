//! A socket and what is under way on it. It owns no buffer while nothing is: bytes are read onto the stack, and only
//! the beginning of an unfinished packet is kept.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    mem::MaybeUninit,
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use model::Timestamp;
use mqtt::{Encoded, Packet, Version, wire};
use tokio::{
    io::{AsyncRead as _, Interest, ReadBuf},
    net::TcpStream,
    time::{Duration, Instant, timeout},
};

use crate::close::Close;

/// Read at a time, on the stack: most packets of devices are a few bytes.
const READ_BYTES: usize = 4 * 1024;

/// Bodies up to this size are copied behind their head: cheaper than another slice of a vectored write.
const COPY_MAX_BYTES: usize = 1024;

/// Slices in one write.
const SLICES_MAX: usize = 64;

/// Unsent bytes beyond which nothing more is read: a device that does not take answers asks no more questions.
const UNSENT_MAX_BYTES: usize = 32 * 1024;

/// How long, and for how many bytes, the last words wait for the device to have read them.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_MAX_BYTES: usize = 64 * 1024;

/// A socket and what is under way on it.
#[derive(Debug)]
pub(crate) struct Link {
    stream: TcpStream,
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
    /// Since when the socket has taken nothing though there is something.
    stalled_since: Option<Instant>,
}

impl Link {
    pub(crate) fn new(stream: TcpStream, packet_max_bytes: usize) -> Self {
        Self {
            stream,
            version: None,
            packet_max_bytes,
            partial: Vec::new(),
            unsent: VecDeque::new(),
            tail: Vec::new(),
            unsent_bytes: 0,
            stalled_since: None,
        }
    }

    /// The address at the other end; `None` when the link is over.
    pub(crate) fn peer(&self) -> Option<IpAddr> {
        self.stream.peer_addr().ok().map(|address| address.ip())
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
        self.stream.ready(interest).await.map(drop)
    }

    /// Takes what the socket has, at most one read of it, and adds the whole packets in it to `packets`.
    pub(crate) fn read(&mut self, packets: &mut Vec<Packet>) -> Result<(), Close> {
        if self.unsent_bytes >= UNSENT_MAX_BYTES {
            return Ok(());
        }
        let mut fresh = [0; READ_BYTES];
        let read = match self.stream.try_read(&mut fresh) {
            Ok(0) => return Err(Close::Lost),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        self.take_in(&fresh[..read], packets)
    }

    /// The same for a connection without a task: wakes `context` when there is something to read. Nothing is read for a
    /// device that does not take what is unsent.
    pub(crate) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        packets: &mut Vec<Packet>,
    ) -> Poll<Result<(), Close>> {
        if self.unsent_bytes >= UNSENT_MAX_BYTES {
            return Poll::Pending;
        }
        let mut fresh = [const { MaybeUninit::uninit() }; READ_BYTES];
        let mut fresh = ReadBuf::uninit(&mut fresh);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut fresh))?;
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

    /// Gives the socket what it takes now, as much as possible in one write.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while self.unsent_bytes > 0 {
            let written = if self.unsent.is_empty() {
                self.stream.try_write(&self.tail)
            } else {
                let parts = self.unsent.iter().map(|part| &part[..]).chain([&self.tail[..]]);
                let slices: Vec<IoSlice<'_>> = parts.take(SLICES_MAX).map(IoSlice::new).collect();
                self.stream.try_write_vectored(&slices)
            };
            match written {
                Ok(written) => self.sent(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stalled_since.get_or_insert_with(Instant::now);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits, without a task, until the socket takes more; only of use while something is unsent.
    pub(crate) fn poll_flushable(&self, context: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_write_ready(context).map(drop)
    }

    /// Says the last words and closes. The device gets a moment to read them: what it still sends is read away, or
    /// the system would cut the connection before them.
    pub(crate) async fn close(mut self, last: &[Packet]) {
        for packet in last {
            let _ = self.push(packet);
        }
        let said = !last.is_empty() && self.flush().is_ok() && self.unsent_bytes == 0;
        if !said {
            return;
        }
        let mut stream = self.stream;
        if tokio::io::AsyncWriteExt::shutdown(&mut stream).await.is_ok() {
            let _ = timeout(LINGER, read_away(&stream)).await;
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

async fn read_away(stream: &TcpStream) {
    let mut left = LINGER_MAX_BYTES;
    while stream.readable().await.is_ok() {
        let mut dust = [0; READ_BYTES];
        match stream.try_read(&mut dust) {
            Ok(read) if read > 0 && read < left => left -= read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}
