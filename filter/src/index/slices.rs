//! Numbers of devices of a block, kept by their bits, so that a range is found without looking at any number.
//!
//! A slice is one bit of everybody's number. Comparing with a bound goes from the greatest slice to the least, 512
//! devices at a time, and stops as soon as nobody of them is still equal to the bound: after about ten slices, however
//! many there are. The slices of 512 devices lie side by side, a cache line each.

use std::ops::RangeInclusive;

use super::bits::Bits;

/// Words of a slice that lie together: a cache line.
const LINE_WORDS: usize = 8;
/// Lines of a slice.
pub(super) const LINES: usize = model::ordinal::BLOCK_WORDS / LINE_WORDS;

/// One bit of the numbers of 512 devices.
type Line = [u64; LINE_WORDS];

/// Most numbers that are listed: sliced, they would take up to 512 KiB, and these take 64.
const FEW_MAX: usize = 4_096;
/// Numbers that became this few are listed again: well below, so that none goes to and fro at the edge.
const FEW_AGAIN: usize = FEW_MAX / 2;

/// At most one number for each device of a block.
#[derive(Clone)]
pub(super) enum Keys {
    /// In rising order of devices.
    Few(Vec<(u16, u64)>),
    /// By their bits.
    Many(Box<Slices>),
}

impl Default for Keys {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Keys {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Few(few) => few.len(),
            Self::Many(slices) => slices.len,
        }
    }

    /// Notes a device's number.
    pub(super) fn set(&mut self, low: u16, key: u64) {
        match self {
            Self::Few(few) => {
                match few.binary_search_by_key(&low, |(low, _)| *low) {
                    Ok(at) => few[at].1 = key,
                    Err(at) => few.insert(at, (low, key)),
                }
                if few.len() > FEW_MAX {
                    *self = Self::Many(Box::new(Slices::of(few)));
                }
            }
            Self::Many(slices) => slices.set(low, key),
        }
    }

    /// Forgets a device's number, if it has one.
    pub(super) fn remove(&mut self, low: u16) {
        match self {
            Self::Few(few) => _ = few.binary_search_by_key(&low, |(low, _)| *low).map(|at| few.remove(at)),
            Self::Many(slices) => {
                slices.len -= usize::from(slices.present.remove(low));
                if slices.len <= FEW_AGAIN {
                    *self = Self::Few(slices.iter().collect());
                }
            }
        }
    }

    /// Leaves only those among the candidates whose number is within the range.
    pub(super) fn narrow(&self, range: &RangeInclusive<u64>, candidates: &mut Bits) {
        match self {
            Self::Few(few) => {
                let mut kept = Bits::default();
                let inside = few.iter().filter(|(low, key)| range.contains(key) && candidates.contains(*low));
                inside.for_each(|(low, _)| _ = kept.insert(*low));
                *candidates = kept;
            }
            Self::Many(slices) => slices.narrow(range, candidates),
        }
    }

    /// What it takes in memory besides itself.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Few(few) => few.capacity() * size_of::<(u16, u64)>(),
            Self::Many(slices) => size_of::<Slices>() + slices.lines.capacity() * size_of::<Line>(),
        }
    }
}

/// Numbers from `base` on that have no more bits than there are slices.
#[derive(Clone)]
pub(super) struct Slices {
    pub(super) present: Bits,
    pub(super) len: usize,
    pub(super) base: u64,
    /// Slices.
    pub(super) width: u32,
    /// By 512 devices, then from the least slice to the greatest.
    pub(super) lines: Vec<Line>,
}

/// The greatest number of so many bits.
const fn greatest(width: u32) -> u64 {
    if width == 0 { 0 } else { u64::MAX >> (u64::BITS - width) }
}

/// The bits that are needed for numbers up to this one.
const fn width_of(greatest: u64) -> u32 {
    u64::BITS - greatest.leading_zeros()
}

impl Slices {
    fn of(few: &[(u16, u64)]) -> Self {
        let base = few.iter().map(|(_, key)| *key).min().unwrap_or(0);
        let width = few.iter().map(|(_, key)| width_of(key - base)).max().unwrap_or(0);
        let mut slices = Self::empty(base, width);
        few.iter().for_each(|(low, key)| slices.set(*low, *key));
        slices
    }

    fn empty(base: u64, width: u32) -> Self {
        Self { present: Bits::default(), len: 0, base, width, lines: vec![[0; LINE_WORDS]; LINES * width as usize] }
    }

    fn set(&mut self, low: u16, key: u64) {
        if key < self.base || key - self.base > greatest(self.width) {
            self.make_room_for(key);
        }
        self.len += usize::from(self.present.insert(low));
        let (number, word, bit) = (key - self.base, usize::from(low >> 6) % LINE_WORDS, low & 63);
        for (slice, line) in self.lines_of_mut(usize::from(low >> 9)).iter_mut().enumerate() {
            line[word] = line[word] & !(1 << bit) | (number >> slice & 1) << bit;
        }
    }

    /// Widens what can be kept. Downward it grows by a power of two, so that falling numbers do not do this each time.
    fn make_room_for(&mut self, key: u64) {
        let top = self.base.saturating_add(greatest(self.width));
        let (base, width) = if key < self.base {
            let width = width_of(top - key);
            (top.saturating_sub(greatest(width)), width)
        } else {
            (self.base, width_of(key - self.base))
        };
        let mut wider = Self::empty(base, width.max(width_of(top - base)));
        self.iter().for_each(|(low, key)| wider.set(low, key));
        *self = wider;
    }

