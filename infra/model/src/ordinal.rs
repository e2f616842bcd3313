//! Devices as small numbers, and sets of them as compressed bitmaps.

use std::{fmt, ops};

use roaring::RoaringBitmap;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A device's number in its app: dense, given at registration, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ordinal(pub u32);

impl fmt::Debug for Ordinal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// Words of one bit a device that a block of 65,536 devices takes.
pub const BLOCK_WORDS: usize = 1 << 10;

/// A set of devices of one app. Serialised in the portable Roaring format.
#[derive(Clone, Default, PartialEq)]
pub struct Ordinals(RoaringBitmap);

impl Ordinals {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many devices are in the set.
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether nobody is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this device is in the set.
    pub fn contains(&self, ordinal: Ordinal) -> bool {
        self.0.contains(ordinal.0)
    }

    /// Adds a device; false when it was there already.
    pub fn insert(&mut self, ordinal: Ordinal) -> bool {
        self.0.insert(ordinal.0)
    }

    /// Takes a device out; false when it was not there.
    pub fn remove(&mut self, ordinal: Ordinal) -> bool {
        self.0.remove(ordinal.0)
    }

    /// Adds the devices of one block of 65,536, whose first is `block << 16`: bit `n` of the words is the block's `n`th.
    pub fn add_block(&mut self, block: u16, words: &[u64; BLOCK_WORDS]) {
        let mut bytes = [0; BLOCK_WORDS * 8];
        for (bytes, word) in bytes.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        self.0 |= RoaringBitmap::from_lsb0_bytes(u32::from(block) << 16, &bytes);
    }

    /// Keeps only devices registered before the registry's count was `count`.
    pub fn below(mut self, count: u32) -> Self {
        self.0.remove_range(count..);
        self
    }

    /// The devices in rising order.
    pub fn iter(&self) -> impl Iterator<Item = Ordinal> + '_ {
        self.0.iter().map(Ordinal)
    }

    /// The devices after `after` (or all), in rising order: for pages.
    pub fn iter_after(&self, after: Option<Ordinal>) -> impl Iterator<Item = Ordinal> + '_ {
        let start = after.map_or(Some(0), |last| last.0.checked_add(1));
        start.into_iter().flat_map(|start| self.0.range(start..)).map(Ordinal)
    }

    /// How many devices are in both sets.
    pub fn common(&self, other: &Self) -> u64 {
        self.0.intersection_len(&other.0)
    }

    /// The set in its smallest form: long runs become ranges.
    pub fn compact(mut self) -> Self {
        self.0.optimize();
        self
    }

    /// How many bytes [`to_bytes`](Self::to_bytes) gives; about what the set takes in memory.
    pub fn bytes_len(&self) -> usize {
        self.0.serialized_size()
    }

    /// The portable Roaring bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.bytes_len());
        #[expect(clippy::expect_used, reason = "writing to a Vec cannot fail")]
        self.0.serialize_into(&mut bytes).expect("writing to a Vec cannot fail");
        bytes
    }

    /// Reads the portable Roaring bytes; `None` when they are not that.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        RoaringBitmap::deserialize_from(bytes).ok().map(Self)
    }
}

impl fmt::Debug for Ordinals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.len() > 16 { write!(f, "{} devices", self.len()) } else { f.debug_set().entries(self.iter()).finish() }
    }
}

impl FromIterator<Ordinal> for Ordinals {
    fn from_iter<I: IntoIterator<Item = Ordinal>>(ordinals: I) -> Self {
        Self(ordinals.into_iter().map(|ordinal| ordinal.0).collect())
    }
}

impl Extend<Ordinal> for Ordinals {
    fn extend<I: IntoIterator<Item = Ordinal>>(&mut self, ordinals: I) {
        self.0.extend(ordinals.into_iter().map(|ordinal| ordinal.0));
    }
}

impl ops::BitOrAssign<&Self> for Ordinals {
    fn bitor_assign(&mut self, other: &Self) {
        self.0 |= &other.0;
    }
}

impl ops::BitAndAssign<&Self> for Ordinals {
    fn bitand_assign(&mut self, other: &Self) {
        self.0 &= &other.0;
    }
}

impl ops::SubAssign<&Self> for Ordinals {
    fn sub_assign(&mut self, other: &Self) {
        self.0 -= &other.0;
    }
}

impl Serialize for Ordinals {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.to_bytes())
    }
}

impl<'de> Deserialize<'de> for Ordinals {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = bytes::Bytes::deserialize(deserializer)?;
        Self::from_bytes(&bytes).ok_or_else(|| D::Error::custom("not a Roaring bitmap"))
    }
}
