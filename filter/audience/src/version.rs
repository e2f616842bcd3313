//! Versions of apps and systems: dotted numbers, compared as numbers.

use std::{cmp::Ordering, fmt, str::FromStr};

/// Dotted numbers with an optional pre-release, as in `2.10.0-rc.1`. Missing numbers are zeros (`2.10` is `2.10.0`), and a
/// pre-release comes before its release, by the rules of Semantic Versioning. What follows a `+` says nothing and is
/// forgotten.
#[derive(Clone, Debug)]
pub struct Version {
    numbers: Vec<u64>,
    pre_release: Vec<String>,
}

/// A text that is no version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAVersion;

impl FromStr for Version {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        let text = text.split_once('+').map_or(text, |(version, _build)| version);
        let (numbers, pre_release) = match text.split_once('-') {
            Some((numbers, pre_release)) => (numbers, pre_release.split('.').map(str::to_owned).collect()),
            None => (text, Vec::new()),
        };
        let legal = |part: &String| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !pre_release.iter().all(legal) {
            return Err(NotAVersion);
        }
        let numbers: Option<Vec<u64>> = numbers.split('.').map(number).collect();
        Ok(Self { numbers: numbers.ok_or(NotAVersion)?, pre_release })
    }
}

/// Only digits: a number's own parser would take a sign.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, number) in self.numbers.iter().enumerate() {
            write!(f, "{}{number}", if at == 0 { "" } else { "." })?;
        }
        for (at, part) in self.pre_release.iter().enumerate() {
            write!(f, "{}{part}", if at == 0 { "-" } else { "." })?;
        }
        Ok(())
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let significant = |version: &Self| version.numbers.iter().rposition(|&n| n != 0).map_or(0, |last| last + 1);
        let (ours, theirs) = (&self.numbers[..significant(self)], &other.numbers[..significant(other)]);
        let released = self.pre_release.is_empty().cmp(&other.pre_release.is_empty());
        ours.cmp(theirs).then(released).then_with(|| compare_pre_releases(&self.pre_release, &other.pre_release))
    }
}

/// Numbers that a [`key`](Version::key) has room for.
const KEY_NUMBERS: usize = 4;
/// Bits of a key for each of them.
const KEY_BITS: u32 = 16;

impl Version {
    /// A number for most versions, ordered as they are: those with up to four numbers below 65,536 and no pre-release.
    pub fn key(&self) -> Option<u64> {
        let key = self.first_key()?;
        (self.pre_release.is_empty() && Self::of_key(key) == *self).then_some(key)
    }

    /// The least [`key`](Self::key) of all versions that are not before this one; `None` when all that have keys are.
    pub fn first_key(&self) -> Option<u64> {
        let number = |at: usize| self.numbers.get(at).copied().unwrap_or(0);
        let mut key = 0;
        for at in 0..KEY_NUMBERS {
            if number(at) >> KEY_BITS != 0 {
                let behind = KEY_BITS * (KEY_NUMBERS - at) as u32;
                let next: u64 = key + 1;
                return (at > 0).then(|| next << behind).filter(|raised| raised >> behind == next);
            }
            key = key << KEY_BITS | number(at);
        }
        let beyond = self.numbers.iter().skip(KEY_NUMBERS).any(|number| *number != 0);
        if beyond { key.checked_add(1) } else { Some(key) }
    }

    fn of_key(key: u64) -> Self {
        let number = |at| key >> (KEY_BITS * (KEY_NUMBERS - 1 - at) as u32) & ((1 << KEY_BITS) - 1);
        Self { numbers: (0..KEY_NUMBERS).map(number).collect(), pre_release: Vec::new() }
    }
}

fn compare_pre_releases(ours: &[String], theirs: &[String]) -> Ordering {
    let part = |ours: &String, theirs: &String| match (number(ours), number(theirs)) {
        (Some(ours), Some(theirs)) => ours.cmp(&theirs),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => ours.cmp(theirs),
    };
    let first_difference = ours.iter().zip(theirs).map(|(ours, theirs)| part(ours, theirs)).find(|order| order.is_ne());
    first_difference.unwrap_or(ours.len().cmp(&theirs.len()))
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Version {}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn versions_are_ordered_by_number_and_pre_releases_come_first() {
        let rising = [
            "0",
            "2.9.9",
            "2.10-alpha",
            "2.10-alpha.1",
            "2.10-alpha.beta",
            "2.10-rc.2",
            "2.10-rc.10",
            "2.10",
            "2.10.0.1",
            "11",
        ];
        for (at, earlier) in rising.iter().enumerate() {
            for later in &rising[at + 1..] {
                assert!(version(earlier) < version(later), "{earlier} < {later}");
            }
        }
    }

    #[test]
    fn missing_numbers_are_zeros_and_builds_say_nothing() {
        assert_eq!(version("2.10"), version("2.10.0+345"));
        assert_eq!(version("2.10.0+345").to_string(), "2.10.0");
        assert_eq!(version("1.0-rc.1").to_string(), "1.0-rc.1");
    }

    #[test]
    fn keys_are_ordered_as_versions_are_and_tell_where_others_lie() {
        let all = [
            "0",
            "0.0.0.1",
            "1.65535.0.0",
            "1.65535.65535.65535.7",
            "1.65536-rc.1",
            "1.70000",
            "2-rc.1",
            "2",
            "2.9.9",
            "2.10",
            "2.10.0.0.1",
            "2.10.0.1",
            "65535.65535.65535.65535",
            "65535.65535.65535.65535.1",
            "65536",
            "99999999",
        ];
        let keyed = || all.map(version).into_iter().filter_map(|version| Some((version.key()?, version)));
        assert_eq!(keyed().count(), 8);
        assert_eq!(version("2.10.0").key(), version("2.10").key());
        for other in all.map(version) {
            let expected =
                |key: u64, version: &Version| (other.first_key().is_some_and(|first| key >= first), *version >= other);
            for (key, version) in keyed() {
                let (by_key, by_order) = expected(key, &version);
                assert_eq!(by_key, by_order, "{version} >= {other}");
            }
        }
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in
            ["", "v2", "2.", ".2", "2..1", "-1", "+1", "2.x", "2-", "2-rc..1", "2 (345)", "99999999999999999999"]
        {
            assert_eq!(text.parse::<Version>(), Err(NotAVersion), "{text:?}");
        }
    }
}
