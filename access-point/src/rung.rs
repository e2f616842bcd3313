//! What bells have told of a timeline and nobody has looked for yet: so whoever hears bells never waits for the store, and
//! bells that ring while somebody looks make him look once more, however many they are.

use model::{MessageId, Seq};
use parking_lot::Mutex;

/// Messages called back that are listed; a sweep finds more.
pub(crate) const CANCELLED_MAX: usize = 64;

/// What is to be looked for.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// How far the timeline has grown.
    pub(crate) head: Option<Seq>,
    /// Messages that were called back.
    pub(crate) cancelled: Vec<MessageId>,
}

impl Wanted {
    /// The timeline has grown.
    pub(crate) fn grown(&mut self, head: Seq) {
        self.head = self.head.max(Some(head));
    }

    /// A message was called back; the same is told in every lane. False when too many are listed.
    pub(crate) fn cancelled(&mut self, message: MessageId) -> bool {
        if self.cancelled.contains(&message) {
            return true;
        }
        let may = self.cancelled.len() < CANCELLED_MAX;
        if may {
            self.cancelled.push(message);
        }
        may
    }

    fn is_none(&self) -> bool {
        self.head.is_none() && self.cancelled.is_empty()
    }
}

#[derive(Debug, Default)]
struct Notes {
    wanted: Wanted,
    /// Whether somebody looks, and will take what is noted.
    attended: bool,
}

/// What one timeline's bells have told.
#[derive(Debug, Default)]
pub(crate) struct Rung(Mutex<Notes>);

impl Rung {
    /// Notes what a bell has told. Whether nobody looks: then whoever asked must.
    pub(crate) fn note(&self, note: impl FnOnce(&mut Wanted)) -> bool {
        let mut notes = self.0.lock();
        note(&mut notes.wanted);
        !std::mem::replace(&mut notes.attended, true)
    }

    /// What was noted since it was last taken; when nothing was, nobody looks from here on.
    pub(crate) fn take(&self) -> Option<Wanted> {
        let mut notes = self.0.lock();
        let wanted = std::mem::take(&mut notes.wanted);
        notes.attended = !wanted.is_none();
        notes.attended.then_some(wanted)
    }
}

#[cfg(test)]
mod tests {
    use model::{Lane, Timestamp};

    use super::*;

    #[test]
    fn what_rings_while_somebody_looks_makes_him_look_once_more() {
        let rung = Rung::default();
        assert!(rung.note(|wanted| wanted.grown(Seq(3))), "nobody looks yet");
        assert_eq!(rung.take().and_then(|wanted| wanted.head), Some(Seq(3)));
        assert!(!rung.note(|wanted| wanted.grown(Seq(9))));
        assert!(!rung.note(|wanted| wanted.grown(Seq(5))), "bells overtake each other");
        assert_eq!(rung.take().and_then(|wanted| wanted.head), Some(Seq(9)));
        assert!(rung.take().is_none());
        assert!(rung.note(|wanted| wanted.grown(Seq(9))), "nobody looks any more");
    }

    #[test]
    fn of_what_is_called_back_so_much_is_listed_and_each_once() {
        let mut wanted = Wanted::default();
        let message = |number: usize| MessageId::new(Timestamp::from_millis(number as u64), 0);
        for _ in Lane::ALL {
            assert!((0..CANCELLED_MAX).all(|number| wanted.cancelled(message(number))));
        }
        assert_eq!(wanted.cancelled.len(), CANCELLED_MAX);
        assert!(!wanted.cancelled(message(CANCELLED_MAX)));
    }
}
