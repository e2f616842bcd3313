//! A set of devices of a block, as small as it can be: a container of a roaring bitmap.
//!
//! The library that handles whole bitmaps does not hand out their containers, and the index calculates with them.

use super::bits::Bits;

/// Most devices that are listed one by one: from here on a bit for each of the block takes less.
pub(super) const FEW_MAX: usize = 4_096;
/// A set that shrinks to this many is listed again: well below, so that none goes to and fro at the edge.
const FEW_AGAIN: usize = FEW_MAX / 2;

/// A set of devices of a block.
#[derive(Clone)]
pub(super) enum Set {
    /// In rising order.
    Few(Vec<u16>),
    /// One bit each.
    Many(Box<Counted>),
}

/// Bits, and how many of them are set.
#[derive(Clone)]
pub(super) struct Counted {
    bits: Bits,
    len: usize,
}

impl Default for Set {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl From<Bits> for Set {
    fn from(bits: Bits) -> Self {
        match bits.len() as usize {
            0..=FEW_MAX => Self::Few(bits.iter().collect()),
            len => Self::Many(Box::new(Counted { bits, len })),
        }
    }
}

impl Counted {
    pub(super) fn bits(&self) -> &Bits {
        &self.bits
    }
}

impl Set {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Few(few) => few.len(),
            Self::Many(many) => many.len,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds one that may be there already.
    pub(super) fn insert(&mut self, low: u16) {
        match self {
            Self::Few(few) => {
                if few.last().is_none_or(|last| *last < low) {
                    few.push(low);
                } else if let Err(at) = few.binary_search(&low) {
                    few.insert(at, low);
                }
                if few.len() > FEW_MAX {
                    let mut bits = Bits::default();
                    few.iter().for_each(|low| _ = bits.insert(*low));
                    *self = Self::from(bits);
                }
            }
            Self::Many(many) => many.len += usize::from(many.bits.insert(low)),
        }
    }

    /// Takes one out that may be gone already.
    pub(super) fn remove(&mut self, low: u16) {
        match self {
            Self::Few(few) => _ = few.binary_search(&low).map(|at| few.remove(at)),
            Self::Many(many) => {
                many.len -= usize::from(many.bits.remove(low));
                if many.len <= FEW_AGAIN {
                    *self = Self::Few(many.bits.iter().collect());
                }
            }
        }
    }

    /// Adds them all to `all`.
    pub(super) fn add_to(&self, all: &mut Bits) {
        match self {
            Self::Few(few) => few.iter().for_each(|low| _ = all.insert(*low)),
            Self::Many(many) => all.add(&many.bits),
        }
    }

    /// Leaves only these among the candidates.
    pub(super) fn narrow(&self, candidates: &mut Bits) {
        match self {
            Self::Few(few) => {
                let mut kept = Bits::default();
                few.iter().filter(|low| candidates.contains(**low)).for_each(|low| _ = kept.insert(*low));
                *candidates = kept;
            }
            Self::Many(many) => candidates.keep(&many.bits),
        }
    }

    /// Leaves none of these among the candidates.
    pub(super) fn exclude(&self, candidates: &mut Bits) {
        match self {
            Self::Few(few) => few.iter().for_each(|low| _ = candidates.remove(*low)),
            Self::Many(many) => candidates.subtract(&many.bits),
        }
    }

    /// In rising order, if they are few enough to be listed.
    pub(super) fn listed(&self) -> Option<Box<dyn Iterator<Item = u16> + '_>> {
        match self {
            Self::Few(few) => Some(Box::new(few.iter().copied())),
            Self::Many(many) if many.len <= FEW_MAX => Some(Box::new(many.bits.iter())),
            Self::Many(_) => None,
        }
    }

    /// What it takes in memory besides itself.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Few(few) => few.capacity() * size_of::<u16>(),
            Self::Many(_) => size_of::<Counted>(),
        }
    }
}
