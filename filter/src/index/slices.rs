//! Numbers of devices of a block, kept by their bits, so that a range is found without looking at any number.
//!
//! A slice is one bit of everybody's number. Comparing with a bound goes from slice to slice, 512 devices at a time; where
//! there are many slices, from the greatest on, and only until nobody of them is still equal to the bound: after about
//! ten, however many there are. The slices of 512 devices lie side by side, a cache line each.

use std::ops::RangeInclusive;

use super::bits::Bits;

/// Words of a slice that lie together: a cache line.
const LINE_WORDS: usize = 8;
/// Lines of a slice.
pub(super) const LINES: usize = model::ordinal::BLOCK_WORDS / LINE_WORDS;

/// One bit of the numbers of 512 devices.
type Line = [u64; LINE_WORDS];

/// Slices up to which it is quicker to look at all of them than whether the rest can be left out.
const NARROW: usize = 10;

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

/// Numbers from `base` on whose further bits are all in `mask`.
///
/// Numbers of one column have much in common: they lie close together, or are made of parts that never fill their
/// places. A bit that nobody has takes no slice.
#[derive(Clone)]
pub(super) struct Slices {
    pub(super) present: Bits,
    pub(super) len: usize,
    /// A multiple of the power of two that reached beyond the numbers when it was chosen: what it leaves of them has no
    /// other bits than they have.
    pub(super) base: u64,
    /// The bits that anybody's number has above the base: a slice each.
    pub(super) mask: u64,
    /// By 512 devices, then from the least slice to the greatest.
    pub(super) lines: Vec<Line>,
}

/// All numbers that need no more bits than this one.
const fn reach(number: u64) -> u64 {
    match number.leading_zeros() {
        u64::BITS => 0,
        unused => u64::MAX >> unused,
    }
}

/// The places of a mask's bits, from the least.
fn places(mask: u64) -> impl Iterator<Item = u32> {
    (0..u64::BITS).filter(move |place| mask >> place & 1 == 1)
}

impl Slices {
    fn of(numbers: &[(u16, u64)]) -> Self {
        let keys = || numbers.iter().map(|(_, key)| *key);
        let (least, greatest) = (keys().min().unwrap_or(0), keys().max().unwrap_or(0));
        let base = least & !reach(greatest - least);
        let mask = keys().fold(0, |mask, key| mask | (key - base));
        let lines = vec![[0; LINE_WORDS]; LINES * mask.count_ones() as usize];
        let mut slices = Self { present: Bits::default(), len: 0, base, mask, lines };
        numbers.iter().for_each(|(low, key)| slices.set(*low, *key));
        slices
    }

    fn set(&mut self, low: u16, key: u64) {
        if key < self.base || (key - self.base) & !self.mask != 0 {
            // At most 64 times for new bits; and downward each time there is twice the room.
            let others = self.iter().filter(|(other, _)| *other != low);
            *self = Self::of(&others.chain([(low, key)]).collect::<Vec<_>>());
            return;
        }
        self.len += usize::from(self.present.insert(low));
        let (number, word, bit) = (key - self.base, usize::from(low >> 6) % LINE_WORDS, low & 63);
        for (place, line) in places(self.mask).zip(self.lines_of_mut(usize::from(low >> 9))) {
            line[word] = line[word] & !(1 << bit) | (number >> place & 1) << bit;
        }
    }

    fn iter(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        self.present.iter().map(|low| {
            let (word, bit) = (usize::from(low >> 6) % LINE_WORDS, low & 63);
            let lines = places(self.mask).zip(self.lines_of(usize::from(low >> 9)));
            (low, self.base + lines.fold(0, |number, (place, line)| number | (line[word] >> bit & 1) << place))
        })
    }

    fn lines_of(&self, at: usize) -> &[Line] {
        let width = self.mask.count_ones() as usize;
        &self.lines[at * width..(at + 1) * width]
    }

    fn lines_of_mut(&mut self, at: usize) -> &mut [Line] {
        let width = self.mask.count_ones() as usize;
        &mut self.lines[at * width..(at + 1) * width]
    }

    /// What a bound says about the slices alone: numbers are at most `bound` where their bits are at most these.
    fn bound(&self, bound: u64) -> u64 {
        let beyond = bound & !self.mask;
        // With a bit that nobody has the bound is greater than all numbers that agree with it above that bit.
        let bound = if beyond == 0 { bound } else { bound | reach(beyond) };
        (0..).zip(places(self.mask)).fold(0, |bits, (slice, place)| bits | (bound >> place & 1) << slice)
    }

    fn narrow(&self, range: &RangeInclusive<u64>, candidates: &mut Bits) {
        candidates.keep(&self.present);
        // The greatest bound there is: nobody is beyond.
        let all = self.bound(u64::MAX);
        let last = range.end().checked_sub(self.base).map(|last| self.bound(last));
        let below =
            range.start().checked_sub(self.base).and_then(|first| first.checked_sub(1)).map(|last| self.bound(last));
        let (Some(last), false) = (last, range.is_empty() || below == Some(all)) else {
            *candidates = Bits::default();
            return;
        };
        if last == all && below.is_none() {
            return;
        }
        for (at, words) in candidates.words_mut().as_chunks_mut().0.iter_mut().enumerate() {
            if words.iter().fold(0, |any, word| any | word) == 0 {
                continue;
            }
            let lines = self.lines_of(at);
            if last != all {
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
    if lines.len() <= NARROW {
        at_most_by_all(lines, bound, candidates)
    } else {
        at_most_by_first(lines, bound, candidates)
    }
}

/// From the least slice on: little to do for each, and nothing is left out.
fn at_most_by_all(lines: &[Line], bound: u64, candidates: Line) -> Line {
    let mut found = [u64::MAX; LINE_WORDS];
    // As long as the bound's bits are ones nobody is beyond.
    for (slice, line) in lines.iter().enumerate().skip(bound.trailing_ones() as usize) {
        if bound >> slice & 1 == 1 {
            for at in 0..LINE_WORDS {
                found[at] |= !line[at];
            }
        } else {
            for at in 0..LINE_WORDS {
                found[at] &= !line[at];
            }
        }
    }
    for at in 0..LINE_WORDS {
        found[at] &= candidates[at];
    }
    found
}

/// From the greatest slice on, until nobody is equal to the bound so far.
fn at_most_by_first(lines: &[Line], bound: u64, candidates: Line) -> Line {
    let (mut less, mut equal) = ([0; LINE_WORDS], candidates);
    for (slice, line) in lines.iter().enumerate().rev() {
        if equal.iter().fold(0, |any, word| any | word) == 0 {
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
        assert!(matches!(&keys, Keys::Many(slices) if slices.mask == 0));
        let mut candidates = Bits::default();
        candidates.insert(7);
        keys.narrow(&(42..=42), &mut candidates);
        assert_eq!(candidates.len(), 1);
        keys.narrow(&(43..=99), &mut candidates);
        assert!(candidates.is_empty());
    }
}
