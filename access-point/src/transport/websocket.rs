//! MQTT over WebSocket: each write is one binary frame, and what comes in is a stream of bytes whatever frames it is cut
//! into. The frames are our own ([`frame`]): what is read is unmasked where it lies and only an unfinished header is
//! kept, so an idle connection has no buffer, and a broadcast can write to it at once. tungstenite is async only and
//! keeps 3.4 KB at its leanest. Compression is not offered: its window alone is more than all the rest of a connection.

pub(crate) mod frame;
pub(crate) mod upgrade;

use std::io::{self, IoSlice};

use self::frame::{Decoder, HEADER_OUT_MAX_BYTES};
use super::{Stream, broken, must_wait, pour, take_front};

/// The largest frame that is sent: with its header it is one record of TLS, and it bounds what is unsent here.
const FRAME_OUT_MAX_BYTES: usize = 16 * 1024 - HEADER_OUT_MAX_BYTES;

/// Slices of one write, with the header.
const SLICES_MAX: usize = 65;

/// Answers to pings that may wait: of several the last one counts (RFC 6455, 5.5.3), so one that does not fit is left out.
const ANSWERS_MAX_BYTES: usize = 1024;

/// The frames on a stream that is kept elsewhere.
#[derive(Debug, Default)]
pub(crate) struct WebSocket {
    decoder: Decoder,
    /// Came behind the request, and is not read.
    early: Vec<u8>,
    /// Framed and not taken by the stream.
    unsent: Vec<u8>,
    /// Why the connection is closed, told in a frame of its own.
    code: Option<u16>,
    /// The other end has said that nothing more comes.
    ended: bool,
}

impl WebSocket {
    pub(crate) fn new(early: Vec<u8>) -> Self {
        Self { early, ..Self::default() }
    }

    pub(crate) fn has_read(&self) -> bool {
        !self.early.is_empty()
    }

    pub(crate) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    pub(crate) fn try_read(&mut self, stream: &mut Stream, bytes: &mut [u8]) -> io::Result<usize> {
        while !self.ended {
            let read = if self.early.is_empty() { stream.try_read(bytes)? } else { pour(&mut self.early, bytes) };
            if read == 0 {
                break;
            }
            let payload = self.decode(&mut bytes[..read])?;
            self.flush(stream)?;
            if payload > 0 {
                return Ok(payload);
            }
        }
        Ok(0)
    }

    /// Leaves the payload at the front of `bytes` and says how long it is.
    fn decode(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut answers = Vec::new();
        let decoded = self.decoder.decode(bytes, &mut answers).map_err(|violation| {
            self.code = Some(violation.code());
            broken(violation)
        })?;
        if self.unsent.len() + answers.len() <= ANSWERS_MAX_BYTES {
            self.unsent.append(&mut answers);
        }
        if decoded.closed {
            self.ended = true;
        }
        Ok(decoded.payload)
    }

    pub(crate) fn try_write_vectored(&mut self, stream: &mut Stream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.flush(stream)?;
        if self.has_unsent() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let (mut header, mut framed) = ([0; HEADER_OUT_MAX_BYTES], [IoSlice::new(&[]); SLICES_MAX]);
        let (mut count, mut payload) = (1, 0);
        for slice in slices.iter().take(SLICES_MAX - 1) {
            let part = slice.len().min(FRAME_OUT_MAX_BYTES - payload);
            framed[count] = IoSlice::new(&slice[..part]);
            (count, payload) = (count + 1, payload + part);
        }
        if payload == 0 {
            return Ok(0);
        }
        framed[0] = IoSlice::new(frame::binary(payload, &mut header));
        let framed = &framed[..count];
        let mut written = stream.try_write_vectored(framed)?;
        // A frame that has begun must be ended: what the stream did not take of it is kept.
        for slice in framed {
            let skipped = written.min(slice.len());
            self.unsent.extend_from_slice(&slice[skipped..]);
            written -= skipped;
        }
        Ok(payload)
    }

    /// Gives the stream what it takes of what is unsent; says whether it took anything.
    pub(crate) fn flush(&mut self, stream: &mut Stream) -> io::Result<bool> {
        let mut moved = false;
        while self.has_unsent() {
            match stream.try_write_vectored(&[IoSlice::new(&self.unsent)]) {
                Ok(written) => take_front(&mut self.unsent, written),
                Err(error) if must_wait(&error) => break,
                Err(error) => return Err(error),
            }
            moved = true;
        }
        Ok(moved)
    }

    /// Tells the other end that nothing more comes and why, if the stream takes that at once.
    pub(crate) fn say_goodbye(&mut self, stream: &mut Stream) {
        frame::close(self.code.unwrap_or(frame::NORMAL), &mut self.unsent);
        let _ = self.flush(stream);
    }
}
