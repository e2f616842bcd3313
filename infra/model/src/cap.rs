//! How often a device may get messages of one type, and how often it did.

use serde::{Deserialize, Serialize};

use crate::{
    MessageId, Ordinals, Timestamp,
    record::Record,
    shelved::{Shelf, Shelved},
};

/// Most messages that a cap may allow: each is a set of devices.
pub const CAP_MAX: u32 = 10;

/// Messages whose counting is remembered, so that one which comes again is not counted twice: more than are ever
/// between counting and the note of what was decided, which remembers for longer.
const REMEMBERED_MAX: usize = 64;

/// At most so many messages of a type for one device in a span of time. Spans begin at multiples of their length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cap {
    /// How many: 1 to [`CAP_MAX`].
    pub max: u32,
    /// In how many seconds.
    pub per_s: u64,
}

impl Record for Cap {
    const VERSION: u8 = 1;
}

impl Shelved for Cap {
    const SHELF: Shelf = Shelf::Caps;
}

/// Who got how many messages of a capped type in one span.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// Which cap, and which span of it.
    span: (u64, u64),
    /// Who got at least one, at least two, and so on.
    at_least: Vec<Ordinals>,
    /// The latest messages, with those who did not get them for the cap.
    messages: Vec<(MessageId, Ordinals)>,
}

impl Counted {
    /// Who has had as many as the cap allows.
    pub fn full(&self, cap: Cap, now: Timestamp) -> Ordinals {
        let full = self.at_least.get(cap.max as usize - 1).filter(|_| self.span == span(cap, now));
        full.cloned().unwrap_or_default()
    }

    /// Counts a message that is for these devices; returns who does not get it. Counting it again changes nothing.
    pub fn count(&mut self, cap: Cap, message: MessageId, devices: &Ordinals, now: Timestamp) -> Ordinals {
        if let Some((_, capped)) = self.messages.iter().find(|(known, _)| *known == message) {
            return capped.clone();
        }
        let span = span(cap, now);
        if self.span != span {
            (self.span, self.at_least) = (span, Vec::new());
        }
        self.at_least.resize(cap.max as usize, Ordinals::new());
        let mut capped = devices.clone();
        capped &= &self.full(cap, now);
        let mut getting = devices.clone();
        getting -= &capped;
        for more in (1..self.at_least.len()).rev() {
            let mut again = self.at_least[more - 1].clone();
            again &= &getting;
            self.at_least[more] |= &again;
        }
        self.at_least[0] |= &getting;
        if self.messages.len() == REMEMBERED_MAX {
            self.messages.remove(0);
        }
        self.messages.push((message, capped.clone()));
        capped
    }
}

/// The span that this moment lies in; caps of other lengths have other spans.
fn span(cap: Cap, now: Timestamp) -> (u64, u64) {
    let length = cap.per_s.max(1);
    (length, now.as_millis() / 1_000 / length)
}

impl Record for Counted {
    const VERSION: u8 = 1;
}

impl Shelved for Counted {
    const SHELF: Shelf = Shelf::Counts;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ordinal;

    const CAP: Cap = Cap { max: 2, per_s: 60 };

    fn set(ordinals: &[u32]) -> Ordinals {
        ordinals.iter().copied().map(Ordinal).collect()
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + seconds * 1_000)
    }

    fn message(number: u128) -> MessageId {
        MessageId::new(at(0), number)
    }

    #[test]
    fn a_device_gets_as_many_as_it_may_in_a_span() {
        let mut counted = Counted::default();
        assert_eq!(counted.count(CAP, message(1), &set(&[1, 2]), at(0)), set(&[]));
        assert_eq!(counted.count(CAP, message(2), &set(&[2, 3]), at(1)), set(&[]));
        assert_eq!(counted.full(CAP, at(1)), set(&[2]));
        assert_eq!(counted.count(CAP, message(3), &set(&[1, 2, 3]), at(59)), set(&[2]));
        assert_eq!(counted.count(CAP, message(4), &set(&[1, 2, 3, 4]), at(59)), set(&[1, 2, 3]));
        assert_eq!(counted.full(CAP, at(60)), set(&[]));
        assert_eq!(counted.count(CAP, message(5), &set(&[1, 2, 3, 4]), at(60)), set(&[]));
    }

    #[test]
    fn a_message_that_comes_again_is_counted_once() {
        let mut counted = Counted::default();
        for _ in 0..3 {
            assert_eq!(counted.count(CAP, message(1), &set(&[1]), at(0)), set(&[]));
        }
        counted.count(CAP, message(2), &set(&[1]), at(0));
        for _ in 0..2 {
            assert_eq!(counted.count(CAP, message(3), &set(&[1, 2]), at(0)), set(&[1]));
        }
    }
}
