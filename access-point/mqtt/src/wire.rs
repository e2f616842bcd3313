//! Packets as bytes. The only place that names the codec underneath.

mod decode;
mod encode;

use thiserror::Error;

use crate::packet::Reason;

pub use decode::decode;
pub use encode::encode;

/// First byte of a CONNECT packet.
const CONNECT: u8 = 0x10;

/// Bytes of a remaining length at most; a fifth one makes the packet malformed.
const LENGTH_BYTES_MAX: usize = 4;

/// The versions of MQTT that Fanfare speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// MQTT 3.1.1.
    V311,
    /// MQTT 5.
    V5,
}

impl Version {
    /// The name in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V311 => "3.1.1",
            Self::V5 => "5",
        }
    }

    /// The protocol level in CONNECT.
    const fn level(self) -> u8 {
        match self {
            Self::V311 => 4,
            Self::V5 => 5,
        }
    }
}

/// Why bytes are not a packet, or a packet has no bytes. None of these passes by trying again: close the link.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// Its header announces more than is allowed.
    #[error("a packet of {declared} bytes, {max} are allowed")]
    TooLarge {
        /// Bytes announced.
        declared: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Against the protocol.
    #[error("malformed packet: {0}")]
    Malformed(String),
    /// CONNECT of a version that Fanfare does not speak.
    #[error("protocol level {0} is not spoken here")]
    Version(u8),
    /// A packet that Fanfare never asks for: of QoS 2 or of enhanced authentication.
    #[error("unexpected packet: {0}")]
    Unexpected(&'static str),
    /// A value that the protocol has no bytes for.
    #[error("cannot be written: {0}")]
    Unwritable(String),
}

impl Error {
    /// What to tell the other side before closing.
    pub fn reason(&self) -> Reason {
        match self {
            Self::TooLarge { .. } => Reason::TOO_LARGE,
            Self::Malformed(_) => Reason::MALFORMED,
            Self::Version(_) => Reason::UNSUPPORTED_VERSION,
            Self::Unexpected(_) => Reason::PROTOCOL_ERROR,
            Self::Unwritable(_) => Reason::IMPLEMENTATION,
        }
    }
}

/// The length of the frame that `bytes` begin with, header included; `None` while its header is not complete.
///
/// # Errors
/// [`Error::TooLarge`] as soon as the header announces more than `max` bytes, so that nothing is ever allocated for
/// it; [`Error::Malformed`] for a length that is none.
pub fn frame_len(bytes: &[u8], max: usize) -> Result<Option<usize>, Error> {
    let mut remaining = 0;
    for (at, byte) in bytes.iter().skip(1).take(LENGTH_BYTES_MAX).enumerate() {
        remaining |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            let declared = 2 + at + remaining;
            return if declared > max { Err(Error::TooLarge { declared, max }) } else { Ok(Some(declared)) };
        }
    }
    if bytes.len() > LENGTH_BYTES_MAX { Err(Error::Malformed("endless length".into())) } else { Ok(None) }
}

/// The version in a whole CONNECT frame, which must be known before the rest can be decoded.
///
/// # Errors
/// [`Error::Unexpected`] when it is another packet, [`Error::Version`] for a version not spoken here,
/// [`Error::Malformed`] for anything else.
pub fn version_of_connect(frame: &[u8]) -> Result<Version, Error> {
    if frame.first() != Some(&CONNECT) {
        return Err(Error::Unexpected("the first packet must be CONNECT"));
    }
    let header = frame.iter().skip(1).take_while(|byte| **byte & 0x80 != 0).count() + 2;
    let name = frame.get(header..).unwrap_or_default();
    match name {
        [0, 4, b'M', b'Q', b'T', b'T', 4, ..] => Ok(Version::V311),
        [0, 4, b'M', b'Q', b'T', b'T', 5, ..] => Ok(Version::V5),
        [0, 4, b'M', b'Q', b'T', b'T', level, ..] => Err(Error::Version(*level)),
        [0, 6, b'M', b'Q', b'I', b's', b'd', b'p', level, ..] => Err(Error::Version(*level)),
        _ => Err(Error::Malformed("not the protocol's name".into())),
    }
}

#[cfg(test)]
mod tests;
