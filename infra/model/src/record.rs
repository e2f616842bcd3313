//! How values are written down: one version byte, then MessagePack with named fields, which a reader of another
//! version can still take apart.

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// Room for most records, so that writing one does not move it again and again.
const USUAL_BYTES: usize = 512;

/// Why bytes could not be read.
#[derive(Debug, Error)]
pub enum Unreadable {
    /// Written by a version this build does not know: keep it for one that does.
    #[error("written in version {0}, which this build does not read")]
    Version(u8),
    /// Not what it should be, in any version.
    #[error("not a record: {0}")]
    Malformed(String),
}

/// A value that is kept or sent: its layout is known by one version byte.
pub trait Record: Serialize + DeserializeOwned {
    /// The version this build writes. Readers take this one and the one before.
    const VERSION: u8;

    /// The version that this value is written in: an earlier one when that says all of it, so that whoever knows only
    /// that one can read it.
    fn version(&self) -> u8 {
        Self::VERSION
    }

    /// The bytes, version first.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(USUAL_BYTES);
        bytes.push(self.version());
        #[expect(clippy::expect_used, reason = "our types are maps of plain values, and a Vec takes any bytes")]
        rmp_serde::encode::write_named(&mut bytes, self).expect("plain values always encode");
        bytes
    }

    /// Reads what [`encode`](Record::encode) wrote, in this version or the one before.
    ///
    /// # Errors
    /// [`Unreadable::Version`] for a version outside these two, [`Unreadable::Malformed`] for anything else.
    fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let (&version, body) = bytes.split_first().ok_or_else(|| Unreadable::Malformed("empty".into()))?;
        if version != Self::VERSION && version.checked_add(1) != Some(Self::VERSION) {
            return Err(Unreadable::Version(version));
        }
        Self::decode_version(version, body)
    }

    /// Reads the body of a readable version; a type whose layout changed tells its versions apart here.
    ///
    /// # Errors
    /// [`Unreadable::Malformed`] when the body is not that version's.
    fn decode_version(_version: u8, body: &[u8]) -> Result<Self, Unreadable> {
        rmp_serde::from_slice(body).map_err(|error| Unreadable::Malformed(error.to_string()))
    }
}
