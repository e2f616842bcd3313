//! TLS on a socket. It drives rustls' unbuffered interface, where the caller owns the bytes: what is read lies on the
//! stack, and only the beginning of an unfinished record is kept, so an idle connection has its keys and no buffer. Who
//! the server is comes from [`crate::certificates`].

use std::{
    io::{self, IoSlice},
    sync::Arc,
};

use rustls::{
    ServerConfig,
    server::UnbufferedServerConnection,
    unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic},
};
use tokio::{io::Interest, net::TcpStream};

use super::{broken, must_wait, pour, take_front};

/// Read at a time, on the stack: most packets of devices are a few bytes.
const READ_BYTES: usize = 4 * 1024;

/// The largest record on the wire (RFC 8446 and RFC 5246): more than that never waits for its end.
const WIRE_RECORD_MAX_BYTES: usize = 16 * 1024 + 2 * 1024 + 5;

/// Encrypted at a time: what one record holds.
const RECORD_MAX_BYTES: usize = 16 * 1024;

/// What encryption adds to a record, generously: header, type, nonce and tag.
const OVERHEAD_BYTES: usize = 64;

/// TLS on a socket that is kept elsewhere.
pub(crate) struct Tls {
    session: UnbufferedServerConnection,
    /// The beginning of a record whose rest has not come.
    partial: Vec<u8>,
    /// Decrypted and not read: of one read, so at most a record and what came behind it.
    plain: Vec<u8>,
    /// Encrypted and not taken by the socket.
    unsent: Vec<u8>,
    /// Nothing more comes.
    ended: bool,
}

