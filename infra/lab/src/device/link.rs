//! One connection of a device: bytes in, packets out, and back. It owns no buffer while nothing is under way.

use std::io;

use mqtt::{Packet, Version, wire};
use tokio::net::TcpStream;

/// Read at a time, on the stack.
const READ_BYTES: usize = 8 * 1_024;
/// Largest packet a device takes: the platform's largest message with room to spare.
const PACKET_MAX_BYTES: usize = 256 * 1_024;

/// An open socket and what is under way on it.
pub(super) struct Link {
    pub(super) stream: TcpStream,
    version: Version,
    /// The beginning of a packet whose rest has not come.
    partial: Vec<u8>,
    /// What the socket did not take yet: a few acks, for a device answers one packet with at most four bytes.
    unsent: Vec<u8>,
}

impl Link {
    pub(super) fn new(stream: TcpStream, version: Version) -> Self {
        Self { stream, version, partial: Vec::new(), unsent: Vec::new() }
    }

    /// Takes what the socket has, at most one read of it, and shows each whole packet to `take`.
    ///
    /// # Errors
    /// When the other side has closed or sends what is no MQTT: the link is over.
    pub(super) fn read(&mut self, mut take: impl FnMut(Packet)) -> io::Result<()> {
        let mut fresh = [0; READ_BYTES];
        let read = match self.stream.try_read(&mut fresh) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        if self.partial.is_empty() {
            let used = packets(&fresh[..read], self.version, &mut take)?;
            self.partial.extend_from_slice(&fresh[used..read]);
        } else {
            self.partial.extend_from_slice(&fresh[..read]);
            let used = packets(&self.partial, self.version, &mut take)?;
            self.partial.drain(..used);
        }
        if self.partial.is_empty() {
            self.partial = Vec::new();
        }
        Ok(())
    }

    /// Puts a packet behind what is unsent; [`flush`](Self::flush) sends it.
    pub(super) fn push(&mut self, packet: &Packet) -> io::Result<()> {
        wire::encode(packet, self.version, &mut self.unsent).map_err(io::Error::other)
    }

    /// Whether the socket must take more.
    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Gives the socket what it takes now.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.try_write(&self.unsent) {
                Ok(written) => drop(self.unsent.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.unsent = Vec::new();
        Ok(())
    }
}

/// Shows each whole packet in `bytes` to `take` and says how many bytes they were.
fn packets(bytes: &[u8], version: Version, take: &mut impl FnMut(Packet)) -> io::Result<usize> {
    let mut used = 0;
    loop {
        let rest = &bytes[used..];
        match wire::frame_len(rest, PACKET_MAX_BYTES).map_err(io::Error::other)? {
            Some(len) if len <= rest.len() => {
                take(wire::decode(&rest[..len], version).map_err(io::Error::other)?);
                used += len;
            }
            _ => return Ok(used),
        }
    }
}
