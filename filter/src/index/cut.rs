//! Values as numbers that are ordered as they are, and where other values cut through that order.

use std::ops::RangeInclusive;

use audience::{Comparison, Version};

/// Whole numbers from here to its negation are told apart by a double.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// The place of a value among the keys of a column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cut {
    /// The least key that is not before it, if there is one.
    first: Option<u64>,
    /// Whether that key is the value's own.
    exact: bool,
}

impl Cut {
    /// The place of the value that has this key.
    pub(super) const fn at(key: u64) -> Self {
        Self { first: Some(key), exact: true }
    }

    /// The place of a number among whole ones.
    pub(super) fn among_wholes(number: f64) -> Self {
        let first = if number > WHOLE_MAX { None } else { Some(whole_key(number.max(-WHOLE_MAX).ceil())) };
        Self { first, exact: whole(number).is_some() }
    }

    /// The place of a version among those that have keys.
    pub(super) fn among_versions(version: &Version) -> Self {
        Self { first: version.first_key(), exact: version.key().is_some() }
    }

    /// The keys that compare so with the value; all but the value's own for [`Comparison::NotEqual`] is two ranges,
    /// and asked for otherwise.
    pub(super) fn range(self, comparison: Comparison) -> Option<RangeInclusive<u64>> {
        let before = || match self.first {
            Some(first) => first.checked_sub(1).map(|last| 0..=last),
            None => Some(0..=u64::MAX),
        };
        match (comparison, self.first) {
            (Comparison::Equal | Comparison::NotEqual, first) => first.filter(|_| self.exact).map(|key| key..=key),
            (Comparison::Less, _) => before(),
            (Comparison::AtMost, Some(key)) if self.exact => Some(0..=key),
            (Comparison::AtMost, _) => before(),
            (Comparison::Greater, Some(key)) if self.exact => key.checked_add(1).map(|first| first..=u64::MAX),
            (Comparison::Greater | Comparison::AtLeast, first) => first.map(|first| first..=u64::MAX),
        }
    }
}

/// The key of a number that is whole.
pub(super) fn whole(number: f64) -> Option<u64> {
    (number.abs() <= WHOLE_MAX && number.fract() == 0.0).then(|| whole_key(number))
}

fn whole_key(number: f64) -> u64 {
    time(number as i64)
}

/// The key of any number.
pub(super) fn number(number: f64) -> u64 {
    let bits = number.to_bits();
    if number.is_sign_negative() { !bits } else { bits | 1 << 63 }
}

/// The key of a moment, or of any other signed number.
pub(super) const fn time(millis: i64) -> u64 {
    millis.cast_unsigned() ^ 1 << 63
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBERS: [f64; 12] = [f64::MIN, -WHOLE_MAX, -2.0, -1.5, -0.0, 0.0, 1e-9, 0.5, 1.0, 7.0, WHOLE_MAX, f64::MAX];

    #[test]
    fn keys_are_ordered_as_numbers_are() {
        for (a, b) in NUMBERS.iter().flat_map(|a| NUMBERS.map(|b| (*a, b))).filter(|(a, b)| a < b) {
            assert!(number(a) < number(b), "{a} < {b}");
            assert!(whole(a).zip(whole(b)).is_none_or(|(a, b)| a < b), "{a} < {b}");
        }
        assert_eq!(whole(-0.0), whole(0.0));
    }

    #[test]
    fn any_number_cuts_the_whole_ones_where_it_lies() {
        for (with, value) in NUMBERS.iter().flat_map(|a| NUMBERS.map(|b| (*a, b))) {
            let Some((key, order)) = whole(value).zip(value.partial_cmp(&with)) else { continue };
            for comparison in Comparison::ALL.into_iter().filter(|comparison| *comparison != Comparison::NotEqual) {
                let found = Cut::among_wholes(with).range(comparison).is_some_and(|range| range.contains(&key));
                assert_eq!(found, comparison.accepts(order), "{value} {} {with}", comparison.as_str());
            }
        }
    }
}