/// What is to be done once the session may send.
#[derive(Clone, Copy)]
enum Then<'a> {
    Nothing,
    Seal(&'a [u8]),
    SayGoodbye,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("unsent", &self.unsent.len()).field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Tls {
    /// Agrees on TLS with a device. It has no deadline of its own.
    pub(crate) async fn accept(socket: &TcpStream, config: Arc<ServerConfig>) -> io::Result<Self> {
        let session = UnbufferedServerConnection::new(config).map_err(broken)?;
        let (partial, plain, unsent) = (Vec::new(), Vec::new(), Vec::new());
        let mut tls = Self { session, partial, plain, unsent, ended: false };
        while tls.session.is_handshaking() || tls.has_unsent() {
            let room = if tls.has_unsent() { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
            socket.ready(room).await?;
            match tls.receive(socket) {
                Ok(()) if tls.ended => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(()) => {}
                Err(error) if must_wait(&error) => {}
                Err(error) => return Err(error),
            }
            tls.flush(socket)?;
        }
        Ok(tls)
    }

    /// Bytes of memory that its buffers hold.
    #[cfg(test)]
    pub(super) fn buffers(&self) -> usize {
        self.partial.capacity() + self.plain.capacity() + self.unsent.capacity()
    }

    pub(crate) fn has_read(&self) -> bool {
        !self.plain.is_empty()
    }

    pub(crate) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    pub(crate) fn first_byte(&mut self, socket: &TcpStream) -> io::Result<Option<u8>> {
        while self.plain.is_empty() && !self.ended {
            self.receive(socket)?;
        }
        Ok(self.plain.first().copied())
    }

    pub(crate) fn try_read(&mut self, socket: &TcpStream, bytes: &mut [u8]) -> io::Result<usize> {
        while self.plain.is_empty() {
            if self.ended {
                return Ok(0);
            }
            self.receive(socket)?;
        }
        Ok(pour(&mut self.plain, bytes))
    }

    pub(crate) fn try_write_vectored(&mut self, socket: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.flush(socket)?;
        if self.has_unsent() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut bytes = Vec::with_capacity(slices.iter().map(|slice| slice.len()).sum::<usize>().min(RECORD_MAX_BYTES));
        for slice in slices {
            bytes.extend_from_slice(&slice[..slice.len().min(RECORD_MAX_BYTES - bytes.len())]);
        }
        self.turn(Then::Seal(&bytes))?;
        self.flush(socket)?;
        Ok(bytes.len())
    }

    /// Gives the socket what it takes of what is unsent; says whether it took anything.
    pub(crate) fn flush(&mut self, socket: &TcpStream) -> io::Result<bool> {
        let mut moved = false;
        while self.has_unsent() {
            match socket.try_write(&self.unsent) {
                Ok(written) => take_front(&mut self.unsent, written),
                Err(error) if must_wait(&error) => break,
                Err(error) => return Err(error),
            }
            moved = true;
        }
        Ok(moved)
    }

    /// Tells the device that nothing more comes, if the socket takes that at once.
    pub(crate) fn say_goodbye(&mut self, socket: &TcpStream) {
        let _ = self.turn(Then::SayGoodbye).and_then(|()| self.flush(socket));
    }

    /// Takes what the socket has, at most one read of it.
    fn receive(&mut self, socket: &TcpStream) -> io::Result<()> {
        let mut fresh = [0; READ_BYTES];
        let read = socket.try_read(&mut fresh)?;
        if read == 0 {
            self.ended = true;
            return Ok(());
        }
        let fresh = &mut fresh[..read];
        let outcome = if self.partial.is_empty() {
            self.advance(fresh, Then::Nothing).map(|used| self.partial.extend_from_slice(&fresh[used..]))
        } else {
            self.partial.extend_from_slice(fresh);
            self.turn(Then::Nothing)
        };
        match outcome {
            Ok(()) if self.partial.len() > WIRE_RECORD_MAX_BYTES => Err(broken("a record without an end")),
            Ok(()) => self.flush(socket).map(drop),
            Err(error) => {
                // The alert that says what was wrong.
                let _ = self.turn(Then::Nothing).and_then(|()| self.flush(socket));
                Err(error)
            }
        }
    }

    /// Goes on with what is kept of the records that have begun.
    fn turn(&mut self, then: Then<'_>) -> io::Result<()> {
        let mut partial = std::mem::take(&mut self.partial);
        let used = self.advance(&mut partial, then)?;
        take_front(&mut partial, used);
        self.partial = partial;
        Ok(())
    }

    /// Deals with the whole records at the beginning of `incoming` and says how many bytes they were; then with what the
    /// session itself has to say, and with what is to be said.
    fn advance(&mut self, incoming: &mut [u8], mut then: Then<'_>) -> io::Result<usize> {
        let mut used = 0;
        loop {
            let UnbufferedStatus { discard, state } = self.session.process_tls_records(&mut incoming[used..]);
            used += discard;
            match state.map_err(broken)? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(broken)?;
                        used += record.discard;
                        self.plain.extend_from_slice(record.payload);
                    }
                }
                ConnectionState::EncodeTlsData(mut data) => encode(&mut data, &mut self.unsent)?,
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::PeerClosed => self.ended = true,
                ConnectionState::WriteTraffic(mut traffic) => match std::mem::replace(&mut then, Then::Nothing) {
                    Then::Nothing => return Ok(used),
                    Then::Seal(bytes) => seal(&mut self.unsent, bytes.len(), |room| traffic.encrypt(bytes, room))?,
                    Then::SayGoodbye => say_goodbye(&mut traffic, &mut self.unsent)?,
                },
                ConnectionState::BlockedHandshake | ConnectionState::Closed => match then {
                    Then::Seal(_) => return Err(io::ErrorKind::NotConnected.into()),
                    Then::Nothing | Then::SayGoodbye => return Ok(used),
                },
                _ => return Err(broken("early data, which is not offered")),
            }
        }
    }
}

fn say_goodbye<D>(traffic: &mut WriteTraffic<'_, D>, unsent: &mut Vec<u8>) -> io::Result<()> {
    seal(unsent, 0, |room| traffic.queue_close_notify(room))
}

/// Encrypts behind what is unsent.
fn seal(
    unsent: &mut Vec<u8>,
    bytes: usize,
    mut encrypt: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
) -> io::Result<()> {
    let before = unsent.len();
    let mut room = bytes + OVERHEAD_BYTES;
    loop {
        unsent.resize(before + room, 0);
        match encrypt(&mut unsent[before..]) {
            Ok(written) => {
                unsent.truncate(before + written);
                return Ok(());
            }
            Err(EncryptError::InsufficientSize(more)) if more.required_size > room => room = more.required_size,
            Err(error) => return Err(broken(error)),
        }
    }
}

/// Puts a message of the protocol behind what is unsent.
fn encode<D>(data: &mut EncodeTlsData<'_, D>, unsent: &mut Vec<u8>) -> io::Result<()> {
    let (before, mut room) = (unsent.len(), 0);
    loop {
        unsent.resize(before + room, 0);
        match data.encode(&mut unsent[before..]) {
            Ok(written) => {
                unsent.truncate(before + written);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(more)) if more.required_size > room => room = more.required_size,
            Err(error) => return Err(broken(error)),
        }
    }
}
