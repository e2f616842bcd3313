//! One bit for each device of a block: what expressions are calculated with.

use model::ordinal::BLOCK_WORDS;

/// A set of devices of a block, one bit each: 8 KiB, however many they are.
#[derive(Clone)]
pub(super) struct Bits([u64; BLOCK_WORDS]);

impl Default for Bits {
    fn default() -> Self {
        Self([0; BLOCK_WORDS])
    }
}

/// Where a device's bit is.
const fn place(low: u16) -> (usize, u64) {
    ((low >> 6) as usize, 1 << (low & 63))
}

impl Bits {
    pub(super) fn of(words: [u64; BLOCK_WORDS]) -> Self {
        Self(words)
    }

    pub(super) fn words(&self) -> &[u64; BLOCK_WORDS] {
        &self.0
    }

    pub(super) fn words_mut(&mut self) -> &mut [u64; BLOCK_WORDS] {
        &mut self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub(super) fn len(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    pub(super) fn contains(&self, low: u16) -> bool {
        let (word, bit) = place(low);
        self.0[word] & bit != 0
    }

    /// Adds one; whether it was missing.
    pub(super) fn insert(&mut self, low: u16) -> bool {
        let (word, bit) = place(low);
        let missing = self.0[word] & bit == 0;
        self.0[word] |= bit;
        missing
    }

    /// Takes one out; whether it was there.
    pub(super) fn remove(&mut self, low: u16) -> bool {
        let (word, bit) = place(low);
        let there = self.0[word] & bit != 0;
        self.0[word] &= !bit;
        there
    }

    /// Adds those of `other`.
    pub(super) fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word |= other);
    }

    /// Keeps those of `other`.
    pub(super) fn keep(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word &= other);
    }

    /// Takes those of `other` out.
    pub(super) fn subtract(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word &= !other);
    }

    /// In rising order.
    pub(super) fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        let word_at = |(at, word): (usize, &u64)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros() as u16)?;
                rest &= rest - 1;
                Some((at << 6) as u16 | bit)
            })
        };
        self.0.iter().enumerate().flat_map(word_at)
    }
}
