//! Where things stand in streams: numbers, positions, and what a device has acked.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Timestamp;

/// Bits that a millisecond leaves for entries of the same millisecond: 4,096 of them, and numbers stay below 2^53
/// (what a JavaScript number holds) until 2039-09-07.
const BITS_BELOW_MILLIS: u32 = 12;

/// One of the two streams a device reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// The stream of one device.
    Inbox,
    /// The stream of the whole app.
    Timeline,
}

impl Stream {
    /// The letter before a number: `i` or `t`.
    pub const fn letter(self) -> char {
        match self {
            Self::Inbox => 'i',
            Self::Timeline => 't',
        }
    }
}

/// Where an entry stands in its stream: strictly growing, with gaps, never used again. Zero is before everything.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// Before every entry.
    pub const ZERO: Self = Self(0);

    /// The number after `self` for an entry appended `now`: `max(last + 1, now_ms << 12)`. A store that lost its last
    /// entries therefore never gives their numbers to others.
    pub fn next(self, now: Timestamp) -> Self {
        Self((self.0 + 1).max(now.as_millis() << BITS_BELOW_MILLIS))
    }

    /// When it was given; later than that when many numbers were given in one moment.
    pub fn at(self) -> Timestamp {
        Timestamp::from_millis(self.0 >> BITS_BELOW_MILLIS)
    }

    /// The form messages carry: `i7353343181303808`.
    pub fn in_stream(self, stream: Stream) -> impl fmt::Display {
        SeqIn(stream, self)
    }
}

impl fmt::Debug for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

struct SeqIn(Stream, Seq);

impl fmt::Display for SeqIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.0.letter(), self.1.0)
    }
}

/// The text is not `i<number>.t<number>`.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a position looks like i0.t0: `i`, the last number received in the inbox, `.t`, the last one in the timeline")]
pub struct InvalidPosition;

/// The last number a device received in each stream; written `i<number>.t<number>`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// In the inbox.
    pub inbox: Seq,
    /// In the timeline.
    pub timeline: Seq,
}

impl Position {
    /// The number in one stream.
    pub fn get(&self, stream: Stream) -> Seq {
        match stream {
            Stream::Inbox => self.inbox,
            Stream::Timeline => self.timeline,
        }
    }

    /// The greater of the two in each stream.
    pub fn max(self, other: Self) -> Self {
        Self { inbox: self.inbox.max(other.inbox), timeline: self.timeline.max(other.timeline) }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "i{}.t{}", self.inbox.0, self.timeline.0)
    }
}

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let (inbox, timeline) = text.split_once('.').ok_or(InvalidPosition)?;
        Ok(Self { inbox: number(inbox, "i")?, timeline: number(timeline, "t")? })
    }
}

/// A decimal number without leading zeros or sign behind its letter.
fn number(text: &str, letter: &str) -> Result<Seq, InvalidPosition> {
    let digits = text.strip_prefix(letter).ok_or(InvalidPosition)?;
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    if !plain {
        return Err(InvalidPosition);
    }
    digits.parse().map(Seq).map_err(|_| InvalidPosition)
}

/// How far a device has come in one stream.
///
/// Everything up to `prefix` is done with; `beyond` are the few entries acked beyond a hole (at most a window of
/// them); up to `sent` entries have been on the wire, so what is sent again there carries the DUP flag.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Everything up to here is acked, or was not for this device.
    pub prefix: Seq,
    /// Acked entries after the first one that is not, in rising order.
    pub beyond: Vec<Seq>,
    /// The last entry a session has sent; never below `prefix`.
    pub sent: Seq,
}

impl Progress {
    /// What this and another know together: nothing that was acked is forgotten.
    fn further(self, other: Self) -> Self {
        let prefix = self.prefix.max(other.prefix);
        let mut beyond: Vec<_> = self.beyond.into_iter().chain(other.beyond).filter(|seq| *seq > prefix).collect();
        beyond.sort_unstable();
        beyond.dedup();
        Self { prefix, beyond, sent: self.sent.max(other.sent).max(prefix) }
    }
}

/// How far a device has come in both streams.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// In its inbox.
    pub inbox: Progress,
    /// In its app's timeline.
    pub timeline: Progress,
}

impl Cursor {
    /// A cursor with nothing open: everything up to `position` is done with.
    pub fn at(position: Position) -> Self {
        let progress = |seq| Progress { prefix: seq, beyond: Vec::new(), sent: seq };
        Self { inbox: progress(position.inbox), timeline: progress(position.timeline) }
    }

    /// What this cursor and another of the same device know together: whichever session it was, what was acked there
    /// stays acked.
    pub fn further(self, other: Self) -> Self {
        Self { inbox: self.inbox.further(other.inbox), timeline: self.timeline.further(other.timeline) }
    }

    /// The acked prefixes as a position.
    pub fn position(&self) -> Position {
        Position { inbox: self.inbox.prefix, timeline: self.timeline.prefix }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_the_clock_and_never_go_back() {
        let at = Timestamp::from_millis(1_795_249_800_123);
        let first = Seq::ZERO.next(at);
        assert_eq!(first, Seq(7_353_343_181_303_808));
        assert_eq!(first.next(at), Seq(7_353_343_181_303_809));
        assert_eq!(first.next(Timestamp::from_millis(5)), Seq(7_353_343_181_303_809));
        assert!(first.0 < 1 << 53);
    }

    #[test]
    fn positions_print_as_they_parse() {
        let position = Position { inbox: Seq(7), timeline: Seq(0) };
        assert_eq!(position.to_string(), "i7.t0");
        assert_eq!("i7.t0".parse(), Ok(position));
        for bad in ["", "i7", "t7.i0", "i07.t0", "i.t", "i-1.t0", "i7.t0.", "i99999999999999999999.t0", "i+1.t0"] {
            assert_eq!(bad.parse::<Position>(), Err(InvalidPosition), "{bad:?}");
        }
    }
}
