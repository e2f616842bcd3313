//! The frames of WebSocket (RFC 6455) as far as MQTT needs them: binary data from a client, in any pieces, pings, and the
//! end. No text, no extensions, no messages: MQTT finds its packets in the bytes.

use thiserror::Error;

/// The end without a reason to complain.
pub(crate) const NORMAL: u16 = 1000;

/// A header that is sent: at most 64 KiB follow it, unmasked.
pub(crate) const HEADER_OUT_MAX_BYTES: usize = 4;

/// The largest frame that is taken: several of the largest packets. It is never kept, so this only ends nonsense early.
const FRAME_IN_MAX_BYTES: u64 = 1024 * 1024;

/// A header that comes in: two bytes, eight of length, four of mask.
const HEADER_IN_MAX_BYTES: usize = 14;

/// The payload of a ping or of the end (RFC 6455, 5.5).
const CONTROL_MAX_BYTES: u64 = 125;

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// How a client broke the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Violation {
    #[error("a frame that is not WebSocket as agreed: {0}")]
    Protocol(&'static str),
    #[error("text, where MQTT is binary")]
    Text,
    #[error("a frame of more than 1 MiB")]
    TooLarge,
}

impl Violation {
    /// What the client is told.
    pub(crate) const fn code(self) -> u16 {
        match self {
            Self::Protocol(_) => 1002,
            Self::Text => 1003,
            Self::TooLarge => 1009,
        }
    }
}

/// What was in some bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decoded {
    /// Bytes of payload, which lie at the front now.
    pub(crate) payload: usize,
    /// Whether the client said that nothing more comes.
    pub(crate) closed: bool,
}

/// Where in the stream of frames we are.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    header: [u8; HEADER_IN_MAX_BYTES],
    header_bytes: u8,
    opcode: u8,
    mask: [u8; 4],
    /// Of the payload of a frame that has begun.
    left: u64,
    /// Whether the next data frame goes on with a message.
    fragmented: bool,
    /// The payload of a control frame that has begun.
    control: Vec<u8>,
}

impl Decoder {
    /// Moves the payload in `bytes` to their front, and puts answers to pings into `answers`. What follows the end is
    /// ignored.
    pub(crate) fn decode(&mut self, bytes: &mut [u8], answers: &mut Vec<u8>) -> Result<Decoded, Violation> {
        let (mut at, mut decoded) = (0, Decoded::default());
        while at < bytes.len() && !decoded.closed {
            if self.left == 0 {
                self.header[usize::from(self.header_bytes)] = bytes[at];
                self.header_bytes += 1;
                at += 1;
                if !self.begin()? {
                    continue;
                }
            } else {
                let part = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - at);
                self.unmask(&mut bytes[at..at + part]);
                if self.opcode < CLOSE {
                    bytes.copy_within(at..at + part, decoded.payload);
                    decoded.payload += part;
                } else {
                    self.control.extend_from_slice(&bytes[at..at + part]);
                }
                at += part;
                self.left -= part as u64;
            }
            if self.left == 0 {
                decoded.closed = self.end(answers);
            }
        }
        Ok(decoded)
    }

    /// Begins a frame if its header is whole.
    fn begin(&mut self) -> Result<bool, Violation> {
        let header = &self.header[..self.header_bytes.into()];
        let [first, second, rest @ ..] = header else { return Ok(false) };
        let (fin, opcode) = (first & FIN != 0, first & 0x0F);
        let extended = match second & 0x7F {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if rest.is_empty() {
            self.check(*first, *second)?;
        }
        if rest.len() < extended + 4 {
            return Ok(false);
        }
        let (len, mask) = rest.split_at(extended);
        self.left = match len.is_empty() {
            true => u64::from(second & 0x7F),
            false => len.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)),
        };
        self.mask.copy_from_slice(mask);
        (self.opcode, self.header_bytes) = (opcode, 0);
        if opcode < CLOSE {
            self.fragmented = !fin;
        }
        if self.left > FRAME_IN_MAX_BYTES { Err(Violation::TooLarge) } else { Ok(true) }
    }

    /// Refuses what can be refused by the first two bytes.
    fn check(&self, first: u8, second: u8) -> Result<(), Violation> {
        let control_fits = first & FIN != 0 && u64::from(second & 0x7F) <= CONTROL_MAX_BYTES;
        match first & 0x0F {
            _ if first & 0x70 != 0 => Err(Violation::Protocol("reserved bits")),
            _ if second & MASKED == 0 => Err(Violation::Protocol("not masked")),
            TEXT => Err(Violation::Text),
            BINARY if !self.fragmented => Ok(()),
            CONTINUATION if self.fragmented => Ok(()),
            CLOSE | PING | PONG if control_fits => Ok(()),
            BINARY | CONTINUATION => Err(Violation::Protocol("fragments out of order")),
            CLOSE | PING | PONG => Err(Violation::Protocol("a control frame in fragments, or too large")),
            _ => Err(Violation::Protocol("an unknown kind")),
        }
    }

    fn unmask(&mut self, bytes: &mut [u8]) {
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte ^= self.mask[at & 3];
        }
        self.mask.rotate_left(bytes.len() & 3);
    }

    /// Answers a control frame that is whole; says whether it was the end.
    fn end(&mut self, answers: &mut Vec<u8>) -> bool {
        let control = std::mem::take(&mut self.control);
        if self.opcode == PING {
            // At most 125 bytes, as checked.
            answers.extend_from_slice(&[FIN | PONG, control.len() as u8]);
            answers.extend_from_slice(&control);
        }
        self.opcode == CLOSE
    }
}

/// The header of a binary frame of up to 64 KiB.
pub(crate) fn binary(payload: usize, header: &mut [u8; HEADER_OUT_MAX_BYTES]) -> &[u8] {
    let [high, low] = u16::try_from(payload).unwrap_or(u16::MAX).to_be_bytes();
    if payload <= CONTROL_MAX_BYTES as usize {
        *header = [FIN | BINARY, low, 0, 0];
        &header[..2]
    } else {
        *header = [FIN | BINARY, 126, high, low];
        header
    }
}

/// Says that nothing more comes.
pub(crate) fn close(code: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(&[FIN | CLOSE, 2]);
    out.extend_from_slice(&code.to_be_bytes());
}

#[cfg(test)]
mod tests;