    fn iter(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        self.present.iter().map(|low| {
            let (word, bit) = (usize::from(low >> 6) % LINE_WORDS, low & 63);
            let lines = self.lines_of(usize::from(low >> 9)).iter().rev();
            (low, self.base + lines.fold(0, |number, line| number << 1 | line[word] >> bit & 1))
        })
    }

    fn lines_of(&self, at: usize) -> &[Line] {
        let width = self.width as usize;
        &self.lines[at * width..(at + 1) * width]
    }

    fn lines_of_mut(&mut self, at: usize) -> &mut [Line] {
        let width = self.width as usize;
        &mut self.lines[at * width..(at + 1) * width]
    }

    fn narrow(&self, range: &RangeInclusive<u64>, candidates: &mut Bits) {
        candidates.keep(&self.present);
        let top = self.base.saturating_add(greatest(self.width));
        if *range.start() > top || *range.end() < self.base || range.is_empty() {
            *candidates = Bits::default();
            return;
        }
        // Bounds beyond the numbers that can be kept bound nothing.
        let below = range.start().checked_sub(self.base).and_then(|first| first.checked_sub(1));
        let last = (*range.end() < top).then(|| range.end() - self.base);
        if below.is_none() && last.is_none() {
            return;
        }
        for (at, words) in candidates.words_mut().chunks_exact_mut(LINE_WORDS).enumerate() {
            let Ok(words): Result<&mut Line, _> = words.try_into() else { continue };
            let lines = self.lines_of(at);
            if let Some(last) = last {
                *words = at_most(lines, last, *words);
            }
            if let Some(below) = below {
                let less = at_most(lines, below, *words);
                words.iter_mut().zip(less).for_each(|(word, less)| *word &= !less);
            }
        }
    }
}

/// Those of the candidates whose number is at most `bound`.
fn at_most(lines: &[Line], bound: u64, candidates: Line) -> Line {
    let (mut less, mut equal) = ([0; LINE_WORDS], candidates);
    for (slice, line) in lines.iter().enumerate().rev() {
        if equal == [0; LINE_WORDS] {
            break;
        }
        if bound >> slice & 1 == 1 {
            for at in 0..LINE_WORDS {
                less[at] |= equal[at] & !line[at];
                equal[at] &= line[at];
            }
        } else {
            for at in 0..LINE_WORDS {
                equal[at] &= !line[at];
            }
        }
    }
    for at in 0..LINE_WORDS {
        less[at] |= equal[at];
    }
    less
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of many sizes, for every 7th device.
    fn numbers() -> Vec<(u16, u64)> {
        let number = |low: u16| u64::from(low).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (low % 64);
        (0..u16::MAX).step_by(7).map(|low| (low, number(low))).collect()
    }

    fn listed(keys: &Keys) -> Vec<(u16, u64)> {
        match keys {
            Keys::Few(few) => few.clone(),
            Keys::Many(slices) => slices.iter().collect(),
        }
    }

    fn filled(numbers: &[(u16, u64)]) -> Keys {
        let mut keys = Keys::default();
        numbers.iter().for_each(|(low, key)| keys.set(*low, *key));
        keys
    }

    #[test]
    fn numbers_are_what_was_set_last_however_few_or_many() {
        let mut numbers = numbers();
        for falling in [false, true] {
            if falling {
                numbers.sort_by_key(|(_, key)| std::cmp::Reverse(*key));
            }
            let mut keys = filled(&numbers);
            for (low, key) in &mut numbers {
                *key ^= u64::from(*low);
                keys.set(*low, *key);
            }
            numbers.sort();
            assert_eq!(listed(&keys), numbers);
            let left: Vec<_> = numbers.iter().copied().filter(|(low, _)| low % 3 == 0 && *low < 9_000).collect();
            numbers.iter().filter(|number| !left.contains(number)).for_each(|(low, _)| keys.remove(*low));
            assert!(matches!(keys, Keys::Few(_)));
            assert_eq!(listed(&keys), left);
        }
    }

    #[test]
    fn a_range_holds_those_between_its_ends() {
        let all = numbers();
        for numbers in [&all[..9], &all[..]] {
            let keys = filled(numbers);
            for (from, to) in
                [(0, 0), (0, 5), (1, u64::MAX), (3, 3), (1 << 40, 1 << 50), (u64::MAX, u64::MAX), (0, u64::MAX)]
            {
                let mut candidates = Bits::default();
                all.iter().filter(|(low, _)| low % 2 == 0).for_each(|(low, _)| _ = candidates.insert(*low));
                keys.narrow(&(from..=to), &mut candidates);
                let inside = numbers.iter().filter(|(low, key)| low % 2 == 0 && (from..=to).contains(key));
                assert_eq!(candidates.iter().collect::<Vec<_>>(), inside.map(|(low, _)| *low).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn one_number_for_all_takes_no_slices() {
        let keys = filled(&(0..9_999).map(|low| (low, 42)).collect::<Vec<_>>());
        assert!(matches!(&keys, Keys::Many(slices) if slices.width == 0));
        let mut candidates = Bits::default();
        candidates.insert(7);
        keys.narrow(&(42..=42), &mut candidates);
        assert_eq!(candidates.len(), 1);
        keys.narrow(&(43..=99), &mut candidates);
        assert!(candidates.is_empty());
    }
}
