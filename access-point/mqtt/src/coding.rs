//! Bodies made smaller for devices that can undo it (`enc=zstd,gzip`), and made whole again. The only place that names
//! the compressors.

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use thiserror::Error;

/// Bodies up to this size stay as they are: little would be won, and a device would have to undo it.
const WORTH_IT_BYTES: usize = 512;

/// What the property takes that says how a body is packed.
const PROPERTY_BYTES: usize = 25;

/// Both compressors as their makers would have them: stronger ones win a few bytes of a small body for much more work.
const ZSTD_LEVEL: i32 = 3;
const GZIP_LEVEL: u32 = 6;

/// A way to pack bodies, by the names that HTTP has for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coding {
    /// `zstd`: the smallest head, and the least work.
    Zstd,
    /// `gzip`: what every platform can undo.
    Gzip,
}

/// A packed body that cannot be made whole, or would be larger than allowed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not a body packed by {}, or larger than allowed", .0.as_str())]
pub struct Unpackable(pub Coding);

impl Coding {
    /// All of them, the best first.
    pub const ALL: [Self; 2] = [Self::Zstd, Self::Gzip];

    /// The name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }

    /// The best of those that a device offers, by name and with commas between them; others may be known to a newer
    /// server.
    pub fn best_of(offered: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|coding| offered.split(',').any(|name| name.trim() == coding.as_str()))
    }

    /// Packs a body; `None` when it is better sent as it is.
    pub fn pack(self, body: &[u8]) -> Option<Bytes> {
        if body.len() <= WORTH_IT_BYTES {
            return None;
        }
        let packed = match self {
            Self::Zstd => zstd::bulk::compress(body, ZSTD_LEVEL).ok()?,
            Self::Gzip => {
                let mut gzip = GzEncoder::new(Vec::new(), Compression::new(GZIP_LEVEL));
                gzip.write_all(body).ok()?;
                gzip.finish().ok()?
            }
        };
        (packed.len() + PROPERTY_BYTES < body.len()).then(|| packed.into())
    }

    /// Makes a body whole again that is `max` bytes at most: nothing is allocated beyond.
    ///
    /// # Errors
    /// [`Unpackable`]; trying again is of no use.
    pub fn unpack(self, packed: &[u8], max: usize) -> Result<Bytes, Unpackable> {
        let whole = match self {
            Self::Zstd => zstd::bulk::decompress(packed, max).map_err(|_| Unpackable(self))?,
            Self::Gzip => {
                let (mut whole, one_more) = (Vec::new(), max as u64 + 1);
                GzDecoder::new(packed).take(one_more).read_to_end(&mut whole).map_err(|_| Unpackable(self))?;
                whole
            }
        };
        if whole.len() > max { Err(Unpackable(self)) } else { Ok(whole.into()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// As products send: the same names again and again.
    fn json(items: usize) -> String {
        let item = |n| format!(r#"{{"order_id":"ord-{n:06}","status":"shipped","city":"Shenzhen"}}"#);
        format!("[{}]", (0..items).map(item).collect::<Vec<_>>().join(","))
    }

    #[test]
    fn the_best_that_a_device_offers_is_taken() {
        assert_eq!(Coding::best_of("gzip,zstd"), Some(Coding::Zstd));
        assert_eq!(Coding::best_of("br, gzip"), Some(Coding::Gzip));
        assert_eq!(Coding::best_of("br"), None);
        assert_eq!(Coding::best_of(""), None);
    }

    #[test]
    fn what_is_small_or_does_not_shrink_stays_as_it_is() {
        let noise: Vec<u8> = (0..2_000).map(|_| rand::random()).collect();
        for coding in Coding::ALL {
            assert_eq!(coding.pack(&[b'x'; WORTH_IT_BYTES]), None);
            assert_eq!(coding.pack(&noise), None);
            let body = json(20);
            let packed = coding.pack(body.as_bytes()).unwrap();
            assert!(packed.len() * 3 < body.len(), "{}: {} of {}", coding.as_str(), packed.len(), body.len());
        }
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_large() {
        let bomb = vec![0; 64 * 1024 * 1024];
        for coding in Coding::ALL {
            let packed = coding.pack(&bomb).unwrap();
            assert_eq!(coding.unpack(&packed, 1_000_000), Err(Unpackable(coding)));
            assert_eq!(coding.unpack(b"neither", 1_000), Err(Unpackable(coding)));
        }
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_back(words in vec("[a-f]{1,6}", 200..1_000)) {
            let body = words.join(" ");
            for coding in Coding::ALL {
                let packed = coding.pack(body.as_bytes()).unwrap();
                let whole = coding.unpack(&packed, body.len()).unwrap();
                prop_assert_eq!(&whole[..], body.as_bytes());
                prop_assert_eq!(coding.unpack(&packed, body.len() - 1), Err(Unpackable(coding)));
            }
        }
    }
}
