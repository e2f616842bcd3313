//! The client rule: what a terminal keeps so that its application sees each message once.

use std::{collections::VecDeque, fmt, str::FromStr};

use model::{MessageId, Position, Seq, Stream};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Ids a terminal remembers: the contract's number.
const IDS_KEPT: usize = 1_000;

/// Where one message stands: `i<number>` in the inbox, `t<number>` in the timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The stream.
    pub stream: Stream,
    /// The number in it.
    pub seq: Seq,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.seq.in_stream(self.stream).fmt(f)
    }
}

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (stream, digits) = match text.split_at_checked(1)? {
                ("i", digits) => (Stream::Inbox, digits),
                ("t", digits) => (Stream::Timeline, digits),
                _ => return None,
            };
            let plain = digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
            let seq = digits.parse().ok().filter(|_| plain)?;
            Some(Self { stream, seq: Seq(seq) })
        };
        parse().ok_or("a seq looks like i7 or t7")
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// What a terminal has received: the greatest number of each stream and the last ids.
#[derive(Clone, Debug, Default)]
pub struct Received {
    position: Position,
    ids: VecDeque<MessageId>,
}

impl Received {
    /// Takes a message in; false when the application has had it, so it must not see it again.
    pub fn is_new(&mut self, id: MessageId, place: Place) -> bool {
        let greatest = match place.stream {
            Stream::Inbox => &mut self.position.inbox,
            Stream::Timeline => &mut self.position.timeline,
        };
        if place.seq <= *greatest {
            return false;
        }
        *greatest = place.seq;
        if self.ids.contains(&id) {
            return false;
        }
        if self.ids.len() == IDS_KEPT {
            self.ids.pop_front();
        }
        self.ids.push_back(id);
        true
    }

    /// The greatest numbers: what a device states as `after`.
    pub fn position(&self) -> Position {
        self.position
    }
}

#[cfg(test)]
mod tests {
    use model::Timestamp;

    use super::*;

    fn id(n: u64) -> MessageId {
        MessageId::new(Timestamp::from_millis(n), 0)
    }

    fn place(text: &str) -> Place {
        text.parse().unwrap()
    }

    #[test]
    fn a_place_prints_as_it_parses() {
        for text in ["i0", "t7353343181303808"] {
            assert_eq!(place(text).to_string(), text);
        }
        for bad in ["", "i", "x1", "i01", "t-1", "t+1", "1", "é1", "i99999999999999999999"] {
            assert!(bad.parse::<Place>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_number_not_greater_is_dropped_in_its_own_stream_only() {
        let mut received = Received::default();
        assert!(received.is_new(id(1), place("i5")));
        assert!(!received.is_new(id(2), place("i5")));
        assert!(!received.is_new(id(3), place("i4")));
        assert!(received.is_new(id(4), place("t4")));
        assert_eq!(received.position().to_string(), "i5.t4");
    }

    #[test]
    fn a_known_id_is_dropped_under_any_number() {
        let mut received = Received::default();
        assert!(received.is_new(id(1), place("i5")));
        assert!(!received.is_new(id(1), place("i9")));
        assert!(!received.is_new(id(1), place("t9")));
        assert!(received.is_new(id(2), place("i10")));
        assert_eq!(received.position().to_string(), "i10.t9");
    }

    #[test]
    fn the_last_thousand_ids_are_remembered() {
        let mut received = Received::default();
        for n in 1..=1_001 {
            assert!(received.is_new(id(n), Place { stream: Stream::Inbox, seq: Seq(n) }));
        }
        assert!(received.is_new(id(1), place("i2000")), "the oldest is forgotten");
        assert!(!received.is_new(id(3), place("i2001")), "the last thousand are not");
    }
}
